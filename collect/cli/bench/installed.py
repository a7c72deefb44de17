"""What the installed `collect` can do, asked of the package itself, so that it is told in time."""

from __future__ import annotations

import inspect

import collect
from collect.cli.bench.cases import COLLECTIVES
from collect.config import Algorithm

CALL, PERSISTENT = "call", "persistent"
PRIVATE, SHARED = "private", "shared"
AUTO, TCP, SHM = "auto", "tcp", "shm"
TRANSPORTS = (AUTO, TCP, SHM)


def collectives() -> list[str]:
    """Those that a group has."""
    return [name for name, kind in COLLECTIVES.items() if hasattr(collect.Group, kind.method)]


def transports() -> list[str]:
    """What a group can be asked for; without a choice, TCP is all there is."""
    has_choice = "transport" in inspect.signature(collect.join).parameters
    return list(TRANSPORTS) if has_choice else [TCP]


def algorithms() -> list[str]:
    """The names of the algorithms."""
    return list(dict.fromkeys([AUTO, *(each.value for each in Algorithm)]))


def takes_algorithm(collective: str) -> bool:
    """Whether a call of this collective may name an algorithm."""
    method = getattr(collect.Group, COLLECTIVES[collective].method)
    return "algorithm" in inspect.signature(method).parameters


def modes(collective: str) -> list[str]:
    """How this collective may be called."""
    has_init = hasattr(collect.Group, f"{COLLECTIVES[collective].method}_init")
    return [CALL, PERSISTENT] if has_init else [CALL]


def arrays() -> list[str]:
    """Where arrays may lie."""
    return [PRIVATE, SHARED] if hasattr(collect, "empty") else [PRIVATE]
