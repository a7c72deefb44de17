"""What is to happen: which faults, when, for how long; from the command line and from a file."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from collect.cli.stress.faults import FAULTS
from collect.cli.usage import UsageError
from collect.config import TIMEOUT_S_MAX, TIMEOUT_S_MIN

PEERS_MIN, PEERS_MAX = 3, 64
SIZES = 3  # the members' number varies between so many
RATE_MAX = 600.0
WEIGHT_MAX = 1e6
MINUTES_MAX = 7 * 24 * 60.0
TRANSPORTS = ("auto", "tcp")
KEYS = ("peers", "minutes", "faults-per-minute", "timeout", "transport", "weights", "at")


@dataclass(frozen=True)
class Moment:
    """A fault that the scenario names, so many seconds after everybody has joined."""

    second: float
    fault: str


@dataclass(frozen=True)
class Scenario:
    """weights: by fault; with `moments`, those happen, and nothing else."""

    peers: int = 5
    minutes: float = 1.0
    faults_per_minute: float = 60.0
    timeout_s: float = 1.0
    transport: str = "auto"
    weights: Mapping[str, float] = None  # type: ignore[assignment]
    moments: tuple[Moment, ...] = ()

    def __post_init__(self) -> None:
        if self.weights is None:
            default = {name: fault.weight for name, fault in FAULTS.items()}
            object.__setattr__(self, "weights", default)

    @property
    def size_min(self) -> int:
        return max(PEERS_MIN, self.peers - SIZES + 1)

    @property
    def end_s(self) -> float:
        """When no fault happens any more."""
        return self.minutes * 60

    @property
    def relays(self) -> bool:
        """Some fault befalls connections."""
        names = [moment.fault for moment in self.moments] or self.weights
        return any(FAULTS[name].needs_relay for name in names)

    def due_s(self, number: int) -> float | None:
        """When fault `number`, from 0, is to happen; None: there is no such."""
        if self.moments:
            return self.moments[number].second if number < len(self.moments) else None
        due_s = number * 60 / self.faults_per_minute
        return due_s if due_s < self.end_s else None

    def named(self, number: int) -> str | None:
        """The fault that the scenario names there, if it names any."""
        return self.moments[number].fault if self.moments else None


def load(path: Path) -> Scenario:
    """A scenario file (TOML).

    Raises:
        UsageError: it cannot be read; or says something unknown or out of range.
    """
    try:
        told = tomllib.loads(path.read_text())
    except OSError as error:
        raise UsageError(f"collect stress: {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"collect stress: {path} is no TOML: {error}") from None
    for key in told:
        if key not in KEYS:
            raise UsageError(f"collect stress: {path}: {key!r} is none of {', '.join(KEYS)}")
    told = {"transport": "auto", **told}
    scenario = Scenario(
        peers=int(_number(path, told, "peers", (PEERS_MIN, PEERS_MAX), 5)),
        minutes=_number(path, told, "minutes", (0.01, MINUTES_MAX), 1.0),
        faults_per_minute=_number(path, told, "faults-per-minute", (0.01, RATE_MAX), 60.0),
        timeout_s=_number(path, told, "timeout", (TIMEOUT_S_MIN, TIMEOUT_S_MAX), 1.0),
        transport=told["transport"],
    )
    if scenario.peers != told.get("peers", scenario.peers):
        raise UsageError(f"collect stress: {path}: peers must be a whole number")
    if scenario.transport not in TRANSPORTS:
        allowed = " or ".join(repr(each) for each in TRANSPORTS)
        raise UsageError(f"collect stress: {path}: transport must be {allowed}")
    if "weights" in told:
        weights = {_fault(path, name): 0.0 for name in _table(path, told["weights"], "weights")}
        for name in weights:
            weights[name] = _number(path, told["weights"], name, (0.0, WEIGHT_MAX))
        if not any(weights.values()):
            raise UsageError(f"collect stress: {path}: one of the weights must be more than 0")
        scenario = replace(scenario, weights={name: w for name, w in weights.items() if w > 0})
    if "at" in told:
        scenario = replace(scenario, moments=_moments(path, told["at"]))
    return scenario


def _moments(path: Path, told: Any) -> tuple[Moment, ...]:
    if not isinstance(told, list) or not told:
        raise UsageError(f"collect stress: {path}: 'at' must be one or more [[at]] tables")
    moments = []
    for each in told:
        table = _table(path, each, "at")
        if set(table) != {"second", "fault"}:
            raise UsageError(f"collect stress: {path}: each [[at]] has a 'second' and a 'fault'")
        second = _number(path, table, "second", (0.0, MINUTES_MAX * 60))
        moments.append(Moment(second, _fault(path, table["fault"])))
    return tuple(sorted(moments, key=lambda moment: moment.second))


def _table(path: Path, told: Any, name: str) -> dict[str, Any]:
    if not isinstance(told, dict):
        raise UsageError(f"collect stress: {path}: {name!r} must be a table")
    return told


def _fault(path: Path, name: Any) -> str:
    if not isinstance(name, str) or name not in FAULTS:
        raise UsageError(f"collect stress: {path}: {name!r} is none of {', '.join(FAULTS)}")
    return name


def _number(
    path: Path,
    told: Mapping[str, Any],
    key: str,
    allowed: tuple[float, float],
    default: float | None = None,
) -> float:
    value = told.get(key, default)
    least, most = allowed
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not least <= value <= most:
        raise UsageError(
            f"collect stress: {path}: {key} must be a number from {least:g} to {most:g}"
        )
    return float(value)
