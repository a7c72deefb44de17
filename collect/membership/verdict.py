"""The decisions of a flush: who is given up, and what becomes of the interrupted operations.

Both are functions of reports alone, so whoever decides again from later reports of the same peers
decides alike (docs/protocol.md section 3). The operations of the group and those of each sub-group
are *streams*, judged by the same rules; only the group's decide who remains.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Protocol

from collect.types import (
    SCOPES_MAX,
    Ballot,
    CancelKind,
    Departure,
    DepartureKind,
    FailKind,
    FailReason,
    Incarnation,
    Op,
    OpInFlight,
    Outcome,
    OutcomeKind,
    Redial,
    Repair,
    ScopeId,
    ScopeReport,
    ScopeVerdict,
    SwitchMark,
    Verdict,
    VerdictKind,
    View,
    op_base,
    op_name,
)
from collect.wire.messages import Report

CALLERS_NAMED_MAX = 16
FAIL_KIND_OF = {
    CancelKind.MISMATCH: FailKind.MISMATCH,
    CancelKind.ABORT: FailKind.ABORTED,
    CancelKind.TIMEOUT: FailKind.TIMEOUT,
    CancelKind.MEMBERS: FailKind.MEMBERS,
}


class Told(Protocol):
    """What one peer reports of one stream: a Report, or a ScopeReport."""

    @property
    def consumed(self) -> Outcome: ...

    @property
    def in_flight(self) -> OpInFlight | None: ...


@dataclass(frozen=True, slots=True)
class Decision:
    """What a flush found, in terms of incarnations; `members` are in rank order.

    `base` is the view of the highest installed epoch; None, with no members, when nobody that
    reported had one. `keeps_leavers`: they alone hold the latest result, so they stay until the
    others have it. `scopes`: what each member is told of its sub-groups; `progress`: the latest
    operation that anybody has consumed, of the group (0) and of each sub-group.
    """

    base: View | None
    switch: SwitchMark | None
    members: tuple[Incarnation, ...]
    verdict: Verdict
    repairs: tuple[Repair, ...]
    redials: tuple[Redial, ...]
    departures: tuple[Departure, ...]
    keeps_leavers: bool
    reason: str
    scopes: Mapping[Incarnation, tuple[ScopeVerdict, ...]] = field(default_factory=dict)
    progress: Mapping[ScopeId, Op] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stream:
    """The operations of the group, or of one sub-group, as a flush finds them.

    `base`: its members, in rank order. `told`: what those say of it that reported. `meant`: who its
    members were when the operation in flight was called there. `floor`: see `floor_of`.
    """

    base: View
    told: Mapping[Incarnation, Told]
    meant: Mapping[Incarnation, View]
    latest: Outcome
    floor: Op = 0

    def needers(self, members: Collection[Incarnation]) -> list[Incarnation]:
        """Those who can complete the latest operation only by somebody else's result."""
        return [p for p, t in self.told.items() if p in members and needs_result(t, self.latest)]

    def holders(self, members: Collection[Incarnation]) -> list[Incarnation]:
        return [p for p, t in self.told.items() if p in members and holds_result(t, self.latest)]

    def hinges_on(
        self, leaving: Collection[Incarnation], followers: Collection[Incarnation]
    ) -> bool:
        """Only those who leave hold a result that others need."""
        holders = self.holders(followers)
        is_needed = any(peer not in leaving for peer in self.needers(followers))
        return bool(holders) and all(peer in leaving for peer in holders) and is_needed


def given_up(
    missing: Collection[Incarnation],
    lost_by: Mapping[Incarnation, Collection[Incarnation]],
    alive: Collection[Incarnation],
    *,
    elapsed_s: float,
    grace_s: float,
    timeout_s: float,
) -> dict[Incarnation, str]:
    """Those among `missing`, who have yet to report, that the ballot no longer waits for, and why.

    Args:
        lost_by: for each member that reported, the peers it has lost its links to.
        alive: heard of since the ballot began; a lost link alone does not condemn them.
        grace_s: what the slowest report took, with a margin. It tells a dead peer from one of two
            that lost only the link between them and whose report is on its way.
    """
    if elapsed_s >= timeout_s:
        return dict.fromkeys(missing, f"no report within {timeout_s:g} s")
    if not lost_by or elapsed_s < grace_s:
        return {}
    return {
        peer: "every other member has lost its link to it"
        for peer in missing
        if peer not in alive and all(peer in lost for lost in lost_by.values())
    }


def decide(
    reports: Mapping[Incarnation, Report],
    views: Mapping[Ballot, View],
    leaving: Collection[Incarnation] = (),
    silent: Mapping[Incarnation, str] | None = None,
) -> Decision:
    """The outcome of a flush.

    Args:
        reports: of everybody that was not given up.
        views: of every epoch that a report names.
        leaving: members that asked to leave.
        silent: why each of the others was given up.
    """
    epoch = max((report.epoch for report in reports.values()), default=0)
    if epoch == 0:
        return Decision(None, None, (), Verdict(), (), (), (), False, "no member is left")
    base = views[epoch]
    voters = {peer: reports[peer] for peer in base.incarnations if peer in reports}
    marks = [r.switch for r in voters.values() if r.epoch == epoch and r.switch is not None]
    switch = max(marks, key=lambda mark: mark.ballot)
    group = Stream(
        base=base,
        told=voters,
        meant={p: views.get(r.in_flight.attempt, base) for p, r in voters.items() if r.in_flight},
        latest=latest_outcome(voters.values()),
        floor=op_base(switch.ballot),
    )
    streams = {0: group} | scope_streams(base, voters, views)
    behind = {
        peer: why
        for peer, report in voters.items()
        if (why := why_unfollowable(report, group.latest, group.floor))
    }
    followers = [peer for peer in voters if peer not in behind]
    keeps_leavers = any(stream.hinges_on(leaving, followers) for stream in streams.values())
    members = tuple(peer for peer in followers if keeps_leavers or peer not in leaving)
    settled = {
        scope: ScopeVerdict(scope, *settlement(stream, members, leaving))
        for scope, stream in streams.items()
    }
    mine = settled.pop(0)
    told = {p: tuple(islice(told_to(p, streams, settled), SCOPES_MAX)) for p in members}
    return Decision(
        base=base,
        switch=switch,
        members=members,
        verdict=mine.verdict,
        repairs=mine.repairs,
        redials=broken_links(members, voters),
        departures=departures(base, members, leaving, behind, silent or {}),
        keeps_leavers=keeps_leavers,
        reason=explained(mine.verdict),
        scopes=told,
        progress={scope: stream.latest.op for scope, stream in streams.items()},
    )


def scope_streams(
    base: View, voters: Mapping[Incarnation, Report], views: Mapping[Ballot, View]
) -> dict[ScopeId, Stream]:
    """The sub-groups that anybody among the voters tells of.

    Who says nothing of a sub-group that it belongs to has yet to create it, or to call an operation
    of it: nothing is consumed or in flight there. Whoever installed the last view knows best who is
    left in it.
    """
    told: dict[ScopeId, dict[Incarnation, ScopeReport]] = {}
    for peer, report in voters.items():
        for each in report.scopes:
            told.setdefault(each.scope, {})[peer] = each
    streams = {}
    for scope, reports in told.items():
        newest = max(reports, key=lambda peer: voters[peer].epoch)
        everybody = [peer for peer in reports[newest].members if peer in base]
        silent = ScopeReport(scope, ())
        heard = {peer: reports.get(peer, silent) for peer in everybody if peer in voters}
        meant = {
            peer: among(reports[peer].members, views.get(voters[peer].epoch, base))
            for peer in reports
        }
        latest = latest_outcome(heard.values())
        streams[scope] = Stream(among(everybody, base), heard, meant, latest)
    return streams


def among(members: Sequence[Incarnation], view: View) -> View:
    """The view of a sub-group: those of its members that the group's has, in their own order."""
    known = {member.incarnation: member for member in view.members}
    return replace(view, members=tuple(known[peer] for peer in members if peer in known))


def told_to(
    peer: Incarnation, streams: Mapping[ScopeId, Stream], settled: Mapping[ScopeId, ScopeVerdict]
) -> Iterable[ScopeVerdict]:
    """The verdicts that a member is to know: not those that say no more than the default."""
    plain = Verdict()
    for scope, each in settled.items():
        if each.verdict != plain and peer in streams[scope].base:
            yield each


def settlement(
    stream: Stream, members: tuple[Incarnation, ...], leaving: Collection[Incarnation]
) -> tuple[Verdict, tuple[Repair, ...]]:
    """What becomes of a stream's operations among those of its members that remain."""
    remaining = tuple(peer for peer in stream.told if peer in members)
    holders = stream.holders(members)
    stayers = [peer for peer in holders if peer not in leaving]
    repairs = paired(stayers or holders, stream.needers(members))
    situation = Situation(
        base=stream.base,
        members=remaining,
        reports={peer: stream.told[peer] for peer in remaining},
        voters=tuple(stream.told.values()),
        meant=stream.meant,
        latest=stream.latest,
        floor=stream.floor,
        completers=tuple(p for p, t in stream.told.items() if completed(t, stream.latest)),
        is_held=bool(holders),
    )
    return verdict_on(situation), repairs


def latest_outcome(reports: Iterable[Told]) -> Outcome:
    """What was consumed last. Done by some and failed by others (which can only be where results
    differ by member and are not retained): failed, so that the rest learn the same reason.
    """
    return max(
        (report.consumed for report in reports),
        key=lambda outcome: (outcome.op, outcome.kind is OutcomeKind.FAILED),
        default=Outcome(),
    )


def floor_of(report: Told, base: Op) -> Op:
    """Every operation up to this one is settled on the reporter, or before its time."""
    return report.consumed.op or base


def why_unfollowable(report: Told, latest: Outcome, base: Op) -> str:
    """Why the reporter can neither go on from `latest` nor be repaired; "" if it can.

    Full dependence (rule D4) says that it never lags so far; what breaks that rule must go.
    """
    if report.in_flight is not None:
        if report.in_flight.op < latest.op:
            return f"op {op_name(report.in_flight.op)} is in flight, others have settled later ones"
        return ""
    if latest.kind is OutcomeKind.DONE and floor_of(report, base) < latest.op:
        return f"op {op_name(latest.op)} is done, but never ran here"
    return ""


def lags(report: Told, latest: Outcome) -> bool:
    """The latest operation is done, but still in flight here."""
    return (
        latest.kind is OutcomeKind.DONE
        and report.in_flight is not None
        and report.in_flight.op == latest.op
    )


def needs_result(report: Told, latest: Outcome) -> bool:
    """It lags, and is not whole: only somebody else's result can complete it."""
    flight = report.in_flight
    is_whole = flight is not None and flight.is_whole and flight.attempt == latest.attempt
    return lags(report, latest) and not is_whole


def completed(report: Told, latest: Outcome) -> bool:
    return report.consumed.op == latest.op and report.consumed.kind is OutcomeKind.DONE


def holds_result(report: Told, latest: Outcome) -> bool:
    return (
        latest.kind is OutcomeKind.DONE
        and completed(report, latest)
        and report.consumed.is_retained
    )


def paired(holders: Sequence[Incarnation], needers: Sequence[Incarnation]) -> tuple[Repair, ...]:
    """Spreads the needers over the holders, if there is one."""
    if not holders:
        return ()
    return tuple(
        Repair(holders[index % len(holders)], needer) for index, needer in enumerate(needers)
    )


@dataclass(frozen=True, slots=True)
class Situation:
    """What a verdict on one stream follows from: the new members and their `reports`; `voters` has
    the reports of those who leave too.

    `meant` as in Stream. `latest` is the last outcome of any voter, and `completers` have it done.
    `is_held`: somebody retains its result. `floor`: see `floor_of`.
    """

    base: View
    members: tuple[Incarnation, ...]
    reports: Mapping[Incarnation, Told]
    voters: tuple[Told, ...]
    meant: Mapping[Incarnation, View]
    latest: Outcome
    floor: Op
    completers: tuple[Incarnation, ...]
    is_held: bool

    @property
    def gone(self) -> tuple[str, ...]:
        """The names of those who are members no more."""
        return tuple(m.name for m in self.base.members if m.incarnation not in self.members)


def verdict_on(now: Situation) -> Verdict:
    """One operation per ballot: while anybody lags, the latest; else the one in flight after it.

    So a failure reaches everybody before the next one can be decided, and members never differ
    by more than one operation. A cancelled operation that has to wait is cancelled again.

    An operation in flight before the time of a newcomer was completed by those who let it in; if
    they are gone it cannot run again, since the newcomer will never call it.
    """
    latest, reports = now.latest, now.reports.values()
    if stale := why_stale(now):
        return stale
    if any(lags(report, latest) for report in reports):
        if now.is_held or not any(needs_result(report, latest) for report in reports):
            return Verdict(VerdictKind.REPAIR, latest.op, latest.attempt)
        return Verdict(VerdictKind.FAIL, latest.op, reason=unrepairable(now))
    if latest.kind is OutcomeKind.FAILED and any(
        report.in_flight.op == latest.op
        if report.in_flight
        else floor_of(report, now.floor) < latest.op
        for report in reports
    ):
        return Verdict(VerdictKind.FAIL, latest.op, reason=latest.reason)
    flights = {
        peer: report.in_flight
        for peer, report in now.reports.items()
        if report.in_flight is not None and report.in_flight.op > latest.op
    }
    if not flights:
        return Verdict()
    op = min(flight.op for flight in flights.values())
    flights = {peer: flight for peer, flight in flights.items() if flight.op == op}
    callers = {now.base.name_of(peer): flight for peer, flight in flights.items()}
    earlier = [report for report in now.voters if floor_of(report, now.floor) < op]
    if attempt := whole_attempt(earlier, op):
        return Verdict(VerdictKind.REPAIR, op, attempt)
    reason = why_failed(op, callers) or why_misshapen(now, flights) or why_uprooted(now, flights)
    if reason is None and any(floor_of(report, now.floor) >= op for report in reports):
        told = f"op {op_name(op)}: who completed it is gone, and newcomers were let in since"
        reason = FailReason(FailKind.MEMBERS, now.gone, told)
    if reason:
        return Verdict(VerdictKind.FAIL, op, reason=reason)
    is_rooted = all(flight.is_rooted for flight in flights.values())
    return Verdict(op=op if is_rooted and len(flights) == len(reports) else 0)


def why_stale(now: Situation) -> Verdict | None:
    """Of a sub-group that its members called unlike one another: what some have settled long ago
    cannot be completed. (In the group, whoever lags so far is a member no more.)"""
    stale = {p: f for p, t in now.reports.items() if (f := t.in_flight) and f.op < now.latest.op}
    if not stale:
        return None
    peer, flight = min(stale.items(), key=lambda each: each[1].op)
    told = f"op {op_name(flight.op)} ({flight.descriptor}), called by {now.base.name_of(peer)}"
    text = f"{told}: others have settled op {op_name(now.latest.op)} already"
    return Verdict(VerdictKind.FAIL, flight.op, reason=FailReason(FailKind.MISMATCH, (), text))


def unrepairable(now: Situation) -> FailReason:
    """The latest operation gave each member a result of its own, and some got theirs."""
    done = listed([now.base.name_of(peer) for peer in now.completers])
    why = f"{listed(now.gone)} was lost" if now.gone else "it was interrupted"
    told = f"op {op_name(now.latest.op)} completed on {done}, but {why} before all had their part"
    return FailReason(FailKind.MEMBERS, now.gone, told)


def whole_attempt(voters: Collection[Told], op: Op) -> Ballot:
    """The attempt of which everybody has its whole part, so that all can complete it; 0: none.

    Whoever is not heard of may have delivered it. So to complete it is better than to run it again,
    and than to end it because it was late.
    """
    flights = [report.in_flight for report in voters]
    attempts = {
        flight.attempt if flight and flight.op == op and flight.is_whole else 0
        for flight in flights
    }
    cancels = {flight.cancel.kind for flight in flights if flight and flight.cancel}
    return attempts.pop() if len(attempts) == 1 and cancels <= {CancelKind.TIMEOUT} else 0


def why_misshapen(now: Situation, flights: Mapping[Incarnation, OpInFlight]) -> FailReason | None:
    """Why the operation cannot run again: its blocks are meant for other members."""
    for peer, flight in flights.items():
        meant = now.meant[peer]
        if not flight.is_shaped or meant.incarnations == now.members:
            continue
        gone = tuple(m.name for m in meant.members if m.incarnation not in now.members)
        who = f"{listed(gone)} was lost" if gone else "the members changed"
        told = f"op {op_name(flight.op)} ({flight.descriptor}), called by {now.base.name_of(peer)}"
        text = f"{told} for {len(meant.members)} members: {who} before it was complete"
        return FailReason(FailKind.MEMBERS, gone, text)
    return None


def why_uprooted(now: Situation, flights: Mapping[Incarnation, OpInFlight]) -> FailReason | None:
    """Why a rooted operation cannot run again: who calls it from here on counts other ranks, and
    may name another root. Then nobody would send a frame by which the others could tell.
    """
    yet = [peer for peer in now.members if peer not in flights]
    caller = next((peer for peer, flight in flights.items() if flight.is_rooted), None)
    if caller is None or not now.gone or not yet:
        return None
    flight = flights[caller]
    told = f"op {op_name(flight.op)} ({flight.descriptor}), called by {now.base.name_of(caller)}"
    others = listed([now.base.name_of(peer) for peer in yet])
    text = f"{told}: {listed(now.gone)} was lost before {others} called it, maybe with another root"
    return FailReason(FailKind.MEMBERS, now.gone, text)


def why_failed(op: Op, callers: Mapping[str, OpInFlight]) -> FailReason | None:
    """Why the operation in flight must fail, whoever is a member; None: nobody objects to it.

    A call for other members differs from those of the others: who knows of it says so first.
    """
    cancels = {name: flight.cancel for name, flight in callers.items() if flight.cancel}
    for kind in (CancelKind.MEMBERS, CancelKind.MISMATCH, CancelKind.ABORT, CancelKind.TIMEOUT):
        if kind is CancelKind.MISMATCH and len({each.digest for each in callers.values()}) > 1:
            return mismatch(op, callers)
        culprits = {name: each.detail for name, each in cancels.items() if each.kind is kind}
        if culprits:
            told = "; ".join(f"{name}: {detail}" for name, detail in culprits.items())
            called = next(iter(callers.values())).descriptor
            return FailReason(
                FAIL_KIND_OF[kind], tuple(culprits), f"op {op_name(op)} ({called}): {told}"
            )
    return None


def mismatch(op: Op, callers: Mapping[str, OpInFlight]) -> FailReason:
    """Blames those who differ from the most common call; all of them when there is no such."""
    groups: dict[int, list[str]] = {}
    for name, flight in callers.items():
        groups.setdefault(flight.digest, []).append(name)
    most = max(len(names) for names in groups.values())
    common = [digest for digest, names in groups.items() if len(names) == most]
    culprits = tuple(
        name
        for digest, names in groups.items()
        if len(common) > 1 or digest != common[0]
        for name in names
    )
    told = [
        f"{listed(names)} called {callers[names[0]].descriptor} (digest {digest:08x})"
        for digest, names in groups.items()
    ]
    return FailReason(FailKind.MISMATCH, culprits, f"op {op_name(op)}: {'; '.join(told)}")


def listed(names: Sequence[str]) -> str:
    more = len(names) - CALLERS_NAMED_MAX
    return ", ".join(names[:CALLERS_NAMED_MAX]) + (f" and {more} more" if more > 0 else "")


def broken_links(
    members: Sequence[Incarnation], reports: Mapping[Incarnation, Report]
) -> tuple[Redial, ...]:
    """The links between members that either end has lost, each once."""
    ranks = {peer: rank for rank, peer in enumerate(members)}
    pairs = {
        (
            min(peer, lost.incarnation, key=ranks.__getitem__),
            max(peer, lost.incarnation, key=ranks.__getitem__),
        )
        for peer in members
        for lost in reports[peer].lost
        if lost.incarnation in ranks and lost.incarnation != peer
    }
    return tuple(
        Redial(one, other)
        for one, other in sorted(pairs, key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))
    )


def departures(
    base: View,
    members: Collection[Incarnation],
    leaving: Collection[Incarnation],
    behind: Mapping[Incarnation, str],
    silent: Mapping[Incarnation, str],
) -> tuple[Departure, ...]:
    gone = []
    for peer in base.incarnations:
        if peer in members:
            continue
        if peer in behind:
            gone.append(Departure(peer, DepartureKind.FENCED, behind[peer]))
        elif peer in leaving:
            gone.append(Departure(peer, DepartureKind.LEFT, "it asked to leave"))
        else:
            gone.append(Departure(peer, DepartureKind.LOST, silent.get(peer, "it did not report")))
    return tuple(gone)


def explained(verdict: Verdict) -> str:
    match verdict.kind:
        case VerdictKind.REPAIR:
            return f"op {op_name(verdict.op)} is done; who lacks its result is repaired"
        case VerdictKind.FAIL:
            return (
                f"op {op_name(verdict.op)} fails: {verdict.reason.text if verdict.reason else ''}"
            )
        case VerdictKind.RERUN:
            return "what was in flight runs again"
