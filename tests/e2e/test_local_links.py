"""Links within a host in a group that spans hosts: real processes that claim two hosts."""

import signal
import time
from pathlib import Path

import numpy as np
import pytest

import collect
from collect.net import addresses
from tests.e2e.world import TIMEOUT_S, Stage, world

COUNT = 100_000
ROUNDS = 30
HALVES = {"a": 0, "b": 0, "c": 1, "d": 1}


def join(stage: Stage) -> collect.Group:
    """Claims the host that the settings give this peer by name."""
    addresses.host_id = lambda: f"claimed-{stage.settings['hosts'][stage.name]}"
    return stage.join(
        transport=stage.settings.get("transport", "auto"),
        algorithm=stage.settings.get("algorithm", "hierarchical"),
    )


def shared_bytes(group: collect.Group) -> dict[str, int]:
    """By name, what went to and came from each other member through shared memory."""
    names = {peer.incarnation: peer.name for peer in group._session.view.members}
    links = group._session.control.communicator.links()
    return {names[link.peer]: link.shared_bytes for link in links if link.peer in names}


def contribution(rank: int, index: int) -> np.ndarray:
    return np.random.default_rng([rank, index]).standard_normal(COUNT).astype(np.float32)


def reducing(stage: Stage) -> None:
    """All-reduces random floats of several sizes, all alike on every member, and messages."""
    with join(stage) as group:
        stage.tell("joined", size=group.size)
        rank, size = group.rank, group.size
        for index in range(ROUNDS):
            count = (7, 5000, COUNT)[index % 3]
            result = group.all_reduce(contribution(rank, index)[:count])
            parts = [contribution(each, index)[:count].astype(np.float64) for each in range(size)]
            assert np.allclose(result.array, sum(parts), atol=1e-4)
            alike = group.all_gather(result.array[:64].view(np.uint8))
            assert (alike.array.reshape(size, -1) == result.array[:64].view(np.uint8)).all()
        target = np.zeros(COUNT)
        for other in range(size):
            got = group.sendrecv(np.full(COUNT, 1.0 + rank), other, target, other)
            assert got.count == COUNT
            assert (target == 1.0 + other).all()
        shared = shared_bytes(group)
        group.barrier()  # before anybody leaves
        name = f"{group._session.view.members[rank].incarnation:016x}"
        stage.tell("over", transport=result.transport, shared=shared, name=name)


@pytest.mark.parametrize("algorithm", ["auto", "hierarchical", "direct"])
def test_members_of_one_host_share_memory_and_others_do_not(algorithm: str) -> None:
    hosts = {"a": 0, "b": 1, "c": 0, "d": 1}
    with world() as here:
        peers = here.team(reducing, 4, hosts=hosts, algorithm=algorithm)
        for peer in peers:
            assert peer.told("joined")["size"] == 4
        names = set()
        for peer in peers:
            told = peer.told("over")
            names.add(told["name"])
            assert told["transport"] == "mixed"
            for other, count in told["shared"].items():
                if hosts[other] == hosts[peer.name]:
                    assert count > 8 * COUNT
                else:
                    assert count == 0
            assert peer.wait() == 0
    left = [path.name for path in Path("/dev/shm").iterdir()]
    assert not [file for file in left if any(name in file for name in names)]


def test_tcp_means_never() -> None:
    hosts = {"a": 0, "b": 1, "c": 0, "d": 1}
    with world() as here:
        peers = here.team(reducing, 4, hosts=hosts, transport="tcp")
        for peer in peers:
            peer.told("joined")
        for peer in peers:
            told = peer.told("over")
            assert told["transport"] == "tcp"
            assert set(told["shared"].values()) == {0}
            assert peer.wait() == 0


def powers(stage: Stage) -> None:
    """Contributes a power of two per name, so that a sum tells who is in it; then messages."""
    with join(stage) as group:
        bit_of = {peer.name: 2.0**peer.rank for peer in group.peers}
        stage.tell("joined")
        last: set[str] = set()
        while True:
            is_last = stage.name == "a" and stage.stop_was_said()
            value = np.full(COUNT, bit_of[stage.name])
            value[-1] = is_last
            shared = shared_bytes(group)  # before anybody leaves
            result = group.all_reduce(value, timeout=30)
            want = sum(bit_of[name] for name in result.participants)
            assert (result.array[:-1] == want).all(), (result, want)
            if set(result.participants) != last:
                last = set(result.participants)
                stage.tell("members", names=sorted(last))
            if result.array[-1] > 0:
                break
        stage.tell("over", shared=shared)


@pytest.mark.parametrize("victim", ["b", "c"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_member_that_dies_or_freezes_in_the_middle_is_left_behind(
    victim: str, number: signal.Signals
) -> None:
    with world() as here:
        peers = here.team(powers, 4, hosts=HALVES)
        for peer in peers:
            peer.told("joined")
            assert peer.told("members")["names"] == ["a", "b", "c", "d"]
        lost = next(peer for peer in peers if peer.name == victim)
        survivors = [peer for peer in peers if peer.name != victim]
        time.sleep(0.3)  # operations are under way
        began_s = time.monotonic()
        lost.kill(number)
        for peer in survivors:
            assert peer.told("members")["names"] == [each.name for each in survivors]
        if number == signal.SIGKILL:
            # Noticed by the socket that ends, and not by its silence.
            assert time.monotonic() - began_s < 5 * TIMEOUT_S
        survivors[0].say("stop")
        for peer in survivors:
            shared = peer.told("over")["shared"]
            assert {name for name, count in shared.items() if count > 0} == {
                each.name
                for each in survivors
                if each is not peer and HALVES[each.name] == HALVES[peer.name]
            }
            assert peer.wait() == 0
        lost.kill(signal.SIGKILL)
