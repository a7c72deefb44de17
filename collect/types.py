"""The values that both planes speak of: peers, views, ballots and the fate of operations.

Numbers are plain `int`s, named by the aliases below; docs/protocol.md section 1 defines them.
"""

import math
from dataclasses import dataclass, replace
from enum import IntEnum

Incarnation = int
Ballot = int
Op = int
ScopeId = int  # names a sub-group on all its members; 0: the group itself

GENERATION_BITS = 24
COUNTER_MAX = 2**31 - 1  # an epoch number is the upper half of an op number, which is signed
OP_INDEX_BITS = 32

MEMBERS_MAX = 1024
SCOPES_MAX = 1024  # sub-groups of one peer
SCOPE_SEATS_MAX = 65536  # members of all of them together, so that a report fits a message
SCOPE_ID_MAX = 2**31 - 1
ALGORITHM_AUTO = -1  # enum collect_algorithm: chosen per call
COMMIT_BYTES_DEFAULT = 256 * 1024
TRANSPORT_AUTO = 0  # enum collect_transport: shared memory where all members can attach to it
TRANSPORT_TCP = 1


def make_ballot(counter: int, generation: int) -> Ballot:
    """A ballot that no other start of the coordinator can name."""
    assert 0 < counter <= COUNTER_MAX
    assert 0 <= generation < 1 << GENERATION_BITS
    return counter << GENERATION_BITS | generation


def epoch_number(ballot: Ballot) -> int:
    """What users see of a ballot: it grows by at least one per view."""
    return ballot >> GENERATION_BITS


def op_base(ballot: Ballot) -> Op:
    """The first operation after the switch `ballot` is this plus one."""
    return epoch_number(ballot) << OP_INDEX_BITS


def op_name(op: Op) -> str:
    """An operation as users read it: "5.3" is the third since the switch of epoch 5."""
    return f"{op >> OP_INDEX_BITS}.{op & (1 << OP_INDEX_BITS) - 1}"


class Admit(IntEnum):
    """When a member may let newcomers in."""

    AUTO = 1  # before any operation
    MANUAL = 2  # at each call of admit()


class Scope(IntEnum):
    """Which addresses the coordinator's own network makes reasonable for the data plane."""

    LOOPBACK = 1
    ANY = 2


class LinkLoss(IntEnum):
    """Why a data link is gone; the numbers are those of `enum collect_loss`."""

    RESET = 1
    SILENT = 2
    UNREACHABLE = 3
    GARBAGE = 4


class CancelKind(IntEnum):
    """Why a member wants the operation in flight to end without a result."""

    ABORT = 1
    TIMEOUT = 2
    MISMATCH = 3
    MEMBERS = 4  # the call's shape was meant for another number of members


class FailKind(IntEnum):
    """Why an operation failed, on all members that did not complete it."""

    MISMATCH = 1
    TIMEOUT = 2
    ABORTED = 3
    MEMBERS = 4  # members were lost, and the call's blocks were meant for all of them


class OutcomeKind(IntEnum):
    """How the last consumed operation ended."""

    NONE = 0
    DONE = 1
    FAILED = 2


class VerdictKind(IntEnum):
    """What a flush decided; the numbers are those of `enum collect_verdict`."""

    RERUN = 0  # every operation in flight runs again, from its untouched input
    REPAIR = 1  # the verdict's operation is complete: who is whole completes it, others fetch it
    FAIL = 2  # the verdict's operation fails, on a member that has yet to submit it too


class DepartureKind(IntEnum):
    """How a member went."""

    LEFT = 1
    LOST = 2
    FENCED = 3


@dataclass(frozen=True, slots=True)
class Member:
    """A peer that is, or asks to be, in a view.

    `host` is what it claims: its boot id and network namespace. Whether those that claim the same
    share memory, the data plane finds out. `addresses` are candidates for its data port,
    "1.2.3.4:5" or "[::1]:5". `bandwidth`, bytes/s each way, is what its link to the network carries
    as it says itself; 0: it does not say.
    """

    incarnation: Incarnation
    name: str
    host: str
    addresses: tuple[str, ...]
    bandwidth: int = 0


@dataclass(frozen=True, slots=True)
class LinkModel:
    """struct collect_link_model of collect.h: figures from which an algorithm is chosen."""

    latency_ns: int
    overhead_ns: int
    bytes_per_s: int


# What a link within a host is taken for, before anything is measured: over both its ends'
# shared memory, or over TCP where the transport says so.
SHARED_MEMORY = LinkModel(1_500, 500, 6_000_000_000)
LOOPBACK = LinkModel(5_000, 2_000, 4_000_000_000)


@dataclass(frozen=True, slots=True)
class LinkFigures:
    """What a peer has measured of its link to `incarnation`; 0: unknown."""

    incarnation: Incarnation
    rtt_min_ns: int
    delivery_bytes_per_s: int


@dataclass(frozen=True, slots=True)
class Recipe:
    """What the members of a view agree on besides who they are: struct collect_recipe.

    `algorithm`: enum collect_algorithm, -1 chooses per call from the models. `weights`: owner
    shares by rank, `order`: ranks in the order of the ring, `radices`: of the hierarchical
    algorithm, innermost first; each empty for the default. Calls of at least `commit_bytes` end
    with everybody's word that its part is complete; smaller ones retain a copy instead.
    `transport` is one of enum collect_transport.
    """

    algorithm: int = ALGORITHM_AUTO
    commit_bytes: int = COMMIT_BYTES_DEFAULT
    local: LinkModel = SHARED_MEMORY
    remote: LinkModel = LinkModel(50_000, 5_000, 1_000_000_000)
    reduce_bytes_per_s: int = 8_000_000_000
    transport: int = TRANSPORT_AUTO
    weights: tuple[int, ...] = ()
    order: tuple[int, ...] = ()
    radices: tuple[int, ...] = ()

    def for_members(self, count: int) -> "Recipe":
        """This recipe without the settings by rank that do not fit a view of `count` members."""
        return replace(
            self,
            weights=self.weights if len(self.weights) == count else (),
            order=self.order if len(self.order) == count else (),
            radices=self.radices if math.prod(self.radices) == count else (),
        )


@dataclass(frozen=True, slots=True)
class View:
    """An epoch's members, in rank order, and their recipe."""

    epoch: Ballot
    members: tuple[Member, ...]
    group_key: int
    recipe: Recipe = Recipe()

    def __contains__(self, incarnation: Incarnation) -> bool:
        return any(member.incarnation == incarnation for member in self.members)

    @property
    def incarnations(self) -> tuple[Incarnation, ...]:
        return tuple(member.incarnation for member in self.members)

    def rank_of(self, incarnation: Incarnation) -> int:
        return self.incarnations.index(incarnation)

    def name_of(self, incarnation: Incarnation) -> str:
        """The member's name; for a stranger, its incarnation in hexadecimal."""
        for member in self.members:
            if member.incarnation == incarnation:
                return member.name
        return f"{incarnation:x}"


@dataclass(frozen=True, slots=True)
class FailReason:
    """Why an operation failed. `text` names every caller's part where that explains it."""

    kind: FailKind
    culprits: tuple[str, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """The last operation a peer consumed. `is_retained`: its result is here and can repair."""

    op: Op = 0
    attempt: Ballot = 0
    kind: OutcomeKind = OutcomeKind.NONE
    is_retained: bool = False
    reason: FailReason | None = None  # when FAILED


@dataclass(frozen=True, slots=True)
class Cancel:
    kind: CancelKind
    detail: str


@dataclass(frozen=True, slots=True)
class OpInFlight:
    """The operation a peer runs, or will run as soon as it can.

    `descriptor` is for people, such as "all_reduce float32[1000] sum"; `digest` covers all that
    must agree among members, and nothing that an epoch changes (no recipe). `is_whole`: its part of
    `attempt` is complete here, and only the others' word of theirs was missing. `is_shaped`: its
    blocks are meant for the members of `attempt` only. `is_rooted`: it names a root.
    """

    op: Op
    attempt: Ballot
    descriptor: str
    digest: int
    cancel: Cancel | None = None
    is_whole: bool = False
    is_shaped: bool = False
    is_rooted: bool = False


@dataclass(frozen=True, slots=True)
class LostLink:
    incarnation: Incarnation
    kind: LinkLoss


@dataclass(frozen=True, slots=True)
class SwitchMark:
    """A planned change: at boundary `boundary` the view of `ballot` lets `newcomers` in."""

    ballot: Ballot
    boundary: int
    newcomers: tuple[Incarnation, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of the operations that a flush interrupted (docs/protocol.md 3.5)."""

    kind: VerdictKind = VerdictKind.RERUN
    op: Op = 0  # for REPAIR and FAIL; for RERUN the rooted one that everybody has in flight, or 0
    attempt: Ballot = 0  # for REPAIR: the attempt that was delivered
    reason: FailReason | None = None  # for FAIL


@dataclass(frozen=True, slots=True)
class Repair:
    """`holder` sends its retained result to `needer`."""

    holder: Incarnation
    needer: Incarnation


@dataclass(frozen=True, slots=True)
class ScopeReport:
    """What a frozen peer knows of a sub-group: its members, in rank order, and its operations."""

    scope: ScopeId
    members: tuple[Incarnation, ...]
    consumed: Outcome = Outcome()
    in_flight: OpInFlight | None = None


@dataclass(frozen=True, slots=True)
class ScopeVerdict:
    """A verdict on the operations of one sub-group, and the repairs among its members."""

    scope: ScopeId
    verdict: Verdict
    repairs: tuple[Repair, ...] = ()


@dataclass(frozen=True, slots=True)
class Redial:
    """A link between two live members that is to be opened anew."""

    one: Incarnation
    other: Incarnation


@dataclass(frozen=True, slots=True)
class Departure:
    incarnation: Incarnation
    kind: DepartureKind
    reason: str
