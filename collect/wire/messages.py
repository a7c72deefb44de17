"""The messages of the control plane, one value per row of docs/protocol.md section 7.

Every message from a peer has an `incarnation`; the receiver answers that incarnation. Texts named
`detail` and `reason` are prose for people: the codec shortens them, nothing parses them.
"""

from dataclasses import dataclass

from collect.types import (
    ALGORITHM_AUTO,
    COMMIT_BYTES_DEFAULT,
    TRANSPORT_AUTO,
    Admit,
    Ballot,
    CancelKind,
    Departure,
    Incarnation,
    LinkFigures,
    LinkLoss,
    LostLink,
    Member,
    Op,
    OpInFlight,
    Outcome,
    Redial,
    Repair,
    Scope,
    ScopeId,
    ScopeReport,
    ScopeVerdict,
    SwitchMark,
    Verdict,
    View,
)

# ---- from a peer ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Join:
    """A process asks to be let into the group.

    `algorithm` (enum collect_algorithm; -1: no wish), `commit_bytes` and `transport` (0: no wish)
    are what the recipe becomes if this peer founds the group.
    """

    member: Member
    min_peers: int
    admit: Admit
    group: str
    algorithm: int = ALGORITHM_AUTO
    commit_bytes: int = COMMIT_BYTES_DEFAULT
    transport: int = TRANSPORT_AUTO

    @property
    def incarnation(self) -> Incarnation:
        return self.member.incarnation


@dataclass(frozen=True, slots=True)
class Hello:
    """The answer to WHO: all that a restarted coordinator needs to know of a peer.

    `switch` is the last one that the peer's installed view includes, and `is_passed` whether the
    peer has reached its boundary. `prepared` is a promised view that is not installed, with the
    switch it belongs to.
    """

    join: Join
    epoch: Ballot
    view: View | None
    promised: Ballot
    is_frozen: bool
    switch: SwitchMark | None
    is_passed: bool
    prepared: View | None
    prepared_switch: SwitchMark | None
    boundaries: int

    @property
    def incarnation(self) -> Incarnation:
        return self.join.member.incarnation


@dataclass(frozen=True, slots=True)
class Ping:
    """Sent every quarter of `timeout`; `generation` is the coordinator's, as last heard."""

    incarnation: Incarnation
    generation: int
    epoch: Ballot
    boundaries: int


@dataclass(frozen=True, slots=True)
class Suspect:
    """The link to `accused` is lost."""

    incarnation: Incarnation
    epoch: Ballot
    accused: Incarnation
    kind: LinkLoss
    detail: str


@dataclass(frozen=True, slots=True)
class CancelOp:
    """The operation in flight is to end without a result, on all members.

    `scope`: the sub-group that it is of; 0: the group.
    """

    incarnation: Incarnation
    epoch: Ballot
    op: Op
    kind: CancelKind
    detail: str
    scope: ScopeId = 0


@dataclass(frozen=True, slots=True)
class Report:
    """What a frozen peer knows. `switch` and `is_passed` as in HELLO; `scopes` has its sub-groups
    that ever had an operation."""

    incarnation: Incarnation
    ballot: Ballot
    epoch: Ballot
    consumed: Outcome
    in_flight: OpInFlight | None
    lost: tuple[LostLink, ...]
    switch: SwitchMark | None
    is_passed: bool
    boundaries: int
    scopes: tuple[ScopeReport, ...] = ()


@dataclass(frozen=True, slots=True)
class Stale:
    """The peer has promised a higher ballot than the one it was asked for."""

    incarnation: Incarnation
    ballot: Ballot
    promised: Ballot


@dataclass(frozen=True, slots=True)
class Installed:
    """Of a flush: the view is installed and repairs are complete. Of a switch: A is passed."""

    incarnation: Incarnation
    ballot: Ballot
    boundaries: int


@dataclass(frozen=True, slots=True)
class Prepared:
    """A member will not pass the switch's boundary; a joiner has links to all members."""

    incarnation: Incarnation
    ballot: Ballot


@dataclass(frozen=True, slots=True)
class Late:
    """The member has passed the proposed boundary already."""

    incarnation: Incarnation
    ballot: Ballot
    boundaries: int


@dataclass(frozen=True, slots=True)
class Unreachable:
    """A joiner has no link to `whom`."""

    incarnation: Incarnation
    ballot: Ballot
    whom: tuple[Incarnation, ...]
    detail: str


@dataclass(frozen=True, slots=True)
class Leave:
    incarnation: Incarnation
    epoch: Ballot


@dataclass(frozen=True, slots=True)
class Figures:
    """What a peer has measured of its links to others, as far as it has. Replaces what it said."""

    incarnation: Incarnation
    links: tuple[LinkFigures, ...]


# ---- from the coordinator ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Welcome:
    """A candidate is known; it waits for PREPARE."""

    generation: int
    scope: Scope
    group_key: int
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Refused:
    reason: str


@dataclass(frozen=True, slots=True)
class Who:
    generation: int


@dataclass(frozen=True, slots=True)
class Pong:
    generation: int
    epoch: Ballot


@dataclass(frozen=True, slots=True)
class Freeze:
    ballot: Ballot
    reason: str


@dataclass(frozen=True, slots=True)
class Install:
    """A flush's decision. `switch` is the last one that the new view includes: a member that has
    yet to reach its boundary numbers its operations anew there. `scopes`: the verdicts on those
    sub-groups of the receiver where there is more to say than that what is in flight runs again.
    """

    view: View
    from_epoch: Ballot
    verdict: Verdict
    repairs: tuple[Repair, ...]
    redials: tuple[Redial, ...]
    departures: tuple[Departure, ...]
    switch: SwitchMark
    reason: str
    scopes: tuple[ScopeVerdict, ...] = ()


@dataclass(frozen=True, slots=True)
class Prepare:
    """`switch.ballot` equals `view.epoch`."""

    view: View
    switch: SwitchMark


@dataclass(frozen=True, slots=True)
class Commit:
    ballot: Ballot


@dataclass(frozen=True, slots=True)
class Abandon:
    ballot: Ballot
    reason: str


@dataclass(frozen=True, slots=True)
class Fenced:
    epoch: Ballot
    reason: str


@dataclass(frozen=True, slots=True)
class Left:
    epoch: Ballot


PeerMessage = (
    Join
    | Hello
    | Ping
    | Suspect
    | CancelOp
    | Report
    | Stale
    | Installed
    | Prepared
    | Late
    | Unreachable
    | Leave
    | Figures
)
CoordinatorMessage = (
    Welcome | Refused | Who | Pong | Freeze | Install | Prepare | Commit | Abandon | Fenced | Left
)
Message = PeerMessage | CoordinatorMessage
