"""`collect run`: N local peers of one script, a coordinator for them, and their output in order."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from rich.console import Console

from collect.cli.coordinator import DEFAULT_TIMEOUT_S
from collect.cli.usage import UsageError, liveness_timeout, positive_int
from collect.net.coordinator import CoordinatorService

READ_BYTES = 1 << 16
PARTIAL_LINE_BYTES_MAX = 1 << 20  # a longer line is broken, so that memory stays bounded
DRAIN_S = 1.0  # for output that is still in the pipes when a process has ended
GRACE_S = 5.0  # between the request to end and SIGKILL
SIGNAL_STATUS_BASE = 128  # as a shell counts: 130 is SIGINT
COLOURS = (36, 32, 33, 35, 34, 96, 92, 93, 95, 94)  # ANSI foregrounds, used in turn


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "collect run -n N [options] (SCRIPT | -m MODULE) [argument ...]"
    add = parser.add_argument
    add(
        "-n",
        "--peers",
        type=positive_int,
        metavar="N",
        required=True,
        help="how many processes to start",
    )
    add(
        "--timeout",
        type=liveness_timeout,
        metavar="S",
        default=DEFAULT_TIMEOUT_S,
        help="seconds of silence that count as death (default %(default)g)",
    )
    add("--fail-fast", action="store_true", help="end all peers as soon as one fails")
    add("-m", dest="is_module", action="store_true", help="run a module, as `python -m` does")
    add("script", help="a Python script (or a module, after -m)")
    add("arguments", nargs=argparse.REMAINDER, help="arguments of the script")


def run(arguments: argparse.Namespace) -> int:
    if not arguments.is_module and not Path(arguments.script).is_file():
        raise UsageError(f"collect run: there is no script {arguments.script!r}")
    service = CoordinatorService(timeout=arguments.timeout)
    address = service.start()
    try:
        commands = {
            f"peer-{index}": peer_command(arguments, f"peer-{index}", address)
            for index in range(arguments.peers)
        }
        return asyncio.run(Runner(commands, fail_fast=arguments.fail_fast).run())
    finally:
        service.stop()


def peer_command(arguments: argparse.Namespace, name: str, address: str) -> list[str]:
    """What one peer runs. Its settings travel in the environment, which `env` extends."""
    settings = [
        f"COLLECT_ADDRESS={address}",
        f"COLLECT_NAME={name}",
        f"COLLECT_MIN_PEERS={arguments.peers}",  # the first view waits for all
        f"COLLECT_TIMEOUT={arguments.timeout}",
        "PYTHONUNBUFFERED=1",
    ]
    module = ["-m"] if arguments.is_module else []
    return ["env", *settings, sys.executable, *module, arguments.script, *arguments.arguments]


@dataclass(frozen=True, slots=True)
class Ending:
    """How a peer ended; the status is negative for a signal."""

    name: str
    status: int

    def __str__(self) -> str:
        if self.status >= 0:
            return f"{self.name}: exit status {self.status}"
        return f"{self.name}: killed by {signal.Signals(-self.status).name}"

    @property
    def shell_status(self) -> int:
        return self.status if self.status >= 0 else SIGNAL_STATUS_BASE - self.status


class LineSplitter:
    """Bytes as they come in, whole lines out, so that lines of several peers never mix."""

    def __init__(self) -> None:
        self._partial = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that `data` completes, without their ends."""
        *lines, self._partial = (self._partial + data).split(b"\n")
        if len(self._partial) > PARTIAL_LINE_BYTES_MAX:
            lines.append(self._partial)
            self._partial = b""
        return lines

    def finish(self) -> list[bytes]:
        """What is left: a last line that had no end."""
        lines = [self._partial] if self._partial else []
        self._partial = b""
        return lines


class Prefix:
    """Marks lines with the name of the peer that wrote them."""

    def __init__(self, name: str, width: int, colour: int | None) -> None:
        text = f"{name:<{width}} | "
        coloured = text if colour is None else f"\x1b[{colour}m{text}\x1b[0m"
        self._prefix = coloured.encode()

    def write(self, lines: list[bytes], target: BinaryIO) -> None:
        """In one write, so that nothing gets between a line and its end."""
        if lines:
            target.write(b"".join(self._prefix + line + b"\n" for line in lines))
            target.flush()


class Runner:
    """Runs one process per command until all have ended.

    A failure of one does not end the others, which is what the library is for, unless `fail_fast`.
    Every process leads a session of its own: signals reach a peer and what it started, by its own
    id, and only while it has not been waited for.
    """

    def __init__(self, commands: dict[str, list[str]], *, fail_fast: bool) -> None:
        self._commands = commands
        self._fail_fast = fail_fast
        self._running: dict[str, Process] = {}
        self._endings: list[Ending] = []
        self._signal_status = 0
        self._is_ending = False

    async def run(self) -> int:
        """The exit status: 128 + the signal that ended us, else of the first peer that failed."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._on_signal, number)
        try:
            async with asyncio.TaskGroup() as tasks:
                for index, name in enumerate(self._commands):
                    await self._start(name)
                    tasks.create_task(self._watch(name, index))
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)
            for process in self._running.values():
                _signal_session(process, signal.SIGKILL)
        self._summarise()
        failed = (ending.shell_status for ending in self._endings if ending.status != 0)
        return self._signal_status or next(failed, 0)

    async def _start(self, name: str) -> None:
        self._running[name] = await asyncio.create_subprocess_exec(
            *self._commands[name],
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
            start_new_session=True,
        )

    async def _watch(self, name: str, index: int) -> None:
        process = self._running[name]
        width = max(map(len, self._commands))
        has_colour = Console().color_system is not None
        prefix = Prefix(name, width, COLOURS[index % len(COLOURS)] if has_colour else None)
        assert process.stdout is not None
        assert process.stderr is not None
        copies = [
            asyncio.create_task(_copy(process.stdout, prefix, sys.stdout.buffer)),
            asyncio.create_task(_copy(process.stderr, prefix, sys.stderr.buffer)),
        ]
        try:
            status = await process.wait()
            # A process that the peer left behind may hold the pipes open.
            await asyncio.wait(copies, timeout=DRAIN_S)
        finally:
            for copy in copies:
                copy.cancel()
        del self._running[name]
        self._endings.append(Ending(name, status))
        if status != 0 and self._fail_fast:
            self._end()

    def _on_signal(self, number: signal.Signals) -> None:
        """The first asks the peers to end; they have GRACE_S. A second one does not wait."""
        if self._signal_status:
            self._signal_all(signal.SIGKILL)
        else:
            self._signal_status = SIGNAL_STATUS_BASE + number
            self._end()

    def _end(self) -> None:
        """Ask every peer to end as Ctrl-C would, and insist after GRACE_S."""
        if not self._is_ending:
            self._is_ending = True
            self._signal_all(signal.SIGINT)
            asyncio.get_running_loop().call_later(GRACE_S, self._signal_all, signal.SIGKILL)

    def _signal_all(self, number: signal.Signals) -> None:
        for process in self._running.values():
            _signal_session(process, number)

    def _summarise(self) -> None:
        failed = [ending for ending in self._endings if ending.status != 0]
        if not failed:
            print(f"collect run: all {len(self._endings)} peers ended well", file=sys.stderr)
            return
        print(f"collect run: {len(failed)} of {len(self._endings)} peers failed", file=sys.stderr)
        for ending in self._endings:
            print(f"  {ending}", file=sys.stderr)


async def _copy(stream: asyncio.StreamReader, prefix: Prefix, target: BinaryIO) -> None:
    splitter = LineSplitter()
    while data := await stream.read(READ_BYTES):
        prefix.write(splitter.feed(data), target)
    prefix.write(splitter.finish(), target)


def _signal_session(process: Process, number: signal.Signals) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
