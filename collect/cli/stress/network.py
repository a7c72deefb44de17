"""What lies between the peers: a door in front of each peer's data port, which can be disturbed.

A peer listens on 127.0.0.1 and advertises another address of loopback with the same port, where its
door listens. So every TCP connection to it passes the door, which relays, and cuts, slows or stalls
what passes as it is told. No privilege is needed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from collect.errors import CollectError
from collect.net.loop_thread import LoopThread

PEER_HOST = "127.0.0.1"
DOOR_HOSTS = "127.0.1.{}"  # addresses of loopback are all there on Linux
DOOR_HOSTS_COUNT = 250
PORT_TRIES = 50
READ_BYTES = 256 * 1024
LISTEN_BACKLOG = 64
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close by a reset
START_S = 10.0
GARBAGE_BYTES = 4096


class NoDoor(CollectError):
    """A door could not be opened."""


@dataclass
class Door:
    """In front of one peer. Its fields belong to the network's thread."""

    host: str
    port: int
    listener: socket.socket
    relays: set[asyncio.Task[None]] = field(default_factory=set)
    sockets: set[socket.socket] = field(default_factory=set)
    flowing: asyncio.Event = field(default_factory=asyncio.Event)
    bytes_per_s: float = 0.0  # 0: as fast as it goes


def free_pair(host: str) -> socket.socket:
    """Listens at `host`, on a port that is free on 127.0.0.1, too."""
    for _ in range(PORT_TRIES):
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setblocking(False)
        listener.bind((host, 0))
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            try:
                probe.bind((PEER_HOST, listener.getsockname()[1]))
            except OSError:
                listener.close()
                continue
        listener.listen(LISTEN_BACKLOG)
        return listener
    raise NoDoor(f"no port is free on both {host} and {PEER_HOST}")


class Network:
    """All doors, in a thread of its own. Its methods may be called from the owner's thread."""

    def __init__(self) -> None:
        self._doors: dict[str, Door] = {}
        self._thread = LoopThread("collect-stress-network", self._main)
        self._count = 0
        self._thread.start()

    # ---- the owner's side ----------------------------------------------------------------

    def open(self, name: str) -> tuple[str, int]:
        """A door for the peer of this name: where it is reached, and the port it must listen on."""
        host = DOOR_HOSTS.format(1 + self._count % DOOR_HOSTS_COUNT)
        self._count += 1
        listener = free_pair(host)
        door = Door(host, listener.getsockname()[1], listener)
        door.flowing.set()
        self._doors[name] = door
        self._do(self._serve, door)
        return door.host, door.port

    def close(self, name: str) -> None:
        """Its peer is gone."""
        door = self._doors.pop(name, None)
        if door is not None:
            self._do(self._shut, door)

    def cut(self, name: str) -> None:
        """Resets every connection that was made to the peer."""
        self._do(self._reset, self._doors[name])

    def slow(self, name: str, bytes_per_s: float) -> None:
        """Connections to the peer carry so much from here on, each way; 0: as much as they can."""
        self._doors[name].bytes_per_s = bytes_per_s

    def stall(self, name: str) -> None:
        """Nothing passes until `resume`; connections stay."""
        self._do(self._doors[name].flowing.clear)

    def resume(self, name: str) -> None:
        self._do(self._doors[name].flowing.set)

    def throw_garbage(self, name: str) -> None:
        """Sends the peer bytes that mean nothing, over a connection of its own."""
        door = self._doors[name]
        with (
            contextlib.suppress(OSError),
            socket.create_connection((PEER_HOST, door.port), timeout=1.0) as stranger,
        ):
            stranger.sendall(os.urandom(GARBAGE_BYTES))

    def stop(self) -> None:
        """Closes everything."""
        self._thread.stop()
        self._thread.join(START_S)

    def _do(self, function: Callable[..., object], *arguments: Any) -> None:
        self._thread.call(function, *arguments)

    # ---- the thread's side ---------------------------------------------------------------

    async def _main(self, stopping: asyncio.Event) -> None:
        await stopping.wait()
        doors = list(self._doors.values())
        for door in doors:
            self._shut(door)
        relays = [task for door in doors for task in door.relays]
        await asyncio.gather(*relays, return_exceptions=True)

    def _serve(self, door: Door) -> None:
        self._spawn(door, self._accept(door))

    def _spawn(self, door: Door, body: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(body)
        door.relays.add(task)
        task.add_done_callback(door.relays.discard)

    def _shut(self, door: Door) -> None:
        self._reset(door)
        for task in door.relays:
            task.cancel()

    def _reset(self, door: Door) -> None:
        for each in list(door.sockets):
            with contextlib.suppress(OSError):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                # A shutdown ends the relays' waits; they close it, and the linger resets it.
                each.shutdown(socket.SHUT_RDWR)

    async def _accept(self, door: Door) -> None:
        loop = asyncio.get_running_loop()
        with door.listener:
            while True:
                near, _ = await loop.sock_accept(door.listener)
                near.setblocking(False)
                self._spawn(door, self._relay(door, near))

    async def _relay(self, door: Door, near: socket.socket) -> None:
        far = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        far.setblocking(False)
        with near, far, contextlib.suppress(OSError):
            door.sockets |= {near, far}
            try:
                for each in (near, far):
                    each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                await asyncio.get_running_loop().sock_connect(far, (PEER_HOST, door.port))
                await asyncio.gather(_pass(door, near, far), _pass(door, far, near))
            finally:
                door.sockets -= {near, far}


async def _pass(door: Door, source: socket.socket, target: socket.socket) -> None:
    """Bytes of one direction, until the end; then the end itself."""
    loop = asyncio.get_running_loop()
    while data := await loop.sock_recv(source, READ_BYTES):
        await door.flowing.wait()
        if door.bytes_per_s > 0:
            await asyncio.sleep(len(data) / door.bytes_per_s)
        await loop.sock_sendall(target, data)
    # A half-closed connection is no use to a peer, and would hide the other's death.
    for each in (source, target):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
