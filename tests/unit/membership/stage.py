"""Real machines on a stage where messages arrive at once, in order, unless the test cuts them off.

The communicator is a slip of paper: what it would report when frozen, and what it was told.
"""

from collections import defaultdict, deque
from dataclasses import dataclass, field

from collect.membership.coordinator import Coordinator, Settings
from collect.membership.events import (
    Announce,
    AnnouncementKind,
    BoundaryAsked,
    CommFrozen,
    CommReport,
    CoordinatorAction,
    DialPeers,
    FreezeComm,
    InstallComm,
    LinkLost,
    LinksFailed,
    LinksUp,
    Log,
    MessageReceived,
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
from collect.membership.peer import Peer
from collect.types import (
    Admit,
    Incarnation,
    LinkLoss,
    LostLink,
    Member,
    OpInFlight,
    Outcome,
    OutcomeKind,
    View,
)
from collect.wire.messages import CoordinatorMessage, Join, PeerMessage

TIMEOUT_S = 1.0
IDLE = CommReport(Outcome(), None, ())


def joins(name: str, incarnation: Incarnation, admit: Admit = Admit.AUTO, least: int = 1) -> Join:
    return Join(Member(incarnation, name, "host", ("127.0.0.1:1",)), least, admit, "group")


def did(op: int, attempt: int) -> Outcome:
    return Outcome(op, attempt, OutcomeKind.DONE, is_retained=True)


def flies(op: int, attempt: int, descriptor: str = "all_reduce float32[10] sum") -> OpInFlight:
    return OpInFlight(op, attempt, descriptor, hash(descriptor) & 0xFFFF)


@dataclass
class Actor:
    peer: Peer
    report: CommReport = IDLE
    is_cut: bool = False  # neither hears nor is heard
    cannot_reach: tuple[Incarnation, ...] = ()
    holds_freeze: bool = False  # its communicator takes its time
    installs: list[InstallComm] = field(default_factory=list)
    rebases: list[int] = field(default_factory=list)
    passed: list[PassBoundary] = field(default_factory=list)
    announced: list[Announce] = field(default_factory=list)

    def kinds(self) -> list[AnnouncementKind]:
        return [each.kind for each in self.announced]


class Stage:
    def __init__(self, *, is_first: bool = True, generation: int = 1) -> None:
        self.now_s = 100.0
        self.actors: dict[str, Actor] = {}
        self.by_id: dict[Incarnation, str] = {}
        self.logs: list[str] = []
        self.told: dict[str, list[CoordinatorMessage]] = defaultdict(list)
        self.said: dict[str, list[PeerMessage]] = defaultdict(list)
        self._queue: deque[tuple[str, PeerMessage | CoordinatorMessage]] = deque()
        self.last_view: View | None = None  # the coordinator's disk
        self._last_words: type[CoordinatorMessage] | None = None
        self.coordinator: Coordinator | None = None
        self.restart(is_first=is_first, generation=generation)

    def restart(self, *, is_first: bool = False, generation: int = 2) -> None:
        settings = Settings(
            group="group",
            generation=generation,
            group_key=77,
            timeout_s=TIMEOUT_S,
            is_first=is_first,
            last_view=self.last_view,
            settle_s=0.001,
        )
        self.coordinator = Coordinator(settings, self.now_s)

    def kill_coordinator(self) -> None:
        self.coordinator = None
        self._queue.clear()

    def dies_after(self, kind: type[CoordinatorMessage]) -> None:
        """The coordinator dies when it has sent one message of this kind."""
        self._last_words = kind

    def enter(self, name: str, incarnation: Incarnation, join: Join | None = None) -> Actor:
        actor = self.actors[name] = Actor(Peer(join or joins(name, incarnation), TIMEOUT_S))
        self.by_id[incarnation] = name
        self.at(name, Started())
        return actor

    def at(self, name: str, event: PeerEvent) -> None:
        """An event at a peer, and all that follows from it at once."""
        self._act(name, self.actors[name].peer.on(event, self.now_s))
        self.settle()

    def wait(self, seconds: float, steps: int = 40) -> None:
        for _ in range(steps):
            self.now_s += seconds / steps
            for name, actor in self.actors.items():
                if not actor.is_cut:
                    self._act(name, actor.peer.on(Tick(), self.now_s))
            self.settle()
            if self.coordinator:
                self._decide(self.coordinator.on(Tick(), self.now_s))
            self.settle()

    def settle(self) -> None:
        while self._queue:
            self.deliver_one()

    def deliver_one(self) -> None:
        name, message = self._queue.popleft()
        actor = self.actors[name]
        if actor.is_cut:
            return
        if isinstance(message, CoordinatorMessage):
            self.told[name].append(message)
            self._act(name, actor.peer.on(MessageReceived(message), self.now_s))
        elif self.coordinator:
            self._decide(self.coordinator.on(PeerMessageReceived(message), self.now_s))

    def hear(self, message: PeerMessage) -> None:
        """A message that the coordinator gets from nowhere."""
        assert self.coordinator
        self._decide(self.coordinator.on(PeerMessageReceived(message), self.now_s))
        self.settle()

    def fail_send(self, incarnation: Incarnation) -> None:
        """The coordinator's last message to this peer went nowhere."""
        assert self.coordinator
        self._decide(self.coordinator.on(SendFailed(incarnation), self.now_s))
        self.settle()

    def die(self, name: str, *witnesses: str) -> None:
        """`name` is gone; those who are connected to it notice."""
        self.actors[name].is_cut = True
        for witness in witnesses:
            self.lose(witness, name)

    def lose(self, name: str, far: str) -> None:
        actor, lost = self.actors[name], self.actors[far].peer.self_id
        report = actor.report
        links = (*report.lost, LostLink(lost, LinkLoss.RESET))
        actor.report = CommReport(report.consumed, report.in_flight, links)
        self.at(name, LinkLost(lost, LinkLoss.RESET, "connection reset"))

    def pass_boundary(self, *names: str) -> None:
        for name in names:
            self.at(name, BoundaryAsked())

    def runs(self, outcome: Outcome, flight: OpInFlight | None, *names: str) -> None:
        """What the communicators of these members would report."""
        for name in names:
            self.actors[name].report = CommReport(outcome, flight, ())

    def members(self) -> list[str]:
        assert self.coordinator
        view = self.coordinator.view
        return [member.name for member in view.members] if view else []

    def _act(self, name: str, actions: list[PeerAction]) -> None:
        actor = self.actors[name]
        for action in actions:
            match action:
                case Send(message):
                    self.said[name].append(message)
                    self._queue.append((name, message))
                case FreezeComm(ballot):
                    if not actor.holds_freeze:
                        frozen = CommFrozen(ballot, actor.report)
                        self._act(name, actor.peer.on(frozen, self.now_s))
                case DialPeers(ballot):
                    far = actor.cannot_reach
                    failed = LinksFailed(ballot, far, "no route")
                    event = failed if far else LinksUp(ballot)
                    self._act(name, actor.peer.on(event, self.now_s))
                case InstallComm():
                    actor.installs.append(action)
                    actor.report = CommReport(actor.report.consumed, actor.report.in_flight, ())
                    if action.has_repair:
                        verdict = action.verdict
                        actor.report = CommReport(did(verdict.op, verdict.attempt), None, ())
                        done = RepairsDone(action.view.epoch)
                        self._act(name, actor.peer.on(done, self.now_s))
                case RebaseComm(base):
                    actor.rebases.append(base)
                case PassBoundary():
                    actor.passed.append(action)
                case Announce():
                    actor.announced.append(action)
                case Log(reason):
                    self.logs.append(f"{name}: {reason}")

    def _decide(self, actions: list[CoordinatorAction]) -> None:
        for action in actions:
            match action:
                case SendTo(incarnation, message):
                    if incarnation in self.by_id:
                        self._queue.append((self.by_id[incarnation], message))
                    if self._last_words and isinstance(message, self._last_words):
                        self._last_words = self.coordinator = None
                        return
                case RememberView(view):
                    self.last_view = view
                case Log(reason):
                    self.logs.append(f"coordinator: {reason}")


def formed(*names: str, admit: Admit = Admit.AUTO) -> Stage:
    """A group whose members have all passed the first boundary."""
    stage = Stage()
    for index, name in enumerate(names):
        stage.enter(name, index + 1, joins(name, index + 1, admit, len(names)))
    stage.wait(0.01)
    stage.pass_boundary(*names)
    assert stage.members() == list(names)
    return stage
