"""Figures of the benchmark, after the definitions of nccl-tests."""

import argparse

import numpy as np
import pytest

from collect.cli.bench.figures import (
    ITERATIONS_MAX,
    ITERATIONS_MIN,
    iterations_for,
    size_text,
    sizes,
    sum_up,
    time_text,
)
from collect.cli.bench.worker import pattern
from collect.cli.usage import byte_count


def test_bandwidths_follow_their_definitions() -> None:
    figures = sum_up("collect", world=4, size_bytes=1 << 20, times_ns=[1_000_000] * 40)

    assert figures.iterations == 10
    assert figures.median_s == pytest.approx(1e-3)
    assert figures.algorithm_bytes_per_s == pytest.approx((1 << 20) / 1e-3)
    assert figures.bus_bytes_per_s == pytest.approx(1.5 * (1 << 20) / 1e-3)


def test_a_few_slow_ones_move_the_95th_percentile_and_not_the_median() -> None:
    figures = sum_up("collect", world=2, size_bytes=8, times_ns=[1000] * 90 + [9000] * 10)

    assert figures.median_s == pytest.approx(1e-6)
    assert figures.p95_s == pytest.approx(9e-6)


def test_iterations_fit_the_budget_within_limits() -> None:
    assert iterations_for(one_s=0.01, budget_s=1.0) == 100
    assert iterations_for(one_s=10.0, budget_s=1.0) == ITERATIONS_MIN
    assert iterations_for(one_s=1e-6, budget_s=1.0) == ITERATIONS_MAX
    assert iterations_for(one_s=0.0, budget_s=1.0) == ITERATIONS_MAX


def test_sizes_are_single_or_ranges() -> None:
    assert sizes("64Ki") == [65536]
    assert sizes("8..512") == [8, 32, 128, 512]
    assert sizes("8..100") == [8, 32, 100]
    assert sizes("8..128Mi")[-1] == 128 << 20
    with pytest.raises(argparse.ArgumentTypeError):
        sizes("9..8")


@pytest.mark.parametrize(
    ("text", "count"),
    [("8", 8), ("4Ki", 4096), ("4KiB", 4096), ("1M", 10**6), ("2gi", 2 << 30), ("3k", 3000)],
)
def test_byte_counts_are_read(text: str, count: int) -> None:
    assert byte_count(text) == count


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5Mi", "Ki", "8 Ki", "8Xi", "1e3", "8i"])
def test_what_is_no_byte_count_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        byte_count(text)


def test_sizes_and_times_are_written_for_people() -> None:
    assert [size_text(size) for size in (8, 4096, 6144, 4097, 128 << 20)] == [
        "8 B",
        "4 KiB",
        "6 KiB",
        "4097 B",
        "128 MiB",
    ]
    assert [time_text(time) for time in (12.3e-6, 4.5e-3, 2.0)] == ["12.3 us", "4.50 ms", "2.00 s"]


@pytest.mark.parametrize("dtype", ["int32", "float32", "float64"])
def test_the_pattern_has_a_sum_that_every_type_holds(dtype: str) -> None:
    parts = [pattern(rank, 100, np.dtype(dtype)) for rank in range(16)]

    exact = sum(part.astype(np.float64) for part in parts)

    assert np.array_equal(sum(parts, np.zeros(100, dtype)), exact)
    assert not np.array_equal(parts[0], parts[1])
