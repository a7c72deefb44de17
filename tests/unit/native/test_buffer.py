"""What a caller passes becomes memory that the core can use, or an error that says why not."""

import array
from typing import Any

import numpy as np
import pytest

from collect.errors import InvalidArgument
from collect.native.buffer import DTYPE_CODES, prepare, reduce_code


@pytest.mark.parametrize("dtype", DTYPE_CODES)
def test_contiguous_arrays_are_used_as_they_are(dtype: np.dtype[Any]) -> None:
    given = np.ones((3, 4), dtype)

    operand = prepare(given)

    assert operand.source is given
    assert operand.target is given
    assert operand.dtype_code == DTYPE_CODES[dtype]
    assert operand.finish() is given


def test_equal_dtypes_of_other_names_are_the_same() -> None:
    assert prepare(np.zeros(1, np.longlong)).dtype_code == DTYPE_CODES[np.dtype(np.int64)]


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (1,)])
def test_arrays_of_no_dimension_or_no_element_are_taken(shape: tuple[int, ...]) -> None:
    given = np.zeros(shape, np.float32)

    operand = prepare(given)

    assert operand.source.size == given.size
    assert operand.finish() is given


def test_strided_memory_is_packed_and_the_result_unpacked() -> None:
    whole = np.arange(12.0).reshape(3, 4)
    column = whole[:, 1]

    operand = prepare(column)
    assert operand.source.flags.c_contiguous
    assert operand.source.tolist() == [1.0, 5.0, 9.0]
    operand.target[:] = [10.0, 20.0, 30.0]
    assert column.tolist() == [1.0, 5.0, 9.0]

    assert operand.finish() is column
    assert whole[:, 1].tolist() == [10.0, 20.0, 30.0]
    assert whole[:, 0].tolist() == [0.0, 4.0, 8.0]


def test_fortran_order_and_reversed_arrays_keep_their_places() -> None:
    fortran = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    reverse = np.arange(5.0)[::-1]
    for given in (fortran, reverse):
        before = given.copy()
        operand = prepare(given)
        operand.target *= 2.0
        operand.finish()
        assert (given == 2.0 * before).all()


def test_out_receives_and_the_source_is_only_read() -> None:
    source = np.arange(4.0)
    source.flags.writeable = False
    out = np.empty(4)

    operand = prepare(source, out)

    assert operand.source is source
    assert operand.target is out
    assert operand.finish() is out


def test_a_strided_out_is_written_at_the_end() -> None:
    out = np.zeros((4, 2))[:, 0]

    operand = prepare(np.arange(4.0), out)
    operand.target[:] = 7.0
    assert not out.any()
    operand.finish()

    assert (out == 7.0).all()


def test_out_may_be_the_array_itself() -> None:
    given = np.ones(3)

    assert prepare(given, given).target is given
    assert prepare(given, given[:]).target.base is given


def test_overlap_in_part_is_refused() -> None:
    whole = np.zeros(10)

    with pytest.raises(InvalidArgument, match="overlaps"):
        prepare(whole[:6], whole[4:])


@pytest.mark.parametrize(
    "out", [np.zeros(3), np.zeros((2, 2)), np.zeros(4, np.float32)], ids=["size", "shape", "dtype"]
)
def test_out_must_look_like_the_array(out: np.ndarray) -> None:
    with pytest.raises(InvalidArgument, match="they must be equal"):
        prepare(np.zeros(4), out)


@pytest.mark.parametrize("dtype", ["float16", "complex64", "bool", "uint8", ">f4", "M8[s]", "O"])
def test_other_dtypes_are_refused_with_those_that_are_allowed(dtype: str) -> None:
    with pytest.raises(InvalidArgument, match="int32, int64, float32, float64"):
        prepare(np.zeros(3, dtype))


def test_read_only_memory_is_refused_as_a_target() -> None:
    given = np.zeros(3)
    given.flags.writeable = False

    with pytest.raises(InvalidArgument, match="array is read-only"):
        prepare(given)
    with pytest.raises(InvalidArgument, match="out is read-only"):
        prepare(np.zeros(3), given)
    with pytest.raises(InvalidArgument, match="read-only"):
        prepare(memoryview(bytes(8)).cast("d"))


def test_anything_with_the_buffer_protocol_is_taken() -> None:
    floats = array.array("f", [1.0, 2.0])
    operand = prepare(floats)
    operand.target += 1.0
    assert floats.tolist() == [2.0, 3.0]
    assert operand.finish() is floats

    raw = bytearray(16)
    operand = prepare(memoryview(raw).cast("q"))
    operand.target[:] = 1
    assert raw[0] == raw[8] == 1


@pytest.mark.parametrize("given", [[1.0, 2.0], 3.0, None, "text", {"a": 1}])
def test_what_has_no_memory_is_refused(given: object) -> None:
    with pytest.raises(InvalidArgument, match="it must be a NumPy array"):
        prepare(given)


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
    tensor = Tensor(memory)

    operand = prepare(tensor)
    operand.target[:] = 9.0

    assert operand.finish() is tensor
    assert (memory == 9.0).all()


def test_tensors_elsewhere_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="not in CPU memory"):
        prepare(Tensor(np.zeros(3), device=2))


def test_an_unknown_reduction_is_refused_with_those_that_are_known() -> None:
    assert [reduce_code(op) for op in ("sum", "avg", "min", "max")] == [0, 1, 2, 3]
    with pytest.raises(InvalidArgument, match="'sum', 'avg', 'min', 'max'"):
        reduce_code("prod")
    with pytest.raises(InvalidArgument, match="op is \\['sum'\\]"):
        reduce_code(["sum"])  # type: ignore[arg-type]
