"""A model of the data plane with the contract of the C communicator (collect.h, comm).

A collective is some slices, each with an owner, contributors and needers. The contributors send
theirs to the owner; an owner that has all contributions sends the slice's result to the needers.
Who has all that it needs is *whole*. Then it delivers at once, or, where the operation *commits*,
when all members have sent their word (done) that they are whole. So peers deliver at different
times, and a crash leaves some with a result, some without.
"""

from collections import defaultdict
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
    ScopeId,
    VerdictKind,
    View,
)
from tests.sim.history import FAILED, Record, require
from tests.sim.scopes import Scopes

if TYPE_CHECKING:
    from tests.sim.world import Process, World


@dataclass(frozen=True)
class Slice:
    owner: Incarnation
    contributors: tuple[Incarnation, ...]
    needers: tuple[Incarnation, ...]


@dataclass(frozen=True)
class Collective:
    name: str
    is_own: bool = False  # each member has a result of its own
    is_shaped: bool = False
    is_rooted: bool = False


ALL_REDUCE = Collective("all_reduce")
REDUCE_SCATTER = Collective("reduce_scatter", is_own=True, is_shaped=True)
BROADCAST = Collective("broadcast", is_rooted=True)
REDUCE = Collective("reduce", is_own=True, is_rooted=True)


@dataclass
class SimOp:
    descriptor: str
    digest: int
    contribution: Any
    on_done: Callable[["SimOp", Any, tuple[Incarnation, ...]], None]
    on_failed: Callable[["SimOp"], None]
    collective: Collective = ALL_REDUCE
    is_large: bool = False
    root: Incarnation = 0
    called_for: tuple[Incarnation, ...] = ()  # the members when it was called
    op: Op = 0
    is_started: bool = False
    owned: set[int] = field(default_factory=set)  # slices whose results were sent
    result: Any = None  # of the attempt that is whole
    is_whole: bool = False
    is_complete: bool = False
    is_repaired: bool = False  # waits for a holder, does not run
    is_uprooted: bool = False  # called by ranks that are others now

    @property
    def commits(self) -> bool:
        """The large ones, and those in which somebody depends on nobody, who would run ahead."""
        return self.is_large or self.collective.is_rooted

    @property
    def is_loose(self) -> bool:
        """Nobody can repair another, and nobody waits for the others: outcomes may differ."""
        return self.collective.is_own and not self.commits

    def slices(self, members: tuple[Incarnation, ...]) -> list[Slice]:
        if self.collective is ALL_REDUCE:
            owners = [members[(self.op + index) % len(members)] for index in range(2)]
            return [Slice(owner, members, members) for owner in owners]
        if self.collective is REDUCE_SCATTER:
            return [Slice(member, members, (member,)) for member in members]
        if self.collective is BROADCAST:
            return [Slice(self.root, (self.root,), members)]
        return [Slice(self.root, members, (self.root,))]


@dataclass(frozen=True)
class Frame:
    kind: str  # contribution, result, repair, done
    source: Incarnation
    op: Op
    attempt: Ballot
    slice: int
    digest: int
    payload: Any
    scope: ScopeId


class SimComm:
    """Of the group (scope 0), or of a sub-group."""

    def __init__(self, world: "World", process: "Process", scope: ScopeId = 0) -> None:
        self.world = world
        self.process = process
        self.self_id = process.incarnation
        self.scope = scope
        self.scopes = Scopes(self)
        self.history = world.histories.of(scope)
        self.history.records.setdefault(self.self_id, Record(process.name))
        self.view: View | None = None
        self.epoch: Ballot = 0
        self.members: tuple[Incarnation, ...] = ()
        self.is_frozen = False
        self.next_op: Op = 0
        self.queue: list[SimOp] = []
        self.consumed = Outcome()
        self.retained: tuple[Op, Any] | None = None
        self.failed_early: set[Op] = set()
        self.kept: list[Frame] = []
        self.inbox: dict[tuple[Op, str, int], dict[Incarnation, Frame]] = {}
        self.digests: defaultdict[Op, set[int]] = defaultdict(set)
        self.lost: dict[Incarnation, LinkLoss] = {}
        self.participants: dict[Ballot, tuple[Incarnation, ...]] = {}
        self.repair_ballot: Ballot = 0

    # ---- calls of the user -----------------------------------------------------------------

    def submit(self, op: SimOp) -> None:
        self.queue.append(op)
        self.pump()

    @property
    def record(self) -> Record:
        return self.history.records[self.self_id]

    @property
    def streams(self) -> "list[SimComm]":
        """The group's and every sub-group's."""
        return [self, *self.scopes.comms.values()]

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
            flight = OpInFlight(
                op.op,
                self.epoch,
                op.descriptor,
                op.digest,
                is_whole=self.is_whole(op),
                is_shaped=op.collective.is_shaped,
                is_rooted=op.collective.is_rooted,
            )
        lost = tuple(LostLink(peer, kind) for peer, kind in self.lost.items())
        return CommReport(self.consumed, flight, lost, self.scopes.freeze())

    def is_whole(self, op: SimOp) -> bool:
        """What it reports."""
        return op.is_whole and op.commits

    def install(self, install: InstallComm) -> None:
        view, before = install.view, self.members
        is_first, was_frozen = self.epoch == 0, self.is_frozen
        require(is_first or was_frozen or not self.queue, "installed with an operation in flight")
        self.epoch, self.members, self.is_frozen = view.epoch, view.incarnations, False
        self.view = view
        self.participants[self.epoch] = self.members
        if was_frozen or is_first:
            self.lost.clear()
        if install.op_base:
            self.next_op = install.op_base
        self.record.group_key = view.group_key
        self.inbox.clear()
        self.digests.clear()
        self.repair_ballot = self.epoch if install.has_repair else 0
        self.history.installed(self.self_id, view)
        if not self.scope:
            self.world.links_installed(self.self_id, self.members, install.redials)
        self.scopes.install(install)
        self.uproot(install, before)
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
                frame = Frame("repair", self.self_id, op, self.epoch, 0, 0, result, self.scope)
                self.world.send_frame(self.self_id, repair.needer, frame)

    def uproot(self, install: InstallComm, before: tuple[Incarnation, ...]) -> None:
        """Who calls from here on counts other ranks if members were lost. Only an operation that
        all have in flight has one root for certain."""
        if not set(before) <= set(self.members):
            is_rerun = install.verdict.kind is VerdictKind.RERUN
            for op in self.queue:
                is_agreed = is_rerun and op.op == install.verdict.op
                op.is_uprooted = op.collective.is_rooted and not is_agreed

    def settle(self, install: InstallComm) -> None:
        verdict, first = install.verdict, self.in_flight
        if first and not first.op:
            self.pump()  # the first operations of a newcomer
            first = self.in_flight
        is_news = verdict.op > max(self.consumed.op, install.op_base)
        if verdict.kind is VerdictKind.FAIL and is_news:
            self.failed_early.add(verdict.op)
            self.record.foretold = verdict.op
        if first is None:
            return
        if verdict.kind is VerdictKind.REPAIR and first.op == verdict.op:
            if self.is_whole(first):
                self.finish(first, verdict.attempt, first.result)
                return
            require(install.has_repair, "REPAIR without a holder for this peer")
            first.is_repaired = True
            return
        first.is_repaired = first.is_started = first.is_whole = False
        first.owned.clear()
        what = "fails" if first.op in self.failed_early else "reruns"
        if install.op_base == 0:
            self.history.decided_against(self.self_id, first.op, what)
        self.pump()

    # ---- frames ----------------------------------------------------------------------------

    def fits(self, op: SimOp) -> bool:
        """Whether the call can run in this view."""
        is_shape_ok = not op.collective.is_shaped or len(op.called_for) == len(self.members)
        return is_shape_ok and not op.is_uprooted and (not op.root or op.root in self.members)

    def start(self, op: SimOp) -> None:
        if op.is_repaired or op.is_started:
            return
        if not self.fits(op):
            self.process.on_unfit(op.op, self)
            return
        op.is_started = True
        for index, each in enumerate(op.slices(self.members)):
            if self.self_id in each.contributors:
                self.send(each.owner, self.frame("contribution", op, index, op.contribution))
        self.progress()

    def frame(self, kind: str, op: SimOp, index: int, payload: Any) -> Frame:
        return Frame(kind, self.self_id, op.op, self.epoch, index, op.digest, payload, self.scope)

    def send(self, target: Incarnation, frame: Frame) -> None:
        if target == self.self_id:
            self.store(frame)
        else:
            self.world.send_frame(self.self_id, target, frame)

    def accepts(self, frame: Frame) -> bool:
        return frame.attempt == self.epoch and not self.is_frozen

    def on_frame(self, frame: Frame) -> None:
        if frame.scope != self.scope:
            self.scopes.on_frame(frame)
        elif frame.attempt > self.epoch:
            self.kept.append(frame)
        elif self.accepts(frame):
            if frame.kind == "repair":
                self.on_repair(frame)
            else:
                self.store(frame)
                self.progress()

    def store(self, frame: Frame) -> None:
        # As in an executor, what has been received once is not received again.
        box = self.inbox.setdefault((frame.op, frame.kind, frame.slice), {})
        box.setdefault(frame.source, frame)
        self.digests[frame.op].add(frame.digest)

    def box(self, op: SimOp, kind: str, index: int) -> dict[Incarnation, Frame]:
        return self.inbox.get((op.op, kind, index), {})

    def progress(self) -> None:
        op = self.in_flight
        if op is None or not op.is_started or op.is_repaired or self.is_frozen:
            return
        if not self.digests[op.op] <= {op.digest}:
            self.process.on_mismatch(op.op, self)
            return
        slices = op.slices(self.members)
        for index, each in enumerate(slices):
            if each.owner != self.self_id or index in op.owned:
                continue
            box = self.box(op, "contribution", index)
            if all(peer in box for peer in each.contributors):
                op.owned.add(index)
                parts = tuple(box[peer].payload for peer in each.contributors)
                for needer in each.needers:
                    self.send(needer, self.frame("result", op, index, parts))
        if not op.is_whole:
            self.become_whole(op, slices)
        if op.is_whole and self.may_deliver(op) and self.process.is_alive:
            self.finish(op, self.epoch, op.result)

    def become_whole(self, op: SimOp, slices: list[Slice]) -> None:
        needed = [i for i, each in enumerate(slices) if self.self_id in each.needers]
        if all(self.box(op, "result", index) for index in needed):
            op.is_whole = True
            op.result = (tuple(self.result_of(op, index) for index in needed), self.members)
            if op.commits:
                for member in self.members:
                    self.send(member, self.frame("done", op, 0, None))

    def result_of(self, op: SimOp, index: int) -> Any:
        return next(iter(self.box(op, "result", index).values())).payload

    def may_deliver(self, op: SimOp) -> bool:
        words = self.box(op, "done", 0)
        return not op.commits or all(member in words for member in self.members)

    def on_repair(self, frame: Frame) -> None:
        first = self.in_flight
        if first and first.is_repaired and first.op == frame.op:
            first.is_repaired = False
            attempt, result = frame.payload
            self.finish(first, attempt, result)
            self.process.on_repaired(self.repair_ballot, self.scope)

    # ---- completion ------------------------------------------------------------------------

    def finish(self, op: SimOp, attempt: Ballot, result: Any) -> None:
        require(not op.is_complete, "completed twice")
        op.is_complete = True
        self.queue.pop(0)
        self.failed_early.discard(op.op)
        self.world.trace(
            self.process.name,
            f"{f'scope {self.scope} ' * bool(self.scope)}op {op.op >> 32}.{op.op & 0xFFFFFFFF} "
            f"{'failed' if attempt == FAILED else f'done in {attempt >> 24}'}",
        )
        if attempt == FAILED:
            self.consumed = Outcome(op.op, self.epoch, OutcomeKind.FAILED)
        else:
            is_retained = not op.commits and not op.collective.is_own
            self.consumed = Outcome(op.op, attempt, OutcomeKind.DONE, is_retained)
            self.retained = (op.op, (attempt, result)) if is_retained else None
            self.check_delivery(op, attempt, result)
            self.scopes.free_settled(op.op)
        self.history.consumed(
            self.self_id,
            op.op,
            attempt,
            result,
            is_own=op.collective.is_own,
            is_loose=op.is_loose,
        )
        if attempt == FAILED:
            op.on_failed(op)
        else:
            op.on_done(op, *result)
        self.pump()

    def check_delivery(self, op: SimOp, attempt: Ballot, result: Any) -> None:
        """Shaped operations complete among those they were called for; those that commit, when
        every member of the attempt is whole, or has delivered it."""
        members = result[1]
        if op.collective.is_shaped:
            require(members == op.called_for, f"{op.descriptor} completed among other members")
        if not op.commits:
            return
        if attempt < self.epoch:  # who is gone meanwhile had its chance
            members = tuple(member for member in members if member in self.members)
        for member in members:
            process = self.world.processes[member]
            if member == self.self_id or not process.is_running:
                continue
            comm = process.comm.scopes.comms.get(self.scope) if self.scope else process.comm
            theirs, record = comm and comm.in_flight, self.history.records[member]
            is_whole = theirs is not None and theirs.op == op.op and theirs.is_whole
            is_past = record.attempts.get(op.op) == attempt or record.epoch > attempt
            require(is_whole or is_past, f"delivered, but {process.name} is not whole")
