"""The arrays of a measured collective: their shapes, what is put in, what must come out. Pure.

Contributions are small whole numbers, so that sums and products are exact in every type; what must
come out is computed here, with NumPy, from everybody's contributions.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from collect.cli.bench.cases import COLLECTIVES, IN_PLACE, ROOT, Case

VALUES = 5  # 0…4
Array = npt.NDArray[Any]
UFUNCS: dict[str, np.ufunc] = {
    "sum": np.add,
    "avg": np.add,  # and divided
    "prod": np.multiply,
    "min": np.minimum,
    "max": np.maximum,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
}


class Operands:
    """The arrays of one rank.

    Attributes:
        source: what this rank puts in; None where it puts in nothing.
        target: where its result comes; None where it gets none. In place: `source` itself, or a
            part of it, or what it is a part of.
    """

    def __init__(
        self, case: Case, rank: int, world: int, make: Callable[[int, np.dtype[Any]], Array]
    ) -> None:
        self.case = case
        self._rank = rank
        self._world = world
        self.dtype = np.dtype(case.dtype)
        self.source: Array | None = None
        self.target: Array | None = None
        self._lay_out(lambda count: make(count, self.dtype))

    def _lay_out(self, make: Callable[[int], Array]) -> None:
        case, collective = self.case, self.case.collective
        is_root, is_in_place = self._rank == ROOT, case.placement == IN_PLACE
        block = case.count // self._world
        own = slice(self._rank * block, (self._rank + 1) * block)
        if collective == "barrier":
            return
        if collective in ("all-reduce", "broadcast", "reduce", "all-to-all", "send-recv"):
            self.source = make(case.count)
            if collective == "broadcast" or is_in_place:
                self.target = self.source
            else:
                self.target = make(case.count)
            if collective == "reduce" and not is_root:
                self.target = None
        elif collective in ("all-gather", "gather"):
            if collective == "all-gather" or is_root:
                self.target = make(case.count)
            has_room = is_in_place and self.target is not None
            self.source = self.target[own] if has_room and self.target is not None else make(block)
        else:
            if collective == "reduce-scatter" or is_root:
                self.source = make(case.count)
            has_room = is_in_place and self.source is not None
            self.target = self.source[own] if has_room and self.source is not None else make(block)

    def fill(self) -> None:
        """This rank's contribution, and something else where the result comes."""
        if self.target is not None:
            self.target[...] = 1
        if self.source is not None:
            self.source[...] = self.contribution(self._rank)

    def clear(self) -> None:
        """Zeros, which every collective keeps, so that it can be done in place any number of times.

        Every page is written: memory that never was is all one page, and reads too fast.
        """
        for array in (self.target, self.source):
            if array is not None:
                array[...] = 0

    def wrong(self) -> int:
        """How many elements of the result are not as they must be. After `fill` and the call."""
        if self.target is None:
            return 0
        return int(np.count_nonzero(self.target != self.expected()))

    def contribution(self, rank: int) -> Array:
        """What `rank` puts in."""
        case, collective = self.case, self.case.collective
        block = case.count // self._world
        if collective in ("all-gather", "gather"):
            return self._pattern(rank, block)
        return self._pattern(rank, case.count)

    def expected(self) -> Array:
        """What this rank's target holds afterwards."""
        collective, block = self.case.collective, self.case.count // self._world
        own = slice(self._rank * block, (self._rank + 1) * block)
        if collective in ("all-reduce", "reduce"):
            return self._reduced()
        if collective == "reduce-scatter":
            return self._reduced()[own]
        if collective == "send-recv":
            return self.contribution((self._rank - 1) % self._world)
        if collective == "broadcast":
            return self.contribution(ROOT)
        if collective == "scatter":
            return self.contribution(ROOT)[own]
        parts = [self.contribution(rank) for rank in range(self._world)]
        if collective == "all-to-all":
            parts = [part[own] for part in parts]
        return np.concatenate(parts)

    def _reduced(self) -> Array:
        parts = (self.contribution(rank) for rank in range(self._world))
        total: Array = reduce(UFUNCS[self.case.op], parts)
        return (total / self._world).astype(self.dtype) if self.case.op == "avg" else total

    def _pattern(self, rank: int, count: int) -> Array:
        """0…4 by chance that only `rank` decides; for a product, 1 but for one rank.

        By chance, because regular patterns are alike at other places too, and would hide that
        blocks lie at wrong ones.
        """
        values: Array = np.random.default_rng(rank).integers(0, VALUES, count, np.int8)
        if self.case.op == "prod":
            values = np.where(np.arange(count) % self._world == rank, values, np.int8(1))
        if self.case.op == "avg":
            values = values.astype(np.int16) * self._world  # so that the division leaves no rest
        return values.astype(self.dtype)


def is_fixed_point(case: Case) -> bool:
    """Whether the result is the same however often the call is repeated."""
    return case.placement != IN_PLACE or not (
        COLLECTIVES[case.collective].is_reducing or case.collective == "all-to-all"
    )
