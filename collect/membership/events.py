"""What goes into the membership machines and what comes out.

The driver (asyncio in production, a virtual clock in the simulation) hands events to `Peer.on` and
`Coordinator.on`, one at a time, and performs the returned actions in order. Nothing here waits:
an action's result, where there is one, comes back as a later event.
"""

from dataclasses import dataclass
from enum import Enum, auto

from collect.types import (
    Ballot,
    CancelKind,
    Incarnation,
    LinkFigures,
    LinkLoss,
    LostLink,
    Member,
    Op,
    OpInFlight,
    Outcome,
    Repair,
    ScopeId,
    ScopeReport,
    ScopeVerdict,
    Verdict,
    View,
)
from collect.wire.messages import CoordinatorMessage, PeerMessage

# ---- events of a peer ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Started:
    """The connection to the coordinator may be used. Once, first."""


@dataclass(frozen=True, slots=True)
class MessageReceived:
    message: CoordinatorMessage


@dataclass(frozen=True, slots=True)
class LinkLost:
    """The data link to `incarnation` is gone. One event per loss; a stranger's is ignored."""

    incarnation: Incarnation
    kind: LinkLoss
    detail: str


@dataclass(frozen=True, slots=True)
class LinksUp:
    """The answer to DialPeers: links to every other member of its view are up."""

    ballot: Ballot


@dataclass(frozen=True, slots=True)
class LinksFailed:
    """The answer to DialPeers: these members cannot be reached."""

    ballot: Ballot
    whom: tuple[Incarnation, ...]
    detail: str


@dataclass(frozen=True, slots=True)
class CommReport:
    """What the communicator knows when it is frozen; mirrors `struct collect_report`.

    `in_flight.cancel` and `consumed.reason` are left None: the peer machine adds what it knows. An
    operation that the user aborted stays in flight until a verdict settles it. `scopes`: likewise
    its sub-groups, in any order.
    """

    consumed: Outcome
    in_flight: OpInFlight | None
    lost: tuple[LostLink, ...]
    scopes: tuple[ScopeReport, ...] = ()


@dataclass(frozen=True, slots=True)
class CommFrozen:
    """The answer to FreezeComm. Until InstallComm nothing is sent, accepted or delivered."""

    ballot: Ballot
    report: CommReport


@dataclass(frozen=True, slots=True)
class RepairsDone:
    """The answer to an InstallComm that makes this peer the needer of a repair: the missing result
    is here. One for each stream: the group's (scope 0), and each sub-group's."""

    ballot: Ballot
    scope: ScopeId = 0


@dataclass(frozen=True, slots=True)
class BoundaryAsked:
    """A user thread stands at the next boundary and waits for PassBoundary.

    While `Peer.is_boundary_due`, only when all own operations are consumed; until the answer no
    operation may be submitted. At most one is outstanding.
    """


@dataclass(frozen=True, slots=True)
class OpCancelled:
    """`op`, in flight here, was aborted, ran out of time, or differs from another member's.
    `scope`: the sub-group that it is of; 0: the group."""

    op: Op
    kind: CancelKind
    detail: str
    scope: ScopeId = 0


@dataclass(frozen=True, slots=True)
class ScopeClosed:
    """A sub-group is no more here; its operations are settled on all its members."""

    scope: ScopeId


@dataclass(frozen=True, slots=True)
class LeaveAsked:
    """The user leaves. No operation may be submitted from here on; LEFT ends it."""


@dataclass(frozen=True, slots=True)
class LinksMeasured:
    """Figures of the links of which there are any. As often as it suits; the machine picks."""

    links: tuple[LinkFigures, ...]


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed. Due at `next_deadline_s` of the machine; early or late ones do no harm."""


PeerEvent = (
    Started
    | MessageReceived
    | LinkLost
    | LinksUp
    | LinksFailed
    | CommFrozen
    | RepairsDone
    | BoundaryAsked
    | OpCancelled
    | ScopeClosed
    | LeaveAsked
    | LinksMeasured
    | Tick
)

# ---- actions of a peer ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Send:
    """To the coordinator. May be lost: the machine sends again what needs an answer."""

    message: PeerMessage


@dataclass(frozen=True, slots=True)
class FreezeComm:
    """Freeze the communicator and answer with CommFrozen(ballot, …). At most one outstanding."""

    ballot: Ballot


@dataclass(frozen=True, slots=True)
class InstallComm:
    """Enter an epoch, at once: `collect_comm_install`.

    The communicator is frozen (a flush), has nothing in flight (a switch), or never had a view
    (a joiner). `op_base` not 0: the next operation is `op_base + 1`. `redials` are the other ends
    of links to be opened anew, by whichever end the communicator lets dial; both ends report one
    that is not up in time as LinkLost, also the end that does not dial. `has_repair`: this peer is
    the needer of one of `repairs`; answer RepairsDone. A FAIL verdict holds for an operation that
    is yet to be submitted here too, and several may be outstanding: `Peer.failure_of(op)` tells
    the reason; it means nothing to an operation that is consumed here. A REPAIR verdict completes
    an operation that was reported whole at once, without a repair. `scopes`: the same for
    sub-groups, some of which may not exist here; what the others have in flight runs again.
    """

    view: View
    self_rank: int
    op_base: Op
    verdict: Verdict
    repairs: tuple[Repair, ...]
    redials: tuple[Incarnation, ...]
    has_repair: bool
    scopes: tuple[ScopeVerdict, ...] = ()


@dataclass(frozen=True, slots=True)
class RebaseComm:
    """The next operation is `op_base + 1`; the view stays. Nothing is in flight."""

    op_base: Op


@dataclass(frozen=True, slots=True)
class DialPeers:
    """Open links to every other member of `view` and answer LinksUp or LinksFailed(ballot).

    Links that are up stay. Of two members the one with the higher rank dials. A later DialPeers
    replaces an earlier one that is not answered.
    """

    ballot: Ballot
    view: View


@dataclass(frozen=True, slots=True)
class PassBoundary:
    """The waiting user thread goes on.

    `admitted`, not empty after a switch, are its newcomers, the same tuple on every member even
    if some of them are gone by now: all must take the same step (bringing newcomers in step).
    `is_newcomer`: this peer is one of them.
    """

    boundary: int
    admitted: tuple[Incarnation, ...]
    is_newcomer: bool


class AnnouncementKind(Enum):
    """What may have happened to the group, for its user."""

    JOINED = auto()
    LEFT = auto()
    LOST = auto()
    FROZEN = auto()
    RESUMED = auto()
    FENCED = auto()  # this peer: final
    REFUSED = auto()  # this peer: final
    COORDINATOR_UNREACHABLE = auto()
    COORDINATOR_BACK = auto()


@dataclass(frozen=True, slots=True)
class Announce:
    """Tell the user: what, to whom, in which epoch, when and why."""

    kind: AnnouncementKind
    who: tuple[Member, ...]
    epoch: Ballot
    at_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class Log:
    """For the operator. Never changes what happens."""

    reason: str


PeerAction = (
    Send | FreezeComm | InstallComm | RebaseComm | DialPeers | PassBoundary | Announce | Log
)

# ---- the coordinator -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PeerMessageReceived:
    """`message.incarnation` must be the one the connection belongs to: the driver checks."""

    message: PeerMessage


@dataclass(frozen=True, slots=True)
class SendFailed:
    """The last SendTo to `incarnation` went nowhere: it has no connection now. No proof."""

    incarnation: Incarnation


CoordinatorEvent = PeerMessageReceived | SendFailed | Tick


@dataclass(frozen=True, slots=True)
class SendTo:
    """To one peer. May be lost."""

    incarnation: Incarnation
    message: CoordinatorMessage


@dataclass(frozen=True, slots=True)
class RememberView:
    """Write this durably before any later action; the next start gets it (Settings.last_view).

    A few bytes per change of the view. Without it a coordinator that restarts may go on with a
    member that was expelled, if it was never told and all others have died since.
    """

    view: View


CoordinatorAction = SendTo | RememberView | Log
