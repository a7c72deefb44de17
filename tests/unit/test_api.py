"""The public names, what importing costs, and what `join` refuses before it starts anything."""

import asyncio
import json
import subprocess
import sys
import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import collect
from collect import api
from collect.api import Group, Work
from collect.api.calls import PACK_BYTES_MAX, PACKED_BYTES_MAX
from collect.errors import Aborted, Closed, InvalidArgument, StateMismatch, Timeout
from collect.native import status
from collect.native.call import Call, LaidOut, Maker
from collect.native.operation import OpInfo
from collect.session.history import History
from collect.session.watcher import Watcher
from collect.types import Member, View

WEIGHT = """
import sys, threading, json
import collect
loaded = [n for n in ("torch", "zmq", "uvloop", "numpy", "msgpack", "xxhash", "asyncio")
          if n in sys.modules]
native = [n for n in sys.modules if n.startswith("collect.native")]
print(json.dumps([loaded, native, threading.active_count()]))
"""


def test_importing_loads_no_library_and_starts_nothing() -> None:
    run = subprocess.run(
        [sys.executable, "-c", WEIGHT],
        capture_output=True,
        text=True,
        check=True,
        env={"COLLECT_TIMEOUT": "malformed", "PATH": ""},
    )

    assert json.loads(run.stdout) == [[], [], 1]


def test_every_public_name_exists() -> None:
    for name in collect.__all__:
        assert getattr(collect, name).__module__.startswith("collect.")
    assert set(collect.__all__) <= set(dir(collect))
    with pytest.raises(AttributeError, match="no attribute 'send'"):
        _ = collect.send


def test_join_refuses_settings_before_it_starts_anything() -> None:
    with pytest.raises(InvalidArgument, match="address 'nowhere' must be"):
        collect.join("nowhere")
    with pytest.raises(InvalidArgument, match="timeout is -1"):
        collect.join("127.0.0.1:1", timeout=-1)


class FakeOperation:
    def __init__(self, call: Call) -> None:
        self.call = call
        self.status = status.PENDING
        self.timeout_s: float | None = None
        self.attempt = 5 << 24

    def poll(self) -> int:
        return self.status

    @property
    def info(self) -> OpInfo:
        begun, ended = 1_000_000_000, 3_500_000_000
        return OpInfo(self.status, (5 << 32) + 3, self.attempt, begun, ended, 2, 2, 1)


class FakeSession:
    """Operations that end as the test wants. Every call is as the group made it."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        history = History()
        members = tuple(Member(i, n, "host", ()) for i, n in ((7, "me"), (8, "b")))
        history.add(View(5 << 24, members, 1))
        self.control = SimpleNamespace(self_id=7, address="127.0.0.1:5000", history=history)
        self.config = SimpleNamespace(name="me", group="g")
        self.maker = Maker()
        self.submitting = threading.RLock()
        self.watcher = Watcher("watcher", lambda: None)
        self.calls: list[str] = []
        self.submitted: list[FakeOperation] = []
        self.attempts: list[int] = []  # of the next operations

    def failure(self, operation: Any) -> Exception:
        del operation
        self.calls.append("failure")
        assert self.error is not None
        return self.error

    def wait(self, operation: Any, timeout_s: float | None = None) -> None:
        if operation.poll() == status.PENDING:
            raise Timeout(f"not complete after {timeout_s}")
        if operation.poll() != status.OK:
            raise self.failure(operation)

    def submit(self, call: Call, timeout_s: float | None = None, **_: object) -> FakeOperation:
        self.calls.append("submit")
        operation = FakeOperation(call)
        operation.timeout_s = timeout_s
        if self.attempts:
            operation.attempt = self.attempts.pop(0) << 24
        self.submitted.append(operation)
        return operation

    def run(self, call: Call, timeout_s: float | None = None) -> FakeOperation:
        operation = self.submit(call, timeout_s)
        operation.status = status.OK
        return operation

    def plain_calls(self, signature: Any) -> Any:
        """They take the longer way."""
        return SimpleNamespace(signature=signature, run=lambda *_: None)

    def place(self) -> tuple[int, int]:
        return 2, 0

    def root_of(self, root: int | str) -> int:
        return {0: 7, 1: 8, "me": 7, "b": 8}[root]

    def name_of(self, incarnation: int) -> str:
        return {7: "me", 8: "b"}[incarnation]

    def leave(self, *, is_orderly: bool) -> None:
        self.calls.append(f"leave {is_orderly}")


def new_work(array: np.ndarray) -> tuple[Work, FakeSession, FakeOperation]:
    session = FakeSession()
    operation = FakeOperation(session.maker.all_reduce(array, "sum"))
    return Work(session, operation), session, operation  # type: ignore[arg-type]


def test_a_work_under_way_has_no_result() -> None:
    work, _, operation = new_work(np.ones(3))

    assert not work.done()
    with pytest.raises(InvalidArgument, match="not complete"):
        _ = work.result
    with pytest.raises(Timeout):
        work.wait(0.5)

    operation.status = status.OK
    assert work.done()
    assert work.wait(0.0) is work.result


def test_a_result_says_what_happened() -> None:
    array = np.ones(3)
    work, _, operation = new_work(array)
    operation.status = status.OK

    result = work.result

    assert result.array is array
    assert (result.op, result.epoch, result.participants) == ("5.3", 5, ("me", "b"))
    assert (result.attempts, result.duration_s, result.algorithm) == (2, 2.5, "ring")
    assert repr(result) == "<collect.Result of 5.3, epoch 5, of me, b>"


def test_a_result_is_unpacked_once_whoever_asks_first() -> None:
    whole = np.zeros((3, 2))
    work, session, operation = new_work(whole[:, 0])
    assert operation.call.target is not None
    operation.call.target[:] = 4.0
    operation.status = status.OK

    assert work.done()
    assert whole[:, 0].tolist() == [4.0] * 3
    whole[:] = 0.0
    work.wait()

    assert not whole.any()
    assert session.calls == []


def test_a_failed_work_raises_every_time_and_leaves_the_array_alone() -> None:
    whole = np.zeros((3, 2))
    work, session, operation = new_work(whole[:, 0])
    assert operation.call.target is not None
    operation.call.target[:] = 4.0
    operation.status = status.E_FAILED
    session.error = Aborted("b called abort", peer="b")

    assert work.done()
    for _ in range(2):
        with pytest.raises(Aborted) as caught:
            work.wait()
        assert caught.value.peer == "b"
    assert not whole.any()


@pytest.mark.parametrize("timeout", [-1, float("nan"), float("inf"), "soon", True])
def test_times_that_make_no_sense_are_refused(timeout: Any) -> None:
    work, _, _ = new_work(np.ones(3))

    with pytest.raises(InvalidArgument, match="timeout is"):
        work.wait(timeout)


def new_group() -> tuple[Group, FakeSession]:
    session = FakeSession()
    return Group(session, None), session  # type: ignore[arg-type]


def test_a_group_is_left_once_and_in_order_unless_an_error_ends_it() -> None:
    group, session = new_group()
    with group as entered:
        assert entered is group
    group.leave()
    assert session.calls == ["leave True"]

    group, session = new_group()
    with pytest.raises(StateMismatch), group:
        raise StateMismatch("no")
    assert session.calls == ["leave False"]
    assert "left" in repr(group)


def test_arguments_are_checked_before_anything_is_submitted() -> None:
    group, session = new_group()

    with pytest.raises(InvalidArgument, match="dtype"):
        group.all_reduce(np.zeros(3, ">f4"))
    with pytest.raises(InvalidArgument, match="op is 'mean'"):
        group.all_reduce(np.zeros(3), "mean")
    with pytest.raises(InvalidArgument, match="timeout"):
        group.all_reduce(np.zeros(3), timeout=-1)
    with pytest.raises(InvalidArgument, match="must be a NumPy array"):
        group.admit({"w": 1.0})
    with pytest.raises(InvalidArgument, match="3 rows"):
        group.reduce_scatter(np.zeros(3))
    assert session.calls == []


# ---- calls ---------------------------------------------------------------------------------------


def test_the_short_way_makes_the_same_call_as_the_long_one() -> None:
    group, session = new_group()
    array, out = np.ones(3, np.float32), np.empty(3, np.float32)
    for _ in range(2):  # the first time all is looked up
        group.all_reduce(array, "max")
        group.all_reduce(array, "max", out=out)

    calls = [each.call for each in session.submitted]
    assert [type(call) for call in calls] == [LaidOut, Call, Call, Call]
    assert len({call.signature for call in calls}) == 1
    assert [call.target is array for call in calls] == [True, False, True, False]
    assert {call.count for call in calls} == {3}


def test_the_short_way_is_not_for_unusual_memory() -> None:
    group, session = new_group()
    plain = np.ones(4)
    group.all_reduce(plain)
    group.all_reduce(np.ones((4, 2))[:, 0])
    with pytest.raises(InvalidArgument, match="overlaps"):
        group.all_reduce(plain[:3], out=plain[1:])
    read_only = np.ones(3)
    read_only.flags.writeable = False
    with pytest.raises(InvalidArgument, match="read-only"):
        group.all_reduce(read_only)

    assert len(session.submitted) == 2
    assert session.submitted[1].call.source is not session.submitted[1].call.result


def test_only_the_root_gets_a_reduced_array() -> None:
    group, _ = new_group()
    array = np.ones(3)

    assert group.reduce(array, root="me").array is array
    assert group.reduce(array, root="b").array is None
    assert group.gather(array, root=1).array is None
    assert group.barrier().array is None


def test_counts_of_an_all_to_all_are_exchanged_first() -> None:
    group, session = new_group()
    run = session.run

    def exchange(call: Call, timeout_s: float | None = None) -> FakeOperation:
        operation = run(call, timeout_s)
        if call.source is not None and call.source.dtype == np.int64:
            assert call.source.tolist() == [1, 2]
            call.target[:] = [4, 0]  # type: ignore[index]
        return operation

    session.run = exchange  # type: ignore[method-assign]
    result = group.all_to_all(np.ones((3, 5), np.int8), send_counts=[1, 2])

    assert result.array.shape == (4, 5)
    assert len(session.submitted) == 2


def test_a_weighted_average_is_repeated_until_both_sums_are_of_the_same_members() -> None:
    group, session = new_group()
    members = tuple(Member(i, str(i), "host", ()) for i in (7, 8, 9))
    session.control.history.add(View(4 << 24, members, 1))
    session.attempts = [4, 5, 5, 5]  # a member is lost between the first two
    array = np.array([3.0, 6.0], np.float32)

    def wait(operation: FakeOperation, timeout_s: float | None = None) -> None:
        del timeout_s
        call = operation.call
        assert call.target is not None
        assert call.source is not None
        np.copyto(call.target, call.source * (getattr(call, "factor", 0.0) or 1.0))
        operation.status = status.OK

    session.wait = wait  # type: ignore[method-assign]
    result = group.all_reduce(array, "avg", weight=0.5)

    assert len(session.submitted) == 4
    assert session.submitted[0].call.factor == 0.5  # type: ignore[attr-defined]
    assert result.array is array
    assert array.tolist() == [3.0, 6.0]
    assert result.epoch == 5


def test_a_weighted_average_says_what_it_needs() -> None:
    group, session = new_group()
    with pytest.raises(InvalidArgument, match="op is 'sum'"):
        group.all_reduce(np.ones(2), "sum", weight=1.0)
    with pytest.raises(InvalidArgument, match="array is int32"):
        group.all_reduce(np.ones(2, np.int32), "avg", weight=1.0)
    with pytest.raises(InvalidArgument, match="several operations"):
        group.all_reduce(np.ones(2), "avg", weight=1.0, async_op=True)
    with pytest.raises(InvalidArgument, match="premul_sum needs a number"):
        group.all_reduce(np.ones(2), "avg", weight="1")  # type: ignore[call-overload]
    assert session.calls == []


# ---- batches -------------------------------------------------------------------------------------


def test_small_calls_of_a_batch_share_operations() -> None:
    group, session = new_group()
    small = [np.full(n, float(n)) for n in (1, 2, 3)]
    empty = np.zeros(0)
    strided = np.zeros((4, 2))[:, 0]
    large = np.zeros(PACKED_BYTES_MAX // 8 + 1)
    with group.coalesce() as batch:
        group.all_reduce(empty)
        first = group.all_reduce(small[0])
        group.all_reduce(small[1])
        group.all_reduce(large)
        group.all_reduce(strided)
        group.all_reduce(small[2], "max")
        group.broadcast(small[2])
        assert session.calls == []
        with pytest.raises(InvalidArgument, match="batch that is not submitted"):
            first.wait()

    counts = [operation.call.count for operation in session.submitted]
    assert counts == [1 + 2 + 4, large.size, 3, 3]
    pack = session.submitted[0].call
    assert pack.target is not None
    assert pack.target.tolist() == [1.0, 2.0, 2.0, 0.0, 0.0, 0.0, 0.0]
    pack.target += 10.0
    for operation in session.submitted:
        operation.status = status.OK
    results = batch.wait()

    wanted = (empty, small[0], small[1], large)
    assert all(result.array is each for result, each in zip(results, wanted, strict=False))
    assert small[1].tolist() == [12.0, 12.0]
    assert strided.tolist() == [10.0] * 4
    assert len(batch.works) == 7


def test_a_pack_is_bounded() -> None:
    group, session = new_group()
    arrays = [np.zeros(PACKED_BYTES_MAX // 8) for _ in range(17)]
    with group.coalesce():
        for array in arrays:
            group.all_reduce(array)

    assert [len(operation.call.source) for operation in session.submitted] == [
        PACK_BYTES_MAX // 8,
        PACKED_BYTES_MAX // 8,
    ]


def test_an_error_in_a_batch_submits_nothing() -> None:
    group, session = new_group()

    works: list[Work] = []

    def fill() -> None:
        works.append(group.all_reduce(np.ones(2), async_op=True))
        with pytest.raises(InvalidArgument, match="open already"):
            group.coalesce()
        raise ValueError("my own")

    with pytest.raises(ValueError, match="my own"), group.coalesce():
        fill()
    assert session.calls == []
    with pytest.raises(Aborted, match="the batch ended with an error"):
        works[0].wait()


def test_other_threads_calls_are_not_of_the_batch() -> None:
    group, session = new_group()
    with group.coalesce() as batch:
        other = threading.Thread(target=group.barrier)
        other.start()
        other.join()
        assert session.calls == ["submit"]
    assert batch.works == ()


# ---- asyncio -------------------------------------------------------------------------------------


def test_works_are_awaited_without_blocking_the_loop() -> None:
    operations: list[Any] = []

    class Slow(FakeOperation):
        def wait(self, timeout_s: float) -> int:
            released.wait(timeout_s)
            return self.poll()

    released = threading.Event()

    async def main() -> list[collect.Result]:
        session = FakeSession()
        for _ in range(100):
            operation = Slow(session.maker.all_reduce(np.ones(1), "sum"))
            operations.append(operation)
        session.watcher = Watcher("watcher", lambda: operations[0])
        works = [Work(session, each) for each in operations]  # type: ignore[arg-type]
        waiting = [asyncio.ensure_future(as_coroutine(work)) for work in works]
        given_up = asyncio.ensure_future(as_coroutine(works[0]))
        await asyncio.sleep(0)
        given_up.cancel()
        assert not any(each.done() for each in waiting)
        for each in operations:
            each.status = status.OK
        released.set()
        results = await asyncio.wait_for(asyncio.gather(*waiting), 20)
        session.watcher.stop()
        assert await works[0] is results[0]
        return results

    async def as_coroutine(work: Work) -> collect.Result:
        return await work

    assert len(asyncio.run(main())) == 100


def test_an_awaited_failure_is_raised() -> None:
    work, session, operation = new_work(np.ones(2))
    operation.status = status.E_FAILED
    session.error = Aborted("b called abort")

    async def main() -> None:
        with pytest.raises(Aborted):
            await work

    asyncio.run(main())


def test_works_that_wait_when_the_group_ends_look_for_themselves() -> None:
    work, session, operation = new_work(np.ones(2))
    operation.wait = lambda _: operation.status  # type: ignore[attr-defined]
    session.error = Closed("left")

    async def main() -> None:
        waiting = asyncio.ensure_future(as_coroutine())
        await asyncio.sleep(0)
        operation.status = status.E_ABORTED
        session.watcher.stop()
        with pytest.raises(Closed):
            await asyncio.wait_for(waiting, 20)

    async def as_coroutine() -> None:
        await work

    asyncio.run(main())


def test_every_public_method_is_documented() -> None:
    kinds = (api.Group, api.Work, api.Result, api.Admission, api.PeerInfo, api.Batch)
    for kind in (*kinds, api.Persistent, *api.Group.__mro__[1:-1]):
        assert kind.__doc__
        for name, member in vars(kind).items():
            is_public = not name.startswith("_") and (
                callable(member) or isinstance(member, property)
            )
            assert not is_public or member.__doc__, f"{kind.__name__}.{name}"
