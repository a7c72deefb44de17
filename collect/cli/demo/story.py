"""The run so far, told by its peers' messages. Pure: no processes, no clock, no output."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from enum import Enum

from collect.cli.demo.messages import (
    Armed,
    Failed,
    Fenced,
    Finished,
    Joined,
    Membership,
    Message,
    Stepped,
)

NS_PER_S = 1_000_000_000
OUTPUT_LINES_MAX = 50  # kept of what a peer prints besides messages


class PeerState(Enum):
    """What a viewer wants to know of a process."""

    STARTING = "starting"  # no member yet
    TRAINING = "training"
    STOPPED = "stopped"  # by SIGSTOP
    FENCED = "fenced"  # out of the group; joins again
    KILLED = "killed"  # as the demo meant it
    DONE = "done"
    FAILED = "failed"


class Tone(Enum):
    """How a line of the log is meant."""

    PLAIN = "plain"
    FAULT = "fault"
    GOOD = "good"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class LogLine:
    """Something that happened, for the viewer."""

    at_s: float
    who: str
    text: str
    tone: Tone


@dataclass(slots=True)
class Incarnation:
    """One membership of a process, from joining to the end, or to being fenced."""

    joined: Joined
    steps: list[Stepped] = field(default_factory=list)
    fenced: Fenced | None = None


@dataclass(slots=True)
class Peer:
    """A process."""

    name: str
    pid: int
    started_ns: int
    state: PeerState = PeerState.STARTING
    incarnations: list[Incarnation] = field(default_factory=list)
    armed: Armed | None = None
    killed_by_us: bool = False
    stopped_ns: int | None = None
    continued_ns: int | None = None
    finished: Finished | None = None
    failure: str | None = None
    exit_status: int | None = None  # as subprocess gives it: negative for a signal
    output: list[str] = field(default_factory=list)

    @property
    def last_step(self) -> Stepped | None:
        for incarnation in reversed(self.incarnations):
            if incarnation.steps:
                return incarnation.steps[-1]
        return None

    @property
    def steps(self) -> list[Stepped]:
        """Of all incarnations, in order."""
        return [step for incarnation in self.incarnations for step in incarnation.steps]


class Story:
    """Peers and log."""

    def __init__(self, *, steps: int, started_ns: int) -> None:
        self.step_count = steps
        self.started_ns = started_ns
        self.peers: dict[str, Peer] = {}
        self.log: list[LogLine] = []
        self._told: set[tuple[str, str | None, int]] = set()

    @property
    def lead_step(self) -> int:
        """How many steps somebody has completed."""
        return max(
            (peer.last_step.step + 1 for peer in self.peers.values() if peer.last_step), default=0
        )

    def is_over(self) -> bool:
        return bool(self.peers) and all(
            peer.exit_status is not None for peer in self.peers.values()
        )

    def spawned(self, name: str, pid: int, now_ns: int, *, late: bool) -> None:
        assert name not in self.peers
        self.peers[name] = Peer(name, pid, now_ns)
        if late:
            self.tell(now_ns, name, f"a new peer is started (pid {pid})", Tone.FAULT)

    def stopped(self, name: str, now_ns: int) -> None:
        peer = self.peers[name]
        peer.state, peer.stopped_ns = PeerState.STOPPED, now_ns
        self.tell(now_ns, name, "SIGSTOP: it hangs, its sockets stay open", Tone.FAULT)

    def continued(self, name: str, now_ns: int) -> None:
        peer = self.peers[name]
        assert peer.stopped_ns is not None
        peer.continued_ns = now_ns
        if peer.state is PeerState.STOPPED:
            peer.state = PeerState.TRAINING
        stopped_s = (now_ns - peer.stopped_ns) / NS_PER_S
        self.tell(now_ns, name, f"SIGCONT, after {stopped_s:.1f} s", Tone.FAULT)

    def killing(self, name: str, step: int, frame: int, now_ns: int) -> None:
        self.peers[name].killed_by_us = True
        text = f"will be killed in the all-reduce of step {step}, after its data frame {frame}"
        self.tell(now_ns, name, text, Tone.FAULT)

    def exited(self, name: str, status: int, now_ns: int) -> None:
        peer = self.peers[name]
        peer.exit_status = status
        if peer.killed_by_us and status == -signal.SIGKILL:
            peer.state = PeerState.KILLED
            self.tell(now_ns, name, "dead by SIGKILL", Tone.FAULT)
        elif status != 0 or peer.finished is None:
            peer.state = PeerState.FAILED
            self.tell(now_ns, name, f"ended with {describe_status(status)}", Tone.BAD)

    def printed(self, name: str, line: str) -> None:
        """Output that is no message; the last lines are kept for the report of a failure."""
        output = self.peers[name].output
        output.append(line)
        del output[:-OUTPUT_LINES_MAX]

    def tell(self, now_ns: int, who: str, text: str, tone: Tone = Tone.PLAIN) -> None:
        self.log.append(LogLine((now_ns - self.started_ns) / NS_PER_S, who, text, tone))

    def on(self, name: str, message: Message, now_ns: int) -> None:
        """Take in a peer's message."""
        peer = self.peers[name]
        match message:
            case Joined():
                self._on_joined(peer, message, now_ns)
            case Stepped():
                self._on_stepped(peer, message, now_ns)
            case Membership():
                self._on_membership(peer, message, now_ns)
            case Armed():
                peer.armed = message
            case Fenced():
                peer.state = PeerState.FENCED
                peer.incarnations[-1].fenced = message
                self.tell(now_ns, name, f"was fenced: {message.reason}", Tone.FAULT)
            case Finished():
                peer.state, peer.finished = PeerState.DONE, message
            case Failed():
                peer.state, peer.failure = PeerState.FAILED, message.reason
                self.tell(now_ns, name, message.reason, Tone.BAD)

    def _on_joined(self, peer: Peer, message: Joined, now_ns: int) -> None:
        again = " again, as a new incarnation" if peer.incarnations else ""
        peer.state = PeerState.TRAINING
        peer.incarnations.append(Incarnation(message))
        text = f"joined{again}: rank {message.rank} of {message.size}, from step {message.step}"
        self.tell(now_ns, peer.name, text, Tone.GOOD)

    def _on_stepped(self, peer: Peer, message: Stepped, now_ns: int) -> None:
        previous = peer.last_step
        peer.incarnations[-1].steps.append(message)
        first = message.operations[0]
        held = f"attempt {first.attempts}, held up {first.duration_ns / 1e6:.0f} ms"
        for victim in self._killed_in(message.step):
            if self._is_news("death", victim, message.step):
                has_part = "with" if victim in first.participants else "without"
                text = f"step {message.step} is complete {has_part} {victim}'s part"
                self.tell(now_ns, peer.name, f"{text}, {held}", Tone.GOOD)
        lost = _lost_in(message, previous) - {
            each.name for each in self.peers.values() if each.killed_by_us
        }
        for name in sorted(lost):
            if self._is_news("loss", name, message.step):
                text = f"step {message.step} is complete without {name}'s part"
                self.tell(now_ns, peer.name, f"{text}, {held}", Tone.GOOD)

    def _killed_in(self, step: int) -> list[str]:
        """Who submitted the all-reduce of this step to die in it."""
        return [
            peer.name
            for peer in self.peers.values()
            if peer.armed is not None and peer.armed.step == step
        ]

    def _on_membership(self, peer: Peer, message: Membership, now_ns: int) -> None:
        """Several peers report the same event; the first is told."""
        if message.event in {"JOINED", "FROZEN"}:
            return
        if message.event == "RESUMED":
            if message.duration_s and self._is_news("RESUMED", peer.name, message.epoch):
                text = f"goes on in epoch {message.epoch} after {message.duration_s * 1e3:.0f} ms"
                self.tell(now_ns, peer.name, text)
            return
        if self._is_news(message.event, message.peer, message.epoch):
            who = message.peer or peer.name
            detail = f": {message.detail}" if message.detail else ""
            text = f"{message.event.lower().replace('_', ' ')}{detail} (told by {peer.name})"
            self.tell(now_ns, who, text)

    def _is_news(self, what: str, who: str | None, number: int) -> bool:
        key = (what, who, number)
        is_news = key not in self._told
        self._told.add(key)
        return is_news


def describe_status(status: int) -> str:
    """An exit status as subprocess gives it, in words."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


def _lost_in(message: Stepped, previous: Stepped | None) -> set[str]:
    """Who was among the participants of the last step, and is not among this one's."""
    if previous is None:
        return set()
    return set(previous.operations[-1].participants) - set(message.operations[0].participants)
