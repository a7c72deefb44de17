"""What a flush decides from reports alone."""

from dataclasses import replace

from collect.membership.verdict import decide, given_up
from collect.types import (
    Ballot,
    Cancel,
    CancelKind,
    DepartureKind,
    FailKind,
    FailReason,
    Incarnation,
    LinkLoss,
    LostLink,
    Member,
    OpInFlight,
    Outcome,
    OutcomeKind,
    Redial,
    Repair,
    SwitchMark,
    VerdictKind,
    View,
    make_ballot,
    op_base,
)
from collect.wire.messages import Report

B1, B2, B3 = (make_ballot(counter, 1) for counter in (1, 2, 3))
BASE = op_base(B1)
NAMES = {1: "a", 2: "b", 3: "c", 4: "d"}
WHY = FailReason(FailKind.ABORTED, ("a",), "a gave up")


def view(epoch: Ballot, *members: Incarnation) -> View:
    return View(epoch, tuple(Member(m, NAMES[m], "", ()) for m in members), 9)


VIEWS = {B1: view(B1, 1, 2, 3), B2: view(B2, 1, 2, 3, 4)}


def done(index: int, attempt: Ballot = B1, is_retained: bool = True) -> Outcome:
    return Outcome(BASE + index, attempt, OutcomeKind.DONE, is_retained)


def failed(index: int) -> Outcome:
    return Outcome(BASE + index, B1, OutcomeKind.FAILED, False, WHY)


def flight(index: int, digest: int = 5, cancel: Cancel | None = None) -> OpInFlight:
    return OpInFlight(BASE + index, B1, f"all_reduce float32[{digest}]", digest, cancel)


def report(peer: Incarnation, consumed: Outcome, in_flight: OpInFlight | None = None) -> Report:
    mark = SwitchMark(B1, 1, ())
    return Report(peer, B3, B1, consumed, in_flight, (), mark, True, 4)


def test_who_lacks_the_latest_result_is_repaired_by_one_who_has_it() -> None:
    reports = {1: report(1, done(6)), 2: report(2, done(5), flight(6)), 3: report(3, done(6))}

    decision = decide(reports, VIEWS)

    assert decision.verdict.kind is VerdictKind.REPAIR
    assert (decision.verdict.op, decision.verdict.attempt) == (BASE + 6, B1)
    assert decision.repairs == (Repair(holder=1, needer=2),)


def test_needers_are_spread_over_holders() -> None:
    reports = {m: report(m, done(6)) for m in (1, 2)}
    reports |= {m: replace(report(m, done(5), flight(6)), epoch=B2) for m in (3, 4)}

    decision = decide(reports, VIEWS)

    assert {repair.holder for repair in decision.repairs} == {1, 2}


def test_an_operation_nobody_has_delivered_runs_again() -> None:
    reports = {m: report(m, done(5), flight(6)) for m in (1, 2)}

    decision = decide(reports, VIEWS, silent={3: "reset"})

    assert decision.verdict.kind is VerdictKind.RERUN
    assert decision.members == (1, 2)
    assert [gone.kind for gone in decision.departures] == [DepartureKind.LOST]
    assert decision.departures[0].reason == "reset"


def test_a_later_operation_runs_again_while_the_latest_is_repaired() -> None:
    reports = {1: report(1, done(6), flight(7)), 2: report(2, done(5), flight(6))}

    decision = decide(reports, VIEWS)

    assert (decision.verdict.kind, decision.verdict.op) == (VerdictKind.REPAIR, BASE + 6)


def test_different_calls_fail_and_each_caller_is_named() -> None:
    reports = {1: report(1, done(5), flight(6, 10)), 2: report(2, done(5), flight(6, 10))}
    reports[3] = report(3, done(5), flight(6, 20))

    reason = decide(reports, VIEWS).verdict.reason

    assert reason is not None
    assert (reason.kind, reason.culprits) == (FailKind.MISMATCH, ("c",))
    assert "a, b called all_reduce float32[10]" in reason.text
    assert "c called all_reduce float32[20]" in reason.text


def test_when_nobody_is_in_the_majority_all_callers_are_named() -> None:
    reports = {1: report(1, done(5), flight(6, 10)), 2: report(2, done(5), flight(6, 20))}

    reason = decide(reports, VIEWS).verdict.reason

    assert reason is not None
    assert reason.culprits == ("a", "b")


def test_a_cancelled_operation_fails_with_who_cancelled_and_why() -> None:
    cancel = Cancel(CancelKind.TIMEOUT, "60 s passed")
    reports = {1: report(1, done(5), flight(6)), 2: report(2, done(5), flight(6, 5, cancel))}

    verdict = decide(reports, VIEWS).verdict

    assert verdict.kind is VerdictKind.FAIL
    assert verdict.reason is not None
    assert (verdict.reason.kind, verdict.reason.culprits) == (FailKind.TIMEOUT, ("b",))
    assert "60 s passed" in verdict.reason.text


def test_a_delivered_operation_cannot_be_cancelled() -> None:
    cancel = Cancel(CancelKind.ABORT, "gave up")
    reports = {1: report(1, done(6)), 2: report(2, done(5), flight(6, 5, cancel))}

    assert decide(reports, VIEWS).verdict.kind is VerdictKind.REPAIR


def test_a_failure_reaches_who_has_the_operation_in_flight_with_the_same_reason() -> None:
    reports = {1: report(1, failed(6)), 2: report(2, done(5), flight(6))}

    verdict = decide(reports, VIEWS).verdict

    assert (verdict.kind, verdict.op, verdict.reason) == (VerdictKind.FAIL, BASE + 6, WHY)


def test_a_failure_reaches_who_has_yet_to_submit_the_operation() -> None:
    reports = {1: report(1, failed(6), flight(7)), 2: report(2, done(5))}

    verdict = decide(reports, VIEWS).verdict

    assert (verdict.kind, verdict.op) == (VerdictKind.FAIL, BASE + 6)


def test_the_next_failure_waits_until_the_last_has_reached_everybody() -> None:
    cancel = Cancel(CancelKind.ABORT, "gave up")
    reports = {1: report(1, failed(6), flight(7, 5, cancel)), 2: report(2, done(5), flight(6))}

    assert decide(reports, VIEWS).verdict.op == BASE + 6


def test_a_result_that_nobody_retains_costs_the_membership_of_who_lacks_it() -> None:
    reports = {1: report(1, done(6, B1, False)), 2: report(2, done(5), flight(6))}

    decision = decide(reports, VIEWS)

    assert decision.members == (1,)
    fenced = next(gone for gone in decision.departures if gone.incarnation == 2)
    assert fenced.kind is DepartureKind.FENCED
    assert "retains" in fenced.reason


def test_a_member_that_lags_further_than_full_dependence_allows_is_fenced() -> None:
    reports = {1: report(1, done(7)), 2: report(2, done(4), flight(5))}

    assert decide(reports, VIEWS).members == (1,)


def test_the_highest_installed_epoch_is_the_base_and_others_are_out() -> None:
    old = {m: report(m, done(5)) for m in (1, 3)}
    views = {B1: VIEWS[B1], B2: view(B2, 1, 2)}

    decision = decide(old | {2: replace(report(2, done(5)), epoch=B2)}, views)

    assert decision.base == views[B2]
    assert decision.members == (1, 2)


def test_a_newcomer_counts_only_if_somebody_passed_its_boundary() -> None:
    mark = SwitchMark(B2, 7, (4,))
    newcomer = replace(report(4, Outcome()), epoch=0, switch=None, is_passed=False)
    waiting = {m: report(m, done(5)) for m in (1, 2, 3)} | {4: newcomer}
    passed = replace(report(1, done(5)), epoch=B2, switch=mark)

    assert decide(waiting, VIEWS).members == (1, 2, 3)
    decision = decide(waiting | {1: passed}, VIEWS)
    assert decision.members == (1, 2, 3, 4)
    assert decision.switch == mark


def test_newcomers_alone_start_afresh() -> None:
    newcomer = replace(report(4, Outcome()), epoch=0, switch=None, is_passed=False)

    decision = decide({4: newcomer}, VIEWS)

    assert decision.base is None
    assert decision.members == ()


def test_a_leaver_is_left_out_and_does_not_need_the_result() -> None:
    reports = {1: report(1, done(6)), 2: report(2, done(5), flight(6))}

    decision = decide(reports, VIEWS, leaving={2})

    assert decision.members == (1,)
    assert decision.repairs == ()
    assert decision.departures[0].kind is DepartureKind.LEFT


def test_a_leaver_that_alone_holds_the_latest_result_stays_to_repair_the_others() -> None:
    reports = {1: report(1, done(6)), 2: report(2, done(5), flight(6))}

    decision = decide(reports, VIEWS, leaving={1})

    assert decision.keeps_leavers
    assert decision.members == (1, 2)
    assert decision.repairs == (Repair(1, 2),)


def test_the_last_member_may_leave() -> None:
    decision = decide({1: report(1, done(6))}, {B1: view(B1, 1)}, leaving={1})

    assert decision.members == ()
    assert decision.departures[0].kind is DepartureKind.LEFT


def test_a_link_that_either_end_lost_is_dialled_again_once() -> None:
    lost = (LostLink(2, LinkLoss.RESET),)
    reports = {m: report(m, done(5)) for m in (1, 2, 3)}
    reports[1] = replace(reports[1], lost=lost)
    reports[3] = replace(reports[3], lost=(*lost, LostLink(9, LinkLoss.SILENT)))

    assert decide(reports, VIEWS).redials == (Redial(1, 2), Redial(2, 3))


def test_only_who_everybody_lost_is_given_up_at_once() -> None:
    lost_by = {1: {3, 4}, 2: {4}}

    assert set(given_up([3, 4], lost_by, (), elapsed_s=1, grace_s=0.1, timeout_s=9)) == {4}


def test_nobody_is_given_up_while_a_report_may_be_on_its_way() -> None:
    assert not given_up([2], {1: {2}}, (), elapsed_s=0.05, grace_s=0.1, timeout_s=9)


def test_who_is_heard_of_is_given_up_only_for_its_time() -> None:
    assert not given_up([2], {1: {2}}, {2}, elapsed_s=8, grace_s=0.1, timeout_s=9)
    assert (
        "no report within 9 s"
        in given_up([2], {1: {2}}, {2}, elapsed_s=9, grace_s=0.1, timeout_s=9)[2]
    )
