"""Figures of the benchmark, after the definitions of nccl-tests."""

import numpy as np
import pytest

from collect.cli.bench.cases import COLLECTIVES, Case, Variant, bus_factor, element_count
from collect.cli.bench.figures import (
    ITERATIONS_MAX,
    ITERATIONS_MIN,
    Figures,
    best,
    iterations_for,
    operation_times,
    shares,
    size_text,
    sum_up,
    time_text,
)

CASE = Case("all-reduce", 1 << 18, 4, "float32", "sum", "in-place")


def figures_of(*rounds_s: list[float]) -> Figures:
    rounds = [np.asarray(each) for each in rounds_s]
    return sum_up(("collect", "tcp"), 4, CASE, Variant(), rounds)


def test_bandwidths_follow_their_definitions() -> None:
    figures = figures_of([1e-3] * 10)

    assert figures.iterations == 10
    assert figures.algorithm_bytes_per_s == pytest.approx((1 << 20) / 1e-3)
    assert figures.bus_bytes_per_s == pytest.approx(1.5 * (1 << 20) / 1e-3)


@pytest.mark.parametrize(
    ("collective", "factor"),
    [
        ("all-reduce", 1.75),
        ("reduce-scatter", 0.875),
        ("all-gather", 0.875),
        ("all-to-all", 0.875),
        ("gather", 0.875),
        ("scatter", 0.875),
        ("broadcast", 1.0),
        ("reduce", 1.0),
        ("send-recv", 1.0),
    ],
)
def test_the_bus_factor_of_eight_members(collective: str, factor: float) -> None:
    assert bus_factor(collective, 8) == factor


@pytest.mark.parametrize("collective", COLLECTIVES)
def test_a_size_is_rounded_up_to_whole_blocks(collective: str) -> None:
    count = element_count(collective, 8, 4, 3)

    blocks = 3 if COLLECTIVES[collective].has_blocks else 1
    assert count == (0 if collective == "barrier" else 3 if blocks == 3 else 2)
    assert element_count(collective, 3 << 20, 4, 3) in (0, 3 << 18)


def test_minimum_median_and_99th_percentile_are_of_all_rounds() -> None:
    figures = figures_of([1e-6] * 97 + [0.5e-6], [9e-6] * 2)

    assert figures.min_s == 0.5e-6
    assert figures.median_s == 1e-6
    assert figures.p99_s == pytest.approx(9e-6, rel=0.01)
    assert figures.rounds_s == (1e-6, 9e-6)


def test_where_all_wait_for_all_an_operation_takes_the_mean_of_the_ranks() -> None:
    assert operation_times("all-reduce", [[1000, 3000], [3000, 1000]]).tolist() == [2e-6, 2e-6]


def test_where_one_may_be_done_before_the_others_the_last_one_counts() -> None:
    assert operation_times("broadcast", [[100, 900], [3000, 1000]]).tolist() == [3e-6, 1e-6]


def test_the_best_of_a_peers_ways_has_the_lowest_median() -> None:
    slow, fast = figures_of([3.0, 3.0, 0.1]), figures_of([2.0])

    assert best([slow, fast]) is fast
    assert best([]) is None


def test_iterations_fit_the_budget_within_limits() -> None:
    assert iterations_for(one_s=0.01, budget_s=1.0) == 100
    assert iterations_for(one_s=10.0, budget_s=1.0) == ITERATIONS_MIN
    assert iterations_for(one_s=1e-6, budget_s=1.0) == ITERATIONS_MAX
    assert iterations_for(one_s=0.0, budget_s=1.0) == ITERATIONS_MAX


def test_rounds_share_the_iterations() -> None:
    assert shares(10, 4) == [3, 3, 2, 2]
    assert shares(2, 5) == [1, 1]


def test_sizes_and_times_are_written_for_people() -> None:
    assert [size_text(size) for size in (0, 8, 4096, 6144, 4097, 128 << 20)] == [
        *("0 B", "8 B", "4 KiB", "6 KiB", "4097 B", "128 MiB")
    ]
    assert [time_text(time) for time in (1.234e-6, 12.3e-6, 4.5e-3, 2.0)] == [
        *("1.23 us", "12.3 us", "4.50 ms", "2.00 s")
    ]
