"""An operation that is prepared once and started over and over: the shortest way to the core."""

from __future__ import annotations

from typing import Any

from collect.errors import InvalidArgument
from collect.native import status
from collect.native.call import LaidOut
from collect.native.operation import REFUSALS, Prepared
from collect.native.status import E_BOUNDARY, OK, PENDING
from collect.session.operations import Session


class PreparedCall:
    """What collect.Persistent stands on. One thread at a time."""

    def __init__(self, session: Session, call: LaidOut, timeout_s: float | None) -> None:
        self._session = session
        self._limit_ns = session.limit_ns(timeout_s)
        self._view = session.control.view  # that the blocks fit, as far as is known here
        self._prepared: Prepared = session.prepare(call, self._limit_ns)
        call.like = None  # from here on the memory stays what it is
        self._call = call
        self._result = call.result
        self._blocks = call.blocks
        self._run = self._prepared.core.op_run
        self._op = self._prepared.op

    def __call__(self) -> Any:
        """Starts it and waits for it; returns the array with the result."""
        # One call of the core, which does all or nothing of it: an interrupt finds no half of it.
        found = self._run(self._op)
        if found or self._blocks:
            return self._go_on(found)
        return self._result

    def _go_on(self, found: int) -> Any:
        """After a refusal, a slice of waiting or a failure; or it matters who took part."""
        session, prepared = self._session, self._prepared
        while found == E_BOUNDARY:
            session.open_boundary(self._limit_ns)
            found = self._start() if self._call.world else self._run(self._op)
            if found == OK and self._call.world:
                found = PENDING
        if found == OK and session.control.view is self._view:
            return self._result  # nobody was lost, or that would have been installed already
        self._raise_if_refused(found)
        prepared.status = found
        session.wait(prepared)
        return self._call.finish(prepared.info.participants)

    def _start(self) -> int:
        """Starts it if its blocks fit the members."""
        control, core = self._session.control, self._prepared.core
        with control.lock:  # no view is installed meanwhile
            self._call.require(*self._session.place())
            self._view = control.view
            return int(core.op_start(self._op, 0))

    def _raise_if_refused(self, found: int) -> None:
        """The core did not take the start."""
        if found == status.E_CLOSED:
            self._session.check_open()
        elif found not in REFUSALS:
            return
        elif found == status.E_BUSY and self._prepared.poll() == PENDING:
            raise InvalidArgument("the operation is under way", advice="call wait() first")
        raise status.exception(found, "start a prepared operation")

    # ---- step by step --------------------------------------------------------------------

    def start(self) -> None:
        """Starts it and returns at once; `wait` for it before the next start."""
        session = self._session
        if self._call.world and session.control.view is not self._view:
            session.require(self._call, self._limit_ns)
        while (found := self._start()) == E_BOUNDARY:
            session.open_boundary(self._limit_ns)
        self._raise_if_refused(found)

    def wait(self, timeout: float | None = None) -> Any:
        """Waits for what `start` began, and returns what `__call__` would."""
        prepared = self._prepared
        self._session.wait(prepared, timeout)
        return self._call.finish(prepared.info.participants)

    def done(self) -> bool:
        """Whether it has completed or failed. Never blocks."""
        return self._prepared.poll() != PENDING
