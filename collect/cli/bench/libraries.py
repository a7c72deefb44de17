"""The libraries that can be measured, each behind the same few calls. Run in worker processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from collect.cli.bench.cases import Variant
from collect.cli.bench.operands import Array, Operands

Call = Callable[[], object]


class Unavailable(Exception):
    """This library cannot do what was asked; the text says what."""


@dataclass(frozen=True, slots=True)
class Membership:
    """How a worker finds its world. A library that is launched with ranks knows better."""

    library: str
    transport: str
    meeting: str  # a coordinator's address, or a file that does not exist yet
    rank: int
    world: int
    streams: int
    algorithm: str  # of the whole group, where calls have no choice


class Library(Protocol):
    """A joined world."""

    rank: int
    version: str

    def make(self, count: int, dtype: np.dtype[Any], arrays: str) -> Array:
        """An array for operands, of any contents."""

    def prepare(self, operands: Operands, variant: Variant) -> Call:
        """The call to be measured. Raises Unavailable."""

    def barrier(self) -> None: ...

    def release(self) -> None:
        """Gives up what `prepare` made."""

    def close(self) -> None: ...


def private_array(count: int, dtype: np.dtype[Any]) -> Array:
    """Memory of this process, page by page its own."""
    array = np.empty(count, dtype)
    array.fill(0)
    return array


def open_library(membership: Membership) -> Library:
    """Joins the world; returns when everybody has."""
    if membership.library == "collect":
        from collect.cli.bench.ours import Collect  # noqa: PLC0415 - the others need none of it

        return Collect(membership)
    if membership.library == "gloo":
        from collect.cli.bench.gloo import Gloo  # noqa: PLC0415 - an optional extra

        return Gloo(membership)
    from collect.cli.bench.mpi import Mpi  # noqa: PLC0415 - an optional extra

    return Mpi(membership)
