"""One collective call of one member: its memory laid out as struct collect_call wants it.

The makers check what can be checked without the others. A call with blocks means the members of
the view that it was laid out for: `require` says so before it is handed to the core, which says so
again if members are lost afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from collect.errors import InvalidArgument, MembersChanged
from collect.native.buffer import (
    Array,
    check_overlap,
    empty_like,
    is_plain,
    packed,
    require_writable,
    view_of,
)
from collect.native.codes import Collective, Signature, Signatures

if TYPE_CHECKING:
    from collect.native.ranges import Production

Counts = tuple[int, ...]


class Call:
    """What an all-reduce of contiguous memory needs, and nothing else: the fast path makes it.

    Attributes:
        signature: what to do.
        source, target: C-contiguous memory, or None where this rank has none.
        count: elements, of a block where there are blocks.
        result: what the caller gets: what was passed as `out`, else as `array`, or new memory.
    """

    __slots__ = ("count", "result", "signature", "source", "target")

    blocks = False
    production: Production | None = None  # of a source that is written meanwhile

    def __init__(
        self,
        signature: Signature,
        source: Array | None,
        target: Array | None,
        count: int,
        result: Any,
    ) -> None:
        self.signature = signature
        self.source = source
        self.target = target
        self.count = count
        self.result = result

    def require(self, size: int, rank: int) -> None:
        """Before it is started in a view: raises MembersChanged when the blocks do not fit it."""

    def finish(self, participants: int) -> Any:
        """What the caller gets, once the operation has succeeded. participants: where there are
        `blocks`, else any number."""
        del participants
        return self.result


class LaidOut(Call):
    """A call with everything that may be there; what is not said has the value that stands here.

    Attributes:
        root: incarnation, of rooted calls.
        world: members that it was laid out for; 0: it fits any number.
        rank: this one's, where blocks of different sizes depend on it; else -1.
        counts: elements of each block, or sent to each member.
        target_counts: elements from each member, of an all-to-all.
        unpack: memory of the caller that the target is copied to at the end, or None.
        blocks: the result's first axis has as many entries as there were participants.
        like: `require` makes the result's memory, for as many members as there are: what it is to
            be like. None: the memory stays what it is.
    """

    root = 0
    world = 0
    rank = -1
    blocks = False
    counts: Counts | None = None
    target_counts: Counts | None = None
    factor = 0.0
    unpack: Array | None = None
    like: Any = None

    def __init__(
        self,
        signature: Signature,
        source: Array | None,
        target: Array | None,
        count: int,
        *,
        result: Any = None,
        unpack: Array | None = None,
    ) -> None:
        super().__init__(signature, source, target, count, result)
        if unpack is not None:
            self.unpack = unpack

    def require(self, size: int, rank: int) -> None:
        if self.like is not None:
            if self.world != size:
                self._make_blocks(size)
        elif self.blocks and self.target is None:
            self.world = size  # only the root has room for all, and knows how much
        elif self.blocks:
            if size > self.world:
                raise MembersChanged(
                    f"there is room for the blocks of {self.world} members, and now there are "
                    f"{size}"
                )
        elif self.world not in (0, size) or self.rank not in (-1, rank):
            raise MembersChanged(
                f"the blocks are laid out for {self.world} members, and now there are {size}"
                if size != self.world
                else "the blocks are laid out for other members"
            )

    def _make_blocks(self, size: int) -> None:
        """Memory for a block of each of `size` members."""
        assert self.source is not None
        shape = (size, *self.source.shape)
        self.result = empty_like(self.like, self.source, shape)
        self.target = view_of(self.result, "out")[0]
        self.world = size

    def finish(self, participants: int) -> Any:
        if self.unpack is not None:
            assert self.target is not None
            np.copyto(self.unpack, self.target.reshape(self.unpack.shape))
        if self.blocks and self.target is not None and participants < self.world:
            return _first_blocks(self.result, participants)
        return self.result


def _first_blocks(result: Any, count: int) -> Any:
    return result[:count] if hasattr(result, "dtype") else view_of(result, "out")[0][:count]


class Maker:
    """Makes the calls of one group. `size` and `rank` are those of the current view."""

    def __init__(self) -> None:
        self.signatures = Signatures()

    @staticmethod
    def rows_of(counts: Sequence[int], size: int, role: str) -> Counts:
        """Checks numbers of rows, one for each rank."""
        return _rows_of(counts, size, role)

    def all_reduce(
        self, array: Any, op: str, *, out: Any = None, algorithm: str = "auto", factor: Any = None
    ) -> LaidOut:
        view, code = view_of(array, "array")
        signature = self.signatures.get(Collective.ALL_REDUCE, code, op, algorithm)
        call = _same_shape(Given(signature, array, view), out)
        call.factor = _factor(factor, op)
        return call

    def barrier(self) -> Call:
        return Call(self.signatures.get(Collective.BARRIER, 0, "sum", "auto"), None, None, 0, None)

    def broadcast(
        self, array: Any, root: int, *, out: Any = None, algorithm: str = "auto"
    ) -> LaidOut:
        view, code = view_of(array, "array")
        signature = self.signatures.get(Collective.BROADCAST, code, "sum", algorithm)
        call = _same_shape(Given(signature, array, view), out)
        call.root = root
        return call

    def reduce(
        self,
        array: Any,
        op: str,
        root: int,
        is_root: bool,
        *,
        out: Any = None,
        algorithm: str = "auto",
        factor: Any = None,
    ) -> LaidOut:
        view, code = view_of(array, "array")
        signature = self.signatures.get(Collective.REDUCE, code, op, algorithm)
        if is_root:
            call = _same_shape(Given(signature, array, view), out)
        else:
            call = LaidOut(signature, packed(view), None, view.size)
        call.root = root
        call.factor = _factor(factor, op)
        return call

    def reduce_scatter(
        self,
        array: Any,
        op: str,
        size: int,
        rank: int,
        *,
        out: Any = None,
        counts: Sequence[int] | None = None,
        algorithm: str = "auto",
        factor: Any = None,
    ) -> LaidOut:
        view, code = view_of(array, "array")
        signature = self.signatures.get(Collective.REDUCE_SCATTER, code, op, algorithm)
        call = _one_of_blocks(Given(signature, array, view), out, counts, size, rank)
        call.factor = _factor(factor, op)
        return call

    def scatter(
        self,
        array: Any,
        size: int,
        rank: int,
        root: int,
        is_root: bool,
        *,
        out: Any = None,
        counts: Sequence[int] | None = None,
        algorithm: str = "auto",
    ) -> LaidOut:
        if is_root:
            view, code = view_of(array, "array")
            signature = self.signatures.get(Collective.SCATTER, code, "sum", algorithm)
            call = _one_of_blocks(Given(signature, array, view), out, counts, size, rank)
        else:
            if out is None:
                raise InvalidArgument("scatter needs `out` on every member but the root")
            target, code = view_of(out, "out")
            require_writable(target, "out", "pass memory that can be written to")
            signature = self.signatures.get(Collective.SCATTER, code, "sum", algorithm)
            call = LaidOut(signature, None, *_room(target), result=out)
            if counts is not None:
                row = _row_size(target, "out")
                rows = _rows_of(counts, size, "counts")
                if target.shape[0] != rows[rank]:
                    raise InvalidArgument(
                        f"out has {target.shape[0]} rows and counts[{rank}] is {rows[rank]}"
                    )
                call.counts = tuple(count * row for count in rows)
        call.world = size
        call.rank = rank if counts is not None else -1
        call.root = root
        return call

    def all_gather(
        self,
        array: Any,
        size: int,
        rank: int,
        *,
        out: Any = None,
        counts: Sequence[int] | None = None,
        algorithm: str = "auto",
    ) -> LaidOut:
        view, code = view_of(array, "array")
        signature = self.signatures.get(Collective.ALL_GATHER, code, "sum", algorithm)
        return _all_blocks(Given(signature, array, view), out, counts, size, rank)

    def gather(
        self,
        array: Any,
        size: int,
        rank: int,
        root: int,
        is_root: bool,
        *,
        out: Any = None,
        counts: Sequence[int] | None = None,
        algorithm: str = "auto",
    ) -> LaidOut:
        view, code = view_of(array, "array")
        signature = self.signatures.get(Collective.GATHER, code, "sum", algorithm)
        if is_root:
            call = _all_blocks(Given(signature, array, view), out, counts, size, rank)
        else:
            call = LaidOut(signature, packed(view), None, view.size)
            call.blocks = counts is None
            if counts is not None:
                call.counts = _own_rows(view, counts, size, rank)
                call.world, call.rank = size, rank
        call.root = root
        return call

    def all_to_all(
        self,
        array: Any,
        size: int,
        *,
        out: Any = None,
        send_counts: Sequence[int] | None = None,
        receive_counts: Sequence[int] | None = None,
        algorithm: str = "auto",
    ) -> LaidOut:
        view, code = view_of(array, "array")
        signature = self.signatures.get(Collective.ALL_TO_ALL, code, "sum", algorithm)
        if (send_counts is None) != (receive_counts is None):
            raise InvalidArgument("send_counts and receive_counts belong together: pass both")
        if send_counts is None or receive_counts is None:
            _, block = _equal_blocks(view, size)
            call = _into(Given(signature, array, view), out, view.shape, block, 0)
        else:
            row = _row_size(view, "array")
            sent = _rows_of(send_counts, size, "send_counts", view.shape[0])
            received = _rows_of(receive_counts, size, "receive_counts")
            shape = (sum(received), *view.shape[1:])
            call = _into(Given(signature, array, view), out, shape, 0, None)
            call.counts = tuple(count * row for count in sent)
            call.target_counts = tuple(count * row for count in received)
        call.world = size
        return call


# ---- memory ------------------------------------------------------------------------------------


class Given(NamedTuple):
    """What is to be done, and with what: the caller's object, and an array over its memory."""

    signature: Signature
    value: Any
    view: Array


def _same_shape(given: Given, out: Any) -> LaidOut:
    """The result looks like the array, and replaces it unless `out` is given."""
    signature, value, view = given
    if out is None or out is value:
        require_writable(view, "array")
        if is_plain(view):
            return LaidOut(signature, view, view, view.size, result=value)
        copy = packed(view)
        return LaidOut(signature, copy, copy, view.size, result=value, unpack=view)
    return _into(given, out, view.shape, view.size, 0)


def _into(
    given: Given,
    out: Any,
    shape: tuple[int, ...],
    count: int,
    offset_bytes: int | None,
) -> LaidOut:
    """The result has its own shape; it goes to `out`, or to new memory.

    `offset_bytes`: how far behind the source the target may lie in the same memory; None: it may
    not be in the same memory at all.
    """
    signature, value, view = given
    source = packed(view)
    if out is None:
        result = empty_like(value, view, shape)
        return LaidOut(signature, source, view_of(result, "out")[0], count, result=result)
    target_view, code = view_of(out, "out")
    if code != signature.dtype or target_view.shape != shape:
        raise InvalidArgument(
            f"out is {target_view.dtype}{list(target_view.shape)} and the result is "
            f"{view.dtype}{list(shape)}; they must be equal"
        )
    require_writable(target_view, "out", "pass memory that can be written to")
    if is_plain(target_view):
        target, unpack = target_view, None
    else:
        target, unpack = np.empty(shape, target_view.dtype), target_view
    if offset_bytes is not None:
        check_overlap(source, target, offset_bytes)
    elif np.may_share_memory(source, target):
        raise InvalidArgument("out overlaps array; pass separate memory")
    return LaidOut(signature, source, target, count, result=out, unpack=unpack)


def _room(target: Array) -> tuple[Array, int]:
    if not is_plain(target):
        raise InvalidArgument("out is not contiguous", advice="pass contiguous memory")
    return target, target.size


def _one_of_blocks(
    given: Given,
    out: Any,
    counts: Sequence[int] | None,
    size: int,
    rank: int,
) -> LaidOut:
    """The source holds a block for each member, the target this one's."""
    view = given.view
    row = _row_size(view, "array")
    if counts is None:
        rows, block = _equal_blocks(view, size)
        begin = rank * block
        elements = None
    else:
        all_rows = _rows_of(counts, size, "counts", view.shape[0])
        rows, block = all_rows[rank], 0
        begin = sum(all_rows[:rank]) * row
        elements = tuple(count * row for count in all_rows)
    shape = (rows, *view.shape[1:])
    call = _into(given, out, shape, block, begin * view.itemsize)
    call.counts = elements
    call.world = size
    call.rank = rank if elements is not None else -1
    return call


def _all_blocks(
    given: Given,
    out: Any,
    counts: Sequence[int] | None,
    size: int,
    rank: int,
) -> LaidOut:
    """The source is this member's block, the target holds one of each."""
    signature, value, view = given
    if counts is not None:
        elements = _own_rows(view, counts, size, rank)
        shape = (sum(counts), *view.shape[1:])
        begin = sum(elements[:rank]) * view.itemsize
        call = _into(given, out, shape, 0, -begin)
        call.counts = elements
        call.world, call.rank = size, rank
        return call
    if out is None:
        call = LaidOut(signature, packed(view), None, view.size)
        call.like = value
    else:
        begin = rank * view.nbytes
        call = _into(given, out, (size, *view.shape), view.size, -begin)
        call.world = size
    call.blocks = True
    return call


# ---- shapes --------------------------------------------------------------------------------------


def _row_size(view: Array, role: str) -> int:
    """Elements of one entry of the first axis."""
    if view.ndim == 0:
        raise InvalidArgument(f"{role} has no axis; its first axis must hold the blocks")
    size = 1
    for length in view.shape[1:]:
        size *= length
    return size


def _equal_blocks(view: Array, size: int) -> tuple[int, int]:
    """Rows and elements of each of `size` blocks."""
    row = _row_size(view, "array")
    rows, rest = divmod(view.shape[0], size)
    if rest:
        raise InvalidArgument(
            f"array has {view.shape[0]} rows, which {size} members cannot share equally",
            advice="pass counts, or as many rows for each member",
        )
    return rows, rows * row


def _rows_of(counts: Sequence[int], size: int, role: str, total: int | None = None) -> Counts:
    """Checks rows by rank; `total`: what they add up to."""
    try:
        rows = tuple(int(count) for count in counts)
    except (TypeError, ValueError):
        raise InvalidArgument(f"{role} must be a number of rows for each rank") from None
    if len(rows) != size or any(count < 0 for count in rows):
        raise InvalidArgument(
            f"{role} is {_short(rows)}; it must hold {size} numbers of rows, one for each rank"
        )
    if total is not None and sum(rows) != total:
        raise InvalidArgument(f"{role} adds up to {sum(rows)} rows and array has {total}")
    return rows


def _short(rows: Counts) -> str:
    return str(rows) if len(rows) <= 8 else f"({', '.join(map(str, rows[:8]))}, …)"


def _own_rows(view: Array, counts: Sequence[int], size: int, rank: int) -> Counts:
    """Elements of each block, where this member's is the whole array."""
    row = _row_size(view, "array")
    rows = _rows_of(counts, size, "counts")
    if view.shape[0] != rows[rank]:
        raise InvalidArgument(
            f"array has {view.shape[0]} rows and counts[{rank}], this rank's, is {rows[rank]}"
        )
    return tuple(count * row for count in rows)


def _factor(factor: Any, op: str) -> float:
    """Of premul_sum."""
    if op == "premul_sum":
        if isinstance(factor, bool) or not isinstance(factor, (int, float)):
            raise InvalidArgument(f"factor is {factor!r}; premul_sum needs a number")
        return float(factor)
    if factor is not None:
        raise InvalidArgument(f"factor is for premul_sum; op is {op!r}")
    return 0.0
