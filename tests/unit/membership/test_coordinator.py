"""The coordinator's rules, seen through the peers that it decides about."""

from dataclasses import replace

from collect.membership.coordinator import Phase
from collect.membership.events import (
    AnnouncementKind,
    LeaveAsked,
    MessageReceived,
    OpCancelled,
)
from collect.membership.peer import State
from collect.types import (
    Admit,
    CancelKind,
    LinkLoss,
    Recipe,
    make_ballot,
    op_base,
)
from collect.wire import messages
from collect.wire.messages import (
    Abandon,
    CancelOp,
    Commit,
    Fenced,
    Freeze,
    Hello,
    Install,
    Join,
    Late,
    Leave,
    Left,
    Ping,
    Prepare,
    Prepared,
    Refused,
    Report,
    Stale,
    Suspect,
    Who,
)
from tests.unit.membership.stage import TIMEOUT_S, Stage, did, flies, formed, joins


def told(stage: Stage, name: str, kind: type) -> list:
    return [message for message in stage.told[name] if isinstance(message, kind)]


def epoch(stage: Stage) -> int:
    assert stage.coordinator is not None
    assert stage.coordinator.view is not None
    return stage.coordinator.view.epoch


# ---- joining -------------------------------------------------------------------------------


def test_the_first_view_waits_for_the_most_that_anybody_asks_for() -> None:
    stage = Stage()
    stage.enter("a", 1, joins("a", 1, least=1))
    stage.enter("b", 2, joins("b", 2, least=3))
    stage.wait(0.1)
    assert stage.members() == []

    stage.enter("c", 3)
    stage.wait(0.1)

    assert stage.members() == ["a", "b", "c"]


def test_a_group_of_one_forms_at_once() -> None:
    assert formed("a").members() == ["a"]


def test_those_who_come_together_are_let_in_together() -> None:
    stage = formed("a")
    stage.enter("b", 2)
    stage.enter("c", 3)
    stage.wait(0.01)
    stage.pass_boundary("a")

    assert stage.members() == ["a", "b", "c"]
    assert len(told(stage, "a", Prepare)) == 2  # the first view's, and one for both


def test_another_group_is_refused_with_a_reason() -> None:
    stage = formed("a")
    member = joins("x", 9).member
    stage.enter("x", 9, Join(member, 1, Admit.AUTO, "elsewhere"))

    assert "this is group 'group', not 'elsewhere'" in told(stage, "x", Refused)[0].reason
    assert stage.actors["x"].kinds() == [AnnouncementKind.REFUSED]


def test_another_admit_mode_is_refused_with_a_reason() -> None:
    stage = formed("a")
    stage.enter("x", 9, joins("x", 9, Admit.MANUAL))

    assert "mode auto, not manual" in told(stage, "x", Refused)[0].reason


def test_a_second_join_changes_nothing() -> None:
    stage = formed("a")
    stage.hear(joins("a", 1))

    assert stage.members() == ["a"]
    assert stage.coordinator is not None
    assert not stage.coordinator.candidates


def test_a_newcomer_runs_only_when_every_member_has_passed_the_boundary() -> None:
    stage = formed("a", "b")
    stage.enter("c", 3)
    stage.wait(0.01)
    stage.pass_boundary("a")
    assert stage.actors["c"].peer.state is State.JOINING

    stage.pass_boundary("b")

    assert stage.actors["c"].peer.state is State.ACTIVE


def test_a_boundary_that_was_passed_meanwhile_is_proposed_further_ahead() -> None:
    stage = formed("a", "b")
    stage.actors["b"].peer.boundaries = 40
    stage.enter("c", 3)
    stage.wait(0.01)

    assert told(stage, "a", Prepare)[-1].switch.boundary > 40
    assert stage.actors["a"].peer.switch is not None


def test_the_next_switch_waits_until_everybody_passed_the_last() -> None:
    stage = formed("a")
    stage.enter("b", 2)
    stage.wait(0.01)
    stage.pass_boundary("a")
    stage.enter("c", 3)
    stage.wait(0.01)
    assert told(stage, "c", Prepare) == []

    stage.pass_boundary("b")
    stage.wait(0.01)

    assert told(stage, "c", Prepare) != []


def test_the_log_names_whom_a_change_waits_for() -> None:
    stage = formed("a")
    stage.enter("b", 2)
    stage.wait(0.01)
    stage.pass_boundary("a")
    stage.wait(1.5 * TIMEOUT_S)

    assert any("waiting" in line and "for b to reach" in line for line in stage.logs)


def test_a_dead_newcomer_holds_nobody_up() -> None:
    stage = formed("a", "b")
    stage.enter("c", 3)
    stage.die("c")
    stage.wait(2.5 * TIMEOUT_S, 200)

    stage.pass_boundary("a", "b")

    assert stage.members() == ["a", "b"]
    assert len(stage.actors["a"].passed) == 2


def test_a_dead_member_of_a_group_of_one_is_found_out_by_the_next_who_joins() -> None:
    stage = formed("a")
    stage.die("a")
    stage.wait(1.2 * TIMEOUT_S)
    stage.enter("b", 2)
    stage.wait(4 * TIMEOUT_S, 200)

    assert stage.members() == ["b"]


def test_a_newcomer_that_cannot_reach_a_living_member_is_refused_in_the_end() -> None:
    stage = formed("a", "c")
    stage.enter("b", 3).cannot_reach = (1,)
    stage.wait(3 * TIMEOUT_S, 200)

    assert "b cannot reach a: no route" in told(stage, "b", Refused)[0].reason


# ---- flush ---------------------------------------------------------------------------------


def test_several_suspicions_are_one_ballot() -> None:
    stage = formed("a", "b", "c", "d")
    stage.actors["d"].is_cut = True
    stage.die("c", "a", "b")
    stage.die("d", "a", "b")
    stage.wait(0.05)

    assert stage.members() == ["a", "b"]
    assert len({m.ballot for m in told(stage, "a", Freeze)}) == 1


def test_who_everybody_lost_is_not_waited_for() -> None:
    stage = formed("a", "b", "c")
    before_s = stage.now_s
    stage.die("c", "a", "b")
    stage.wait(0.05)

    assert stage.members() == ["a", "b"]
    assert stage.now_s - before_s < TIMEOUT_S / 4


def test_a_member_that_does_not_report_in_time_is_fenced() -> None:
    stage = formed("a", "b", "c")
    stage.actors["c"].holds_freeze = True
    stage.lose("a", "b")
    stage.wait(1.3 * TIMEOUT_S)

    assert stage.members() == ["a", "b"]
    assert stage.actors["c"].peer.state is State.FENCED
    assert "no report within" in told(stage, "c", Fenced)[0].reason


def test_a_link_between_two_that_live_is_dialled_again_and_costs_nobody() -> None:
    stage = formed("a", "b")
    stage.actors["a"].holds_freeze = False
    stage.lose("a", "b")
    stage.lose("b", "a")
    stage.wait(0.05)

    assert stage.members() == ["a", "b"]
    assert stage.actors["a"].installs[-1].redials == (2,)
    assert stage.actors["b"].installs[-1].redials == (1,)


def test_a_link_that_breaks_again_and_again_costs_the_newer_member() -> None:
    stage = formed("a", "b", "c")
    for _ in range(5):
        stage.lose("a", "c")
        stage.wait(0.05)

    assert stage.members() == ["a", "b"]
    assert "break" in told(stage, "c", Fenced)[0].reason


def test_a_member_that_has_promised_more_makes_the_ballot_start_above_that() -> None:
    stage = formed("a", "b")
    stage.actors["b"].peer.promised = 50 << 24
    stage.lose("a", "b")
    stage.wait(0.05)

    assert stage.said["b"].count(Stale(2, told(stage, "b", Freeze)[0].ballot, 50 << 24)) == 1
    assert epoch(stage) >> 24 == 51


def test_a_late_report_and_a_late_suspicion_are_dropped_with_a_reason() -> None:
    stage = formed("a", "b", "c")
    old = epoch(stage)
    stage.die("c", "a", "b")
    stage.wait(0.05)
    view = epoch(stage)
    stage.hear(Suspect(1, old, 2, LinkLoss.RESET, "long ago"))
    report = next(m for m in stage.said["a"] if isinstance(m, Report))
    stage.hear(report)
    stage.wait(0.05)

    assert epoch(stage) == view
    assert any("out of date" in line for line in stage.logs)
    assert any("reports to ballot" in line and "over" in line for line in stage.logs)


def test_a_stranger_from_an_old_epoch_is_fenced_and_one_without_is_asked() -> None:
    stage = formed("a")
    stage.enter("x", 9)
    stage.actors["x"].peer.state = State.JOINING
    stage.hear(Ping(33, 1, epoch(stage) - (1 << 24) + 5, 3))
    assert stage.coordinator is not None

    stage.by_id[33] = "x"
    stage.hear(Ping(33, 1, 1 << 24, 3))

    assert told(stage, "x", Fenced) != []


def test_an_unknown_ping_without_an_epoch_is_asked_who_it_is() -> None:
    stage = formed("a")
    stage.by_id[33] = "a"
    stage.hear(Ping(33, 1, 0, 0))

    assert told(stage, "a", Who) != []


def test_a_cancelled_operation_fails_on_all_members() -> None:
    stage = formed("a", "b")
    base = op_base(epoch(stage))
    stage.runs(did(base + 1, epoch(stage)), flies(base + 2, epoch(stage)), "a", "b")
    stage.at("a", OpCancelled(base + 2, CancelKind.TIMEOUT, "60 s passed"))
    stage.wait(0.05)

    for name in ("a", "b"):
        verdict = stage.actors[name].installs[-1].verdict
        assert verdict.op == base + 2
        assert "60 s passed" in stage.actors[name].peer.failure_of(base + 2).text


def test_a_cancellation_of_another_epoch_is_dropped() -> None:
    stage = formed("a", "b")
    before = epoch(stage)
    stage.hear(CancelOp(1, 1 << 24 | 77, 5, CancelKind.ABORT, "old"))
    stage.wait(0.05)

    assert epoch(stage) == before


# ---- leaving -------------------------------------------------------------------------------


def leave(stage: Stage, name: str) -> None:
    stage.at(name, LeaveAsked())
    stage.wait(0.05)


def test_a_leaver_is_told_and_the_others_go_on() -> None:
    stage = formed("a", "b", "c")
    leave(stage, "b")

    assert stage.actors["b"].peer.state is State.LEFT
    assert stage.members() == ["a", "c"]
    assert AnnouncementKind.LEFT in stage.actors["a"].kinds()


def test_a_leaver_that_alone_holds_the_latest_result_repairs_the_others_first() -> None:
    stage = formed("a", "b")
    base, attempt = op_base(epoch(stage)), epoch(stage)
    stage.runs(did(base + 1, attempt), flies(base + 2, attempt), "b")
    stage.runs(did(base + 2, attempt), None, "a")
    stage.at("a", LeaveAsked())
    stage.wait(0.05)

    installs = told(stage, "b", Install)
    assert [each.holder for each in installs[0].repairs] == [1]
    assert [len(each.view.members) for each in installs] == [2, 1]
    assert stage.actors["a"].peer.state is State.LEFT


def test_a_leave_that_is_repeated_is_answered_again() -> None:
    stage = formed("a", "b")
    leave(stage, "b")
    stage.hear(Leave(2, 1))

    assert len(told(stage, "b", Left)) == 2


def test_the_last_member_leaves_and_the_next_starts_afresh() -> None:
    stage = formed("a")
    leave(stage, "a")
    assert stage.members() == []

    stage.enter("b", 2)
    stage.wait(0.05)

    assert stage.members() == ["b"]


# ---- restart -------------------------------------------------------------------------------


def test_a_restarted_coordinator_adopts_the_view_and_interrupts_nobody() -> None:
    stage = formed("a", "b")
    before = epoch(stage)
    stage.restart()
    stage.wait(TIMEOUT_S)

    assert epoch(stage) == before
    assert told(stage, "a", Freeze) == []


def test_a_restarted_coordinator_forms_no_second_group_beside_the_first() -> None:
    stage = formed("a", "b")
    before = epoch(stage)
    stage.actors["a"].is_cut = stage.actors["b"].is_cut = True
    stage.restart()
    stage.enter("c", 3)
    stage.wait(0.5 * TIMEOUT_S)
    stage.actors["a"].is_cut = stage.actors["b"].is_cut = False
    stage.wait(TIMEOUT_S)
    stage.pass_boundary("a", "b")

    assert stage.members() == ["a", "b", "c"]
    assert epoch(stage) > before


def test_a_restarted_coordinator_without_anybody_starts_a_group() -> None:
    stage = Stage(is_first=False)
    stage.enter("a", 1)
    stage.wait(1.2 * TIMEOUT_S)

    assert stage.members() == ["a"]


def test_a_switch_that_was_committed_to_one_member_only_is_carried_along() -> None:
    stage = formed("a", "b")
    stage.enter("c", 3)
    stage.wait(0.01)
    stage.actors["b"].is_cut = False
    stage.pass_boundary("a")  # a runs in the new view, b has not reached the boundary
    switched = stage.actors["a"].peer.epoch
    stage.restart()
    stage.wait(TIMEOUT_S)

    assert stage.members() == ["a", "b", "c"]
    stage.pass_boundary("b")
    assert stage.actors["b"].rebases == [op_base(switched)]
    assert stage.actors["b"].passed[-1].admitted == (3,)


def test_a_switch_that_nobody_made_is_void_and_the_newcomer_is_prepared_again() -> None:
    stage = formed("a", "b")
    stage.enter("c", 3)
    stage.wait(0.01)
    stage.restart()
    stage.wait(TIMEOUT_S)
    assert stage.members() == ["a", "b"]

    stage.wait(0.1)
    stage.pass_boundary("a", "b")

    assert stage.members() == ["a", "b", "c"]
    assert stage.actors["c"].peer.state is State.ACTIVE


def test_a_newcomer_without_a_connection_does_not_hold_the_members() -> None:
    stage = formed("a", "b")
    stage.enter("c", 3)
    stage.die("c")
    stage.wait(0.01)
    stage.pass_boundary("a", "b")
    held = [stage.actors[name].passed[-1].boundary for name in ("a", "b")]

    stage.fail_send(3)

    assert [stage.actors[name].passed[-1].boundary for name in ("a", "b")] == [n + 1 for n in held]
    assert stage.members() == ["a", "b"]


def test_a_newcomer_that_had_lost_its_connection_asks_again() -> None:
    stage = formed("a", "b")
    c = stage.enter("c", 3)
    c.is_cut = True
    stage.wait(0.01)
    stage.fail_send(3)
    c.is_cut = False
    stage.wait(TIMEOUT_S)
    stage.pass_boundary("a", "b")

    assert stage.members() == ["a", "b", "c"]


def test_a_member_without_a_connection_stays_a_member() -> None:
    stage = formed("a", "b")

    stage.fail_send(2)
    stage.wait(TIMEOUT_S)

    assert stage.members() == ["a", "b"]


def test_hellos_of_a_frozen_member_lead_to_a_ballot() -> None:
    stage = formed("a", "b")
    stage.kill_coordinator()
    freeze = Freeze(40 << 24 | 1, "an earlier ballot")
    stage.at("a", MessageReceived(freeze))
    stage.restart()
    stage.wait(TIMEOUT_S)

    assert stage.actors["a"].peer.state is State.ACTIVE
    assert epoch(stage) >> 24 > 40


def survived_by_the_expelled() -> Stage:
    """b was expelled and never told; then the coordinator died, and a, and b is heard again."""
    stage = formed("a", "b")
    stage.die("b", "a")
    stage.wait(0.1)
    assert stage.members() == ["a"]
    stage.kill_coordinator()
    stage.die("a")
    stage.actors["b"].is_cut = False
    stage.lose("b", "a")
    return stage


def test_an_expelled_member_does_not_go_on_when_all_others_have_died() -> None:
    stage = survived_by_the_expelled()
    stage.restart()
    stage.wait(TIMEOUT_S)

    assert stage.actors["b"].peer.state is State.FENCED


def test_without_the_last_view_it_does_which_is_why_that_is_written_down() -> None:
    stage = survived_by_the_expelled()
    stage.last_view = None
    stage.restart()
    stage.wait(2.5 * TIMEOUT_S)

    assert stage.actors["b"].peer.state is State.ACTIVE


def test_what_does_not_fit_never_raises() -> None:
    stage = formed("a", "b")
    strange = 5 << 24 | 9
    for sender in (1, 2, 77):
        for message in (
            Prepared(sender, strange),
            Late(sender, strange, 4),
            Stale(sender, strange, strange + 1),
            messages.Installed(sender, strange, 3),
            messages.Unreachable(sender, strange, (1,), "x"),
            Suspect(sender, strange, 2, LinkLoss.SILENT, "x"),
            Hello(joins("q", sender), strange, None, 0, False, None, False, None, None, 0),
        ):
            stage.hear(message)
    stage.wait(0.1)

    assert stage.members() == ["a", "b"]
    assert stage.coordinator is not None
    assert stage.coordinator.phase is Phase.STEADY
    assert {each.ballot for each in told(stage, "a", Abandon)} == {strange}
    assert told(stage, "a", Commit)


def test_the_first_founder_with_a_wish_decides_the_recipe_and_others_follow() -> None:
    stage = Stage()
    for index, (name, algorithm) in enumerate((("a", -1), ("b", 1), ("c", 2)), 1):
        join = replace(joins(name, index, least=3), algorithm=algorithm, commit_bytes=index)
        stage.enter(name, index, join)
    stage.wait(0.01)
    stage.pass_boundary("a", "b", "c")
    stage.enter("d", 4, replace(joins("d", 4), algorithm=0, commit_bytes=9))
    stage.wait(0.01)
    stage.pass_boundary("a", "b", "c")

    recipes = [actor.installs[-1].view.recipe for actor in stage.actors.values()]

    assert [(each.algorithm, each.commit_bytes) for each in recipes] == [(1, 1)] * 4


def test_what_a_recipe_says_by_rank_goes_when_the_members_change() -> None:
    recipe = Recipe(weights=(1, 2, 3), order=(2, 1, 0), radices=(3,))

    assert recipe.for_members(3) == recipe
    assert recipe.for_members(2) == Recipe()


def test_who_missed_that_a_switch_was_abandoned_is_told_again() -> None:
    stage = formed("a", "b")
    stage.hear(Prepared(1, make_ballot(9, 1)))

    assert [each.ballot for each in told(stage, "a", Abandon)] == [make_ballot(9, 1)]

    stage.hear(Prepared(1, epoch(stage)))
    assert len(told(stage, "a", Abandon)) == 1


def test_a_founder_that_wishes_for_tcp_has_all_use_it() -> None:
    stage = Stage()
    for index, (name, transport) in enumerate((("a", 0), ("b", 1)), start=1):
        stage.enter(name, index, replace(joins(name, index, least=2), transport=transport))
    stage.wait(0.01)

    assert [actor.installs[-1].view.recipe.transport for actor in stage.actors.values()] == [1, 1]
