"""Overlap inside one operation: what is produced is sent, and what is final is told, before all is
there; and members that are lost meanwhile."""

import asyncio
import itertools
import re
import threading
from typing import Any

import numpy as np
import pytest

import collect
from tests.e2e.world import Stage, error_fields, world

COUNT = 1 << 20  # float32 elements, 4 MiB: 16 chunks
PART = COUNT // 8
TCP: dict[str, Any] = {"transport": "tcp", "algorithm": "direct"}


def source_of(rank: int) -> np.ndarray:
    return (np.arange(COUNT, dtype=np.float32) % 1000) * (rank + 1)


def total(ranks: int) -> np.ndarray:
    return np.asarray(sum(source_of(rank) for rank in range(ranks)))


def sent_bytes(group: collect.Group) -> int:
    return sum(link.sent_bytes for link in group._session.communicator.links())


def covered(ranges: list[tuple[int, int]]) -> np.ndarray:
    counts = np.zeros(COUNT, np.int64)
    for begin, end in ranges:
        counts[begin:end] += 1
    return counts


# ---- overlap, shown by counting ------------------------------------------------------------------


def produces(stage: Stage) -> None:
    """Peer "a" marks its source part by part; the test says when it goes on."""
    with stage.join(**TCP) as group:
        rank = group.rank
        source, out = np.full(COUNT, np.nan, np.float32), np.empty(COUNT, np.float32)
        want = total(group.size)
        before = sent_bytes(group)
        if stage.name != "a":
            source[:] = source_of(rank)
            work = group.all_reduce(source, out=out, async_op=True)
            ranges = work.ranges(timeout=30.0)
            early = [next(ranges)]
            stage.tell("early", done=work.done(), ready=work.ready(slice(*early[0])))
            early += list(ranges)
        else:
            work = group.all_reduce(source, out=out, produced=True, async_op=True)
            stage.tell("started", sent=sent_bytes(group) - before)
            for begin in range(0, COUNT, PART):
                if begin == COUNT - PART:
                    stage.hear()
                    stage.tell("almost", sent=sent_bytes(group) - before, done=work.done())
                source[begin : begin + PART] = source_of(rank)[begin : begin + PART]
                work.produced(begin, begin + PART)
            early = list(work.ranges())
        assert (covered(early) == 1).all()
        assert work.done()
        assert out.tobytes() == want.tobytes()
        assert work.wait().array is out
        assert work.ready(slice(None))
        stage.tell("done", ranges=len(early))


def test_ranges_are_final_on_others_before_the_last_element_is_produced() -> None:
    with world() as here:
        first, second = here.team(produces, 2)
        assert first.told("started")["sent"] < COUNT
        assert second.told("early") == {"what": "early", "done": False, "ready": True}
        first.say()
        told = first.told("almost")
        assert told["sent"] >= COUNT * 4 // 4  # bytes: a quarter of its array, and more
        assert not told["done"]
        assert first.told("done")["ranges"] >= 1
        assert second.told("done")["ranges"] > 1


# ---- every call that can be produced, in any order -----------------------------------------------


def calls(stage: Stage) -> None:
    with stage.join(**stage.settings["join"]) as group:
        size, rank = group.size, group.rank
        chance = np.random.default_rng(rank)
        for count in (0, 1, 1000, 200_000):
            shape = (size, count)
            whole = np.arange(size * count, dtype=np.float64).reshape(shape)
            wanted = {
                "all_reduce": whole * sum(range(1, size + 1)),
                "reduce_scatter": whole[rank] * sum(range(1, size + 1)),
                "all_gather": np.stack([whole[0] * (peer + 1) for peer in range(size)]),
                "broadcast": whole * size,
            }
            for name, want in wanted.items():
                truth = whole[0] * (rank + 1) if name == "all_gather" else whole * (rank + 1)
                array = np.full(truth.shape, np.nan)
                options: dict[str, Any] = {}
                if name == "broadcast":
                    options["root"] = size - 1
                if name in ("all_reduce", "broadcast") and count != 1000:
                    options["out"] = np.empty(truth.shape)
                is_mine = rank % 2 == 0 or count == 0
                if not is_mine:
                    array[...] = truth
                work = getattr(group, name)(array, async_op=True, produced=is_mine, **options)
                if is_mine and not (name == "broadcast" and rank != size - 1):
                    cuts = sorted({0, array.size, *chance.integers(0, array.size + 1, 9).tolist()})
                    parts = list(itertools.pairwise(cuts))
                    for begin, end in chance.permutation(parts).tolist() if parts else []:
                        array.reshape(-1)[begin:end] = truth.reshape(-1)[begin:end]
                        work.produced(begin, end)
                got = np.concatenate([[], *(np.arange(*each) for each in work.ranges())])
                assert sorted(got.tolist()) == list(range(want.size)), name
                assert work.wait().array.reshape(want.shape).tobytes() == want.tobytes(), name
        stage.tell("done")


@pytest.mark.parametrize(
    "join", [TCP, {**TCP, "algorithm": "ring"}, {}], ids=["direct", "ring", "shm"]
)
@pytest.mark.parametrize("size", [1, 3])
def test_every_call_gives_the_same_bits_however_it_is_produced(
    size: int, join: dict[str, Any]
) -> None:
    with world() as here:
        for peer in here.team(calls, size, join=join):
            peer.told("done")
            assert peer.wait() == 0


# ---- mistakes ------------------------------------------------------------------------------------


def refusals(stage: Stage) -> None:
    with stage.join() as group:
        array = np.zeros(1000)

        def refused(text: str, call: Any, *arguments: Any, **options: Any) -> None:
            with pytest.raises(collect.CollectError, match=re.escape(text)):
                call(*arguments, **options)

        refused("needs a Work", group.all_reduce, array, produced=True)
        refused("not contiguous", group.all_reduce, array[::2], produced=True, async_op=True)
        refused("weighted", group.all_reduce, array, "avg", weight=1.0, produced=True)
        work = group.all_reduce(array, produced=True, async_op=True)
        refused("not within the 1000", work.produced, 900, 1001)
        refused("not within", work.produced, 5, 4)
        work.produced(10, 20)
        refused("marked already", work.produced, 19, 30)
        refused("990 of 1000 elements", work.wait)
        refused("990 of 1000 elements", asyncio.run, awaits(work))
        refused("cannot start an operation", group.all_reduce, array)
        refused("cannot start an operation", group.barrier)
        refused("is final after", list, work.ranges(timeout=0.05))
        refused("must be a slice", work.ready, 5)
        assert not work.ready(slice(0, 10))
        work.produced(0, 10)
        work.produced(20, 1000)
        work.wait()
        refused("has its whole source", group.all_reduce(array, async_op=True).produced, 0, 1)
        with group.coalesce() as batch:
            refused("of its own", group.all_reduce, array, produced=True, async_op=True)
            first = group.all_reduce(array)
            group.all_reduce(array.copy())
        batch.wait()
        assert list(first.ranges()) == [(0, 1000)]
        assert list(group.all_reduce(array[::2], async_op=True).ranges()) == [(0, 500)]
        assert list(group.barrier(async_op=True).ranges()) == []
        stage.tell("done")


async def awaits(work: collect.Work) -> None:
    await work


def test_mistakes_are_named() -> None:
    with world() as here:
        for peer in here.team(refusals, 2):
            peer.told("done")
            assert peer.wait() == 0


def aborts(stage: Stage) -> None:
    with stage.join(**TCP) as group:
        array, out = np.zeros(COUNT, np.float32), np.empty(COUNT, np.float32)
        work = group.all_reduce(array, out=out, produced=stage.name == "a", async_op=True)
        if stage.name == "a":
            work.produced(0, PART)
            group.abort()
            work.produced(PART, COUNT)
        for each in (lambda: list(work.ranges()), lambda: work.ready(slice(5)), work.wait):
            with pytest.raises(collect.Aborted):
                each()
        group.barrier()
        stage.tell("done")


def test_ranges_of_an_operation_that_failed_say_why() -> None:
    with world() as here:
        for peer in here.team(aborts, 2):
            peer.told("done")


# ---- threads and coroutines ----------------------------------------------------------------------


def threads(stage: Stage) -> None:
    """One thread produces while others iterate, and so does a coroutine."""
    with stage.join(**TCP) as group:
        truth, want = source_of(group.rank), total(group.size)
        for _ in range(3):
            source, out = np.empty(COUNT, np.float32), np.full(COUNT, np.nan, np.float32)
            work = group.all_reduce(source, out=out, produced=True, async_op=True)

            def produce(source: np.ndarray = source, work: collect.Work = work) -> None:
                for begin in reversed(range(0, COUNT, 4096)):
                    source[begin : begin + 4096] = truth[begin : begin + 4096]
                    work.produced(begin, begin + 4096)

            seen: list[list[tuple[int, int]]] = [[], []]

            def iterate(place: int, seen: Any = seen, work: Any = work, out: Any = out) -> None:
                for begin, end in work.ranges():
                    assert (out[begin:end] == want[begin:end]).all()
                    seen[place].append((begin, end))

            async def iterate_too(work: Any = work, out: Any = out) -> list[tuple[int, int]]:
                ranges = []
                async for begin, end in work.ranges():
                    assert (out[begin:end] == want[begin:end]).all()
                    ranges.append((begin, end))
                return ranges

            bodies = [threading.Thread(target=iterate, args=(place,)) for place in range(2)]
            bodies.append(threading.Thread(target=produce))
            for body in bodies:
                body.start()
            third = asyncio.run(iterate_too())
            for body in bodies:
                body.join()
            assert all((covered(each) == 1).all() for each in (*seen, third))
        stage.tell("done")


def test_threads_and_coroutines_take_ranges_while_another_produces() -> None:
    with world() as here:
        for peer in here.team(threads, 2):
            peer.told("done")


# ---- a member is lost ----------------------------------------------------------------------------


def loses(stage: Stage) -> None:
    """Three members; "c" is killed when the others have seen ranges of all three."""
    with stage.join(**TCP) as group:
        mine = source_of(ord(stage.name) - ord("a"))
        source, out = np.zeros(COUNT, np.float32), np.empty(COUNT, np.float32)
        is_slow = stage.name == "a"
        if not is_slow:
            source[:] = mine
        work = group.all_reduce(source, out=out, produced=is_slow, async_op=True)
        if is_slow:
            source[: 6 * PART] = mine[: 6 * PART]
            work.produced(0, 6 * PART)
        ranges = work.ranges(timeout=30.0)
        begin, end = next(ranges)
        assert (out[begin:end] == total(3)[begin:end]).all()
        stage.tell("first")
        if stage.name == "c":
            stage.hear()
            return
        with pytest.raises(collect.RangesRevoked) as caught:
            list(ranges)
        if is_slow:
            source[6 * PART :] = mine[6 * PART :]
            work.produced(6 * PART, COUNT)
        again = list(work.ranges())
        assert (covered(again) == 1).all()
        result = work.wait()
        assert out.tobytes() == total(2).tobytes()
        stage.tell("done", error=error_fields(caught.value), participants=result.participants)


def test_a_loss_revokes_the_ranges_and_gives_them_anew() -> None:
    with world() as here:
        first, second, third = here.team(loses, 3)
        for peer in (first, second, third):
            peer.told("first")
        third.kill()
        for peer in (first, second):
            told = peer.told("done")
            assert "work.ranges() again" in told["error"]["text"]
            assert sorted(told["participants"]) == ["a", "b"]


def kill_over_shared_memory(stage: Stage) -> None:
    with stage.join() as group:
        source = np.zeros(COUNT, np.float32)
        mine = source_of(ord(stage.name) - ord("a"))
        group.barrier()
        work = group.all_reduce(source, produced=True, async_op=True)
        source[:PART] = mine[:PART]
        work.produced(0, PART)
        stage.tell("begun")
        stage.hear()
        source[PART:] = mine[PART:]
        work.produced(PART, COUNT)
        assert list(work.ranges()) == [(0, COUNT)]
        assert sorted(work.wait().participants) == ["a", "b"]
        assert source.tobytes() == total(2).tobytes()
        stage.tell("done")


def test_over_shared_memory_a_member_is_lost_before_all_is_produced() -> None:
    with world() as here:
        first, second, third = here.team(kill_over_shared_memory, 3)
        for peer in (first, second, third):
            peer.told("begun")
        third.kill()
        third.wait()
        for peer in (first, second):
            peer.say()
        for peer in (first, second):
            peer.told("done")


# ---- boundaries ----------------------------------------------------------------------------------


def waits_for_newcomers(stage: Stage) -> None:
    """Newcomers wait to enter while a source is produced: the next call lets them in."""
    with stage.join() as group:
        if stage.name == "new":
            stage.tell("done", size=len(group.all_reduce(np.ones(4)).participants))
            return
        source = np.zeros(1000)
        work = group.all_reduce(source, produced=True, async_op=True)
        stage.tell("begun")
        stage.hear()
        with pytest.raises(collect.CollectError):
            group.all_reduce(np.ones(4))
        source[:] = 1.0
        work.produced(0, 1000)
        assert (work.wait().array == 2).all()
        while (size := len(group.all_reduce(np.ones(4)).participants)) < 3:
            continue
        stage.tell("done", size=size)


def test_a_newcomer_enters_behind_an_operation_in_the_making() -> None:
    with world() as here:
        team = here.team(waits_for_newcomers, 2)
        for peer in team:
            peer.told("begun")
        newcomer = here.peer(waits_for_newcomers, "new")
        here.wait_for_log("new")
        for peer in team:
            peer.say()
        for peer in (*team, newcomer):
            assert peer.told("done")["size"] == 3


def leaves_too_early(stage: Stage) -> None:
    group = stage.join()
    work = group.all_reduce(np.zeros(10), produced=True, async_op=True)
    with pytest.raises(collect.InvalidArgument, match="10 of 10 elements"):
        group.leave()
    with pytest.raises(collect.CollectError):
        work.wait()
    stage.tell("done")


def test_who_leaves_with_a_source_in_the_making_is_told_so() -> None:
    with world() as here:
        (peer,) = here.team(leaves_too_early, 1)
        peer.told("done")
        assert peer.wait() == 0
