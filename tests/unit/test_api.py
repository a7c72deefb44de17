"""The public names, what importing costs, and what `join` refuses before it starts anything."""

import json
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import collect
from collect import api
from collect.api import Group, Work
from collect.errors import Aborted, InvalidArgument, StateMismatch, Timeout
from collect.native import status
from collect.native.buffer import prepare
from collect.native.communicator import OpInfo
from collect.session.operations import Outcome

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
    with pytest.raises(AttributeError, match="no attribute 'reduce'"):
        _ = collect.reduce


def test_join_refuses_settings_before_it_starts_anything() -> None:
    with pytest.raises(InvalidArgument, match="address 'nowhere' must be"):
        collect.join("nowhere")
    with pytest.raises(InvalidArgument, match="timeout is -1"):
        collect.join("127.0.0.1:1", timeout=-1)


class FakeSession:
    """One operation that ends as the test wants."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.control = SimpleNamespace(self_id=7, address="127.0.0.1:5000")
        self.config = SimpleNamespace(name="me", group="g")
        self.calls: list[str] = []

    def outcome(self, operation: Any) -> Outcome:
        del operation
        self.calls.append("outcome")
        if self.error is not None:
            raise self.error
        info = OpInfo(status.OK, (5 << 32) + 3, 5 << 24, 1_000_000_000, 3_500_000_000, 2, 2)
        return Outcome(info, (7, 8), ("me", "b"))

    def wait(self, operation: Any, timeout_s: float | None = None) -> Outcome:
        if operation.poll() == status.PENDING:
            raise Timeout(f"not complete after {timeout_s}")
        return self.outcome(operation)

    def submit(self, *_: object, **__: object) -> None:
        self.calls.append("submit")

    def name_of(self, incarnation: int) -> str:
        return {7: "me", 8: "b"}[incarnation]

    def leave(self, *, is_orderly: bool) -> None:
        self.calls.append(f"leave {is_orderly}")


class FakeOperation:
    def __init__(self, array: np.ndarray) -> None:
        self.operand = prepare(array)
        self.status = status.PENDING

    def poll(self) -> int:
        return self.status


def new_work(array: np.ndarray) -> tuple[Work, FakeSession, FakeOperation]:
    session, operation = FakeSession(), FakeOperation(array)
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
    assert (result.attempts, result.duration_s) == (2, 2.5)


def test_a_result_is_unpacked_once_whoever_asks_first() -> None:
    whole = np.zeros((3, 2))
    work, session, operation = new_work(whole[:, 0])
    operation.operand.target[:] = 4.0
    operation.status = status.OK

    assert work.done()
    assert whole[:, 0].tolist() == [4.0] * 3
    whole[:] = 0.0
    work.wait()

    assert not whole.any()
    assert session.calls == ["outcome"]


def test_a_failed_work_raises_every_time_and_leaves_the_array_alone() -> None:
    whole = np.zeros((3, 2))
    work, session, operation = new_work(whole[:, 0])
    operation.operand.target[:] = 4.0
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
        group.all_reduce(np.zeros(3, np.float16))
    with pytest.raises(InvalidArgument, match="op is 'prod'"):
        group.all_reduce(np.zeros(3), "prod")
    with pytest.raises(InvalidArgument, match="timeout"):
        group.all_reduce(np.zeros(3), timeout=-1)
    with pytest.raises(InvalidArgument, match="must be a NumPy array"):
        group.admit({"w": 1.0})
    assert session.calls == []


def test_every_public_method_is_documented() -> None:
    for kind in (api.Group, api.Work, api.Result, api.Admission, api.PeerInfo):
        assert kind.__doc__
        for name, member in vars(kind).items():
            is_public = not name.startswith("_") and (
                callable(member) or isinstance(member, property)
            )
            assert not is_public or member.__doc__, f"{kind.__name__}.{name}"
