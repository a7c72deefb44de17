"""The libraries that can be measured, each behind the same two calls. Run in worker processes."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy.typing as npt

import collect

LIBRARIES = ("collect", "gloo")


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """How a worker joins its world."""

    library: str
    meeting: str  # a coordinator's address, or, for gloo, a file that does not exist yet
    rank: int
    world: int
    streams: int
    algorithm: str


class Library(Protocol):
    """A joined world."""

    def prepare(self, array: npt.NDArray[Any]) -> Callable[[], object]:
        """A call that all-reduces `array` in place."""

    def close(self) -> None: ...


def is_importable(library: str) -> bool:
    """Whether workers will be able to measure it; imports nothing."""
    return library != "gloo" or importlib.util.find_spec("torch") is not None


def open_library(options: WorkerOptions) -> Library:
    return Gloo(options) if options.library == "gloo" else Collect(options)


class Collect:
    """This library."""

    def __init__(self, options: WorkerOptions) -> None:
        self._group = collect.join(
            options.meeting,
            group="bench",
            name=f"rank-{options.rank}",
            min_peers=options.world,
            streams=options.streams,
            algorithm=options.algorithm,
        )

    def prepare(self, array: npt.NDArray[Any]) -> Callable[[], object]:
        return lambda: self._group.all_reduce(array)

    def close(self) -> None:
        self._group.leave()


class Gloo:
    """torch.distributed with the gloo back end, on the loopback interface."""

    def __init__(self, options: WorkerOptions) -> None:
        import torch  # noqa: PLC0415 - an optional extra
        import torch.distributed  # noqa: PLC0415

        self._torch = torch
        self._distributed = torch.distributed
        self._distributed.init_process_group(
            "gloo",
            init_method=f"file://{options.meeting}",
            rank=options.rank,
            world_size=options.world,
        )

    def prepare(self, array: npt.NDArray[Any]) -> Callable[[], object]:
        tensor = self._torch.from_numpy(array)
        return lambda: self._distributed.all_reduce(tensor)

    def close(self) -> None:
        self._distributed.destroy_process_group()
