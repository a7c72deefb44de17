"""Ways to call: asynchronous, awaited, in batches, prepared, weighted; and deaths meanwhile."""

import asyncio
import contextlib
import random
import resource
import signal
import sys
import time
from typing import Any

import numpy as np
import pytest

import collect
from tests.e2e.world import Stage, error_fields, world


def has_numbers(array: np.ndarray, number: float) -> bool:
    return bool((array == number).all())


# ---- many at once --------------------------------------------------------------------------------


async def awaits(group: collect.Group) -> int:
    """Many works awaited together, in another order than they were started in, beside a ticker."""
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0.001)

    async def total(work: collect.Work) -> float:
        return float((await work).array[0])

    ticker = asyncio.ensure_future(tick())
    for _ in range(5):
        works = [group.all_reduce(np.full(1000, float(i)), async_op=True) for i in range(100)]
        totals = await asyncio.gather(*(total(work) for work in reversed(works)))
        assert totals == [float(i) * group.size for i in reversed(range(100))]
    works = [group.barrier(async_op=True), group.all_gather(np.ones(3), async_op=True)]
    results = [await work for work in works]
    assert results[1].array.shape == (len(results[1].participants), 3)
    ticker.cancel()
    return ticks


def in_coroutines(stage: Stage) -> None:
    with stage.join() as group:
        stage.tell("done", ticks=asyncio.run(awaits(group)))


def test_works_are_awaited() -> None:
    with world() as here:
        for peer in here.team(in_coroutines, 2):
            assert peer.told("done")["ticks"] > 5


COUNT = 10_000


def many_in_flight(stage: Stage) -> None:
    """Three groups with operations of all kinds, waited for in an order of this peer's own."""
    groups = [stage.join(group=name) for name in ("one", "two", "three")]
    kinds = random.Random(5)
    works: list[tuple[collect.Work, float]] = []
    array = np.ones(64)
    before_kib = 0
    for index in range(COUNT):
        group = groups[kinds.randrange(3)]
        size = group.size
        kind = kinds.randrange(4)
        value = float(index % 97)
        if kind == 0:
            works.append((group.all_reduce(array * value, async_op=True), value * size))
        elif kind == 1:
            works.append((group.all_gather(array * value, async_op=True), value))
        elif kind == 2:
            root = kinds.randrange(size)
            works.append((group.broadcast(array * value, root, async_op=True), value))
        else:
            array_of_all = np.repeat(array * value, size)
            works.append((group.reduce_scatter(array_of_all, async_op=True), value * size))
        if index == COUNT // 10:
            before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    order = list(range(COUNT))
    random.Random(hash(stage.name)).shuffle(order)
    for index in order:
        work, number = works[index]
        assert has_numbers(work.wait().array, number), index
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib
    for group in groups:
        group.leave()
    stage.tell("done", grown_kib=grown_kib)


@pytest.mark.time_limit(120)
def test_ten_thousand_operations_are_in_flight() -> None:
    with world() as here:
        for peer in here.team(many_in_flight, 2):
            assert peer.told("done", 100)["grown_kib"] < 200_000


# ---- batches -------------------------------------------------------------------------------------


def batches(stage: Stage) -> None:
    with stage.join() as group:
        size = group.size
        for step in range(20):
            small = [np.full(n, float(step), np.float32) for n in range(0, 50)]
            large = np.full(100_000, 1.0)
            with group.coalesce() as batch:
                for array in small:
                    group.all_reduce(array)
                group.all_reduce(large, "avg")
                gathered = group.all_gather(small[3])
                group.all_reduce(np.arange(3), "max")
            results = batch.wait()
            assert all(has_numbers(array, step * size) for array in small)
            assert has_numbers(large, 1.0)
            assert gathered.result.array.shape == (size, 3)
            assert results[-1].array.tolist() == [0, 1, 2]
        names = [result.op for result in results]
        stage.tell("done", names=names, last=group.barrier().op)


def test_calls_of_a_batch_are_made_together() -> None:
    with world() as here:
        told = [peer.told("done") for peer in here.team(batches, 3)]

        assert told[0] == told[1] == told[2]
        assert len(set(told[0]["names"])) == 4
        # 20 batches of 4 operations each, and a barrier.
        assert told[0]["last"].endswith(".81")


# ---- weights, tensors, shared memory -------------------------------------------------------------


def weighted(stage: Stage) -> None:
    with stage.join() as group:
        rank, size = group.rank, group.size
        total = sum(range(1, size + 1))
        told = {}
        for dtype in ("float16", "float32", "float64", "complex64", "bfloat16"):
            if dtype == "bfloat16":
                try:
                    import ml_dtypes  # noqa: PLC0415  a part of the tests' environment or not
                except ImportError:
                    continue
                kind: Any = ml_dtypes.bfloat16
            else:
                kind = np.dtype(dtype)
            array = np.full(1000, rank + 1).astype(kind)
            out = np.empty_like(array)
            group.all_reduce(array, "avg", weight=rank + 1.0, out=out)
            squares = sum(r * r for r in range(1, size + 1))
            wanted = np.full(1000, squares / total).astype(kind)
            assert out.tobytes() == wanted.tobytes(), (dtype, out[0], wanted[0])
            group.all_reduce(array, "avg", weight=rank + 1.0)
            assert array.tobytes() == wanted.tobytes()
            told[dtype] = array.tobytes().hex()[:32]
        stage.tell("done", bits=told)


def test_weighted_averages_are_exact_and_equal() -> None:
    with world() as here:
        told = [peer.told("done") for peer in here.team(weighted, 3)]

        assert told[0] == told[1] == told[2]


# ---- prepared ------------------------------------------------------------------------------------


def prepared(stage: Stage) -> None:
    with stage.join() as group:
        rank, size = group.rank, group.size
        names = tuple(peer.name for peer in group.peers)
        x, y = np.empty(257, np.float32), np.empty(257, np.float32)
        op = group.all_reduce_init(x, "sum", out=y)
        with pytest.raises(collect.InvalidArgument, match="no result"):
            _ = op.result
        for step in range(200):
            x[:] = step
            assert op() is y
            assert has_numbers(y, step * size)
        op.start()
        assert op.wait() is y
        assert op.done()
        assert op.result.participants == names

        blocks = np.arange(6.0 * size)
        others = [
            group.reduce_scatter_init(blocks),
            group.all_gather_init(x),
            group.all_to_all_init(blocks),
            group.broadcast_init(x, root=size - 1),
            group.reduce_init(x, "max", root=0),
        ]
        for _ in range(3):
            x[:] = rank
            results = [other() for other in others]
        assert has_numbers(results[0], 0) is False
        assert results[0].tolist() == (blocks[6 * rank : 6 * rank + 6] * size).tolist()
        assert [row[0] for row in results[1]] == list(range(size))
        assert results[2].tolist() == np.tile(blocks[6 * rank : 6 * rank + 6], size).tolist()
        assert has_numbers(x, size - 1)
        assert (results[4] is x) == (rank == 0)
        with pytest.raises(collect.InvalidArgument, match="not contiguous"):
            group.all_reduce_init(np.zeros((3, 2))[:, 0])
        dropped = group.all_reduce_init(np.ones(100_000))
        dropped.start()
        del dropped
        group.barrier()
        stage.tell("done")


def test_prepared_operations_run_over_and_over() -> None:
    with world() as here:
        for peer in here.team(prepared, 3):
            peer.told("done")


def admitting(stage: Stage) -> None:
    """Newcomers enter while the others do nothing but run a prepared operation."""
    with stage.join() as group:
        x = np.ones(8)
        y = np.empty(8)
        op = group.all_reduce_init(x, out=y)
        op()
        stage.tell("first", size=len(op.result.participants))
        while y[0] < 3.0:
            op()
        stage.tell("done")


def test_newcomers_enter_between_runs_of_a_prepared_operation() -> None:
    with world() as here:
        first = here.team(admitting, 2)
        for peer in first:
            assert peer.told("first")["size"] == 2
        late = here.peer(admitting, "late")

        assert late.told("first")["size"] == 3
        for peer in (*first, late):
            peer.told("done")


class Interrupt(Exception):
    """What a signal handler raises anywhere."""


armed: list[None] = []


def interrupt(*_: Any) -> None:
    """Once, if it is armed."""
    if armed:
        armed.clear()
        raise Interrupt


def interrupted(stage: Stage) -> None:
    """Calls of all kinds, each of which may end anywhere."""
    with stage.join() as group:
        x, y = np.ones(4, np.float32), np.empty(4, np.float32)
        op, gather = group.all_reduce_init(x, out=y), group.all_gather_init(x)
        calls = [
            op,
            op.start,
            op.wait,
            gather,
            lambda: group.all_reduce(x),
            lambda: group.all_reduce(x, out=y),
            lambda: group.all_reduce(x, async_op=True).wait(),
            lambda: group.all_gather(x),
        ]
        sys.unraisablehook = lambda _: None  # what is raised in a destructor
        signal.signal(signal.SIGALRM, interrupt)
        deadline_s = time.monotonic() + 1.5
        count = 0
        while time.monotonic() < deadline_s:
            with contextlib.suppress(Interrupt):
                armed.append(None)
                signal.setitimer(signal.ITIMER_REAL, random.uniform(5e-6, 4e-4))
                for _ in range(300):
                    # "Under way": the run before was interrupted when it had started.
                    with contextlib.suppress(collect.InvalidArgument):
                        random.choice(calls)()
                armed.clear()
            count += 1
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        result = group.all_reduce(np.ones(3))
        control = group._session.control
        with control.lock:
            control.lease.recall()
        number = int(result.op.split(".")[1])
        stage.tell("done", count=count, number=number, passed=control.lease.passed)


def test_interrupts_neither_lose_nor_repeat_a_boundary() -> None:
    with world() as here:
        told = here.peer(interrupted, "a").told("done")

        assert told["count"] > 10
        assert told["number"] == told["passed"]


# ---- deaths --------------------------------------------------------------------------------------


def until_two_are_left(stage: Stage) -> None:
    """A prepared operation goes on when a member dies; one with blocks must be set up anew."""
    with stage.join() as group:
        x, y = np.ones(50_000), np.empty(50_000)
        op = group.all_reduce_init(x, out=y)
        gather = group.all_gather_init(x)
        scatter = group.reduce_scatter_init(np.ones(3 * 10_000))
        assert op()[0] == 3.0
        assert scatter()[0] == 3.0
        stage.tell("running")
        if stage.name == "c":
            stage.hear()
        while y[0] == 3.0:
            op()
        assert has_numbers(y, 2.0)
        assert gather().shape == (2, 50_000)
        try:
            scatter()
            stage.tell("none")
        except collect.MembersChanged as error:
            stage.tell("changed", **error_fields(error))
        again = group.reduce_scatter_init(np.ones(2 * 10_000))
        assert has_numbers(again(), 2.0)
        with pytest.raises(collect.MembersChanged):
            scatter.start()
        group.barrier()
        stage.tell("done", names=op.result.participants)


def test_a_prepared_operation_outlives_a_member() -> None:
    with world() as here:
        peers = here.team(until_two_are_left, 3)
        for peer in peers:
            peer.told("running")
        peers[2].kill(signal.SIGKILL)

        for peer in peers[:2]:
            assert "laid out for 3 members, and now there are 2" in peer.told("changed")["text"]
            assert sorted(peer.told("done")["names"]) == ["a", "b"]


def shaped(stage: Stage) -> None:
    """A member dies while the others are in a call with blocks for all."""
    with stage.join() as group:
        group.barrier()
        stage.tell("ready")
        if stage.name == "c":
            stage.hear()
        for kind in ("all_to_all", "reduce_scatter", "scatter"):
            try:
                if kind == "scatter":
                    group.scatter(np.ones(3), root="a", out=np.empty(1))
                else:
                    getattr(group, kind)(np.ones(3 * 1000))
                stage.tell("none")
            except collect.MembersChanged as error:
                stage.tell(kind, **error_fields(error))
                break
        result = group.all_to_all(np.arange(2.0))
        group.barrier()
        stage.tell("done", participants=result.participants)


def test_a_death_in_a_call_with_blocks_is_told_to_all() -> None:
    with world() as here:
        peers = here.team(shaped, 3)
        for peer in peers:
            peer.told("ready")
        peers[0].until_blocked()
        peers[1].until_blocked()
        peers[2].kill(signal.SIGKILL)

        told = [peer.told("all_to_all") for peer in peers[:2]]
        assert told[0]["type"] == "MembersChanged"
        assert (told[0]["op"], told[0]["epoch"]) == (told[1]["op"], told[1]["epoch"])
        for peer in peers[:2]:
            assert sorted(peer.told("done")["participants"]) == ["a", "b"]


def gathering(stage: Stage) -> None:
    """A gather without counts goes on, with fewer blocks."""
    with stage.join() as group:
        group.barrier()
        stage.tell("ready")
        if stage.name == "c":
            stage.hear()
        result = group.all_gather(np.full((2, 3), float(ord(stage.name))))
        stage.tell(
            "done",
            shape=result.array.shape,
            values=result.array[:, 0, 0].tolist(),
            names=result.participants,
        )


def test_a_death_in_a_gather_leaves_the_others_blocks() -> None:
    with world() as here:
        peers = here.team(gathering, 3)
        for peer in peers:
            peer.told("ready")
        peers[0].until_blocked()
        peers[1].until_blocked()
        peers[2].kill(signal.SIGKILL)

        for peer in peers[:2]:
            told = peer.told("done")
            assert told["shape"] == [2, 2, 3]
            assert [chr(int(value)) for value in told["values"]] == told["names"]
            assert sorted(told["names"]) == ["a", "b"]
