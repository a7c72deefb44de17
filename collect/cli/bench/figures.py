"""What is measured and how it is summed up. Pure.

Terms are those of nccl-tests: for an operation over p members on S bytes that takes t,
*algorithm bandwidth* is S/t, and *bus bandwidth* of an all-reduce is 2(p-1)/p * S/t: what each
member's link must carry at least, which can be compared with the link's speed for any p.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from collect.cli.usage import byte_count

NS_PER_S = 1_000_000_000
ITERATIONS_MIN = 10
ITERATIONS_MAX = 4000
RANGE_FACTOR = 4  # between the sizes of a range
SIZES_MAX = 64


@dataclass(frozen=True, slots=True)
class Figures:
    """Times of one library, one size and one world, of all iterations on all members."""

    library: str
    world: int
    size_bytes: int
    iterations: int
    median_s: float
    p95_s: float

    @property
    def algorithm_bytes_per_s(self) -> float:
        return self.size_bytes / self.median_s

    @property
    def bus_bytes_per_s(self) -> float:
        return 2 * (self.world - 1) / self.world * self.algorithm_bytes_per_s

    def as_json(self) -> dict[str, str | int | float]:
        return {
            "library": self.library,
            "world": self.world,
            "size_bytes": self.size_bytes,
            "iterations": self.iterations,
            "median_s": self.median_s,
            "p95_s": self.p95_s,
            "algorithm_bytes_per_s": self.algorithm_bytes_per_s,
            "bus_bytes_per_s": self.bus_bytes_per_s,
        }


def sum_up(library: str, world: int, size_bytes: int, times_ns: Sequence[int]) -> Figures:
    """Median and 95th percentile over the samples of every member."""
    times_s = np.asarray(times_ns, dtype=np.float64) / NS_PER_S
    return Figures(
        library=library,
        world=world,
        size_bytes=size_bytes,
        iterations=len(times_ns) // world,
        median_s=float(np.median(times_s)),
        p95_s=float(np.percentile(times_s, 95)),
    )


def iterations_for(one_s: float, budget_s: float) -> int:
    """As many as fit into the budget, within limits that keep medians stable and runs short."""
    fitting = int(budget_s / one_s) if one_s > 0 else ITERATIONS_MAX
    return min(max(fitting, ITERATIONS_MIN), ITERATIONS_MAX)


def sizes(text: str) -> list[int]:
    """'64Ki', or a range '8..128Mi' in steps of a factor 4, for argparse."""
    match = re.fullmatch(r"([^.]+)\.\.([^.]+)", text)
    if match is None:
        return [byte_count(text)]
    first, last = byte_count(match[1]), byte_count(match[2])
    if first > last:
        raise argparse.ArgumentTypeError(f"{text!r}: the range is empty")
    found = [first]
    while found[-1] * RANGE_FACTOR <= last:
        found.append(found[-1] * RANGE_FACTOR)
    return found if found[-1] == last else [*found, last]


def size_text(size_bytes: int) -> str:
    """8 -> '8 B', 4096 -> '4 KiB'; a size that is no multiple stays in smaller units."""
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size_bytes % unit == 0:
            return f"{size_bytes // unit} {name}"
    return f"{size_bytes} B"


def time_text(time_s: float) -> str:
    """Three or four significant digits with a fitting unit."""
    for scale, unit in ((1.0, "s"), (1e-3, "ms")):
        if time_s >= scale:
            return f"{time_s / scale:.2f} {unit}"
    return f"{time_s * 1e6:.1f} us"
