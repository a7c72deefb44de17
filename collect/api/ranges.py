"""Computation that overlaps inside one operation: finished ranges, and sources in the making."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Protocol

from collect.errors import InvalidArgument, RangesRevoked, Timeout
from collect.native.buffer import is_plain, view_of
from collect.native.call import LaidOut
from collect.native.operation import NS_PER_S, WAIT_SLICE_NS, Operation
from collect.native.ranges import Attempt, Production, Range
from collect.native.status import PENDING
from collect.net.clock import now_s

SLICE_S = WAIT_SLICE_NS / NS_PER_S


class Source(Protocol):
    """Where ranges come from: `collect.native.ranges.Progress`, or `AtTheEnd`."""

    attempt: Attempt
    is_over: bool

    def advance(self, timeout_s: float) -> bool:
        """See Progress."""


class AtTheEnd:
    """One range of everything: of a result that is put into its place when all is done."""

    def __init__(self, operation: Operation, finish: Callable[[], Any]) -> None:
        self.attempt = Attempt(0)
        self.is_over = False
        self._operation = operation
        self._finish = finish  # gives the array

    def advance(self, timeout_s: float) -> bool:
        if self._operation.poll() == PENDING and self._operation.wait(timeout_s) == PENDING:
            return False
        if not self.is_over:
            array = self._finish()
            size = 0 if array is None else view_of(array, "array")[0].size
            attempt = Attempt(0)
            attempt.ranges += [Range(0, size)] if size else []
            self.attempt = attempt
            self.is_over = True
        return True


class Ranges(Iterator[Range], AsyncIterator[Range]):
    """What `Work.ranges` gives, for `for` and `async for`. One thread, or coroutine, at a time."""

    def __init__(self, source: Source, settle: Callable[[], Any], limit_s: float | None) -> None:
        self._source = source
        self._settle = settle  # raises why the operation failed
        self._limit_s = limit_s
        self._attempt = source.attempt
        self._count = 0  # of its ranges that were given

    def __iter__(self) -> Ranges:
        return self

    def __aiter__(self) -> Ranges:
        return self

    def __next__(self) -> Range:
        deadline_s = self._deadline_s()
        while (found := self._known()) is None:
            if self._source.is_over and self._known() is None:
                self._settle()
                raise StopIteration
            self._source.advance(self._slice_s(deadline_s))
        return found

    async def __anext__(self) -> Range:
        deadline_s = self._deadline_s()
        loop = asyncio.get_running_loop()
        while (found := self._known()) is None:
            if self._source.is_over and self._known() is None:
                self._settle()
                raise StopAsyncIteration
            # Not on the loop's own thread, also when there is something to be had at once: the
            # core may be busy with a large chunk.
            await loop.run_in_executor(None, self._source.advance, self._slice_s(deadline_s))
        return found

    def _known(self) -> Range | None:
        """The next range that is at hand."""
        now = self._source.attempt
        if now is not self._attempt:
            if self._count:
                raise RangesRevoked("the operation runs again, after a change of the members")
            self._attempt = now
        if self._count == len(now.ranges):
            return None
        self._count += 1
        return now.ranges[self._count - 1]

    def _deadline_s(self) -> float | None:
        return None if self._limit_s is None else now_s() + self._limit_s

    def _slice_s(self, deadline_s: float | None) -> float:
        if deadline_s is None:
            return SLICE_S
        left_s = deadline_s - now_s()
        if left_s <= 0:
            raise Timeout(
                f"no more of the result is final after {self._limit_s:g} s",
                advice="the operation goes on: ask again, or abort",
            )
        return min(SLICE_S, left_s)


def bounds(elements: slice, total: int) -> tuple[int, int]:
    """Begin and end of a slice of `total` elements."""
    if not isinstance(elements, slice) or elements.step not in (None, 1):
        raise InvalidArgument(f"elements is {elements!r}; it must be a slice without a step")
    begin, end, _ = elements.indices(total)
    return begin, max(begin, end)


def covers(source: Source, begin: int, end: int) -> bool:
    """Whether elements [begin, end) are final. Never blocks."""
    while source.advance(0.0) and not source.is_over:
        continue
    return source.attempt.has(begin, end)


def to_be_produced(call: LaidOut, array: Any, async_op: bool, *, is_giver: bool = True) -> LaidOut:
    """The call, of `array`, with a source that the caller marks as it writes it."""
    if not async_op:
        raise InvalidArgument("produced=True needs a Work", advice="pass async_op=True")
    view = view_of(array, "array")[0]
    if not is_plain(view):
        raise InvalidArgument(
            "array is not contiguous, and would be packed before it is produced",
            advice="pass contiguous memory",
        )
    call.production = Production(view.size if is_giver else 0)
    call.signature = call.signature.to_be_produced()
    return call
