"""What one run measures, and in what order. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np

from collect.cli.bench.cases import COLLECTIVES, Case, Variant, element_count
from collect.cli.bench.installed import AUTO, CALL, PRIVATE, SHM, TCP
from collect.cli.bench.peers import GLOO, Peer

LOGICAL_OPS = ("and", "or", "xor")
OPS = ("sum", "avg", "min", "max", "prod", *LOGICAL_OPS)
DTYPES = (
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "complex64", "complex128"),
)


@dataclass(frozen=True, slots=True)
class Suite:
    """Everything that was asked for. `group_algorithm`: where calls have no choice of their own."""

    collectives: tuple[str, ...]
    sizes_bytes: tuple[int, ...]
    worlds: tuple[int, ...]
    transports: tuple[str, ...]
    peers: tuple[Peer, ...] = ()
    dtypes: tuple[str, ...] = ("float32",)
    ops: tuple[str, ...] = ("sum",)
    placements: tuple[str, ...] = ("in-place",)
    algorithms: tuple[str, ...] = (AUTO,)
    modes: tuple[str, ...] = (CALL,)
    arrays: tuple[str, ...] = (PRIVATE,)
    group_algorithm: str = ""
    streams: int = 1
    rounds: int = 5
    iterations: int | None = None  # None: as many as fit into the budget
    budget_s: float = 1.0  # for one case in one variant
    is_checked: bool = True

    def cases(self, world: int) -> Iterator[Case]:
        """In the order of the tables: sizes last."""
        for collective in self.collectives:
            kind = COLLECTIVES[collective]
            ops = self.ops if kind.is_reducing else ("",)
            placements = [each for each in self.placements if each in kind.placements]
            sizes = self.sizes_bytes if kind.is_sized else (1,)
            dtypes = self.dtypes if kind.is_sized else self.dtypes[:1]
            for dtype, op, placement in product(dtypes, ops, placements or kind.placements):
                if op in LOGICAL_OPS and np.dtype(dtype).kind not in "iu":
                    continue
                itemsize = np.dtype(dtype).itemsize
                counts = (element_count(collective, size, itemsize, world) for size in sizes)
                for count in dict.fromkeys(counts):
                    yield Case(collective, count, itemsize, dtype, op, placement)

    def variants(self, case: Case) -> list[Variant]:
        """How this library is asked to do it."""
        is_sized = COLLECTIVES[case.collective].is_sized
        arrays = self.arrays if is_sized else self.arrays[:1]
        return [Variant(*each) for each in product(self.algorithms, self.modes, arrays)]


def peer_transports(transport: str) -> str:
    """With which transport of a peer one of ours is compared: all processes share this host."""
    return TCP if transport == TCP else SHM


def is_comparable(transport: str, peer: Peer) -> bool:
    """Like with like; gloo has TCP only, and is shown beside everything."""
    return peer.name == GLOO or peer.transport == peer_transports(transport)
