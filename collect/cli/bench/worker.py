"""One member of a measured world: takes orders from a socket, answers with times.

Every order and every answer is one JSON object a line. Between orders a worker is blocked in a read
of its socket, so that it costs nothing while another library is measured; when the socket's other
end goes, so does the worker.

    prepare {"case", "variant", "is_checked"}  -> {"one_ns"} or {"unavailable": "reason"}
    measure {"variant", "iterations"}          -> {"times_ns": […]}
    release {}                                 -> {}
"""

from __future__ import annotations

import argparse
import contextlib
import json
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

from collect.cli.bench.cases import COLLECTIVES, Case, Variant
from collect.cli.bench.libraries import Call, Library, Membership, Unavailable, open_library
from collect.cli.bench.operands import Operands, is_fixed_point
from collect.errors import InvalidArgument

EXIT_OK, EXIT_FAILED = 0, 1
CALIBRATION_ITERATIONS = 5
WARM_UP_ITERATIONS = 3
CONNECT_S = 20.0


class Bench:
    """Carries out orders with one library."""

    def __init__(self, library: Library, world: int) -> None:
        self._library = library
        self._world = world
        self._operands: dict[str, Operands] = {}  # by where the arrays lie
        self._calls: dict[Variant, Call] = {}
        self._case: Case | None = None

    def obey(self, order: dict[str, Any]) -> dict[str, Any]:
        """Carries out one order; the answer."""
        what = order["do"]
        if what == "release":
            self._release()
            return {}
        variant = Variant(**order["variant"])
        if what == "measure":
            return {"times_ns": self._measure(variant, order["iterations"])}
        try:
            return {"one_ns": self._prepare(Case(**order["case"]), variant, order["is_checked"])}
        except (Unavailable, InvalidArgument) as error:
            return {"unavailable": str(error)}

    def _prepare(self, case: Case, variant: Variant, is_checked: bool) -> int:
        self._case = case
        if variant.arrays not in self._operands:
            self._operands[variant.arrays] = Operands(
                case,
                self._library.rank,
                self._world,
                lambda count, dtype: self._library.make(count, dtype, variant.arrays),
            )
        operands = self._operands[variant.arrays]
        call = self._calls[variant] = self._library.prepare(operands, variant)
        operands.fill()
        self._library.barrier()
        call()
        if is_checked:
            check(operands)
        if not is_fixed_point(case):
            operands.clear()
        times_ns = sorted(self._measure(variant, CALIBRATION_ITERATIONS, is_checked=False))
        return times_ns[len(times_ns) // 2]

    def _measure(self, variant: Variant, iterations: int, *, is_checked: bool = True) -> list[int]:
        assert self._case is not None
        kind, call = COLLECTIVES[self._case.collective], self._calls[variant]
        barrier = None if kind.is_synchronising else self._library.barrier
        self._library.barrier()
        for _ in range(WARM_UP_ITERATIONS):
            call()
        times_ns = time_calls(call, iterations, barrier)
        if is_checked and is_fixed_point(self._case):
            check(self._operands[variant.arrays])
        return times_ns

    def _release(self) -> None:
        self._library.release()
        self._calls.clear()
        self._operands.clear()


def check(operands: Operands) -> None:
    """Raises ArithmeticError unless the result is what it must be."""
    if wrong := operands.wrong():
        raise ArithmeticError(f"{operands.case.collective}: {wrong} elements are wrong")


def time_calls(
    call: Call, iterations: int, barrier: Callable[[], object] | None = None
) -> list[int]:
    """Nanoseconds of each call, and nothing of the barrier before it."""
    clock = time.perf_counter_ns
    times_ns = [0] * iterations
    if barrier is None:
        for index in range(iterations):
            begun_ns = clock()
            call()
            times_ns[index] = clock() - begun_ns
        return times_ns
    for index in range(iterations):
        barrier()
        begun_ns = clock()
        call()
        times_ns[index] = clock() - begun_ns
    return times_ns


def main() -> int:
    orders_path, membership = _parse_arguments()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(CONNECT_S)
        connection.connect(orders_path)
        connection.settimeout(None)  # orders come when they come; the end of the giver is seen
        with connection.makefile("rw") as stream:

            def say(answer: dict[str, Any]) -> None:
                stream.write(f"{json.dumps(answer)}\n")
                stream.flush()

            try:
                library = open_library(membership)
                say({"rank": library.rank, "version": library.version})
                bench = Bench(library, membership.world)
                for line in stream:
                    say(bench.obey(json.loads(line)))
                library.close()
            except Exception as error:
                # Whatever it is, the one who gave the order is told, and ends the run.
                with contextlib.suppress(OSError):
                    say({"error": f"{type(error).__name__}: {error}"})
                return EXIT_FAILED
    return EXIT_OK


def _parse_arguments() -> tuple[str, Membership]:
    parser = argparse.ArgumentParser(prog="python -m collect.cli.bench.worker")
    parser.add_argument("--orders", required=True)
    parser.add_argument("--library", required=True)
    parser.add_argument("--transport", required=True)
    parser.add_argument("--meeting", required=True)
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--world", type=int, required=True)
    parser.add_argument("--streams", type=int, required=True)
    parser.add_argument("--algorithm", required=True)
    values = vars(parser.parse_args())
    return values.pop("orders"), Membership(**values)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
