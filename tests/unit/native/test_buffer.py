"""What a caller passed becomes memory that the core can use, or an error that says why not."""

import array
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from collect.errors import InvalidArgument
from collect.native.buffer import check_overlap, divide, packed, view_of
from collect.native.codes import BFLOAT16_CODE, DTYPE_CODES


@pytest.mark.parametrize("dtype", DTYPE_CODES)
def test_arrays_are_taken_as_they_are(dtype: np.dtype[Any]) -> None:
    given = np.ones((3, 4), dtype)

    view, code = view_of(given, "array")

    assert view is given
    assert code == DTYPE_CODES[dtype]
    assert packed(view) is given


def test_equal_dtypes_of_other_names_are_the_same() -> None:
    assert view_of(np.zeros(1, np.longlong), "array")[1] == DTYPE_CODES[np.dtype(np.int64)]


def test_memory_of_other_layouts_is_packed() -> None:
    whole = np.arange(12.0).reshape(3, 4)
    misaligned = np.zeros(17, np.uint8)[1:].view(np.float64)

    for view in (whole[:, 1], whole.T, whole[::-1], np.asfortranarray(whole), misaligned):
        copy = packed(view)
        assert copy.flags.carray
        assert not np.may_share_memory(copy, view)
        assert (copy == view).all()


@pytest.mark.parametrize("dtype", ["float128", "complex256", ">f4", "M8[s]", "O", "U3", "i4,f4"])
def test_other_dtypes_are_refused_with_those_that_are_allowed(dtype: str) -> None:
    with pytest.raises(InvalidArgument, match=r"allowed: int8, .*bfloat16, .*complex128"):
        view_of(np.zeros(3, dtype), "array")


def test_anything_with_the_buffer_protocol_is_taken() -> None:
    floats = array.array("f", [1.0, 2.0])
    view, _ = view_of(floats, "array")
    view += 1.0
    assert floats.tolist() == [2.0, 3.0]

    raw = bytearray(16)
    view, _ = view_of(memoryview(raw).cast("q"), "array")
    view[:] = 1
    assert raw[0] == raw[8] == 1


@pytest.mark.parametrize("given", [[1.0, 2.0], 3.0, None, "text", {"a": 1}])
def test_what_has_no_memory_is_refused(given: object) -> None:
    with pytest.raises(InvalidArgument, match="it must be a NumPy array"):
        view_of(given, "array")


class Tensor:
    """Offers DLPack and nothing else, as a tensor of another library."""

    def __init__(self, memory: np.ndarray, device: int = 1) -> None:
        self.memory = memory
        self.device = device

    def __dlpack__(self, **arguments: Any) -> Any:
        return self.memory.__dlpack__(**arguments)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device, 0


def test_tensors_are_taken_through_dlpack() -> None:
    memory = np.arange(4, dtype=np.float32)

    view, _ = view_of(Tensor(memory), "array")
    view[:] = 9.0

    assert (memory == 9.0).all()


def test_tensors_elsewhere_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="not in CPU memory"):
        view_of(Tensor(np.zeros(3), device=2), "array")


# ---- bfloat16 ------------------------------------------------------------------------------------


class StandInDtype:
    """Of a library that NumPy does not know."""

    def __str__(self) -> str:
        return "standin.bfloat16"


class Bfloat16Tensor(Tensor):
    """As torch's: DLPack of it fails, of its bits does not."""

    dtype = StandInDtype()

    def __dlpack__(self, **arguments: Any) -> Any:
        raise BufferError("NumPy has no bfloat16")

    def view(self, dtype: object) -> Tensor:
        assert dtype == "bits of int16"
        return Tensor(self.memory)


def test_bfloat16_tensors_are_taken_as_their_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    library = ModuleType("standin")
    library.int16 = "bits of int16"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "standin", library)
    monkeypatch.setattr(StandInDtype, "__module__", "standin")
    memory = np.zeros(4, np.int16)

    view, code = view_of(Bfloat16Tensor(memory), "array")
    view[:] = 7

    assert code == BFLOAT16_CODE
    assert (memory == 7).all()


def test_bfloat16_arrays_are_taken_as_their_bits() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    given = np.array([1.0, -2.0], ml_dtypes.bfloat16)

    view, code = view_of(given, "array")

    assert (view.dtype, code) == (np.dtype(np.int16), BFLOAT16_CODE)
    assert np.may_share_memory(view, given)
    assert view.tolist() == [0x3F80, 0xC000 - 0x10000]


def test_other_small_floats_are_refused() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")

    with pytest.raises(InvalidArgument, match="float8_e5m2"):
        view_of(np.zeros(2, ml_dtypes.float8_e5m2), "array")


# ---- arithmetic and overlap ----------------------------------------------------------------------


def test_a_weighted_sum_is_divided_in_its_own_type() -> None:
    for dtype in (np.float16, np.float32, np.float64, np.complex64, np.complex128):
        source = np.array([6, 1, 0], dtype)
        target = np.empty_like(source)
        divide(source, DTYPE_CODES[np.dtype(dtype)], 3.0, target)
        wide = np.complex128 if np.dtype(dtype).kind == "c" else np.float64
        assert (target == (source.astype(wide) / 3.0).astype(dtype)).all()


def test_a_weighted_sum_of_nothing_is_no_number() -> None:
    target = np.empty(2)
    divide(np.array([0.0, 1.0]), DTYPE_CODES[np.dtype(np.float64)], 0.0, target)

    assert np.isnan(target[0])
    assert np.isinf(target[1])


def test_bfloat16_is_divided_and_rounded_to_even() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    values = np.random.default_rng(1).standard_normal(1000).astype(ml_dtypes.bfloat16)
    values[:3] = [np.nan, np.inf, 0.0]
    target = np.empty(1000, np.int16)

    divide(values.view(np.int16), BFLOAT16_CODE, 3.0, target)

    wanted = (values.astype(np.float32) / np.float64(3.0)).astype(np.float32)
    got = target.view(ml_dtypes.bfloat16)
    assert np.isnan(got[0].astype(np.float32))
    assert (got[1:] == wanted.astype(ml_dtypes.bfloat16)[1:]).all()


def test_overlap_is_allowed_at_one_place_only() -> None:
    whole = np.zeros(10)
    check_overlap(whole, whole, 0)
    check_overlap(whole, whole[4:6], 32)
    check_overlap(whole[:5], whole[5:], 0)
    with pytest.raises(InvalidArgument, match="overlaps"):
        check_overlap(whole[:6], whole[4:], 0)
