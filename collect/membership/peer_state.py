"""What a peer knows, and how it speaks of it: shared by the parts of its machine."""

from dataclasses import dataclass
from enum import Enum, auto
from math import inf

from collect.membership.events import (
    Announce,
    AnnouncementKind,
    CommReport,
    LinkLost,
    PeerAction,
)
from collect.membership.ledger import Ledger
from collect.types import (
    Ballot,
    Cancel,
    DepartureKind,
    FailReason,
    Incarnation,
    LinkFigures,
    LostLink,
    Member,
    Op,
    ScopeId,
    ScopeReport,
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
BOUNDARY_MAX = 2**63 - 1
LEDGERS_MAX = 4096  # of sub-groups, some of which are yet to be created here


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
        self._repairing: set[ScopeId] = set()  # streams of which a result is awaited
        self._is_prepared = False  # PREPARED was sent for `switch`
        self._report: CommReport | None = None  # of the frozen communicator
        self._unreachable: Unreachable | None = None  # why `switch` cannot be prepared here
        self._lost: dict[Incarnation, LinkLost] = {}
        self._ledgers: dict[ScopeId, Ledger] = {}
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

    def failure_of(self, op: Op, scope: ScopeId = 0) -> FailReason:
        """Why a verdict failed `op`, of the group or of a sub-group."""
        return self._ledger(scope).failure_of(op)

    def _ledger(self, scope: ScopeId) -> Ledger:
        ledger = self._ledgers.get(scope)
        if ledger is None:
            ledger = self._ledgers[scope] = Ledger(self.join.member.name)
            if len(self._ledgers) > LEDGERS_MAX:
                del self._ledgers[next(each for each in self._ledgers if each)]
        return ledger

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
        if self.state is State.ACTIVE:
            again.extend(self._cancellations())
        if self._is_leaving:
            again.append(Leave(self.self_id, self.epoch))
        return again

    def _make_report(self, report: CommReport) -> Report:
        mine = self._ledger(0)
        lost = {each.incarnation: each for each in report.lost}
        lost |= {p: LostLink(p, each.kind) for p, each in self._lost.items() if p not in lost}
        return Report(
            incarnation=self.self_id,
            ballot=self.promised,
            epoch=self.epoch,
            consumed=mine.settled(report.consumed, report.in_flight),
            in_flight=mine.in_flight(report.in_flight),
            lost=tuple(lost.values()),
            switch=self.last_switch,
            is_passed=self._is_passed,
            boundaries=self.boundaries,
            scopes=tuple(told for each in report.scopes if (told := self._tell_scope(each))),
        )

    def _tell_scope(self, report: ScopeReport) -> ScopeReport | None:
        """What is said of a sub-group; None while it has had no operation."""
        ledger = self._ledger(report.scope)
        consumed = ledger.settled(report.consumed, report.in_flight)
        flight = ledger.in_flight(report.in_flight)
        if not consumed.op and flight is None:
            return None
        return ScopeReport(report.scope, report.members, consumed, flight)

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

    def _cancellations(self) -> list[PeerMessage]:
        return [
            self._cancel_message(*ledger.cancel, scope)
            for scope, ledger in self._ledgers.items()
            if ledger.cancel
        ]

    def _cancel_message(self, op: Op, cancel: Cancel, scope: ScopeId) -> CancelOp:
        return CancelOp(self.self_id, self.epoch, op, cancel.kind, cancel.detail, scope)

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
