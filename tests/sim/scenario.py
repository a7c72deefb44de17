"""What happens to a world, from its seed: faults for a while, then peace, then progress."""

import random
from collections.abc import Callable
from functools import partial

from collect.types import Admit, CancelKind, LinkLoss
from tests.sim.history import Violation
from tests.sim.world import TIMEOUT_S, Kinds, Process, World

PEERS = 5
FAULTS_UNTIL_S = 0.7
PROGRESS_WITHIN_S = 30 * TIMEOUT_S
OPS_AFTER_HEALING = 6


class Failure(AssertionError):
    """A seed that breaks an invariant, with the command that replays it."""

    def __init__(self, seed: int, reason: str) -> None:
        super().__init__(f"{reason}\nreplay: python -m tests.sim.replay --seed {seed} --trace")
        self.seed = seed
        self.reason = reason


def simulate(seed: int, kinds: Kinds | None = None, trace: bool = False) -> World:
    """Runs a seed to its end. Failure: it broke an invariant, or stopped making progress."""
    rng = random.Random(seed ^ 0x5EED)
    admit = rng.choice((Admit.AUTO, Admit.MANUAL))
    world = World(seed, admit=admit, min_peers=rng.choice((1, PEERS - 1, PEERS)), kinds=kinds)
    if trace:
        world.timeline = [f"seed {seed}, admit {admit.name}"]
    try:
        play(world, rng)
    except AssertionError as error:
        world.trace("", f"FAILED: {error}")
        failure = Failure(seed, f"seed {seed} at {world.now_s * 1000:.1f} ms: {error}")
        failure.world = world  # type: ignore[attr-defined]
        raise failure from error
    return world


def play(world: World, rng: random.Random) -> None:
    world.start_coordinator()
    for _ in range(PEERS):
        world.at(0.01 * rng.random(), world.spawn)
    faults = rng.randint(6, 14) if rng.random() < 0.2 else rng.randint(1, 6)
    for _ in range(faults):
        fault = rng.choices(FAULTS, WEIGHTS)[0]
        start_s = 0.03 + rng.random() * FAULTS_UNTIL_S
        world.at(start_s, partial(fault, world, rng))
        if rng.random() < 0.3:  # a second one at nearly the same time
            again = rng.choices(FAULTS, WEIGHTS)[0]
            world.at(start_s + rng.random() * 0.006, partial(again, world, rng))
    world.run(FAULTS_UNTIL_S + 3 * TIMEOUT_S)
    world.dies_after_sends = None
    for process in world.processes.values():
        process.dies_after_frames = None
    world.start_coordinator()
    world.is_healed = True
    check_progress(world)


def check_progress(world: World) -> None:
    """Everybody who runs, those who come late included, gets further."""
    goal = {p.incarnation: p.app.ops_done + OPS_AFTER_HEALING for p in world.processes.values()}

    def lagging() -> list[Process]:
        return [
            process
            for process in world.processes.values()
            if process.is_running
            and not process.app.is_stopped
            and process.app.ops_done < goal.get(process.incarnation, OPS_AFTER_HEALING)
        ]

    def is_done() -> bool:
        return not lagging() or waits_for_more(world)

    if not world.run(world.now_s + PROGRESS_WITHIN_S, is_done, check_every_s=0.02):
        names = ", ".join(process.name for process in lagging())
        raise Violation(f"no progress within {PROGRESS_WITHIN_S:.1f} s: {names}")


def waits_for_more(world: World) -> bool:
    """No group, and too few to form one."""
    running = sum(process.is_running for process in world.processes.values())
    is_formed = world.coordinator is not None and world.coordinator.view is not None
    return not is_formed and running < world.min_peers


def some_process(world: World, rng: random.Random) -> Process | None:
    running = [p for p in world.processes.values() if p.is_running and not p.app.is_stopped]
    return rng.choice(running) if len(running) > 1 else None


def crash(world: World, rng: random.Random) -> None:
    if process := some_process(world, rng):
        world.crash(process)


def crash_in_operation(world: World, rng: random.Random) -> None:
    if process := some_process(world, rng):
        process.dies_after_frames = rng.randint(0, 12)


def pause_shortly(world: World, rng: random.Random) -> None:
    if process := some_process(world, rng):
        world.pause(process, TIMEOUT_S * rng.uniform(0.1, 0.9))


def pause_long(world: World, rng: random.Random) -> None:
    if process := some_process(world, rng):
        world.pause(process, TIMEOUT_S * rng.uniform(1.1, 3.5))


def join(world: World, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 2))):
        world.at(rng.random() * 0.004, world.spawn)


def leave(world: World, rng: random.Random) -> None:
    if process := some_process(world, rng):
        world.leave(process)


def restart_coordinator(world: World, rng: random.Random) -> None:
    world.stop_coordinator()
    world.at(rng.choice((0.0, 0.003, TIMEOUT_S / 4, 1.5 * TIMEOUT_S)), world.start_coordinator)


def kill_coordinator_sending(world: World, rng: random.Random) -> None:
    """It dies in the middle of telling everybody."""
    world.dies_after_sends = rng.randint(0, 30)


def break_link(world: World, rng: random.Random) -> None:
    running = [p for p in world.processes.values() if p.is_running]
    if len(running) > 1:
        one, other = rng.sample(running, 2)
        world.trace(one.name, f"LINK to {other.name} BREAKS")
        one.is_disturbed = other.is_disturbed = True
        world.break_link(one.incarnation, other.incarnation, LinkLoss.RESET)


def reset_control(world: World, rng: random.Random) -> None:
    if process := some_process(world, rng):
        world.reset_connection(process)


def cancel(world: World, rng: random.Random) -> None:
    if process := some_process(world, rng):
        world.cancel(process, rng.choice((CancelKind.ABORT, CancelKind.TIMEOUT)))


def call_otherwise(world: World, rng: random.Random) -> None:
    if process := some_process(world, rng):
        process.app.wrong_digest = 1000


FAULTS: tuple[Callable[[World, random.Random], None], ...] = (
    crash,
    crash_in_operation,
    pause_shortly,
    pause_long,
    join,
    leave,
    restart_coordinator,
    kill_coordinator_sending,
    break_link,
    reset_control,
    cancel,
    call_otherwise,
)
WEIGHTS = (3, 3, 2, 2, 4, 2, 2, 3, 2, 1, 2, 1)
