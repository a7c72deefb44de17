"""What a peer asks before it joins: where may the group's members be, and how patient is it?

The answer decides what address the peer's data listener binds, which has to be known before JOIN
can advertise it. Answered by the coordinator's service itself, not by its machine: it changes
nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from collect.types import Scope

ASK = b"COLLECT/1 ASK"

_MARK = b"COLLECT/1 "
_ANSWER = _MARK + b"HERE "
_TIMEOUT_S_MAX = 86_400.0


@dataclass(frozen=True, slots=True)
class Greeting:
    """The coordinator's answer."""

    scope: Scope
    timeout_s: float


def is_greeting(payload: bytes) -> bool:
    """True for a question or an answer: no message of the machines begins like that."""
    return payload.startswith(_MARK)


def encode(greeting: Greeting) -> bytes:
    return _ANSWER + f"{greeting.scope.name} {greeting.timeout_s!r}".encode()


def decode(payload: bytes) -> Greeting | None:
    """The answer that the bytes hold, or None."""
    if not payload.startswith(_ANSWER) or len(payload) > 100:
        return None
    try:
        scope_name, timeout_text = payload[len(_ANSWER) :].decode("ascii").split()
        scope, timeout_s = Scope[scope_name], float(timeout_text)
    except (ValueError, KeyError):
        return None
    return Greeting(scope, timeout_s) if 0.0 < timeout_s <= _TIMEOUT_S_MAX else None
