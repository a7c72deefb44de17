"""A thread with an event loop of its own, for as long as its owner wants it.

Everything that runs in it belongs to one coroutine, the body. The thread is not a daemon: it is
joined, never cut off. It looks whether the process is about to end, so that an owner who forgot to
stop it does not keep the interpreter from ending.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from collect.net.waiting import Changes

log = logging.getLogger("collect")


class LibraryThread(threading.Thread):
    """Marks the library's own threads: they do not keep a process alive."""


def is_process_ending() -> bool:
    """True when only the library's own threads would keep this process alive."""
    return not any(
        thread.is_alive() and not thread.daemon and not isinstance(thread, LibraryThread)
        for thread in threading.enumerate()
    )


def new_event_loop() -> asyncio.AbstractEventLoop:
    """uvloop's where it is installed, else the standard library's."""
    try:
        import uvloop  # noqa: PLC0415  # only here, so that importing collect does not load it
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


class LoopThread:
    """Runs `body` until it returns; `stopping` asks it to.

    Threads: `start`, `stop` and `join` belong to the owner; `call` may come from any thread.
    """

    def __init__(self, name: str, body: Callable[[asyncio.Event], Coroutine[Any, Any, None]]):
        self._body = body
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._lock = threading.Lock()  # of the loop's end against calls to it
        self._is_running = False
        self._changes = Changes()
        self._thread = LibraryThread(target=self._run, name=name, daemon=False)
        self.failure: BaseException | None = None

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def is_current(self) -> bool:
        return threading.current_thread() is self._thread

    def start(self) -> None:
        """Returns when the loop takes calls; the body has begun or is about to."""
        self._thread.start()
        self._changes.wait_for(lambda: self._is_running)

    def call(self, function: Callable[..., Any], *arguments: Any) -> bool:
        """Has the loop call the function soon. False: the loop is gone."""
        with self._lock:
            if self._loop is None:
                return False
            self._loop.call_soon_threadsafe(function, *arguments)
            return True

    def stop(self) -> None:
        """Asks the body to end; does not wait."""
        if self._stopping is not None:
            self.call(self._stopping.set)

    def join(self, timeout_s: float | None = None) -> bool:
        """Waits for the end of the thread; False when it has not come in time."""
        if self._thread.ident is not None and not self.is_current:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=new_event_loop) as runner:
                runner.run(self._main())
        except BaseException as error:
            self.failure = error
            log.critical("%s ended by an error", self._thread.name, exc_info=error)
        finally:
            with self._lock:
                self._loop = None
            self._set_running()

    def _set_running(self) -> None:
        self._is_running = True
        self._changes.notify()

    async def _main(self) -> None:
        stopping = asyncio.Event()
        self._stopping = stopping
        with self._lock:
            self._loop = asyncio.get_running_loop()
        self._set_running()
        try:
            await self._body(stopping)
        finally:
            with self._lock:
                self._loop = None  # from here on `call` says no


async def until_stopped(
    stopping: asyncio.Event, *bodies: Callable[[], Coroutine[Any, Any, None]]
) -> None:
    """Runs the bodies together until `stopping` is set, one fails, or the process ends."""
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(body()) for body in bodies]
        while not stopping.is_set() and not is_process_ending():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), 0.25)
        for task in running:
            task.cancel()
