"""Starts the processes of the demo, does to them what the scenario says, and keeps the story."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import time
from asyncio.subprocess import Process
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from collect.cli.children import Children
from collect.cli.demo.messages import decode
from collect.cli.demo.scenario import Action, Continue, Kill, Scenario, Start, Stop
from collect.cli.demo.story import NS_PER_S, Story, Tone

TICK_S = 0.02
STALL_S = 30.0  # nobody completes anything for so long: something is wrong
STALL_TIMEOUTS = 20


@dataclass(frozen=True, slots=True)
class PeerOptions:
    """What every peer is told."""

    data: Path  # the digits, and what a single process made of them
    reference: Path
    seed: int
    steps: int
    batch_size: int
    timeout_s: float
    pace_s: float


class Launcher:
    """One run. `refresh` is called often, for the display."""

    def __init__(
        self,
        options: PeerOptions,
        scenario: Scenario,
        story: Story,
        refresh: Callable[[], None],
    ) -> None:
        self._options = options
        self._scenario = scenario
        self._story = story
        self._refresh = refresh
        self._children = Children()
        self._processes: dict[str, Process] = {}
        self._address = ""
        self.newcomer_started_ns: int | None = None

    async def run(self) -> None:
        """Returns when every peer has ended; leaves no process behind, however it ends."""
        async with self._children:
            self._address = await self._children.start_coordinator(self._options.timeout_s)
            self._story.tell(time.monotonic_ns(), "coordinator", f"listens on {self._address}")
            async with asyncio.TaskGroup() as tasks:
                for name in self._scenario.names:
                    await self._start_peer(tasks, name, late=False)
                await self._direct(tasks)

    async def _direct(self, tasks: asyncio.TaskGroup) -> None:
        """Play the scenario until all peers have ended, or nothing moves any more."""
        stall_ns = round(max(STALL_S, STALL_TIMEOUTS * self._options.timeout_s) * NS_PER_S)
        seen, moved_ns = -1, time.monotonic_ns()
        while not self._story.is_over():
            now_ns = time.monotonic_ns()
            action = self._scenario.next_action(self._story, now_ns)
            if action is not None:
                await self._do(tasks, action)
            if self._story.lead_step != seen:
                seen, moved_ns = self._story.lead_step, now_ns
            elif now_ns - moved_ns > stall_ns:
                text = f"no step was completed for {stall_ns / NS_PER_S:.0f} s: given up"
                self._story.tell(now_ns, "launcher", text, Tone.BAD)
                await self._children.end()
            self._refresh()
            await asyncio.sleep(TICK_S)
        self._refresh()

    async def _do(self, tasks: asyncio.TaskGroup, action: Action) -> None:
        now_ns = time.monotonic_ns()
        match action:
            case Kill(victim, step, frame):
                self._story.killing(victim, step, frame, now_ns)
                order = json.dumps({"step": step, "frame": frame})
                stdin = self._processes[victim].stdin
                assert stdin is not None
                stdin.write(f"{order}\n".encode())
            case Stop(victim):
                self._story.stopped(victim, now_ns)
                self._signal(victim, signal.SIGSTOP)
            case Continue(victim):
                self._signal(victim, signal.SIGCONT)
                self._story.continued(victim, time.monotonic_ns())
            case Start(name):
                self.newcomer_started_ns = now_ns
                await self._start_peer(tasks, name, late=True)

    def _signal(self, name: str, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has ended; the watcher will tell
            self._processes[name].send_signal(number)

    async def _start_peer(self, tasks: asyncio.TaskGroup, name: str, *, late: bool) -> None:
        options = self._options
        values = {
            "--address": self._address,
            "--name": name,
            "--data": options.data,
            "--reference": options.reference,
            "--seed": options.seed,
            "--steps": options.steps,
            "--batch-size": options.batch_size,
            "--timeout": options.timeout_s,
            "--pace": options.pace_s,
            "--min-peers": 1 if late else len(self._scenario.names),
        }
        words = [str(word) for pair in values.items() for word in pair]
        process = await self._children.start("collect.cli.demo.peer", *words)
        self._processes[name] = process
        self._story.spawned(name, process.pid, time.monotonic_ns(), late=late)
        tasks.create_task(self._watch(name, process))

    async def _watch(self, name: str, process: Process) -> None:
        """Take in all that a peer says, and then how it ended."""
        assert process.stdout is not None
        assert process.stderr is not None
        async with asyncio.TaskGroup() as streams:
            streams.create_task(self._read(name, process.stdout))
            streams.create_task(self._read(name, process.stderr))
        self._story.exited(name, await process.wait(), time.monotonic_ns())

    async def _read(self, name: str, stream: asyncio.StreamReader) -> None:
        while line := (await stream.readline()).decode(errors="replace"):
            message = decode(line)
            if message is None:
                self._story.printed(name, line.rstrip())
            else:
                self._story.on(name, message, time.monotonic_ns())
