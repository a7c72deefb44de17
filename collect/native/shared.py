"""Arrays in memory that members on one host share: the core moves them without copies."""

from __future__ import annotations

import errno
import math
import os
from typing import Any

import numpy as np

from collect import native
from collect.errors import InvalidArgument
from collect.native.buffer import Array

BYTES_MAX = 1 << 62


def empty(shape: int | tuple[int, ...], dtype: Any = np.float64) -> Array:
    """A NumPy array of undefined content in shared memory, C-contiguous and 4096-byte aligned.

    Collectives of such arrays copy nothing between members on one host. Use it like any array; its
    memory is freed with the last array that views it. Any thread; before, during and after a
    group.

    Raises:
        InvalidArgument: a negative or too large shape, or a dtype of Python objects.
        MemoryError: no shared memory is left.
    """
    lengths = (shape,) if isinstance(shape, int) else tuple(shape)
    kind = np.dtype(dtype)
    if kind.hasobject:
        raise InvalidArgument(f"dtype {kind} holds Python objects, not numbers")
    if any(length < 0 for length in lengths):
        raise InvalidArgument(f"shape is {lengths}; no length may be negative")
    byte_count = math.prod(lengths) * kind.itemsize
    if byte_count > BYTES_MAX:
        raise InvalidArgument(f"an array of shape {lengths} has {byte_count} bytes, too many")
    native.require()
    memory = native.lib.collect_shared_alloc(max(byte_count, 1))
    if memory == native.ffi.NULL:
        reason = os.strerror(native.ffi.errno or errno.ENOMEM)
        raise MemoryError(f"cannot allocate {byte_count} bytes of shared memory: {reason}")
    # The array holds the buffer, the buffer the owner; the owner frees.
    owner = native.ffi.gc(memory, native.lib.collect_shared_free, byte_count)
    raw: Array = np.frombuffer(native.ffi.buffer(owner, max(byte_count, 1)), np.uint8)
    array: Array = raw[:byte_count].view(kind).reshape(lengths)
    return array


def zeros(shape: int | tuple[int, ...], dtype: Any = np.float64) -> Array:
    """As `empty`, filled with zeros."""
    return empty(shape, dtype)  # the core zeroes what it gives out
