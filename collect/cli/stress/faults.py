"""What may befall a world in one round. Each fault returns what it did, for the log.

A fault may choose its victims among the members, but for the *elder*, who is spared so that
somebody lives long enough to show leaks; at least one other member stays, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from collect.cli.stress.world import Peer, World

Run = Callable[[World, list[Peer]], str]

SLOW_BYTES_PER_S = (2e6, 50e6)


def kill_in_operation(world: World, victims: list[Peer]) -> str:
    """By the fail-point: between two frames of an operation."""
    victim, at = victims[0], world.rng.random()
    world.doom(victim)
    victim.child.say("die", at=at)
    world.until(lambda: victim.name not in world.peers, f"{victim.name} dies in an operation")
    return f"{victim.name} dies at {at:.0%} of an operation"


def kill(world: World, victims: list[Peer]) -> str:
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


def stop_and_kill(world: World, victims: list[Peer]) -> str:
    """Stopped for longer than the timeout, expelled, killed."""
    victim = victims[0]
    world.doom(victim)
    world.stop(victim)
    until_expelled(world, victim)
    world.kill(victim, kind="")
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


def pause(world: World, victims: list[Peer]) -> str:
    """Stopped for less than the timeout: nobody minds."""
    victim, time_s = victims[0], world.rng.uniform(0.02, 0.4 * world.setting.timeout_s)
    world.stop(victim)
    world.run_for(time_s)
    world.resume(victim)
    return f"{victim.name} is stopped for {time_s:.2f} s"


def leave(world: World, victims: list[Peer]) -> str:
    victim = victims[0]
    victim.is_doomed = True
    world.begin("leave", victim)
    victim.child.say("leave")
    return f"{victim.name} leaves"


def join(world: World, victims: list[Peer]) -> str:
    """One more than the world is to have; somebody leaves for it."""
    world.recoveries.begin("join", {peer.name for peer in world.members})
    joiner = world.join()
    return f"{joiner.name} joins; {leave(world, victims)}"


def kill_joiner(world: World, victims: list[Peer]) -> str:
    del victims
    joiner = world.join()
    world.run_for(world.rng.uniform(0, 0.1))
    world.kill(joiner, kind="kill-joiner")
    return f"{joiner.name} joins and is killed"


def cut(world: World, victims: list[Peer]) -> str:
    """Connections of two living peers break: they connect anew, and nobody is lost."""
    victim = victims[0]
    world.begin("cut", None)
    world.network.cut(victim.name)
    return f"all connections to {victim.name} are reset"


def slow_link(world: World, victims: list[Peer]) -> str:
    victim, time_s = victims[0], world.rng.uniform(0.05, 0.5)
    rate = world.rng.uniform(*SLOW_BYTES_PER_S)
    world.network.slow(victim.name, rate)
    world.run_for(time_s)
    world.network.slow(victim.name, 0)
    return f"connections to {victim.name} carry {rate / 1e6:.0f} MB/s for {time_s:.2f} s"


def stall_link(world: World, victims: list[Peer]) -> str:
    """Nothing passes for less than the timeout: nobody minds."""
    victim, time_s = victims[0], world.rng.uniform(0.02, 0.3 * world.setting.timeout_s)
    world.network.stall(victim.name)
    world.run_for(time_s)
    world.network.resume(victim.name)
    return f"connections to {victim.name} carry nothing for {time_s:.2f} s"


def garbage(world: World, victims: list[Peer]) -> str:
    world.network.throw_garbage(victims[0].name)
    return f"{victims[0].name} is sent garbage"


def restart_coordinator(world: World, victims: list[Peer]) -> str:
    """Operations must go on while it is away, unless somebody is being let in: then members may
    wait at the boundary for what it decides."""
    del victims
    before = world.oracle.op_count
    world.begin("restart-coordinator", None)
    world.launcher.kill_coordinator()
    world.run_for(world.rng.uniform(0.05, 0.5))
    if all(peer.is_member for peer in world.peers.values()):
        told = "operations without the coordinator"
        world.until(lambda: world.oracle.op_count > before + 5, told)
    world.launcher.start_coordinator()
    return f"the coordinator is restarted, {world.oracle.op_count - before} operations meanwhile"


def kill_without_coordinator(world: World, victims: list[Peer]) -> str:
    """A peer dies while the coordinator is away, so nobody decides before it is back."""
    victim = victims[0]
    order = world.rng.randrange(3)
    if order == 0:
        world.kill(victim, kind="")
    world.launcher.kill_coordinator()
    if order == 1:
        world.kill(victim, kind="")
    world.run_for(world.rng.uniform(0, 0.3))
    if order == 2:
        world.kill(victim, kind="")
    world.launcher.start_coordinator()
    return f"{victim.name} is killed around the coordinator's restart ({order})"


@dataclass(frozen=True)
class Fault:
    """weight: how often, beside the others; victims: how many it needs; needs_relay: it befalls
    what passes a door."""

    run: Run
    weight: float
    victims: int
    needs_relay: bool = False


FAULTS: Mapping[str, Fault] = {
    "kill-in-operation": Fault(kill_in_operation, 25, 1),
    "kill": Fault(kill, 20, 1),
    "kill-two": Fault(kill_two, 10, 2),
    "stop-and-kill": Fault(stop_and_kill, 4, 1),
    "stop-and-fence": Fault(stop_and_fence, 4, 1),
    "pause": Fault(pause, 5, 1),
    "leave": Fault(leave, 8, 1),
    "join": Fault(join, 8, 1),
    "kill-joiner": Fault(kill_joiner, 6, 0),
    "cut": Fault(cut, 8, 1, True),
    "slow-link": Fault(slow_link, 5, 1, True),
    "stall-link": Fault(stall_link, 5, 1, True),
    "garbage": Fault(garbage, 4, 1, True),
    "restart-coordinator": Fault(restart_coordinator, 4, 0),
    "kill-without-coordinator": Fault(kill_without_coordinator, 5, 1),
}


def choose(
    world: World, elder: Peer, weights: Mapping[str, float], name: str | None = None
) -> tuple[str, list[Peer]]:
    """A fault that the world can bear, or the one that is asked for; and its victims."""
    victims = [peer for peer in world.members if peer is not elder]
    world.rng.shuffle(victims)
    able = [each for each in weights if len(victims) > FAULTS[each].victims]
    if name is None:
        (name,) = world.rng.choices(able, [weights[each] for each in able])
    return name, victims


def newcomer_count(world: World, size: int) -> int:
    """How many may join so that there are `size`, and never more than may be."""
    return max(0, min(size, world.setting.size_max) - len(world.staying))
