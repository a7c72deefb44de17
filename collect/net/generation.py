"""What outlives a coordinator: its generation, a number that differs in every start, and the last
view of each group.

With a state file the generation counts up and survives the host; without one it is drawn at random,
and no view is kept.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path

from collect.errors import InvalidArgument
from collect.types import GENERATION_BITS, View
from collect.wire.codec import WireError, decode_view, encode_view

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
    _write(path, f"{_HEADER} {generation}\n".encode())
    return generation, is_first


def save_view(path: Path, group: str, view: View) -> None:
    """Keeps the group's view beside the state file. Durable before it returns."""
    _write(_view_path(path, group), encode_view(view))


def load_view(path: Path, group: str) -> View | None:
    """The view that was saved last; None when there is none."""
    kept = _view_path(path, group)
    try:
        return decode_view(kept.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InvalidArgument(f"cannot read the state file {kept}: {error.strerror}") from None
    except WireError as error:
        raise InvalidArgument(
            f"{kept} holds no view: {error.reason}", advice="remove it if no member is left"
        ) from None


def _view_path(path: Path, group: str) -> Path:
    name = hashlib.sha256(group.encode()).hexdigest()[:16]  # a group's may hold any character
    return path.with_name(f"{path.name}.{name}.view")


def _parse(path: Path, text: str) -> int:
    number = text.removeprefix(_HEADER).strip()
    if not text.startswith(_HEADER) or not number.isascii() or not number.isdigit():
        raise InvalidArgument(
            f"{path} is no state file of a coordinator", advice="name another, or remove it"
        )
    return int(number)


def _write(path: Path, content: bytes) -> None:
    draft = path.with_name(path.name + ".new")
    try:
        with draft.open("wb") as file:
            file.write(content)
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
