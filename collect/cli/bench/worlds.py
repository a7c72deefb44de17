"""Worlds of worker processes, and the order in which they are measured."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from asyncio import StreamReader, StreamWriter
from asyncio.subprocess import Process
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from collect.cli.bench.cases import Case, Variant
from collect.cli.bench.figures import (
    NS_PER_S,
    Figures,
    iterations_for,
    operation_times,
    shares,
    sum_up,
)
from collect.cli.bench.peers import Peer
from collect.cli.bench.suite import Suite
from collect.cli.children import ChildFailed, Children

COLLECT = "collect"
COORDINATOR_TIMEOUT_S = 30.0  # of the measured groups
OPEN_S = 90.0  # for all processes of a world to start and meet
ANSWER_S = 120.0  # a worker that is silent for so long is stuck
CLOSE_S = 5.0  # for them to leave; who has not is killed
LINE_BYTES_MAX = 1 << 22


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing to be timed at a case: a world doing it in one way."""

    world: World
    variant: Variant


@dataclass(slots=True)
class Notes:
    """What could not be measured, and why; each said once."""

    lines: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)  # of each library

    def add(self, line: str) -> None:
        if line not in self.lines:
            self.lines.append(line)


class World:
    """The processes of one library with one transport. `peer` is None for this library."""

    def __init__(
        self, children: Children, suite: Suite, size: int, transport: str, peer: Peer | None
    ) -> None:
        self.library = peer.name if peer else COLLECT
        self.transport = transport
        self.size = size
        self.peer = peer
        self.label = f"{self.library}/{transport}"
        self.version = ""
        self._children = children
        self._suite = suite
        self._processes: list[Process] = []
        self._workers: dict[int, tuple[StreamReader, StreamWriter]] = {}  # by rank
        self._is_complete = asyncio.Event()
        self._failure: str | None = None

    async def open(self, folder: Path) -> None:
        """Start every process and wait until all have met."""
        orders = folder / "orders"
        server = await asyncio.start_unix_server(self._greet, orders, limit=LINE_BYTES_MAX)
        async with server:
            meeting = str(folder / "meeting")
            if self.peer is None:
                meeting = await self._children.start_coordinator(COORDINATOR_TIMEOUT_S)
            for command in self._commands(str(orders), meeting):
                self._processes.append(await self._children.start_program(*command))
            await self._meet()

    def entries(self, case: Case) -> list[Entry]:
        """The ways in which this library does the case."""
        if self.peer is None:
            return [Entry(self, variant) for variant in self._suite.variants(case)]
        return [Entry(self, Variant(mode=mode)) for mode in self.peer.modes]

    async def prepare(self, case: Case, variant: Variant) -> tuple[float, str]:
        """Seconds that one operation takes; or why it cannot be done."""
        answers = await self._order(
            do="prepare",
            case=asdict(case),
            variant=asdict(variant),
            is_checked=self._suite.is_checked,
        )
        for answer in answers:
            if "unavailable" in answer:
                return 0.0, answer["unavailable"]
        return max(answer["one_ns"] for answer in answers) / NS_PER_S, ""

    async def measure(
        self, case: Case, variant: Variant, iterations: int
    ) -> npt.NDArray[np.float64]:
        """Seconds of each operation."""
        answers = await self._order(do="measure", variant=asdict(variant), iterations=iterations)
        return operation_times(case.collective, [answer["times_ns"] for answer in answers])

    async def release(self) -> None:
        """Gives up the arrays of the last case."""
        await self._order(do="release")

    async def close(self) -> None:
        """Ends every worker in order, so that none leaves a segment of memory behind."""
        for _, writer in self._workers.values():
            writer.close()
        ends = [asyncio.create_task(process.wait()) for process in self._processes]
        if ends:
            await asyncio.wait(ends, timeout=CLOSE_S)
        for end in ends:
            end.cancel()

    def _commands(self, orders: str, meeting: str) -> list[list[str]]:
        worker = [sys.executable, "-m", "collect.cli.bench.worker"]
        values = {
            "--orders": orders,
            "--library": self.library,
            "--transport": self.transport,
            "--meeting": meeting,
            "--world": self.size,
            "--streams": self._suite.streams,
            "--algorithm": "" if self.peer else self._suite.group_algorithm,
        }
        worker += [str(word) for pair in values.items() for word in pair]
        if self.peer is not None:
            return self.peer.commands(self.size, [*worker, "--rank"])
        return [[*worker, "--rank", str(rank)] for rank in range(self.size)]

    async def _greet(self, reader: StreamReader, writer: StreamWriter) -> None:
        """A worker has connected: it tells its rank when its world is complete."""
        try:
            hello = json.loads(await reader.readline() or '{"error": "ended without a word"}')
        except ConnectionError as error:
            hello = {"error": str(error)}
        if "error" in hello:
            self._failure = hello["error"]
            self._is_complete.set()
            writer.close()
            return
        self.version = hello["version"]
        self._workers[hello["rank"]] = reader, writer
        if len(self._workers) == self.size:
            self._is_complete.set()

    async def _meet(self) -> None:
        """Waits for every worker; or for a process that ended, or told why it cannot."""
        met = asyncio.create_task(self._is_complete.wait())
        ends = [asyncio.create_task(process.wait()) for process in self._processes]
        try:
            await asyncio.wait([met, *ends], timeout=OPEN_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (met, *ends):
                task.cancel()
        if len(self._workers) < self.size:
            raise ChildFailed(f"{self._who()}: {self._failure or await self._last_words()}")

    async def _order(self, **order: Any) -> list[dict[str, Any]]:
        """Every worker's answer, by rank."""
        line = f"{json.dumps(order)}\n".encode()
        for _, writer in self._workers.values():
            writer.write(line)
        return list(await asyncio.gather(*map(self._answer, range(self.size))))

    async def _answer(self, rank: int) -> dict[str, Any]:
        reader, _ = self._workers[rank]
        try:
            line = await asyncio.wait_for(reader.readline(), ANSWER_S)
        except TimeoutError:
            raise ChildFailed(f"{self._who()}: no answer for {ANSWER_S:.0f} s") from None
        except ConnectionError:
            line = b""
        if not line:
            raise ChildFailed(f"{self._who()}: {await self._last_words()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ChildFailed(f"{self._who()}: {answer['error']}")
        return answer

    def _who(self) -> str:
        return f"{self.label}, {self.size} processes"

    async def _last_words(self) -> str:
        """Of the processes' error output, the last line."""
        await self._children.end()
        for process in self._processes:
            assert process.stderr is not None
            text = (await process.stderr.read()).decode(errors="replace")
            lines = [line for line in text.replace("\0", "").splitlines() if line.strip(" -")]
            if lines:
                return lines[-1].strip()
        return "ended, or hung, without a word"


async def measure_suite(
    suite: Suite, on_figures: Callable[[list[Figures]], None], notes: Notes
) -> None:
    """Measure everything; `on_figures` gets the figures of one case, of all libraries."""
    with tempfile.TemporaryDirectory(prefix="collect-bench-") as folder:
        for size in suite.worlds:
            async with AsyncExitStack() as stack:
                worlds = await _open_worlds(suite, size, Path(folder) / str(size), stack, notes)
                for case in suite.cases(size):
                    figures = await _measure_case(suite, worlds, case, notes)
                    if figures:
                        on_figures(figures)


async def _open_worlds(
    suite: Suite, size: int, folder: Path, stack: AsyncExitStack, notes: Notes
) -> list[World]:
    """Every library's processes; they stay for all cases."""
    contenders: list[tuple[str, Peer | None]] = [(each, None) for each in suite.transports]
    contenders += [(peer.transport, peer) for peer in suite.peers]
    worlds = []
    for index, (transport, peer) in enumerate(contenders):
        children = await stack.enter_async_context(Children())
        world = World(children, suite, size, transport, peer)
        own_folder = folder / str(index)
        own_folder.mkdir(parents=True)
        try:
            await world.open(own_folder)
        except ChildFailed as error:
            if peer is None:
                raise
            notes.add(str(error))
            continue
        stack.push_async_callback(world.close)
        notes.versions[world.library] = world.version
        worlds.append(world)
    return worlds


async def _measure_case(
    suite: Suite, worlds: list[World], case: Case, notes: Notes
) -> list[Figures]:
    """Libraries take turns, so that whatever else the machine does meets all of them."""
    counts: dict[Entry, list[int]] = {}
    for entry in [entry for world in worlds for entry in world.entries(case)]:
        one_s = await _attempt(worlds, entry, case, notes)
        if one_s is not None:
            total = suite.iterations or iterations_for(one_s, suite.budget_s)
            counts[entry] = shares(total, suite.rounds)
    rounds: dict[Entry, list[npt.NDArray[np.float64]]] = {entry: [] for entry in counts}
    for index in range(suite.rounds):
        for entry, count in counts.items():
            if index < len(count) and entry.world in worlds:
                try:
                    times_s = await entry.world.measure(case, entry.variant, count[index])
                except ChildFailed as error:
                    _drop(worlds, entry.world, error, notes)
                else:
                    rounds[entry].append(times_s)
    for world in list(worlds):
        try:
            await world.release()
        except ChildFailed as error:
            _drop(worlds, world, error, notes)
    return [_figures(entry, case, taken) for entry, taken in rounds.items() if taken]


async def _attempt(worlds: list[World], entry: Entry, case: Case, notes: Notes) -> float | None:
    """Seconds of one operation; None, and a note, when it cannot be done."""
    world = entry.world
    if world not in worlds:
        return None
    try:
        one_s, reason = await world.prepare(case, entry.variant)
    except ChildFailed as error:
        _drop(worlds, world, error, notes)
        return None
    if reason:
        ways = [entry.variant.algorithm, entry.variant.mode, entry.variant.arrays]
        way = " ".join(each for each in ways if each not in ("", "auto", "call", "private"))
        what = f"{case.dtype} {case.collective} {case.op} {case.placement} {way}"
        notes.add(f"{world.label}, {' '.join(what.split())}: {reason}")
        return None
    return one_s


def _drop(worlds: list[World], world: World, error: ChildFailed, notes: Notes) -> None:
    """A peer that fails is left out from here on; this library's failure ends the run."""
    if world.peer is None:
        raise error
    worlds.remove(world)
    notes.add(f"left out from there on: {error}")


def _figures(entry: Entry, case: Case, rounds: Sequence[npt.NDArray[np.float64]]) -> Figures:
    world = entry.world
    return sum_up((world.library, world.transport), world.size, case, entry.variant, rounds)
