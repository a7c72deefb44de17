"""What a caller passed → arrays over its memory that the C core can read and write.

Takes NumPy arrays, anything with the buffer protocol, and anything that offers DLPack from CPU
memory (torch tensors, without importing torch). Contiguous memory is used where it is; other memory
is packed into a copy, and the result unpacked.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collect.errors import InvalidArgument
from collect.native.codes import ALLOWED_DTYPES, BFLOAT16, BFLOAT16_CODE, DTYPE_CODES

Array = NDArray[Any]

DLPACK_CPU = 1  # kDLCPU of dlpack.h
_BITS = np.dtype(np.int16)  # how NumPy and the buffer protocol see a bfloat16


def view_of(value: Any, role: str) -> tuple[Array, int]:
    """An array over the memory of `value`, never a copy; and its enum collect_dtype.

    Memory of bfloat16 comes as int16.
    """
    view = value if type(value) is np.ndarray else _view(value, role)
    code = DTYPE_CODES.get(view.dtype)
    if code is not None:
        if view.dtype == _BITS and _is_bfloat16(getattr(value, "dtype", None)):
            return view, BFLOAT16_CODE
        return view, code
    if _is_bfloat16(view.dtype) and view.dtype.itemsize == _BITS.itemsize:
        return view.view(_BITS), BFLOAT16_CODE
    raise InvalidArgument(f"{role} has dtype {view.dtype}; allowed: {ALLOWED_DTYPES}")


def empty_like(value: Any, view: Array, shape: tuple[int, ...]) -> Any:
    """New memory of the caller's kind: a tensor for a tensor, else a NumPy array."""
    if isinstance(value, np.ndarray):
        return np.empty(shape, value.dtype)
    if hasattr(value, "new_empty"):
        return value.new_empty(shape)
    return np.empty(shape, view.dtype)


def is_plain(view: Array) -> bool:
    """The core can read it where it is."""
    flags = view.flags
    return flags.c_contiguous and flags.aligned


def packed(view: Array) -> Array:
    """The same elements, C-contiguous and aligned: a copy, or the view itself."""
    return view if is_plain(view) else np.array(view, order="C")


def require_writable(view: Array, role: str, advice: str = "pass `out`") -> None:
    if not view.flags.writeable:
        raise InvalidArgument(f"{role} is read-only and would receive the result", advice=advice)


def address(view: Array) -> int:
    return int(view.__array_interface__["data"][0])


def check_overlap(source: Array, target: Array, offset_bytes: int) -> None:
    """Source and target share no memory, or lie exactly `offset_bytes` from each other."""
    if source is target or not source.nbytes or not target.nbytes:
        return
    if not np.may_share_memory(source, target):
        return
    if address(target) - address(source) != offset_bytes:
        raise InvalidArgument("out overlaps array in part; pass separate memory, or the same array")


def divide(source: Array, dtype: int, divisor: float, target: Array) -> None:
    """target = source / divisor, in float64, rounded once to the floats or complexes they are."""
    with np.errstate(all="ignore"):  # what cannot be said is a NaN or an infinity
        if dtype == BFLOAT16_CODE:
            wide = (source.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
            np.copyto(target.view(np.uint16), _bfloat16_bits(wide / np.float64(divisor)))
        else:
            width = np.complex128 if source.dtype.kind == "c" else np.float64
            np.divide(source, divisor, out=target, dtype=width, casting="same_kind")


def _bfloat16_bits(wide: Array) -> Array:
    """Rounded to nearest even."""
    bits = wide.astype(np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(wide), 0x7FC0, rounded).astype(np.uint16)


def _is_bfloat16(dtype: Any) -> bool:
    """Of ml_dtypes: its name. Of torch: "torch.bfloat16"."""
    return dtype is not None and str(dtype).rpartition(".")[2] == BFLOAT16


def _view(value: Any, role: str) -> Array:
    if isinstance(value, np.ndarray):
        return value.view(np.ndarray)
    if hasattr(value, "__dlpack__"):
        return _view_dlpack(value, role)
    try:
        return np.asarray(memoryview(value))
    except (TypeError, ValueError) as error:
        raise InvalidArgument(
            f"{role} is a {type(value).__name__}; it must be a NumPy array, a CPU tensor or "
            f"an object with the buffer protocol ({error})"
        ) from None


def _view_dlpack(value: Any, role: str) -> Array:
    device = value.__dlpack_device__()[0] if hasattr(value, "__dlpack_device__") else DLPACK_CPU
    if int(device) != DLPACK_CPU:
        raise InvalidArgument(f"{role} is not in CPU memory (DLPack device {int(device)})")
    try:
        tensor = _as_bits(value) if _is_bfloat16(getattr(value, "dtype", None)) else value
        view = np.from_dlpack(tensor)
        # Producers of the first DLPack version cannot say that memory is writable.
        if not view.flags.writeable and hasattr(tensor, "numpy"):
            view = np.asarray(tensor.numpy())
    except (AttributeError, BufferError, TypeError, RuntimeError, ValueError) as error:
        raise InvalidArgument(
            f"{role} is a {type(value).__name__} that cannot be read as an array: {error}"
        ) from None
    return view


def _as_bits(tensor: Any) -> Any:
    """A bfloat16 tensor as int16, with the int16 of the library that it is of."""
    library = sys.modules[type(tensor.dtype).__module__]
    return tensor.view(library.int16)
