"""One end of a message from member to member.

Memory: as that of operations (native/operation.py), in a registry of their own, because messages
complete in any order and no change of the members waits for them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from collect import native
from collect.native import status
from collect.native.buffer import Array
from collect.native.operation import Core, Operation


class MessageInfo(NamedTuple):
    """What struct collect_op_info of collect.h says of a message."""

    status: int
    submitted_ns: int
    completed_ns: int
    peer: int
    bytes: int


class Message(Operation):
    """A send or a receive; made by Communicator.send and Communicator.receive.

    `peer`: whom the caller named, 0: any. `array`: lent to the core until it has completed.
    """

    __slots__ = ("array", "is_send", "peer", "tag")

    def __init__(self, core: Core, array: Array, peer: int, tag: int, *, is_send: bool) -> None:
        self.cell = core.new(core.cell_type)
        self.core = core
        self.status = status.PENDING
        self.array = array
        self.peer = peer
        self.tag = tag
        self.is_send = is_send

    def start(self, comm: Any, deadline_ns: int) -> int:
        """With the gate passed, and registered."""
        lib = native.lib
        begin = lib.collect_comm_send if self.is_send else lib.collect_comm_receive
        self._memory = memory = self.core.from_buffer(self.array)
        return int(
            begin(comm, self.peer, self.tag, memory, self.array.nbytes, deadline_ns, self.cell)
        )

    def cancel(self) -> None:
        """Ends it here, as aborted, unless it has completed. Its memory is free again."""
        gate = self.core.gate
        gate.enter()
        try:
            native.lib.collect_op_cancel(self.cell[0])
        finally:
            gate.leave()
        self.poll()

    def _settle(self, found: int) -> None:
        if found != status.PENDING:
            self.status = found
            self.core.messages.pop(self, None)

    @property
    def facts(self) -> MessageInfo:
        """What the core knows of it now."""
        core = self.core
        info = core.new(core.info_type)
        core.op_info_get(self.cell[0], info)
        return MessageInfo(info.status, info.submitted_ns, info.completed_ns, info.peer, info.bytes)
