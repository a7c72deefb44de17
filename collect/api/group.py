"""`join` and `Group`: membership, and the calls of the other modules of this folder."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from collect import config as configuration
from collect.api.messages import Messages
from collect.api.persistent import Preparations
from collect.api.plans import Plans
from collect.api.reductions import Reductions
from collect.api.subgroup import Splits
from collect.api.work import seconds
from collect.config import Config, parse_address
from collect.net.coordinator import CoordinatorService
from collect.session.events import MembershipEvent
from collect.session.operations import Session
from collect.session.state import Role, State, synchronise


@dataclass(frozen=True, slots=True)
class PeerInfo:
    """A member of the current epoch. `addresses`: where its data port may be reached."""

    name: str
    rank: int
    incarnation: int
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Admission:
    """What an `admit` did.

    Attributes:
        joined: names of the members that entered since the last `admit`.
        received: whether this peer's arrays were overwritten with the group's state.
    """

    joined: tuple[str, ...]
    received: bool


class Group(Reductions, Preparations, Messages, Splits, Plans):
    """This process's membership in a group; made by `join`. A context manager: leaves at the end.

    Any thread may call anything. Operations of several threads must be in the same order on every
    member, so two threads either use two groups or take turns in an order of their own.
    """

    def __init__(self, session: Session, coordinator: CoordinatorService | None) -> None:
        super().__init__(session)
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

    # ---- operations, besides the collectives ---------------------------------------------

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
        """End every operation under way, on all members: they raise Aborted. Does not block. Those
        of sub-groups go on.

        This member's messages end too, here; see `Transfer.cancel`.
        """
        self._session.abort()

    def _maximise(self, array: Any) -> tuple[int, ...]:
        """A step of `admit`."""
        session = self._session
        operation = session.submit(self._maker.all_reduce(array, "max"), is_internal=True)
        session.wait(operation)
        return session.outcome(operation).participants.incarnations

    def _kill_at(self, frame: int, op_index: int = 0) -> None:
        """Fail-point for tests: SIGKILLs this process when it has sent `frame` frames of an op.

        `op_index` is the core's number of the operation; 0: the next one submitted; PIECES: pieces
        of messages count instead, sent or received.
        """
        self._session.kill_at(op_index, frame)

    # ---- membership ----------------------------------------------------------------------

    def events(self, timeout: float = 0.0) -> list[MembershipEvent]:
        """What happened since the last call, oldest first.

        Args:
            timeout: seconds to wait for the first event when there is none.
        """
        return self._session.control.events.take(seconds(timeout, "timeout") or 0.0)

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
    streams: int | str | None = None,
    chunk_bytes: int | None = None,
    window_bytes: int | None = None,
    algorithm: str | None = None,
    transport: str | None = None,
    commit_bytes: int | None = None,
    bandwidth: str | int | None = None,
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
        streams: TCP connections per pair of peers, 1 to 16; or "auto": one, and on long busy paths
            that lose packets as many more as bring more, up to 8 ["auto"].
        chunk_bytes: payload of a frame, a multiple of 64 [256 KiB].
        window_bytes: what a peer may be ahead of its receiver [8 MiB].
        algorithm: how collectives are done unless a call says otherwise: "auto" chooses by size
            from a model of the links, the same on every member; else its name, such as "direct" or
            "ring" (docs/plans.md). The first founder's wish holds for the group ["auto"].
        transport: "auto": members on one host exchange data over shared memory, operations and
            messages; "tcp": never. The first founder's wish holds ["auto"].
        commit_bytes: operations of at least so many bytes end with everybody's word that it has the
            whole result, smaller ones keep a copy of it for members that lack it when somebody is
            lost (docs/protocol.md). The first founder's wish holds [256 KiB].
        bandwidth: what this peer's access to the network carries each way: "100Mbit", "12MB", or
            bytes per second. Members with less get a smaller share of the reductions [measured].

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
