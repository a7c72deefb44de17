"""A control plane and a communicator of one process, for what user threads do with them."""

import threading
from typing import Any

from collect.errors import CollectError
from collect.membership.events import LeaveAsked, PassBoundary, PeerEvent
from collect.membership.peer_state import BOUNDARY_MAX
from collect.native import status
from collect.native.call import Call
from collect.native.operation import OpInfo
from collect.net.waiting import Changes
from collect.session.history import History
from collect.session.lease import Lease
from collect.types import FailKind, FailReason, Member, View, op_base

EPOCH = 5 << 24
SELF, OTHER = 7, 8


class FakeOperation:
    """Completes when the test says so."""

    def __init__(self, call: Call, core: object = None) -> None:
        del core
        self.call = call
        self.is_submitted = False
        self.number = 0
        self.deadline_ns = 0
        self.status = status.PENDING

    def poll(self) -> int:
        return self.status

    def wait(self, timeout_s: float) -> int:
        del timeout_s
        return self.status

    def wait_slice(self, slice_ns: int) -> int:
        return self.wait(slice_ns / 1e9)

    @property
    def info(self) -> OpInfo:
        is_done = self.status == status.OK
        attempt = EPOCH if is_done else 0
        return OpInfo(self.status, self.number, attempt, 1_000, 3_000, 1, 2, 0)


class FakeCommunicator:
    core = None

    def __init__(self) -> None:
        self.operations: list[FakeOperation] = []
        self.status_of_next = status.OK
        self.refusals: list[int] = []  # what the next starts say
        self.interrupt: BaseException | None = None  # raised in the next start, before the core
        self.is_aborted = False
        self.passed = self.limit = 0

    def lend(self, passed: int, limit: int) -> int:
        self.passed, self.limit = max(self.passed, passed), limit
        return self.passed

    def start(
        self,
        operation: FakeOperation,
        deadline_ns: int,
        slice_ns: int = 0,
        *,
        takes_boundary: bool = False,
    ) -> int:
        del slice_ns
        if self.interrupt is not None:
            interrupt, self.interrupt = self.interrupt, None
            raise interrupt
        if self.refusals:
            return self.refusals.pop(0)
        if takes_boundary and self.passed >= self.limit:
            return status.E_BOUNDARY
        self.passed += takes_boundary
        self.operations.append(operation)
        operation.is_submitted = True
        operation.number = op_base(EPOCH) + len(self.operations)
        operation.deadline_ns = deadline_ns
        operation.status = self.status_of_next
        return status.OK

    def oldest(self) -> FakeOperation | None:
        return next(iter(self.outstanding()), None)

    def outstanding(self) -> list[FakeOperation]:
        return [each for each in self.operations if each.status == status.PENDING]

    def forget_thread(self) -> None:
        pass

    def abort(self) -> None:
        self.is_aborted = True
        for operation in self.outstanding():
            operation.status = status.E_ABORTED

    def cancel_messages(self) -> None:
        pass


class FakePeer:
    timeout_s = 0.01

    def __init__(self) -> None:
        self.boundaries = 0
        self.is_boundary_due = False
        self.failures: dict[int, FailReason] = {}

    @property
    def boundaries_free(self) -> int:
        return self.boundaries if self.is_boundary_due else BOUNDARY_MAX

    def failure_of(self, op: int) -> FailReason:
        return self.failures.get(op, FailReason(FailKind.ABORTED, ("me",), "aborted here"))


class FakeScopes:
    """No sub-groups."""

    recalls = 0

    def recall(self) -> None:
        self.recalls += 1


class FakeControl:
    """Answers at once what the real one hands to its thread."""

    timeout_s = 0.01

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.lease = Lease(self, is_auto=True)  # type: ignore[arg-type]
        self.changes = Changes()
        self.scopes = FakeScopes()
        members = tuple(
            Member(i, n, "host", ("127.0.0.1:1",)) for i, n in ((SELF, "me"), (OTHER, "b"))
        )
        self.view: View | None = View(EPOCH, members, 1)
        self.history = History()
        self.history.add(self.view)
        self.self_id = SELF
        self.address = "127.0.0.1:5000"
        self.peer = FakePeer()
        self.communicator: Any = FakeCommunicator()
        self.passage: PassBoundary | None = None
        self.final: CollectError | None = None
        self.local_failures: dict[int, CollectError] = {}
        self.failed_in: dict[int, int] = {}
        self.posted: list[PeerEvent] = []
        self.asked: list[int] = []
        self.answer: PassBoundary | None = None  # to ask_boundary
        self.farewell: CollectError | None = None  # to LeaveAsked
        self.is_stopped = False

    def start(self) -> None:
        pass

    def outstanding(self) -> list[FakeOperation]:
        operations: list[FakeOperation] = self.communicator.outstanding()
        return operations

    def stop(self) -> None:
        self.is_stopped = True

    def post(self, event: PeerEvent) -> None:
        self.posted.append(event)
        if isinstance(event, LeaveAsked):
            self.final = self.farewell

    def ask_boundary(self, boundary: int) -> None:
        self.asked.append(boundary)
        self.passage = self.answer
        if self.answer is not None:
            self.peer.boundaries = self.answer.boundary

    def raise_if_final(self) -> None:
        if self.final is not None:
            raise self.final.again()
