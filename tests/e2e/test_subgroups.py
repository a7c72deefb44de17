"""Sub-groups over real processes: what they compute, what they cost, and how they survive."""

import os
import signal
import threading
import time

import numpy as np
import pytest

import collect
from collect import native
from collect.session import subgroups
from tests.e2e.world import Stage, error_fields, world

COUNT = 100_000
MANY = 200


def over(peers: list) -> list[dict]:
    """What each tells at its end, which is a good one."""
    told = [peer.told("over") for peer in peers]
    assert [peer.wait() for peer in peers] == [0] * len(peers)
    return told


def grid(stage: Stage) -> None:
    """Rows and columns of two: every collective gives what NumPy computes from the ranks."""
    with stage.join(transport=stage.settings["transport"]) as group:
        rank = group.rank
        row = group.subgroup([rank - rank % 2, rank - rank % 2 + 1])
        column = group.subgroup([(rank + 2) % 4, rank] if rank >= 2 else [rank, rank + 2])
        in_row, in_column = [rank - rank % 2, rank - rank % 2 + 1], [rank % 2, rank % 2 + 2]
        assert (row.rank, row.size, column.rank, column.size) == (rank % 2, 2, rank // 2, 2)
        for count in (10, COUNT):
            for sub, ranks in ((row, in_row), (column, in_column)):
                check_collectives(sub, ranks, rank, count)
        names = [group.peers[each].name for each in in_row]
        assert row.all_reduce(np.ones(3)).participants == tuple(names) == row.members
        group.barrier()
        stage.tell("over")


def check_collectives(sub: collect.SubGroup, ranks: list[int], rank: int, count: int) -> None:
    me, size = sub.rank, sub.size
    parts = {each: np.arange(count * size) + 1000.0 * each for each in ranks}
    mine, total = parts[rank], sum(parts.values())
    assert (sub.all_reduce(mine.copy()).array == total).all()
    assert (sub.all_reduce(mine.copy(), "max").array == parts[max(ranks)]).all()
    assert (sub.all_reduce(mine.copy(), "avg", weight=1.0).array == total / size).all()
    gathered = sub.all_gather(mine).array
    assert all((gathered[i] == parts[each]).all() for i, each in enumerate(ranks))
    block = slice(me * count, (me + 1) * count)
    assert (sub.reduce_scatter(mine).array == total[block]).all()
    exchanged = sub.all_to_all(mine).array.reshape(size, count)
    assert all((exchanged[i] == parts[each][block]).all() for i, each in enumerate(ranks))
    assert (sub.broadcast(mine.copy(), 1).array == parts[ranks[1]]).all()
    reduced = sub.reduce(mine.copy(), root=sub.members[0]).array
    assert (reduced == total).all() if me == 0 else reduced is None
    collected = sub.gather(mine, 1).array
    assert collected is None if me != 1 else (collected[0] == parts[ranks[0]]).all()
    out = np.empty(count)
    sub.scatter(mine if me == 0 else None, 0, out=out)
    assert (out == parts[ranks[0]][block]).all()
    sub.barrier()
    add = sub.all_reduce_init(memory := mine.copy())
    for _ in range(3):
        memory[:] = mine
        assert (add() == total).all()


@pytest.mark.parametrize("transport", ["auto", "tcp"])
def test_rows_and_columns_compute_what_their_members_contribute(transport: str) -> None:
    with world() as here:
        over(here.team(grid, 4, transport=transport))


def many(stage: Stage) -> None:
    with stage.join(transport="tcp") as group:
        group.barrier()
        before = resources()
        took, subs = [], []
        for index in range(MANY):
            ranks = [[0, 1, 2], [2, 0, 1], [1, 0, 2]][index % 3]
            begun_s = time.perf_counter()
            subs.append(group.subgroup(ranks))
            took.append(time.perf_counter() - begun_s)
        assert resources() == before
        works = [sub.all_reduce(np.full(5, float(i)), async_op=True) for i, sub in enumerate(subs)]
        for index, work in reversed(list(enumerate(works))):
            assert (work.wait().array == 3.0 * index).all()
        for sub in subs:
            sub.close()
        kept = len(group._session.control.scopes._planes)
        group.barrier()
        group._session.control.scopes.free_settled()
        left = len(group._session.control.scopes._planes)
        stage.tell("over", took_s=sorted(took), kept=kept, left=left)


def resources() -> tuple[int, int]:
    return len(os.listdir("/proc/self/fd")), threading.active_count()


def test_hundreds_cost_neither_descriptors_nor_threads_nor_time() -> None:
    with world() as here:
        for told in over(here.team(many, 3)):
            assert told["took_s"][MANY // 10] < 0.001  # whatever else this machine does
            assert (told["kept"], told["left"]) == (MANY, 0)


def mortal(stage: Stage) -> None:
    """Two sub-groups of three; a member of one dies in the middle of its operations."""
    with stage.join(transport=stage.settings["transport"]) as group:
        is_even = group.rank % 2 == 0
        everybody = [peer.name for peer in group.peers]
        mine = [name for rank, name in enumerate(everybody) if (rank % 2 == 0) == is_even]
        sub = group.subgroup(mine)
        bit = {name: 2.0**rank for rank, name in enumerate(everybody)}
        stage.tell("joined", victim=everybody[2], is_even=is_even)
        seen = []
        for index in range(12):
            if group.rank == 2 and index == 5 and len(everybody) == group.size:
                sub._kill_at(stage.settings["frame"])
            result = sub.all_reduce(np.full(COUNT, bit[stage.name]), timeout=30)
            assert (result.array == sum(bit[name] for name in result.participants)).all()
            seen.append((result.op, result.epoch, list(result.participants), result.attempts))
        after = group.all_reduce(np.array([1.0])).participants
        stage.tell("over", seen=seen, mine=mine, after=after)


@pytest.mark.parametrize("transport", ["auto", "tcp"])
@pytest.mark.parametrize("frame", [1, 3, 6])
def test_a_death_in_the_middle_of_a_sub_groups_operation_is_survived(
    frame: int, transport: str
) -> None:
    with world() as here:
        peers = here.team(mortal, 6, frame=frame, transport=transport)
        joined = {peer.name: peer.told("joined") for peer in peers}
        victim = joined[peers[0].name]["victim"]
        survivors = [peer for peer in peers if peer.name != victim]
        told = {peer.name: peer.told("over") for peer in survivors}
        assert [peer.wait() for peer in survivors] == [0] * 5

        for is_even in (True, False):
            stories = [told[name] for name in told if joined[name]["is_even"] == is_even]
            same = [[entry[:3] for entry in story["seen"]] for story in stories]
            assert all(each == same[0] for each in same)
            rest = [name for name in stories[0]["mine"] if name != victim]
            assert same[0][-1][2] == rest
            assert len(rest) == (2 if is_even else 3)
        assert all(sorted(each["after"]) == sorted(told) for each in told.values())
        assert next(p for p in peers if p.name == victim).wait() == -signal.SIGKILL


def mixed(stage: Stage) -> None:
    """Operations of the group and of sub-groups in flight at once, while others join."""
    is_founder = stage.settings.get("min_peers", 1) > 1
    with stage.join() as group:
        pair = group.subgroup(["a", "b"]) if stage.name in "ab" else None
        stage.tell("joined")
        step = 0
        while True:
            is_last = stage.settings.get("is_stopper", False) and stage.stop_was_said()
            works = []
            if pair is not None:
                with pair.coalesce() as batch:
                    pair.all_reduce(np.full(4, 1.0 + step))
                    pair.all_reduce(np.full(7, 2.0 + step))
                works = [(pair.all_gather(np.array([step]), async_op=True), [[step], [step]])]
            whole = group.all_reduce(np.array([1.0, float(is_last)]), async_op=True)
            if pair is not None:
                works.append((pair.all_reduce(np.full(4, 3.0), async_op=True), [6.0] * 4))
                small, large = batch.wait()
                assert (small.array == 2 + 2 * step).all()
                assert (large.array == 4 + 2 * step).all()
            for work, want in works:
                assert work.wait(30).array.tolist() == want
            result = whole.wait(30)
            assert result.array[0] == len(result.participants)
            step += is_founder
            if result.array[1]:
                break
        stage.tell("over", participants=result.participants)


def test_newcomers_enter_while_sub_groups_work() -> None:
    with world() as here:
        founders = here.team(mixed, 3)
        for peer in founders:
            peer.told("joined")
        late = [here.peer(mixed, name, is_stopper=name == "y") for name in "xy"]
        for peer in late:
            peer.told("joined")
        here.wait_for_log("5 members")
        late[1].say("stop")
        for told in over([*founders, *late]):
            assert sorted(told["participants"]) == ["a", "b", "c", "x", "y"]


def dividing(stage: Stage) -> None:
    with stage.join() as group:
        rank = group.rank
        odd = group.split(rank % 2, key=-rank)
        assert odd is not None
        members = [peer.name for peer in group.peers]
        want = [members[each] for each in (4, 2, 0)] if rank % 2 == 0 else [members[3], members[1]]
        assert list(odd.members) == want
        assert odd.all_reduce(np.array([rank])).array[0] == (6 if rank % 2 == 0 else 4)
        some = group.split(None if rank == 0 else 7)
        assert (some is None) == (rank == 0)
        if some is not None:
            assert list(some.members) == members[1:]
            pair = some.split(some.rank // 2)
            assert pair is not None
            assert pair.all_reduce(np.array([rank])).array[0] == (3 if rank < 3 else 7)
            assert pair.subgroup([pair.rank]).all_reduce(np.array([5])).array[0] == 5
        group.barrier()
        stage.tell("over")


def test_members_divide_by_colors_and_keys() -> None:
    with world() as here:
        over(here.team(dividing, 5))


def talking(stage: Stage) -> None:
    with stage.join() as group:
        rank, names = group.rank, [peer.name for peer in group.peers]
        sub = group.subgroup([names[2], names[0]]) if rank != 1 else None
        if rank == 1:
            group.send(np.array([10]), 0, tag=3)
        elif rank == 2:
            assert sub is not None
            sub.send(np.array([20]), 1, tag=3)
            delivery = sub.sendrecv(np.array([21]), 1, got := np.zeros(1, int), 1, tag=4)
            assert (got[0], delivery.peer) == (31, names[0])
        else:
            assert sub is not None
            got = np.zeros(1, int)
            assert (sub.recv(got, tag=3).peer, got[0]) == (names[2], 20)  # not b's of the group
            assert (group.recv(got, tag=3).peer, got[0]) == (names[1], 10)
            sub.sendrecv(np.array([31]), 0, got, 0, tag=4)
            assert got[0] == 21
            with pytest.raises(collect.InvalidArgument, match="2\\*\\*32 - 1"):
                sub.send(got, 0, tag=2**32)
            with pytest.raises(collect.Timeout, match=r"tag 9"):
                sub.recv(got, 0, tag=9, timeout=0.1)
        group.barrier()
        stage.tell("over")


def test_messages_go_by_the_sub_groups_ranks_with_tags_of_its_own() -> None:
    with world() as here:
        over(here.team(talking, 3))


def failing(stage: Stage) -> None:
    """Makes operations fail, and shows that the sub-group, and the others, work on."""
    with stage.join() as group:
        rank, kind = group.rank, stage.settings["kind"]
        if rank == 2:
            for _ in range(3):
                group.barrier()
            stage.tell("over", type="", text="")
            return
        sub = group.subgroup([0, 1])
        group.barrier()
        try:
            if kind == "mismatch":
                sub.all_reduce(np.zeros(5 + rank))
            elif kind == "abort":
                work = sub.all_reduce(np.zeros(5), async_op=True)
                if rank == 0:
                    sub.abort()
                work.wait()
            elif kind == "timeout":
                if rank == 1:
                    stage.hear()
                sub.all_reduce(np.zeros(5), timeout=0.5 if rank == 0 else 30)
            elif kind == "abandoned":
                with sub:
                    if rank == 0:
                        sub.all_reduce(np.zeros(5), async_op=True)
                        raise KeyError("left in the middle")
                    sub.all_reduce(np.zeros(5))
            told = {"type": "", "text": ""}
        except collect.CollectError as error:
            told = error_fields(error)
        except KeyError as error:
            told = {"type": type(error).__name__, "text": str(error)}
        stage.tell("failed", **told)
        group.barrier()
        if kind != "abandoned":
            assert sub.all_reduce(np.array([1.0])).array[0] == 2
        group.barrier()
        sub.close()
        with pytest.raises(collect.Closed, match="this sub-group is closed"):
            sub.barrier()
        stage.tell("over", **told)


@pytest.mark.parametrize(
    ("kind", "type_", "text"),
    [
        ("mismatch", "Mismatch", "called all_reduce"),
        ("abort", "Aborted", "abort"),
        ("timeout", "Timeout", "deadline"),
        ("abandoned", "Aborted", "abort"),
    ],
)
def test_a_failure_is_told_to_the_members_of_the_sub_group(
    kind: str, type_: str, text: str
) -> None:
    with world() as here:
        peers = here.team(failing, 3, kind=kind)
        ranked = {}
        if kind == "timeout":
            here.wait_for_log("cancelled")
            for peer in peers:
                peer.say()
        for peer in peers:
            told = peer.told_any()
            if told["what"] == "failed":
                ranked[peer.name] = told
                peer.told("over")
        assert [peer.wait() for peer in peers] == [0, 0, 0]
        assert len(ranked) == 2
        types = [each["type"] for each in ranked.values()]
        if kind == "abandoned":
            assert sorted(types) == [type_, "KeyError"]
        else:
            assert types == [type_, type_]
            assert all(text in each["text"] for each in ranked.values())


def leaving(stage: Stage) -> None:
    with stage.join() as group:
        sub = group.subgroup(["a", "b", "c"])
        again = group.subgroup(["c", "a", "b"])
        again.all_reduce(np.zeros(3))
        assert sub.all_reduce(np.array([1.0])).array[0] == 3
        if stage.name == "b":
            stage.tell("over")
            return
        while sub.all_reduce(np.array([1.0])).array[0] == 3:
            pass
        assert (sub.members, again.members) == (("a", "c"), ("c", "a"))
        assert again.all_gather(np.array([ord(stage.name)])).array.tolist() == [[99], [97]]
        rank = sub.rank
        blocks = sub.reduce_scatter(np.arange(4.0))
        assert blocks.array.tolist() == ([0.0, 2.0] if rank == 0 else [4.0, 6.0])
        stage.tell("over")


def test_who_leaves_the_group_leaves_its_sub_groups() -> None:
    with world() as here:
        over(here.team(leaving, 3))


def test_the_core_forgets_what_is_closed() -> None:
    """In one process: a group of one, whose sub-groups are worlds of one."""
    with collect.join() as group:
        group.barrier()
        blocks = native.lib.collect_heap_blocks()
        for _ in range(50):
            with group.subgroup([0]) as sub:
                assert sub.all_reduce(np.array([4.0])).array[0] == 4
            group.barrier()
        group._session.control.scopes.free_settled()

        assert not group._session.control.scopes._planes
        assert native.lib.collect_heap_blocks() <= blocks + 4
        assert isinstance(sub._session, subgroups.ScopeSession)
