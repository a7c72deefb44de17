"""All-reduce and barrier over real processes: every dtype and reduction, bit for bit."""

import threading

import numpy as np
import pytest

import collect
from tests.e2e.world import TIMEOUT_S, Stage, result_fields, world

DTYPES = ("int32", "int64", "float32", "float64")
OPS = ("sum", "avg", "min", "max")
COUNTS = (0, 1, 7, 1000, 100_003)


def contribution(rank: int, dtype: str, count: int) -> np.ndarray:
    rng = np.random.default_rng([rank, count])
    if dtype.startswith("int"):
        return rng.integers(-1000, 1000, count).astype(dtype)
    return (rng.standard_normal(count) * 10.0 ** rng.integers(-3, 3, count)).astype(dtype)


def expected(size: int, dtype: str, op: str, count: int) -> np.ndarray:
    """Left to right in rank order, as the documentation promises."""
    total = contribution(0, dtype, count)
    for rank in range(1, size):
        other = contribution(rank, dtype, count)
        if op in ("sum", "avg"):
            total = total + other
        else:
            total = (np.minimum if op == "min" else np.maximum)(total, other)
    if op == "avg":
        if dtype.startswith("int"):
            return (np.sign(total) * (np.abs(total) // size)).astype(dtype)
        return (total / np.dtype(dtype).type(size)).astype(dtype)
    return total


def every_kind(stage: Stage) -> None:
    with stage.join() as group:
        rank, size = group.rank, group.size  # others may leave when they are done
        for count in COUNTS:
            for dtype in DTYPES:
                for op in OPS:
                    mine = contribution(rank, dtype, count)
                    want = expected(size, dtype, op, count)
                    result = group.all_reduce(mine, op)
                    assert result.array is mine
                    assert mine.tobytes() == want.tobytes(), (count, dtype, op)
        stage.tell("done", rank=rank, size=size, op=result.op)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_every_dtype_and_reduction_equals_numpy_in_rank_order(size: int) -> None:
    with world() as here:
        peers = here.team(every_kind, size)

        told = [peer.told("done") for peer in peers]

        assert sorted(each["rank"] for each in told) == list(range(size))
        assert {each["size"] for each in told} == {size}
        assert len({each["op"] for each in told}) == 1
        assert [peer.wait() for peer in peers] == [0] * size


def every_way(stage: Stage) -> None:
    with stage.join() as group:
        mine = contribution(group.rank, "float32", 4096)
        want = expected(group.size, "float32", "sum", 4096)

        out = np.empty_like(mine)
        before = mine.copy()
        assert group.all_reduce(mine, out=out).array is out
        assert out.tobytes() == want.tobytes()
        assert mine.tobytes() == before.tobytes()

        works = [group.all_reduce(mine.copy(), async_op=True) for _ in range(8)]
        results = [work.wait() for work in reversed(works)]
        assert all(result.array.tobytes() == want.tobytes() for result in results)
        assert all(work.done() for work in works)

        wide = np.zeros((4096, 3), np.float32)
        wide[:, 1] = mine
        group.all_reduce(wide[:, 1])
        assert np.ascontiguousarray(wide[:, 1]).tobytes() == want.tobytes()
        assert not wide[:, 0].any()

        raw = bytearray(mine.tobytes())
        group.all_reduce(memoryview(raw).cast("f"))
        assert bytes(raw) == want.tobytes()

        scalar = np.array(1.0)
        assert group.all_reduce(scalar).array == group.size
        barrier = group.barrier()
        stage.tell("done", participants=barrier.participants, op=barrier.op)


def test_results_go_in_place_out_of_place_and_to_any_memory() -> None:
    with world() as here:
        peers = here.team(every_way, 2)

        told = [peer.told("done") for peer in peers]

        assert told[0] == told[1]
        assert sorted(told[0]["participants"]) == ["a", "b"]


def threads_in_turn(stage: Stage) -> None:
    """Two groups of one process, one thread each; and several threads waiting in one group."""
    groups = [stage.join(group="even"), stage.join(group="odd")]
    sums: list[float] = []

    def run(group: collect.Group) -> None:
        for _ in range(50):
            sums.append(float(group.all_reduce(np.ones(100)).array[0]))

    threads = [threading.Thread(target=run, args=(group,)) for group in groups]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    works = [groups[0].all_reduce(np.ones(10_000), async_op=True) for _ in range(6)]
    waiters = [threading.Thread(target=works[index % 6].wait) for index in range(12)]
    for thread in waiters:
        thread.start()
    for thread in waiters:
        thread.join()
    assert {float(work.result.array[-1]) for work in works} == {2.0}
    for group in groups:
        group.leave()
    stage.tell("done", sums=sorted(set(sums)), count=len(sums))


def test_several_threads_use_groups_of_one_process() -> None:
    with world() as here:
        peers = here.team(threads_in_turn, 2)

        for peer in peers:
            assert peer.told("done") == {"what": "done", "sums": [2.0], "count": 100}


def many_small(stage: Stage) -> None:
    with stage.join() as group:
        for _ in range(30):
            result = group.all_reduce(np.full(1000, 1.0))
        stage.tell("done", **result_fields(result))


def test_more_peers_than_processors_agree() -> None:
    with world() as here:
        peers = here.team(many_small, 8)

        told = [peer.told("done") for peer in peers]

        assert {each["bytes"] for each in told} == {np.full(1000, 8.0).tobytes().hex()}
        assert {len(each["participants"]) for each in told} == {8}


def test_groups_of_this_process_leave_nothing_behind() -> None:
    # The search for leaked threads, descriptors and memory of the core is every test's last step.
    for _ in range(3):
        with collect.join(name="alone", timeout=TIMEOUT_S) as group:
            assert group.all_reduce(np.arange(3.0)).array.tolist() == [0.0, 1.0, 2.0]
            group.all_reduce(np.ones(1000), async_op=True)
        with pytest.raises(collect.Closed):
            group.barrier()
