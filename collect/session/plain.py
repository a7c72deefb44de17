"""All-reduces of contiguous arrays: prepared once, and run on other memory each time.

What such a call needs of the core is the same each time but for the memory, so operations are kept
and used again, as soon as nobody refers to them any more: a Result looks up its facts in one.
"""

from __future__ import annotations

from sys import getrefcount
from typing import TYPE_CHECKING

from collect.errors import CollectError
from collect.native import status
from collect.native.buffer import Array
from collect.native.call import Call
from collect.native.codes import Signature
from collect.native.operation import REFUSALS, Prepared

if TYPE_CHECKING:
    from collect.session.operations import Session

# Who refers to an operation that is not in use: `_spare` or `_other`, a local, and the question.
OWN_REFERENCES = 3


class PlainCalls:
    """The all-reduces of one signature. Any thread.

    An operation that is interrupted, or fails, stays lent: another takes its place.
    """

    def __init__(self, session: Session, signature: Signature) -> None:
        self._session = session
        self.signature = signature
        self._limit_ns = session.limit_ns()
        # Two, because a loop that keeps its last result holds one.
        self._spare: Prepared | None = None
        self._other: Prepared | None = None
        core = session.communicator.core
        self._run_on = core.op_run_on
        self._from_buffer = core.from_buffer

    def run(self, source: Array, target: Array) -> Prepared | None:
        """Reduces into the target; raises why that failed. None: it takes a longer way.

        Both are NumPy arrays, the source is of the signature's dtype.
        """
        if not target.flags.carray:
            return None
        is_apart = target is not source
        if is_apart and (
            target.dtype is not source.dtype
            or target.shape != source.shape
            or not source.flags.carray
        ):
            return None
        operation = self._spare
        # Threads cannot both find it free: each refers to it before it asks.
        if operation is None or operation.is_lent or getrefcount(operation) > OWN_REFERENCES:
            operation = self._take_other(source, target)
            if operation is None:
                return None
        # From here on until it is over, whatever interrupts this.
        operation.is_lent = True
        here = self._from_buffer(source)
        there = self._from_buffer(target) if is_apart else here
        operation._memory = (here, there) if is_apart else here
        found = self._run_on(operation.op, here, there, source.size)
        if found and not self._go_on(operation, found, here, there, source.size):
            return None
        operation._memory = None
        operation.is_lent = False
        return operation

    def _take_other(self, source: Array, target: Array) -> Prepared | None:
        """The other one, or a new one in its place. None: an empty array is no memory."""
        operation = self._other
        if operation is None or operation.is_lent or getrefcount(operation) > OWN_REFERENCES:
            if source.size == 0:
                return None
            call = Call(self.signature, source, target, source.size, None)
            operation = self._session.prepare(call, self._limit_ns)
            call.source = call.target = operation._memory = None
        self._spare, self._other = operation, self._spare
        return operation

    def _go_on(
        self, operation: Prepared, found: int, here: object, there: object, count: int
    ) -> bool:
        """After a refusal, a first slice of waiting or a failure. False: it was not started."""
        while found == status.E_BOUNDARY:
            self._session.open_boundary(self._limit_ns)
            found = self._run_on(operation.op, here, there, count)
        is_refused = found in REFUSALS or found == status.E_CLOSED
        if is_refused or (found == status.E_INVALID and operation.poll() != found):
            operation._memory = None
            operation.is_lent = False
            return False
        operation.status = found
        try:
            self._session.wait(operation)
        except CollectError:
            operation._memory = None
            raise
        return True
