"""Calls are laid out as collect.h wants them, or refused with what is allowed."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from collect import native
from collect.errors import InvalidArgument, MembersChanged
from collect.native.call import Call, Maker
from collect.native.codes import ALGORITHM_CODES, DTYPE_NAMES, OPS_OF_DTYPE, Collective

SIZE, RANK, ROOT = 4, 1, 99


@pytest.fixture
def maker(monkeypatch: pytest.MonkeyPatch) -> Maker:
    def has(algorithm: int, collective: int) -> bool:
        return algorithm == ALGORITHM_CODES["ring"] or collective == Collective.ALL_REDUCE

    lib = SimpleNamespace(collect_algorithm_has=has)
    monkeypatch.setitem(vars(native), "lib", lib)
    return Maker()


def read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


# ---- all-reduce and its kind ---------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (1,), (2, 3)])
def test_an_array_is_its_own_result(maker: Maker, shape: tuple[int, ...]) -> None:
    given = np.zeros(shape, np.float32)

    call = maker.all_reduce(given, "max")

    assert call.source is call.target is given
    assert call.count == given.size
    assert call.finish(0) is given
    assert call.world == 0


def test_strided_memory_is_packed_and_the_result_unpacked(maker: Maker) -> None:
    whole = np.arange(12.0).reshape(3, 4)
    column = whole[:, 1]

    call = maker.all_reduce(column, "sum")
    assert call.target is not None
    call.target[:] = [10.0, 20.0, 30.0]
    assert column.tolist() == [1.0, 5.0, 9.0]

    assert call.finish(0) is column
    assert whole[:, 1].tolist() == [10.0, 20.0, 30.0]
    assert whole[:, 0].tolist() == [0.0, 4.0, 8.0]


def test_fortran_order_and_reversed_arrays_keep_their_places(maker: Maker) -> None:
    fortran = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    reverse = np.arange(5.0)[::-1]
    for given in (fortran, reverse):
        before = given.copy()
        call = maker.all_reduce(given, "sum")
        assert call.target is not None
        call.target *= 2.0
        call.finish(0)
        assert (given == 2.0 * before).all()


def test_out_receives_and_the_source_is_only_read(maker: Maker) -> None:
    source, out = read_only(np.arange(4.0)), np.empty(4)

    call = maker.all_reduce(source, "sum", out=out)

    assert call.source is source
    assert call.target is call.finish(0) is out
    assert maker.all_reduce(out, "sum", out=out).target is out


@pytest.mark.parametrize(
    "out", [np.zeros(3), np.zeros((2, 2)), np.zeros(4, np.float32)], ids=["size", "shape", "dtype"]
)
def test_out_must_look_like_the_result(maker: Maker, out: np.ndarray) -> None:
    with pytest.raises(InvalidArgument, match="they must be equal"):
        maker.all_reduce(np.zeros(4), "sum", out=out)


def test_read_only_memory_is_refused_as_a_target(maker: Maker) -> None:
    given = read_only(np.zeros(3))
    with pytest.raises(InvalidArgument, match=r"array is read-only.*pass `out`"):
        maker.all_reduce(given, "sum")
    with pytest.raises(InvalidArgument, match="out is read-only"):
        maker.all_reduce(np.zeros(3), "sum", out=given)
    with pytest.raises(InvalidArgument, match="read-only"):
        maker.broadcast(memoryview(bytes(8)).cast("d"), ROOT)


def test_overlap_in_part_is_refused(maker: Maker) -> None:
    whole = np.zeros(10)
    with pytest.raises(InvalidArgument, match="overlaps"):
        maker.all_reduce(whole[:6], "sum", out=whole[4:])


@pytest.mark.parametrize("code", OPS_OF_DTYPE)
def test_each_type_has_its_reductions(maker: Maker, code: int) -> None:
    if DTYPE_NAMES[code] == "bfloat16":
        given: Any = np.zeros(2, pytest.importorskip("ml_dtypes").bfloat16)
    else:
        given = np.zeros(2, DTYPE_NAMES[code])
    for op in ("sum", "avg", "prod", "min", "max", "and", "or", "xor", "premul_sum"):
        factor = 2.0 if op == "premul_sum" else None
        if op in OPS_OF_DTYPE[code]:
            call = maker.all_reduce(given, op, factor=factor)
            assert (call.signature.dtype, call.factor) == (code, factor or 0.0)
        else:
            with pytest.raises(InvalidArgument, match=r"is not defined; allowed: 'sum', "):
                maker.all_reduce(given, op, factor=factor)


def test_what_is_no_reduction_or_algorithm_is_refused(maker: Maker) -> None:
    given = np.zeros(4)
    with pytest.raises(InvalidArgument, match="op is 'mean'; it must be one of 'sum', 'avg'"):
        maker.all_reduce(given, "mean")
    with pytest.raises(InvalidArgument, match=r"op is \['sum'\]"):
        maker.all_reduce(given, ["sum"])  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="premul_sum needs a number"):
        maker.all_reduce(given, "premul_sum")
    with pytest.raises(InvalidArgument, match="factor is for premul_sum"):
        maker.all_reduce(given, "sum", factor=2.0)
    with pytest.raises(InvalidArgument, match="one of 'auto', 'direct', 'ring'"):
        maker.all_reduce(given, "sum", algorithm="fast")
    with pytest.raises(InvalidArgument, match=r"'tree' cannot do all_gather; .* 'auto', 'ring'$"):
        maker.all_gather(given, SIZE, RANK, algorithm="tree")


def test_equal_calls_have_one_signature(maker: Maker) -> None:
    one, other = (maker.all_reduce(np.zeros(n), "sum", algorithm="ring") for n in (1, 2))

    assert one.signature is other.signature
    assert maker.all_reduce(np.zeros(1), "sum").signature is not one.signature


# ---- roots ---------------------------------------------------------------------------------------


def test_only_the_root_of_a_reduce_has_a_target(maker: Maker) -> None:
    given = read_only(np.zeros(4))
    elsewhere = maker.reduce(given, "sum", ROOT, False)
    assert (elsewhere.root, elsewhere.target, elsewhere.finish(0)) == (ROOT, None, None)

    out = np.empty(4)
    there = maker.reduce(given, "sum", ROOT, True, out=out)
    assert there.target is there.finish(0) is out


def test_a_scatter_needs_room_but_at_the_root(maker: Maker) -> None:
    given = np.arange(8.0).reshape(8, 1)

    there = maker.scatter(given, SIZE, RANK, ROOT, True)
    assert there.target is not None
    assert (there.count, there.target.shape, there.world) == (2, (2, 1), SIZE)

    with pytest.raises(InvalidArgument, match="scatter needs `out`"):
        maker.scatter(None, SIZE, RANK, ROOT, False)
    out = np.empty((2, 1))
    elsewhere = maker.scatter(None, SIZE, RANK, ROOT, False, out=out)
    assert elsewhere.source is None
    assert (elsewhere.count, elsewhere.world, elsewhere.finish(0)) == (2, SIZE, out)
    with pytest.raises(InvalidArgument, match=r"out has 2 rows and counts\[1\] is 3"):
        maker.scatter(None, SIZE, RANK, ROOT, False, out=out, counts=(1, 3, 1, 1))


# ---- blocks --------------------------------------------------------------------------------------


def test_blocks_are_equal_parts_of_the_first_axis(maker: Maker) -> None:
    given = read_only(np.zeros((8, 3)))

    call = maker.reduce_scatter(given, "sum", SIZE, RANK)

    assert (call.count, call.finish(0).shape, call.world) == (6, (2, 3), SIZE)
    with pytest.raises(InvalidArgument, match="9 rows, which 4 members cannot share equally"):
        maker.reduce_scatter(np.zeros(9), "sum", SIZE, RANK)
    with pytest.raises(InvalidArgument, match="no axis"):
        maker.reduce_scatter(np.array(1.0), "sum", SIZE, RANK)


def test_counts_are_rows_by_rank(maker: Maker) -> None:
    counts = (3, 0, 1, 2)
    call = maker.reduce_scatter(np.zeros((6, 5)), "sum", SIZE, 0, counts=counts)
    assert (call.counts, call.finish(0).shape) == ((15, 0, 5, 10), (3, 5))

    call = maker.all_gather(np.zeros((0, 5)), SIZE, 1, counts=counts)
    assert (call.counts, call.finish(0).shape) == ((15, 0, 5, 10), (6, 5))

    with pytest.raises(InvalidArgument, match="adds up to 6 rows and array has 5"):
        maker.reduce_scatter(np.zeros(5), "sum", SIZE, 0, counts=counts)
    with pytest.raises(InvalidArgument, match="must hold 4 numbers of rows"):
        maker.reduce_scatter(np.zeros(6), "sum", SIZE, 0, counts=(1, 2, 3))
    with pytest.raises(InvalidArgument, match="must hold 4 numbers of rows"):
        maker.reduce_scatter(np.zeros(6), "sum", SIZE, 0, counts=(1, -2, 3, 4))
    with pytest.raises(InvalidArgument, match="a number of rows for each rank"):
        maker.reduce_scatter(np.zeros(6), "sum", SIZE, 0, counts=("a",))  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match=r"array has 2 rows and counts\[1\]"):
        maker.all_gather(np.zeros((2, 5)), SIZE, 1, counts=counts)


def test_a_block_of_the_array_may_be_the_result(maker: Maker) -> None:
    whole = np.zeros(8)

    assert maker.reduce_scatter(whole, "sum", SIZE, RANK, out=whole[2:4]).source is whole
    assert maker.all_gather(whole[2:4], SIZE, RANK, out=whole.reshape(4, 2)).count == 2
    for out in (whole[4:6], whole[3:5]):
        with pytest.raises(InvalidArgument, match="overlaps"):
            maker.reduce_scatter(whole, "sum", SIZE, RANK, out=out)


def test_gathered_arrays_get_a_new_axis_of_those_who_took_part(maker: Maker) -> None:
    given = read_only(np.ones((2, 3), np.int16))

    call = maker.all_gather(given, SIZE, RANK)
    assert call.target is None
    call.require(5, RANK)
    assert call.target is not None
    assert (call.target.shape, call.world, call.count) == ((5, 2, 3), 5, 6)
    assert call.finish(5) is call.result
    assert call.finish(3).shape == (3, 2, 3)


def test_a_given_out_of_a_gather_has_room_for_so_many(maker: Maker) -> None:
    out = np.empty((4, 3))
    call = maker.all_gather(np.zeros(3), SIZE, RANK, out=out)

    call.require(3, 0)
    assert call.finish(3).base is out
    with pytest.raises(MembersChanged, match="room for the blocks of 4 members, and now"):
        call.require(5, 0)
    with pytest.raises(InvalidArgument, match=r"the result is float64\[4, 3\]"):
        maker.all_gather(np.zeros(3), SIZE, RANK, out=np.empty((3, 3)))


def test_who_is_not_the_root_of_a_gather_needs_no_room(maker: Maker) -> None:
    call = maker.gather(np.zeros(3), SIZE, RANK, ROOT, False)
    call.require(5, RANK)

    assert (call.world, call.target, call.finish(2)) == (5, None, None)


def test_all_to_all_takes_equal_blocks_or_both_counts(maker: Maker) -> None:
    given = np.zeros((8, 2))
    assert maker.all_to_all(given, SIZE, out=given).count == 4
    assert maker.all_to_all(given, SIZE).finish(0).shape == (8, 2)

    call = maker.all_to_all(given, SIZE, send_counts=(0, 8, 0, 0), receive_counts=(1, 1, 1, 0))
    assert (call.counts, call.target_counts) == ((0, 16, 0, 0), (2, 2, 2, 0))
    assert call.finish(0).shape == (3, 2)
    with pytest.raises(InvalidArgument, match="belong together"):
        maker.all_to_all(given, SIZE, send_counts=(0, 8, 0, 0))
    with pytest.raises(InvalidArgument, match="separate memory"):
        maker.all_to_all(
            given, SIZE, out=given, send_counts=(8, 0, 0, 0), receive_counts=(8, 0, 0, 0)
        )


def test_tensors_get_tensors(maker: Maker) -> None:
    class Tensor:
        def __init__(self, memory: np.ndarray) -> None:
            self.memory = memory

        def __dlpack__(self, **arguments: Any) -> Any:
            return self.memory.__dlpack__(**arguments)

        def new_empty(self, shape: tuple[int, ...]) -> "Tensor":
            return Tensor(np.empty(shape, self.memory.dtype))

    call = maker.reduce_scatter(Tensor(np.zeros(8, np.float32)), "sum", SIZE, RANK)

    assert isinstance(call.finish(0), Tensor)
    assert call.finish(0).memory.shape == (2,)


def test_counts_beyond_32_bits_do_not_overflow(maker: Maker) -> None:
    huge = np.lib.stride_tricks.as_strided(np.zeros(1, np.int8), (1 << 33,), (0,))

    assert maker.rows_of((1 << 40, 0), 2, "counts") == (1 << 40, 0)
    with pytest.raises(InvalidArgument, match=f"adds up to {1 << 40}"):
        maker.all_to_all(
            huge, 2, send_counts=(1 << 40, 0), receive_counts=(0, 0), out=np.zeros(0, np.int8)
        )


def test_a_barrier_has_no_memory(maker: Maker) -> None:
    call = maker.barrier()

    assert type(call) is Call
    assert (call.source, call.target, call.count, call.finish(3)) == (None, None, 0, None)
