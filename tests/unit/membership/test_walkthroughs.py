"""The failures that shaped the protocol, each played through with the real machines."""

from collect.membership.peer import State
from collect.types import VerdictKind, op_base
from collect.wire.messages import Freeze, Install
from tests.unit.membership.stage import TIMEOUT_S, Stage, did, flies, formed, joins


def epoch(stage: Stage) -> int:
    assert stage.coordinator is not None
    assert stage.coordinator.view is not None
    return stage.coordinator.view.epoch


def running(*names: str) -> tuple[Stage, int, int]:
    """A group that has done one operation and has the next in flight; its base and epoch."""
    stage = formed(*names)
    attempt = epoch(stage)
    base = op_base(attempt)
    stage.runs(did(base + 1, attempt), flies(base + 2, attempt), *names)
    return stage, base, attempt


def test_a_crash_before_the_last_input_runs_the_operation_again_without_the_dead() -> None:
    stage, *_ = running("a", "b", "c")
    stage.die("c", "a", "b")
    stage.wait(0.05)

    for name in ("a", "b"):
        installed = stage.actors[name].installs[-1]
        assert installed.verdict.kind is VerdictKind.RERUN
        assert [member.name for member in installed.view.members] == ["a", "b"]


def test_a_crash_after_the_last_frame_completes_the_operation_for_everybody() -> None:
    stage, base, attempt = running("a", "b", "c")
    stage.runs(did(base + 2, attempt), None, "a")
    stage.die("c", "a", "b")
    stage.wait(0.05)

    verdict = stage.actors["b"].installs[-1].verdict
    assert (verdict.kind, verdict.op, verdict.attempt) == (VerdictKind.REPAIR, base + 2, attempt)
    assert stage.actors["b"].installs[-1].has_repair


def test_a_holder_that_dies_in_the_repair_leaves_an_operation_to_run_again() -> None:
    stage, base, attempt = running("a", "b", "c", "d")
    stage.runs(did(base + 2, attempt), None, "a")
    stage.die("d", "a", "b", "c")
    stage.die("a", "b", "c")
    stage.runs(did(base + 1, attempt), flies(base + 2, attempt), "b", "c")
    stage.wait(0.1)

    assert stage.members() == ["b", "c"]
    assert stage.actors["b"].installs[-1].verdict.kind is VerdictKind.RERUN


def test_a_coordinator_that_crashes_between_operations_is_not_missed() -> None:
    stage, *_ = running("a", "b")
    stage.kill_coordinator()
    stage.wait(TIMEOUT_S)
    stage.pass_boundary("a", "b")
    assert [actor.passed[-1].boundary for actor in stage.actors.values()] == [2, 2]

    stage.restart()
    stage.wait(TIMEOUT_S)

    assert stage.members() == ["a", "b"]
    assert not any(isinstance(m, Freeze) for m in stage.told["a"])


def test_a_coordinator_that_crashes_after_half_the_installs_decides_again_above() -> None:
    stage, base, attempt = running("a", "b", "c")
    stage.runs(did(base + 2, attempt), None, "a")
    stage.die("c", "a", "b")
    stage.dies_after(Install)  # a hears of the decision, b does not
    stage.wait(0.05)
    assert [stage.actors[name].peer.state for name in "ab"] == [State.ACTIVE, State.FROZEN]
    decided = stage.actors["a"].peer.epoch

    stage.restart()
    stage.wait(TIMEOUT_S)

    assert stage.members() == ["a", "b"]
    assert epoch(stage) > decided
    assert [stage.actors[name].peer.state for name in "ab"] == [State.ACTIVE, State.ACTIVE]
    verdict = stage.actors["b"].installs[-1].verdict
    assert (verdict.kind, verdict.op) == (VerdictKind.REPAIR, base + 2)


def test_a_slow_peer_that_is_heard_is_nobodys_loss() -> None:
    stage, *_ = running("a", "b")
    before = epoch(stage)
    stage.wait(20 * TIMEOUT_S)

    assert epoch(stage) == before


def test_a_newcomer_in_the_middle_of_an_operation_interrupts_nobody() -> None:
    stage, *_ = running("a", "b")
    stage.enter("c", 3)
    stage.wait(0.05)
    assert stage.actors["a"].peer.state is State.ACTIVE

    stage.pass_boundary("a", "b")

    assert stage.members() == ["a", "b", "c"]
    assert not any(isinstance(m, Freeze) for m in stage.told["a"])


def test_two_failures_at_once_are_one_change() -> None:
    stage, *_ = running("a", "b", "c", "d")
    stage.actors["c"].is_cut = stage.actors["d"].is_cut = True
    for witness in ("a", "b"):
        stage.lose(witness, "c")
        stage.lose(witness, "d")
    stage.wait(0.05)

    assert stage.members() == ["a", "b"]
    assert len(stage.actors["a"].installs) == 2  # the first view, and this one


def test_a_peer_falsely_suspected_is_fenced_when_it_comes_back() -> None:
    stage, *_ = running("a", "b", "c")
    stage.die("c", "a", "b")
    stage.wait(0.05)
    stage.actors["c"].is_cut = False
    stage.lose("c", "a")
    stage.wait(TIMEOUT_S)

    assert stage.actors["c"].peer.state is State.FENCED
    assert stage.members() == ["a", "b"]


def test_a_peer_that_restarts_under_its_name_is_another_peer() -> None:
    stage, *_ = running("a", "b")
    stage.die("b", "a")
    stage.enter("b again", 20, joins("b", 20))
    stage.wait(0.1)
    stage.pass_boundary("a")

    assert stage.members() == ["a", "b"]
    assert stage.actors["b again"].peer.state is State.ACTIVE
    assert epoch(stage) == stage.actors["b again"].peer.epoch


def test_the_last_of_many_goes_on_alone() -> None:
    stage, *_ = running("a", "b", "c", "d")
    for name in ("b", "c", "d"):
        stage.actors[name].is_cut = True
    for name in ("b", "c", "d"):
        stage.lose("a", name)
    stage.wait(0.1)

    assert stage.members() == ["a"]
    assert stage.actors["a"].installs[-1].verdict.kind is VerdictKind.RERUN
