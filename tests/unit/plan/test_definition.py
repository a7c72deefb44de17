"""Algorithms of the user's own: what can be described, what is refused, and what they are worth."""

from collections.abc import Callable, Iterator

import pytest

import collect
from collect import native
from collect.cli.plan import count_cost
from collect.errors import InvalidArgument
from collect.native import definition
from collect.native.codes import Collective, Signatures
from collect.native.definition import COLLECTIVES, Definition, Plan, RankPlans
from collect.native.plan import RANK_NONE


def star(plan: Plan) -> None:
    for owner in range(plan.world):
        plan.slice(reduce={rank: owner for rank in range(plan.world) if rank != owner})


def to_all(plan: Plan) -> None:
    """Every block, straight to everybody."""
    for block in range(plan.world):
        others = [rank for rank in range(plan.world) if rank != block]
        plan.slice(block=block, spread=dict.fromkeys(others, block))


def chain(plan: Plan) -> None:
    below = {rank: rank - 1 for rank in range(plan.world - 1, 0, -1)}
    if plan.collective == "broadcast":
        plan.slice(spread=below)
    elif plan.collective == "scatter":
        for block in range(plan.world):
            plan.slice(block=block, spread={r: p for r, p in below.items() if r <= block})
    elif plan.collective == "gather":
        for block in range(plan.world):
            plan.slice(block=block, spread={rank - 1: rank for rank in range(1, block + 1)})
    elif plan.collective == "reduce_scatter":
        for block in range(plan.world):
            ring = {(block + i) % plan.world: (block + i - 1) % plan.world for i in range(1, 3)}
            plan.slice(block=block, reduce=ring)
    elif plan.collective == "reduce":
        plan.slice(reduce=below)
    elif plan.collective == "all_gather":
        to_all(plan)
    else:
        plan.slice(reduce=below)


def made(function: Callable[[Plan], None], collective: str = "all_reduce") -> Definition:
    return collect.plan("own", collective=collective)(function)


# ---- what is right -------------------------------------------------------------------------------


@pytest.mark.parametrize("collective", COLLECTIVES)
def test_every_collective_but_two_can_be_described(collective: str) -> None:
    own = made(chain, collective)

    assert own.check(3) is None
    plans = RankPlans(own, 3, 2)
    assert [plans.of_rank(rank).rank for rank in range(3)] == [0, 1, 2]
    assert str(plans.of_rank(1)).startswith(f"own {collective}, rank 1 of 3")


@pytest.mark.parametrize("world", [2, 3, 8, 33])
def test_a_description_of_direct_exchange_has_its_cost(world: int) -> None:
    own = made(star)

    assert own.check(world) is None
    plans = RankPlans(own, world)
    cost = count_cost([plans.of_rank(rank) for rank in range(world)], 64 * world)
    assert cost.hops == 2
    assert cost.frames == 2 * world * (world - 1)
    assert set(cost.sent_bytes) == {2 * 64 * (world - 1)}


def test_the_root_is_where_ranks_are_counted_from() -> None:
    plan = RankPlans(made(chain, "broadcast"), 4, 3).of_rank(3)

    assert plan.root == 3
    assert [step.target for step in plan.lanes[0]] == [0, None]


def test_where_nothing_is_added_there_is_no_plan() -> None:
    own = made(lambda plan: star(plan) if plan.world % 2 == 0 else None)

    assert own.check(3) is None
    assert own.describe(3) is None
    with pytest.raises(InvalidArgument, match="own has no plan for 3 ranks"):
        RankPlans(own, 3)


def test_trees_may_be_pairs_and_slices_of_blocks_come_in_any_order() -> None:
    def pairs(plan: Plan) -> None:
        for block in reversed(range(plan.world)):
            plan.slice(block=block, spread=((r, block) for r in range(plan.world) if r != block))

    assert made(pairs, "all_gather").check(5) is None


def test_the_number_follows_from_what_is_said_and_from_nothing_else() -> None:
    def other_words(plan: Plan) -> None:
        star(plan)

    assert made(star).number == made(other_words).number
    assert made(star).number != made(chain).number
    assert made(star).number != collect.plan("other")(star).number
    assert made(star).number >= native.lib.COLLECT_ALGORITHM_DEFINED == definition.NUMBER_FIRST


def test_a_world_that_is_never_used_may_be_beyond_the_function() -> None:
    def only_four(plan: Plan) -> None:
        if plan.world != 4:
            raise ZeroDivisionError
        star(plan)

    assert made(only_four).number != made(star).number
    assert made(only_four).check(4) is None
    with pytest.raises(ZeroDivisionError):
        made(only_four).check(5)


def test_calls_know_the_name_for_its_collective_only() -> None:
    signatures = Signatures()
    signatures.define("own", "all_reduce", 77)

    assert signatures.get(Collective.ALL_REDUCE, 10, "sum", "own").algorithm == 77
    with pytest.raises(InvalidArgument, match="'own' cannot do broadcast"):
        signatures.get(Collective.BROADCAST, 10, "sum", "own")
    with pytest.raises(InvalidArgument, match="one of 'auto'"):
        signatures.get(Collective.ALL_REDUCE, 10, "sum", "nobodys")


# ---- what is wrong -------------------------------------------------------------------------------


def wrong() -> Iterator[tuple[str, dict[int, int], dict[int, int] | None, str]]:
    yield "missing", {1: 0, 2: 0}, None, "slice 0: the part of rank 3 is missing"
    yield "two owners", {1: 0, 3: 2}, None, "slice 0: two owners: neither rank 0 nor rank 2"
    yield "cycle", {1: 2, 2: 3, 3: 1}, None, "slice 0: reduce is a cycle: from rank 1"
    yield "range", {1: 0, 2: 0, 4: 0}, None, "not two of the ranks 0 to 3"
    yield "result", {1: 0, 2: 0, 3: 0}, {1: 0, 2: 0}, "nobody send to rank 3, which needs"
    yield (
        "origin",
        {1: 0, 2: 0, 3: 0},
        {0: 1, 2: 1, 3: 1},
        "spread sends to rank 0, where it begins",
    )


@pytest.mark.parametrize(
    ("reduce", "spread", "reason"), [each[1:] for each in wrong()], ids=[e[0] for e in wrong()]
)
def test_a_wrong_description_is_refused_with_its_reason(
    reduce: dict[int, int], spread: dict[int, int] | None, reason: str
) -> None:
    found = made(lambda plan: plan.slice(reduce=reduce, spread=spread)).check(4)

    assert found is not None
    assert reason in found


def test_a_deadlock_is_found() -> None:
    def crossed(plan: Plan) -> None:
        plan.slice(reduce={1: 0, 2: 0})
        plan.slice(reduce={2: 0, 1: 0})

    found = made(crossed).check(3)

    assert found is not None
    assert "deadlock" in found
    assert found.startswith("rank ")


@pytest.mark.parametrize(
    ("collective", "arguments", "message"),
    [
        ("all_reduce", {}, "all_reduce needs `reduce`"),
        ("broadcast", {"reduce": {1: 0}}, "broadcast reduces nothing"),
        ("all_reduce", {"reduce": {1: 0}, "block": 0}, "all_reduce has no blocks"),
        ("all_gather", {"spread": {1: 0}}, "all_gather needs the `block`"),
        ("all_reduce", {"reduce": {1: -1}}, "reduce has -1"),
        ("all_reduce", {"reduce": {1: 0.5}}, "reduce has 0.5"),
        ("all_reduce", {"reduce": {RANK_NONE: 0}}, "reduce has 4294967295"),
        ("all_reduce", {"reduce": 7}, "reduce is no tree"),
        ("all_reduce", {"reduce": [1, 2]}, "reduce is no tree"),
        ("all_reduce", {"reduce": {1: 0}, "weight": True}, "weight has True"),
    ],
)
def test_what_is_no_tree_is_refused_where_it_is_said(
    collective: str, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(InvalidArgument, match=message):
        Plan(collective, 2).slice(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["", "auto", "ring", "two words", "x" * 32, "ü", 7])
def test_names_are_short_and_new(name: object) -> None:
    with pytest.raises(InvalidArgument, match="a plan's name is"):
        collect.plan(name)  # type: ignore[arg-type]


@pytest.mark.parametrize("collective", ["all_to_all", "barrier", "nothing"])
def test_some_collectives_cannot_be_described(collective: str) -> None:
    with pytest.raises(InvalidArgument, match="no plans of"):
        collect.plan("own", collective=collective)


@pytest.mark.parametrize("world", [1, 1025])
def test_a_world_has_its_limits(world: int) -> None:
    with pytest.raises(InvalidArgument, match="is not in 2 to 1024"):
        made(star).check(world)


def test_a_plan_of_no_rank_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="own has no plan of rank 4 of 4"):
        RankPlans(made(star), 4).of_rank(4)
