"""What happened to the group, as its user is told."""

from __future__ import annotations

import queue
from dataclasses import dataclass
from enum import Enum, auto

EVENTS_KEPT_MAX = 1024  # the oldest are dropped when nobody asks for them


class MembershipEventKind(Enum):
    """What may happen to a group, seen by one of its members."""

    JOINED = auto()  # a peer became a member
    LEFT = auto()  # a member left as it asked
    LOST = auto()  # a member died, or cannot be reached
    FROZEN = auto()  # operations stand still while members agree on a view
    RESUMED = auto()  # operations run again; duration_s tells how long they stood still
    FENCED = auto()  # the others went on without this peer; final
    COORDINATOR_LOST = auto()  # it does not answer; operations go on, changes wait
    COORDINATOR_BACK = auto()
    REFUSED = auto()  # somebody sent bytes that are no peer's; they had no effect


@dataclass(frozen=True, slots=True)
class MembershipEvent:
    """One thing that happened.

    Attributes:
        kind: what.
        at_s: when, seconds of time.monotonic().
        epoch: user number of the epoch it led to, or was seen in; 0 before the first.
        peer: name of the peer that it is about; "" when it is about all.
        detail: why, for people.
        duration_s: of RESUMED, how long this peer was held up; else 0.
    """

    kind: MembershipEventKind
    at_s: float
    epoch: int
    peer: str
    detail: str
    duration_s: float = 0.0


class EventLog:
    """Events that wait to be read. Any thread; no interrupt can leave a lock taken."""

    def __init__(self) -> None:
        self._events: queue.SimpleQueue[MembershipEvent] = queue.SimpleQueue()

    def append(self, event: MembershipEvent) -> None:
        self._events.put(event)
        if self._events.qsize() > EVENTS_KEPT_MAX:
            self._next(0.0)

    def take(self, timeout_s: float) -> list[MembershipEvent]:
        """All events that wait; when there is none, waits up to `timeout_s` for one."""
        taken: list[MembershipEvent] = []
        while (event := self._next(0.0 if taken else timeout_s)) is not None:
            taken.append(event)
        return taken

    def _next(self, timeout_s: float) -> MembershipEvent | None:
        try:
            return self._events.get(block=timeout_s > 0, timeout=timeout_s or None)
        except queue.Empty:
            return None
