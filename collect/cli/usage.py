"""What every subcommand shares: how arguments are declared, and how a mistake is told."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path
from typing import NoReturn

from collect.config import TIMEOUT_S_MAX, TIMEOUT_S_MIN, Address, parse_address
from collect.errors import InvalidArgument

_SUFFIXES = {"": 1, "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30, "k": 10**3, "m": 10**6}
_SUFFIXES["g"] = 10**9


class UsageError(Exception):
    """The user's mistake, told in one line; the command ends with status 2."""


class Parser(argparse.ArgumentParser):
    """Reports a mistake as one line instead of a usage block, and leaves ending to `main`."""

    def __init__(self, *args: object, **options: object) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        options.setdefault("allow_abbrev", False)
        super().__init__(*args, **options)  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message} (see '{self.prog} --help')")


def positive_int(text: str) -> int:
    """An integer of at least 1, for argparse."""
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not at least 1")
    return value


def seconds(text: str) -> float:
    """A positive, finite number of seconds, for argparse."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds") from None
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of seconds")
    return value


def seconds_or_zero(text: str) -> float:
    """A finite number of seconds that may be 0, for argparse."""
    return 0.0 if text in {"0", "0.0"} else seconds(text)


def liveness_timeout(text: str) -> float:
    """The `timeout` of a group, for argparse."""
    value = seconds(text)
    if not TIMEOUT_S_MIN <= value <= TIMEOUT_S_MAX:
        allowed = f"{TIMEOUT_S_MIN:g} to {TIMEOUT_S_MAX:g} seconds"
        raise argparse.ArgumentTypeError(f"{text!r} is not within {allowed}")
    return value


def byte_count(text: str) -> int:
    """'8', '4Ki', '128Mi', '1M' as a number of bytes, for argparse."""
    match = re.fullmatch(r"(\d+)([kmgKMG]?i?)[bB]?", text)
    if match is None or match[2].lower() not in _SUFFIXES or int(match[1]) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 8, 64Ki or 128Mi")
    return int(match[1]) * _SUFFIXES[match[2].lower()]


def output_file(text: str) -> Path:
    """A file that can be written, told before the work and not after it, for argparse."""
    path = Path(text)
    folder = path.parent
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text!r} is no file that can be written")
    return path


def address(text: str) -> Address:
    """'127.0.0.1:5555', '[::1]:0' or 'name:5555', for argparse. Port 0: any free one."""
    try:
        return parse_address(text)
    except InvalidArgument as error:
        raise argparse.ArgumentTypeError(error.message) from None
