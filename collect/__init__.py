"""Fault-tolerant collective communication: peers join, crash and stall while training goes on.

Importing this package loads neither the C core, zmq nor uvloop, starts nothing and reads no
environment; the names below are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collect.api import (
        Admission,
        Batch,
        Definition,
        Delivery,
        Group,
        PeerInfo,
        Persistent,
        Plan,
        Result,
        SubGroup,
        Transfer,
        Work,
        empty,
        join,
        plan,
        zeros,
    )
    from collect.errors import (
        Aborted,
        Closed,
        CollectError,
        CoordinatorUnreachable,
        Fenced,
        InvalidArgument,
        JoinFailed,
        JoinRefused,
        MembersChanged,
        MembershipLost,
        Mismatch,
        OperationFailed,
        PeerLost,
        RangesRevoked,
        StateMismatch,
        Timeout,
    )
    from collect.net.coordinator import CoordinatorService
    from collect.session.events import MembershipEvent, MembershipEventKind

__version__ = "0.1.0"

_HOMES = {
    "collect.api": (
        "Admission",
        "Batch",
        "Definition",
        "Delivery",
        "Group",
        "PeerInfo",
        "Persistent",
        "Plan",
        "Result",
        "SubGroup",
        "Transfer",
        "Work",
        "empty",
        "join",
        "plan",
        "zeros",
    ),
    "collect.errors": (
        "Aborted",
        "Closed",
        "CollectError",
        "CoordinatorUnreachable",
        "Fenced",
        "InvalidArgument",
        "JoinFailed",
        "JoinRefused",
        "MembersChanged",
        "MembershipLost",
        "Mismatch",
        "OperationFailed",
        "PeerLost",
        "RangesRevoked",
        "StateMismatch",
        "Timeout",
    ),
    "collect.net.coordinator": ("CoordinatorService",),
    "collect.session.events": ("MembershipEvent", "MembershipEventKind"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [  # noqa: RUF022  by what they are, not by their letters
    "join",
    "Group",
    "Work",
    "Result",
    "Batch",
    "Persistent",
    "SubGroup",
    "Transfer",
    "Delivery",
    "empty",
    "zeros",
    "plan",
    "Plan",
    "Definition",
    "Admission",
    "PeerInfo",
    "MembershipEvent",
    "MembershipEventKind",
    "CoordinatorService",
    "CollectError",
    "InvalidArgument",
    "JoinFailed",
    "JoinRefused",
    "CoordinatorUnreachable",
    "OperationFailed",
    "Timeout",
    "Mismatch",
    "Aborted",
    "MembersChanged",
    "PeerLost",
    "StateMismatch",
    "RangesRevoked",
    "MembershipLost",
    "Fenced",
    "Closed",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
