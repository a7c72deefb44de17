"""Brings newcomers in step: the members' state travels through the group itself, as all-reduces.

So a member may die in the middle like in any operation, and everybody takes every step alike,
because each decision follows from a result that is the same bytes on every member.

A round is one header, an int64 maximum, and if somebody needs it the bytes, int32 maxima of at most
PIECE_BYTES_MAX. Those who do not hold the state contribute the least value, so the maximum is that
of the holders; and max(x) == -max(-x) exactly when all holders contributed the same x. A flag in
every piece tells whether a holder took part in it.

Holders are the incumbents. A group that is just being founded has none: there the member of the
lowest rank is the holder, and the next one when it dies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from collect.errors import InvalidArgument, StateMismatch

PIECE_BYTES_MAX = 64 << 20

INT64_LEAST = np.iinfo(np.int64).min
INT32_LEAST = np.iinfo(np.int32).min
WORD_BITS = 32
HASH_WORDS = 4  # 128 bits
WORD_BYTES = 4  # of an int32 of a piece

# What a maximum over all members does to an array, in place; the result is who took part.
Maximise = Callable[[NDArray[Any]], tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Role:
    """What this peer is when newcomers enter.

    is_newcomer: it has yet to be given the state.
    is_founding: to its knowledge there was nobody before those who enter now.
    """

    self_id: int
    is_newcomer: bool
    is_founding: bool


class State:
    """Named arrays as one stream of bytes, in the order of their names."""

    def __init__(self, arrays: Mapping[str, Any] | None) -> None:
        self._targets: list[NDArray[Any]] = []
        layout: list[str] = []
        for name in sorted(arrays or {}):
            array = (arrays or {})[name]
            if not isinstance(name, str) or not isinstance(array, np.ndarray):
                raise InvalidArgument(f"state[{name!r}] must be a NumPy array under a text")
            if array.dtype.hasobject:
                raise InvalidArgument(f"state[{name!r}] holds Python objects, not numbers")
            self._targets.append(array)
            layout.append(f"{name!r}:{array.dtype.str}:{array.shape}")
        self.layout = "; ".join(layout)
        self._parts = [np.ascontiguousarray(a).reshape(-1).view(np.uint8) for a in self._targets]
        self.byte_count = sum(part.nbytes for part in self._parts)

    def require_writable(self) -> None:
        """A newcomer's arrays are to be written to."""
        for array in self._targets:
            if not array.flags.writeable:
                raise InvalidArgument("a newcomer's state arrays must be writable")

    def digest(self) -> bytes:
        """XXH3-128 of the bytes."""
        return _digest(self._parts)

    def read(self, begin: int, target: NDArray[np.uint8]) -> None:
        """Copies the bytes from `begin` on to `target`, which they fill or end in."""
        position = 0
        for part in self._parts:
            first = max(begin, position)
            last = min(begin + target.nbytes, position + part.nbytes)
            if first < last:
                target[first - begin : last - begin] = part[first - position : last - position]
            position += part.nbytes

    def write(self, source: NDArray[np.uint8]) -> None:
        """Overwrites the caller's arrays."""
        position = 0
        for array in self._targets:
            piece = source[position : position + array.nbytes]
            np.copyto(array, piece.view(array.dtype).reshape(array.shape))
            position += array.nbytes


def synchronise(state: State, role: Role, maximise: Maximise) -> bool:
    """Gives every newcomer the holders' bytes.

    Returns:
        Whether this peer's arrays were overwritten.

    Raises StateMismatch, on every member: layouts differ, incumbents differ, or nobody who holds
    the state is left.
    """
    if role.is_newcomer:
        state.require_writable()
    digest = state.digest()
    is_established = not (role.is_newcomer and role.is_founding)
    holder: int | None = None  # of a founding group
    while True:
        is_holder = role.self_id == holder if role.is_newcomer else True
        header = _Header(state.layout, digest, is_holder, is_established)
        participants = maximise(header.words)
        header.check_layout()
        is_established = header.is_established
        if not header.has_holder:
            if is_established:
                raise StateMismatch(
                    "every member that held the state is gone; only newcomers are left",
                    advice="restore the state from a checkpoint on every peer and found the "
                    "group anew",
                )
            if header.is_equal_everywhere:
                return False
            holder = participants[0]
            continue
        header.check_holders()
        if header.is_equal_everywhere:
            return False
        received = _transfer(state, is_holder, maximise)
        if received is None:
            continue  # no holder was left: the next header says so to all
        if is_holder:
            return False
        if _digest([received]) != header.holders_digest:
            raise StateMismatch("the state that arrived is not the state that was sent")
        state.write(received)
        return True


def _transfer(state: State, is_holder: bool, maximise: Maximise) -> NDArray[np.uint8] | None:
    """The state's bytes, at a newcomer; empty at a holder; None when no holder took part."""
    received = np.empty(0 if is_holder else state.byte_count, np.uint8)
    for begin in range(0, state.byte_count, PIECE_BYTES_MAX):
        count = min(PIECE_BYTES_MAX, state.byte_count - begin)
        word_count = -(-count // WORD_BYTES)
        piece = np.full(word_count + 1, INT32_LEAST, np.int32)
        if is_holder:
            piece[-2] = 0  # the bytes of the last word that the state does not fill
            state.read(begin, piece[:-1].view(np.uint8)[:count])
            piece[-1] = 1
        maximise(piece)
        if piece[-1] != 1:
            return None
        if not is_holder:
            received[begin : begin + count] = piece[:-1].view(np.uint8)[:count]
    return received


class _Header:
    """The first all-reduce of a round. Holders' values win; others contribute the least."""

    # has_holder, is_established, then for each hash its words and their negatives.
    _LAYOUT = slice(2, 2 + 2 * HASH_WORDS)
    _EVERYBODY = slice(2 + 2 * HASH_WORDS, 2 + 4 * HASH_WORDS)
    _HOLDERS = slice(2 + 4 * HASH_WORDS, 2 + 6 * HASH_WORDS)

    def __init__(self, layout: str, digest: bytes, is_holder: bool, is_established: bool) -> None:
        self.words = np.full(2 + 6 * HASH_WORDS, INT64_LEAST, np.int64)
        self.words[0] = is_holder
        self.words[1] = is_established
        self.words[self._LAYOUT] = _words(xxhash.xxh3_128_digest(layout.encode()))
        self.words[self._EVERYBODY] = _words(digest)
        if is_holder:
            self.words[self._HOLDERS] = _words(digest)
        self._layout = layout

    @property
    def has_holder(self) -> bool:
        return bool(self.words[0] == 1)

    @property
    def is_established(self) -> bool:
        """Somebody knows that the group had members before those who enter now."""
        return bool(self.words[1] == 1)

    @property
    def is_equal_everywhere(self) -> bool:
        return _is_unanimous(self.words[self._EVERYBODY])

    @property
    def holders_digest(self) -> bytes:
        words = self.words[self._HOLDERS][:HASH_WORDS]
        return b"".join(int(word).to_bytes(WORD_BITS // 8, "big") for word in words)

    def check_layout(self) -> None:
        if not _is_unanimous(self.words[self._LAYOUT]):
            raise StateMismatch(
                f"members passed states of different layouts; here: {self._layout or 'none'}"
            )

    def check_holders(self) -> None:
        if not _is_unanimous(self.words[self._HOLDERS]):
            raise StateMismatch(
                "the members' states hold different bytes, so no newcomer can be given one",
                advice="apply only results of the group to the state, so that it stays equal",
            )


def _words(digest: bytes) -> NDArray[np.int64]:
    """A hash as numbers, and their negatives."""
    words = np.frombuffer(digest, ">u4").astype(np.int64)
    return np.concatenate((words, -words))


def _is_unanimous(maxima: NDArray[np.int64]) -> bool:
    half = len(maxima) // 2
    return bool(np.array_equal(maxima[:half], -maxima[half:]))


def _digest(parts: list[NDArray[np.uint8]]) -> bytes:
    hasher = xxhash.xxh3_128()
    for part in parts:
        hasher.update(part.data)
    return bytes(hasher.digest())
