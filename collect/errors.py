"""The exceptions, grouped by what a caller can do about them.

    CollectError
    ├── InvalidArgument     correct the call (also a ValueError)
    ├── JoinFailed          this process did not become a member
    │   ├── JoinRefused             the coordinator said no, and why
    │   └── CoordinatorUnreachable  nobody answered
    ├── OperationFailed     this call failed; the arrays are unchanged; the group can be used on
    │   ├── Timeout                 the same on every member (also a TimeoutError)
    │   ├── Mismatch                the same on every member; names who called what
    │   ├── Aborted                 a member called `abort`
    │   ├── MembersChanged          blocks were meant for other members; the same on every member
    │   ├── PeerLost                a member is gone and no view without it can be agreed; of a
    │   │                           message: the other end is gone, or gave it up
    │   └── StateMismatch           `admit`: the states do not fit together
    ├── RangesRevoked       the operation goes on: undo what was made of its ranges, ask anew
    └── MembershipLost      this process is no longer a member; join again
        ├── Fenced                  the others went on without it
        └── Closed                  it left, or the group was closed

Every message says who, what and when, and ends with what to do; the same facts are attributes.
"""

from __future__ import annotations


class CollectError(Exception):
    """The root. Never raised itself.

    Attributes:
        peer: name of the peer that it is about, or None.
        epoch: user number of the epoch in which it happened, or None.
        op: name of the operation ("5.3": the third of epoch 5), or None.
        advice: what the caller can do, one sentence.
    """

    default_advice = ""

    def __init__(
        self,
        message: str,
        *,
        peer: str | None = None,
        epoch: int | None = None,
        op: str | None = None,
        advice: str | None = None,
    ) -> None:
        self.message = message
        self.peer = peer
        self.epoch = epoch
        self.op = op
        self.advice = self.default_advice if advice is None else advice
        super().__init__(message)

    def __str__(self) -> str:
        where = ", ".join(
            part
            for part in (
                f"op {self.op}" if self.op is not None and self.op not in self.message else "",
                f"epoch {self.epoch}" if self.epoch is not None else "",
            )
            if part
        )
        text = f"{self.message} ({where})" if where else self.message
        return f"{text}; {self.advice}" if self.advice else text

    def again(self) -> CollectError:
        """A copy to raise in another thread: a raised exception carries one traceback."""
        return type(self)(
            self.message, peer=self.peer, epoch=self.epoch, op=self.op, advice=self.advice
        )


class InvalidArgument(CollectError, ValueError):
    """A value is outside what is documented. Nothing was done."""


class JoinFailed(CollectError):
    """This process did not become a member."""


class JoinRefused(JoinFailed):
    """The coordinator refused this peer."""

    default_advice = "change what the reason names and join again"


class CoordinatorUnreachable(JoinFailed, ConnectionError):
    """Nobody answers at the coordinator's address."""

    default_advice = "check that `collect coordinator` runs there and that the address is right"


class OperationFailed(CollectError):
    """This call failed. The caller's arrays are unchanged and the group can be used on."""


class Timeout(OperationFailed, TimeoutError):
    """The operation did not complete in time. Raised on every member."""

    default_advice = "find out why a member did not call it in time, or pass a larger timeout"


class Mismatch(OperationFailed):
    """Members called different operations. Raised on every member."""

    default_advice = "every member must make the same calls in the same order"


class Aborted(OperationFailed):
    """A member called `abort`."""

    default_advice = "repeat the step if it is still wanted"


class MembersChanged(OperationFailed):
    """Members were lost, and the call's blocks were meant for all of them. On every member."""

    default_advice = "lay the blocks out for the members that are left, and call again"


class PeerLost(OperationFailed):
    """A member is gone, and the members that are left cannot agree on a view without it.

    Of a message: its other end is no member, its link was lost, or it gave the message up.
    """

    default_advice = "restart the coordinator at its address, or join again"


class StateMismatch(OperationFailed):
    """`admit`: the members' states do not fit together. Raised on every member."""

    default_advice = "pass arrays of the same names, dtypes and shapes on every peer"


class RangesRevoked(CollectError):
    """Ranges that `Work.ranges` gave are no result any more: the operation runs again.

    It has not failed, and may yet succeed; the next `Work.ranges` gives all ranges once more.
    """

    default_advice = "undo what was made of the ranges so far, and iterate over work.ranges() again"


class MembershipLost(CollectError):
    """This process is no longer a member of the group."""


class Fenced(MembershipLost):
    """The other members went on without this peer."""

    default_advice = "leave this group and join again, with `admit(state)` to be brought up to date"


class Closed(MembershipLost):
    """The group was left or closed."""

    default_advice = "join again"
