"""What user threads do with a group: pass boundaries, submit operations, wait for them, leave.

A boundary and the operation behind it belong together: members count boundaries alike only if each
of them is followed by its operation. A KeyboardInterrupt may come between any two steps, so a
boundary that was passed leaves a *ticket*, and the next submission uses it up before it passes
another one.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from collect import native
from collect.config import Address, AdmitMode, Config
from collect.errors import (
    Aborted,
    Closed,
    CollectError,
    CoordinatorUnreachable,
    InvalidArgument,
    JoinFailed,
    Mismatch,
    Timeout,
)
from collect.membership.events import LeaveAsked
from collect.membership.peer import State
from collect.native import status
from collect.native.buffer import Operand
from collect.native.communicator import Communicator, Operation, OpInfo
from collect.net.clock import now_ns, now_s
from collect.session.control import ControlPlane
from collect.types import FailKind, Incarnation, View, epoch_number, op_name

log = logging.getLogger("collect")

NS_PER_S = 1_000_000_000
POLL_S = 0.5  # how often a waiting thread looks again, and asks again
LEAVE_TIMEOUTS = 3.0  # how many `timeout`s a leaver waits for the coordinator

FAILURES: dict[FailKind, type[CollectError]] = {
    FailKind.MISMATCH: Mismatch,
    FailKind.TIMEOUT: Timeout,
    FailKind.ABORTED: Aborted,
}


class Ticket:
    """A boundary that was passed. `operation`: the one that used it up, if any."""

    __slots__ = ("boundary", "operation")

    def __init__(self, boundary: int) -> None:
        self.boundary = boundary
        self.operation: Operation | None = None

    @property
    def is_used(self) -> bool:
        return self.operation is not None and self.operation.is_submitted


class Outcome(NamedTuple):
    """A completed operation: what the core tells, and who took part, in rank order."""

    info: OpInfo
    participants: tuple[Incarnation, ...]
    names: tuple[str, ...]


class Session:
    """One group of this process. Any thread may call anything."""

    def __init__(self, config: Config, address: Address) -> None:
        native.require()
        self.config = config
        self.control = ControlPlane(config, address)
        self.admitted: dict[Incarnation, None] = {}  # in order, since the last admit
        self.is_newcomer = True
        self.is_founding = False
        self._submitting = threading.RLock()  # one submission at a time, in program order
        self._ticket: Ticket | None = None
        self._leaver: threading.Thread | None = None
        self._knows_state = False  # a first `admit` is over

    # ---- joining and leaving -------------------------------------------------------------

    def open(self) -> None:
        """Joins; returns when this peer is a member."""
        control = self.control
        control.start()
        deadline_s = now_s() + self.config.join_timeout
        try:
            is_in = control.changes.wait_for(self._is_joined_or_over, deadline_s)
            control.raise_if_final()
            if not is_in:
                raise self._why_not_in()
        except BaseException:
            control.post(LeaveAsked())  # lest the coordinator let it in after all
            control.stop()
            raise

    def _is_joined_or_over(self) -> bool:
        return self.control.view is not None or self.control.final is not None

    def _why_not_in(self) -> JoinFailed:
        where = f"at {self.control.address} within {self.config.join_timeout:g} s"
        if self.control.peer is None:
            return CoordinatorUnreachable(f"no coordinator answers {where}")
        return JoinFailed(
            f"{self.config.name} was not let into group {self.config.group!r} {where}",
            advice="see that min_peers peers join, and that they can reach one another",
        )

    def leave(self, *, is_orderly: bool = True) -> None:
        """Leaves and frees everything. Not orderly: pending operations are given up."""
        self._leaver = threading.current_thread()
        try:
            if is_orderly and self.control.final is None:
                self.consume_all()
            self._ask_to_leave()
        finally:
            if self.control.communicator is not None:
                self.control.communicator.forget_thread()
            self.control.stop()

    def _ask_to_leave(self) -> None:
        control = self.control
        deadline_s = now_s() + LEAVE_TIMEOUTS * control.timeout_s
        control.post(LeaveAsked())
        if not control.changes.wait_for(lambda: control.final is not None, deadline_s):
            log.warning("%s leaves without an answer of the coordinator's", self.config.name)

    # ---- boundaries ----------------------------------------------------------------------

    def pass_boundary(self, deadline_s: float | None = None) -> Ticket:
        """Passes the next boundary, or hands out the ticket of one that was passed in vain."""
        with self._submitting:
            ticket = self._ticket
            if ticket is None or ticket.is_used:
                ticket = self._pass_at_once() or self._pass_by_asking(deadline_s)
            self._ticket = ticket
            return ticket

    def give_up_ticket(self) -> None:
        """The boundary needs no operation behind it (an `admit` where nobody entered)."""
        self._ticket = None

    def _pass_at_once(self) -> Ticket | None:
        """The fast path: no change is due at the next boundary."""
        control = self.control
        with control.lock:
            self._check_open()
            peer = control.peer
            assert peer is not None
            is_member = peer.state in (State.ACTIVE, State.FROZEN)
            if not is_member or peer.is_boundary_due or control.passage is not None:
                return None
            self._ticket = ticket = Ticket(peer.boundaries + 1)
            peer.boundaries += 1
            return ticket

    def _pass_by_asking(self, deadline_s: float | None) -> Ticket:
        """A change is due: consume what is under way, and have the machine make it."""
        control = self.control
        self.consume_all()
        while not self._take_passage():
            if deadline_s is not None and now_s() >= deadline_s:
                raise Timeout(
                    "a planned change of the members was not completed in time",
                    epoch=self.epoch,
                    advice="call again: the change is still under way",
                )
            until_s = now_s() + POLL_S if deadline_s is None else min(deadline_s, now_s() + POLL_S)
            control.changes.wait_for(self._is_passed_or_over, until_s)
            self._check_open()
        assert self._ticket is not None
        return self._ticket

    def _take_passage(self) -> bool:
        """Turns the machine's answer into the ticket, or asks. An interrupt may come anywhere."""
        control = self.control
        with control.lock:
            passage = control.passage
            if passage is None:
                assert control.peer is not None
                control.ask_boundary(control.peer.boundaries + 1)
                return False
            if passage.is_newcomer:
                members = control.view.incarnations if control.view else ()
                self.is_founding = set(members) <= set(passage.admitted)
            self.admitted.update(dict.fromkeys(passage.admitted))
            self._ticket = Ticket(passage.boundary)
            control.passage = None  # last: until here all can be done again
            return True

    def _is_passed_or_over(self) -> bool:
        control = self.control
        return control.passage is not None or control.final is not None

    def consume_all(self) -> None:
        """Waits until every operation of this peer is consumed."""
        communicator = self._communicator
        while operations := communicator.outstanding():
            for operation in operations:
                while operation.wait(POLL_S) == status.PENDING:
                    self._check_open()

    # ---- operations ----------------------------------------------------------------------

    def submit(
        self, operand: Operand, reduce_code: int, timeout_s: float | None, *, is_internal: bool
    ) -> Operation:
        """Starts an all-reduce. Internal ones, of `admit`, stand behind no boundary."""
        limit_s = timeout_s if timeout_s is not None else 60 * self.control.timeout_s
        deadline_s = now_s() + limit_s
        with self._submitting:
            self._check_open()
            if is_internal:
                ticket = self._ticket
            elif self.config.admit is AdmitMode.AUTO:
                ticket = self.pass_boundary(deadline_s)
            else:
                ticket = None
                self._require_state()
            operation = self._communicator.prepare(operand)
            if ticket is not None and not ticket.is_used:
                ticket.operation = operation
            deadline_ns = now_ns() + int(max(0.0, deadline_s - now_s()) * NS_PER_S)
            self._communicator.start(operation, reduce_code, max(deadline_ns, 1))
            if self.control.final is not None:
                # The end came between the look above and the start, and may have aborted
                # everything before this operation was there.
                self._communicator.abort()
            return operation

    def wait(self, operation: Operation, timeout_s: float | None = None) -> Outcome:
        """The operation's outcome; raises why it failed."""
        deadline_s = None if timeout_s is None else now_s() + timeout_s
        while True:
            left_s = POLL_S if deadline_s is None else deadline_s - now_s()
            if operation.wait(left_s) != status.PENDING:
                return self.outcome(operation)
            if deadline_s is not None and now_s() >= deadline_s:
                raise Timeout(
                    f"the operation is not complete after {timeout_s:g} s",
                    op=op_name(operation.info.op),
                    epoch=self.epoch,
                    advice="it goes on: wait again, or abort",
                )

    def outcome(self, operation: Operation) -> Outcome:
        """Of an operation that has completed."""
        info = operation.info
        if info.status == status.OK:
            history = self.control.history
            attempt = info.attempt
            return Outcome(info, history.participants(attempt), history.participant_names(attempt))
        raise self._why(info)

    def abort(self) -> None:
        """Ends every operation under way, on all members."""
        self._check_open()
        self._communicator.abort()

    def kill_at(self, op_index: int, frame: int) -> None:
        """Fail-point: see Communicator.kill_at; `op_index` counts from 1, 0 is the next."""
        self._communicator.kill_at(op_index, frame)

    # ---- what is known -------------------------------------------------------------------

    @property
    def view(self) -> View:
        """The installed view. Under the lock: what led to it is in the events already."""
        with self.control.lock:
            view = self.control.view
        assert view is not None  # `open` returned
        return view

    @property
    def epoch(self) -> int:
        return epoch_number(self.view.epoch)

    def name_of(self, incarnation: Incarnation) -> str:
        return self.control.history.name(incarnation)

    @contextmanager
    def admitting(self) -> Iterator[Ticket]:
        """Holds submissions of other threads back during an `admit`, from its boundary on."""
        with self._submitting:
            ticket = self.pass_boundary(now_s() + self.config.operation_s)
            yield ticket
            self.admitted.clear()
            self.is_newcomer = False
            self.is_founding = False
            self._knows_state = True
            self.give_up_ticket()

    @property
    def _communicator(self) -> Communicator:
        communicator = self.control.communicator
        if communicator is None:
            self.control.raise_if_final()
            raise Closed("this group is closed")
        return communicator

    def _check_open(self) -> None:
        self.control.raise_if_final()
        if self._leaver is not None and threading.current_thread() is not self._leaver:
            raise Closed(f"{self.config.name} is leaving the group")

    def _require_state(self) -> None:
        if not self._knows_state:
            raise InvalidArgument(
                'with admit="manual" the first call of a member is admit(state)',
                advice="call admit(state) at the same point of the loop as the others",
            )

    def _why(self, info: OpInfo) -> CollectError:
        """The exception of an operation that failed."""
        name, current = op_name(info.op), self.epoch
        with self.control.lock:
            local = self.control.local_failures.get(info.op)
            final = self.control.final
            peer = self.control.peer
            reason = peer.failure_of(info.op) if peer is not None else None
            epoch = self.control.failed_in.get(info.op, current)
        if local is not None:
            return local.again()
        if info.status == status.E_FAILED and reason is not None:
            kind = FAILURES[reason.kind]
            culprit = reason.culprits[0] if reason.culprits else None
            return kind(reason.text, peer=culprit, epoch=epoch, op=name)
        if final is not None:
            return final.again()
        if info.status == status.E_ABORTED:
            message = f"{self.config.name} aborted the operation"
            return Aborted(message, peer=self.config.name, epoch=epoch, op=name)
        return status.exception(info.status, f"complete op {name}")
