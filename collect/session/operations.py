"""What user threads do with a group: pass boundaries, start operations, wait for them, leave.

A boundary and the operation behind it belong together: members count boundaries alike only if each
of them is followed by its operation. So the core passes the boundary in the same step in which it
starts the operation. It may do so as long as the machine has lent it boundaries (ControlPlane); a
start that finds none is refused, and comes here to have the next one opened.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from collect import native
from collect.config import Address, AdmitMode, Config
from collect.errors import (
    Aborted,
    Closed,
    CollectError,
    CoordinatorUnreachable,
    InvalidArgument,
    JoinFailed,
    MembersChanged,
    Mismatch,
    Timeout,
)
from collect.membership.events import LeaveAsked
from collect.membership.peer_state import BOUNDARY_MAX
from collect.native import status
from collect.native.call import Call, Maker
from collect.native.codes import Signature
from collect.native.communicator import Communicator
from collect.native.operation import NS_PER_S, WAIT_SLICE_NS, Operation, OpInfo, Prepared
from collect.native.ranges import require_produced
from collect.net.clock import now_ns, now_s
from collect.session.control import ControlPlane
from collect.session.history import Participants
from collect.session.plain import PlainCalls
from collect.session.watcher import Watcher
from collect.types import FailKind, Incarnation, View, epoch_number, op_name

log = logging.getLogger("collect")

POLL_S = 0.5  # how often a waiting thread looks again, and asks again
ROOM_POLL_S = 0.01
LEAVE_TIMEOUTS = 3.0  # how many `timeout`s a leaver waits for the coordinator
OPERATION_TIMEOUTS = 60  # how many an operation has that was given no time of its own

FAILURES: dict[FailKind, type[CollectError]] = {
    FailKind.MISMATCH: Mismatch,
    FailKind.TIMEOUT: Timeout,
    FailKind.ABORTED: Aborted,
    FailKind.MEMBERS: MembersChanged,
}


class Outcome(NamedTuple):
    """A completed operation: what the core tells, and who took part, in rank order."""

    info: OpInfo
    participants: Participants


def _ns(duration_s: float) -> int:
    return int(duration_s * NS_PER_S)


class Session:
    """One group of this process. Any thread may call anything."""

    def __init__(self, config: Config, address: Address) -> None:
        native.require()
        self.config = config
        self.control = ControlPlane(config, address)
        self.maker = Maker()
        self.watcher = Watcher(f"collect-{config.name}-works", self._oldest)
        self.admitted: dict[Incarnation, None] = {}  # in order, since the last admit
        self.is_newcomer = True
        self.is_founding = False
        self.submitting = threading.RLock()  # one start at a time, in program order
        self.is_auto = config.admit is AdmitMode.AUTO
        self._limit_ns = 0  # see limit_ns
        self._placed: tuple[View, int, int] | None = None  # see place
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
        with self.control.lock:
            self.control.lease.recall()
        self.control.scopes.recall()
        try:
            if is_orderly and self.control.final is None:
                self.consume_all()
            self._ask_to_leave()
        finally:
            if self.control.communicator is not None:
                self.control.communicator.forget_thread()
            self.control.stop()
            self.watcher.stop()

    def _ask_to_leave(self) -> None:
        control = self.control
        deadline_s = now_s() + LEAVE_TIMEOUTS * control.timeout_s
        control.post(LeaveAsked())
        if not control.changes.wait_for(lambda: control.final is not None, deadline_s):
            log.warning("%s leaves without an answer of the coordinator's", self.config.name)

    # ---- boundaries ----------------------------------------------------------------------

    def open_boundary(self, limit_ns: int) -> None:
        """A start was refused: has the next boundary opened for it, and more if none is due.

        Others may be faster, so the start is to be tried again until it is not refused. limit_ns:
        how long a change of the members may take, if one is due.
        """
        with self.submitting:
            self.check_open()
            if self.is_auto:
                self._open(limit_ns, is_held=False)
            elif not self._knows_state:
                raise InvalidArgument(
                    'with admit="manual" the first call of a member is admit(state)',
                    advice="call admit(state) at the same point of the loop as the others",
                )
            else:
                with self.control.lock:
                    if self._leaver is not None:
                        raise Closed(f"{self.config.name} is leaving the group")
                    if self.control.final is None:
                        self.control.lease.lend(BOUNDARY_MAX)

    def _open(self, limit_ns: int, *, is_held: bool) -> None:
        """Opens the next boundary. If a change is due there: consumes what is under way, and has
        the machine make it."""
        if self._try_to_open(is_held):
            return
        control = self.control
        deadline_s = now_s() + limit_ns / NS_PER_S
        control.scopes.recall()
        self.consume_all()
        while not self._try_to_open(is_held):
            if now_s() >= deadline_s:
                raise Timeout(
                    "a planned change of the members was not completed in time",
                    epoch=self.epoch,
                    advice="call again: the change is still under way",
                )
            control.ask_boundary(control.lease.passed + 1)
            control.changes.wait_for(self._is_passed_or_over, min(deadline_s, now_s() + POLL_S))
            self.check_open()

    def _try_to_open(self, is_held: bool) -> bool:
        """The next boundary is open for starts; if `is_held`, for this thread alone. An interrupt
        may come anywhere: it can be done again."""
        control = self.control
        with control.lock:
            peer = control.peer
            assert peer is not None
            self._take_passage()
            control.lease.recall()
            is_free = control.final is None and self._leaver is None
            limit = peer.boundaries_free if is_free else peer.boundaries
            if limit <= control.lease.passed:
                return False
            if not is_held:
                control.lease.lend(limit)
            elif peer.boundaries <= control.lease.passed:
                peer.boundaries = control.lease.passed + 1
            return True

    def _take_passage(self) -> None:
        """Takes the machine's answer, if there is one."""
        control = self.control
        passage = control.passage
        if passage is None:
            return
        members = control.view.incarnations if control.view else ()
        is_founding = passage.is_newcomer and set(members) <= set(passage.admitted)
        admitted = self.admitted | dict.fromkeys(passage.admitted)
        # No step from here on is a call, so no signal handler gets a turn.
        self.admitted = admitted
        if passage.is_newcomer:
            self.is_founding = is_founding
        control.passage = None

    def _is_passed_or_over(self) -> bool:
        control = self.control
        return control.passage is not None or control.final is not None

    def consume_all(self) -> None:
        """Waits until every operation of this peer is consumed, those of sub-groups too."""
        while operations := self.control.outstanding():
            for operation in operations:
                require_produced(operation)
                while operation.wait(POLL_S) == status.PENDING:
                    self.check_open()

    # ---- operations ----------------------------------------------------------------------

    def submit(
        self,
        call: Call,
        timeout_s: float | None = None,
        *,
        is_internal: bool = False,
        slice_ns: int = 0,
    ) -> Operation:
        """Starts an operation, and waits for it for at most a slice.

        Internal ones, of `admit`, stand behind no boundary of their own. Other threads' starts wait
        for the slice too; their order is for the caller to arrange.
        """
        limit_ns = (self._limit_ns or self.limit_ns()) if timeout_s is None else _ns(timeout_s)
        deadline_ns = now_ns() + limit_ns
        with self.submitting:
            communicator = self.communicator
            if is_internal:
                self.check_open()
            if type(call) is not Call:
                self.require(call, limit_ns)
            operation = Operation(call, communicator.core)
            while found := communicator.start(
                operation, deadline_ns, slice_ns, takes_boundary=not is_internal
            ):
                if found == status.E_FULL:
                    self._wait_for_room(deadline_ns)
                elif found == status.E_BUSY:
                    raise status.exception(found, "start an operation")
                else:
                    self.open_boundary(limit_ns)
                    call.require(*self.place())
            if is_internal and self.control.final is not None:
                self.communicator.abort()  # the end may have come before the start
            return operation

    def require(self, call: Call, limit_ns: int) -> None:
        """Raises MembersChanged when the call's blocks do not fit the members, of whom some may
        wait at the next boundary."""
        try:
            call.require(*self.place())
        except MembersChanged:
            self.open_boundary(limit_ns)
            call.require(*self.place())

    def _wait_for_room(self, deadline_ns: int) -> None:
        """The core holds as many operations as it may: waits for the oldest."""
        self.check_open()
        if now_ns() >= deadline_ns:
            raise status.exception(status.E_FULL, "start an operation")
        oldest = self.communicator.oldest()
        if oldest is not None:
            oldest.wait(POLL_S)
        else:  # what was aborted here fills the core until a verdict settles it
            self.control.changes.wait_for(self._is_passed_or_over, now_s() + ROOM_POLL_S)

    def limit_ns(self, timeout_s: float | None = None) -> int:
        """How long an operation may take."""
        if timeout_s is not None:
            return _ns(timeout_s)
        limit_ns = _ns(OPERATION_TIMEOUTS * self.control.timeout_s)
        if self.control.view is not None:
            self._limit_ns = limit_ns  # the group's, which does not change any more
        return limit_ns

    def run(self, call: Call, timeout_s: float | None = None) -> Operation:
        """Starts an operation and waits for it; raises why it failed."""
        operation = self.submit(call, timeout_s, slice_ns=WAIT_SLICE_NS)
        if operation.status != status.OK:
            self.wait(operation)
        return operation

    def wait(self, operation: Operation, timeout_s: float | None = None) -> None:
        """Returns when the operation has succeeded; raises why it failed."""
        deadline_s = None if timeout_s is None else now_s() + timeout_s
        while True:
            left_s = POLL_S if deadline_s is None else deadline_s - now_s()
            found = operation.wait(left_s)
            if found == status.OK:
                return
            if found != status.PENDING:
                raise self.failure(operation)
            if deadline_s is not None and now_s() >= deadline_s:
                raise Timeout(
                    f"the operation is not complete after {timeout_s:g} s",
                    op=op_name(operation.info.op),
                    epoch=self.epoch,
                    advice="it goes on: wait again, or abort",
                )

    def prepare(self, call: Call, limit_ns: int) -> Prepared:
        """Lays out an operation that is to be started many times."""
        self.check_open()
        with self.control.lock:  # no view is installed meanwhile
            call.require(*self.place())
            return self.communicator.prepare(call, limit_ns)

    def plain_calls(self, signature: Signature) -> PlainCalls:
        """For all-reduces of this signature that are made again and again."""
        return PlainCalls(self, signature)

    def outcome(self, operation: Operation) -> Outcome:
        """Of an operation that has succeeded."""
        info = operation.info
        return Outcome(info, self.control.history.of(info.attempt))

    def failure(self, operation: Operation) -> CollectError:
        """Why an operation failed."""
        return self._why(operation.info)

    def _oldest(self) -> Operation | None:
        communicator = self.control.communicator
        return communicator.oldest() if communicator is not None else None

    def abort(self) -> None:
        """Ends every operation under way, on all members, and this one's messages."""
        self.check_open()
        self.communicator.abort()
        self.communicator.cancel_messages()

    def kill_at(self, op_index: int, frame: int) -> None:
        """Fail-point: see Communicator.kill_at."""
        self.communicator.kill_at(op_index, frame)

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

    def place(self) -> tuple[int, int]:
        """How many members the current view has, and this one's rank."""
        view = self.control.view
        placed = self._placed
        if placed is None or placed[0] is not view:
            assert view is not None  # `open` returned
            rank = view.rank_of(self.control.self_id)
            self._placed = placed = (view, len(view.members), rank)
        return placed[1], placed[2]

    def root_of(self, root: int | str) -> Incarnation:
        """The root that the caller means, by rank or name.

        Who has just left is still meant by its name: the call then fails on this member as it does
        on those that called before, and counts here, too.
        """
        view = self.view
        is_gone = isinstance(root, str) and root not in (member.name for member in view.members)
        if is_gone and (found := self.control.history.find(str(root))) is not None:
            return found
        return self.member_of(root, "root", view)

    def member_of(self, value: Any, role: str, view: View | None = None) -> Incarnation:
        """The member that the caller means: a rank of the view (the current one), or a name."""
        members = (view or self.view).members
        if isinstance(value, str):
            for member in members:
                if member.name == value:
                    return member.incarnation
            names = ", ".join(member.name for member in members[:8])
            raise InvalidArgument(f"{role} is {value!r}, which is no member; members: {names}")
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < len(members):
            last = len(members) - 1
            raise InvalidArgument(
                f"{role} is {value!r}; it must be a member's name or a rank of 0 to {last}"
            )
        return members[value].incarnation

    def name_of(self, incarnation: Incarnation) -> str:
        return self.control.history.name(incarnation)

    @contextmanager
    def admitting(self) -> Iterator[None]:
        """Holds submissions of other threads back during an `admit`, from its boundary on."""
        with self.submitting:
            self.check_open()
            self._open(self.limit_ns(None), is_held=True)
            yield
            self.admitted = {}
            self.is_newcomer = False
            self.is_founding = False
            self._knows_state = True
            with self.control.lock:
                self.control.lease.close_boundary()

    @property
    def communicator(self) -> Communicator:
        communicator = self.control.communicator
        if communicator is None:
            self.control.raise_if_final()
            raise Closed("this group is closed")
        return communicator

    def check_open(self) -> None:
        self.control.raise_if_final()
        if self._leaver is not None and threading.current_thread() is not self._leaver:
            raise Closed(f"{self.config.name} is leaving the group")

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
        if info.status == status.E_MEMBERS:
            message = "members were lost, and the call was laid out for all of them"
            return MembersChanged(message, epoch=epoch, op=name)
        return status.exception(info.status, f"complete op {name}")
