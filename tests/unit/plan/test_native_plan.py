"""The Python face of plans."""

import pytest

from collect.config import Algorithm
from collect.errors import InvalidArgument
from collect.native.plan import BYTES_MAX, COLLECTIVES, Plan, Recipe, check, choose, has

CASES = [
    (algorithm, collective)
    for algorithm in Algorithm
    if algorithm is not Algorithm.AUTO
    for collective in COLLECTIVES
    if has(algorithm, collective)
]


@pytest.mark.parametrize(("algorithm", "collective"), CASES, ids=str)
def test_a_plan_has_the_steps_that_the_core_prints(algorithm: Algorithm, collective: str) -> None:
    plan = Plan(algorithm, 5, 3, collective=collective, root=1)

    lines = str(plan).splitlines()

    assert lines[0].startswith(f"{algorithm.value} {collective}, rank 3 of 5")
    steps = [step for lane in plan.lanes for step in lane]
    printed = [line.split() for line in lines[1:] if not line.startswith("lane")]
    assert [step.opcode for step in steps] == [words[1] for words in printed]
    assert [step.is_final for step in steps] == ["final" in words for words in printed]
    assert [step.is_scaled for step in steps] == ["scale" in words for words in printed]
    assert [int(line.split()[3]) for line in lines if line.startswith("lane")] == [*plan.slices]


def test_a_step_that_forwards_has_a_source_and_a_target() -> None:
    step = Plan(Algorithm.RING, 4, 1).lanes[2][0]

    assert (step.opcode, step.source, step.target) == ("recv_reduce_send", 0, 2)
    assert (step.target_lane, step.target_step) == (4, 0)


def test_a_step_that_only_works_has_neither() -> None:
    step = Plan(Algorithm.DIRECT, 3, 2).lanes[0][2]

    assert (step.opcode, step.source, step.target) == ("reduce_in", None, None)


def test_slices_follow_each_other_to_the_end() -> None:
    plan = Plan(Algorithm.DIRECT, 3, 0)

    assert [plan.slice_range(index, 200) for index in range(3)] == [(0, 64), (64, 128), (128, 200)]
    assert plan.slice_range(2, BYTES_MAX)[1] == BYTES_MAX


@pytest.mark.parametrize(
    ("world", "rank", "message"),
    [
        (0, 0, "a world of 0 ranks is not in 1 to 1024"),
        (1025, 0, "a world of 1025 ranks is not in 1 to 1024"),
        (4, 4, "no rank 4: a world of 4 has ranks 0 to 3"),
        (4, -1, "no rank -1: a world of 4 has ranks 0 to 3"),
    ],
)
def test_a_world_or_rank_out_of_range_is_refused(world: int, rank: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Plan(Algorithm.DIRECT, world, rank)


def test_a_slice_or_payload_out_of_range_is_refused() -> None:
    plan = Plan(Algorithm.RING, 3, 0)

    with pytest.raises(InvalidArgument, match="no slice 6: the plan has 6"):
        plan.slice_range(6, 100)
    with pytest.raises(InvalidArgument, match="not in 0 to 2"):
        plan.slice_range(0, BYTES_MAX + 1)
    with pytest.raises(InvalidArgument, match="not in 0 to 2"):
        plan.slice_range(0, -1)


def test_every_algorithm_is_right() -> None:
    for algorithm, collective in CASES:
        assert check(algorithm, 9, collective=collective, root=4, credit=1) is None


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="ring cannot do gather"):
        Plan(Algorithm.RING, 4, 0, collective="gather")
    with pytest.raises(InvalidArgument, match="no collective 'all'"):
        Plan(Algorithm.RING, 4, 0, collective="all")
    with pytest.raises(InvalidArgument, match="no root 4"):
        Plan(Algorithm.STAR, 4, 0, collective="reduce", root=4)
    with pytest.raises(InvalidArgument, match="order of 2 ranks for a world of 3"):
        Plan(Recipe(Algorithm.RING, order=(0, 1)), 3, 0)
    with pytest.raises(InvalidArgument, match="the recipe does not fit ring all_reduce of 3"):
        Plan(Recipe(Algorithm.RING, order=(0, 1, 1)), 3, 0)
    assert check(Recipe(Algorithm.HIERARCHICAL, radices=(2, 2)), 6) == (
        "the recipe does not fit hierarchical all_reduce of 6 ranks"
    )


@pytest.mark.parametrize(
    ("collective", "world", "size", "hosts", "expected"),
    [
        ("all_reduce", 2, 64, None, Algorithm.EXCHANGE),
        ("all_reduce", 8, 64 << 20, None, Algorithm.DIRECT),
        ("all_reduce", 8, 64 << 20, [0, 0, 0, 0, 1, 1, 1, 1], Algorithm.HIERARCHICAL),
        ("all_to_all", 8, 64, None, Algorithm.DIRECT),
        ("gather", 8, 1 << 20, None, Algorithm.DIRECT),
        ("barrier", 2, 1, None, Algorithm.EXCHANGE),
        ("all_gather", 1, 100, None, Algorithm.DIRECT),
        # Ranks of one host share its processors: fewer messages go before fewer hops.
        ("all_reduce", 2, 8, [0] * 2, Algorithm.EXCHANGE),
        ("all_reduce", 4, 8, [0] * 4, Algorithm.STAR),
        ("all_reduce", 4, 32 << 10, [0] * 4, Algorithm.STAR),
        ("all_reduce", 4, 1 << 20, [0] * 4, Algorithm.DIRECT),
    ],
)
def test_the_model_chooses(
    collective: str, world: int, size: int, hosts: list[int] | None, expected: Algorithm
) -> None:
    recipe = Recipe(Algorithm.AUTO, hosts=hosts)

    chosen, text = choose(recipe, world, size, collective=collective)

    assert chosen is expected
    assert world == 1 or f"{expected.value}: hops" in text


def test_a_recipe_that_names_an_algorithm_gets_it_where_it_can() -> None:
    recipe = Recipe(Algorithm.RING)

    assert choose(recipe, 4, 100)[0] is Algorithm.RING
    assert choose(recipe, 4, 100, collective="gather")[0] is Algorithm.DIRECT


def test_a_check_of_nonsense_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="a world of 2000 ranks"):
        check(Algorithm.STAR, 2000)
    with pytest.raises(InvalidArgument, match="a credit of 0 frames"):
        check(Algorithm.STAR, 2, credit=0)
