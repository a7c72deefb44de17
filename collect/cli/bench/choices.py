"""How lists of choices are written on the command line. Pure, for argparse."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence

from collect.cli.usage import byte_count, positive_int

RANGE_FACTOR = 4  # between the sizes of a range, unless told
SIZES_MAX = 64
WORLD_MIN, WORLD_MAX = 2, 64


def size_list(text: str) -> list[int]:
    """'8,32KiB' or '8:128MiB' (in steps of a factor 4) or '8:1MiB:2', or a mixture."""
    found = sorted({size for part in text.split(",") for size in _size_range(part)})
    if len(found) > SIZES_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} is more than {SIZES_MAX} sizes")
    return found


def _size_range(text: str) -> list[int]:
    first_text, *rest = text.split(":")
    first = byte_count(first_text)
    if not rest:
        return [first]
    if len(rest) > 2:
        raise argparse.ArgumentTypeError(f"{text!r} is no range MIN:MAX or MIN:MAX:FACTOR")
    last = byte_count(rest[0])
    factor = positive_int(rest[1]) if len(rest) == 2 else RANGE_FACTOR
    if first > last:
        raise argparse.ArgumentTypeError(f"{text!r}: the range is empty")
    if factor < 2:
        raise argparse.ArgumentTypeError(f"{text!r}: the factor must be at least 2")
    found = [first]
    while found[-1] * factor <= last:
        found.append(found[-1] * factor)
    return found if found[-1] == last else [*found, last]


def world_list(text: str) -> list[int]:
    """'2,4': numbers of processes."""
    found = [positive_int(part) for part in text.split(",")]
    for world in found:
        if not WORLD_MIN <= world <= WORLD_MAX:
            raise argparse.ArgumentTypeError(f"{world} is not within {WORLD_MIN}…{WORLD_MAX}")
    return list(dict.fromkeys(found))


def name_list(allowed: Sequence[str], *, has_all: bool = False) -> Callable[[str], list[str]]:
    """A reader of one or several of `allowed`, separated by commas; 'all' stands for each."""

    def read(text: str) -> list[str]:
        if has_all and text == "all":
            return list(allowed)
        found = text.split(",")
        for name in found:
            if name not in allowed:
                known = ", ".join([*allowed, *(["all"] if has_all else [])])
                raise argparse.ArgumentTypeError(f"{name!r} is none of: {known}")
        return list(dict.fromkeys(found))

    return read


def peer_list(allowed: Sequence[str]) -> Callable[[str], dict[str, str | None]]:
    """A reader of 'gloo,mpich=FOLDER': names and, of some, where they are installed."""

    def read(text: str) -> dict[str, str | None]:
        found: dict[str, str | None] = {}
        for part in text.split(","):
            match = re.fullmatch(r"([^=]+)(?:=(.+))?", part)
            if match is None or match[1] not in allowed:
                raise argparse.ArgumentTypeError(f"{part!r} is none of: {', '.join(allowed)}")
            found[match[1]] = match[2]
        return found

    return read
