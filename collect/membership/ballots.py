"""What the coordinator keeps about one ballot in progress: a flush, a switch, its own recovery.

Soft state: a coordinator that loses it starts over from the peers (docs/protocol.md section 5).
"""

from dataclasses import dataclass, field, replace

from collect.membership.verdict import given_up
from collect.types import Ballot, Incarnation, LinkLoss, LostLink, SwitchMark, View
from collect.wire.messages import Hello, Install, Report

LONE_WITNESS_SHARE = 20  # of `timeout`
GRACE_REPORTS = 2.0  # a report may take twice as long as the slowest one so far


@dataclass(slots=True)
class Flush:
    """FREEZE was sent to `targets`; done when each has reported or is given up (`silent`)."""

    ballot: Ballot
    reason: str
    started_s: float
    settle_s: float
    targets: frozenset[Incarnation]
    silent: dict[Incarnation, str] = field(default_factory=dict)
    reports: dict[Incarnation, Report] = field(default_factory=dict)
    alive: set[Incarnation] = field(default_factory=set)
    evidence: dict[Incarnation, dict[Incarnation, LinkLoss]] = field(default_factory=dict)
    slowest_s: float = 0.0
    sent_s: float = 0.0

    @property
    def missing(self) -> list[Incarnation]:
        awaited = self.targets - self.reports.keys() - self.silent.keys()
        return sorted(awaited)

    def grace_s(self, timeout_s: float) -> float:
        """A single witness may have lost no more than a link, so it takes longer to convince."""
        doubt_s = timeout_s / LONE_WITNESS_SHARE if len(self.lost_by()) == 1 else 0.0
        return self.settle_s + GRACE_REPORTS * self.slowest_s + doubt_s

    def add_report(self, report: Report, now_s: float) -> None:
        if report.incarnation not in self.reports:
            self.slowest_s = max(self.slowest_s, now_s - self.started_s)
        self.silent.pop(report.incarnation, None)  # late, but the decision is not taken yet
        self.reports[report.incarnation] = report

    def add_suspicion(self, accuser: Incarnation, accused: Incarnation, kind: LinkLoss) -> None:
        self.evidence.setdefault(accuser, {})[accused] = kind

    def lost_by(self) -> dict[Incarnation, set[Incarnation]]:
        """For each member that reported, whom it has lost; newcomers have no say yet."""
        return {
            peer: {lost.incarnation for lost in report.lost} | self.evidence.get(peer, {}).keys()
            for peer, report in self.reports.items()
            if report.epoch
        }

    def give_up(self, now_s: float, timeout_s: float) -> dict[Incarnation, str]:
        """Stops waiting for whom `given_up` names; returns them with the reasons."""
        gone = given_up(
            self.missing,
            self.lost_by(),
            self.alive,
            elapsed_s=now_s - self.started_s,
            grace_s=self.grace_s(timeout_s),
            timeout_s=timeout_s,
        )
        self.silent |= gone
        return gone

    def evidenced_reports(self) -> dict[Incarnation, Report]:
        """The reports, with the links that were lost after they were sent."""
        merged = {}
        for peer, report in self.reports.items():
            known = {lost.incarnation for lost in report.lost}
            later = tuple(
                LostLink(accused, kind)
                for accused, kind in self.evidence.get(peer, {}).items()
                if accused not in known
            )
            merged[peer] = replace(report, lost=report.lost + later) if later else report
        return merged


@dataclass(slots=True)
class Switch:
    """PREPARE was sent to the members of `view`; `olds` are those that were members before."""

    view: View
    mark: SwitchMark
    olds: frozenset[Incarnation]
    started_s: float
    prepared: set[Incarnation] = field(default_factory=set)
    passed: set[Incarnation] = field(default_factory=set)
    is_committed: bool = False
    sent_s: float = 0.0

    @property
    def missing(self) -> list[Incarnation]:
        return [peer for peer in self.view.incarnations if peer not in self.prepared]


@dataclass(slots=True)
class Settling:
    """A view that was decided and what its members have yet to confirm.

    `installs` holds the INSTALL of a flush for each member that has not confirmed it; `unpassed`
    the members that have not reached the boundary of the last switch.
    """

    since_s: float = 0.0
    sent_s: float = 0.0
    told_s: float = 0.0
    installs: dict[Incarnation, Install] = field(default_factory=dict)
    unpassed: set[Incarnation] = field(default_factory=set)

    @property
    def is_done(self) -> bool:
        return not self.installs and not self.unpassed


@dataclass(slots=True)
class Recovery:
    """The hellos that a started coordinator has heard from an earlier one's peers.

    `last_view`, if the earlier one wrote it down, has everybody who can still be a member.
    """

    deadline_s: float
    last_view: View | None
    hellos: dict[Incarnation, Hello] = field(default_factory=dict)

    @property
    def highest(self) -> View | None:
        views = [hello.view for hello in self.hellos.values() if hello.view]
        return max(views, key=lambda view: view.epoch, default=None)

    @property
    def promised(self) -> Ballot:
        """The highest ballot that anybody has heard of."""
        return max((hello.promised for hello in self.hellos.values()), default=0)

    def may_be_member(self, peer: Incarnation) -> bool:
        return self.last_view is None or peer in self.last_view

    def is_complete(self) -> bool:
        view = self.highest
        return view is not None and all(
            peer in self.hellos for peer in view.incarnations if self.may_be_member(peer)
        )

    def is_undisturbed(self) -> bool:
        """All members are active in one epoch and nothing was under way: adopt their view."""
        view = self.highest
        if view is None or not self.is_complete():
            return False
        hellos = [self.hellos.get(peer) for peer in view.incarnations]
        return all(
            hello is not None
            and hello.epoch == view.epoch
            and not hello.is_frozen
            and hello.prepared is None
            for hello in hellos
        )

    def views(self) -> dict[Ballot, View]:
        """Every view that may be installed somewhere: installed ones and promised ones."""
        found = [view for hello in self.hellos.values() for view in (hello.view, hello.prepared)]
        return {view.epoch: view for view in found if view}
