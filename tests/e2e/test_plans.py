"""Plans of the user's own over real processes: against NumPy, with deaths, and with differences."""

import signal

import numpy as np
import pytest

import collect
from tests.e2e.world import Stage, error_fields, result_fields, world

ROWS = (0, 1, 7, 1000, 100_003)
DTYPES = ("uint8", "int32", "float16", "float64", "complex64", "bool")


def say_two_rings(plan: collect.Plan) -> None:
    """Every rank owns a slice each way round; the second way has more of the payload."""
    for owner in range(plan.world):
        for way, weight in ((1, 2), (-1, 3)):
            ring = [(owner + way * i) % plan.world for i in range(plan.world)]
            tree = {ring[i]: ring[i - 1] for i in range(plan.world - 1, 0, -1)}
            plan.slice(reduce=tree, weight=weight)


def say_star(plan: collect.Plan) -> None:
    if plan.collective == "all_reduce":
        plan.slice(reduce=dict.fromkeys(range(1, plan.world), 0))
    elif plan.collective == "broadcast":
        plan.slice(spread={rank: rank - 1 for rank in range(1, plan.world)})
    else:
        for block in range(plan.world):
            others = [rank for rank in range(plan.world) if rank != block]
            plan.slice(block=block, **{trees_of(plan): dict.fromkeys(others, block)})


def trees_of(plan: collect.Plan) -> str:
    return "reduce" if plan.collective == "reduce_scatter" else "spread"


TWO_RINGS = collect.plan("two-rings")(say_two_rings)
RELAY = collect.plan("relay", collective="broadcast")(say_star)
TO_ALL = collect.plan("to-all", collective="all_gather")(say_star)
FROM_ALL = collect.plan("from-all", collective="reduce_scatter")(say_star)


def values(rank: int, dtype: str, rows: int) -> np.ndarray:
    """Whose sums are exact in every type, in any order."""
    rng = np.random.default_rng([rank, rows])
    return rng.integers(0, 2 if dtype == "bool" else 20, rows).astype(dtype)


def total_of(size: int, dtype: str, rows: int) -> np.ndarray:
    parts = [values(rank, dtype, rows) for rank in range(size)]
    return np.sum(parts, axis=0).astype(dtype)


def reducing(stage: Stage) -> None:
    with stage.join() as group:
        rank, size = group.rank, group.size
        group.register(TWO_RINGS)
        for rows in ROWS:
            for dtype in DTYPES:
                want = total_of(size, dtype, rows).tobytes()
                array = values(rank, dtype, rows)
                result = group.all_reduce(array, algorithm="two-rings")
                assert array.tobytes() == want, (rows, dtype)
                assert result.algorithm == "two-rings" or rows == 0
                array, out = values(rank, dtype, rows), np.empty(rows, dtype)
                work = group.all_reduce(array, out=out, algorithm="two-rings", async_op=True)
                assert work.wait().algorithm == "two-rings" or rows == 0
                assert out.tobytes() == want, (rows, dtype)
                assert array.tobytes() == values(rank, dtype, rows).tobytes()
        prepared_runs(group)
        stage.tell("done", **result_fields(result), rank=rank)


def prepared_runs(group: collect.Group) -> None:
    array, out = np.empty(30_011), np.empty(30_011)
    average = group.all_reduce_init(array, "avg", out=out, algorithm="two-rings")
    for run in range(5):
        array[:] = values(group.rank, "float64", array.size) + run
        total = sum(values(rank, "float64", array.size) + run for rank in range(group.size))
        assert average() is out
        assert (out == total / group.size).all()
        assert average.result.algorithm == "two-rings"


def test_a_plan_of_ones_own_reduces_like_numpy() -> None:
    for size in (3, 4):
        with world() as here:
            told = [peer.told("done") for peer in here.team(reducing, size)]

            assert sorted(each["rank"] for each in told) == list(range(size))
            assert {each["algorithm"] for each in told} == {"two-rings"}


def others(stage: Stage) -> None:
    """A rooted collective from every root, and collectives with blocks, with counts too."""
    with stage.join() as group:
        rank, size = group.rank, group.size
        for plan in (RELAY, TO_ALL, FROM_ALL):
            group.register(plan)
        for root in range(size):
            array = values(rank if rank == root else 99, "float32", 5003)
            assert group.broadcast(array, root, algorithm="relay").algorithm == "relay"
            assert (array == values(root, "float32", 5003)).all()
        counts = [11 * (r + 1) for r in range(size)]
        mine = values(rank, "int64", counts[rank])
        result = group.all_gather(mine, counts=counts, algorithm="to-all")
        every = [values(r, "int64", counts[r]) for r in range(size)]
        assert (result.array == np.concatenate(every)).all()
        result = group.reduce_scatter(values(rank, "int32", 7 * size), algorithm="from-all")
        want = total_of(size, "int32", 7 * size)
        assert (result.array == want[7 * rank : 7 * rank + 7]).all()
        stage.tell("done", algorithm=result.algorithm)


def test_other_collectives_have_plans_too() -> None:
    with world() as here:
        for peer in here.team(others, 3):
            assert peer.told("done")["algorithm"] == "from-all"


def dying(stage: Stage) -> None:
    """Contributes a power of two per name; "b" dies in the middle; a newcomer may come."""
    with stage.join() as group:
        group.register(TWO_RINGS)
        bit_of = {name: 2.0**index for index, name in enumerate("abcd")}
        stage.tell("joined")
        for index in range(8):
            if stage.name == "b" and index == 4:
                group._kill_at(stage.settings["frame"])
            array = np.full(200_000, bit_of[stage.name])
            result = group.all_reduce(array, algorithm="two-rings", timeout=30)
            want = sum(bit_of[name] for name in result.participants)
            assert (array == want).all()
            fields = {**result_fields(result), "bytes": want}
            stage.tell("reduced", **fields)


def test_a_member_is_lost_and_the_operation_ends_among_the_others() -> None:
    for frame in (1, 6):
        with world() as here:
            peers = here.team(dying, 4, frame=frame)
            for peer in peers:
                peer.told("joined")
            survivors = [peer for peer in peers if peer.name != "b"]

            for _ in range(8):
                told = [peer.told("reduced") for peer in survivors]
                assert len({(each["op"], each["epoch"], each["bytes"]) for each in told}) == 1
                assert {each["algorithm"] for each in told} == {"two-rings"}

            assert sorted(told[0]["participants"]) == ["a", "c", "d"]
            assert peers[1].wait() == -signal.SIGKILL


def growing(stage: Stage) -> None:
    """Reduces until it is told to stop; the plan has no world of more than two."""
    with stage.join() as group:
        say = stage.settings["say"]
        small = collect.plan("small")(SAYINGS[say])
        group.register(small)
        stage.tell("joined", size=group.size)
        while True:
            is_last = stage.name == "a" and stage.stop_was_said()
            array = np.array([1.0, float(is_last)])
            result = group.all_reduce(array, algorithm="small", timeout=30)
            if array[1] > 0:
                break
        stage.tell("over", algorithm=result.algorithm, sum=float(array[0]))


def say_for_two(plan: collect.Plan) -> None:
    if plan.world == 2:
        say_two_rings(plan)


def say_any(plan: collect.Plan) -> None:
    say_two_rings(plan)


SAYINGS = {"for two": say_for_two, "any": say_any}


def test_members_come_and_the_plan_follows_or_is_done_without() -> None:
    for say, algorithm in (("any", "small"), ("for two", "direct")):
        with world() as here:
            peers = here.team(growing, 2, say=say)
            for peer in peers:
                assert peer.told("joined")["size"] == 2
            peers.append(here.peer(growing, "c", say=say))
            assert peers[-1].told("joined")["size"] == 3
            peers[0].say()

            for peer in peers:
                told = peer.told("over")
                assert told["sum"] == 3.0
                assert (told["algorithm"] == "small") == (algorithm == "small")


def differing(stage: Stage) -> None:
    """One member means something else by the same name."""
    with stage.join() as group:
        is_other = group.rank == stage.settings["other"]
        stage.tell("joined", rank=group.rank)

        def say(plan: collect.Plan) -> None:
            if is_other:
                plan.slice(reduce={rank: rank - 1 for rank in range(1, plan.world)})
            else:
                plan.slice(reduce=dict.fromkeys(range(1, plan.world), 0))

        group.register(collect.plan("own")(say))
        array = np.arange(10.0)
        try:
            group.all_reduce(array, algorithm="own", timeout=stage.settings["limit_s"])
        except collect.Mismatch as error:
            assert (array == np.arange(10.0)).all()
            stage.tell("failed", **error_fields(error))
        result = group.all_reduce(np.ones(3))
        stage.tell("over", sum=float(result.array[0]))


# Rank 2 of the chain sends to rank 1, who sees what it is. Rank 1 waits for a rank 2 that sends to
# rank 0, who waits for rank 1: nobody sees anything until the time is over.
@pytest.mark.parametrize(("other", "limit_s"), [(2, None), (1, 4.0)])
def test_members_that_mean_different_plans_by_one_name_are_told(
    other: int, limit_s: float | None
) -> None:
    with world() as here:
        peers = here.team(differing, 3, other=other, limit_s=limit_s)
        names = {peer.told("joined")["rank"]: peer.name for peer in peers}

        told = [peer.told("failed") for peer in peers]

        assert all(each == told[0] for each in told), told
        assert told[0]["peer"] == names[other]
        assert told[0]["text"].count("all_reduce float64[10] sum by own/") == 2, told[0]["text"]
        for peer in peers:
            assert peer.told("over")["sum"] == 3.0


def refused(stage: Stage) -> None:
    with stage.join() as group:
        crossed = collect.plan("crossed")(say_crossed)
        try:
            group.register(crossed)
        except collect.InvalidArgument as error:
            stage.tell("refused", text=str(error))
        try:
            group.all_reduce(np.ones(3), algorithm="crossed")
        except collect.InvalidArgument as error:
            stage.tell("unknown", text=str(error))
        stage.tell("over", sum=float(group.all_reduce(np.ones(3)).array[0]))


def say_crossed(plan: collect.Plan) -> None:
    plan.slice(reduce=dict.fromkeys(range(1, plan.world), 0))
    plan.slice(reduce=dict.fromkeys(range(plan.world - 1, 0, -1), 0))


def test_a_plan_that_may_deadlock_is_not_registered() -> None:
    with world() as here:
        for peer in here.team(refused, 3):
            text = peer.told("refused")["text"]
            assert "'crossed' is wrong for 3 ranks: rank " in text
            assert "deadlock" in text
            assert "'crossed' cannot do all_reduce" in peer.told("unknown")["text"]
            assert peer.told("over")["sum"] == 3.0
