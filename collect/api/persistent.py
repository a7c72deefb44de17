"""Operations that are set up once and run over and over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from collect.api.calls import Calls
from collect.api.work import Result, seconds
from collect.errors import InvalidArgument
from collect.native import status
from collect.native.buffer import is_plain, view_of
from collect.native.call import LaidOut
from collect.session.operations import Session
from collect.session.prepared import PreparedCall


class Persistent(PreparedCall):
    """One call of a collective, set up by `all_reduce_init` and so on, to be run many times.

    `op()` runs it and waits, and returns the array with the result; `op.start()`, `op.done()` and
    `op.wait()` do so step by step. Every member runs it at the same places of its program, like
    any other call. It works on the same memory each time, for as long as the group lives. It is
    the fastest way to call, and meant for loops. One thread at a time.

    A run raises what the call it was made for raises. One whose blocks were laid out for other
    members than there are now raises MembersChanged: set it up anew then.
    """

    def __init__(self, session: Session, call: LaidOut, timeout: float | None) -> None:
        limit_s = seconds(timeout, "timeout")
        if call.unpack is not None:
            raise InvalidArgument(
                "memory that is not contiguous would be packed at each run",
                advice="pass contiguous arrays",
            )
        super().__init__(session, call, limit_s)

    @property
    def result(self) -> Result:
        """Of the last run; raises InvalidArgument while it is under way, and before the first."""
        prepared = self._prepared
        info = prepared.info
        if prepared.poll() != status.OK or info.op == 0:
            raise InvalidArgument("there is no result", advice="run the operation first")
        array = self._call.finish(info.participants)
        return Result(array, prepared, self._session, info)

    def wait(self, timeout: float | None = None) -> Any:
        """Waits for what `start` began, and returns the array with the result.

        Args:
            timeout: seconds to wait here; None waits as long as the operation may take.
        """
        return super().wait(seconds(timeout, "timeout"))


class Preparations(Calls):
    """The part of a Group that sets operations up. Arrays must be contiguous."""

    def all_reduce_init(
        self,
        array: Any,
        op: str = "sum",
        *,
        out: Any = None,
        factor: float | None = None,
        algorithm: str = "auto",
        timeout: float | None = None,
    ) -> Persistent:
        """Set up an `all_reduce`, whose arguments these are; `array` is read at each run."""
        call = self._maker.all_reduce(array, op, out=out, algorithm=algorithm, factor=factor)
        return self._persistent(call, timeout, array)

    def reduce_scatter_init(
        self,
        array: Any,
        op: str = "sum",
        *,
        out: Any = None,
        counts: Sequence[int] | None = None,
        factor: float | None = None,
        algorithm: str = "auto",
        timeout: float | None = None,
    ) -> Persistent:
        """Set up a `reduce_scatter`, whose arguments these are."""
        size, rank = self._session.place()
        call = self._maker.reduce_scatter(
            array, op, size, rank, out=out, counts=counts, algorithm=algorithm, factor=factor
        )
        return self._persistent(call, timeout, array)

    def all_gather_init(
        self,
        array: Any,
        *,
        out: Any = None,
        counts: Sequence[int] | None = None,
        algorithm: str = "auto",
        timeout: float | None = None,
    ) -> Persistent:
        """Set up an `all_gather`, whose arguments these are."""
        size, rank = self._session.place()
        call = self._maker.all_gather(
            array, size, rank, out=out, counts=counts, algorithm=algorithm
        )
        return self._persistent(call, timeout, array)

    def all_to_all_init(
        self,
        array: Any,
        *,
        out: Any = None,
        send_counts: Sequence[int] | None = None,
        receive_counts: Sequence[int] | None = None,
        algorithm: str = "auto",
        timeout: float | None = None,
    ) -> Persistent:
        """Set up an `all_to_all`, whose arguments these are; with counts, with both."""
        size, _ = self._session.place()
        call = self._maker.all_to_all(
            array,
            size,
            out=out,
            send_counts=send_counts,
            receive_counts=receive_counts,
            algorithm=algorithm,
        )
        return self._persistent(call, timeout, array)

    def broadcast_init(
        self,
        array: Any,
        root: int | str = 0,
        *,
        out: Any = None,
        algorithm: str = "auto",
        timeout: float | None = None,
    ) -> Persistent:
        """Set up a `broadcast`, whose arguments these are; the root stays who it is now."""
        call = self._maker.broadcast(
            array, self._session.root_of(root), out=out, algorithm=algorithm
        )
        return self._persistent(call, timeout, array)

    def reduce_init(
        self,
        array: Any,
        op: str = "sum",
        root: int | str = 0,
        *,
        out: Any = None,
        factor: float | None = None,
        algorithm: str = "auto",
        timeout: float | None = None,
    ) -> Persistent:
        """Set up a `reduce`, whose arguments these are; the root stays who it is now."""
        session = self._session
        member = session.root_of(root)
        is_root = member == session.control.self_id
        call = self._maker.reduce(
            array, op, member, is_root, out=out, algorithm=algorithm, factor=factor
        )
        return self._persistent(call, timeout, array)

    def _persistent(self, call: LaidOut, timeout: float | None, array: Any) -> Persistent:
        if not is_plain(view_of(array, "array")[0]):
            raise InvalidArgument(
                "array is not contiguous, and would be packed at each run",
                advice="pass contiguous arrays",
            )
        return Persistent(self._session, call, timeout)
