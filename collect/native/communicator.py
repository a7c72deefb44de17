"""One group's data plane in this process: a comm of the C core.

Threads: everything may be called from any thread. `close` waits until nobody is inside the core: in
a function of the comm, by the gate; in one of an operation, by the core itself.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from threading import get_ident
from typing import Any

from collect import native
from collect.native import status
from collect.native.call import Call, Counts, LaidOut
from collect.native.codes import Signature
from collect.native.definition import Definition
from collect.native.message import Message
from collect.native.operation import NS_PER_S, REFUSALS, Core, Operation, Prepared
from collect.types import (
    LinkLoss,
    LinkModel,
    LostLink,
    OpInFlight,
    Outcome,
    OutcomeKind,
    Recipe,
    Repair,
    ScopeVerdict,
    Verdict,
)

log = logging.getLogger("collect.native")

CLOSE_LOOK_S = 0.001
CLOSE_LOOKS_MAX = 5000
REAP_COUNT = 16  # operations that nobody waited for are forgotten when there are so many
LINKS_MAX = 1024
PIECES = 2**64 - 1  # for kill_at


@dataclass(frozen=True, slots=True)
class MemberAddress:
    """A member as the core wants it: candidates joined by commas, best first."""

    incarnation: int
    addresses: str


@dataclass(frozen=True, slots=True)
class InstallRequest:
    """struct collect_install of collect.h. `hosts`: their numbers by rank; empty: all alone."""

    epoch: int
    members: Sequence[MemberAddress]
    self_rank: int
    op_base: int
    recipe: Recipe
    hosts: Sequence[int]
    verdict: Verdict
    repairs: Sequence[Repair]
    redials: Sequence[int]
    scopes: Sequence[ScopeVerdict] = ()


@dataclass(frozen=True, slots=True)
class FreezeReport:
    """struct collect_report of collect.h."""

    consumed: Outcome
    in_flight: OpInFlight | None
    lost: tuple[LostLink, ...]


@dataclass(frozen=True, slots=True)
class LinkInfo:
    """struct collect_link_info of collect.h."""

    peer: int
    is_up: bool
    streams: int
    sent_bytes: int
    received_bytes: int
    silent_s: float
    rtt_min_ns: int  # 0: unknown
    delivery_bytes_per_s: int  # 0: unknown
    retransmitted_bytes: int
    shared_bytes: int  # of sent and received, what went through shared memory


class Communicator:
    """The comm of one group; made by Engine.new_communicator."""

    def __init__(self, engine: Any, key: int, self_id: int) -> None:
        cell = native.ffi.new("collect_comm **")
        created = native.lib.collect_comm_create(engine, key, self_id, cell)
        status.check(created, "create a communicator")
        self._adopt(cell)

    def _adopt(self, cell: Any) -> None:
        self._cell = cell
        self.core = Core()
        self._gate = self.core.gate
        self._start = native.lib.collect_comm_start
        self._reap_messages_at = REAP_COUNT

    # ---- sub-groups ----------------------------------------------------------------------

    @classmethod
    def unborn(cls) -> Communicator:
        """One that `split` makes that of a sub-group; until then it can only be closed."""
        made = cls.__new__(cls)
        made._adopt(native.ffi.new("collect_comm **"))
        return made

    @property
    def is_born(self) -> bool:
        """The core has made it: set by the core itself, so that no interrupt comes between."""
        return bool(self._cell[0] != native.ffi.NULL)

    @property
    def key(self) -> int:
        """That its events carry."""
        return int(native.lib.collect_comm_key(self._cell[0]))

    def split(self, child: Communicator, scope: int, members: Sequence[int]) -> int:
        """Makes `child` the communicator of a sub-group. Gives the core's status."""
        numbers = native.ffi.new("uint64_t[]", list(members))
        with self._gate.passing():
            result = native.lib.collect_comm_split(
                self._cell[0], scope, numbers, len(members), child._cell
            )
        return int(result)

    def progress(self) -> tuple[int, int]:
        """The last operation that was submitted; and that was delivered, 0 when it failed."""
        numbers = native.ffi.new("uint64_t[2]")
        with self._gate.passing():
            native.lib.collect_comm_progress(self._cell[0], numbers, numbers + 1)
        return int(numbers[0]), int(numbers[1])

    # ---- operations ----------------------------------------------------------------------

    def start(
        self,
        operation: Operation,
        deadline_ns: int,
        slice_ns: int = 0,
        *,
        takes_boundary: bool = False,
    ) -> int:
        """Starts an operation, and waits for it for at most `slice_ns`.

        One thread at a time, in program order.

        Returns:
            OK; E_FULL when too many are pending; E_BOUNDARY when it takes a boundary and none is
            lent. Other failures raise.
        """
        core = self.core
        under_way = core.under_way
        if len(under_way) >= REAP_COUNT:
            self.reap()
        call = operation.call
        more = call if isinstance(call, LaidOut) else None
        if more is not None:
            counts, target_counts = _numbers(more.counts), _numbers(more.target_counts)
        struct = call.signature.struct
        if struct is None:
            struct = call.signature.struct = _new_struct(call.signature)
        source, target = operation.lend()
        cell = operation.cell
        inside, thread = core.gate.inside, get_ident()
        inside[thread] = None  # the gate, passed by hand: calls of its methods cost as much as all
        result = status.E_CLOSED
        try:
            if core.gate.is_shut:
                core.gate.enter()
            under_way[operation] = None
            # From here to the start no signal handler gets a turn: none of these steps is a call.
            if more is not None:
                struct.root = more.root
                struct.world = more.world
                struct.counts = counts
                struct.target_counts = target_counts
                struct.factor = more.factor
            struct.source = source
            struct.target = target
            struct.count = call.count
            struct.deadline_ns = deadline_ns
            struct.takes_boundary = takes_boundary
            result = self._start(self._cell[0], struct, cell)
            if slice_ns and not result:
                found = core.op_wait(cell[0], slice_ns)
                if found != status.PENDING:
                    operation.status = found
                    under_way.pop(operation, None)
        finally:
            if result and not operation.is_submitted:
                under_way.pop(operation, None)
            inside.pop(thread, None)
        if result and result not in REFUSALS:
            raise status.exception(result, "start an operation")
        return int(result)

    def prepare(self, call: Call, limit_ns: int) -> Prepared:
        """Lays a call out that is to be started many times; each start takes a boundary.

        limit_ns: how long each may take.
        """
        prepared = Prepared(call, self.core)
        source, target = prepared.lend()
        struct = _new_struct(call.signature)
        struct.source, struct.target, struct.count = source, target, call.count
        struct.deadline_ns, struct.takes_boundary = max(1, limit_ns), True
        if isinstance(call, LaidOut):
            struct.root, struct.world, struct.factor = call.root, call.world, call.factor
            counts, target_counts = _numbers(call.counts), _numbers(call.target_counts)
            struct.counts, struct.target_counts = counts, target_counts
        with self._gate.passing():
            made = native.lib.collect_op_prepare(self._cell[0], struct, prepared.cell)
        status.check(made, "prepare an operation")
        prepared.op = prepared.cell[0]
        self.core.prepared.add(prepared)
        return prepared

    def define(self, definition: Definition, world: int) -> str | None:
        """Lets calls name an algorithm of the user's own; why it is refused, or None."""
        with self._gate.passing():
            return definition.add_to(self._cell[0], world)

    def reap(self) -> None:
        """Forgets operations that have completed and that nobody waited for, oldest first.

        They complete in the order of their starts, so the first that has not ends the search.
        """
        under_way = self.core.under_way
        while (oldest := self.oldest()) is not None:
            if oldest.poll() == status.PENDING:
                return
            under_way.pop(oldest, None)

    def oldest(self) -> Operation | None:
        """Of those under way, the one that was started first."""
        while True:
            try:
                return next(iter(self.core.under_way), None)
            except RuntimeError:  # another thread has changed the registry between two steps
                continue

    def outstanding(self) -> list[Operation]:
        """Operations that have not completed."""
        self.reap()
        started = [*self.core.under_way.copy(), *self.core.prepared]
        return [each for each in started if each.is_submitted and each.poll() == status.PENDING]

    def lend(self, passed: int, limit: int) -> int:
        """Lets starts pass boundaries up to `limit`; `passed` lie behind. Gives the last passed."""
        with self._gate.passing():
            return int(native.lib.collect_comm_lend(self._cell[0], passed, limit))

    def pending(self) -> int:
        """How many operations are submitted and not consumed."""
        with self._gate.passing():
            return int(native.lib.collect_comm_pending(self._cell[0]))

    def abort(self) -> None:
        """Completes every pending operation as aborted, at once."""
        with self._gate.passing():
            status.check(native.lib.collect_comm_abort(self._cell[0]), "abort")

    def start_message(self, message: Message, deadline_ns: int) -> int:
        """Starts a message; never blocks. Gives the core's status."""
        messages = self.core.messages
        if len(messages) >= self._reap_messages_at:
            for each in messages.copy():
                each.poll()
            self._reap_messages_at = max(REAP_COUNT, 2 * len(messages))
        result = status.E_CLOSED
        with self._gate.passing():
            messages[message] = None
            try:
                result = message.start(self._cell[0], deadline_ns)
            finally:
                if result and not message.is_submitted:
                    messages.pop(message, None)
        return result

    def cancel_messages(self) -> None:
        """Ends every pending message here, as aborted."""
        with self._gate.passing():
            native.lib.collect_comm_cancel_messages(self._cell[0])

    def kill_at(self, op: int, frame: int) -> None:
        """Fail-point: SIGKILLs this process at data frame `frame` of `op`.

        0: of the next. PIECES: at that piece of messages, sent or received.
        """
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
        repairs = _repairs(request.repairs)
        scopes, borrowed_by_scopes = _scope_verdicts(request.scopes)
        redials = ffi.new("uint64_t[]", list(request.redials) or 1)
        install = ffi.new("struct collect_install *")
        install.epoch = request.epoch
        install.members, install.member_count = members, len(request.members)
        install.self_rank = request.self_rank
        install.op_base = request.op_base
        recipe, borrowed = _recipe(request.recipe, request.hosts)
        install.recipe = recipe
        install.verdict = int(request.verdict.kind)
        install.verdict_op = request.verdict.op
        install.verdict_attempt = request.verdict.attempt
        install.repairs, install.repair_count = repairs, len(request.repairs)
        install.redial, install.redial_count = redials, len(request.redials)
        install.scopes, install.scope_count = scopes, len(request.scopes)
        with self._gate.passing():
            result = native.lib.collect_comm_install(self._cell[0], install)
        del borrowed, borrowed_by_scopes  # until here they are pointed to
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
                rtt_min_ns=int(info.rtt_min_ns),
                delivery_bytes_per_s=int(info.delivery_bytes_per_s),
                retransmitted_bytes=int(info.retransmitted_bytes),
                shared_bytes=int(info.shared_bytes),
            )
            for info in infos[0 : min(count, LINKS_MAX)]
        ]

    def forget_thread(self) -> None:
        """The calling thread is not inside, whatever interrupted it before."""
        self._gate.leave()

    def close(self) -> None:
        """Aborts what is pending, waits until nobody is inside the core, frees. Idempotent."""
        if not self._gate.shut() or not self.is_born:
            return
        native.lib.collect_comm_abort(self._cell[0])
        native.lib.collect_comm_cancel_messages(self._cell[0])
        for _ in range(CLOSE_LOOKS_MAX):
            if self._gate.is_empty():
                break
            threading.Event().wait(CLOSE_LOOK_S)
        else:
            # Better to leak than to free what a thread is using.
            log.error("a communicator is not freed: a thread has not left the core")
            return
        native.lib.collect_comm_destroy(self._cell)
        self.core.under_way.clear()
        self.core.messages.clear()

    @staticmethod
    def _members(members: Sequence[MemberAddress]) -> Any:
        array = native.ffi.new("struct collect_member[]", max(1, len(members)))
        for index, member in enumerate(members):
            array[index].incarnation = member.incarnation
            array[index].addresses = member.addresses.encode()
        return array


def _numbers(counts: Counts | None) -> Any:
    ffi = native.ffi
    return ffi.NULL if counts is None else ffi.new("uint64_t[]", counts)


def _new_struct(signature: Signature) -> Any:
    """A struct collect_call with the signature's part filled in."""
    struct = native.ffi.new("struct collect_call *")
    struct.collective = int(signature.collective)
    struct.dtype = signature.dtype
    struct.reduce_op = signature.reduce_op
    struct.algorithm = signature.algorithm
    struct.is_produced = signature.is_produced
    return struct


def _recipe(recipe: Recipe, hosts: Sequence[int]) -> tuple[Any, list[Any]]:
    """struct collect_recipe, and the arrays that it points to."""
    ffi = native.ffi
    made = ffi.new("struct collect_recipe *")
    made.algorithm = recipe.algorithm
    made.commit_bytes = recipe.commit_bytes
    made.transport = recipe.transport
    for model, values in ((made.local, recipe.local), (made.remote, recipe.remote)):
        _fill_model(model, values)
    made.reduce_bytes_per_s = recipe.reduce_bytes_per_s
    borrowed = [made]
    for name, numbers in (("hosts", hosts), ("weights", recipe.weights), ("order", recipe.order)):
        if numbers:
            array = ffi.new("uint32_t[]", list(numbers))
            borrowed.append(array)
            setattr(made, name, array)
    made.level_count = len(recipe.radices)
    for level, radix in enumerate(recipe.radices):
        made.radices[level] = radix
    return made, borrowed


def _repairs(repairs: Sequence[Repair]) -> Any:
    array = native.ffi.new("struct collect_repair[]", max(1, len(repairs)))
    for index, repair in enumerate(repairs):
        array[index].holder, array[index].needer = repair.holder, repair.needer
    return array


def _scope_verdicts(verdicts: Sequence[ScopeVerdict]) -> tuple[Any, list[Any]]:
    """An array of struct collect_scope_verdict, and the arrays that it points to."""
    array = native.ffi.new("struct collect_scope_verdict[]", max(1, len(verdicts)))
    borrowed = []
    for index, each in enumerate(verdicts):
        made, repairs = array[index], _repairs(each.repairs)
        borrowed.append(repairs)
        made.scope = each.scope
        made.verdict = int(each.verdict.kind)
        made.verdict_op = each.verdict.op
        made.verdict_attempt = each.verdict.attempt
        made.repairs, made.repair_count = repairs, len(each.repairs)
    return array, borrowed


def _fill_model(model: Any, values: LinkModel) -> None:
    model.latency_ns = values.latency_ns
    model.overhead_ns = values.overhead_ns
    model.bytes_per_s = values.bytes_per_s


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
            is_whole=bool(report.inflight_is_whole),
            is_shaped=bool(report.inflight_is_shaped),
            is_rooted=bool(report.inflight_is_rooted),
        )
    lost = tuple(
        LostLink(int(report.lost_peers[index]), LinkLoss(report.lost_kinds[index]))
        for index in range(report.lost_count)
    )
    return FreezeReport(consumed, in_flight, lost)
