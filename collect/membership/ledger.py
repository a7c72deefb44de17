"""What a peer knows of one stream of operations besides what its communicator reports.

A stream is the operations of the group, or those of one sub-group. The communicator knows numbers
and outcomes; why an operation failed, and that the user has given one up, is kept here.
"""

from dataclasses import replace

from collect.types import (
    Cancel,
    FailKind,
    FailReason,
    Op,
    OpInFlight,
    Outcome,
    OutcomeKind,
    Verdict,
    VerdictKind,
)

FAILURES_KEPT_MAX = 64


class Ledger:
    """Cancellations and failures of one stream.

    Attributes:
        cancel: the operation that this peer wants to end without a result, and why.
        failures: why verdicts failed operations, some of them yet to be submitted here.
    """

    def __init__(self, name: str) -> None:
        self._name = name  # of the peer
        self.cancel: tuple[Op, Cancel] | None = None
        self.failures: dict[Op, FailReason] = {}

    def failure_of(self, op: Op) -> FailReason:
        """Why a verdict failed `op`."""
        unknown = FailReason(FailKind.ABORTED, (self._name,), "aborted here")
        return self.failures.get(op, unknown)

    def note_cancel(self, op: Op, cancel: Cancel) -> bool:
        """False: a cancellation of it, or of a later one, is known."""
        if self.cancel and self.cancel[0] >= op:
            return False
        self.cancel = (op, cancel)
        return True

    def drop_consumed_cancel(self, flight: OpInFlight | None) -> None:
        """A cancelled operation that is not in flight any more was consumed: nothing to cancel."""
        if self.cancel and (flight is None or flight.op > self.cancel[0]):
            self.cancel = None

    def drop_settled_cancel(self, verdict: Verdict) -> None:
        if verdict.kind is not VerdictKind.RERUN and self.cancel and self.cancel[0] <= verdict.op:
            self.cancel = None

    def note_failure(self, verdict: Verdict, consumed: Op) -> None:
        """Remembers a verdict that fails an operation which is not consumed here."""
        is_failure = verdict.kind is VerdictKind.FAIL and verdict.op > consumed
        if not is_failure or verdict.reason is None:
            return
        self.failures[verdict.op] = verdict.reason
        if len(self.failures) > FAILURES_KEPT_MAX:
            del self.failures[min(self.failures)]

    def settled(self, consumed: Outcome, flight: OpInFlight | None) -> Outcome:
        """The communicator's last outcome, or a failure that waits for its submission."""
        latest = max(self.failures, default=0)
        if latest > consumed.op and flight is None:
            return Outcome(latest, 0, OutcomeKind.FAILED, False, self.failures[latest])
        if consumed.kind is OutcomeKind.FAILED:
            return replace(consumed, reason=self.failure_of(consumed.op))
        return consumed

    def in_flight(self, flight: OpInFlight | None) -> OpInFlight | None:
        """The operation in flight, with the reason to cancel it, if there is one."""
        if flight and self.cancel and flight.op == self.cancel[0]:
            return replace(flight, cancel=self.cancel[1])
        return flight
