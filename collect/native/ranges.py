"""Parts of an operation: of its source that the caller writes meanwhile, of its target that are
final already. Elements are those of the flat arrays."""

from __future__ import annotations

import threading
from typing import NamedTuple

from collect import native
from collect.errors import Closed, InvalidArgument
from collect.native import status
from collect.native.operation import NS_PER_S, Operation


class Range(NamedTuple):
    """Elements [begin, end) of the flat result."""

    begin: int
    end: int


class Production:
    """What of an operation's source is yet to be written. Any thread may call anything."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.left = total
        self._lock = threading.Lock()

    def mark(self, operation: Operation, begin: int, end: int) -> None:
        """Elements [begin, end) are written. Nothing happens when the operation has ended.

        Raises:
            InvalidArgument: there are no such elements, or some were marked before.
        """
        if not 0 <= begin <= end <= self.total:
            raise InvalidArgument(
                f"elements {begin} to {end} are not within the {self.total} that are produced here"
            )
        left = native.ffi.new("uint64_t *")
        try:
            with operation.core.gate.passing():
                found = native.lib.collect_op_produce(operation.cell[0], begin, end, left)
        except Closed:
            if operation.poll() != status.PENDING:
                return  # it ended with the group
            raise
        if found == status.E_INVALID:
            raise InvalidArgument(
                f"some of the elements {begin} to {end} are marked already",
                advice="mark each element once, when it does not change any more",
            )
        status.check(found, "mark elements as produced")
        with self._lock:
            self.left = min(self.left, int(left[0]))


def require_produced(operation: Operation) -> None:
    """Raises InvalidArgument when waiting for the operation would be waiting for oneself."""
    production = operation.call.production
    if production is not None and production.left and operation.poll() == status.PENDING:
        raise InvalidArgument(
            f"{production.left} of {production.total} elements of an operation are not produced, "
            "so it cannot complete",
            advice="mark them with work.produced(begin, end) first",
        )


class Attempt:
    """What one attempt of an operation has given, in the order in which it became final."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.ranges: list[Range] = []  # only ever grows

    def has(self, begin: int, end: int) -> bool:
        """Whether all of [begin, end) is final. The ranges are disjoint."""
        parts = (min(each.end, end) - max(each.begin, begin) for each in self.ranges.copy())
        return sum(part for part in parts if part > 0) == end - begin


class Progress:
    """The ranges of an operation as they become final. Any thread may call anything.

    Attributes:
        attempt: the one under way, or the last one.
        is_over: the operation has ended, and `attempt` has all there will be.
    """

    def __init__(self, operation: Operation) -> None:
        self.attempt = Attempt(0)
        self.is_over = False
        self._operation = operation
        self._turn = threading.Lock()  # the core wants one thread at a time

    def advance(self, timeout_s: float) -> bool:
        """Takes a range from the core, or waits for one. Whether there may be more to see.

        Call it with short times: signal handlers run in between.
        """
        is_mine = self._turn.acquire(timeout=timeout_s) if timeout_s else self._turn.acquire(False)
        if not is_mine:
            return False
        try:
            return not self.is_over and self._take(int(timeout_s * NS_PER_S))
        finally:
            self._turn.release()

    def _take(self, timeout_ns: int) -> bool:
        operation = self._operation
        given = native.ffi.new("struct collect_range *")
        if operation.poll() != status.PENDING:
            found = native.lib.collect_op_next_range(operation.cell[0], 0, given)
        else:
            try:
                with operation.core.gate.passing():
                    found = native.lib.collect_op_next_range(operation.cell[0], timeout_ns, given)
            except Closed:
                # What was under way ended with the group; the next look sees that.
                return operation.poll() != status.PENDING
        if found in (status.OK, status.PENDING) and given.attempt != self.attempt.epoch:
            self.attempt = Attempt(int(given.attempt))
        if found == status.PENDING:
            return False
        if found == status.OK and given.begin < given.end:
            self.attempt.ranges.append(Range(int(given.begin), int(given.end)))
            return True
        self.is_over = True
        operation.poll()
        return True
