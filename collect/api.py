"""What a training loop uses: `join`, `Group`, `Work`, `Result`.

    with collect.join("10.0.0.1:5555", min_peers=4) as group:
        result = group.all_reduce(gradients, "avg")

Members make the same calls in the same order. When one dies, the others' calls complete without it;
a result names who took part. docs/failure-model.md says what is promised.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, overload

import numpy as np

from collect import config as configuration
from collect.config import Config, parse_address
from collect.errors import CollectError, InvalidArgument
from collect.native import status
from collect.native.buffer import Operand, prepare, reduce_code
from collect.native.communicator import Operation
from collect.net.coordinator import CoordinatorService
from collect.session.events import MembershipEvent
from collect.session.operations import Outcome, Session
from collect.session.state import Role, State, synchronise
from collect.types import epoch_number, op_name

_TIMEOUT_S_MAX = 7 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class PeerInfo:
    """A member of the current epoch. `addresses`: where its data port may be reached."""

    name: str
    rank: int
    incarnation: int
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """A completed operation.

    Attributes:
        array: what was passed as `out`, else as `array`; holds the result. None for a barrier.
        op: its name, "5.3": the third since the switch of epoch 5. Equal on every member.
        epoch: user number of the epoch in which it completed.
        participants: names of those whose contributions it holds, in rank order.
        attempts: how often it was started here; more than 1 when a member was lost meanwhile.
        duration_s: seconds from the call to the completion here.
        submitted_ns, completed_ns: the same moments, of time.monotonic_ns().
    """

    array: Any
    op: str
    epoch: int
    participants: tuple[str, ...]
    attempts: int
    duration_s: float
    submitted_ns: int
    completed_ns: int


@dataclass(frozen=True, slots=True)
class Admission:
    """What an `admit` did.

    Attributes:
        joined: names of the members that entered since the last `admit`.
        received: whether this peer's arrays were overwritten with the group's state.
    """

    joined: tuple[str, ...]
    received: bool


class Work:
    """An operation under way; made by `all_reduce(…, async_op=True)`.

    The arrays belong to the group until it is done. A Work that is dropped goes on all the same.
    """

    def __init__(self, session: Session, operation: Operation) -> None:
        self._session = session
        self._operation = operation
        self._lock = threading.Lock()
        self._result: Result | None = None
        self._error: CollectError | None = None

    def done(self) -> bool:
        """Whether it has completed or failed. Never blocks."""
        if self._operation.poll() == status.PENDING:
            return False
        self._settle()
        return True

    def wait(self, timeout: float | None = None) -> Result:
        """Blocks until it has completed.

        Args:
            timeout: seconds to wait here; None waits as long as the operation may take.

        Raises:
            Timeout: also when only this wait was too short; then the operation goes on.
            OperationFailed, MembershipLost: why it failed; the arrays are unchanged.
        """
        if self._result is None and self._error is None:
            if self._operation.poll() == status.PENDING:
                self._wait(timeout)
            self._settle()
        if self._error is not None:
            raise self._error.again()
        assert self._result is not None
        return self._result

    @property
    def result(self) -> Result:
        """The result; raises why it failed, or InvalidArgument while it is under way."""
        if not self.done():
            raise InvalidArgument("the operation is not complete", advice="call wait()")
        return self.wait()

    def _wait(self, timeout: float | None) -> None:
        limit_s = _seconds(timeout, "timeout")
        try:
            self._session.wait(self._operation, limit_s)
        except CollectError:
            if self._operation.poll() == status.PENDING:
                raise  # only this wait is over

    def _settle(self) -> None:
        """Once, when the operation is complete: unpacks its result, or keeps its error."""
        with self._lock:
            if self._result is not None or self._error is not None:
                return
            try:
                outcome = self._session.outcome(self._operation)
            except CollectError as error:
                self._error = error
            else:
                self._result = _make_result(self._operation.operand, outcome)


class Group:
    """This process's membership in a group; made by `join`. A context manager: leaves at the end.

    Any thread may call anything. Operations of several threads must be in the same order on every
    member, so two threads either use two groups or take turns in an order of their own.
    """

    def __init__(self, session: Session, coordinator: CoordinatorService | None) -> None:
        self._session = session
        self._coordinator = coordinator
        self._leaving = threading.Lock()
        self._is_gone = False

    def __enter__(self) -> Group:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._leave(is_orderly=kind is None)

    def __repr__(self) -> str:
        config = self._session.config
        state = "left" if self._is_gone else f"rank {self.rank} of {self.size}, epoch {self.epoch}"
        return f"<collect.Group {config.group!r}: {config.name!r}, {state}>"

    # ---- who is in -----------------------------------------------------------------------

    @property
    def rank(self) -> int:
        """This member's index in the current epoch."""
        return self._session.view.rank_of(self._session.control.self_id)

    @property
    def size(self) -> int:
        """How many members the current epoch has."""
        return len(self._session.view.members)

    @property
    def epoch(self) -> int:
        """User number of the current epoch; grows with every change of the members."""
        return self._session.epoch

    @property
    def peers(self) -> tuple[PeerInfo, ...]:
        """The members of the current epoch, in rank order, this one among them."""
        return tuple(
            PeerInfo(member.name, rank, member.incarnation, member.addresses)
            for rank, member in enumerate(self._session.view.members)
        )

    @property
    def name(self) -> str:
        """This peer's name."""
        return self._session.config.name

    @property
    def address(self) -> str:
        """Where the coordinator listens: what other peers join."""
        return str(self._session.control.address)

    @property
    def admit_mode(self) -> str:
        """ "auto" or "manual"; see `join`."""
        return self._session.config.admit.value

    # ---- operations ----------------------------------------------------------------------

    @overload
    def all_reduce(
        self,
        array: Any,
        op: str = "sum",
        *,
        out: Any = None,
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
        async_op: Literal[True],
        timeout: float | None = None,
    ) -> Work: ...

    def all_reduce(
        self,
        array: Any,
        op: str = "sum",
        *,
        out: Any = None,
        async_op: bool = False,
        timeout: float | None = None,
    ) -> Result | Work:
        """Reduce `array` over all members, element by element; every member gets the same bytes.

        Every member calls this with equal shape, dtype and op. Contributions are added in rank
        order, so the bits depend on nothing but the contributions.

        Args:
            array: NumPy array, CPU tensor (DLPack) or buffer of int32, int64, float32 or float64,
                any shape, zero elements too. Replaced by the result unless `out` is given.
                Memory that is not contiguous is packed and unpacked.
            op: "sum", "avg" (the sum divided by the participants; integers truncate), "min" or
                "max" (a NaN anywhere gives a NaN).
            out: receives the result; shape and dtype of `array`, no overlap with it in part.
            async_op: return at once with a Work. The arrays are lent to the group until then.
            timeout: seconds until the operation fails on every member; None: 60 `timeout`s of the
                group.

        Raises (all but InvalidArgument alike on every member; the arrays are unchanged):
            InvalidArgument: an argument is not as above. Nothing was done.
            Mismatch: members called different operations; names who called what.
            Timeout: a member did not call in time.
            Aborted: a member called `abort`.
            PeerLost: members are lost and the coordinator is too.
            Fenced: the others went on without this peer. Here only.
            Closed: this peer left. Here only.
        """
        limit_s = _seconds(timeout, "timeout")
        operation = self._session.submit(
            prepare(array, out), reduce_code(op), limit_s, is_internal=False
        )
        if async_op:
            return Work(self._session, operation)
        outcome = self._session.wait(operation)
        return _make_result(operation.operand, outcome)

    def barrier(self, timeout: float | None = None) -> Result:
        """Returns when every member has called it. Raises as `all_reduce` does."""
        limit_s = _seconds(timeout, "timeout")
        operand = prepare(np.zeros(0, np.int32))
        operation = self._session.submit(operand, reduce_code("max"), limit_s, is_internal=False)
        outcome = self._session.wait(operation)
        operand.result = None
        return _make_result(operand, outcome)

    def admit(self, state: Mapping[str, Any] | None = None) -> Admission:
        """Let newcomers in here, and bring them in step.

        With admit="manual" this is the only place where newcomers enter, and every member calls it
        at the same point of its loop. When nobody waits to enter it costs no message. When somebody
        does, the members' `state` is copied into the newcomers' arrays; the founders of a group
        that differ get the state of rank 0.

        Args:
            state: arrays by name; equal names, dtypes and shapes on every peer. A newcomer's are
                overwritten; a member's are read, and must hold the same bytes on every member.
                None on every peer: only let newcomers in.

        Raises:
            StateMismatch: layouts differ, members' bytes differ, or everybody who held the state is
                gone. On every member; no array was changed.
            Others as `all_reduce`. The next `admit` brings the newcomers in step again.
        """
        arrays = State(state)
        session = self._session
        with session.admitting():
            if not session.admitted:
                return Admission((), False)
            joined = tuple(session.name_of(each) for each in session.admitted)
            role = Role(session.control.self_id, session.is_newcomer, session.is_founding)
            return Admission(joined, synchronise(arrays, role, self._maximise))

    def abort(self) -> None:
        """End every operation under way, on all members: they raise Aborted. Does not block."""
        self._session.abort()

    def _maximise(self, array: Any) -> tuple[int, ...]:
        """A step of `admit`."""
        operation = self._session.submit(prepare(array), reduce_code("max"), None, is_internal=True)
        return self._session.wait(operation).participants

    def _kill_at(self, frame: int, op_index: int = 0) -> None:
        """Fail-point for tests: SIGKILLs this process when it has sent `frame` frames of an op.

        `op_index` is the core's number of the operation; 0: the next one submitted.
        """
        self._session.kill_at(op_index, frame)

    # ---- membership ----------------------------------------------------------------------

    def events(self, timeout: float = 0.0) -> list[MembershipEvent]:
        """What happened since the last call, oldest first.

        Args:
            timeout: seconds to wait for the first event when there is none.
        """
        return self._session.control.events.take(_seconds(timeout, "timeout") or 0.0)

    def leave(self) -> None:
        """Leave in order: complete what is under way, tell the others, free everything.

        The others go on without an error. Idempotent. With an embedded coordinator, this ends it.
        """
        self._leave(is_orderly=True)

    def _leave(self, *, is_orderly: bool) -> None:
        with self._leaving:
            if self._is_gone:
                return
            try:
                self._session.leave(is_orderly=is_orderly)
            finally:
                self._is_gone = True
                if self._coordinator is not None:
                    self._coordinator.stop()


def join(
    address: str | None = None,
    *,
    group: str | None = None,
    name: str | None = None,
    min_peers: int | None = None,
    timeout: float | None = None,
    join_timeout: float | None = None,
    admit: str | None = None,
    interface: str | None = None,
    advertise: str | tuple[str, ...] | list[str] | None = None,
    port: int | None = None,
    streams: int | None = None,
    chunk_bytes: int | None = None,
    window_bytes: int | None = None,
    algorithm: str | None = None,
) -> Group:
    """Become a member of a group; blocks until it is so.

    What is not given is taken from the environment (COLLECT_ADDRESS, COLLECT_TIMEOUT and so on: the
    argument's name in upper case), else the default in brackets holds.

    Args:
        address: the coordinator's, "host:port" or "[ipv6]:port". Without one, this process runs a
            coordinator of its own; `group.address` tells where.
        group: its name; one coordinator serves many ["default"].
        name: this peer's, for people [host name and process id].
        min_peers: the first view waits for so many peers [1].
        timeout: seconds without a sign of life after which a peer is given up [5.0]. The one
            liveness knob; everything else follows from it. The coordinator's holds for the group.
        join_timeout: seconds until this call gives up [60.0].
        admit: "auto": newcomers may enter before any operation. "manual": only at `Group.admit`.
            Equal on every peer ["auto"].
        interface: advertise only the addresses of this interface, by name or address [all].
        advertise: advertise these addresses instead, without ports [this host's].
        port: of the data listener [any].
        streams: TCP connections per pair of peers, 1 to 16 [1].
        chunk_bytes: payload of a frame, a multiple of 64 [256 KiB].
        window_bytes: what a peer may be ahead of its receiver [8 MiB].
        algorithm: "direct", "ring" or "star"; equal on every peer ["direct"].

    Raises:
        InvalidArgument: a setting is malformed; names it, and what is allowed.
        CoordinatorUnreachable: nobody answers at `address`.
        JoinRefused: the coordinator said no, and why.
        JoinFailed: not let in within `join_timeout`.
    """
    given = dict(locals())
    config = configuration.load(given)
    if config.address is not None:
        return _open(config, str(config.address), None)
    service = CoordinatorService("127.0.0.1:0", timeout=config.timeout)
    service.start()
    try:
        return _open(config, service.address, service)
    except BaseException:
        service.stop()
        raise


def _open(config: Config, address: str, service: CoordinatorService | None) -> Group:
    session = Session(config, parse_address(address))
    session.open()
    return Group(session, service)


def _make_result(operand: Operand, outcome: Outcome) -> Result:
    info = outcome.info
    return Result(
        array=operand.finish(),
        op=op_name(info.op),
        epoch=epoch_number(info.attempt),
        participants=outcome.names,
        attempts=info.attempts,
        duration_s=(info.completed_ns - info.submitted_ns) / 1e9,
        submitted_ns=info.submitted_ns,
        completed_ns=info.completed_ns,
    )


def _seconds(value: float | None, role: str) -> float | None:
    """Checks a time that a caller passed."""
    if value is None:
        return None
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= _TIMEOUT_S_MAX:
        raise InvalidArgument(f"{role} is {value!r}; it must be a number of seconds, 0 or more")
    return float(value)
