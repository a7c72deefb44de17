"""Operations of the core: one call, or one that is prepared and started over and over.

Memory: an operation is registered before the core learns of it and stays registered until it has
completed, whatever exception interrupts the caller; so its arrays live as long as the core uses
them.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from collect import native
from collect.errors import Closed
from collect.native import status
from collect.native.buffer import Array
from collect.native.call import Call

if TYPE_CHECKING:
    from collect.native.message import Message

NS_PER_S = 1_000_000_000
# A signal ends the wait of the main thread at once, unless it came just before it slept.
WAIT_SLICE_NS = 250_000_000
# What the core says to a start that it does not take, and no operation ends with.
REFUSALS = frozenset({status.E_BUSY, status.E_FULL, status.E_BOUNDARY})


class OpInfo(NamedTuple):
    """struct collect_op_info of collect.h."""

    status: int
    op: int
    attempt: int
    submitted_ns: int
    completed_ns: int
    attempts: int
    participants: int
    algorithm: int
    is_shared: bool = False
    is_mixed: bool = False


class Gate:
    """Knows which threads are in functions of a comm; once shut, lets nobody in.

    Functions of an operation need none: the core knows who is inside them.

    Without a lock, so that a KeyboardInterrupt between two steps leaves none taken. A thread that
    was interrupted on its way out counts as inside until it enters or leaves again.
    """

    def __init__(self) -> None:
        self.inside: dict[int, None] = {}  # by thread; its single steps are atomic
        self.is_shut = False

    @contextmanager
    def passing(self) -> Iterator[None]:
        """Raises Closed when the gate is shut."""
        self.enter()
        try:
            yield
        finally:
            self.leave()

    def enter(self) -> None:
        self.inside[threading.get_ident()] = None  # before the look at the gate, see shut
        if self.is_shut:
            self.leave()
            raise Closed("this group is closed")

    def leave(self) -> None:
        self.inside.pop(threading.get_ident(), None)

    def shut(self) -> bool:
        """True for the one call that shuts it. Who enters from here on sees it shut."""
        was_shut, self.is_shut = self.is_shut, True
        return not was_shut

    def is_empty(self) -> bool:
        return not self.inside


class Core:
    """What operations use of the core, looked up once; and those of them that are under way.

    The registry's single steps are atomic: adding, taking out, copying.
    """

    def __init__(self) -> None:
        ffi, lib = native.ffi, native.lib
        self.null = ffi.NULL
        self.new = ffi.new
        self.from_buffer = ffi.from_buffer
        self.cell_type = ffi.typeof("collect_op **")
        self.info_type = ffi.typeof("struct collect_op_info *")
        self.counts_type = ffi.typeof("uint64_t[]")
        self.op_wait = lib.collect_op_wait
        self.op_info_get = lib.collect_op_info_get
        self.op_release = lib.collect_op_release
        self.op_start = lib.collect_op_start
        self.op_run = lib.collect_op_run
        self.op_run_on = lib.collect_op_run_on
        self.gate = Gate()
        self.under_way: dict[Operation, None] = {}  # in the order of their starts
        self.messages: dict[Message, None] = {}  # under way
        self.prepared: weakref.WeakSet[Prepared] = weakref.WeakSet()  # all that live

    def pointer(self, array: Array | None) -> Any:
        return self.null if array is None else self.from_buffer(array)


class Operation:
    """One collective call of this process. The C object is freed when nobody refers to this."""

    __slots__ = ("__weakref__", "_memory", "call", "cell", "core", "status")

    _memory: Any

    def __init__(self, call: Call, core: Core) -> None:
        self.cell = core.new(core.cell_type)
        self.call = call
        self.core = core
        self.status = status.PENDING

    def __del__(self) -> None:
        self.core.op_release(self.cell)

    @property
    def is_submitted(self) -> bool:
        """The core has taken it: set by the core itself, so that no interrupt comes between."""
        return bool(self.cell[0] != self.core.null)

    def lend(self) -> tuple[Any, Any]:
        """Pointers to source and target, valid until it has completed."""
        source, target = self.call.source, self.call.target
        core = self.core
        here = core.null if source is None else core.from_buffer(source)
        there = here if target is source else core.pointer(target)
        self._memory = memory = (here, there)
        return memory

    def poll(self) -> int:
        """The status now. Never blocks."""
        if self.status == status.PENDING and self.is_submitted:
            self._settle(self.info.status)
        return self.status

    def wait(self, timeout_s: float) -> int:
        """Waits for at most a slice of 250 ms; call again while it returns PENDING.

        Signal handlers, Ctrl-C among them, run between the slices.
        """
        if self.status != status.PENDING or not self.is_submitted:
            return self.status
        slice_ns = min(int(max(0.0, timeout_s) * NS_PER_S), WAIT_SLICE_NS)
        return self.wait_slice(slice_ns)

    def wait_slice(self, slice_ns: int) -> int:
        """Waits; of an operation that was submitted."""
        found = self.core.op_wait(self.cell[0], slice_ns)
        if found != status.PENDING:
            self._settle(found)
        return int(found)

    def _settle(self, found: int) -> None:
        """Notes what the core said."""
        if found != status.PENDING:
            self.status = found
            self.core.under_way.pop(self, None)

    @property
    def info(self) -> OpInfo:
        """What the core knows of it now."""
        core = self.core
        info = core.new(core.info_type)
        core.op_info_get(self.cell[0], info)
        return OpInfo(
            info.status,
            info.op,
            info.attempt,
            info.submitted_ns,
            info.completed_ns,
            info.attempts,
            info.participants,
            info.algorithm,
            bool(info.is_shared),
            bool(info.is_mixed),
        )


class Prepared(Operation):
    """A call that is checked and laid out once, to be started any number of times.

    Whether it is under way the core knows: `status` is what was found when it was last asked, so
    that a start that is interrupted anywhere leaves nothing to be put right. If its last user drops
    it while it is under way, its C object and its memory live on in an Operation that the registry
    holds.

    Attributes:
        op: the C object.
        is_lent: its memory belongs to whoever runs it on memory of his own.
    """

    __slots__ = ("is_lent", "op")

    op: Any

    def __init__(self, call: Call, core: Core) -> None:
        super().__init__(call, core)
        self.status = status.OK
        self.is_lent = False

    def __del__(self) -> None:
        if self.is_submitted and self.poll() == status.PENDING:
            heir = Operation(self.call, self.core)
            heir.cell, self.cell = self.cell, heir.cell
            heir._memory = self._memory
            self.core.under_way[heir] = None
        super().__del__()

    def poll(self) -> int:
        self.status = found = int(self.core.op_wait(self.cell[0], 0))
        return found

    def wait(self, timeout_s: float) -> int:
        return self.wait_slice(min(int(max(0.0, timeout_s) * NS_PER_S), WAIT_SLICE_NS))
