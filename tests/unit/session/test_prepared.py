"""A prepared operation: boundaries, refusals, waiting, and a deadline of its own."""

from typing import Any

import numpy as np
import pytest

from collect import config, native
from collect.config import Address
from collect.errors import Closed, CollectError, MembersChanged, OperationFailed
from collect.native import status
from collect.native.communicator import Communicator
from collect.session import operations, prepared
from collect.session.operations import Session
from collect.session.prepared import PreparedCall
from tests.unit.native.test_communicator import Core
from tests.unit.session.fakes import FakeControl


class LateControl(FakeControl):
    """Notes what was late."""

    def __init__(self) -> None:
        super().__init__()
        self.late: list[int] = []

    def give_up_late(self, op: int) -> None:
        self.late.append(op)


@pytest.fixture
def core(monkeypatch: pytest.MonkeyPatch) -> Core:
    pytest.importorskip("collect.native._lib", reason="the native module is not built")
    made = Core(native.ffi)
    monkeypatch.setitem(vars(native), "lib", made)
    monkeypatch.setattr(prepared, "POLL_S", 0.001)
    return made


@pytest.fixture
def control(monkeypatch: pytest.MonkeyPatch, core: Core) -> LateControl:
    made = LateControl()
    made.communicator = Communicator(core.ffi.NULL, 1, 7)
    monkeypatch.setattr(operations, "ControlPlane", lambda *_: made)
    monkeypatch.setattr(operations.native, "require", lambda: None)
    return made


def new_call(control: LateControl, timeout_s: float | None = None, **arguments: Any) -> Any:
    session = Session(config.load({"name": "me", **arguments}, {}), Address("127.0.0.1", 5000))
    out = np.zeros(3)
    call = session.maker.all_reduce(np.ones(3), "sum", out=out)
    return PreparedCall(session, call, timeout_s), session, out


def test_each_run_passes_a_boundary(core: Core, control: LateControl) -> None:
    call, _, out = new_call(control)

    assert all(call() is out for _ in range(3))
    assert control.peer.boundaries == 3
    assert len(core.started) == 1  # laid out once

    call.start()
    assert call.done()
    assert call.wait() is out
    assert control.peer.boundaries == 4


def test_a_run_that_the_core_refuses_keeps_its_boundary(core: Core, control: LateControl) -> None:
    call, _, out = new_call(control)
    core.answer = status.E_FULL
    with pytest.raises(OperationFailed):
        call()
    with pytest.raises(OperationFailed):
        call.start()
    core.answer = status.OK

    assert call() is out
    assert control.peer.boundaries == 1


def test_one_start_at_a_time(core: Core, control: LateControl) -> None:
    call, _, _ = new_call(control)
    core.status = status.PENDING
    call.start()
    for again in (call, call.start):
        with pytest.raises(CollectError, match="under way"):
            again()
    core.status = status.OK

    call.wait()
    assert control.communicator.core.under_way == {}


def test_a_run_that_takes_too_long_is_given_up_by_all(core: Core, control: LateControl) -> None:
    call, session, _ = new_call(control, 0.01)
    core.answer = core.status = status.PENDING  # what the run says, and each look after it
    waited: list[Any] = []

    def wait(operation: Any, timeout_s: float | None = None) -> None:
        waited.append((operation, timeout_s))

    session.wait = wait

    call()

    assert control.late == [5]
    assert len(waited) == 1


def test_a_failure_is_raised_and_the_next_run_goes_on(core: Core, control: LateControl) -> None:
    call, _, out = new_call(control)
    core.answer = core.status = status.E_MEMBERS
    with pytest.raises(MembersChanged):
        call()
    core.answer = core.status = status.OK

    assert call() is out
    assert control.peer.boundaries == 2


def test_a_closed_group_runs_nothing(core: Core, control: LateControl) -> None:
    del core
    call, _, _ = new_call(control)
    control.communicator.close()

    for way in (call, call.start):
        with pytest.raises(Closed):
            way()
