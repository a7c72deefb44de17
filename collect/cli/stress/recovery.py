"""How long faults hold the others up.

A fault's *recovery* is the time from the fault until the operation that was under way has completed
on the last member that it did not befall; the operation's own time is in it. Times are
CLOCK_MONOTONIC, the same in all processes of a host.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field

NS_PER_S = 1e9
USUAL_COUNT = 2000  # the latest operations, for what is usual
PERCENTILES = (50, 90, 99)


@dataclass
class Pending:
    """A fault whose recovery is not known yet."""

    kind: str
    at_ns: int
    waiting: set[str]  # who has yet to complete an operation
    last_ns: int = 0


@dataclass(frozen=True)
class Summary:
    """Recoveries from one kind of fault, in seconds."""

    kind: str
    count: int
    percentiles_s: tuple[float, ...]  # of PERCENTILES
    max_s: float


@dataclass
class Recoveries:
    """Gathers them from what the members tell."""

    by_kind: dict[str, list[float]] = field(default_factory=dict)
    usual_s: list[float] = field(default_factory=list)
    longest_s: float = 0.0
    _pending: list[Pending] = field(default_factory=list)

    def begin(self, kind: str, others: set[str]) -> None:
        """Now a fault befalls somebody, and `others` go on."""
        if others:
            self._pending.append(Pending(kind, time.monotonic_ns(), set(others)))

    def completed(self, name: str, at_ns: int, duration_s: float) -> None:
        """A member has completed an operation."""
        self.usual_s.append(duration_s)
        del self.usual_s[:-USUAL_COUNT]
        self.longest_s = max(self.longest_s, duration_s)
        for each in self._pending:
            if name in each.waiting and at_ns >= each.at_ns:
                each.waiting.discard(name)
                each.last_ns = max(each.last_ns, at_ns)
        self._settle()

    def is_over(self, name: str) -> None:
        """It will complete nothing more."""
        for each in self._pending:
            each.waiting.discard(name)
        self._settle()

    def _settle(self) -> None:
        done = [each for each in self._pending if not each.waiting]
        for each in done:
            self._pending.remove(each)
            if each.last_ns:
                took_s = (each.last_ns - each.at_ns) / NS_PER_S
                self.by_kind.setdefault(each.kind, []).append(took_s)

    def summaries(self) -> list[Summary]:
        """A line for each kind of fault."""
        return [
            Summary(
                kind, len(times), tuple(percentile(times, each) for each in PERCENTILES), max(times)
            )
            for kind, times in sorted(self.by_kind.items())
        ]

    def usual(self) -> float:
        """The median time of the latest operations, in seconds."""
        return statistics.median(self.usual_s) if self.usual_s else 0.0


def percentile(values: list[float], percent: float) -> float:
    """The nearest rank: the least value that so many percent do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * int(percent) // 100) - 1)]
