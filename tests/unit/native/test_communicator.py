"""What the core is handed, with a core that only takes notes."""

import gc
from typing import Any

import numpy as np
import pytest

from collect import native
from collect.errors import Closed, InvalidArgument, MembersChanged
from collect.native import communicator as module
from collect.native import status
from collect.native.call import LaidOut, Maker
from collect.native.communicator import Communicator, InstallRequest, MemberAddress
from collect.native.operation import Operation
from collect.types import LinkModel, Recipe, Repair, Verdict, VerdictKind

FIELDS = (
    "collective",
    "dtype",
    "reduce_op",
    "algorithm",
    "root",
    "world",
    "count",
    "factor",
    "deadline_ns",
    "takes_boundary",
)


class Core:
    """The functions of collect.h that a communicator uses."""

    def __init__(self, ffi: Any) -> None:
        self.ffi = ffi
        self.answer = status.OK
        self.status = status.OK
        self.started: list[dict[str, Any]] = []
        self.installed: dict[str, Any] = {}
        self.released = 0
        self.handles: list[Any] = []
        self.passed = self.limit = 0
        self.is_destroyed = False
        self.runs: list[tuple[int, int, int]] = []  # by collect_op_run_on

    def collect_algorithm_has(self, *_: int) -> int:
        return 1

    def collect_status_name(self, _: int) -> Any:
        return self.ffi.new("char[]", b"NAME")

    def collect_comm_create(self, *arguments: Any) -> int:
        return self._make(arguments[-1])

    def collect_comm_start(self, _: Any, call: Any, op_out: Any) -> int:
        self._note(call)
        return self._make(op_out) if self.answer == status.OK else self.answer

    def collect_op_prepare(self, comm: Any, call: Any, op_out: Any) -> int:
        return self.collect_comm_start(comm, call, op_out)

    def collect_comm_lend(self, _: Any, passed: int, limit: int) -> int:
        self.passed, self.limit = max(self.passed, passed), limit
        return self.passed

    def collect_op_start(self, *_: Any) -> int:
        if self.is_destroyed:
            return status.E_CLOSED
        if self.answer == status.OK:
            if self.passed >= self.limit:
                return status.E_BOUNDARY
            self.passed += 1
        return self.answer

    def collect_op_run(self, op: Any) -> int:
        found = self.collect_op_start(op)
        return self.status if found == status.OK else found

    def collect_op_run_on(self, op: Any, source: Any, target: Any, count: int) -> int:
        found = self.collect_op_run(op)
        if found >= status.OK:
            cast = self.ffi.cast
            self.runs.append(
                (int(cast("uintptr_t", source)), int(cast("uintptr_t", target)), count)
            )
        return found

    def collect_op_wait(self, *_: Any) -> int:
        return self.status

    def collect_op_info_get(self, _: Any, info: Any) -> None:
        info.status, info.op, info.participants, info.algorithm = self.status, 5, 2, 1

    def collect_op_release(self, cell: Any) -> None:
        self.released += cell[0] != self.ffi.NULL
        cell[0] = self.ffi.NULL

    def collect_comm_install(self, _: Any, install: Any) -> int:
        recipe = install.recipe
        self.installed = {
            "algorithm": recipe.algorithm,
            "commit_bytes": recipe.commit_bytes,
            "remote": recipe.remote.latency_ns,
            "hosts": None if recipe.hosts == self.ffi.NULL else list(recipe.hosts[0:2]),
            "weights": None if recipe.weights == self.ffi.NULL else list(recipe.weights[0:2]),
            "order": recipe.order == self.ffi.NULL,
            "radices": list(recipe.radices[0 : recipe.level_count]),
            "members": [install.members[i].incarnation for i in range(install.member_count)],
        }
        return status.OK

    def collect_comm_freeze(self, _: Any, report: Any) -> int:
        report.inflight_op, report.inflight_is_whole, report.inflight_is_shaped = 9, 1, 1
        report.inflight_descriptor = b"scatter int8[2x1]"
        return status.OK

    def collect_comm_abort(self, _: Any) -> int:
        return status.OK

    def collect_comm_cancel_messages(self, _: Any) -> int:
        return status.OK

    def collect_comm_destroy(self, cell: Any) -> None:
        self.is_destroyed = True
        cell[0] = self.ffi.NULL

    def _make(self, out: Any) -> int:
        handle = self.ffi.new("char *")
        self.handles.append(handle)
        out[0] = self.ffi.cast(self.ffi.typeof(out).item, handle)
        return status.OK

    def _note(self, call: Any) -> None:
        ffi, world = self.ffi, call.world
        noted = {name: getattr(call, name) for name in FIELDS}
        for name in ("counts", "target_counts"):
            pointer = getattr(call, name)
            noted[name] = None if pointer == ffi.NULL else list(pointer[0:world])
        for name in ("source", "target"):
            noted[name] = int(ffi.cast("uintptr_t", getattr(call, name)))
        self.started.append(noted)


@pytest.fixture
def core(monkeypatch: pytest.MonkeyPatch) -> Core:
    pytest.importorskip("collect.native._lib", reason="the native module is not built")
    made = Core(native.ffi)
    monkeypatch.setitem(vars(native), "lib", made)
    return made


def new_communicator(core: Core) -> Communicator:
    return Communicator(core.ffi.NULL, 1, 7)


def address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


def start(made: Communicator, call: Any, slice_ns: int = 0) -> Operation:
    operation = Operation(call, made.core)
    assert made.start(operation, 77, slice_ns) == status.OK
    return operation


def test_the_core_is_handed_the_whole_call(core: Core) -> None:
    made, maker = new_communicator(core), Maker()
    array, out = np.zeros((6, 2), np.float32), np.zeros((3, 2), np.float32)
    call = maker.reduce_scatter(
        array, "premul_sum", 2, 0, out=out, counts=(3, 3), algorithm="ring", factor=0.5
    )
    start(made, call)

    assert core.started == [
        {
            "collective": 1,
            "dtype": 10,
            "reduce_op": 8,
            "algorithm": 1,
            "root": 0,
            "world": 2,
            "count": 0,
            "factor": 0.5,
            "deadline_ns": 77,
            "takes_boundary": 0,
            "counts": [6, 6],
            "target_counts": None,
            "source": address(array),
            "target": address(out),
        }
    ]


def test_what_one_call_said_is_not_left_for_the_next(core: Core) -> None:
    made, maker = new_communicator(core), Maker()
    block = np.zeros(2)
    start(made, maker.all_gather(block, 2, 0, counts=(2, 2)))
    call = maker.all_gather(block, 2, 0)
    call.require(2, 0)
    start(made, call)
    start(made, maker.broadcast(block, 9))
    start(made, maker.barrier())

    shapes = [(each["world"], each["counts"], each["root"]) for each in core.started]
    assert shapes == [(2, [2, 2], 0), (2, None, 0), (0, None, 9), (0, None, 0)]
    assert (core.started[3]["source"], core.started[3]["target"]) == (0, 0)


def test_sizes_beyond_32_bits_arrive(core: Core) -> None:
    made, maker = new_communicator(core), Maker()
    counts = (1 << 40, 1 << 33)
    array = np.zeros(0, np.int8)
    call = LaidOut(maker.all_reduce(array, "sum").signature, array, array, 1 << 45)
    call.world, call.counts = 2, counts
    start(made, call)

    assert (core.started[0]["count"], core.started[0]["counts"]) == (1 << 45, list(counts))


def test_an_operation_is_registered_until_it_has_completed(core: Core) -> None:
    made, maker = new_communicator(core), Maker()
    core.status = status.PENDING
    operation = start(made, maker.barrier(), slice_ns=5)
    assert made.outstanding() == [operation]
    assert made.oldest() is operation
    del operation
    gc.collect()
    assert core.released == 0

    core.status = status.OK
    assert made.outstanding() == []
    assert core.released == 1


def test_a_start_that_is_refused_leaves_nothing(core: Core) -> None:
    made, maker = new_communicator(core), Maker()
    core.answer = status.E_FULL
    operation = Operation(maker.barrier(), made.core)
    assert made.start(operation, 1) == status.E_FULL
    core.answer = status.E_UNAVAILABLE
    with pytest.raises(InvalidArgument, match="another dtype, op or algorithm"):
        made.start(operation, 1)
    core.answer = status.E_MEMBERS
    with pytest.raises(MembersChanged):
        made.start(operation, 1)

    assert made.core.under_way == {}
    assert not operation.is_submitted
    made.close()
    with pytest.raises(Closed):
        made.start(operation, 1)


def test_those_that_nobody_waits_for_are_forgotten(core: Core) -> None:
    made, maker = new_communicator(core), Maker()
    for _ in range(module.REAP_COUNT * 3):
        start(made, maker.barrier())

    assert len(made.core.under_way) <= module.REAP_COUNT
    assert core.released >= module.REAP_COUNT


def test_a_prepared_operation_that_is_dropped_under_way_lives_until_its_end(core: Core) -> None:
    made, maker = new_communicator(core), Maker()
    prepared = made.prepare(maker.all_reduce(np.zeros(3), "sum"), 1000)
    assert made.outstanding() == []
    core.status = prepared.status = status.PENDING
    assert made.outstanding() == [prepared]
    del prepared
    gc.collect()
    assert core.released == 0
    assert len(made.outstanding()) == 1

    core.status = status.OK
    assert made.outstanding() == []
    assert core.released == 1


def test_a_recipe_arrives_with_what_it_points_to(core: Core) -> None:
    made = new_communicator(core)
    request = InstallRequest(
        epoch=3,
        members=[MemberAddress(7, "127.0.0.1:1"), MemberAddress(8, "127.0.0.1:2")],
        self_rank=0,
        op_base=0,
        recipe=Recipe(
            algorithm=7,
            commit_bytes=99,
            remote=LinkModel(11, 12, 13),
            weights=(1, 3),
            radices=(2, 1),
        ),
        hosts=(0, 1),
        verdict=Verdict(VerdictKind.RERUN),
        repairs=[Repair(7, 8)],
        redials=[8],
    )
    made.install(request)

    assert core.installed == {
        "algorithm": 7,
        "commit_bytes": 99,
        "remote": 11,
        "hosts": [0, 1],
        "weights": [1, 3],
        "order": True,
        "radices": [2, 1],
        "members": [7, 8],
    }


def test_a_report_tells_of_whole_and_shaped_operations(core: Core) -> None:
    flight = new_communicator(core).freeze().in_flight

    assert flight is not None
    assert (flight.op, flight.is_whole, flight.is_shaped) == (9, True, True)
    assert flight.descriptor == "scatter int8[2x1]"
