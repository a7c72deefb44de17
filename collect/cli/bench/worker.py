"""One member of a measured world: takes orders from its input, answers with times.

An order is one JSON object a line: {"size_bytes", "warm_up", "iterations", "verify"}. The answer is
{"times_ns": [...]} or {"error": "..."}.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from collect.cli.bench.libraries import Library, WorkerOptions, open_library

EXIT_OK, EXIT_FAILED = 0, 1
PATTERN_LENGTH = 5  # of small whole numbers: their sums are exact in every type


def main() -> int:
    options, dtype = _parse_arguments()
    try:
        library = open_library(options)
        _say({"ready": True})
        for line in sys.stdin:
            order = json.loads(line)
            count = max(order["size_bytes"] // dtype.itemsize, 1)
            if order["verify"]:
                verify(library, options, count, dtype)
            times_ns = measure(library, count, dtype, order["warm_up"], order["iterations"])
            _say({"times_ns": times_ns})
        library.close()
    except Exception as error:
        # Whatever it is, the one who gave the order is told, and ends the run.
        _say({"error": f"{type(error).__name__}: {error}"})
        return EXIT_FAILED
    return EXIT_OK


def verify(library: Library, options: WorkerOptions, count: int, dtype: np.dtype[Any]) -> None:
    """One all-reduce whose sum is known."""
    expected: npt.NDArray[Any] = sum(
        (pattern(rank, count, dtype) for rank in range(options.world)), np.zeros(count, dtype)
    )
    array = pattern(options.rank, count, dtype)
    library.prepare(array)()
    if not np.array_equal(array, expected):
        wrong = int((array != expected).sum())
        raise ArithmeticError(f"{wrong} of {count} elements of the sum are wrong")


def pattern(rank: int, count: int, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """What `rank` adds: 0…4, 0…4, … from another start on every rank."""
    return ((np.arange(count) + rank) % PATTERN_LENGTH).astype(dtype)


def measure(
    library: Library, count: int, dtype: np.dtype[Any], warm_up: int, iterations: int
) -> list[int]:
    """Nanoseconds of each in-place all-reduce. The array holds zeros, whose sums stay zeros."""
    array = np.zeros(count, dtype)
    call = library.prepare(array)
    for _ in range(warm_up):
        call()
    times_ns = []
    for _ in range(iterations):
        begun_ns = time.perf_counter_ns()
        call()
        times_ns.append(time.perf_counter_ns() - begun_ns)
    return times_ns


def _say(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


def _parse_arguments() -> tuple[WorkerOptions, np.dtype[Any]]:
    parser = argparse.ArgumentParser(prog="python -m collect.cli.bench.worker")
    parser.add_argument("--library", required=True)
    parser.add_argument("--meeting", required=True)
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--world", type=int, required=True)
    parser.add_argument("--streams", type=int, required=True)
    parser.add_argument("--algorithm", required=True)
    parser.add_argument("--dtype", required=True)
    values = vars(parser.parse_args())
    dtype = np.dtype(values.pop("dtype"))
    return WorkerOptions(**values), dtype


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
