"""What every collective of a group stands on; and calls that are submitted together."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any

import numpy as np

from collect.api.work import PackedWork, Result, Work, finished, seconds
from collect.errors import Aborted, InvalidArgument
from collect.native.buffer import Array
from collect.native.call import Call, LaidOut
from collect.native.codes import Collective
from collect.session.operations import Session
from collect.session.plain import PlainCalls

PACKED_BYTES_MAX = 64 * 1024  # larger all-reduces gain nothing from sharing an operation
PACK_BYTES_MAX = 1 << 20


class Calls:
    """The part of a Group, and of a SubGroup, that makes calls; not for use by itself."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._maker = session.maker
        self._batch: Batch | None = None
        # All-reduces of plain arrays, by what the caller said.
        self._plain: dict[tuple[Any, str, str], PlainCalls] = {}

    @property
    def rank(self) -> int:
        """This member's index among the members of the current epoch."""
        return self._session.view.rank_of(self._session.control.self_id)

    @property
    def size(self) -> int:
        """How many members the current epoch has; of a sub-group, how many of its own."""
        return len(self._session.view.members)

    @property
    def epoch(self) -> int:
        """User number of the group's current epoch; grows with every change of its members."""
        return self._session.epoch

    def coalesce(self) -> Batch:
        """Calls inside `with group.coalesce() as batch:` are submitted together, at its end.

        Each gives a Work, also without `async_op`; `batch.wait()` waits for all. All-reduces of at
        most 64 KiB with equal dtype, op and algorithm share an operation, so their Results have
        the same `op`. Every member makes the same calls in its batch. Only the thread that opened
        the batch adds to it. When an error leaves the block, nothing of it is submitted.
        """
        if self._batch is not None:
            raise InvalidArgument("a batch of this group is open already")
        return Batch(self)

    def _in_batch(self) -> bool:
        return self._batch is not None and self._batch.is_of_this_thread

    def _do(self, call: Call, async_op: bool, timeout: float | None) -> Any:
        """Has a call done in the way the caller wants: gives a Result or a Work."""
        limit_s = seconds(timeout, "timeout")
        session = self._session
        if self._batch is not None and self._batch.is_of_this_thread:
            return self._batch.add(call, limit_s)
        if async_op:
            return Work(session, session.submit(call, limit_s))
        return finished(session.run(call, limit_s), session)

    def _start_produced(self, call: Call, timeout: float | None) -> Work:
        """Starts a call whose source is marked as it is written."""
        limit_s = seconds(timeout, "timeout")
        if self._in_batch():
            raise InvalidArgument(
                "produced=True needs an operation of its own", advice="call it outside of the batch"
            )
        return Work(self._session, self._session.submit(call, limit_s))

    def _require_blocking(self, async_op: bool, what: str) -> None:
        if async_op or self._in_batch():
            raise InvalidArgument(
                f"{what} takes several operations, one after the other",
                advice="call it without async_op, outside of a batch",
            )


class Batch:
    """Calls that are submitted together; see Group.coalesce."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._thread = threading.get_ident()
        self._entries: list[tuple[Call, float | None, PackedWork]] = []

    def __enter__(self) -> Batch:
        self._calls._batch = self
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._calls._batch = None
        if kind is None:
            self._submit()
        else:
            self._give_up(0)

    @property
    def is_of_this_thread(self) -> bool:
        """Whether calls of this thread belong to it."""
        return threading.get_ident() == self._thread

    @property
    def works(self) -> tuple[Work, ...]:
        """One for each call, in order."""
        return tuple(work for _, _, work in self._entries)

    def add(self, call: Call, limit_s: float | None) -> Work:
        """Keeps a call for the end of the batch; what the group does with its calls."""
        work = PackedWork(self._calls._session)
        self._entries.append((call, limit_s, work))
        return work

    def wait(self, timeout: float | None = None) -> list[Result]:
        """Waits for every call, and returns their results in order.

        Args:
            timeout: seconds to wait for each; None waits as long as an operation may take.

        Raises what the first one that failed raises, when all are over.
        """
        failure: Exception | None = None
        results = []
        for work in self.works:
            try:
                results.append(work.wait(timeout))
            except Exception as error:
                failure = failure or error
        if failure is not None:
            raise failure
        return results

    # ---- the end of the block ------------------------------------------------------------

    def _submit(self) -> None:
        """The order of the operations follows from the calls alone, so it is that of all."""
        session = self._calls._session
        packs = _packed(self._entries)
        with session.submitting:
            for index, pack in enumerate(packs):
                try:
                    if len(pack) == 1:
                        call, limit_s, work = pack[0]
                        work.start(session.submit(call, limit_s))
                    else:
                        _submit_pack(session, pack)
                except BaseException:
                    for rest in packs[index:]:
                        _give_up(rest)
                    raise

    def _give_up(self, begin: int) -> None:
        _give_up(self._entries[begin:])


Entry = tuple[Call, float | None, PackedWork]


def _give_up(entries: list[Entry]) -> None:
    for _, _, work in entries:
        work.give_up(Aborted("the batch ended with an error before this call was submitted"))


def _packed(entries: list[Entry]) -> list[list[Entry]]:
    """The calls of each operation; an operation stands where its first call stood."""
    packs: list[list[Entry]] = []
    open_packs: dict[Any, tuple[list[Entry] | None, int]] = {}
    for entry in entries:
        call = entry[0]
        source, signature = call.source, call.signature
        if (
            signature.collective is not Collective.ALL_REDUCE
            or source is None
            or source.nbytes > PACKED_BYTES_MAX
        ):
            packs.append([entry])
            continue
        key = (signature, call.factor if isinstance(call, LaidOut) else 0.0)
        pack, byte_count = open_packs.get(key, (None, 0))
        if pack is None or byte_count + source.nbytes > PACK_BYTES_MAX:
            pack, byte_count = [], 0
            packs.append(pack)
        pack.append(entry)
        open_packs[key] = (pack, byte_count + source.nbytes)
    return packs


def _submit_pack(session: Session, pack: list[Entry]) -> None:
    sources = [call.source for call, _, _ in pack if call.source is not None]
    memory = np.concatenate([source.reshape(-1) for source in sources])
    first = pack[0][0]
    whole = LaidOut(first.signature, memory, memory, memory.size)
    if isinstance(first, LaidOut):
        whole.factor = first.factor
    limits = [limit_s for _, limit_s, _ in pack if limit_s is not None]
    operation = session.submit(whole, min(limits, default=None))
    begin = 0
    for call, _, work in pack:
        work.join(operation, _Share(call, memory[begin : begin + call.count]))
        begin += call.count


class _Share:
    """Takes one call's part out of a pack."""

    def __init__(self, call: Call, part: Array) -> None:
        self._call = call
        self._part = part

    def __call__(self) -> Any:
        target = self._call.target
        assert target is not None
        np.copyto(target.reshape(-1), self._part)
        return self._call.finish(0)
