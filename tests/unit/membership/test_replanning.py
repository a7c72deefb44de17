"""The coordinator gives views the planner's recipe, and now and then makes one for its sake."""

from dataclasses import replace

from collect.membership.events import LinksMeasured
from collect.types import LinkFigures, op_base
from collect.wire.messages import Figures
from tests.unit.membership.stage import TIMEOUT_S, Stage, did, joins


def epoch(stage: Stage) -> int:
    assert stage.coordinator is not None
    assert stage.coordinator.view is not None
    return stage.coordinator.view.epoch


def uneven(stage: Stage, slow: str) -> None:
    """Every member has seen that the links of `slow` are a tenth of the others."""
    ids = {name: actor.peer.self_id for name, actor in stage.actors.items()}
    for name in ids:
        links = [
            LinkFigures(far, 10**6, 10**7 if slow in (name, other) else 10**8)
            for other, far in ids.items()
            if other != name
        ]
        stage.at(name, LinksMeasured(tuple(links)))


def spread(*names: str) -> Stage:
    """A group of members on hosts of their own."""
    stage = Stage()
    for index, name in enumerate(names, start=1):
        join = joins(name, index, least=len(names))
        stage.enter(name, index, replace(join, member=replace(join.member, host=name)))
    stage.wait(0.01)
    stage.pass_boundary(*names)
    return stage


def weights(stage: Stage) -> tuple[int, ...]:
    assert stage.coordinator is not None
    assert stage.coordinator.view is not None
    return stage.coordinator.view.recipe.weights


def test_a_much_better_recipe_comes_by_a_switch_without_newcomers() -> None:
    stage = spread("a", "b", "c", "d")
    stage.runs(did(op_base(epoch(stage)) + 1, epoch(stage)), None, "a", "b", "c", "d")

    uneven(stage, "c")
    stage.wait(4.1 * TIMEOUT_S)
    stage.pass_boundary("a", "b", "c", "d")

    assert weights(stage)[2] == 0
    for actor in stage.actors.values():
        assert actor.installs[-1].view.recipe.weights == weights(stage)
        assert actor.installs[-1].op_base == op_base(epoch(stage))
        assert (actor.passed[-1].admitted, actor.passed[-1].is_newcomer) == ((), False)


def test_what_changes_nothing_by_a_tenth_makes_no_switch() -> None:
    stage = spread("a", "b", "c", "d")
    before = epoch(stage)
    for name, actor in stage.actors.items():
        far = [p.peer.self_id for p in stage.actors.values() if p is not actor]
        stage.at(name, LinksMeasured(tuple(LinkFigures(peer, 10**6, 10**8) for peer in far)))

    stage.wait(10 * TIMEOUT_S)

    assert epoch(stage) == before


def test_a_view_that_is_made_anyway_has_the_recipe_of_the_latest_figures() -> None:
    stage = spread("a", "b", "c", "d", "e")

    uneven(stage, "c")
    stage.die("e", "a", "b", "c", "d")
    stage.wait(0.1)

    assert stage.members() == ["a", "b", "c", "d"]
    assert weights(stage)[2] == 0


def test_weights_by_rank_do_not_outlive_their_ranks() -> None:
    stage = spread("a", "b", "c", "d", "e")
    uneven(stage, "c")
    stage.die("e", "a", "b", "c", "d")
    stage.wait(0.1)

    stage.die("c", "a", "b", "d")
    stage.wait(0.1)

    assert stage.members() == ["a", "b", "d"]
    assert weights(stage) == ()


def test_a_member_that_states_a_slow_link_owns_nothing_from_the_first_view_on() -> None:
    stage = Stage()
    for index, name in enumerate("abcd", start=1):
        join = joins(name, index, least=4)
        stated = replace(join.member, bandwidth=10**6 if name == "b" else 10**8)
        stage.enter(name, index, replace(join, member=stated))
    stage.wait(0.01)

    assert weights(stage)[1] == 0


def test_figures_of_a_stranger_are_no_news() -> None:
    stage = spread("a", "b")

    stage.hear(Figures(99, (LinkFigures(1, 5, 5),)))

    assert stage.coordinator is not None
    assert 99 not in stage.coordinator._figures
