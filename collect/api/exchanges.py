"""Collectives that move data: all_gather, all_to_all, broadcast, gather, scatter, barrier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, overload

import numpy as np

from collect.api.calls import Calls
from collect.api.ranges import to_be_produced
from collect.api.work import Result, Work
from collect.errors import InvalidArgument


class Exchanges(Calls):
    """The part of a Group that moves data."""

    @overload
    def all_gather(
        self,
        array: Any,
        *,
        out: Any = None,
        counts: Sequence[int] | None = None,
        algorithm: str = "auto",
        async_op: Literal[False] = False,
        timeout: float | None = None,
    ) -> Result: ...

    @overload
    def all_gather(
        self,
        array: Any,
        *,
        out: Any = None,
        counts: Sequence[int] | None = None,
        algorithm: str = "auto",
        async_op: Literal[True],
        produced: bool = False,
        timeout: float | None = None,
    ) -> Work: ...

    def all_gather(
        self,
        array: Any,
        *,
        out: Any = None,
        counts: Sequence[int] | None = None,
        algorithm: str = "auto",
        async_op: bool = False,
        produced: bool = False,
        timeout: float | None = None,
    ) -> Result | Work:
        """Give every member the arrays of all.

        Every member calls this with equal shape, dtype, counts and algorithm; with counts, with
        `counts[rank]` rows.

        Args:
            array: as for `all_reduce`; is only read.
            out: receives the result, of the shape below; `array` may be this rank's block of it,
                and may not overlap it otherwise. Undefined after a failure. None: new memory.
            counts: rows of the first axis for each rank, where they differ.
            algorithm: "auto" or one of those that can do it, which an error names.
            async_op, produced, timeout: as for `all_reduce`.

        Returns a Result (a Work) whose `array` has a new first axis of participants, in rank
        order: (size, *array.shape), with fewer entries when members are lost meanwhile. With
        counts the arrays are joined along their first axis instead: (sum(counts), …).

        Raises as `all_reduce` does, and
            MembersChanged: members were lost and counts were given, or members entered and `out`
                has no room for their blocks.
        """
        size, rank = self._session.place()
        call = self._maker.all_gather(
            array, size, rank, out=out, counts=counts, algorithm=algorithm
        )
        if produced:
            return self._start_produced(to_be_produced(call, array, async_op), timeout)
        return self._do(call, async_op, timeout)  # type: ignore[no-any-return]

    @overload
    def all_to_all(
        self,
        array: Any,
        *,
        out: Any = None,
        send_counts: Sequence[int] | None = None,
        receive_counts: Sequence[int] | None = None,
        algorithm: str = "auto",
        async_op: Literal[False] = False,
        timeout: float | None = None,
    ) -> Result: ...

    @overload
    def all_to_all(
        self,
        array: Any,
        *,
        out: Any = None,
        send_counts: Sequence[int] | None = None,
        receive_counts: Sequence[int] | None = None,
        algorithm: str = "auto",
        async_op: Literal[True],
        timeout: float | None = None,
    ) -> Work: ...

    def all_to_all(
        self,
        array: Any,
        *,
        out: Any = None,
        send_counts: Sequence[int] | None = None,
        receive_counts: Sequence[int] | None = None,
        algorithm: str = "auto",
        async_op: bool = False,
        timeout: float | None = None,
    ) -> Result | Work:
        """Send each member a block of its own, and get one from each.

        Every member calls this with equal dtype, algorithm and, without counts, shape.

        Args:
            array: as for `all_reduce`, with blocks along its first axis: block r goes to rank r.
                Is only read, unless it is also `out`.
            out: receives the result; without counts it may be `array` itself, and may not overlap
                it otherwise. Undefined after a failure. None: new memory.
            send_counts: rows for each rank; None: `size` equal blocks.
            receive_counts: rows from each rank. None with send_counts: they are exchanged first,
                with an operation of their own, before this returns.
            algorithm: "auto" or one of those that can do it, which an error names.
            async_op, timeout: as for `all_reduce`.

        Returns a Result (a Work) whose `array` holds the blocks of all ranks, in their order,
        joined along the first axis: (sum(receive_counts), …), or the shape of `array`.

        Raises as `all_reduce` does, and
            MembersChanged: members were lost or entered, and the blocks were laid out for others.
        """
        size, _ = self._session.place()
        if send_counts is not None and receive_counts is None:
            if self._in_batch():
                raise InvalidArgument("in a batch, send_counts need receive_counts too")
            sent = np.array(self._maker.rows_of(send_counts, size, "send_counts"), np.int64)
            received = self.all_to_all(sent, timeout=timeout).array
            receive_counts = tuple(received.tolist())
        call = self._maker.all_to_all(
            array,
            size,
            out=out,
            send_counts=send_counts,
            receive_counts=receive_counts,
            algorithm=algorithm,
        )
        return self._do(call, async_op, timeout)  # type: ignore[no-any-return]

    @overload
    def broadcast(
        self,
        array: Any,
        root: int | str = 0,
        *,
        out: Any = None,
        algorithm: str = "auto",
        async_op: Literal[False] = False,
        timeout: float | None = None,
    ) -> Result: ...

    @overload
    def broadcast(
        self,
        array: Any,
        root: int | str = 0,
        *,
        out: Any = None,
        algorithm: str = "auto",
        async_op: Literal[True],
        produced: bool = False,
        timeout: float | None = None,
    ) -> Work: ...

    def broadcast(
        self,
        array: Any,
        root: int | str = 0,
        *,
        out: Any = None,
        algorithm: str = "auto",
        async_op: bool = False,
        produced: bool = False,
        timeout: float | None = None,
    ) -> Result | Work:
        """Give every member the root's array.

        Every member calls this with equal shape, dtype, root and algorithm.

        Args:
            array: as for `all_reduce`; of the root it is sent, elsewhere replaced by the root's
                unless `out` is given.
            root: a rank of the current view or a member's name.
            out: receives the root's array; shape and dtype of `array`. Undefined after a failure.
            algorithm: "auto" or one of those that can do it, which an error names.
            async_op, timeout: as for `all_reduce`.
            produced: as for `all_reduce`; elsewhere than at the root there is nothing to mark.

        Raises as `all_reduce` does, and
            MembersChanged: the root was lost before anybody had its array.
        """
        session = self._session
        member = session.root_of(root)
        call = self._maker.broadcast(array, member, out=out, algorithm=algorithm)
        if produced:
            is_root = member == session.control.self_id
            made = to_be_produced(call, array, async_op, is_giver=is_root)
            return self._start_produced(made, timeout)
        return self._do(call, async_op, timeout)  # type: ignore[no-any-return]

    @overload
    def gather(
        self,
        array: Any,
        root: int | str = 0,
        *,
        out: Any = None,
        counts: Sequence[int] | None = None,
        algorithm: str = "auto",
        async_op: Literal[False] = False,
        timeout: float | None = None,
    ) -> Result: ...

    @overload
    def gather(
        self,
        array: Any,
        root: int | str = 0,
        *,
        out: Any = None,
        counts: Sequence[int] | None = None,
        algorithm: str = "auto",
        async_op: Literal[True],
        timeout: float | None = None,
    ) -> Work: ...

    def gather(
        self,
        array: Any,
        root: int | str = 0,
        *,
        out: Any = None,
        counts: Sequence[int] | None = None,
        algorithm: str = "auto",
        async_op: bool = False,
        timeout: float | None = None,
    ) -> Result | Work:
        """Give the root the arrays of all.

        Every member calls this with equal shape, dtype, root, counts and algorithm; with counts,
        with `counts[rank]` rows.

        Args:
            array: as for `all_reduce`; is only read.
            root: a rank of the current view or a member's name.
            out: at the root, receives the result, as for `all_gather`.
            counts: rows of the first axis for each rank, where they differ.
            algorithm: "auto" or one of those that can do it, which an error names.
            async_op, timeout: as for `all_reduce`.

        Returns a Result (a Work) whose `array` is as that of `all_gather` at the root, and None
        elsewhere.

        Raises as `all_gather` does, and
            MembersChanged: the root was lost.
        """
        session = self._session
        size, rank = session.place()
        member = session.root_of(root)
        is_root = member == session.control.self_id
        call = self._maker.gather(
            array, size, rank, member, is_root, out=out, counts=counts, algorithm=algorithm
        )
        return self._do(call, async_op, timeout)  # type: ignore[no-any-return]

    @overload
    def scatter(
        self,
        array: Any,
        root: int | str = 0,
        *,
        out: Any = None,
        counts: Sequence[int] | None = None,
        algorithm: str = "auto",
        async_op: Literal[False] = False,
        timeout: float | None = None,
    ) -> Result: ...

    @overload
    def scatter(
        self,
        array: Any,
        root: int | str = 0,
        *,
        out: Any = None,
        counts: Sequence[int] | None = None,
        algorithm: str = "auto",
        async_op: Literal[True],
        timeout: float | None = None,
    ) -> Work: ...

    def scatter(
        self,
        array: Any,
        root: int | str = 0,
        *,
        out: Any = None,
        counts: Sequence[int] | None = None,
        algorithm: str = "auto",
        async_op: bool = False,
        timeout: float | None = None,
    ) -> Result | Work:
        """Give each member the block of its rank of the root's array.

        Every member calls this with equal block shapes, dtype, root, counts and algorithm.

        Args:
            array: at the root, as for `all_reduce` with `size` equal blocks along its first axis;
                is only read. None elsewhere.
            root: a rank of the current view or a member's name.
            out: receives this rank's block; needed but at the root. Undefined after a failure.
            counts: rows of the first axis for each rank, where they differ.
            algorithm: "auto" or one of those that can do it, which an error names.
            async_op, timeout: as for `all_reduce`.

        Raises as `all_reduce` does, and
            MembersChanged: members were lost or entered, and the blocks were laid out for others.
        """
        session = self._session
        size, rank = session.place()
        member = session.root_of(root)
        is_root = member == session.control.self_id
        call = self._maker.scatter(
            array, size, rank, member, is_root, out=out, counts=counts, algorithm=algorithm
        )
        return self._do(call, async_op, timeout)  # type: ignore[no-any-return]

    @overload
    def barrier(
        self, timeout: float | None = None, *, async_op: Literal[False] = False
    ) -> Result: ...

    @overload
    def barrier(self, timeout: float | None = None, *, async_op: Literal[True]) -> Work: ...

    def barrier(self, timeout: float | None = None, *, async_op: bool = False) -> Result | Work:
        """Returns when every member has called it. Raises as `all_reduce` does."""
        return self._do(self._maker.barrier(), async_op, timeout)  # type: ignore[no-any-return]
