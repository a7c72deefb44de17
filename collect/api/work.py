"""What an operation gives: a `Result`, at once or through a `Work`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator
from typing import Any

from collect.errors import CollectError, InvalidArgument
from collect.native import status
from collect.native.codes import ALGORITHM_NAMES
from collect.native.operation import Operation, OpInfo
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
        """What carried its data here: "shm" (shared memory) or "tcp"."""
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
            InvalidArgument: its batch is still open.
        """
        if self._result is None and self._error is None:
            limit_s = seconds(timeout, "timeout")
            operation = self._started()
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
            self._session.watcher.watch(self._started(), loop, future)
            yield from future
        return self.wait()

    @property
    def result(self) -> Result:
        """The result; raises why it failed, or InvalidArgument while it is under way."""
        if not self.done():
            raise InvalidArgument("the operation is not complete", advice="call wait()")
        return self.wait()

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
