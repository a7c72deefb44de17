"""Messages between members over real processes: what arrives, in which order, and what fails."""

import asyncio
import os
import signal
import time

import numpy as np
import pytest

import collect
from collect.native.communicator import PIECES
from tests.e2e.world import Stage, error_fields, world

SIZES = (0, 1, 1024, 1025, 5000, 300_000)
LARGE = 1 << 24  # bytes: 64 pieces


def ring(stage: Stage) -> None:
    """Everybody sends to the next and receives from the one before, in many ways."""
    with stage.join() as group:
        size, rank = group.size, group.rank
        after, before = (rank + 1) % size, (rank - 1) % size
        name_before = group.peers[before].name
        for count in SIZES:
            source = np.arange(count, dtype=np.float64) + rank
            target = np.zeros(count + 3)
            got = group.sendrecv(source, after, target, before)
            assert got.peer == name_before
            assert (got.count, got.bytes) == (count, 8 * count)
            assert got.array is target
            assert (target[:count] == np.arange(count) + before).all()
            assert (target[count:] == 0).all()

        # By name, by tag, and in the order of the tags that are asked for.
        works = [
            group.send(np.full(50, 10 * rank + tag, np.int16), after, tag=tag, async_op=True)
            for tag in range(5)
        ]
        for tag in (3, 0, 4, 2, 1):
            target16 = np.zeros(50, np.int16)
            assert group.recv(target16, name_before, tag=tag).count == 50
            assert (target16 == 10 * before + tag).all()
        assert [work.wait().peer for work in works] == [group.peers[after].name] * 5
        assert all(work.done() for work in works)

        # Messages do not overtake each other.
        works = [
            group.send(np.array([index], np.uint8), after, async_op=True) for index in range(200)
        ]
        one = np.zeros(1, np.uint8)
        assert [int(group.recv(one).array[0]) for _ in range(200)] == list(range(200))
        for work in works:
            work.wait()

        # Other layouts, and to itself.
        matrix = np.arange(12, dtype=np.int32).reshape(3, 4)
        column = np.zeros((3, 4), np.int32)
        group.sendrecv(matrix.T, rank, column.T, rank, tag=2**64 - 1)
        assert (column == matrix).all()
        group.barrier()  # ranks stay until here
        stage.tell("over")


@pytest.mark.parametrize("streams", [1, 3])
def test_messages_go_round_a_ring(streams: int) -> None:
    with world() as here:
        peers = here.team(ring if streams == 1 else ring_of_streams, 3)
        for peer in peers:
            peer.told("over")
            assert peer.wait() == 0


def ring_of_streams(stage: Stage) -> None:
    os.environ["COLLECT_STREAMS"] = "3"
    ring(stage)


def gatherer(stage: Stage) -> None:
    """Rank 0 receives from anybody, while collectives run."""
    with stage.join() as group:
        rank, size = group.rank, group.size
        sums = []
        work = []
        for step in range(10):
            work.append(group.all_reduce(np.full(1000, 1.0), async_op=True))
            if rank == 0:
                target = np.zeros(20_000, np.int64)
                got = [group.recv(target, tag=step) for _ in range(size - 1)]
                sums.append(sorted(each.peer for each in got))
            else:
                group.send(np.full(20_000, rank), 0, tag=step)
        assert all((each.wait().array == size).all() for each in work)
        stage.tell("over", senders=sums)


def test_a_member_receives_from_any() -> None:
    with world() as here:
        peers = here.team(gatherer, 3)
        told = {peer.name: peer.told("over") for peer in peers}
        others = [each for each in told.values() if each["senders"]]
        assert len(others) == 1
        names = [name for name, each in told.items() if not each["senders"]]
        assert others[0]["senders"] == [sorted(names)] * 10
        assert [peer.wait() for peer in peers] == [0, 0, 0]


def awaiting(stage: Stage) -> None:
    with stage.join() as group:
        other = 1 - group.rank

        async def main() -> list[int]:
            targets = [np.zeros(1) for _ in range(20)]
            receipts = [
                group.recv(target, other, tag=tag, async_op=True)
                for tag, target in enumerate(targets)
            ]
            for tag in reversed(range(20)):
                await group.send(np.array([float(tag)]), other, tag=tag, async_op=True)
            return [(await each).array[0] for each in receipts]

        assert asyncio.run(main()) == list(range(20))
        stage.tell("over")


def test_messages_are_awaited() -> None:
    with world() as here:
        for peer in here.team(awaiting, 2):
            peer.told("over")
            assert peer.wait() == 0


def failing(stage: Stage) -> None:
    with stage.join() as group:
        other = 1 - group.rank
        name = group.peers[other].name
        for peer, tag in ((5, 0), ("nobody", 0), (True, 0), (0, -1), (0, 2**64), (0, 1.0)):
            with pytest.raises(collect.InvalidArgument):
                group.send(np.zeros(1), peer, tag=tag)  # type: ignore[call-overload]
        with pytest.raises(collect.InvalidArgument, match="read-only"):
            group.recv(bytes(8))
        both = np.zeros(4)
        with pytest.raises(collect.InvalidArgument, match="overlap"):
            group.sendrecv(both, 0, both, 0)

        began_s = time.monotonic()
        with pytest.raises(collect.Timeout, match=rf"recv from {name} \(tag 8\)") as timeout:
            group.recv(np.zeros(1), other, tag=8, timeout=0.2)
        assert timeout.value.peer == name
        assert 0.2 <= time.monotonic() - began_s < 5
        with pytest.raises(collect.Timeout, match=f"send to {name}"):
            group.send(np.zeros(100_000), other, tag=9, timeout=0.2)
        work = group.recv(np.zeros(1), tag=8, async_op=True)
        with pytest.raises(collect.Timeout, match="it goes on"):
            work.wait(0.01)
        work.cancel()
        with pytest.raises(collect.Aborted, match="cancelled"):
            work.wait()
        group.barrier()

        # Too long: at both ends.
        sent = group.send(np.zeros(100), other, tag=1, async_op=True)
        with pytest.raises(collect.InvalidArgument, match="has 800 bytes, the array 792"):
            group.recv(np.zeros(99), other, tag=1)
        with pytest.raises(collect.InvalidArgument, match="smaller than its 800 bytes"):
            sent.wait()

        receipt = group.recv(np.zeros(1), async_op=True)
        group.barrier()
        if group.rank == 0:
            group.abort()
            with pytest.raises(collect.Aborted):
                receipt.wait()
        else:
            receipt.cancel()
        group.barrier()
        target = np.zeros(3)
        group.sendrecv(np.ones(3), other, target, other)
        assert (target == 1).all()
        pending = group.recv(target, async_op=True)
        stage.tell("over")
    with pytest.raises(collect.MembershipLost):
        pending.wait()
    with pytest.raises(collect.MembershipLost):
        group.send(target, 0)


def test_messages_fail_with_a_reason_and_the_group_goes_on() -> None:
    with world() as here:
        peers = here.team(failing, 2)
        for peer in peers:
            peer.told("over")
        assert [peer.wait() for peer in peers] == [0, 0]


def dying(stage: Stage) -> None:
    """The victim dies when some of a large message has gone; the others go on without it."""
    with stage.join() as group:
        rank_of = {peer.name: peer.rank for peer in group.peers}
        sender, receiver = stage.settings["sender"], stage.settings["receiver"]
        victim = stage.settings["victim"]
        bystander = ({"a", "b", "c"} - {sender, receiver}).pop()
        survivor = sender if victim == receiver else receiver
        array = np.ones(LARGE, np.uint8)
        if stage.name == victim:
            group._kill_at(stage.settings["piece"], PIECES)
        group.barrier()
        if stage.name == sender:
            transfer = group.send(array, rank_of[receiver], async_op=True)
        elif stage.name == receiver:
            transfer = group.recv(array, rank_of[sender], async_op=True)
        if stage.name == victim:
            transfer.wait()
        # Receives from anybody live on; so do messages between those that live.
        small = np.zeros(1)
        any_receipt = group.recv(small, tag=5, async_op=True)
        if stage.name == survivor:
            try:
                transfer.wait()
            except collect.PeerLost as error:
                stage.tell("lost", **error_fields(error))
            with pytest.raises((collect.PeerLost, collect.InvalidArgument)):
                group.send(array, victim)
        group.send(np.array([7.0]), bystander if stage.name == survivor else survivor, tag=5)
        assert any_receipt.wait().array[0] == 7.0
        result = group.all_reduce(np.ones(10), timeout=30)
        stage.tell("over", participants=result.participants)


@pytest.mark.parametrize("piece", [1, 30])
@pytest.mark.parametrize(("sender", "receiver"), [("a", "b"), ("b", "a")])
def test_a_death_in_the_middle_of_a_message_ends_it_at_the_other_end(
    sender: str, receiver: str, piece: int
) -> None:
    with world() as here:
        peers = here.team(dying, 3, sender=sender, receiver=receiver, victim="b", piece=piece)
        lost = peers[0].told("lost")
        assert lost["type"] == "PeerLost"
        assert lost["peer"] == "b"
        for peer in (peers[0], peers[2]):
            assert sorted(peer.told("over")["participants"]) == ["a", "c"]
            assert peer.wait() == 0
        assert peers[1].wait() == -signal.SIGKILL
