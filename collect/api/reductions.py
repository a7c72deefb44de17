"""Collectives that reduce: all_reduce, reduce_scatter, reduce."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, overload

import numpy as np
from numpy import ndarray

from collect.api.calls import Calls
from collect.api.ranges import to_be_produced
from collect.api.work import Result, Work, seconds
from collect.errors import InvalidArgument
from collect.native.buffer import divide, empty_like, is_plain, view_of
from collect.native.call import Call
from collect.native.codes import (
    DTYPE_CODES,
    DTYPE_NAMES,
    OPS_OF_DTYPE,
    PREMUL_SUM,
)
from collect.session.history import History


class Reductions(Calls):
    """The part of a Group that reduces."""

    @overload
    def all_reduce(
        self,
        array: Any,
        op: str = "sum",
        *,
        out: Any = None,
        weight: float | None = None,
        factor: float | None = None,
        algorithm: str = "auto",
        async_op: Literal[False] = False,
        timeout: float | None = None,
    ) -> Result: ...

    @overload
    def all_reduce(
        self,
        array: Any,
        op: str = "sum",
        *,
        out: Any = None,
        weight: float | None = None,
        factor: float | None = None,
        algorithm: str = "auto",
        async_op: Literal[True],
        produced: bool = False,
        timeout: float | None = None,
    ) -> Work: ...

    def all_reduce(
        self,
        array: Any,
        op: str = "sum",
        *,
        out: Any = None,
        weight: float | None = None,
        factor: float | None = None,
        algorithm: str = "auto",
        async_op: bool = False,
        produced: bool = False,
        timeout: float | None = None,
    ) -> Result | Work:
        """Reduce `array` over all members, element by element; every member gets the same bytes.

        Every member calls this with equal shape, dtype, op and algorithm. With the algorithms that
        add in rank order ("direct", "star", "exchange"), the bits depend on nothing but the
        contributions.

        Args:
            array: NumPy array, CPU tensor (DLPack) or buffer of int8 to int64, uint8 to uint64,
                bool, float16, bfloat16, float32, float64, complex64 or complex128; any shape, zero
                elements too. Replaced by the result unless `out` is given. Memory that is not
                contiguous is packed and unpacked.
            op: "sum", "avg" (the sum divided by the participants; integers truncate), "prod",
                "min" or "max" (a NaN anywhere gives a NaN), "and", "or", "xor" (integers and
                bools), "premul_sum" (the sum of factor * array; floats and complexes).
            out: receives the result; shape and dtype of `array`, no overlap with it in part. Its
                contents are undefined after a failure.
            weight: with op="avg" of floats or complexes: this member's weight w in
                sum(w * array) / sum(w); NaN where the weights add up to 0. Takes two operations,
                so neither `async_op` nor a batch can be used with it.
            factor: this member's, of "premul_sum"; may differ from the others'.
            algorithm: "auto" (the group's choice), "direct", "ring", "star", "exchange", "tree",
                "circulant", "recursive_doubling", "hierarchical", or a plan of your own that was
                registered (`register`).
            async_op: return at once with a Work. The arrays are lent to the group until then.
            produced: the array is written from here on, and marked bit by bit with
                `Work.produced`; what is marked is sent. With async_op, of contiguous memory. A
                matter of this member alone. The time until all is marked counts for `timeout`.
            timeout: seconds until the operation fails on every member; None: 60 `timeout`s of the
                group.

        Raises (all but InvalidArgument alike on every member; `array` is unchanged):
            InvalidArgument: an argument is not as above. Nothing was done.
            Mismatch: members called different operations; names who called what.
            Timeout: a member did not call in time.
            Aborted: a member called `abort`.
            PeerLost: members are lost and the coordinator is too.
            Fenced: the others went on without this peer. Here only.
            Closed: this peer left. Here only.
        """
        if (
            type(array) is ndarray
            and weight is None
            and factor is None
            and timeout is None
            and not async_op
            and self._batch is None
        ):
            try:
                plain = self._plain[array.dtype, op, algorithm]
            except (KeyError, TypeError):
                pass
            else:
                target = array if out is None else out
                if target is array or type(target) is ndarray:
                    operation = plain.run(array, target)
                    if operation is not None:
                        return Result(target, operation, self._session)
        if weight is not None:
            self._require_blocking(async_op or produced, "a weighted average")
            if op != "avg" or factor is not None:
                raise InvalidArgument(f"weight is for op='avg' without a factor; op is {op!r}")
            limit_s = seconds(timeout, "timeout")
            return self._weighted(array, weight, out, algorithm, limit_s)
        if produced:
            made = self._maker.all_reduce(array, op, out=out, algorithm=algorithm, factor=factor)
            return self._start_produced(to_be_produced(made, array, async_op), timeout)
        call = self._all_reduce_call(array, op, out, factor, algorithm)
        return self._do(call, async_op, timeout)  # type: ignore[no-any-return]

    def _all_reduce_call(
        self, array: Any, op: str, out: Any, factor: float | None, algorithm: str
    ) -> Call:
        """The way for contiguous arrays is short; all else is checked step by step."""
        is_plain_array = type(array) is ndarray and factor is None
        if is_plain_array:
            try:
                signature = self._plain[array.dtype, op, algorithm].signature
            except (KeyError, TypeError):
                pass
            else:
                if out is None and array.flags.carray:
                    return Call(signature, array, array, array.size, array)
                if (
                    type(out) is ndarray
                    and out.flags.carray
                    and is_plain(array)
                    and out.dtype == array.dtype
                    and out.shape == array.shape
                    and not np.may_share_memory(array, out)
                ):
                    return Call(signature, array, out, array.size, out)
        call = self._maker.all_reduce(array, op, out=out, algorithm=algorithm, factor=factor)
        if is_plain_array and array.dtype in DTYPE_CODES and op != PREMUL_SUM:
            made = self._session.plain_calls(call.signature)
            self._plain.setdefault((array.dtype, op, algorithm), made)
        return call

    def _weighted(
        self, array: Any, weight: float, out: Any, algorithm: str, limit_s: float | None
    ) -> Result:
        """Two operations, repeated until both have the same participants: that is the same on all
        members, because results name the same participants everywhere."""
        view, code = view_of(array, "array")
        if PREMUL_SUM not in OPS_OF_DTYPE[code]:
            raise InvalidArgument(
                f"weighted averages are of floats and complexes; array is {DTYPE_NAMES[code]}"
            )
        # What the result goes to is checked before anything is sent.
        target = self._maker.all_reduce(array, "avg", out=out, algorithm=algorithm)
        sums = empty_like(array, view, view.shape)
        session = self._session
        while True:
            total = np.array([weight], np.float64)
            calls = (
                self._maker.all_reduce(
                    array, PREMUL_SUM, out=sums, algorithm=algorithm, factor=weight
                ),
                self._maker.all_reduce(total, "sum"),
            )
            operations = [session.submit(call, limit_s) for call in calls]
            for operation in operations:
                session.wait(operation)
            first, second = (operation.info.attempt for operation in operations)
            if first == second or _are_equal(session.control.history, first, second):
                break
        assert target.target is not None
        divide(view_of(sums, "sums")[0], code, float(total[0]), target.target)
        return Result(target.finish(0), operations[0], session)

    @overload
    def reduce_scatter(
        self,
        array: Any,
        op: str = "sum",
        *,
        out: Any = None,
        counts: Sequence[int] | None = None,
        factor: float | None = None,
        algorithm: str = "auto",
        async_op: Literal[False] = False,
        timeout: float | None = None,
    ) -> Result: ...

    @overload
    def reduce_scatter(
        self,
        array: Any,
        op: str = "sum",
        *,
        out: Any = None,
        counts: Sequence[int] | None = None,
        factor: float | None = None,
        algorithm: str = "auto",
        async_op: Literal[True],
        produced: bool = False,
        timeout: float | None = None,
    ) -> Work: ...

    def reduce_scatter(
        self,
        array: Any,
        op: str = "sum",
        *,
        out: Any = None,
        counts: Sequence[int] | None = None,
        factor: float | None = None,
        algorithm: str = "auto",
        async_op: bool = False,
        produced: bool = False,
        timeout: float | None = None,
    ) -> Result | Work:
        """Reduce blocks over all members; each member gets the block of its rank.

        Every member calls this with equal shape, dtype, op, counts and algorithm.

        Args:
            array: as for `all_reduce`, with `size` equal blocks along its first axis; is only read.
            op, factor, async_op, produced, timeout: as for `all_reduce`.
            out: receives this rank's block; may be that block of `array` itself, and may not
                overlap it otherwise. Undefined after a failure. None: new memory.
            counts: rows of the first axis for each rank, where they differ.
            algorithm: "auto" or one of those that can do it, which an error names.

        Returns a Result (a Work) whose `array` has the shape of this rank's block: the first axis
        is divided by `size`, or is `counts[rank]`.

        Raises as `all_reduce` does, and
            MembersChanged: members were lost or entered, and the blocks were laid out for others.
        """
        size, rank = self._session.place()
        call = self._maker.reduce_scatter(
            array, op, size, rank, out=out, counts=counts, algorithm=algorithm, factor=factor
        )
        if produced:
            return self._start_produced(to_be_produced(call, array, async_op), timeout)
        return self._do(call, async_op, timeout)  # type: ignore[no-any-return]

    @overload
    def reduce(
        self,
        array: Any,
        op: str = "sum",
        root: int | str = 0,
        *,
        out: Any = None,
        factor: float | None = None,
        algorithm: str = "auto",
        async_op: Literal[False] = False,
        timeout: float | None = None,
    ) -> Result: ...

    @overload
    def reduce(
        self,
        array: Any,
        op: str = "sum",
        root: int | str = 0,
        *,
        out: Any = None,
        factor: float | None = None,
        algorithm: str = "auto",
        async_op: Literal[True],
        timeout: float | None = None,
    ) -> Work: ...

    def reduce(
        self,
        array: Any,
        op: str = "sum",
        root: int | str = 0,
        *,
        out: Any = None,
        factor: float | None = None,
        algorithm: str = "auto",
        async_op: bool = False,
        timeout: float | None = None,
    ) -> Result | Work:
        """Reduce `array` over all members, element by element; the root gets the result.

        Every member calls this with equal shape, dtype, op, root and algorithm.

        Args:
            array: as for `all_reduce`; replaced by the result at the root unless `out` is given,
                only read elsewhere.
            op, factor, async_op, timeout: as for `all_reduce`.
            root: a rank of the current view or a member's name.
            out: at the root, receives the result. Undefined after a failure.
            algorithm: "auto" or one of those that can do it, which an error names.

        Returns a Result (a Work) whose `array` is the reduced one at the root, None elsewhere.

        Raises as `all_reduce` does, and
            MembersChanged: the root was lost.
        """
        session = self._session
        member = session.root_of(root)
        is_root = member == session.control.self_id
        call = self._maker.reduce(
            array, op, member, is_root, out=out, algorithm=algorithm, factor=factor
        )
        return self._do(call, async_op, timeout)  # type: ignore[no-any-return]


def _are_equal(history: History, first: int, second: int) -> bool:
    """Two epochs have the same members: one was lost and another let in, say, at no operation."""
    return history.of(first).incarnations == history.of(second).incarnations
