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


def whole(index: int, attempt: Ballot = B1) -> OpInFlight:
    return replace(flight(index), attempt=attempt, is_whole=True)


def shaped(index: int) -> OpInFlight:
    return replace(flight(index), is_shaped=True)


def test_who_is_whole_completes_what_is_done_without_a_holder() -> None:
    reports = {1: report(1, done(6, B1, False)), 2: report(2, done(5), whole(6))}

    decision = decide(reports, VIEWS, silent={3: "reset"})

    verdict = decision.verdict
    assert (verdict.kind, verdict.op, verdict.attempt) == (VerdictKind.REPAIR, BASE + 6, B1)
    assert decision.members == (1, 2)
    assert decision.repairs == ()


def test_a_leaver_that_alone_delivered_need_not_stay_for_those_who_are_whole() -> None:
    reports = {1: report(1, done(6, B1, False)), 2: report(2, done(5), whole(6))}

    decision = decide(reports, VIEWS, leaving={1})

    assert (decision.members, decision.keeps_leavers) == ((2,), False)
    assert decision.verdict.kind is VerdictKind.REPAIR


def test_who_is_whole_in_another_attempt_needs_the_result() -> None:
    reports = {1: report(1, done(6)), 2: report(2, done(5), whole(6, B2))}

    assert decide(reports, VIEWS).repairs == (Repair(1, 2),)


def test_what_is_whole_on_everybody_is_complete_though_nobody_has_delivered() -> None:
    late = Cancel(CancelKind.TIMEOUT, "60 s passed")
    reports = {m: report(m, done(5), replace(whole(6), is_shaped=True)) for m in (1, 2)}
    reports[2] = report(2, done(5), replace(whole(6), cancel=late))

    verdict = decide(reports, VIEWS, silent={3: "reset"}).verdict

    assert (verdict.kind, verdict.op, verdict.attempt) == (VerdictKind.REPAIR, BASE + 6, B1)


def test_what_somebody_is_not_whole_in_runs_again() -> None:
    reports = {1: report(1, done(5), whole(6)), 2: report(2, done(5), flight(6))}
    apart = {1: report(1, done(5), whole(6)), 2: report(2, done(5), whole(6, B2))}
    uncalled = {1: report(1, done(5), whole(6)), 2: report(2, done(5))}

    for each in (reports, apart, uncalled):
        assert decide(each, VIEWS).verdict.kind is VerdictKind.RERUN


def test_a_leaver_that_never_called_keeps_the_others_from_completing_with_it() -> None:
    reports = {1: report(1, done(5), whole(6)), 2: report(2, done(5))}

    assert decide(reports, VIEWS, leaving={2}).verdict.kind is VerdictKind.RERUN


def test_what_a_newcomer_will_never_call_fails_when_who_completed_it_is_gone() -> None:
    mark = SwitchMark(B2, 7, (4,))
    newcomer = replace(report(4, Outcome()), epoch=B2, switch=mark)
    reports = {2: report(2, done(5), flight(6)), 3: report(3, done(5), flight(6)), 4: newcomer}

    verdict = decide(reports, VIEWS, silent={1: "reset"}).verdict

    assert (verdict.kind, verdict.op) == (VerdictKind.FAIL, BASE + 6)
    assert verdict.reason is not None
    assert (verdict.reason.kind, verdict.reason.culprits) == (FailKind.MEMBERS, ("a",))


def test_what_is_whole_completes_before_the_time_of_a_newcomer() -> None:
    mark = SwitchMark(B2, 7, (4,))
    newcomer = replace(report(4, Outcome()), epoch=B2, switch=mark)
    reports = {2: report(2, done(5), whole(6)), 3: report(3, done(5), whole(6)), 4: newcomer}

    verdict = decide(reports, VIEWS, silent={1: "reset"}).verdict

    assert (verdict.kind, verdict.op) == (VerdictKind.REPAIR, BASE + 6)


def test_what_a_whole_member_aborted_fails() -> None:
    abort = Cancel(CancelKind.ABORT, "gave up")
    reports = {1: report(1, done(5), whole(6))}
    reports[2] = report(2, done(5), replace(whole(6), cancel=abort))

    assert decide(reports, VIEWS).verdict.kind is VerdictKind.FAIL


def test_a_result_that_nobody_retains_fails_for_who_lacks_it_and_nobody_is_fenced() -> None:
    reports = {1: report(1, done(6, B1, False)), 2: report(2, done(5), flight(6))}

    decision = decide(reports, VIEWS, silent={3: "reset"})

    assert decision.members == (1, 2)
    assert (decision.verdict.kind, decision.verdict.op) == (VerdictKind.FAIL, BASE + 6)
    reason = decision.verdict.reason
    assert reason is not None
    assert (reason.kind, reason.culprits) == (FailKind.MEMBERS, ("c",))
    assert "completed on a, but c was lost before all had their part" in reason.text


def test_what_failed_on_some_and_completed_on_others_fails_for_the_rest_alike() -> None:
    reports = {
        1: report(1, done(6, B1, False)),
        2: report(2, failed(6)),
        3: report(3, done(5), flight(6)),
    }

    verdict = decide(reports, VIEWS).verdict

    assert (verdict.kind, verdict.op, verdict.reason) == (VerdictKind.FAIL, BASE + 6, WHY)


def test_blocks_for_members_that_are_lost_fail_on_all() -> None:
    reports = {1: report(1, done(5), shaped(6)), 2: report(2, done(5))}

    verdict = decide(reports, VIEWS, silent={3: "reset"}).verdict

    assert (verdict.kind, verdict.op) == (VerdictKind.FAIL, BASE + 6)
    assert verdict.reason is not None
    assert (verdict.reason.kind, verdict.reason.culprits) == (FailKind.MEMBERS, ("c",))
    assert "called by a for 3 members: c was lost" in verdict.reason.text


def test_blocks_run_again_when_only_a_link_was_lost() -> None:
    reports = {m: report(m, done(5), shaped(6)) for m in (1, 2, 3)}

    assert decide(reports, VIEWS).verdict.kind is VerdictKind.RERUN


def test_blocks_that_were_delivered_are_repaired_though_members_are_lost() -> None:
    reports = {1: report(1, done(6)), 2: report(2, done(5), shaped(6))}

    assert decide(reports, VIEWS, silent={3: "reset"}).verdict.kind is VerdictKind.REPAIR


def test_a_call_for_other_members_fails_as_that_and_not_as_a_mismatch() -> None:
    unfit = Cancel(CancelKind.MEMBERS, "called for 4, there are 3")
    reports = {1: report(1, done(5), flight(6, 10, unfit)), 2: report(2, done(5), flight(6, 20))}

    reason = decide(reports, VIEWS).verdict.reason

    assert reason is not None
    assert (reason.kind, reason.culprits) == (FailKind.MEMBERS, ("a",))
    assert "called for 4" in reason.text


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


def rooted(index: int, digest: int = 5) -> OpInFlight:
    return replace(flight(index, digest), is_rooted=True)


def test_a_rooted_operation_that_some_have_yet_to_call_fails_when_members_are_lost() -> None:
    reports = {1: report(1, done(5), rooted(6)), 2: report(2, done(5))}

    verdict = decide(reports, VIEWS, silent={3: "reset"}).verdict

    assert (verdict.kind, verdict.op) == (VerdictKind.FAIL, BASE + 6)
    assert verdict.reason is not None
    assert (verdict.reason.kind, verdict.reason.culprits) == (FailKind.MEMBERS, ("c",))
    assert "called by a: c was lost before b called it" in verdict.reason.text


def test_a_rooted_operation_that_everybody_left_has_called_runs_again_and_is_named() -> None:
    reports = {m: report(m, done(5), rooted(6)) for m in (1, 2)}

    verdict = decide(reports, VIEWS, silent={3: "reset"}).verdict

    assert (verdict.kind, verdict.op) == (VerdictKind.RERUN, BASE + 6)


def test_two_roots_of_one_operation_are_a_mismatch() -> None:
    reports = {m: report(m, done(5), rooted(6, digest=m)) for m in (1, 2)}

    reason = decide(reports, VIEWS, silent={3: "reset"}).verdict.reason

    assert reason is not None
    assert reason.kind is FailKind.MISMATCH


def test_a_rooted_operation_runs_again_whoever_called_it_while_nobody_is_lost() -> None:
    reports = {1: report(1, done(5), rooted(6)), 2: report(2, done(5)), 3: report(3, done(5))}

    verdict = decide(reports, VIEWS).verdict

    assert (verdict.kind, verdict.op) == (VerdictKind.RERUN, 0)
