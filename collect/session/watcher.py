"""Tells event loops when operations are complete.

One thread for each group whose works are awaited, started by the first `await` and ended when
nothing was awaited for a while. It waits in the core, which is driven by whoever waits, for the
oldest operation under way: operations of a group complete in the order of their starts, so none of
the awaited ones can be complete before. A descriptor that the core makes readable would need no
thread, but a system call for each operation, awaited or not.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any

from collect.errors import CollectError
from collect.native import status
from collect.native.message import Message
from collect.native.operation import Operation
from collect.net.clock import now_s
from collect.net.loop_thread import LibraryThread

IDLE_S = 1.0  # the thread ends when it had nothing to do for so long
POLL_S = 0.05
MESSAGES_POLL_S = 0.001  # messages complete in any order: the others are looked at so often

Awaited = tuple[Operation, asyncio.AbstractEventLoop, "asyncio.Future[None]"]


class Watcher:
    """Any thread may call anything. `oldest` names the operation under way to wait for."""

    def __init__(self, name: str, oldest: Callable[[], Operation | None]) -> None:
        self._name = name
        self._oldest = oldest
        self._incoming: queue.SimpleQueue[Awaited | None] = queue.SimpleQueue()
        self._lock = threading.Lock()  # of the thread's start and end
        self._thread: threading.Thread | None = None

    def watch(
        self,
        operation: Operation,
        loop: asyncio.AbstractEventLoop,
        future: asyncio.Future[None],
    ) -> None:
        """Completes `future`, in `loop`, when the operation has completed or failed."""
        with self._lock:
            self._incoming.put((operation, loop, future))
            if self._thread is None:
                self._thread = LibraryThread(target=self._watch, name=self._name, daemon=False)
                self._thread.start()

    def stop(self) -> None:
        """Ends the thread, when every operation has completed or the communicator is closed."""
        with self._lock:
            thread = self._thread
            self._incoming.put(None)
        if thread is not None:
            thread.join()

    def _watch(self) -> None:
        waiting: dict[Operation, list[Awaited]] = {}
        swept_s = now_s()
        while self._receive(waiting):
            if not waiting:
                continue
            oldest = self._oldest() or next(iter(waiting))
            found = status.PENDING
            has_messages = any(isinstance(each, Message) for each in waiting if each is not oldest)
            with contextlib.suppress(CollectError):  # closed: then every operation has completed
                found = oldest.wait(MESSAGES_POLL_S if has_messages else POLL_S)
            if found != status.PENDING:
                _tell(waiting.pop(oldest, []))
            if found == status.PENDING or now_s() > swept_s + POLL_S:
                # Some other thread may have seen the end of an operation before this one did.
                swept_s = now_s()
                for operation in [each for each in waiting if each.poll() != status.PENDING]:
                    _tell(waiting.pop(operation))
        _tell([each for awaited in waiting.values() for each in awaited])

    def _receive(self, waiting: dict[Operation, list[Awaited]]) -> bool:
        """Takes what was asked for; when nothing waits, waits for that. False: it is over."""
        try:
            while True:
                is_idle = not waiting
                item = self._incoming.get(is_idle, IDLE_S if is_idle else None)
                if item is None:
                    return False
                if item[0].poll() == status.PENDING:
                    waiting.setdefault(item[0], []).append(item)
                else:
                    _tell([item])
        except queue.Empty:
            return bool(waiting) or not self._is_over()

    def _is_over(self) -> bool:
        """Nothing was awaited for a while. The next `watch` starts a thread again."""
        with self._lock:
            if not self._incoming.empty():
                return False
            self._thread = None
            return True


def _tell(awaited: list[Awaited]) -> None:
    for _, loop, future in awaited:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(_complete, future)


def _complete(future: asyncio.Future[Any]) -> None:
    if not future.done():
        future.set_result(None)
