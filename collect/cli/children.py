"""Processes that a command starts and ends: each by its own id, none left behind."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from asyncio.subprocess import PIPE, Process
from types import TracebackType
from typing import Self

from collect.errors import CollectError

LINE_BYTES_MAX = 1 << 20
COORDINATOR_START_S = 20.0
COORDINATOR_SAYS = "listening on "  # followed by the address, in the first line of its output
GRACE_S = 2.0


class ChildFailed(CollectError):
    """A process that a command needs did not do its part."""


class Children:
    """An async context manager; what still runs at its end is killed and waited for.

    Every child leads a session of its own, so a terminal's Ctrl-C reaches this process only, and
    has our end of a pipe as its input, so it learns of our death by the end of that input.
    """

    def __init__(self) -> None:
        self._processes: list[Process] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.end()

    async def start(self, module: str, *arguments: str) -> Process:
        """`python -m module arguments`, with pipes to its input, output and errors."""
        return await self.start_program(sys.executable, "-m", module, *arguments)

    async def start_program(self, *command: str) -> Process:
        """Any command, with pipes to its input, output and errors."""
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            limit=LINE_BYTES_MAX,
            start_new_session=True,
        )
        self._processes.append(process)
        return process

    async def start_coordinator(self, timeout_s: float) -> str:
        """A coordinator on a free port of the loopback interface; returns its address."""
        options = (
            "--bind",
            "127.0.0.1:0",
            "--until-eof",
            "--log-level",
            "error",
            "--timeout",
            str(timeout_s),
        )
        process = await self.start("collect", "coordinator", *options)
        assert process.stdout is not None
        assert process.stderr is not None
        with contextlib.suppress(TimeoutError):
            line = await asyncio.wait_for(process.stdout.readline(), COORDINATOR_START_S)
            _, said, address = line.decode().strip().partition(COORDINATOR_SAYS)
            if said:
                return address
        await end(process)
        reason = (await process.stderr.read()).decode(errors="replace").strip().splitlines()
        raise ChildFailed(f"the coordinator did not start: {reason[-1] if reason else 'no reason'}")

    async def end(self) -> None:
        await asyncio.gather(*(end(process) for process in self._processes))
        self._processes.clear()


async def end(process: Process) -> None:
    """Closes the input, asks by SIGTERM, insists by SIGKILL, and waits."""
    if process.stdin is not None:
        process.stdin.close()
    for how in (signal.SIGTERM, signal.SIGKILL):
        if process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)
            process.send_signal(how)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), GRACE_S)
            return
