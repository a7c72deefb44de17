"""A prepared operation: boundaries, refusals, waiting, and a deadline of its own."""

import gc
from typing import Any

import numpy as np
import pytest

from collect import config, native
from collect.config import Address
from collect.errors import Closed, CollectError, MembersChanged, OperationFailed
from collect.membership.events import PassBoundary
from collect.native import status
from collect.native.communicator import Communicator
from collect.session import operations
from collect.session.operations import Session
from collect.session.plain import PlainCalls
from collect.session.prepared import PreparedCall
from collect.types import Member, View
from tests.unit.native.test_communicator import Core
from tests.unit.session.fakes import EPOCH, FakeControl


@pytest.fixture
def core(monkeypatch: pytest.MonkeyPatch) -> Core:
    pytest.importorskip("collect.native._lib", reason="the native module is not built")
    made = Core(native.ffi)
    monkeypatch.setitem(vars(native), "lib", made)
    return made


@pytest.fixture
def control(monkeypatch: pytest.MonkeyPatch, core: Core) -> FakeControl:
    made = FakeControl()
    made.communicator = Communicator(core.ffi.NULL, 1, 7)
    monkeypatch.setattr(operations, "ControlPlane", lambda *_: made)
    monkeypatch.setattr(operations.native, "require", lambda: None)
    return made


def new_call(control: FakeControl, timeout_s: float | None = None, **arguments: Any) -> Any:
    session = Session(config.load({"name": "me", **arguments}, {}), Address("127.0.0.1", 5000))
    out = np.zeros(3)
    call = session.maker.all_reduce(np.ones(3), "sum", out=out)
    return PreparedCall(session, call, timeout_s), session, out


def boundaries(control: FakeControl) -> int:
    with control.lock:
        control.lease.recall()
    return control.peer.boundaries


def test_each_run_passes_a_boundary(core: Core, control: FakeControl) -> None:
    call, _, out = new_call(control)

    assert all(call() is out for _ in range(3))
    assert boundaries(control) == 3
    assert len(core.started) == 1  # laid out once

    call.start()
    assert call.done()
    assert call.wait() is out
    assert boundaries(control) == 4


def test_a_run_that_the_core_refuses_passes_no_boundary(core: Core, control: FakeControl) -> None:
    call, _, out = new_call(control)
    core.answer = status.E_FULL
    with pytest.raises(OperationFailed):
        call()
    with pytest.raises(OperationFailed):
        call.start()
    core.answer = status.OK

    assert call() is out
    assert boundaries(control) == 1


def test_one_start_at_a_time(core: Core, control: FakeControl) -> None:
    call, _, _ = new_call(control)
    core.status = status.PENDING
    call.start()
    core.answer = status.E_BUSY
    for again in (call, call.start):
        with pytest.raises(CollectError, match="under way"):
            again()
    core.answer = core.status = status.OK

    call.wait()
    assert call.done()


def test_the_core_knows_how_long_a_run_may_take(core: Core, control: FakeControl) -> None:
    new_call(control, 0.01)
    new_call(control, 0)

    assert [each["deadline_ns"] for each in core.started] == [10_000_000, 1]
    assert all(each["takes_boundary"] for each in core.started)


def test_a_run_goes_on_after_a_first_slice(core: Core, control: FakeControl) -> None:
    call, session, out = new_call(control)
    core.status = status.PENDING
    look = core.collect_op_wait
    looks: list[int] = []

    def wait(op: Any, timeout_ns: int) -> int:
        looks.append(timeout_ns)
        core.status = status.OK if len(looks) > 1 else core.status
        return look(op, timeout_ns)

    vars(call._prepared.core)["op_wait"] = wait

    assert call() is out
    assert len(looks) >= 2
    assert session.control.communicator.core.under_way == {}


def test_a_failure_is_raised_and_the_next_run_goes_on(core: Core, control: FakeControl) -> None:
    call, _, out = new_call(control)
    core.status = status.E_MEMBERS
    with pytest.raises(MembersChanged):
        call()
    core.status = status.OK

    assert call() is out
    assert boundaries(control) == 2


def test_a_closed_group_runs_nothing(core: Core, control: FakeControl) -> None:
    del core
    call, _, _ = new_call(control)
    control.communicator.close()

    for way in (call, call.start):
        with pytest.raises(Closed):
            way()


# ---- blocks --------------------------------------------------------------------------------------


def grow(control: FakeControl) -> None:
    """A third member is let in at the next boundary."""
    third = Member(9, "c", "host", ("127.0.0.1:1",))

    def enter(boundary: int) -> None:
        assert control.view is not None
        control.view = View(EPOCH + 1, (*control.view.members, third), 1)
        control.passage = PassBoundary(boundary, (9,), False)
        control.peer.boundaries = boundary
        control.peer.is_boundary_due = False

    with control.lock:
        control.lease.recall()
        control.peer.is_boundary_due = True
    control.ask_boundary = enter  # type: ignore[method-assign]


def new_scatter(control: FakeControl) -> tuple[Any, Session]:
    session = Session(config.load({"name": "me"}, {}), Address("127.0.0.1", 5000))
    call = session.maker.reduce_scatter(np.ones(6), "sum", 2, 0)
    return PreparedCall(session, call, None), session


def test_blocks_are_looked_at_again_when_the_members_change(
    core: Core, control: FakeControl
) -> None:
    call, session = new_scatter(control)
    assert call().shape == (3,)
    assert call().shape == (3,)
    grow(control)

    for way in (call, call.start, call.start):
        with pytest.raises(MembersChanged, match="laid out for 2 members, and now there are 3"):
            way()

    assert core.passed == 2
    plain = PreparedCall(session, session.maker.all_reduce(np.ones(2), "sum"), None)
    plain()
    assert boundaries(control) == 3  # the one that let the third in


# ---- all-reduces of plain arrays -----------------------------------------------------------------


def new_plain(control: FakeControl) -> PlainCalls:
    session = Session(config.load({"name": "me"}, {}), Address("127.0.0.1", 5000))
    return session.plain_calls(session.maker.all_reduce(np.ones(1), "sum").signature)


def address_of(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


def test_other_memory_is_run_by_the_same_operations(core: Core, control: FakeControl) -> None:
    plain = new_plain(control)
    arrays = [np.ones(count) for count in (3, 4, 5, 6)]
    out = np.empty(6)

    last = None
    for array in arrays:
        last = plain.run(array, array)  # whoever keeps the last result holds one operation
    assert last is not None
    assert plain.run(arrays[-1], out) is not last

    addresses = [address_of(array) for array in arrays]
    assert core.runs == [
        *((here, here, array.size) for here, array in zip(addresses, arrays, strict=True)),
        (addresses[-1], address_of(out), 6),
    ]
    assert len(core.started) == 2
    assert boundaries(control) == 5


def test_memory_is_lent_for_the_call_only(core: Core, control: FakeControl) -> None:
    del core
    plain = new_plain(control)
    array = np.ones(3)

    assert plain.run(array, array) is not None

    array.resize(5)  # which needs that nobody uses it


@pytest.mark.parametrize(
    "pair",
    [
        (np.ones(4)[::2], None),
        (np.ones(2), np.ones(4)[::2]),
        (np.ones(2), np.ones(3)),
        (np.ones(2), np.ones(2, np.float32)),
        (np.ones(4)[::2], np.ones(2)),
        (np.ones(0), None),
        (np.frombuffer(bytes(16)), None),
        (np.frombuffer(bytes(17), np.uint8)[1:].view(np.float64), np.ones(2)),
    ],
)
def test_memory_that_is_not_plain_takes_the_longer_way(
    core: Core, control: FakeControl, pair: tuple[np.ndarray, np.ndarray | None]
) -> None:
    source, target = pair

    assert new_plain(control).run(source, source if target is None else target) is None
    assert core.runs == []


def test_what_the_core_refuses_takes_the_longer_way(core: Core, control: FakeControl) -> None:
    plain = new_plain(control)
    array = np.ones(3)
    assert plain.run(array, array) is not None
    for refusal in (status.E_FULL, status.E_BUSY, status.E_INVALID, status.E_CLOSED):
        core.answer = refusal
        assert plain.run(array, array) is None
        core.answer = status.OK
        assert plain.run(array, array) is not None

    assert len(core.started) == 1
    assert boundaries(control) == 5


def test_an_operation_that_fails_is_not_run_again(core: Core, control: FakeControl) -> None:
    plain = new_plain(control)
    array = np.ones(3)
    core.status = status.E_MEMBERS
    with pytest.raises(MembersChanged):
        plain.run(array, array)
    array.resize(4)
    core.status = status.OK

    assert plain.run(array, array) is not None
    assert plain.run(array, array) is not None
    assert len(core.started) == 2


def test_an_interrupted_call_keeps_its_memory_until_its_end(
    core: Core, control: FakeControl
) -> None:
    plain = new_plain(control)
    array = np.ones(3)
    assert plain.run(array, array) is not None
    run_on = plain._run_on

    def interrupt(*arguments: Any) -> int:
        core.status = status.PENDING
        assert run_on(*arguments) == status.PENDING
        raise KeyboardInterrupt

    plain._run_on = interrupt
    with pytest.raises(KeyboardInterrupt):
        plain.run(array, array)
    plain._run_on = run_on

    # The next two take the places of the first two, so that it is dropped.
    core.status = status.OK
    assert plain.run(array, array) is not None
    core.status = status.PENDING
    with pytest.raises(ValueError, match="resize"):
        array.resize(5)
    plain._spare = plain._other = None
    gc.collect()
    with pytest.raises(ValueError, match="resize"):
        array.resize(5)

    core.status = status.OK
    control.communicator.reap()
    gc.collect()
    array.resize(5)
