"""What goes into a measured collective and what must come out, against collectives done by hand."""

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from collect.cli.bench.cases import BOTH, COLLECTIVES, IN_PLACE, Case, Variant
from collect.cli.bench.libraries import private_array
from collect.cli.bench.operands import UFUNCS, Operands, is_fixed_point
from collect.cli.bench.worker import Bench, check, time_calls

WORLD = 3
BLOCK = 7
SIZED = [name for name in COLLECTIVES if name != "barrier"]
Array = npt.NDArray[Any]


def case_of(collective: str, placement: str = IN_PLACE, op: str = "sum") -> Case:
    is_reducing = COLLECTIVES[collective].is_reducing
    return Case(collective, WORLD * BLOCK, 4, "float32", op if is_reducing else "", placement)


def all_ranks(case: Case) -> list[Operands]:
    ranks = [Operands(case, rank, WORLD, private_array) for rank in range(WORLD)]
    for each in ranks:
        each.fill()
    return ranks


def do_by_hand(case: Case, ranks: list[Operands]) -> None:
    """The collective, written a second time, on copies of what everybody puts in."""
    sources = [each.source.copy() if each.source is not None else np.empty(0) for each in ranks]
    results: dict[int, Array] = {}
    for rank, each in enumerate(ranks):
        if each.target is None:
            continue
        own = slice(rank * BLOCK, (rank + 1) * BLOCK)
        if case.op:
            total = sources[0].astype(np.float64)
            for source in sources[1:]:
                total = UFUNCS[case.op](total, source)
            total = total / WORLD if case.op == "avg" else total
        if case.collective in ("all-reduce", "reduce"):
            results[rank] = total
        elif case.collective == "reduce-scatter":
            results[rank] = total[own]
        elif case.collective in ("all-gather", "gather"):
            results[rank] = np.concatenate(sources)
        elif case.collective == "all-to-all":
            results[rank] = np.concatenate([source[own] for source in sources])
        elif case.collective == "broadcast":
            results[rank] = sources[0]
        elif case.collective == "scatter":
            results[rank] = sources[0][own]
        else:
            results[rank] = sources[rank - 1]
    for rank, result in results.items():
        target = ranks[rank].target
        assert target is not None
        target[...] = result


@pytest.mark.parametrize("placement", BOTH)
@pytest.mark.parametrize("collective", SIZED)
def test_a_right_result_passes_and_one_wrong_element_does_not(
    collective: str, placement: str
) -> None:
    case = case_of(collective, placement)
    ranks = all_ranks(case)
    is_wrong_before = [each.wrong() > 0 for each in ranks if each.target is not None]

    do_by_hand(case, ranks)

    assert any(is_wrong_before)
    assert [each.wrong() for each in ranks] == [0] * WORLD
    for each in ranks:
        if each.target is not None:
            each.target[-1] += 1
            assert each.wrong() == 1
            with pytest.raises(ArithmeticError, match="1 elements are wrong"):
                check(each)


@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize("collective", ["all-to-all", "all-reduce", "broadcast"])
@pytest.mark.parametrize("count", [16, 1 << 13])
def test_what_was_not_moved_is_wrong(collective: str, world: int, count: int) -> None:
    case = dataclasses.replace(case_of(collective), count=count)
    last = Operands(case, world - 1, world, private_array)

    last.fill()

    assert last.wrong() > count // 8


@pytest.mark.parametrize("op", ["sum", "avg", "prod", "min", "max"])
def test_every_op_has_an_exact_result(op: str) -> None:
    case = case_of("all-reduce", op=op)
    ranks = all_ranks(case)

    do_by_hand(case, ranks)

    assert [each.wrong() for each in ranks] == [0] * WORLD


@pytest.mark.parametrize("collective", [name for name in SIZED if COLLECTIVES[name].has_blocks])
def test_in_place_the_smaller_array_lies_in_the_larger(collective: str) -> None:
    for each in all_ranks(case_of(collective)):
        if each.source is not None and each.target is not None and each._rank == 0:
            assert np.shares_memory(each.source, each.target)


@pytest.mark.parametrize("collective", SIZED)
def test_zeros_stay_zeros_so_that_a_call_can_be_repeated_in_place(collective: str) -> None:
    case = case_of(collective)
    ranks = all_ranks(case)
    for each in ranks:
        each.clear()

    do_by_hand(case, ranks)

    assert not any(each.target.any() for each in ranks if each.target is not None)
    assert is_fixed_point(case_of("all-reduce", "out-of-place"))
    assert not is_fixed_point(case_of("all-reduce"))


class Alone:
    """A library whose world has one member."""

    rank = 0
    version = "1"

    def __init__(self) -> None:
        self.barriers = 0

    def make(self, count: int, dtype: np.dtype[Any], arrays: str) -> Array:
        return private_array(count, dtype)

    def prepare(self, operands: Operands, variant: Variant) -> Any:
        return lambda: None  # what all-reduce in place does alone

    def barrier(self) -> None:
        self.barriers += 1

    def release(self) -> None: ...

    def close(self) -> None: ...


@pytest.mark.parametrize("collective", ["all-reduce", "broadcast"])
def test_a_worker_prepares_measures_and_releases(collective: str) -> None:
    library = Alone()
    bench = Bench(library, world=1)
    case = {
        **{"collective": collective, "count": 4, "itemsize": 4, "dtype": "float32"},
        **{"op": "sum" if collective == "all-reduce" else "", "placement": IN_PLACE},
    }
    way = {"algorithm": "auto", "mode": "call", "arrays": "private"}

    prepared = bench.obey({"do": "prepare", "case": case, "variant": way, "is_checked": True})
    before = library.barriers
    measured = bench.obey({"do": "measure", "variant": way, "iterations": 6})

    assert prepared["one_ns"] >= 0
    assert len(measured["times_ns"]) == 6
    assert library.barriers - before == (1 if collective == "all-reduce" else 1 + 6)
    assert bench.obey({"do": "release"}) == {}


def test_calls_are_timed_one_by_one_and_the_barrier_is_not() -> None:
    said: list[str] = []

    times_ns = time_calls(lambda: said.append("call"), 3, lambda: said.append("barrier"))

    assert said == ["barrier", "call"] * 3
    assert len(times_ns) == 3
    assert all(time_ns >= 0 for time_ns in times_ns)
