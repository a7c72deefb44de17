"""Engines of the C core: I/O thread, data port, event queue. Shared by this process's groups.

`acquire` gives out an engine with the wanted options that does not serve the group yet, or opens
one; the last `release` closes it. Events are handed to whoever serves their group: any user may
drain the queue, and the order of one group's events is kept.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from collect import native
from collect.errors import InvalidArgument
from collect.native import status
from collect.native.communicator import Communicator
from collect.native.operation import NS_PER_S
from collect.types import LinkLoss


class EventKind(IntEnum):
    """enum collect_event_kind of collect.h."""

    LINK_UP = 1
    LINK_LOST = 2
    REFUSED = 3
    MISMATCH = 4
    REPAIRED = 5
    LATE = 6
    ABORTED = 7


@dataclass(frozen=True, slots=True)
class EngineEvent:
    """struct collect_event of collect.h. `loss` is None unless a link was lost."""

    kind: EventKind
    loss: LinkLoss | None
    group_key: int
    peer: int
    op: int
    epoch: int
    at_ns: int
    detail: str


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """struct collect_engine_options of collect.h, with times in seconds."""

    bind_host: str
    port: int
    streams: int
    streams_max: int
    chunk_bytes: int
    window_bytes: int
    silence_s: float
    connect_s: float


class Engine:
    """One engine of the core. Made by `acquire`, not by hand."""

    def __init__(self, options: EngineOptions) -> None:
        ffi, lib = native.ffi, native.lib
        host = ffi.new("char[]", options.bind_host.encode())
        given = ffi.new(
            "struct collect_engine_options *",
            {
                "bind_address": host,
                "port": options.port,
                "streams": options.streams,
                "streams_max": options.streams_max,
                "chunk_bytes": options.chunk_bytes,
                "window_bytes": options.window_bytes,
                "silence_ns": int(options.silence_s * NS_PER_S),
                "connect_ns": int(options.connect_s * NS_PER_S),
            },
        )
        self._cell = ffi.new("collect_engine **")
        result = lib.collect_engine_create(given, self._cell)
        if result == status.E_ADDRESS:
            raise InvalidArgument(
                f"cannot listen on {options.bind_host} port {options.port} for data",
                advice="choose another port or interface",
            )
        status.check(result, "start the engine")
        self.options = options
        self.pointer: Any = self._cell[0]
        self._event = ffi.new("struct collect_event *")
        self._lock = threading.Lock()
        self._subscribers: dict[int, Callable[[EngineEvent], None]] = {}
        self.labels: set[str] = set()

    @property
    def port(self) -> int:
        """The data port that is bound."""
        return int(native.lib.collect_engine_port(self.pointer))

    @property
    def event_fd(self) -> int:
        """Readable while events wait. Do not read it: call `drain`."""
        return int(native.lib.collect_engine_event_fd(self.pointer))

    def new_communicator(self, group_key: int, self_id: int) -> Communicator:
        """A communicator without a view."""
        return Communicator(self.pointer, group_key, self_id)

    def subscribe(self, group_key: int, receive: Callable[[EngineEvent], None]) -> None:
        """`receive` is called from any thread, in order; it must neither block nor drain."""
        with self._lock:
            self._subscribers[group_key] = receive

    def unsubscribe(self, group_key: int) -> None:
        with self._lock:
            self._subscribers.pop(group_key, None)

    def drain(self) -> None:
        """Hands out every event that waits. What belongs to no group goes to all."""
        with self._lock:
            while native.lib.collect_engine_next_event(self.pointer, self._event) == 1:
                event = self._read(self._event)
                receive = self._subscribers.get(event.group_key)
                if receive is not None:
                    receive(event)
                elif event.group_key == 0:
                    for each in self._subscribers.values():
                        each(event)

    def close(self) -> None:
        self.pointer = None
        native.lib.collect_engine_destroy(self._cell)

    @staticmethod
    def _read(event: Any) -> EngineEvent:
        kind = EventKind(event.kind)
        is_loss = kind is EventKind.LINK_LOST
        return EngineEvent(
            kind=kind,
            loss=LinkLoss(event.loss) if is_loss else None,
            group_key=event.comm_key,
            peer=event.peer,
            op=event.op,
            epoch=event.epoch,
            at_ns=event.at_ns,
            detail=native.ffi.string(event.detail).decode("utf-8", "replace"),
        )


_lock = threading.Lock()
_engines: list[Engine] = []
# A child of fork has none of its parent's threads: it opens engines of its own.
os.register_at_fork(after_in_child=_engines.clear)


def acquire(options: EngineOptions, label: str) -> Engine:
    """An engine with these options. `label` names the group: two of one never share an engine."""
    with _lock:
        for engine in _engines:
            if engine.options == options and options.port == 0 and label not in engine.labels:
                engine.labels.add(label)
                return engine
        engine = Engine(options)
        engine.labels.add(label)
        _engines.append(engine)
        return engine


def release(engine: Engine, label: str) -> None:
    """Gives an engine back; the last user's call closes it."""
    with _lock:
        engine.labels.discard(label)
        if engine.labels:
            return
        with contextlib.suppress(ValueError):
            _engines.remove(engine)
    engine.close()
