"""What is measured: a collective of one size, type and placement, in a world. Pure.

Sizes and bandwidths are those of nccl-tests. The *size* S of a collective is that of its larger
buffer: what a rank has to reduce, broadcast or send; what it has after an all-gather; what the root
has of a gather or a scatter. An operation that takes t has the *algorithm bandwidth* S/t, and the
*bus bandwidth* f(p) S/t, where f(p) S is what a member's link must carry at least:

    all-reduce 2(p-1)/p;  reduce-scatter, all-gather, all-to-all, gather, scatter (p-1)/p;  others 1
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

IN_PLACE, OUT_OF_PLACE = "in-place", "out-of-place"
BOTH = (IN_PLACE, OUT_OF_PLACE)


@dataclass(frozen=True, slots=True)
class Collective:
    """How one collective is measured.

    Attributes:
        method: its name in Python.
        is_reducing: contributions are combined, so it has a reduction's op.
        has_blocks: the larger buffer holds one block for each rank.
        is_synchronising: nobody is done before everybody has begun, so calls may follow each other
            at once; others are measured with a barrier before each.
        placements: where its result may lie.
    """

    method: str
    is_reducing: bool = False
    has_blocks: bool = False
    is_synchronising: bool = False
    placements: tuple[str, ...] = BOTH
    is_sized: bool = True


COLLECTIVES: Mapping[str, Collective] = MappingProxyType(
    {
        "all-reduce": Collective("all_reduce", is_reducing=True, is_synchronising=True),
        "reduce-scatter": Collective(
            "reduce_scatter", is_reducing=True, has_blocks=True, is_synchronising=True
        ),
        "all-gather": Collective("all_gather", has_blocks=True, is_synchronising=True),
        "all-to-all": Collective("all_to_all", has_blocks=True, is_synchronising=True),
        "broadcast": Collective("broadcast", placements=(IN_PLACE,)),
        "reduce": Collective("reduce", is_reducing=True),
        "gather": Collective("gather", has_blocks=True),
        "scatter": Collective("scatter", has_blocks=True),
        "barrier": Collective(
            "barrier", is_synchronising=True, placements=(IN_PLACE,), is_sized=False
        ),
        "send-recv": Collective("send", is_synchronising=True, placements=(OUT_OF_PLACE,)),
    }
)
ROOT = 0  # of those that have one


@dataclass(frozen=True, slots=True)
class Case:
    """What every library is asked to do. `count` elements lie in the larger buffer."""

    collective: str
    count: int
    itemsize: int
    dtype: str
    op: str  # "" where nothing is reduced
    placement: str

    @property
    def size_bytes(self) -> int:
        return self.count * self.itemsize


@dataclass(frozen=True, slots=True)
class Variant:
    """How a library is asked to do it. A library that has no such choice has the defaults."""

    algorithm: str = ""
    mode: str = "call"  # or "persistent": checked and laid out once, then started each time
    arrays: str = "private"  # or "shared": memory that other processes of this host may read


def element_count(collective: str, size_bytes: int, itemsize: int, world: int) -> int:
    """Elements of the larger buffer: the size, rounded up to a whole number of equal blocks."""
    kind = COLLECTIVES[collective]
    if not kind.is_sized:
        return 0
    step = itemsize * (world if kind.has_blocks else 1)
    return -(-size_bytes // step) * step // itemsize


def bus_factor(collective: str, world: int) -> float:
    """What a member's link must carry at least, as a multiple of the size."""
    if collective == "all-reduce":
        return 2 * (world - 1) / world
    return (world - 1) / world if COLLECTIVES[collective].has_blocks else 1.0
