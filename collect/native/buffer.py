"""What a caller passed → contiguous arrays that the C core can read and write.

Takes NumPy arrays, anything with the buffer protocol, and anything that offers DLPack from CPU
memory (torch tensors, without importing torch). Contiguous memory is used where it is; strided
memory is packed into a copy, and the result unpacked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collect.errors import InvalidArgument

Array = NDArray[Any]

DLPACK_CPU = 1  # kDLCPU of dlpack.h

# NumPy dtype → enum collect_dtype of collect.h. Those that the kernels can reduce now.
DTYPE_CODES: dict[Any, int] = {
    np.dtype(np.int32): 2,
    np.dtype(np.int64): 3,
    np.dtype(np.float32): 10,
    np.dtype(np.float64): 11,
}
DTYPE_NAMES = ", ".join(str(dtype) for dtype in DTYPE_CODES)

# The caller's word → enum collect_reduce_op.
REDUCE_CODES: dict[str, int] = {"sum": 0, "avg": 1, "min": 2, "max": 3}


@dataclass(slots=True)
class Operand:
    """The memory of one operation.

    Attributes:
        source: C-contiguous; is only read, unless it is the target.
        target: C-contiguous and writable; receives the result.
        dtype_code: enum collect_dtype.
        unpack: strided memory of the caller that the target is copied to at the end, or None.
        result: what the caller gets back: the object that was passed as `out`, or as `array`.
    """

    source: Array
    target: Array
    dtype_code: int
    unpack: Array | None
    result: Any

    def finish(self) -> Any:
        """Copies a packed result to where the caller wants it. Once, after success."""
        if self.unpack is not None:
            np.copyto(self.unpack, self.target.reshape(self.unpack.shape))
            self.unpack = None
        return self.result


def reduce_code(op: str) -> int:
    """Reads the caller's reduction."""
    try:
        return REDUCE_CODES[op]
    except (KeyError, TypeError):
        allowed = ", ".join(repr(name) for name in REDUCE_CODES)
        raise InvalidArgument(f"op is {op!r}; it must be one of {allowed}") from None


def prepare(array: Any, out: Any = None) -> Operand:
    """Checks and, where needed, packs the caller's memory.

    Args:
        array: the contribution; also where the result goes unless `out` is given.
        out: same shape and dtype as `array`; may be `array` itself, may not otherwise share memory.
    """
    view = array if type(array) is np.ndarray else _view(array, "array")
    code = DTYPE_CODES.get(view.dtype)
    if code is None:
        raise InvalidArgument(f"array has dtype {view.dtype}; allowed: {DTYPE_NAMES}")
    if out is None or out is array:
        return _in_place(array, view, code)

    target_view = out if type(out) is np.ndarray else _view(out, "out")
    if target_view.dtype != view.dtype or target_view.shape != view.shape:
        raise InvalidArgument(
            f"out is {target_view.dtype}{list(target_view.shape)} and array is "
            f"{view.dtype}{list(view.shape)}; they must be equal"
        )
    _require_writable(target_view, "out")
    source = view if view.flags.c_contiguous else np.ascontiguousarray(view)
    if target_view.flags.c_contiguous:
        target, unpack = target_view, None
    else:
        target, unpack = np.empty(target_view.shape, target_view.dtype), target_view
    if np.may_share_memory(source, target) and not _is_same_memory(source, target):
        raise InvalidArgument("out overlaps array in part; pass separate memory, or the same array")
    return Operand(source, target, code, unpack, out)


def _in_place(array: Any, view: Array, code: int) -> Operand:
    _require_writable(view, "array")
    if view.flags.c_contiguous:
        return Operand(view, view, code, None, array)
    packed = np.ascontiguousarray(view)
    return Operand(packed, packed, code, view, array)


def _require_writable(view: Array, role: str) -> None:
    if not view.flags.writeable:
        raise InvalidArgument(f"{role} is read-only and would receive the result; pass `out`")


def _is_same_memory(a: Array, b: Array) -> bool:
    here = a.__array_interface__["data"][0]
    return bool(here == b.__array_interface__["data"][0]) and a.nbytes == b.nbytes


def _view(value: Any, role: str) -> Array:
    """An array over the memory of `value`; never a copy."""
    if isinstance(value, np.ndarray):
        return value.view(np.ndarray)
    if hasattr(value, "__dlpack__"):
        return _view_dlpack(value, role)
    try:
        view = np.asarray(memoryview(value))
    except (TypeError, ValueError) as error:
        raise InvalidArgument(
            f"{role} is a {type(value).__name__}; it must be a NumPy array, a CPU tensor or "
            f"an object with the buffer protocol ({error})"
        ) from None
    return view


def _view_dlpack(value: Any, role: str) -> Array:
    device = value.__dlpack_device__()[0] if hasattr(value, "__dlpack_device__") else DLPACK_CPU
    if int(device) != DLPACK_CPU:
        raise InvalidArgument(f"{role} is not in CPU memory (DLPack device {int(device)})")
    try:
        view = np.from_dlpack(value)
        # Producers of the first DLPack version cannot say that memory is writable.
        if not view.flags.writeable and hasattr(value, "numpy"):
            view = np.asarray(value.numpy())
    except (BufferError, TypeError, RuntimeError, ValueError) as error:
        raise InvalidArgument(
            f"{role} is a {type(value).__name__} that cannot be read as an array: {error}"
        ) from None
    return view
