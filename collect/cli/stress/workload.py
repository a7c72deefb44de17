"""What everybody calls: a function of the seed, the step and a peer's name.

Peers make their contributions with it, and the oracle everybody's.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, reduce
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

ELEMENTS_MAX = 1 << 20
OFFSETS = 1 << 16
BALLAST_COUNT = 50_000
DTYPES = ("int32", "int64", "float32", "float64")
OPS = ("sum", "avg", "min", "max")
ALL_REDUCE, ALL_GATHER, BROADCAST = "all_reduce", "all_gather", "broadcast"
GATHERED_PART = 4  # a block is so many times smaller than what is reduced
# Those that add in rank order, so that the oracle can compute the bits of floats; and the others,
# for what is exact in any order: integers, minima, and floats that are small whole numbers.
RANK_ORDER = ("direct", "star")
ANY_ORDER = ("auto", "ring", "tree", "circulant", "exchange")
WHOLE_MAX = 1 << 16

Array = NDArray[Any]


@dataclass(frozen=True)
class Case:
    """One operation, alike on every member. `count`: elements that each contributes."""

    collective: str
    count: int
    dtype: str
    op: str = ""  # of an all-reduce
    algorithm: str = "auto"
    root: int = 0  # of a broadcast: this one in rank order, counted round

    @property
    def is_whole(self) -> bool:
        """Contributions are whole numbers, so that the sum does not depend on its order."""
        is_float_sum = self.dtype.startswith("float") and self.op in ("sum", "avg")
        return is_float_sum and self.algorithm not in RANK_ORDER

    @property
    def bytes(self) -> int:
        return self.count * np.dtype(self.dtype).itemsize


def op_count(seed: int, step: int) -> int:
    """How many operations a step has."""
    return random.Random(f"{seed} {step}").randint(2, 4)


def case(seed: int, step: int, index: int) -> Case:
    """Of all sizes and types; half of the algorithms are left to the library."""
    rng = random.Random(f"{seed} {step} {index}")
    dtype = rng.choice(DTYPES)
    most = ELEMENTS_MAX if dtype in ("int32", "float32") else ELEMENTS_MAX // 2
    sizes = [0, 1, rng.randint(2, 1000), rng.randint(1000, 100_000), rng.randint(200_000, most)]
    (count,) = rng.choices(sizes, [10, 10, 40, 25, 15])
    (collective,) = rng.choices([ALL_REDUCE, ALL_GATHER, BROADCAST], [7, 2, 1])
    if collective == ALL_GATHER:
        return Case(collective, count // GATHERED_PART, dtype)
    if collective == BROADCAST:
        return Case(collective, count, dtype, root=rng.randrange(1000))
    op = rng.choice(OPS)
    algorithm = "auto" if rng.random() < 0.5 else rng.choice(RANK_ORDER + ANY_ORDER)
    return Case(collective, count, dtype, op, algorithm)


@cache
def pool(dtype: str, is_whole: bool = False) -> Array:
    """Numbers that contributions are slices of: floats of many magnitudes, so that order shows, or
    whole numbers."""
    rng = np.random.default_rng(zlib.crc32(dtype.encode()))
    count = ELEMENTS_MAX + OFFSETS
    if dtype.startswith("int"):
        limit = 1 << (27 if dtype == "int32" else 59)  # the sum of all peers' does not overflow
        return rng.integers(-limit, limit, count).astype(dtype)
    if is_whole:
        return rng.integers(-WHOLE_MAX, WHOLE_MAX, count).astype(dtype)
    exponents = rng.integers(-12, 12, count)
    return np.ldexp(rng.standard_normal(count), exponents).astype(dtype)


def contribution(name: str, step: int, index: int, what: Case) -> Array:
    """A view of the pool: copy it before it is reduced in place."""
    offset = zlib.crc32(f"{name} {step} {index}".encode()) % OFFSETS
    return pool(what.dtype, what.is_whole)[offset : offset + what.count]


def expected(names: Sequence[str], step: int, index: int, what: Case, root: str = "") -> Array:
    """The result of an operation in which `names` took part, in rank order."""
    if what.collective == BROADCAST:
        return contribution(root, step, index, what)
    parts = [contribution(name, step, index, what) for name in names]
    if what.collective == ALL_GATHER:
        return np.concatenate(parts)
    combine = {"min": np.minimum, "max": np.maximum}.get(what.op, np.add)
    total: Array = np.asarray(reduce(combine, parts[1:], parts[0]))
    if what.op != "avg":
        return total
    if what.dtype.startswith("int"):
        average: Array = (np.sign(total) * (np.abs(total) // len(names))).astype(what.dtype)
    else:
        average = (total / np.dtype(what.dtype).type(len(names))).astype(what.dtype)
    return average


def digest(array: Array) -> str:
    return str(xxhash.xxh3_64_hexdigest(np.ascontiguousarray(array).tobytes()))


def chained(chain: int, result: str, names: Sequence[str]) -> int:
    """The running hash that every member keeps of all results since the beginning."""
    return int(xxhash.xxh3_64_intdigest(f"{chain} {result} {','.join(names)}".encode()))


class State:
    """A member's state: what `admit` brings to newcomers. Every array follows from all results."""

    def __init__(self) -> None:
        self.step = np.zeros(1, np.int64)
        self.chain = np.zeros(1, np.uint64)
        self.ballast = np.zeros(BALLAST_COUNT, np.uint64)

    def arrays(self) -> dict[str, Array]:
        return {"step": self.step, "chain": self.chain, "ballast": self.ballast}

    def take(self, result: str, names: Sequence[str]) -> None:
        self.chain[0] = chained(int(self.chain[0]), result, names)
        self.ballast ^= self.chain[0]
        self.ballast[0] += self.chain[0]
