"""The run itself: found a group, let faults happen, check after each that all is well."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path

from collect.cli.stress import faults
from collect.cli.stress.launcher import usage
from collect.cli.stress.scenario import Scenario
from collect.cli.stress.world import Failure, Peer, World

ELDER_ROUNDS = 40  # for so long somebody is spared, to show leaks
EARLY_SHARE = 0.4  # of the newcomers meet the fault
COORDINATOR_MORE_BYTES_MAX = 48 << 20
COORDINATOR_MORE_DESCRIPTORS_MAX = 12  # a fenced peer's connection ends when its process does
SHARED_MEMORY = Path("/dev/shm")


@dataclass
class Progress:
    """How far a run is; the display looks at it."""

    world: World
    scenario: Scenario
    began_s: float = 0.0  # when everybody had joined; 0: not yet
    over_s: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)  # faults by name
    lines: list[str] = field(default_factory=list)  # what happened, the latest last

    @property
    def elapsed_s(self) -> float:
        return (self.over_s or time.monotonic()) - self.began_s if self.began_s else 0.0

    @property
    def fault_count(self) -> int:
        return sum(self.counts.values())


def churn(progress: Progress) -> None:
    """Plays the scenario. Raises what the world and its oracle find wrong."""
    world, scenario = progress.world, progress.scenario
    shared = _shared_names()
    world.launcher.start_coordinator()
    for _ in range(scenario.peers):
        world.join(min_peers=scenario.peers)
    world.until_settled()
    progress.began_s = time.monotonic()
    elder = next(iter(world.peers.values()))
    base: dict[int, tuple[int, int]] = {}
    number = 0
    while (due_s := scenario.due_s(number)) is not None:
        if number % ELDER_ROUNDS == ELDER_ROUNDS - 1:
            elder = list(world.peers.values())[-1]
        if (left_s := due_s - progress.elapsed_s) > 0:
            world.run_for(left_s)
        elif not scenario.moments and progress.elapsed_s > scenario.end_s:
            break  # the machine is too slow for so many
        _play(progress, elder, number)
        world.check_usage()
        _check_coordinator(world, base)
        number += 1
    progress.over_s = time.monotonic()
    world.leave_all()
    if left := _shared_names() - shared:
        raise Failure(f"left in {SHARED_MEMORY}: {', '.join(sorted(left))}")


def _play(progress: Progress, elder: Peer, number: int) -> None:
    """One fault, and the world whole again."""
    world, scenario = progress.world, progress.scenario
    begin_s = time.monotonic()
    size = world.rng.randint(scenario.size_min, scenario.peers)
    name, victims = faults.choose(world, elder, scenario.weights, scenario.named(number))
    progress.counts[name] = progress.counts.get(name, 0) + 1
    is_early = world.rng.random() < EARLY_SHARE
    joiners = []
    if is_early:
        joiners += [world.join() for _ in range(faults.newcomer_count(world, size))]
        world.run_for(world.rng.choice([0.0, 0.02, 0.1]))
    done = faults.FAULTS[name].run(world, victims)
    joiners += [world.join() for _ in range(faults.newcomer_count(world, size))]
    world.until_settled()
    if joiners:
        names = ", ".join(peer.name for peer in joiners)
        done = f"{done}; {'before' if is_early else 'after'} it join {names}"
    progress.lines.append(
        f"{progress.elapsed_s:7.2f} s  fault {number + 1}, {time.monotonic() - begin_s:.2f} s, "
        f"{len(world.peers)} members, {world.oracle.op_count} operations "
        f"({world.oracle.rerun_count} re-run): {done}"
    )
    world.on_pump()


def _check_coordinator(world: World, base: dict[int, tuple[int, int]]) -> None:
    """`base` holds what each coordinator process held when it was first looked at."""
    assert world.launcher.coordinator is not None
    pid = world.launcher.coordinator.pid
    held = usage(pid)
    descriptors, resident = base.setdefault(pid, (held.descriptors, held.resident_bytes))
    more = world.setting.size_max + COORDINATOR_MORE_DESCRIPTORS_MAX
    if held.descriptors > descriptors + more:
        raise Failure(f"the coordinator leaks descriptors: {held}, at first {descriptors}")
    if held.resident_bytes > resident + COORDINATOR_MORE_BYTES_MAX:
        raise Failure(f"the coordinator leaks memory: {held}, at first {resident}")


def _shared_names() -> set[str]:
    """What lies in shared memory under our names."""
    if not SHARED_MEMORY.is_dir():
        return set()
    return {name for name in os.listdir(SHARED_MEMORY) if name.startswith("collect-")}
