"""The processes of a stress test: peers, spares that are ready to join, and a coordinator.

One thread: `pump` reads what peers tell and hands it on. Every process logs to a file of its own.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collect.cli.children import COORDINATOR_SAYS
from collect.errors import CollectError

SPARES = 2
READY_S = 30.0
STACKS_S = 1.0  # for a peer to write its stacks
LOG_BYTES = 6000  # of each process's log in a report
READ_BYTES = 1 << 18

Told = dict[str, Any]


class NotStarted(CollectError):
    """A process that is needed did not start."""


@dataclass
class Usage:
    """What a process holds."""

    descriptors: int
    threads: int
    resident_bytes: int


def usage(pid: int) -> Usage:
    status = Path(f"/proc/{pid}/status").read_text()
    values = dict(line.split(":", 1) for line in status.splitlines())
    return Usage(
        len(os.listdir(f"/proc/{pid}/fd")),
        int(values["Threads"]),
        int(values["VmRSS"].split()[0]) * 1024,
    )


class Child:
    """A process with a pipe each way and a log."""

    def __init__(self, label: str, command: list[str], log: Path) -> None:
        self.label = label
        self.log = log
        self.is_over = False
        self._text = b""
        with log.open("ab") as stderr:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,  # a terminal's Ctrl-C reaches this process only
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def say(self, do: str, **fields: Any) -> None:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps({"do": do, **fields}).encode() + b"\n")
            self.process.stdin.flush()

    def lines(self) -> list[bytes]:
        """Whole lines that it wrote since the last call; sets `is_over` at their end."""
        assert self.process.stdout is not None
        data = os.read(self.process.stdout.fileno(), READ_BYTES)
        self.is_over = not data
        *lines, self._text = (self._text + data).split(b"\n")
        return lines

    def send(self, number: int) -> None:
        with suppress(ProcessLookupError):
            self.process.send_signal(number)

    def end(self) -> None:
        """Kills it if it is still there, and frees everything."""
        self.send(signal.SIGKILL)
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            with suppress(BrokenPipeError):
                stream.close()

    def tail(self) -> str:
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - LOG_BYTES))
            return file.read().decode(errors="replace")


class Launcher:
    """Owns all processes. `on_told` gets what a peer tells, `on_over` who has ended, and how."""

    def __init__(
        self,
        folder: Path,
        timeout_s: float,
        on_told: Callable[[Child, Told], None],
        on_over: Callable[[Child, int], None],
    ) -> None:
        self.folder = folder
        self.peers: dict[int, Child] = {}  # by process id
        self.address = "127.0.0.1:0"
        self.coordinator: Child | None = None
        self._timeout_s = timeout_s
        self._on_told = on_told
        self._on_over = on_over
        self._selector = selectors.DefaultSelector()
        self._ready: list[Child] = []
        self._warming: list[Child] = []
        self._count = 0

    # ---- peers ---------------------------------------------------------------------------

    def warm_up(self) -> None:
        """Starts spares until there are enough. Does not wait for them."""
        while len(self._ready) + len(self._warming) < SPARES:
            self._count += 1
            log = self.folder / f"peer-{self._count}.log"
            command = [sys.executable, "-m", "collect.cli.stress.peer"]
            child = Child(f"process {self._count}", command, log)
            self._warming.append(child)
            self.peers[child.pid] = child
            assert child.process.stdout is not None
            self._selector.register(child.process.stdout, selectors.EVENT_READ, child)

    def take_spare(self) -> Child:
        """A process that waits to be told to join."""
        deadline_s = time.monotonic() + READY_S
        self.warm_up()
        while not self._ready:
            if time.monotonic() > deadline_s:
                raise NotStarted(f"no peer process gets ready within {READY_S:g} s")
            self.pump(0.05)
        child = self._ready.pop(0)
        self.warm_up()
        return child

    def pump(self, timeout_s: float) -> None:
        """Waits up to `timeout_s` for somebody to tell something; hands on all that is there."""
        for key, _ in self._selector.select(timeout_s):
            child: Child = key.data
            for line in child.lines():
                told = json.loads(line)
                if told["what"] == "ready":
                    self._warming.remove(child)
                    self._ready.append(child)
                else:
                    self._on_told(child, told)
            if child.is_over:
                assert child.process.stdout is not None
                self._selector.unregister(child.process.stdout)
                del self.peers[child.pid]
                if child in self._warming + self._ready:
                    raise NotStarted(f"a peer process ended before it joined:\n{child.tail()}")
                status = child.process.wait()
                child.end()
                self._on_over(child, status)

    # ---- the coordinator -----------------------------------------------------------------

    def start_coordinator(self) -> None:
        """Starts it; again at the same address, once it has one. Returns when it listens."""
        command = [sys.executable, "-m", "collect", "coordinator", "--bind", self.address]
        command += ["--timeout", str(self._timeout_s), "--log-level", "debug", "--until-eof"]
        child = Child("coordinator", command, self.folder / "coordinator.log")
        assert child.process.stdout is not None
        _, said, address = child.process.stdout.readline().decode().partition(COORDINATOR_SAYS)
        if not said:
            raise NotStarted(f"the coordinator did not start:\n{child.tail()}")
        self.address = address.strip()
        self.coordinator = child

    def kill_coordinator(self) -> None:
        assert self.coordinator is not None
        self.coordinator.end()
        self.coordinator = None

    # ---- the end -------------------------------------------------------------------------

    def report(self) -> str:
        """Every process's stacks, and the end of its log."""
        for child in self.peers.values():
            child.send(signal.SIGCONT)
            child.send(signal.SIGUSR1)
        time.sleep(STACKS_S)
        everybody = [*self.peers.values(), *([self.coordinator] if self.coordinator else [])]
        parts = [f"logs are in {self.folder}"]
        for child in everybody:
            if child not in self._ready + self._warming:
                parts.append(f"---- {child.label}, process {child.pid}\n{child.tail()}")
        return "\n".join(parts)

    def close(self) -> None:
        for child in self.peers.values():
            child.end()
        self.peers.clear()
        self._selector.close()
        if self.coordinator is not None:
            self.kill_coordinator()
