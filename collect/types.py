"""The values that both planes speak of: peers, views, ballots and the fate of operations.

Numbers are plain `int`s, named by the aliases below; docs/protocol.md section 1 defines them.
"""

from dataclasses import dataclass
from enum import IntEnum

Incarnation = int
Ballot = int
Op = int

GENERATION_BITS = 24
COUNTER_MAX = 2**31 - 1  # an epoch number is the upper half of an op number, which is signed
OP_INDEX_BITS = 32

MEMBERS_MAX = 1024


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


class FailKind(IntEnum):
    """Why an operation failed, on all members alike."""

    MISMATCH = 1
    TIMEOUT = 2
    ABORTED = 3


class OutcomeKind(IntEnum):
    """How the last consumed operation ended."""

    NONE = 0
    DONE = 1
    FAILED = 2


class VerdictKind(IntEnum):
    """What a flush decided; the numbers are those of `enum collect_verdict`."""

    RERUN = 0  # every operation in flight runs again, from its untouched input
    REPAIR = 1  # the verdict's operation is complete; who lacks its result fetches it
    FAIL = 2  # the verdict's operation fails, on a member that has yet to submit it too


class DepartureKind(IntEnum):
    """How a member went."""

    LEFT = 1
    LOST = 2
    FENCED = 3


@dataclass(frozen=True, slots=True)
class Member:
    """A peer that is, or asks to be, in a view.

    `host` equals that of another member exactly when both can share memory: boot id and network
    namespace. `addresses` are candidates for its data port, "1.2.3.4:5" or "[::1]:5".
    """

    incarnation: Incarnation
    name: str
    host: str
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class View:
    """An epoch's members, in rank order."""

    epoch: Ballot
    members: tuple[Member, ...]
    group_key: int

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
    must agree among members, and nothing that an epoch changes (no recipe).
    """

    op: Op
    attempt: Ballot
    descriptor: str
    digest: int
    cancel: Cancel | None = None


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
    op: Op = 0  # for REPAIR and FAIL
    attempt: Ballot = 0  # for REPAIR: the attempt that was delivered
    reason: FailReason | None = None  # for FAIL


@dataclass(frozen=True, slots=True)
class Repair:
    """`holder` sends its retained result to `needer`."""

    holder: Incarnation
    needer: Incarnation


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
