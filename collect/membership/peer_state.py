"""What a peer knows, and how it speaks of it: shared by the parts of its machine."""

from dataclasses import dataclass, replace
from enum import Enum, auto
from math import inf

from collect.membership.events import (
    Announce,
    AnnouncementKind,
    CommReport,
    LinkLost,
    PeerAction,
)
from collect.types import (
    Ballot,
    Cancel,
    DepartureKind,
    FailKind,
    FailReason,
    Incarnation,
    LinkFigures,
    LostLink,
    Member,
    Op,
    Outcome,
    OutcomeKind,
    SwitchMark,
    View,
)
from collect.wire.messages import (
    CancelOp,
    Install,
    Join,
    Leave,
    PeerMessage,
    Prepared,
    Report,
    Suspect,
    Unreachable,
    Welcome,
)

PINGS_PER_TIMEOUT = 4
FAILURES_KEPT_MAX = 64
BOUNDARY_MAX = 2**63 - 1


class State(Enum):
    JOINING = auto()  # in no view yet
    ACTIVE = auto()  # in a view; operations run
    FROZEN = auto()  # in a view; has promised a higher ballot
    FENCED = auto()  # the group goes on without this peer; final
    LEFT = auto()  # left as asked; final


TRANSITIONS: dict[State, frozenset[State]] = {
    State.JOINING: frozenset({State.ACTIVE, State.FENCED, State.LEFT}),
    State.ACTIVE: frozenset({State.FROZEN, State.FENCED, State.LEFT}),
    State.FROZEN: frozenset({State.ACTIVE, State.FENCED, State.LEFT}),
    State.FENCED: frozenset(),
    State.LEFT: frozenset(),
}


class Effect(Enum):
    """What passing the boundary of a switch still has to do here."""

    INSTALL = auto()  # install its view and number operations anew
    REBASE = auto()  # a flush has installed the view: only number operations anew
    NONE = auto()  # this peer is a newcomer: all is done, it only passes


@dataclass(frozen=True, slots=True)
class PendingSwitch:
    """A switch whose boundary this peer has promised not to pass, or is free to."""

    mark: SwitchMark
    view: View | None  # of a switch that is prepared; None once it is installed
    effect: Effect
    is_committed: bool


class PeerState:
    """The fields, and what all parts need of them. Built upon by boundaries.py and peer.py."""

    def __init__(self, join: Join, timeout_s: float) -> None:
        self.join = join
        self.self_id: Incarnation = join.member.incarnation
        self.timeout_s = timeout_s
        self.state = State.JOINING
        self.view: View | None = None
        self.promised: Ballot = 0
        self.boundaries = 0
        self.switch: PendingSwitch | None = None
        self.welcome: Welcome | None = None
        self.last_switch: SwitchMark | None = None  # the last one that `view` includes
        self._is_asked = False  # a user thread waits for PassBoundary
        self._is_leaving = False
        self._is_repairing = False
        self._is_prepared = False  # PREPARED was sent for `switch`
        self._report: CommReport | None = None  # of the frozen communicator
        self._unreachable: Unreachable | None = None  # why `switch` cannot be prepared here
        self._lost: dict[Incarnation, LinkLost] = {}
        self._cancel: tuple[Op, Cancel] | None = None
        self._failures: dict[Op, FailReason] = {}
        self._generation = 0
        self._heard_s = 0.0
        self._is_coordinator_lost = False
        self._pinged_s = 0.0
        self._figures: tuple[LinkFigures, ...] = ()  # that the coordinator was told last
        self._figures_told_s = -inf
        self._now_s = 0.0

    @property
    def epoch(self) -> Ballot:
        return self.view.epoch if self.view else 0

    @property
    def next_deadline_s(self) -> float:
        """When the next Tick is due."""
        return self._pinged_s + self._ping_period_s

    @property
    def is_boundary_due(self) -> bool:
        """The next boundary is that of a switch: consume all operations before asking to pass."""
        return self.switch is not None and self.boundaries + 1 >= self.switch.mark.boundary

    @property
    def boundaries_free(self) -> int:
        """The last boundary that may be passed without asking, as things stand."""
        if self.state not in (State.ACTIVE, State.FROZEN):
            return self.boundaries
        if self.switch is None:
            return BOUNDARY_MAX
        return max(self.boundaries, self.switch.mark.boundary - 1)

    def failure_of(self, op: Op) -> FailReason:
        """Why a verdict failed `op`."""
        unknown = FailReason(FailKind.ABORTED, (self.join.member.name,), "aborted here")
        return self._failures.get(op, unknown)

    @property
    def _is_passed(self) -> bool:
        """The boundary of `last_switch` lies behind this peer."""
        if self.switch is None or self.last_switch is None:
            return self.last_switch is not None
        return self.switch.mark.ballot != self.last_switch.ballot

    def _unanswered(self) -> list[PeerMessage]:
        """What the coordinator may have missed, since it has not acted on it."""
        again: list[PeerMessage] = []
        if self.state is State.JOINING and self.welcome is None:
            again.append(self.join)
        if self._is_prepared and self.switch and not self.switch.is_committed:
            again.append(Prepared(self.self_id, self.switch.mark.ballot))
        if self._unreachable:
            again.append(self._unreachable)
        if self.state is State.FROZEN and self._report:
            again.append(self._make_report(self._report))
        if self.state is not State.JOINING:
            again.extend(self._suspicions())
        if self.state is State.ACTIVE and self._cancel:
            again.append(self._cancel_message(*self._cancel))
        if self._is_leaving:
            again.append(Leave(self.self_id, self.epoch))
        return again

    def _make_report(self, report: CommReport) -> Report:
        flight = report.in_flight
        if flight and self._cancel and flight.op == self._cancel[0]:
            flight = replace(flight, cancel=self._cancel[1])
        lost = {each.incarnation: each for each in report.lost}
        lost |= {p: LostLink(p, each.kind) for p, each in self._lost.items() if p not in lost}
        return Report(
            incarnation=self.self_id,
            ballot=self.promised,
            epoch=self.epoch,
            consumed=self._settled(report),
            in_flight=flight,
            lost=tuple(lost.values()),
            switch=self.last_switch,
            is_passed=self._is_passed,
            boundaries=self.boundaries,
        )

    def _settled(self, report: CommReport) -> Outcome:
        """The communicator's last outcome, or a failure that waits for its submission."""
        consumed = report.consumed
        latest = max(self._failures, default=0)
        if latest > consumed.op and report.in_flight is None:
            return Outcome(latest, 0, OutcomeKind.FAILED, False, self._failures[latest])
        if consumed.kind is OutcomeKind.FAILED:
            return replace(consumed, reason=self.failure_of(consumed.op))
        return consumed

    @property
    def _ping_period_s(self) -> float:
        return self.timeout_s / PINGS_PER_TIMEOUT

    def _enter(self, state: State) -> None:
        assert state in TRANSITIONS[self.state], f"{self.state.name} to {state.name}"
        self.state = state

    def _fence(self, reason: str) -> list[PeerAction]:
        self._enter(State.FENCED)
        return [self._announce(AnnouncementKind.FENCED, (self.join.member,), reason)]

    def _suspicion(self, lost: LinkLost) -> Suspect:
        return Suspect(self.self_id, self.epoch, lost.incarnation, lost.kind, lost.detail)

    def _suspicions(self) -> list[PeerMessage]:
        return [self._suspicion(lost) for lost in self._lost.values()]

    def _cancel_message(self, op: Op, cancel: Cancel) -> CancelOp:
        return CancelOp(self.self_id, self.epoch, op, cancel.kind, cancel.detail)

    def _announce(self, kind: AnnouncementKind, who: tuple[Member, ...], reason: str) -> Announce:
        return Announce(kind, who, self.epoch, self._now_s, reason)

    def _announce_joined(self, old: View | None, new: View, reason: str) -> list[PeerAction]:
        joined = tuple(m for m in new.members if old is None or m.incarnation not in old)
        return [self._announce(AnnouncementKind.JOINED, joined, reason)] if joined else []

    def _announce_changes(self, old: View | None, message: Install) -> list[PeerAction]:
        actions = self._announce_joined(old, message.view, message.reason)
        members = {member.incarnation: member for member in old.members} if old else {}
        for gone in message.departures:
            if gone.incarnation in members:
                is_left = gone.kind is DepartureKind.LEFT
                kind = AnnouncementKind.LEFT if is_left else AnnouncementKind.LOST
                actions.append(self._announce(kind, (members[gone.incarnation],), gone.reason))
        actions.append(self._announce(AnnouncementKind.RESUMED, (), message.reason))
        return actions
