"""Worlds of worker processes, and the order in which they are measured."""

from __future__ import annotations

import asyncio
import json
import tempfile
from asyncio.subprocess import Process
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from collect.cli.bench.figures import NS_PER_S, Figures, iterations_for, sum_up
from collect.cli.bench.libraries import WorkerOptions
from collect.cli.children import ChildFailed, Children

CALIBRATION_ITERATIONS = 5
WARM_UP_ITERATIONS = 3
ROUNDS = 4  # libraries take turns: A B A B A B A B
TIMEOUT_S = 5.0  # of the measured groups
ANSWER_S = 120.0  # a worker that is silent for so long is stuck


@dataclass(frozen=True, slots=True)
class Suite:
    """What to measure."""

    libraries: tuple[str, ...]
    worlds: tuple[int, ...]
    sizes_bytes: tuple[int, ...]
    dtype: str
    streams: int
    algorithm: str
    iterations: int | None  # None: as many as fit into the budget
    budget_s: float  # for one size of one library


class World:
    """The worker processes of one library."""

    def __init__(self, children: Children, suite: Suite, library: str, size: int) -> None:
        self.library = library
        self.size = size
        self._children = children
        self._suite = suite
        self._workers: list[Process] = []

    async def open(self, folder: Path) -> None:
        """Start every worker and wait until all are members."""
        is_gloo = self.library == "gloo"
        meeting = (
            str(folder / f"gloo-{self.size}")
            if is_gloo
            else await self._children.start_coordinator(TIMEOUT_S)
        )
        options = WorkerOptions(
            library=self.library,
            meeting=meeting,
            rank=0,
            world=self.size,
            streams=self._suite.streams,
            algorithm=self._suite.algorithm,
        )
        for rank in range(self.size):
            words = _words(replace(options, rank=rank), self._suite.dtype)
            self._workers.append(await self._children.start("collect.cli.bench.worker", *words))
        await self._answers()

    async def measure(self, size_bytes: int, *, iterations: int, verify: bool = False) -> list[int]:
        """Nanoseconds of all iterations of all members."""
        order = {
            "size_bytes": size_bytes,
            "warm_up": WARM_UP_ITERATIONS,
            "iterations": iterations,
            "verify": verify,
        }
        for worker in self._workers:
            assert worker.stdin is not None
            worker.stdin.write(f"{json.dumps(order)}\n".encode())
        answers = await self._answers()
        return [time_ns for answer in answers for time_ns in answer["times_ns"]]

    async def _answers(self) -> list[dict[str, Any]]:
        return await asyncio.gather(*map(self._answer, range(self.size)))

    async def _answer(self, rank: int) -> dict[str, Any]:
        worker = self._workers[rank]
        who = f"{self.library}, rank {rank} of {self.size}"
        assert worker.stdout is not None
        assert worker.stderr is not None
        try:
            line = await asyncio.wait_for(worker.stdout.readline(), ANSWER_S)
        except TimeoutError:
            raise ChildFailed(f"{who}: no answer for {ANSWER_S:.0f} s") from None
        if not line:
            errors = (await worker.stderr.read()).decode(errors="replace").strip().splitlines()
            raise ChildFailed(f"{who}: {errors[-1] if errors else 'ended without a word'}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ChildFailed(f"{who}: {answer['error']}")
        return answer


async def measure_suite(suite: Suite, on_figures: Callable[[list[Figures]], None]) -> None:
    """Measure everything; `on_figures` gets one line, with all libraries, at a time."""
    with tempfile.TemporaryDirectory(prefix="collect-bench-") as folder:
        for size in suite.worlds:
            async with AsyncExitStack() as stack:
                worlds = []
                for library in suite.libraries:
                    children = await stack.enter_async_context(Children())
                    worlds.append(World(children, suite, library, size))
                for world in worlds:
                    await world.open(Path(folder))
                for size_bytes in suite.sizes_bytes:
                    on_figures(await _measure_size(suite, worlds, size_bytes))


async def _measure_size(suite: Suite, worlds: list[World], size_bytes: int) -> list[Figures]:
    """Libraries take turns, so that whatever else the machine does meets all of them."""
    iterations = {}
    for world in worlds:
        times_ns = await world.measure(size_bytes, iterations=CALIBRATION_ITERATIONS, verify=True)
        one_s = sorted(times_ns)[len(times_ns) // 2] / NS_PER_S
        iterations[world.library] = suite.iterations or iterations_for(one_s, suite.budget_s)
    samples: dict[str, list[int]] = {world.library: [] for world in worlds}
    for round_index in range(ROUNDS):
        for world in worlds:
            # The remainder of a division goes to the first rounds.
            share = (iterations[world.library] + ROUNDS - 1 - round_index) // ROUNDS
            if share:
                samples[world.library] += await world.measure(size_bytes, iterations=share)
    return [
        sum_up(world.library, world.size, size_bytes, samples[world.library]) for world in worlds
    ]


def _words(options: WorkerOptions, dtype: str) -> list[str]:
    values = {
        "--library": options.library,
        "--meeting": options.meeting,
        "--rank": options.rank,
        "--world": options.world,
        "--streams": options.streams,
        "--algorithm": options.algorithm,
        "--dtype": dtype,
    }
    return [str(word) for pair in values.items() for word in pair]
