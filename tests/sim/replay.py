"""Replays seeds: `python -m tests.sim.replay --seed N --trace` prints a timeline.

`--seeds A B` runs a range and reports failures and seeds per second.
"""

import argparse
import sys
import time

from tests.sim.scenario import Failure, simulate


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--seeds", type=int, nargs=2, metavar=("FIRST", "END"))
    parser.add_argument("--trace", action="store_true")
    arguments = parser.parse_args()
    first, end = arguments.seeds or (arguments.seed, arguments.seed + 1)
    started, failures, events = time.perf_counter(), 0, 0
    for seed in range(first, end):
        try:
            world = simulate(seed, trace=arguments.trace)
        except Failure as failure:
            failures += 1
            print(failure)
            world = failure.world  # type: ignore[attr-defined]
        events += world.events
        if world.timeline is not None:
            print("\n".join(world.timeline))
    took_s = time.perf_counter() - started
    count = end - first
    print(f"{count} seeds, {failures} failed, {events} events in {took_s:.1f} s")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
