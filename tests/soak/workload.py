"""What everybody reduces: a function of the seed, the step and a peer's name.

Peers compute their contributions with it, and the oracle everybody's.
"""

import random
import zlib
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

Array = NDArray[Any]


@dataclass(frozen=True)
class Case:
    """One all-reduce, alike on every member."""

    count: int
    dtype: str
    op: str


def op_count(seed: int, step: int) -> int:
    """How many operations a step has."""
    return random.Random(f"{seed} {step}").randint(2, 4)


def case(seed: int, step: int, index: int) -> Case:
    rng = random.Random(f"{seed} {step} {index}")
    dtype = rng.choice(DTYPES)
    most = ELEMENTS_MAX if dtype in ("int32", "float32") else ELEMENTS_MAX // 2
    sizes = [0, 1, rng.randint(2, 1000), rng.randint(1000, 100_000), rng.randint(200_000, most)]
    (count,) = rng.choices(sizes, [10, 10, 40, 25, 15])
    return Case(count, dtype, rng.choice(OPS))


@cache
def pool(dtype: str) -> Array:
    """Numbers that contributions are slices of: floats of many magnitudes, so that order shows."""
    rng = np.random.default_rng(zlib.crc32(dtype.encode()))
    count = ELEMENTS_MAX + OFFSETS
    if dtype.startswith("int"):
        limit = 1 << (27 if dtype == "int32" else 59)  # the sum of all peers' does not overflow
        return rng.integers(-limit, limit, count).astype(dtype)
    exponents = rng.integers(-12, 12, count)
    return np.ldexp(rng.standard_normal(count), exponents).astype(dtype)


def contribution(name: str, step: int, index: int, what: Case) -> Array:
    """A view of the pool: copy it before it is reduced in place."""
    offset = zlib.crc32(f"{name} {step} {index}".encode()) % OFFSETS
    return pool(what.dtype)[offset : offset + what.count]


def expected(names: list[str], step: int, index: int, what: Case) -> Array:
    """The participants' contributions, reduced from left to right in rank order."""
    parts = [contribution(name, step, index, what) for name in names]
    combine = {"min": np.minimum, "max": np.maximum}.get(what.op, np.add)
    total = np.asarray(reduce(combine, parts[1:], parts[0]))
    if what.op != "avg":
        return total
    if what.dtype.startswith("int"):
        return (np.sign(total) * (np.abs(total) // len(names))).astype(what.dtype)
    return (total / np.dtype(what.dtype).type(len(names))).astype(what.dtype)


def digest(array: Array) -> str:
    return xxhash.xxh3_64_hexdigest(np.ascontiguousarray(array).tobytes())


def chained(chain: int, result: str, names: list[str]) -> int:
    """The running hash that every member keeps of all results since the beginning."""
    return xxhash.xxh3_64_intdigest(f"{chain} {result} {','.join(names)}".encode())


class State:
    """A member's state: what `admit` brings to newcomers. Every array follows from all results."""

    def __init__(self) -> None:
        self.step = np.zeros(1, np.int64)
        self.chain = np.zeros(1, np.uint64)
        self.ballast = np.zeros(BALLAST_COUNT, np.uint64)

    def arrays(self) -> dict[str, Array]:
        return {"step": self.step, "chain": self.chain, "ballast": self.ballast}

    def take(self, result: str, names: list[str]) -> None:
        self.chain[0] = chained(int(self.chain[0]), result, names)
        self.ballast ^= self.chain[0]
        self.ballast[0] += self.chain[0]
