"""A model of the data plane with the contract of the C communicator (collect.h, comm).

An operation is two slices with one owner each. Everybody sends its contribution to both owners; an
owner that has all contributions sends the slice's result to everybody; who has both slices has
delivered. So peers deliver at different times, and a crash leaves some with a result, some without.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from collect.membership.events import CommReport, InstallComm
from collect.types import (
    Ballot,
    Incarnation,
    LinkLoss,
    LostLink,
    Op,
    OpInFlight,
    Outcome,
    OutcomeKind,
    VerdictKind,
)
from tests.sim.history import FAILED, require

if TYPE_CHECKING:
    from tests.sim.world import Process, World

SLICES = 2


@dataclass
class SimOp:
    descriptor: str
    digest: int
    contribution: Any
    on_done: Callable[["SimOp", Any, tuple[Incarnation, ...]], None]
    on_failed: Callable[["SimOp"], None]
    op: Op = 0
    slices: dict[int, Any] = field(default_factory=dict)
    is_complete: bool = False
    is_repaired: bool = False  # waits for a holder, does not run


@dataclass(frozen=True)
class Frame:
    kind: str  # contribution, result, repair
    source: Incarnation
    op: Op
    attempt: Ballot
    slice: int
    digest: int
    payload: Any


class SimComm:
    def __init__(self, world: "World", process: "Process") -> None:
        self.world = world
        self.process = process
        self.self_id = process.incarnation
        self.epoch: Ballot = 0
        self.members: tuple[Incarnation, ...] = ()
        self.is_frozen = False
        self.next_op: Op = 0
        self.queue: list[SimOp] = []
        self.consumed = Outcome()
        self.retained: tuple[Op, Any] | None = None
        self.failed_early: set[Op] = set()
        self.kept: list[Frame] = []
        self.inbox: dict[tuple[Op, int], dict[Incarnation, Frame]] = {}
        self.results: dict[tuple[Op, int], Any] = {}
        self.lost: dict[Incarnation, LinkLoss] = {}
        self.participants: dict[Ballot, tuple[Incarnation, ...]] = {}
        self.repair_ballot: Ballot = 0

    # ---- calls of the user -----------------------------------------------------------------

    def submit(self, op: SimOp) -> None:
        self.queue.append(op)
        self.pump()

    @property
    def in_flight(self) -> SimOp | None:
        return self.queue[0] if self.queue else None

    def pump(self) -> None:
        """Number what is queued, and start the first."""
        if not self.epoch:
            return
        for op in list(self.queue):
            if not op.op:
                self.next_op += 1
                op.op = self.next_op
        if not self.queue:
            return
        first = self.queue[0]
        if first.op in self.failed_early:
            self.failed_early.discard(first.op)
            self.finish(first, FAILED, None)
        elif not self.is_frozen:
            self.start(first)

    # ---- calls of the membership -----------------------------------------------------------

    def freeze(self) -> CommReport:
        self.is_frozen = True
        flight = None
        if self.queue:
            op = self.queue[0]
            flight = OpInFlight(op.op, self.epoch, op.descriptor, op.digest)
        lost = tuple(LostLink(peer, kind) for peer, kind in self.lost.items())
        return CommReport(self.consumed, flight, lost)

    def install(self, install: InstallComm) -> None:
        view = install.view
        is_first, was_frozen = self.epoch == 0, self.is_frozen
        require(is_first or was_frozen or not self.queue, "installed with an operation in flight")
        self.epoch, self.members, self.is_frozen = view.epoch, view.incarnations, False
        self.participants[self.epoch] = self.members
        if was_frozen or is_first:
            self.lost.clear()
        if install.op_base:
            self.next_op = install.op_base
        self.process.record.group_key = view.group_key
        self.inbox.clear()
        self.results.clear()
        self.repair_ballot = self.epoch if install.has_repair else 0
        self.world.history.installed(self.self_id, view.group_key, view.epoch, self.members)
        self.world.links_installed(self.self_id, self.members, install.redials)
        self.serve_repairs(install)
        self.settle(install)
        kept, self.kept = self.kept, []
        for frame in kept:
            self.on_frame(frame)

    def rebase(self, base: Op) -> None:
        require(not self.queue, "rebased with an operation in flight")
        self.next_op = base

    def serve_repairs(self, install: InstallComm) -> None:
        for repair in install.repairs:
            if repair.holder != self.self_id:
                continue
            op = install.verdict.op
            if self.retained and self.retained[0] == op:
                result = self.retained[1]
                frame = Frame("repair", self.self_id, op, self.epoch, 0, 0, result)
                self.world.send_frame(self.self_id, repair.needer, frame)

    def settle(self, install: InstallComm) -> None:
        verdict, first = install.verdict, self.in_flight
        if first and not first.op:
            self.pump()  # the first operations of a newcomer
            first = self.in_flight
            if first:
                first.slices.clear()
        is_news = verdict.op > max(self.consumed.op, install.op_base)
        if verdict.kind is VerdictKind.FAIL and is_news:
            self.failed_early.add(verdict.op)
            self.process.record.foretold = verdict.op
        if first is None:
            return
        first.is_repaired = verdict.kind is VerdictKind.REPAIR and first.op == verdict.op
        first.slices.clear()
        if first.is_repaired:
            require(install.has_repair, "REPAIR without a holder for this peer")
            return
        what = "fails" if first.op in self.failed_early else "reruns"
        if install.op_base == 0:
            self.world.history.decided_against(self.self_id, first.op, what)
        self.pump()

    # ---- frames ----------------------------------------------------------------------------

    def start(self, op: SimOp) -> None:
        if op.is_repaired or op.slices:
            return
        op.slices = {-1: None}  # started
        for index in range(SLICES):
            owner = self.members[(op.op + index) % len(self.members)]
            frame = Frame(
                "contribution", self.self_id, op.op, self.epoch, index, op.digest, op.contribution
            )
            self.send(owner, frame)
        for index in range(SLICES):
            self.take_result(op.op, index)

    def send(self, target: Incarnation, frame: Frame) -> None:
        if target == self.self_id:
            self.on_frame(frame)
        else:
            self.world.send_frame(self.self_id, target, frame)

    def accepts(self, frame: Frame) -> bool:
        return frame.attempt == self.epoch and not self.is_frozen

    def on_frame(self, frame: Frame) -> None:
        if frame.attempt > self.epoch:
            self.kept.append(frame)
        elif self.accepts(frame):
            if frame.kind == "repair":
                self.on_repair(frame)
            elif frame.kind == "contribution":
                self.on_contribution(frame)
            else:
                self.results[frame.op, frame.slice] = frame.payload
                self.take_result(frame.op, frame.slice)

    def on_contribution(self, frame: Frame) -> None:
        box = self.inbox.setdefault((frame.op, frame.slice), {})
        box[frame.source] = frame
        if len({each.digest for each in box.values()}) > 1:
            self.process.on_mismatch(frame.op)
            return
        if all(member in box for member in self.members):
            del self.inbox[frame.op, frame.slice]
            parts = tuple(box[member].payload for member in self.members)
            result = Frame(
                "result", self.self_id, frame.op, self.epoch, frame.slice, frame.digest, parts
            )
            for member in self.members:
                self.send(member, result)

    def take_result(self, op: Op, index: int) -> None:
        first = self.in_flight
        if first is None or first.op != op or (op, index) not in self.results:
            return
        if not first.slices or first.is_repaired:
            return
        # As in an executor, what has been received once is not received again.
        first.slices.setdefault(index, self.results.pop((op, index)))
        if all(index in first.slices for index in range(SLICES)):
            parts = tuple(first.slices[index] for index in range(SLICES))
            self.finish(first, self.epoch, (parts, self.members))

    def on_repair(self, frame: Frame) -> None:
        first = self.in_flight
        if first and first.is_repaired and first.op == frame.op:
            first.is_repaired = False
            attempt, result = frame.payload
            self.finish(first, attempt, result)
            self.process.on_repaired(self.repair_ballot)

    # ---- completion ------------------------------------------------------------------------

    def finish(self, op: SimOp, attempt: Ballot, result: Any) -> None:
        require(not op.is_complete, "completed twice")
        op.is_complete = True
        self.queue.pop(0)
        self.failed_early.discard(op.op)
        self.world.trace(
            self.process.name,
            f"op {op.op >> 32}.{op.op & 0xFFFFFFFF} "
            f"{'failed' if attempt == FAILED else f'done in {attempt >> 24}'}",
        )
        if attempt == FAILED:
            self.consumed = Outcome(op.op, self.epoch, OutcomeKind.FAILED)
        else:
            self.consumed = Outcome(op.op, attempt, OutcomeKind.DONE, True)
            self.retained = (op.op, (attempt, result))
        self.world.history.consumed(self.self_id, op.op, attempt, result)
        if attempt == FAILED:
            op.on_failed(op)
        else:
            op.on_done(op, *result)
        self.pump()
