"""The coordinator's generation: a number that differs in every start.

With a state file it counts up and survives the host; without one it is drawn at random.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from collect.errors import InvalidArgument
from collect.types import GENERATION_BITS

_GENERATION_MAX = (1 << GENERATION_BITS) - 1
_HEADER = "collect coordinator generation"


def draw() -> int:
    """A random generation, not 0."""
    return secrets.randbelow(_GENERATION_MAX) + 1


def advance(path: Path) -> tuple[int, bool]:
    """Counts the file's generation up. Durable before it returns.

    Returns:
        The new generation, and whether it is the first that this file has seen.
    """
    try:
        text = path.read_text()
    except FileNotFoundError:
        generation, is_first = 1, True
    except OSError as error:
        raise InvalidArgument(f"cannot read the state file {path}: {error.strerror}") from None
    else:
        generation, is_first = _parse(path, text) + 1, False
    if generation > _GENERATION_MAX:
        raise InvalidArgument(f"the state file {path} has used up its generations")
    _write(path, f"{_HEADER} {generation}\n")
    return generation, is_first


def _parse(path: Path, text: str) -> int:
    number = text.removeprefix(_HEADER).strip()
    if not text.startswith(_HEADER) or not number.isascii() or not number.isdigit():
        raise InvalidArgument(
            f"{path} is no state file of a coordinator", advice="name another, or remove it"
        )
    return int(number)


def _write(path: Path, text: str) -> None:
    draft = path.with_name(path.name + ".new")
    try:
        with draft.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise InvalidArgument(f"cannot write the state file {path}: {error.strerror}") from None
