"""Which fault comes when. Pure: it sees the story and the time, and returns what to do.

A kill, a stop and a join, one after the other, at fixed shares of the training. The next one waits
until the group has recovered from the one before.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

import numpy as np

from collect.cli.demo.story import NS_PER_S, PeerState, Story
from collect.cli.usage import UsageError

PEERS_MIN = 3  # one is killed, one is stopped, one goes on
KILL_AT, STOP_AT, JOIN_AT = 0.15, 0.40, 0.70  # shares of the steps
KILL_STEPS_AHEAD = 5  # so that the order reaches the victim before the step does
STOP_TIMEOUTS = 3  # long enough to be fenced, short enough to watch
COMEBACK_S = 1.5  # to find out, and to join again
STARTUP_S = 3.0  # of a new process, on a busy machine
TRAINING_S_MIN = 18.0  # so that a viewer can follow


@dataclass(frozen=True, slots=True)
class Kill:
    """Have `victim` kill itself inside the all-reduce of `step`, after `frame` data frames."""

    victim: str
    step: int
    frame: int


@dataclass(frozen=True, slots=True)
class Stop:
    """SIGSTOP."""

    victim: str


@dataclass(frozen=True, slots=True)
class Continue:
    """SIGCONT."""

    victim: str


@dataclass(frozen=True, slots=True)
class Start:
    """Start a process that joins."""

    name: str


Action = Kill | Stop | Continue | Start


class Stage(Enum):
    """What comes next."""

    KILL = auto()
    STOP = auto()
    CONTINUE = auto()
    JOIN = auto()
    DONE = auto()


class Scenario:
    """The faults of one run."""

    def __init__(self, *, peers: int, seed: int, timeout_s: float, with_faults: bool) -> None:
        self.names = tuple(f"peer-{index}" for index in range(peers))
        self.newcomer = f"peer-{peers}"
        self.stage = Stage.KILL if with_faults else Stage.DONE
        if with_faults and peers < PEERS_MIN:
            raise UsageError(
                f"collect demo: the faults need --peers {PEERS_MIN} or more (or pass --no-faults)"
            )
        random = np.random.default_rng(seed)
        chosen = random.permutation(peers)
        self.killed = self.names[chosen[0]] if with_faults else None
        self.stopped = self.names[chosen[1]] if with_faults else None
        # A small direct all-reduce is one frame to each other peer, and then another one. After the
        # last of them a death would come too late to be in the middle.
        self.kill_frame = int(random.integers(1, 2 * (peers - 1))) if with_faults else 0
        self._stop_ns = round(STOP_TIMEOUTS * timeout_s * NS_PER_S)

    def next_action(self, story: Story, now_ns: int) -> Action | None:
        """What to do now, if anything. The caller does it."""
        lead, count = story.lead_step, story.step_count
        match self.stage:
            case Stage.KILL if lead >= KILL_AT * count and self.killed is not None:
                self.stage = Stage.STOP
                return Kill(self.killed, lead + KILL_STEPS_AHEAD, self.kill_frame)
            case Stage.STOP if lead >= STOP_AT * count and self._is(story, PeerState.KILLED):
                assert self.stopped is not None
                self.stage = Stage.CONTINUE
                return Stop(self.stopped)
            case Stage.CONTINUE:
                assert self.stopped is not None
                stopped_ns = story.peers[self.stopped].stopped_ns
                if stopped_ns is None or now_ns - stopped_ns < self._stop_ns:
                    return None
                self.stage = Stage.JOIN
                return Continue(self.stopped)
            case Stage.JOIN if lead >= JOIN_AT * count and self._is_back(story):
                self.stage = Stage.DONE
                return Start(self.newcomer)
            case _:
                return None

    def _is(self, story: Story, state: PeerState) -> bool:
        return self.killed is not None and story.peers[self.killed].state is state

    def _is_back(self, story: Story) -> bool:
        return self.stopped is not None and len(story.peers[self.stopped].incarnations) > 1


def pace_for(steps: int, timeout_s: float, asked_s: float | None, with_faults: bool) -> float:
    """Seconds that each peer rests before a step, so that the faults fit into the training."""
    if not with_faults:
        return asked_s or 0.0
    recovery_s = timeout_s + STOP_TIMEOUTS * timeout_s + COMEBACK_S
    needed_s = max(recovery_s / (JOIN_AT - STOP_AT), STARTUP_S / (1 - JOIN_AT))
    if asked_s is None:
        return max(needed_s, TRAINING_S_MIN) / steps
    if asked_s * steps < needed_s:
        raise UsageError(
            f"collect demo: the faults need {needed_s:.0f} s of training: --pace "
            f"{needed_s / steps:.3f} or more (or more --steps, or --no-faults)"
        )
    return asked_s
