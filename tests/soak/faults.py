"""What may befall a world in one round. Each returns what it did, for the log.

A fault may choose its victims among the members, but for the *elder*, who is spared so that
somebody lives long enough to show leaks; at least one other member stays, too.
"""

from collections.abc import Callable

from tests.soak.world import SIZE_MAX, TIMEOUT_S, Peer, World

Fault = Callable[[World, list[Peer]], str]


def kill_in_operation(world: World, victims: list[Peer]) -> str:
    """By the fail-point: between two frames of an operation."""
    victim, at = victims[0], world.rng.random()
    world.doom(victim)
    victim.child.say("die", at=at)
    return f"{victim.name} dies at {at:.0%} of an operation"


def kill_any_time(world: World, victims: list[Peer]) -> str:
    world.run_for(world.rng.uniform(0, 0.1))
    world.kill(victims[0])
    return f"{victims[0].name} is killed"


def kill_two(world: World, victims: list[Peer]) -> str:
    first, second, *_ = victims
    world.doom(first)
    if world.rng.random() < 0.5:
        first.child.say("die", at=world.rng.random())
    else:
        world.kill(first)
    world.run_for(world.rng.choice([0.0, 0.0, 0.005, 0.05]))
    world.kill(second)
    return f"{first.name} and {second.name} die"


def kill_stopped(world: World, victims: list[Peer]) -> str:
    """Stopped for longer than the timeout, expelled, killed."""
    victim = victims[0]
    world.doom(victim)
    world.stop(victim)
    until_expelled(world, victim)
    world.kill(victim)
    return f"{victim.name} is stopped, expelled, killed"


def stop_and_fence(world: World, victims: list[Peer]) -> str:
    """Stopped for longer than the timeout; told so when it wakes; joins again."""
    victim = victims[0]
    world.doom(victim)
    world.stop(victim)
    until_expelled(world, victim)
    world.resume(victim)
    world.until(lambda: victim.name in world.fenced, f"{victim.name} is told that it is fenced")
    again = world.join(victim.child)
    return f"{victim.name} is stopped, fenced, joins as {again.name}"


def until_expelled(world: World, victim: Peer) -> None:
    world.until(
        lambda: all(victim.name not in peer.participants for peer in world.members),
        f"{victim.name}, stopped, is expelled",
    )


def stop_shortly(world: World, victims: list[Peer]) -> str:
    """Stopped for less than the timeout: nobody minds."""
    victim, time_s = victims[0], world.rng.uniform(0.02, 0.4 * TIMEOUT_S)
    world.stop(victim)
    world.run_for(time_s)
    world.resume(victim)
    return f"{victim.name} is stopped for {time_s:.2f} s"


def leave(world: World, victims: list[Peer]) -> str:
    victim = victims[0]
    victim.is_doomed = True
    victim.child.say("leave")
    return f"{victim.name} leaves"


def kill_joiner(world: World, victims: list[Peer]) -> str:
    del victims
    joiner = world.join()
    world.run_for(world.rng.uniform(0, 0.1))
    world.kill(joiner)
    return f"{joiner.name} joins and is killed"


def restart_coordinator(world: World, victims: list[Peer]) -> str:
    """Operations must go on while it is away."""
    del victims
    before = world.oracle.op_count
    world.launcher.kill_coordinator()
    world.run_for(world.rng.uniform(0.05, 0.5))
    world.until(lambda: world.oracle.op_count > before + 5, "operations without the coordinator")
    world.launcher.start_coordinator()
    return f"the coordinator is restarted, {world.oracle.op_count - before} operations meanwhile"


def kill_without_coordinator(world: World, victims: list[Peer]) -> str:
    """A peer dies while the coordinator is away, so nobody decides before it is back."""
    victim = victims[0]
    order = world.rng.randrange(3)
    if order == 0:
        world.kill(victim)
    world.launcher.kill_coordinator()
    if order == 1:
        world.kill(victim)
    world.run_for(world.rng.uniform(0, 0.3))
    if order == 2:
        world.kill(victim)
    world.launcher.start_coordinator()
    return f"{victim.name} is killed around the coordinator's restart ({order})"


# fault, how often, how many victims it needs
FAULTS: list[tuple[Fault, int, int]] = [
    (kill_in_operation, 30, 1),
    (kill_any_time, 20, 1),
    (kill_two, 12, 2),
    (kill_stopped, 5, 1),
    (stop_and_fence, 5, 1),
    (stop_shortly, 4, 1),
    (leave, 8, 1),
    (kill_joiner, 6, 0),
    (restart_coordinator, 4, 0),
    (kill_without_coordinator, 5, 1),
]


def choose(world: World, elder: Peer) -> tuple[Fault, list[Peer]]:
    """A fault that the world can bear, and its victims."""
    victims = [peer for peer in world.members if peer is not elder]
    world.rng.shuffle(victims)
    able = [(fault, weight) for fault, weight, least in FAULTS if len(victims) > least]
    faults, weights = zip(*able, strict=True)
    return world.rng.choices(faults, weights)[0], victims


def newcomer_count(world: World, size: int) -> int:
    """How many may join so that there are `size`, and never more than SIZE_MAX."""
    return max(0, min(size, SIZE_MAX) - len(world.staying))
