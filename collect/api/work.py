"""What an operation gives: a `Result`, at once or through a `Work`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator
from operator import index
from typing import Any

from collect.api.ranges import AtTheEnd, Ranges, Source, bounds, covers
from collect.errors import CollectError, InvalidArgument
from collect.native import status
from collect.native.codes import ALGORITHM_NAMES
from collect.native.operation import Operation, OpInfo
from collect.native.ranges import Progress, require_produced
from collect.session.history import Participants
from collect.session.operations import Session
from collect.types import Incarnation, epoch_number, op_name

_TIMEOUT_S_MAX = 7 * 24 * 3600.0
_settling = threading.Lock()  # of what a Work does once; never held while anything waits


class Result:
    """A completed operation. What it tells is looked up when it is first asked for.

    Attributes:
        array: holds the result: what was passed as `out`, else as `array`, else new memory; None
            where a member gets none (barrier, and `reduce` and `gather` but at the root).
    """

    __slots__ = ("_history", "_info", "_latest", "_operation", "array")

    def __init__(
        self, array: Any, operation: Operation, session: Session, info: OpInfo | None = None
    ) -> None:
        self.array = array
        self._operation = operation
        self._info = info
        self._history = history = session.control.history
        self._latest = history.latest

    def __repr__(self) -> str:
        names = ", ".join(self.participants)
        return f"<collect.Result of {self.op}, epoch {self.epoch}, of {names}>"

    @property
    def op(self) -> str:
        """Its name, "5.3": the third since the switch of epoch 5. Equal on every member."""
        return op_name(self._facts.op)

    @property
    def epoch(self) -> int:
        """User number of the epoch in which it completed."""
        return epoch_number(self._facts.attempt)

    @property
    def participants(self) -> tuple[str, ...]:
        """Names of those whose contributions it holds, in rank order."""
        return self._members.names

    @property
    def _incarnations(self) -> tuple[Incarnation, ...]:
        return self._members.incarnations

    @property
    def attempts(self) -> int:
        """How often it was started here; more than 1 when a member was lost meanwhile."""
        return self._facts.attempts

    @property
    def algorithm(self) -> str:
        """The algorithm that completed it, such as "ring"."""
        return ALGORITHM_NAMES.get(self._facts.algorithm, str(self._facts.algorithm))

    @property
    def transport(self) -> str:
        """What carried its data here: "shm" (shared memory), "tcp", or "mixed": this member
        exchanged with some over shared memory and with others over TCP, as where a group spans
        hosts that have several members."""
        if self._facts.is_mixed:
            return "mixed"
        return "shm" if self._facts.is_shared else "tcp"

    @property
    def duration_s(self) -> float:
        """Seconds from the call to the completion here."""
        return (self._facts.completed_ns - self._facts.submitted_ns) / 1e9

    @property
    def submitted_ns(self) -> int:
        """When it was called, of time.monotonic_ns()."""
        return self._facts.submitted_ns

    @property
    def completed_ns(self) -> int:
        """When it was complete here, of time.monotonic_ns()."""
        return self._facts.completed_ns

    @property
    def _facts(self) -> OpInfo:
        if self._info is None:
            self._info = self._operation.info
        return self._info

    @property
    def _members(self) -> Participants:
        attempt = self._facts.attempt
        # The view at hand when this was made is remembered, however many follow.
        return self._latest if self._latest.epoch == attempt else self._history.of(attempt)


class Work:
    """An operation under way; made by any collective with `async_op=True`, and in a batch.

    The arrays belong to the group until it is done. A Work that is dropped goes on all the same.
    Wait for it in a thread with `wait()`, or with `await work` in a coroutine: that neither blocks
    the event loop nor costs a thread of its own. Any thread may call anything.
    """

    def __init__(self, session: Session, operation: Operation | None) -> None:
        self._session = session
        self._operation = operation  # None: it is part of a batch that is still open
        self._result: Result | None = None
        self._error: CollectError | None = None
        self._ranges: Source | None = None

    def __repr__(self) -> str:
        return f"<collect.Work, {'done' if self.done() else 'under way'}>"

    def done(self) -> bool:
        """Whether it has completed or failed. Never blocks."""
        if self._result is not None or self._error is not None:
            return True
        operation = self._operation
        if operation is None or operation.poll() == status.PENDING:
            return False
        self._settle(operation)
        return True

    def wait(self, timeout: float | None = None) -> Result:
        """Blocks until it has completed.

        Args:
            timeout: seconds to wait here; None waits as long as the operation may take.

        Raises:
            Timeout: also when only this wait was too short; then the operation goes on.
            OperationFailed, MembershipLost: why it failed. `out` is undefined then, and other
                arrays are unchanged.
            InvalidArgument: its batch is still open, or some of its source is not marked as
                produced.
        """
        if self._result is None and self._error is None:
            limit_s = seconds(timeout, "timeout")
            operation = self._started()
            require_produced(operation)
            try:
                self._session.wait(operation, limit_s)
            except CollectError:
                if operation.poll() == status.PENDING:
                    raise  # only this wait is over
            self._settle(operation)
        if self._error is not None:
            raise self._error.again()
        assert self._result is not None
        return self._result

    def __await__(self) -> Generator[Any, None, Result]:
        """`await work` gives the result, or raises, as `wait` does."""
        if not self.done():
            loop = asyncio.get_running_loop()
            future = loop.create_future()
            require_produced(self._started())
            self._session.watcher.watch(self._started(), loop, future)
            yield from future
        return self.wait()

    @property
    def result(self) -> Result:
        """The result; raises why it failed, or InvalidArgument while it is under way."""
        if not self.done():
            raise InvalidArgument("the operation is not complete", advice="call wait()")
        return self.wait()

    # ---- parts of it ---------------------------------------------------------------------

    def produced(self, begin: int, end: int) -> None:
        """Of a call with produced=True: elements [begin, end) of the flat source are written.

        They do not change any more until the operation is done, and may be sent from here on. In
        any order, each element once; the operation completes when all are marked. Until then this
        member starts no other operation of the group. Never blocks for long. After the operation
        has failed it does nothing.

        Raises:
            InvalidArgument: there are no such elements, some were marked before, or the call was
                not made with produced=True.
        """
        operation = self._started()
        production = operation.call.production
        if production is None:
            raise InvalidArgument(
                "this operation has its whole source already",
                advice="pass produced=True to the call to mark it bit by bit",
            )
        production.mark(operation, index(begin), index(end))

    def ready(self, elements: slice) -> bool:
        """Whether these elements of the flat result are final in the attempt under way.

        Never blocks. When that can be before the end is told at `ranges`, and what happens when the
        operation runs again. Raises why the operation failed, once it has.
        """
        target = self._started().call.target
        begin, end = bounds(elements, 0 if target is None else target.size)
        if self.done():
            self.wait()
            return True
        return covers(self._source(), begin, end)

    def ranges(self, timeout: float | None = None) -> Ranges:
        """Iterates over the result as it becomes final: `for begin, end in work.ranges():`.

        Gives ranges of the flat result, in any order, together each element once; the last one when
        the operation has completed. So when the loop ends, the result stands. `async for` works
        too, with a thread of the loop's executor. Each call begins with the first range.

        A range holds the result of the attempt under way. If members are lost before the operation
        has completed, it may run again without them: whoever got ranges by then gets RangesRevoked,
        and must undo what was made of them. So make of a range what can be made again (a copy, a
        norm, new weights beside the old ones), and let what cannot wait for the end.

        Ranges come early where the result is written straight into the caller's memory: with `out`
        (or new memory) apart from the source, in an operation of at least `commit_bytes`, over TCP
        (other members need not ask for anything). Else there is one range, at the end.

        Args:
            timeout: seconds to wait for each range; None waits as long as the operation may take.

        The iterator raises:
            RangesRevoked: the operation runs again; iterate anew.
            Timeout: no range became final in time; the operation goes on.
            Others as `wait` does.
        """
        return Ranges(self._source(), self.wait, seconds(timeout, "timeout"))

    def _source(self) -> Source:
        operation = self._started()
        with _settling:
            if self._ranges is None:
                self._ranges = self._new_source(operation)
            return self._ranges

    def _new_source(self, operation: Operation) -> Source:
        if getattr(operation.call, "unpack", None) is None:
            return Progress(operation)
        return AtTheEnd(operation, self._array)

    def _array(self) -> Any:
        """The result's, once the operation has ended; None if it failed."""
        self.done()
        return None if self._result is None else self._result.array

    def _started(self) -> Operation:
        if self._operation is None:
            raise InvalidArgument(
                "the operation is part of a batch that is not submitted",
                advice="leave the `with group.coalesce()` block first",
            )
        return self._operation

    def _settle(self, operation: Operation) -> None:
        """Once, when the operation is complete: unpacks its result, or keeps its error."""
        with _settling:
            if self._result is not None or self._error is not None:
                return
            if operation.status == status.OK:
                self._result = self._succeed(operation)
            else:
                self._error = self._session.failure(operation)

    def _succeed(self, operation: Operation) -> Result:
        return finished(operation, self._session)


class PackedWork(Work):
    """One of several calls of a batch that travel as one operation."""

    def __init__(self, session: Session) -> None:
        super().__init__(session, None)
        self._unpack: Callable[[], Any] | None = None

    def join(self, operation: Operation, unpack: Callable[[], Any]) -> None:
        """It is part of this operation; `unpack` takes its share out and returns it."""
        self._unpack = unpack
        self._operation = operation

    def start(self, operation: Operation) -> None:
        """It is this operation."""
        self._operation = operation

    def give_up(self, error: CollectError) -> None:
        """It is never started."""
        self._error = error

    def _new_source(self, operation: Operation) -> Source:
        if self._unpack is None:
            return super()._new_source(operation)
        return AtTheEnd(operation, self._array)

    def _succeed(self, operation: Operation) -> Result:
        if self._unpack is None:
            return finished(operation, self._session)
        return Result(self._unpack(), operation, self._session)


def finished(operation: Operation, session: Session) -> Result:
    """The result of an operation that has succeeded. Once."""
    call = operation.call
    if not call.blocks:
        return Result(call.finish(0), operation, session)
    info = operation.info
    return Result(call.finish(info.participants), operation, session, info)


def seconds(value: float | None, role: str) -> float | None:
    """Checks a time that a caller passed."""
    if value is None:
        return None
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= _TIMEOUT_S_MAX:
        raise InvalidArgument(f"{role} is {value!r}; it must be a number of seconds, 0 or more")
    return float(value)
