"""One seed, one world: a virtual clock, processes, two networks, and the machines under test.

The machines are the production ones; only time, network, data plane and user are models. Every
choice comes from the seed, so a seed is a bug report.
"""

import heapq
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

from collect.membership.coordinator import Coordinator, Settings
from collect.membership.events import (
    Announce,
    BoundaryAsked,
    CommFrozen,
    CoordinatorEvent,
    DialPeers,
    FreezeComm,
    InstallComm,
    LeaveAsked,
    LinkLost,
    LinksFailed,
    LinksMeasured,
    LinksUp,
    Log,
    MessageReceived,
    OpCancelled,
    PassBoundary,
    PeerAction,
    PeerEvent,
    PeerMessageReceived,
    RebaseComm,
    RememberView,
    RepairsDone,
    Send,
    SendFailed,
    SendTo,
    Started,
    Tick,
)
from collect.membership.peer import Peer, State
from collect.types import (
    Admit,
    Ballot,
    CancelKind,
    Incarnation,
    LinkFigures,
    LinkLoss,
    Member,
    Op,
    View,
)
from collect.wire.codec import decode, encode
from collect.wire.messages import CoordinatorMessage, Join, PeerMessage
from tests.sim.app import SimApp
from tests.sim.comm import Frame, SimComm
from tests.sim.history import Histories, Record, Violation
from tests.sim.scopes import SEEDS_FROM
from tests.sim.timeline import shown

TIMEOUT_S = 0.2
EVENTS_MAX = 100_000


@dataclass
class Link:
    """Between two processes. `serial` counts its lives: what an earlier one carried is lost.

    Unless it drains: what a dead process had handed to its kernel still arrives, then the end.
    """

    slowness: float = 1.0
    is_up: bool = False
    serial: int = 0
    drains: int = -1  # the serial whose frames still arrive
    fresh_for: Ballot = 0
    waiting: list[tuple[Incarnation, Incarnation, Frame]] = field(default_factory=list)


@dataclass
class Kinds:
    """What runs in the world; mutants replace a part."""

    coordinator: type[Coordinator] = Coordinator
    comm: type[SimComm] = SimComm


class Process:
    """A training process: peer machine, communicator, application."""

    def __init__(self, world: "World", name: str, incarnation: Incarnation, join: Join) -> None:
        self.world = world
        self.name = name
        self.incarnation = incarnation
        self.record = world.history.records[incarnation] = Record(name)
        self.peer = Peer(join, TIMEOUT_S)
        self.comm = world.kinds.comm(world, self)
        self.app = SimApp(self, join.admit)
        self.is_alive = True
        self.is_paused = False
        self.is_disturbed = False  # by a fault that may cost it its membership
        self.dies_after_frames: int | None = None
        self.inbox: list[Callable[[], None]] = []
        self.dialling: DialPeers | None = None
        self.cancelled: set[tuple[int, Op, Ballot]] = set()

    @property
    def is_running(self) -> bool:
        """Part of the group's future, as far as faults are concerned."""
        return self.is_alive and not self.record.is_out

    def receive(self, call: Callable[[], None]) -> None:
        if self.is_paused:
            self.inbox.append(call)
        elif self.is_alive:
            call()

    def on(self, event: PeerEvent) -> None:
        if not self.is_running:
            return
        for action in self.peer.on(event, self.world.now_s):
            if self.is_running:
                self.perform(action)

    def perform(self, action: PeerAction) -> None:
        world = self.world
        match action:
            case Send(message):
                world.send_up(self, message)
            case FreezeComm(ballot):
                frozen = CommFrozen(ballot, self.comm.freeze())
                self.later(world.delay(0.0005), partial(self.on, frozen))
            case InstallComm():
                self.comm.install(action)
            case RebaseComm(base):
                self.comm.rebase(base)
            case DialPeers():
                self.dialling = action
                world.dial(self, action)
            case PassBoundary(boundary, admitted, is_newcomer):
                world.trace(self.name, f"boundary {boundary}, admitted {len(admitted)}")
                self.app.on_boundary(admitted, is_newcomer)
            case Announce():
                self.on_announced(action)
            case Log(reason):
                world.trace(self.name, f"log: {reason}")

    def later(self, delay_s: float, call: Callable[[], None]) -> None:
        self.world.at(delay_s, lambda: self.receive(call))

    def compute(self, call: Callable[[], None]) -> None:
        self.later(self.world.rng.expovariate(1 / 0.006), call)

    def ask_boundary(self) -> None:
        peer = self.peer
        is_free = peer.switch is None and peer.state in (State.ACTIVE, State.FROZEN)
        if is_free and self.world.rng.random() < 0.7:
            peer.boundaries += 1
            self.app.on_boundary((), False)
        else:
            self.on(BoundaryAsked())

    def on_repaired(self, ballot: Ballot, scope: int) -> None:
        self.later(0.0, partial(self.on, RepairsDone(ballot, scope)))

    def on_mismatch(self, op: Op, comm: SimComm) -> None:
        self.cancel(op, comm, CancelKind.MISMATCH, "another member called something else")

    def on_unfit(self, op: Op, comm: SimComm) -> None:
        self.cancel(op, comm, CancelKind.MEMBERS, "called for other members")

    def cancel(self, op: Op, comm: SimComm, kind: CancelKind, why: str) -> None:
        if (comm.scope, op, comm.epoch) not in self.cancelled:
            self.cancelled.add((comm.scope, op, comm.epoch))
            self.later(0.0, partial(self.on, OpCancelled(op, kind, why, comm.scope)))

    def on_announced(self, action: Announce) -> None:
        names = ",".join(member.name for member in action.who)
        self.world.trace(self.name, f"{action.kind.name} {names}: {action.reason}")
        if self.peer.state in (State.FENCED, State.LEFT):
            self.world.histories.went(self.incarnation)
            self.app.is_stopped = True
            self.world.close_links(self, LinkLoss.RESET)
            if self.peer.state is not State.LEFT:
                if not self.is_disturbed:
                    raise Violation(f"{self.name} is out without a cause: {action.reason}")
                self.world.rejoin(self)


class World:
    def __init__(
        self, seed: int, *, admit: Admit, min_peers: int, kinds: Kinds | None = None
    ) -> None:
        self.rng = random.Random(seed)
        self.hints = random.Random(~seed)  # apart, so that they do not shift what is drawn
        self.now_s = 0.0
        self.kinds = kinds or Kinds()
        self.admit = admit
        self.min_peers = min_peers
        self.histories = Histories()
        self.history = self.histories.group
        self.has_scopes = seed >= SEEDS_FROM
        self.processes: dict[Incarnation, Process] = {}
        self.links: dict[frozenset[Incarnation], Link] = {}
        self.slownesses = self.rng.choice(((1.0,), (1.0, 1.0, 1.0, 8.0), (1.0, 1.0, 40.0)))
        self.last_view: View | None = None  # the coordinator's disk
        self.is_state_large = self.hints.random() < 0.5
        self.settle_s = self.rng.choice((0.0, 0.001, 0.005))
        self.coordinator: Coordinator | None = None
        self.generation = 0
        self.dies_after_sends: int | None = None
        self.waiting_room: list[PeerMessage] = []
        self.keeps_waiting = False
        self.connections: dict[Incarnation, int] = {}
        self.timeline: list[str] | None = None
        self.events = 0
        self.is_healed = False
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        self._last: dict[tuple[object, object], float] = {}
        self._coordinator_tick_s = float("inf")

    # ---- time --------------------------------------------------------------------------------

    def at(self, delay_s: float, call: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._heap, (self.now_s + delay_s, self._order, call))

    def delay(self, scale_s: float) -> float:
        """Mostly around the scale, sometimes ten times as much."""
        slow = 10.0 if self.rng.random() < 0.03 else 1.0
        return scale_s * slow * (0.2 + self.rng.random())

    def run(
        self,
        until_s: float,
        is_done: Callable[[], bool] = lambda: False,
        check_every_s: float = float("inf"),
    ) -> bool:
        """Play events until then, or until `is_done`, which is asked now and then."""
        check_s = self.now_s
        while self._heap and self._heap[0][0] <= until_s:
            self.now_s, _, call = heapq.heappop(self._heap)
            call()
            self.events += 1
            if self.events > EVENTS_MAX:
                raise Violation("livelock: too many events")
            if self.now_s >= check_s:
                check_s = self.now_s + check_every_s
                if is_done():
                    return True
        return is_done()

    def trace(self, who: str, what: str) -> None:
        if self.timeline is not None:
            self.timeline.append(f"{self.now_s * 1000:9.2f} ms  {who:8} {what}")

    # ---- processes ---------------------------------------------------------------------------

    def spawn(self) -> Process:
        incarnation = self.rng.getrandbits(62) | 1
        name = f"p{len(self.processes)}"
        host = f"host{len(self.processes) % 3}"
        member = Member(incarnation, name, host, (f"10.0.0.{len(self.processes)}:1",))
        process = Process(
            self, name, incarnation, Join(member, self.min_peers, self.admit, "group")
        )
        self.processes[incarnation] = process
        self.connections[incarnation] = 0
        self.trace(name, "starts")
        process.on(Started())
        process.compute(process.app.go_on)
        self.at(TIMEOUT_S / 8, partial(self.tick, process))
        self.at(TIMEOUT_S / 3, partial(self.measure, process))
        return process

    def tick(self, process: Process) -> None:
        if process.is_running:
            if not process.is_paused:
                process.on(Tick())
            self.at(TIMEOUT_S / 8, partial(self.tick, process))

    def measure(self, process: Process) -> None:
        """Until the faults end, links are now fast, now slow."""
        if not process.is_running or self.is_healed:
            return
        far = [peer for peer in process.comm.members if peer != process.incarnation]
        rates = self.hints.choices((10**6, 10**8), k=len(far))
        links = [LinkFigures(peer, 10**6, rate) for peer, rate in zip(far, rates, strict=True)]
        if not process.is_paused:
            process.on(LinksMeasured(tuple(links)))
        self.at(TIMEOUT_S / 3, partial(self.measure, process))

    def rejoin(self, process: Process) -> None:
        if len(self.processes) < 14:
            self.at(self.delay(0.05), self.spawn)

    def crash(self, process: Process) -> None:
        if process.is_alive:
            self.trace(process.name, "CRASHES")
            process.is_alive = False
            self.histories.died(process.incarnation)
            self.close_links(process, LinkLoss.RESET)

    def pause(self, process: Process, for_s: float) -> None:
        if process.is_paused or not process.is_running:
            return
        self.trace(process.name, f"PAUSED for {for_s * 1000:.0f} ms")
        process.is_paused = True
        process.is_disturbed = process.is_disturbed or for_s > TIMEOUT_S / 4
        self.at(TIMEOUT_S, partial(self.notice_silence, process, self.now_s))
        process.paused_s = self.now_s  # type: ignore[attr-defined]
        self.at(for_s, partial(self.resume, process))

    def notice_silence(self, process: Process, since_s: float) -> None:
        if process.is_paused and process.paused_s == since_s:  # type: ignore[attr-defined]
            self.close_links(process, LinkLoss.SILENT)

    def resume(self, process: Process) -> None:
        self.trace(process.name, "RESUMED")
        process.is_paused = False
        inbox, process.inbox = process.inbox, []
        for call in inbox:
            process.receive(call)

    # ---- control plane -----------------------------------------------------------------------

    def start_coordinator(self) -> None:
        if self.coordinator is not None:
            return
        self.generation += 1
        settings = Settings(
            group="group",
            generation=self.generation,
            group_key=self.rng.getrandbits(60),
            timeout_s=TIMEOUT_S,
            is_first=self.generation == 1,
            settle_s=self.settle_s,
            last_view=self.last_view,
            plan_timeouts=0.5,
        )
        self.trace("coord", f"STARTS, generation {self.generation}")
        self.coordinator = self.kinds.coordinator(settings, self.now_s)
        self._coordinator_tick_s = float("inf")
        self.drive(None)
        room, self.waiting_room = self.waiting_room, []
        for message in room:
            self.drive(message)

    def stop_coordinator(self) -> None:
        if self.coordinator is None:
            return
        self.trace("coord", "CRASHES")
        self.coordinator = None
        self.dies_after_sends = None
        self.keeps_waiting = self.rng.random() < 0.5
        for peer in self.connections:
            if self.rng.random() < 0.5:
                self.connections[peer] += 1  # what is under way on it is lost

    def drive(self, message: PeerMessage | SendFailed | None) -> None:
        coordinator = self.coordinator
        if coordinator is None:
            if self.keeps_waiting and message and not isinstance(message, SendFailed):
                self.waiting_room.append(message)
            return
        if isinstance(message, SendFailed):
            event: CoordinatorEvent = message
        else:
            event = PeerMessageReceived(message) if message else Tick()
        for action in coordinator.on(event, self.now_s):
            if isinstance(action, Log):
                self.trace("coord", action.reason)
            elif self.coordinator is not coordinator:
                break  # it died in the middle of this
            elif isinstance(action, RememberView):
                self.last_view = action.view
            else:
                self.send_down(action)
        deadline_s = max(coordinator.next_deadline_s, self.now_s)
        if self.coordinator is coordinator and deadline_s < self._coordinator_tick_s:
            self._coordinator_tick_s = deadline_s
            self.at(deadline_s - self.now_s, partial(self.tick_coordinator, coordinator))

    def tick_coordinator(self, coordinator: Coordinator) -> None:
        if self.coordinator is coordinator:
            self._coordinator_tick_s = float("inf")
            self.drive(None)

    def send_up(self, process: Process, message: PeerMessage) -> None:
        peer = process.incarnation
        connection = self.connections[peer]
        wire = encode(message) if self.events % 16 == 0 else None

        def arrive() -> None:
            if self.connections[peer] == connection:
                self.drive(decode(wire) if wire else message)  # type: ignore[arg-type]

        if self.timeline is not None and type(message).__name__ != "Ping":
            self.trace(process.name, f"-> {shown(message)}")
        self.fifo((peer, "up"), self.delay(0.0008), arrive)

    def send_down(self, action: SendTo) -> None:
        if self.dies_after_sends is not None:
            if self.dies_after_sends == 0:
                self.at(TIMEOUT_S * self.rng.random() * 2, self.start_coordinator)
                self.stop_coordinator()
                return
            self.dies_after_sends -= 1
        process = self.processes[action.incarnation]
        peer, message = action.incarnation, action.message
        connection = self.connections[peer]

        def arrive() -> None:
            # The dead have no connection; now and then the living have none either.
            if not process.is_alive or self.hints.random() < 0.01:
                self.drive(SendFailed(peer))
            elif self.connections[peer] == connection:
                process.receive(partial(self.hand_over, process, message))

        self.fifo((peer, "down"), self.delay(0.0008), arrive)

    def hand_over(self, process: Process, message: CoordinatorMessage) -> None:
        if self.timeline is not None and type(message).__name__ != "Pong":
            self.trace(process.name, f"<- {shown(message)}")
        process.on(MessageReceived(message))

    def reset_connection(self, process: Process) -> None:
        self.trace(process.name, "CONTROL CONNECTION RESET")
        self.connections[process.incarnation] += 1

    def fifo(
        self, channel: tuple[object, object], delay_s: float, call: Callable[[], None]
    ) -> None:
        """Random delays, but in order on one connection."""
        arrival_s = max(self.now_s + delay_s, self._last.get(channel, 0.0))
        self._last[channel] = arrival_s
        self.at(arrival_s - self.now_s, call)

    # ---- data plane --------------------------------------------------------------------------

    def link(self, one: Incarnation, other: Incarnation) -> Link:
        pair = frozenset((one, other))
        if pair not in self.links:
            self.links[pair] = Link(slowness=self.rng.choice(self.slownesses))
        return self.links[pair]

    def send_frame(self, source: Incarnation, target: Incarnation, frame: Frame) -> None:
        process = self.processes[source]
        if process.dies_after_frames is not None:
            if process.dies_after_frames == 0:
                self.crash(process)
            process.dies_after_frames -= 1
        if not process.is_alive:
            return
        link = self.link(source, target)
        if not link.is_up:
            link.waiting.append((source, target, frame))
            return
        serial, receiver = link.serial, self.processes[target]

        def arrive() -> None:
            if serial in (link.serial, link.drains) and receiver.is_running:
                receiver.receive(partial(self.take_frame, receiver, link, serial, frame))

        self.fifo((source, target), self.delay(0.0006 * link.slowness), arrive)

    def take_frame(self, receiver: Process, link: Link, serial: int, frame: Frame) -> None:
        if serial in (link.serial, link.drains) and receiver.is_running:
            receiver.comm.on_frame(frame)

    def close_links(self, process: Process, kind: LinkLoss) -> None:
        for pair in list(self.links):
            if process.incarnation in pair:
                other = next(iter(pair - {process.incarnation}))
                self.break_link(process.incarnation, other, kind)

    def break_link(self, one: Incarnation, other: Incarnation, kind: LinkLoss) -> None:
        link = self.link(one, other)
        if not link.is_up:
            return
        is_death = not (self.processes[one].is_alive and self.processes[other].is_alive)
        link.drains = link.serial if is_death and self.rng.random() < 0.6 else -1
        link.serial += 1
        link.waiting.clear()
        link.is_up = False
        for side, far in ((one, other), (other, one)):
            process = self.processes[side]
            loss = partial(process.receive, partial(self.lose, process, far, kind))
            self.fifo((far, side), self.delay(0.0008), loss)

    def lose(self, process: Process, far: Incarnation, kind: LinkLoss) -> None:
        if not process.is_running or self.link(process.incarnation, far).is_up:
            return
        if far in process.comm.members:
            process.comm.lost[far] = kind
        process.on(LinkLost(far, kind, f"link to {self.processes[far].name}: {kind.name}"))

    def links_installed(
        self, me: Incarnation, members: tuple[Incarnation, ...], redials: Iterable[Incarnation]
    ) -> None:
        epoch = self.processes[me].comm.epoch
        for pair in list(self.links):
            far = next(iter(pair - {me}), me)
            switch = self.processes[me].peer.switch
            joining = switch.view.incarnations if switch and switch.view else ()
            if me in pair and far not in members and far not in joining:
                self.break_link(me, far, LinkLoss.RESET)
        for far in redials:
            link = self.link(me, far)
            if link.fresh_for < epoch:
                link.fresh_for = epoch
                link.serial += 1
                link.is_up = False
                link.waiting.clear()
            if members.index(me) > members.index(far):
                self.open_link(self.processes[me], far)
            else:
                check = partial(self.check_opened, self.processes[me], far, link, link.serial)
                self.at(TIMEOUT_S / 2, check)

    def open_link(self, dialler: Process, far: Incarnation) -> None:
        me = dialler.incarnation
        link = self.link(me, far)
        serial = link.serial

        def connect() -> None:
            if link.serial != serial or link.is_up or not dialler.is_running:
                return
            if self.processes[far].is_running:
                link.is_up = True
                waiting, link.waiting = link.waiting, []
                for source, target, frame in waiting:
                    self.send_frame(source, target, frame)
                for process in (dialler, self.processes[far]):
                    process.receive(partial(self.tell_links_up, process))
            else:
                self.at(TIMEOUT_S / 2, partial(fail))

        def fail() -> None:
            if link.serial == serial and not link.is_up:
                dialler.receive(partial(self.lose, dialler, far, LinkLoss.UNREACHABLE))

        self.at(self.delay(0.002), connect)

    def check_opened(self, process: Process, far: Incarnation, link: Link, serial: int) -> None:
        if link.serial == serial and not link.is_up:
            process.receive(partial(self.lose, process, far, LinkLoss.UNREACHABLE))

    def dial(self, process: Process, action: DialPeers) -> None:
        me, members = process.incarnation, action.view.incarnations
        for far in members:
            is_ours = far != me and members.index(me) > members.index(far)
            if is_ours and not self.link(me, far).is_up:
                self.open_link(process, far)
        process.later(TIMEOUT_S / 2, partial(self.tell_links_failed, process, action.ballot))
        process.later(0.0, partial(self.tell_links_up, process))

    def missing_links(self, process: Process) -> list[Incarnation]:
        me = process.incarnation
        assert process.dialling
        members = process.dialling.view.incarnations
        return [far for far in members if far != me and not self.link(me, far).is_up]

    def tell_links_up(self, process: Process) -> None:
        if process.dialling and not self.missing_links(process):
            ballot = process.dialling.ballot
            process.dialling = None
            process.on(LinksUp(ballot))

    def tell_links_failed(self, process: Process, ballot: Ballot) -> None:
        if process.dialling and process.dialling.ballot == ballot:
            whom = tuple(self.missing_links(process))
            process.dialling = None
            process.on(LinksFailed(ballot, whom, "no connection"))

    # ---- users -------------------------------------------------------------------------------

    def cancel(self, process: Process, kind: CancelKind) -> None:
        busy = [comm for comm in process.comm.streams if comm.queue]
        comm = self.hints.choice(busy) if len(busy) > 1 else process.comm
        if process.is_running and not process.is_paused and comm.queue and comm.queue[0].op:
            op = comm.queue[0].op
            self.trace(process.name, f"CANCELS op {op >> 32}.{op & 0xFFFFFFFF} of {comm.scope}")
            process.on(OpCancelled(op, kind, "the user gave up", comm.scope))

    def leave(self, process: Process) -> None:
        """The application stops at its next point between operations, then leaves."""
        if not process.is_running or process.is_paused:
            return
        process.app.is_stopped = True
        if any(comm.queue for comm in process.comm.streams):
            self.at(0.002, partial(self.leave, process))
        else:
            self.trace(process.name, "LEAVES")
            process.on(LeaveAsked())
