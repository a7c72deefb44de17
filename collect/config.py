"""Configuration enters here and nowhere else: argument, else environment, else default.

A value that is malformed or out of range is an `InvalidArgument` that names where it came from and
what is allowed. What comes out is frozen.
"""

from __future__ import annotations

import difflib
import ipaddress
import math
import os
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from typing import Any, TypeVar

from collect.errors import InvalidArgument
from collect.types import COMMIT_BYTES_DEFAULT

CHUNK_BYTES_MAX = 1 << 20
CHUNK_BYTES_STEP = 64
WINDOW_BYTES_MAX = 1 << 30
WINDOW_CHUNKS_MIN = 4
COMMIT_BYTES_MAX = 1 << 31
BANDWIDTH_MAX = 10**15  # bytes/s
STREAMS_MAX = 16
STREAMS_AUTO = 0
STREAMS_AUTO_MAX = 8
PEERS_MAX = 1024
NAME_CHARACTERS_MAX = 64
TIMEOUT_S_MIN = 0.05
TIMEOUT_S_MAX = 3600.0
JOIN_TIMEOUT_S_MAX = 7 * 24 * 3600.0

_Choice = TypeVar("_Choice", bound=Enum)

_PREFIX = "COLLECT_"
_RATE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([kKmMgG]?)(bit|B)")
_RATE_SCALES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
_HOST_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?\.?")


class AdmitMode(Enum):
    """At which boundaries newcomers may enter."""

    AUTO = "auto"  # before every operation
    MANUAL = "manual"  # only at group.admit(state)


class Algorithm(Enum):
    """How the members of a view exchange their parts. The wish of the group's founders rules."""

    AUTO = "auto"
    DIRECT = "direct"
    RING = "ring"
    STAR = "star"
    EXCHANGE = "exchange"
    TREE = "tree"
    CIRCULANT = "circulant"
    RECURSIVE_DOUBLING = "recursive_doubling"
    HIERARCHICAL = "hierarchical"
    PAIRWISE = "pairwise"
    BRUCK = "bruck"


class Transport(Enum):
    """What carries data between members of one host. Between hosts it is always TCP. The wish of
    the group's founders rules.
    """

    AUTO = "auto"  # shared memory where all members can attach to it
    TCP = "tcp"


@dataclass(frozen=True, slots=True)
class Address:
    """A host (IPv4, IPv6 without brackets, or a name) and a TCP port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str, source: str = "address") -> Address:
    """Reads "1.2.3.4:5", "[::1]:5" or "host.name:5"; `source` is named in the error."""
    allowed = 'must be "host:port", "1.2.3.4:port" or "[ipv6]:port" with a port of 0 to 65535'
    host, colon, port_text = text.strip().rpartition(":")
    if not colon or not port_text.isascii() or not port_text.isdigit() or len(port_text) > 5:
        raise InvalidArgument(f"{source} {text!r} {allowed}")
    port = int(port_text)
    if port > 65535:
        raise InvalidArgument(f"{source} {text!r} {allowed}")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if not _is_ip(host, 6):
            raise InvalidArgument(f"{source} {text!r}: {host!r} is no IPv6 address; it {allowed}")
    elif ":" in host:
        raise InvalidArgument(f"{source} {text!r}: write IPv6 in brackets; it {allowed}")
    elif not is_host(host):
        raise InvalidArgument(f"{source} {text!r}: {host!r} is no host; it {allowed}")
    return Address(host, port)


def is_host(text: str) -> bool:
    """True for an IP address or a host name, without brackets or port."""
    if _is_ip(text, 4) or _is_ip(text, 6):
        return True
    if re.fullmatch(r"[0-9.]+", text):
        return False  # looks like IPv4 and is none
    return _HOST_NAME.fullmatch(text) is not None


def _is_ip(text: str, version: int) -> bool:
    try:
        return ipaddress.ip_address(text).version == version
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class Config:
    """What `join` was asked for. Times are in seconds, sizes in bytes.

    streams: of a link; STREAMS_AUTO: as many as bring more.
    bandwidth: what this peer's link to the network carries, bytes/s each way; 0: not told.
    """

    address: Address | None
    group: str
    name: str
    min_peers: int
    timeout: float
    join_timeout: float
    admit: AdmitMode
    interface: str | None
    advertise: tuple[str, ...]
    port: int
    streams: int
    chunk_bytes: int
    window_bytes: int
    algorithm: Algorithm
    commit_bytes: int
    transport: Transport
    bandwidth: int

    @property
    def silence_s(self) -> float:
        """A link that has been silent for so long is lost. The core beats five times as often."""
        return self.timeout

    @property
    def connect_s(self) -> float:
        """A link that could not be opened for so long is lost."""
        return self.timeout

    @property
    def ping_s(self) -> float:
        """How often the coordinator hears from this peer."""
        return self.timeout / 4

    @property
    def tick_s(self) -> float:
        """How often the machines look at the clock."""
        return min(max(self.timeout / 50, 0.005), 0.25)

    @property
    def operation_s(self) -> float:
        """An operation without a timeout of its own may take so long."""
        return self.timeout * 60


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("must be text")
    return value


def _label(value: Any) -> str:
    text = _text(value)
    if not 1 <= len(text) <= NAME_CHARACTERS_MAX or not text.isprintable() or text != text.strip():
        raise ValueError(f"must be 1 to {NAME_CHARACTERS_MAX} printable characters")
    return text


def _whole(least: int, most: int, step: int = 1) -> Callable[[Any], int]:
    allowed = f"must be a whole number from {least} to {most}"
    if step > 1:
        allowed += f", a multiple of {step}"

    def read(value: Any) -> int:
        try:
            number = int(value, 10) if isinstance(value, str) else int(value)
        except (TypeError, ValueError, OverflowError):
            raise ValueError(allowed) from None
        is_same = isinstance(value, str) or number == value
        if isinstance(value, bool) or not is_same or not least <= number <= most or number % step:
            raise ValueError(allowed)
        return number

    return read


def _streams(value: Any) -> int:
    if isinstance(value, str) and value.lower() == "auto":
        return STREAMS_AUTO
    try:
        return _whole(1, STREAMS_MAX)(value)
    except ValueError as error:
        raise ValueError(f"{error}, or 'auto'") from None


def _seconds(least: float, most: float) -> Callable[[Any], float]:
    allowed = f"must be a number of seconds from {least:g} to {most:g}"

    def read(value: Any) -> float:
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise ValueError(allowed) from None
        if isinstance(value, bool) or not math.isfinite(number) or not least <= number <= most:
            raise ValueError(allowed)
        return number

    return read


def _one_of(kind: type[_Choice]) -> Callable[[Any], _Choice]:
    allowed = "must be one of " + ", ".join(repr(choice.value) for choice in kind)

    def read(value: Any) -> _Choice:
        try:
            return kind(value.lower() if isinstance(value, str) else value)
        except ValueError:
            raise ValueError(allowed) from None

    return read


def _hosts(value: Any) -> tuple[str, ...]:
    """One address or several, as a list or separated by commas."""
    items = value.split(",") if isinstance(value, str) else list(value)
    hosts = tuple(_text(item).strip().removeprefix("[").removesuffix("]") for item in items)
    bad = [host for host in hosts if not is_host(host)]
    if bad:
        raise ValueError(f"must be host names or IP addresses without a port, not {bad[0]!r}")
    return hosts


def _bandwidth(value: Any) -> int:
    found = _RATE.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is not None:
        scale = _RATE_SCALES[found[2].lower()] * (1 if found[3] == "B" else Fraction(1, 8))
        value = int(Fraction(found[1]) * scale)
    is_number = isinstance(value, int) and not isinstance(value, bool)
    if not is_number or not 1 <= value <= BANDWIDTH_MAX:
        raise ValueError('must be a rate per second such as "100Mbit", "1.5Gbit" or "12MB"')
    return int(value)


# What join takes: how each value is read. The environment's name is COLLECT_ and the upper case.
_READERS: dict[str, Callable[[Any], Any]] = {
    "address": _text,
    "group": _label,
    "name": _label,
    "min_peers": _whole(1, PEERS_MAX),
    "timeout": _seconds(TIMEOUT_S_MIN, TIMEOUT_S_MAX),
    "join_timeout": _seconds(TIMEOUT_S_MIN, JOIN_TIMEOUT_S_MAX),
    "admit": _one_of(AdmitMode),
    "interface": _label,
    "advertise": _hosts,
    "port": _whole(0, 65535),
    "streams": _streams,
    "chunk_bytes": _whole(CHUNK_BYTES_STEP, CHUNK_BYTES_MAX, CHUNK_BYTES_STEP),
    "window_bytes": _whole(CHUNK_BYTES_STEP, WINDOW_BYTES_MAX),
    "algorithm": _one_of(Algorithm),
    "commit_bytes": _whole(0, COMMIT_BYTES_MAX),
    "transport": _one_of(Transport),
    "bandwidth": _bandwidth,
}

_DEFAULTS: dict[str, Any] = {
    "address": None,
    "group": "default",
    "name": None,
    "min_peers": 1,
    "timeout": 5.0,
    "join_timeout": 60.0,
    "admit": AdmitMode.AUTO,
    "interface": None,
    "advertise": (),
    "port": 0,
    "streams": STREAMS_AUTO,
    "chunk_bytes": 256 * 1024,
    "window_bytes": 8 * 1024 * 1024,
    "algorithm": Algorithm.AUTO,
    "commit_bytes": COMMIT_BYTES_DEFAULT,
    "transport": Transport.AUTO,
    "bandwidth": 0,
}


def load(arguments: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> Config:
    """The configuration of one `join`.

    Args:
        arguments: values by name; None stands for "not given".
        environment: what to look in next; None takes the process's own.
    """
    environment = os.environ if environment is None else environment
    unknown = sorted(set(arguments) - set(_READERS))
    if unknown:
        raise InvalidArgument(f"unknown setting {unknown[0]!r}; known: {', '.join(_READERS)}")
    _refuse_misspelt(environment)

    values = {name: _value(name, arguments.get(name), environment) for name in _READERS}
    if values["address"] is not None:
        source = "address" if arguments.get("address") is not None else _PREFIX + "ADDRESS"
        values["address"] = parse_address(values["address"], source)
        if values["address"].port == 0:
            raise InvalidArgument(f"{source} {values['address']}: the port to join must not be 0")
    if values["name"] is None:
        values["name"] = f"{socket.gethostname()}-{os.getpid()}"[:NAME_CHARACTERS_MAX]
    if values["window_bytes"] < WINDOW_CHUNKS_MIN * values["chunk_bytes"]:
        raise InvalidArgument(
            f"window_bytes {values['window_bytes']} must be at least {WINDOW_CHUNKS_MIN} times "
            f"chunk_bytes ({values['chunk_bytes']})"
        )
    return Config(**values)


def _value(name: str, argument: Any, environment: Mapping[str, str]) -> Any:
    variable = _PREFIX + name.upper()
    if argument is not None:
        source, value = name, argument
    elif environment.get(variable, "") != "":
        source, value = variable, environment[variable]
    else:
        return _DEFAULTS[name]
    try:
        return _READERS[name](value)
    except ValueError as error:
        raise InvalidArgument(f"{source} is {value!r}; it {error}") from None


def _refuse_misspelt(environment: Mapping[str, str]) -> None:
    """A variable that is nearly one of ours would be ignored in silence."""
    known = [_PREFIX + name.upper() for name in _READERS]
    for variable in environment:
        if not variable.startswith(_PREFIX) or variable in known:
            continue
        close = difflib.get_close_matches(variable, known, n=1, cutoff=0.85)
        if close:
            raise InvalidArgument(
                f"{variable} is set, but it is no setting; do you mean {close[0]}?"
            )
