"""What a peer process of the demo tells its launcher: one JSON object a line on its output.

Times are CLOCK_MONOTONIC nanoseconds, which processes of one machine share.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Operation:
    """One all-reduce, as this peer saw it."""

    op: str
    attempts: int  # 1; more when it ran again because somebody was lost
    participants: list[str]  # whose data is in the sum, in rank order
    submitted_ns: int
    completed_ns: int

    @property
    def duration_ns(self) -> int:
        return self.completed_ns - self.submitted_ns


@dataclass(frozen=True, slots=True)
class Joined:
    """This peer is a member and has the others' state."""

    at_ns: int
    rank: int
    size: int
    epoch: int
    step: int  # the first it takes part in


@dataclass(frozen=True, slots=True)
class Stepped:
    """A completed step."""

    step: int
    loss: float
    rank: int
    size: int
    epoch: int
    admitted: list[str]  # who entered at the boundary before the step
    admit_ns: int  # how long the boundary took
    operations: list[Operation]


@dataclass(frozen=True, slots=True)
class Membership:
    """An event of the library, as `Group.events` reports it."""

    event: str
    peer: str  # empty when it is about all
    epoch: int
    detail: str
    duration_s: float  # of RESUMED: how long this peer was held up


@dataclass(frozen=True, slots=True)
class Armed:
    """This peer is about to submit the all-reduce in which it will be killed."""

    at_ns: int
    step: int


@dataclass(frozen=True, slots=True)
class Fenced:
    """This peer found out that the others went on without it."""

    at_ns: int
    reason: str


@dataclass(frozen=True, slots=True)
class Finished:
    """All steps are done."""

    step: int
    accuracy: float
    digest: str
    parameters_difference: float  # largest, to the run in a single process


@dataclass(frozen=True, slots=True)
class Failed:
    """This peer gives up."""

    reason: str


Message = Joined | Stepped | Membership | Armed | Fenced | Finished | Failed
_KINDS: dict[str, type[Any]] = {
    kind.__name__: kind for kind in (Joined, Stepped, Membership, Armed, Fenced, Finished, Failed)
}


def encode(message: Message) -> str:
    """One line, without its end."""
    return json.dumps({"kind": type(message).__name__, **asdict(message)})


def decode(line: str) -> Message | None:
    """The message, or None: a line that is none is the peer's own output."""
    try:
        fields = json.loads(line)
        kind = _KINDS[fields.pop("kind")]
        if kind is Stepped:
            fields["operations"] = [Operation(**each) for each in fields["operations"]]
        message: Message = kind(**fields)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return message
