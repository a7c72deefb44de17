"""Seeded churn over real processes: peers and the coordinator die, stall, leave and come back."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.soak import faults
from tests.soak.launcher import usage
from tests.soak.world import SIZE_MAX, SIZE_MIN, Failure, Peer, World

ELDER_ROUNDS = 40  # for so long somebody is spared, to show leaks
COORDINATOR_MORE_BYTES_MAX = 48 << 20
COORDINATOR_MORE_DESCRIPTORS_MAX = 12  # a fenced peer's connection ends when its process does

Say = Callable[[str], None]


@contextmanager
def world_of(folder: Path, seed: int) -> Iterator[World]:
    """A world that explains its failures."""
    world = World(folder, seed)
    try:
        yield world
    except (Failure, AssertionError) as error:
        pytest.fail(f"seed {seed}: {error}\n{world.launcher.report()}", pytrace=False)
    finally:
        world.close()


def found(world: World) -> None:
    """The first members."""
    world.launcher.start_coordinator()
    for _ in range(SIZE_MIN):
        world.join(min_peers=SIZE_MIN)
    world.until_settled()


def play(world: World, elder: Peer) -> str:
    """One round; returns what was done."""
    size = world.rng.randint(SIZE_MIN, SIZE_MAX)
    fault, victims = faults.choose(world, elder)
    joiners = []
    is_early = world.rng.random() < 0.4  # newcomers meet the fault
    if is_early:
        joiners += [world.join() for _ in range(faults.newcomer_count(world, size))]
        world.run_for(world.rng.choice([0.0, 0.02, 0.1]))
    done = fault(world, victims)
    joiners += [world.join() for _ in range(faults.newcomer_count(world, size))]
    world.until_settled()
    names = ", ".join(peer.name for peer in joiners)
    return f"{done}; {'before' if is_early else 'after'} it join {names}" if names else done


def check_coordinator(world: World, base: dict[int, tuple[int, int]]) -> None:
    """`base` holds what each coordinator process held when it was first looked at."""
    assert world.launcher.coordinator is not None
    pid = world.launcher.coordinator.pid
    held = usage(pid)
    descriptors, resident = base.setdefault(pid, (held.descriptors, held.resident_bytes))
    if held.descriptors > descriptors + COORDINATOR_MORE_DESCRIPTORS_MAX:
        raise Failure(f"the coordinator leaks descriptors: {held}, at first {descriptors}")
    if held.resident_bytes > resident + COORDINATOR_MORE_BYTES_MAX:
        raise Failure(f"the coordinator leaks memory: {held}, at first {resident}")


def churn(world: World, rounds: int, say: Say) -> None:
    found(world)
    base: dict[int, tuple[int, int]] = {}
    elder = next(iter(world.peers.values()))
    begin_s = time.monotonic()
    for number in range(1, rounds + 1):
        if number % ELDER_ROUNDS == 0:
            elder = list(world.peers.values())[-1]
        round_s = time.monotonic()
        try:
            done = play(world, elder)
            world.check_usage()
            check_coordinator(world, base)
        except AssertionError as error:
            raise Failure(f"round {number}: {error}") from error
        now_s = time.monotonic()
        say(
            f"round {number:3d}/{rounds}  {now_s - round_s:5.2f} s  {len(world.peers)} members, "
            f"{world.oracle.op_count} operations ({world.oracle.rerun_count} re-run): {done}"
        )
    world.leave_all()
    say(
        f"{rounds} rounds in {time.monotonic() - begin_s:.0f} s; {world.oracle.op_count} "
        f"operations checked, {world.oracle.rerun_count} of them re-run; the longest took "
        f"{max(world.reduced_s):.2f} s"
    )


@pytest.mark.soak
def test_churn_leaves_a_history_that_is_explainable(
    soak_rounds: int, seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shared_before = set(os.listdir("/dev/shm"))

    def say(line: str) -> None:
        with capsys.disabled():
            print(line, flush=True)

    say(f"\nsoak, seed {seed}, logs in {tmp_path}")
    with world_of(tmp_path, seed) as world:
        churn(world, soak_rounds, say)

    left = {name for name in os.listdir("/dev/shm") if "collect" in name} - shared_before
    assert not left, f"left in /dev/shm: {left}"
