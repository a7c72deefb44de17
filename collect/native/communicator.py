"""One group's data plane in this process: a comm of the C core and its operations.

Threads: everything may be called from any thread. `close` waits until nobody is inside the core.

Memory: an operation is registered before the core learns of it and stays registered until it has
completed, whatever exception interrupts the caller; so its arrays live as long as the core uses
them.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from collect import native
from collect.errors import Closed
from collect.native import status
from collect.native.buffer import Operand
from collect.types import (
    LinkLoss,
    LostLink,
    OpInFlight,
    Outcome,
    OutcomeKind,
    Repair,
    Verdict,
)

log = logging.getLogger("collect.native")

NS_PER_S = 1_000_000_000
WAIT_SLICE_S = 0.05  # Python looks at signals at least so often
CLOSE_LOOK_S = 0.001
CLOSE_LOOKS_MAX = 5000
REAP_COUNT = 16  # operations that nobody waited for are forgotten when there are so many
LINKS_MAX = 1024


@dataclass(frozen=True, slots=True)
class MemberAddress:
    """A member as the core wants it: candidates joined by commas, best first."""

    incarnation: int
    addresses: str


@dataclass(frozen=True, slots=True)
class InstallRequest:
    """struct collect_install of collect.h."""

    epoch: int
    members: Sequence[MemberAddress]
    self_rank: int
    op_base: int
    algorithm: int
    verdict: Verdict
    repairs: Sequence[Repair]
    redials: Sequence[int]


@dataclass(frozen=True, slots=True)
class FreezeReport:
    """struct collect_report of collect.h."""

    consumed: Outcome
    in_flight: OpInFlight | None
    lost: tuple[LostLink, ...]


class OpInfo(NamedTuple):
    """struct collect_op_info of collect.h."""

    status: int
    op: int
    attempt: int
    submitted_ns: int
    completed_ns: int
    attempts: int
    participants: int


@dataclass(frozen=True, slots=True)
class LinkInfo:
    """struct collect_link_info of collect.h."""

    peer: int
    is_up: bool
    streams: int
    sent_bytes: int
    received_bytes: int
    silent_s: float


class Gate:
    """Knows which threads are inside; once shut, lets nobody in.

    Without a lock, so that a KeyboardInterrupt between two steps leaves none taken. A thread that
    was interrupted on its way out counts as inside until it enters or leaves again.
    """

    def __init__(self) -> None:
        self._inside: dict[int, None] = {}  # by thread; its single steps are atomic
        self._is_shut = False

    @contextmanager
    def passing(self) -> Iterator[None]:
        """Raises Closed when the gate is shut."""
        self.enter()
        try:
            yield
        finally:
            self.leave()

    def enter(self) -> None:
        self._inside[threading.get_ident()] = None  # before the look at the gate, see shut
        if self._is_shut:
            self.leave()
            raise Closed("this group is closed")

    def leave(self) -> None:
        self._inside.pop(threading.get_ident(), None)

    def shut(self) -> bool:
        """True for the one call that shuts it. Who enters from here on sees it shut."""
        was_shut, self._is_shut = self._is_shut, True
        return not was_shut

    def is_empty(self) -> bool:
        return not self._inside


class Operation:
    """One collective call of this process. The C object is freed when nobody refers to this."""

    __slots__ = ("_cell", "_gate", "_info", "_pointers", "_registry", "_status", "operand")

    def __init__(self, operand: Operand, gate: Gate, registry: set[Operation]) -> None:
        ffi = native.ffi
        self._cell = ffi.new("collect_op **")
        self.operand = operand
        self._gate = gate
        self._registry = registry
        self._pointers = (ffi.from_buffer(operand.source), ffi.from_buffer(operand.target))
        self._info = ffi.new("struct collect_op_info *")
        self._status = status.PENDING

    def __del__(self) -> None:
        if self._cell[0] != native.ffi.NULL:
            native.lib.collect_op_release(self._cell)

    @property
    def is_submitted(self) -> bool:
        """The core has taken it: set by the core itself, so that no interrupt comes between."""
        return bool(self._cell[0] != native.ffi.NULL)

    def submit(self, comm: Any, reduce_code: int, deadline_ns: int) -> int:
        """Hands it to the core; for Communicator only."""
        source, target = self._pointers
        operand = self.operand
        return int(
            native.lib.collect_comm_all_reduce(
                comm,
                source,
                target,
                operand.source.size,
                operand.dtype_code,
                reduce_code,
                deadline_ns,
                self._cell,
            )
        )

    def poll(self) -> int:
        """The status now. Never blocks."""
        if self._status == status.PENDING and self.is_submitted:
            native.lib.collect_op_info_get(self._cell[0], self._info)
            self._status = int(self._info.status)
            if self._status != status.PENDING:
                self._registry.discard(self)
        return self._status

    def wait(self, timeout_s: float) -> int:
        """Waits for at most a slice of WAIT_SLICE_S; call again while it returns PENDING.

        Signal handlers, Ctrl-C among them, run between the slices.
        """
        if self.poll() != status.PENDING:
            return self._status
        slice_ns = int(max(0.0, min(timeout_s, WAIT_SLICE_S)) * NS_PER_S)
        self._gate.enter()
        try:
            native.lib.collect_op_wait(self._cell[0], slice_ns)
        finally:
            self._gate.leave()
        return self.poll()

    @property
    def info(self) -> OpInfo:
        """What the core knows of it now."""
        info = self._info
        native.lib.collect_op_info_get(self._cell[0], info)
        return OpInfo(
            status=int(info.status),
            op=int(info.op),
            attempt=int(info.attempt),
            submitted_ns=int(info.submitted_ns),
            completed_ns=int(info.completed_ns),
            attempts=int(info.attempts),
            participants=int(info.participants),
        )


class Communicator:
    """The comm of one group; made by Engine.new_communicator."""

    def __init__(self, engine: Any, key: int, self_id: int) -> None:
        self._cell = native.ffi.new("collect_comm **")
        created = native.lib.collect_comm_create(engine, key, self_id, self._cell)
        status.check(created, "create a communicator")
        self._gate = Gate()
        # Its single steps are atomic: add, discard, copy.
        self._operations: set[Operation] = set()

    # ---- operations ----------------------------------------------------------------------

    def prepare(self, operand: Operand) -> Operation:
        """An operation that is not submitted yet."""
        return Operation(operand, self._gate, self._operations)

    def start(self, operation: Operation, reduce_code: int, deadline_ns: int) -> None:
        """Starts an all-reduce; never blocks. One thread at a time, in program order."""
        if len(self._operations) >= REAP_COUNT:
            self.reap()
        self._gate.enter()
        try:
            self._operations.add(operation)
            result = operation.submit(self._cell[0], reduce_code, deadline_ns)
            if result != status.OK:
                raise status.exception(result, "start an operation")
        finally:
            if not operation.is_submitted:
                self._operations.discard(operation)
            self._gate.leave()

    def reap(self) -> None:
        """Forgets operations that have completed and that nobody waited for."""
        for operation in self._operations.copy():
            operation.poll()

    def outstanding(self) -> list[Operation]:
        """Operations that have not completed."""
        self.reap()
        return [each for each in self._operations.copy() if each.is_submitted]

    def pending(self) -> int:
        """How many operations are submitted and not consumed."""
        with self._gate.passing():
            return int(native.lib.collect_comm_pending(self._cell[0]))

    def abort(self) -> None:
        """Completes every pending operation as aborted, at once."""
        with self._gate.passing():
            status.check(native.lib.collect_comm_abort(self._cell[0]), "abort")

    def kill_at(self, op: int, frame: int) -> None:
        """Fail-point: SIGKILLs this process at data frame `frame` of `op` (0: the next)."""
        with self._gate.passing():
            native.lib.collect_comm_kill_at(self._cell[0], op, frame)

    # ---- membership ----------------------------------------------------------------------

    def dial(self, members: Sequence[MemberAddress]) -> None:
        """Opens links to these members. LINK_UP or LINK_LOST tells for each."""
        array = self._members(members)
        with self._gate.passing():
            result = native.lib.collect_comm_dial(self._cell[0], array, len(members))
        status.check(result, "dial members")

    def freeze(self) -> FreezeReport:
        """Stops the epoch and says what this peer knows. A second call reports the same."""
        report = native.ffi.new("struct collect_report *")
        with self._gate.passing():
            status.check(native.lib.collect_comm_freeze(self._cell[0], report), "freeze")
        return _read_report(report)

    def install(self, request: InstallRequest) -> None:
        """Enters an epoch."""
        ffi = native.ffi
        members = self._members(request.members)
        repairs = ffi.new("struct collect_repair[]", max(1, len(request.repairs)))
        for index, repair in enumerate(request.repairs):
            repairs[index].holder, repairs[index].needer = repair.holder, repair.needer
        redials = ffi.new("uint64_t[]", list(request.redials) or 1)
        install = ffi.new("struct collect_install *")
        install.epoch = request.epoch
        install.members, install.member_count = members, len(request.members)
        install.self_rank = request.self_rank
        install.op_base = request.op_base
        install.algorithm = request.algorithm
        install.verdict = int(request.verdict.kind)
        install.verdict_op = request.verdict.op
        install.verdict_attempt = request.verdict.attempt
        install.repairs, install.repair_count = repairs, len(request.repairs)
        install.redial, install.redial_count = redials, len(request.redials)
        with self._gate.passing():
            result = native.lib.collect_comm_install(self._cell[0], install)
        status.check(result, f"install epoch {request.epoch}")

    def rebase(self, op_base: int) -> None:
        """The next operation is `op_base + 1`."""
        with self._gate.passing():
            status.check(native.lib.collect_comm_rebase(self._cell[0], op_base), "renumber")

    def links(self) -> list[LinkInfo]:
        """Every link of this group."""
        infos = native.ffi.new("struct collect_link_info[]", LINKS_MAX)
        with self._gate.passing():
            count = native.lib.collect_comm_links(self._cell[0], infos, LINKS_MAX)
        return [
            LinkInfo(
                peer=int(info.peer),
                is_up=bool(info.is_up),
                streams=int(info.streams),
                sent_bytes=int(info.sent_bytes),
                received_bytes=int(info.received_bytes),
                silent_s=info.silent_ns / NS_PER_S,
            )
            for info in infos[0 : min(count, LINKS_MAX)]
        ]

    def forget_thread(self) -> None:
        """The calling thread is not inside, whatever interrupted it before."""
        self._gate.leave()

    def close(self) -> None:
        """Aborts what is pending, waits until nobody is inside the core, frees. Idempotent."""
        if not self._gate.shut():
            return
        native.lib.collect_comm_abort(self._cell[0])
        for _ in range(CLOSE_LOOKS_MAX):
            if self._gate.is_empty():
                break
            threading.Event().wait(CLOSE_LOOK_S)
        else:
            # Better to leak than to free what a thread is using.
            log.error("a communicator is not freed: a thread has not left the core")
            return
        native.lib.collect_comm_destroy(self._cell)
        self._operations.clear()

    @staticmethod
    def _members(members: Sequence[MemberAddress]) -> Any:
        array = native.ffi.new("struct collect_member[]", max(1, len(members)))
        for index, member in enumerate(members):
            array[index].incarnation = member.incarnation
            array[index].addresses = member.addresses.encode()
        return array


def _read_report(report: Any) -> FreezeReport:
    kind = OutcomeKind.NONE
    if report.consumed_op != 0:
        is_done = report.consumed_status == status.OK
        kind = OutcomeKind.DONE if is_done else OutcomeKind.FAILED
    consumed = Outcome(
        op=int(report.consumed_op),
        attempt=int(report.consumed_attempt),
        kind=kind,
        is_retained=bool(report.is_retained),
    )
    in_flight = None
    if report.inflight_op != 0:
        text = native.ffi.string(report.inflight_descriptor).decode("utf-8", "replace")
        in_flight = OpInFlight(
            op=int(report.inflight_op),
            attempt=int(report.inflight_attempt),
            descriptor=text,
            digest=int(report.inflight_digest),
        )
    lost = tuple(
        LostLink(int(report.lost_peers[index]), LinkLoss(report.lost_kinds[index]))
        for index in range(report.lost_count)
    )
    return FreezeReport(consumed, in_flight, lost)
