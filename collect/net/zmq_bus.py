"""The control plane's connections: the only importer of zmq.

A peer is a DEALER, the coordinator a ROUTER. A peer's routing id is its incarnation with the
highest bit set (ids that begin with a zero byte are libzmq's own); a second connection with the
same id takes its place. Messages are payloads: what they mean is the codec's business. Nothing here
retries: a message may be lost, and the machines send again what needs an answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any, cast

import zmq
import zmq.asyncio
from zmq.utils.monitor import recv_monitor_message

from collect.config import Address
from collect.errors import InvalidArgument
from collect.net.addresses import resolve

log = logging.getLogger("collect.net")

# libzmq drops a connection that sends more. The codec's own limit is lower, and its refusal is
# logged.
MESSAGE_BYTES_MAX = 4 << 20
QUEUED_MESSAGES_MAX = 1000
LINGER_MS = 200
HANDSHAKE_MS = 5000
RECONNECT_MS = 50
RECONNECT_MS_MAX = 500
KEEPALIVE_IDLE_S = 10
KEEPALIVE_INTERVAL_S = 5
KEEPALIVE_COUNT = 3
BACKLOG = 1024
INCARNATION_BITS = 63

_ID_BYTES = 8
_ID_MARK = 1 << INCARNATION_BITS


def routing_id(incarnation: int) -> bytes:
    """The name of a peer's connection."""
    assert 0 < incarnation < _ID_MARK
    return (incarnation | _ID_MARK).to_bytes(_ID_BYTES, "big")


def incarnation_of(identity: bytes) -> int | None:
    """Whose connection it is; None when it is no peer's."""
    if len(identity) != _ID_BYTES or not identity[0] & 0x80:
        return None
    return int.from_bytes(identity, "big") & (_ID_MARK - 1)


def _configure(socket: Any) -> None:
    socket.setsockopt(zmq.IPV6, 1)
    socket.setsockopt(zmq.LINGER, LINGER_MS)
    socket.setsockopt(zmq.MAXMSGSIZE, MESSAGE_BYTES_MAX)
    socket.setsockopt(zmq.SNDHWM, QUEUED_MESSAGES_MAX)
    socket.setsockopt(zmq.RCVHWM, QUEUED_MESSAGES_MAX)
    socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
    socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, KEEPALIVE_IDLE_S)
    socket.setsockopt(zmq.TCP_KEEPALIVE_INTVL, KEEPALIVE_INTERVAL_S)
    socket.setsockopt(zmq.TCP_KEEPALIVE_CNT, KEEPALIVE_COUNT)
    socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)


class _Bus:
    """What both ends have in common. Belongs to one event loop."""

    def __init__(self, kind: int) -> None:
        self._context = zmq.asyncio.Context()
        self._socket = self._context.socket(kind)
        _configure(self._socket)

    def close(self) -> None:
        """Sends what is queued for at most LINGER_MS, then frees everything."""
        self._socket.close()
        self._context.term()

    def _send(self, parts: list[bytes]) -> bool:
        # With DONTWAIT pyzmq settles the future before it returns.
        sent = cast(asyncio.Future[Any], self._socket.send_multipart(parts, flags=zmq.DONTWAIT))
        error = sent.exception()
        if error is not None:
            log.debug("a message of %d bytes was not sent: %s", len(parts[-1]), error)
        return error is None


class PeerBus(_Bus):
    """A peer's connection to the coordinator. Connects, and connects again, by itself."""

    def __init__(self, coordinator: Address, incarnation: int) -> None:
        super().__init__(zmq.DEALER)
        self._socket.setsockopt(zmq.ROUTING_ID, routing_id(incarnation))
        self._socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
        self._socket.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_MS_MAX)
        self._socket.connect(f"tcp://{coordinator}")

    async def receive(self) -> bytes:
        """The next payload."""
        while True:
            parts = await self._socket.recv_multipart()
            if len(parts) == 1:
                return parts[0]
            log.warning("refused a message of %d parts from the coordinator's address", len(parts))

    def send(self, payload: bytes) -> bool:
        """Queues it and never waits. False: too much is queued already."""
        return self._send([payload])


class CoordinatorBus(_Bus):
    """The coordinator's port. Raises InvalidArgument when it cannot be opened.

    Args:
        address: where to listen; "::" listens to IPv4 too; port 0 takes a free one.
        refuse: is called with the reason for each message or connection that is turned away.
    """

    def __init__(self, address: Address, refuse: Callable[[str], None]) -> None:
        numeric = resolve(address)[0]
        super().__init__(zmq.ROUTER)
        self._refuse = refuse
        self._socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._socket.setsockopt(zmq.BACKLOG, BACKLOG)
        self._monitor = self._socket.get_monitor_socket()
        try:
            self._socket.bind(f"tcp://{numeric}" if numeric.port else f"tcp://{numeric}"[:-1] + "*")
        except zmq.ZMQError as error:
            self.close()
            raise InvalidArgument(
                f"cannot listen on {address}: {error}",
                advice="choose another port, or stop the process that holds it",
            ) from None
        endpoint = cast(bytes, self._socket.getsockopt(zmq.LAST_ENDPOINT)).decode().rstrip("\0")
        self.address = Address(numeric.host, int(endpoint.rpartition(":")[2]))

    def close(self) -> None:
        self._socket.disable_monitor()
        self._monitor.close(linger=0)
        super().close()

    async def receive(self) -> tuple[int, bytes]:
        """The next payload and whose connection it came by."""
        while True:
            parts = await self._socket.recv_multipart()
            incarnation = incarnation_of(parts[0])
            if incarnation is None or len(parts) != 2:
                size = sum(len(part) for part in parts[1:])
                self._refuse(f"{size} bytes from a connection that is no peer's")
                continue
            return incarnation, parts[1]

    def send(self, incarnation: int, payload: bytes) -> bool:
        """Queues it and never waits. False: not connected, or too much is queued."""
        return self._send([routing_id(incarnation), payload])

    async def watch(self) -> None:
        """Reports connections whose handshake fails, until it is cancelled.

        The event of a handshake that succeeds does not name its connection; it is taken for the
        latest that was accepted, because a handshake takes less time than most pairs of them are
        apart.
        """
        waiting: list[int] = []
        while True:
            event = await cast(Awaitable[dict[str, Any]], recv_monitor_message(self._monitor))
            kind, value = event["event"], int(event["value"])
            if kind == zmq.Event.ACCEPTED:
                waiting.append(value)
            elif kind == zmq.Event.HANDSHAKE_SUCCEEDED and waiting:
                waiting.pop()
            elif kind == zmq.Event.DISCONNECTED and value in waiting:
                waiting.remove(value)
                self._refuse("a connection that did not speak ZMTP")


class RateLimit:
    """Lets `count` lines through per `period_s`, and says how many it held back."""

    def __init__(self, count: int = 10, period_s: float = 10.0) -> None:
        self._count = count
        self._period_s = period_s
        self._began_s = 0.0
        self._passed = 0
        self._held = 0

    def note(self, text: str, now_s: float) -> str | None:
        """The line to log, or None."""
        if now_s - self._began_s >= self._period_s:
            held, self._held = self._held, 0
            self._began_s, self._passed = now_s, 0
            if held:
                text += f" ({held} more were refused before)"
        if self._passed >= self._count:
            self._held += 1
            return None
        self._passed += 1
        return text


async def first_listening(candidates: list[Address], patience_s: float) -> Address:
    """The first that accepts a connection; the first of all when none does.

    libzmq takes one address of a name, and it may be one that nobody listens at.
    """
    if len(candidates) == 1:
        return candidates[0]
    for candidate in candidates:
        with contextlib.suppress(OSError, TimeoutError):
            opening = asyncio.open_connection(candidate.host, candidate.port)
            _, writer = await asyncio.wait_for(opening, patience_s)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            return candidate
    return candidates[0]
