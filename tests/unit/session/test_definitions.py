"""Which worlds a group's own plans are known for, and when."""

import logging
import threading

import pytest

import collect
from collect.errors import InvalidArgument
from collect.native.definition import Definition, Plan
from collect.session.definitions import WORLDS_AHEAD, Definitions


class Core:
    """Takes definitions in a communicator's place."""

    def __init__(self) -> None:
        self.worlds: list[int] = []
        self.refused: set[int] = set()

    def define(self, definition: Definition, world: int) -> str | None:
        definition.describe(world)
        if world in self.refused:
            return "of a reason"
        self.worlds.append(world)
        return None


def chain(plan: Plan) -> None:
    plan.slice(reduce={rank: rank - 1 for rank in range(1, plan.world)})


def star(plan: Plan) -> None:
    plan.slice(reduce=dict.fromkeys(range(1, plan.world), 0))


OWN = collect.plan("own")(chain)


def test_a_plan_is_proven_for_the_members_and_for_fewer() -> None:
    core = Core()

    Definitions(threading.Lock()).register(OWN, core, lambda: 5)  # type: ignore[arg-type]

    assert core.worlds == [5, 4, 3, 2]


def test_many_members_are_proven_for_some_losses_only() -> None:
    core = Core()

    Definitions(threading.Lock()).register(OWN, core, lambda: 100)  # type: ignore[arg-type]

    assert core.worlds == list(range(100, 100 - 1 - WORLDS_AHEAD, -1))


def test_a_view_finds_its_world_prepared_whatever_came_before() -> None:
    core, definitions = Core(), Definitions(threading.Lock())
    definitions.register(OWN, core, lambda: 30)  # type: ignore[arg-type]

    for size in (31, 3, 30):
        core.worlds.clear()
        definitions.prepare(size, core)  # type: ignore[arg-type]
        assert core.worlds == {31: [31], 3: [3, 2], 30: []}[size]


def test_members_that_come_during_the_registration_are_not_missed() -> None:
    core, sizes = Core(), [2, 4, 4, 4]
    definitions = Definitions(threading.Lock())

    definitions.register(OWN, core, lambda: sizes.pop(0))  # type: ignore[arg-type]

    assert core.worlds == [2, 4, 3]


def test_a_refusal_names_the_world_and_keeps_nothing() -> None:
    core, definitions = Core(), Definitions(threading.Lock())
    core.refused = {3}

    with pytest.raises(InvalidArgument, match="'own' is wrong for 3 ranks: of a reason"):
        definitions.register(OWN, core, lambda: 4)  # type: ignore[arg-type]

    core.worlds.clear()
    definitions.prepare(9, core)  # type: ignore[arg-type]
    assert core.worlds == []


def test_one_name_has_one_plan() -> None:
    core, definitions = Core(), Definitions(threading.Lock())
    definitions.register(OWN, core, lambda: 2)  # type: ignore[arg-type]

    definitions.register(collect.plan("own")(chain), core, lambda: 2)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="another plan is registered as 'own'"):
        definitions.register(collect.plan("own")(star), core, lambda: 2)  # type: ignore[arg-type]


def test_a_plan_that_fails_later_is_logged_once_and_does_no_harm(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def small(plan: Plan) -> None:
        if plan.world > 2:
            raise ZeroDivisionError
        chain(plan)

    core, definitions = Core(), Definitions(threading.Lock())
    definitions.register(collect.plan("small")(small), core, lambda: 2)  # type: ignore[arg-type]
    definitions.register(OWN, core, lambda: 2)  # type: ignore[arg-type]
    core.refused = {4}

    with caplog.at_level(logging.ERROR, "collect"):
        for _ in range(2):
            definitions.prepare(4, core)  # type: ignore[arg-type]

    assert core.worlds == [2, 2, 3]
    assert sorted(record.getMessage() for record in caplog.records) == [
        f"the plan {name!r} is wrong for {world} ranks, where calls do without it: {why}"
        for name, world, why in (
            ("own", 4, "of a reason"),
            ("small", 3, "ZeroDivisionError()"),
            ("small", 4, "ZeroDivisionError()"),
        )
    ]
