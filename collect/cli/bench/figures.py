"""Times, how they are summed up, and how they are written. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from collect.cli.bench.cases import COLLECTIVES, Case, Variant, bus_factor

NS_PER_S = 1_000_000_000
ITERATIONS_MIN = 5
ITERATIONS_MAX = 4000


@dataclass(frozen=True, slots=True)
class Figures:
    """Times of one library doing one case in one way, over all rounds."""

    library: str
    transport: str
    world: int
    case: Case
    variant: Variant
    iterations: int
    min_s: float
    median_s: float
    p99_s: float
    rounds_s: tuple[float, ...]  # median of each round

    @property
    def algorithm_bytes_per_s(self) -> float:
        return self.case.size_bytes / self.median_s

    @property
    def bus_bytes_per_s(self) -> float:
        return bus_factor(self.case.collective, self.world) * self.algorithm_bytes_per_s

    def as_json(self) -> dict[str, object]:
        return {
            "library": self.library,
            "transport": self.transport,
            "world": self.world,
            "collective": self.case.collective,
            "size_bytes": self.case.size_bytes,
            "dtype": self.case.dtype,
            "op": self.case.op,
            "placement": self.case.placement,
            "algorithm": self.variant.algorithm,
            "mode": self.variant.mode,
            "arrays": self.variant.arrays,
            "iterations": self.iterations,
            "min_s": self.min_s,
            "median_s": self.median_s,
            "p99_s": self.p99_s,
            "rounds_median_s": list(self.rounds_s),
            "algorithm_bytes_per_s": self.algorithm_bytes_per_s,
            "bus_bytes_per_s": self.bus_bytes_per_s,
        }


def operation_times(collective: str, times_ns: Sequence[Sequence[int]]) -> npt.NDArray[np.float64]:
    """Seconds of each operation, from every rank's times of its calls (rank by iteration).

    Where nobody can run ahead of the others, the mean over the ranks: their sum is the time that
    passed. Else the ranks began together, and the operation is over when the last is done.
    """
    times_s = np.asarray(times_ns, dtype=np.float64) / NS_PER_S
    if COLLECTIVES[collective].is_synchronising:
        return np.asarray(times_s.mean(axis=0))
    return np.asarray(times_s.max(axis=0))


def sum_up(
    label: tuple[str, str],
    world: int,
    case: Case,
    variant: Variant,
    rounds: Sequence[npt.NDArray[np.float64]],
) -> Figures:
    """Figures of all rounds' operation times, each at least one. `label`: library, transport."""
    times_s = np.concatenate(rounds)
    return Figures(
        library=label[0],
        transport=label[1],
        world=world,
        case=case,
        variant=variant,
        iterations=len(times_s),
        min_s=float(times_s.min()),
        median_s=float(np.median(times_s)),
        p99_s=float(np.percentile(times_s, 99)),
        rounds_s=tuple(float(np.median(each)) for each in rounds),
    )


def best(figures: Sequence[Figures]) -> Figures | None:
    """Of the ways in which a library did the same, the fastest."""
    return min(figures, key=lambda each: each.median_s, default=None)


def iterations_for(one_s: float, budget_s: float) -> int:
    """As many as fit into the budget, within limits that keep medians stable and runs short."""
    fitting = int(budget_s / one_s) if one_s > 0 else ITERATIONS_MAX
    return min(max(fitting, ITERATIONS_MIN), ITERATIONS_MAX)


def shares(total: int, rounds: int) -> list[int]:
    """The iterations of each round that has any; a remainder goes to the first ones."""
    counts = [(total + rounds - 1 - index) // rounds for index in range(rounds)]
    return [count for count in counts if count]


def size_text(size_bytes: int) -> str:
    """8 -> '8 B', 4096 -> '4 KiB'; a size that is no multiple stays in smaller units."""
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size_bytes and size_bytes % unit == 0:
            return f"{size_bytes // unit} {name}"
    return f"{size_bytes} B"


def time_text(time_s: float) -> str:
    """Three or four significant digits with a fitting unit."""
    for scale, unit in ((1.0, "s"), (1e-3, "ms")):
        if time_s >= scale:
            return f"{time_s / scale:.2f} {unit}"
    digits = 1 if time_s >= 10e-6 else 2
    return f"{time_s * 1e6:.{digits}f} us"
