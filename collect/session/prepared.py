"""An operation that is prepared once and started over and over: the shortest way to the core."""

from __future__ import annotations

from threading import get_ident
from typing import Any

from collect.errors import InvalidArgument
from collect.native import status
from collect.native.call import LaidOut
from collect.native.operation import REFUSALS, WAIT_SLICE_NS, Prepared
from collect.native.status import OK, PENDING
from collect.net.clock import now_ns
from collect.session.operations import POLL_S, Session


class PreparedCall:
    """What collect.Persistent stands on. One thread at a time."""

    def __init__(self, session: Session, call: LaidOut, timeout_s: float | None) -> None:
        self._session = session
        self._prepared: Prepared = session.prepare(call)
        self._call = call
        self._limit_ns = session.limit_ns(timeout_s)
        # What `__call__` needs, looked up once. It passes the gate by hand: a call of a method
        # costs as much as all of that.
        core = self._prepared.core
        self._submitting = session.submitting
        self._before = session.pass_boundary if session.is_auto else session.before_start
        self._run = core.op_run
        self._op = self._prepared.cell[0]
        self._gate = core.gate
        self._inside = core.gate.inside
        self._result = call.result
        self._has_blocks = call.world != 0

    def __call__(self) -> Any:
        """Starts it and waits for it; returns the array with the result."""
        session, prepared = self._session, self._prepared
        if prepared.status == PENDING:
            self._require_idle()
        with self._submitting:
            self._before(self._limit_ns)
            if self._has_blocks:
                self._call.require(*session.place())
            thread = get_ident()
            self._inside[thread] = None
            try:
                if self._gate.is_shut:
                    self._gate.enter()
                # No step from here into the core is a call, so no signal handler gets a turn: the
                # boundary is used up exactly when the core is asked.
                session.is_open = False
                prepared.status = PENDING
                prepared.status = found = self._run(self._op, WAIT_SLICE_NS)
            finally:
                self._inside.pop(thread, None)
            if found in REFUSALS:
                self._refuse(found)
        if found == OK and not self._has_blocks:
            return self._result
        return self._finish(found)

    def _refuse(self, found: int) -> None:
        """The core did not take the start: its boundary stays open for the next."""
        self._session.is_open = True
        self._session.user = None
        self._prepared.status = OK
        raise status.exception(found, "start a prepared operation")

    def _finish(self, found: int) -> Any:
        """After a first slice of waiting, or a failure."""
        prepared = self._prepared
        if found == PENDING:
            prepared.core.under_way[prepared] = None
            self._session.end_if_final()
            self._wait_until_late()
        self._session.wait(prepared)
        return self._call.finish(prepared.info.participants)

    def _wait_until_late(self) -> None:
        """`run` tells the core no deadline, so that of the others is told by hand."""
        deadline_ns = now_ns() + self._limit_ns
        prepared = self._prepared
        while prepared.wait(POLL_S) == PENDING:
            if now_ns() >= deadline_ns:
                self._session.control.give_up_late(prepared.info.op)
                return

    # ---- step by step --------------------------------------------------------------------

    def start(self) -> None:
        """Starts it and returns at once; `wait` for it before the next start."""
        session, prepared = self._session, self._prepared
        core = prepared.core
        self._require_idle()
        with self._submitting:
            session.before_start(self._limit_ns)
            if self._has_blocks:
                self._call.require(*session.place())
            deadline_ns = now_ns() + self._limit_ns
            with self._gate.passing():
                core.under_way[prepared] = None
                session.is_open = False
                prepared.status = PENDING
                found = core.op_start(self._op, deadline_ns)
            if found != OK:
                core.under_way.pop(prepared, None)
                self._refuse(found)
            session.end_if_final()

    def wait(self, timeout: float | None = None) -> Any:
        """Waits for what `start` began, and returns what `__call__` would."""
        prepared = self._prepared
        self._session.wait(prepared, timeout)
        return self._call.finish(prepared.info.participants)

    def done(self) -> bool:
        """Whether it has completed or failed. Never blocks."""
        return self._prepared.poll() != PENDING

    def _require_idle(self) -> None:
        if self._prepared.poll() == PENDING:
            raise InvalidArgument("the operation is under way", advice="call wait() first")
