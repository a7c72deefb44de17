"""Deaths, stalls, disagreement and interrupts over real processes."""

import random
import signal
import time

import numpy as np
import pytest

import collect
from tests.e2e.world import TIMEOUT_S, Stage, Told, error_fields, result_fields, world

COUNT = 400_000


def powers(stage: Stage) -> None:
    """Contributes a power of two per name, so that a sum tells who is in it."""
    with stage.join(transport=stage.settings["transport"]) as group:
        bit_of = {peer.name: 2.0**peer.rank for peer in group.peers}
        stage.tell("joined", bit_of=bit_of)
        for index in range(12):
            if stage.settings.get("victim") == stage.name and index == 6:
                group._kill_at(stage.settings["frame"])
            result = group.all_reduce(np.full(COUNT, bit_of[stage.name]), timeout=30)
            want = sum(bit_of[name] for name in result.participants)
            assert (result.array == want).all(), (result, want)
            stage.tell("reduced", **{**result_fields(result), "bytes": want})
        events = [(event.kind.name, event.peer) for event in group.events()]
        stage.tell("over", events=events)


@pytest.mark.parametrize("transport", ["auto", "tcp"])
@pytest.mark.parametrize("frame", [1, 2, 4, 7, 11])
@pytest.mark.parametrize("size", [2, 3])
def test_a_death_in_the_middle_of_an_operation_is_survived_by_equal_results(
    size: int, frame: int, transport: str
) -> None:
    with world() as here:
        peers = here.team(powers, size, victim="b", frame=frame, transport=transport)
        for peer in peers:
            peer.told("joined")
        survivors = [peer for peer in peers if peer.name != "b"]

        for _ in range(12):
            told = [peer.told("reduced") for peer in survivors]
            assert len({(each["op"], each["epoch"], each["bytes"]) for each in told}) == 1

        last = sorted(told[0]["participants"])
        assert last == sorted(peer.name for peer in survivors)
        for peer in survivors:
            assert ["LOST", "b"] in peer.told("over")["events"]
            assert peer.wait() == 0
        assert peers[1].wait() == -signal.SIGKILL


def steady(stage: Stage) -> None:
    """Reduces until it is told to stop; every member stops at the same operation."""
    with stage.join() as group:
        stage.tell("joined", size=group.size)
        while True:
            is_last = stage.settings.get("is_stopper", False) and stage.stop_was_said()
            result = group.all_reduce(np.array([1.0, float(is_last)]), timeout=30)
            if result.array[1] > 0:
                break
        names = [event.kind.name for event in group.events()]
        stage.tell("over", participants=result.participants, events=names)


def rejoining(stage: Stage) -> None:
    """Is stopped for longer than the group waits; finds out; joins again."""
    group = stage.join()
    stage.tell("joined", size=group.size)
    try:
        while True:
            group.all_reduce(np.zeros(2), timeout=30)
    except collect.Fenced as error:
        stage.tell("fenced", **error_fields(error))
    group.leave()
    with stage.join(min_peers=1) as group:
        stage.tell("joined", size=group.size)
        while not group.all_reduce(np.zeros(2), timeout=30).array[1] > 0:
            pass
        stage.tell("over")


def test_a_stalled_peer_is_fenced_and_joins_again() -> None:
    with world() as here:
        a = here.peer(steady, "a", min_peers=3, is_stopper=True)
        c = here.peer(steady, "c", min_peers=3)
        b = here.peer(rejoining, "b", min_peers=3)
        for peer in (a, b, c):
            assert peer.told("joined")["size"] == 3

        b.kill(signal.SIGSTOP)
        here.wait_for_log("2 members", after="3 members")
        b.kill(signal.SIGCONT)

        fenced = b.told("fenced")
        assert "b" in fenced["text"]
        assert "join again" in fenced["text"]
        assert b.told("joined")["size"] == 3
        a.say("stop")
        told = a.told("over")
        assert sorted(told["participants"]) == ["a", "b", "c"]
        assert "LOST" in told["events"]
        c.told("over")
        b.told("over")
        assert [peer.wait() for peer in (a, b, c)] == [0, 0, 0]


def failing(stage: Stage) -> None:
    """Makes the call that the settings name, tells how it fails, and shows that the group works."""
    with stage.join() as group:
        rank = group.rank
        kind = stage.settings["kind"]
        array = np.full(1000, float(rank))
        before = array.copy()
        stage.tell("joined", rank=rank)
        try:
            if kind == "mismatch":
                group.all_reduce(array[: 1000 if rank != 1 else 999], "sum")
            elif kind == "timeout":
                if stage.name == "a":
                    stage.hear()
                group.all_reduce(array, timeout=1.0 if stage.name != "a" else 30)
            elif kind == "abort":
                work = group.all_reduce(array, async_op=True) if stage.name != "a" else None
                if stage.name == "b":
                    stage.hear()
                    group.abort()
                if work is None:
                    stage.hear()
                    work = group.all_reduce(array, async_op=True)
                work.wait()
        except collect.OperationFailed as error:
            assert (array == before).all()
            stage.tell("failed", **error_fields(error))
        else:
            stage.tell("passed")
        result = group.all_reduce(np.ones(10))
        stage.tell("over", sum=float(result.array[0]), op=result.op)


def same_error(told: list[Told]) -> Told:
    first = told[0]
    assert all(each == first for each in told), told
    return first


def test_a_mismatch_raises_the_same_error_everywhere_and_names_the_calls() -> None:
    with world() as here:
        peers = here.team(failing, 3, kind="mismatch")
        names = {peer.told("joined")["rank"]: peer.name for peer in peers}

        error = same_error([peer.told("failed") for peer in peers])

        assert error["type"] == "Mismatch"
        assert "1000" in error["text"]
        assert "999" in error["text"]
        assert names[1] in error["text"]
        assert {peer.told("over")["sum"] for peer in peers} == {3.0}


def test_a_late_member_times_out_everywhere() -> None:
    with world() as here:
        peers = here.team(failing, 3, kind="timeout")
        for peer in peers:
            peer.told("joined")

        told = [peer.told("failed") for peer in peers[1:]]
        peers[0].say()
        told.append(peers[0].told("failed"))

        error = same_error(told)
        assert error["type"] == "Timeout"
        assert error["peer"] in {"b", "c"}
        assert {peer.told("over")["sum"] for peer in peers} == {3.0}


def test_an_abort_ends_the_operation_everywhere() -> None:
    with world() as here:
        peers = here.team(failing, 3, kind="abort")
        for peer in peers:
            peer.told("joined")

        peers[1].say()
        told = [peers[1].told("failed"), peers[2].told("failed")]
        peers[0].say()
        told.append(peers[0].told("failed"))

        assert {each["type"] for each in told} == {"Aborted"}
        assert len({each["op"] for each in told}) == 1
        assert "b" in told[1]["text"]
        assert {peer.told("over")["sum"] for peer in peers} == {3.0}


def interrupted(stage: Stage) -> None:
    with stage.join() as group:
        stage.tell("joined")
        if stage.name == "a":
            array = np.ones(1000)
            try:
                group.all_reduce(array)
            except KeyboardInterrupt:
                stage.tell("interrupted")
            del array
        else:
            stage.hear()
            group.all_reduce(np.ones(1000))
        result = group.all_reduce(np.ones(10))
        stage.tell("over", sum=float(result.array[0]))


def test_ctrl_c_during_a_wait_leaves_the_group_usable() -> None:
    with world() as here:
        peers = here.team(interrupted, 2)
        for peer in peers:
            peer.told("joined")

        peers[0].until_blocked()
        peers[0].kill(signal.SIGINT)
        peers[0].told("interrupted")
        peers[1].say()

        assert {peer.told("over")["sum"] for peer in peers} == {2.0}


def stormed(stage: Stage) -> None:
    """Is interrupted again and again, anywhere in its calls, and goes on with its loop."""
    interrupts, is_inside = 0, False

    def interrupt(*_: object) -> None:
        nonlocal is_inside
        if is_inside:
            is_inside = False
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    with stage.join() as group:
        array = np.zeros(2)
        stage.tell("joined")
        while not stage.stop_was_said():
            try:
                is_inside = True
                group.all_reduce(array)
                is_inside = False
            except KeyboardInterrupt:
                interrupts += 1
        sizes = [group.size]
        while group.size < 3:  # boundaries are still counted alike: a newcomer can enter
            group.all_reduce(np.zeros(2))
        result = group.all_reduce(np.array([0.0, 1.0]))
        stage.tell("over", interrupts=interrupts, sizes=sizes, attempts=result.attempts)


def patient(stage: Stage) -> None:
    with stage.join() as group:
        stage.tell("joined")
        while group.all_reduce(np.zeros(2)).array[1] == 0:
            pass
        stage.tell("over")


def test_a_storm_of_ctrl_c_leaves_the_members_in_step(rng: random.Random) -> None:
    with world() as here:
        a = here.peer(stormed, "a", min_peers=2)
        b = here.peer(patient, "b", min_peers=2)
        for peer in (a, b):
            peer.told("joined")

        for _ in range(40):
            time.sleep(rng.uniform(0.001, 0.03))
            a.kill(signal.SIGINT)
        time.sleep(0.2)
        c = here.peer(patient, "c")
        a.say("stop")

        assert a.told("over")["interrupts"] > 10
        for peer in (b, c):
            if peer is c:
                peer.told("joined")
            peer.told("over")
        assert [peer.wait() for peer in (a, b, c)] == [0, 0, 0]


def leaving(stage: Stage) -> None:
    group = stage.join()
    stage.tell("joined")
    for _ in range(20):
        group.all_reduce(np.ones(100))
    if stage.name != "b":
        while group.size == 3:
            group.all_reduce(np.ones(100))
        names = [(event.kind.name, event.peer) for event in group.events()]
        stage.tell("over", size=group.size, events=names)
    group.leave()
    group.leave()
    with pytest.raises(collect.Closed):
        group.all_reduce(np.ones(100))
    stage.tell("left")


def test_a_member_that_leaves_is_missed_by_nobody() -> None:
    with world() as here:
        peers = here.team(leaving, 3)
        for peer in peers:
            peer.told("joined")

        peers[1].told("left")
        for peer in (peers[0], peers[2]):
            told = peer.told("over")
            assert ["LEFT", "b"] in told["events"]
            assert not any(kind in {"LOST", "FENCED"} for kind, _ in told["events"])
            peer.told("left")

        assert [peer.wait() for peer in peers] == [0, 0, 0]


def forgetful(stage: Stage) -> None:
    """Ends without leaving, as a script with an uncaught exception does."""
    group = stage.join()
    group.all_reduce(np.ones(100))
    stage.tell("joined")
    if stage.name == "a":
        raise RuntimeError("an error in the training loop")
    group.all_reduce(np.ones(100), timeout=20 * TIMEOUT_S)
    stage.tell("over", size=group.size)
    group.leave()


def test_a_process_that_ends_without_leaving_ends_all_the_same() -> None:
    with world() as here:
        peers = here.team(forgetful, 2)
        for peer in peers:
            peer.told("joined")

        assert peers[0].wait() == 1
        assert peers[1].told("over")["size"] == 1
        assert peers[1].wait() == 0
