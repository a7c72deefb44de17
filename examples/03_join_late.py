"""Peers come one after the other, get the state of those who are there, and go on with them.

    collect run -n 3 examples/03_join_late.py

The state is a vector and a step counter. `admit` lets newcomers in, between steps, and brings their
arrays in step with the others'.
"""

import os
import time

import numpy as np

import collect

STEPS = 120
STEP_S = 0.03
LATE_S = 0.7  # between one peer's start and the next


def main() -> None:
    index = int(os.environ.get("COLLECT_NAME", "peer-0").rpartition("-")[2])
    time.sleep(index * LATE_S)
    state = {"vector": np.zeros(1000), "step": np.zeros(1, dtype=np.int64)}

    with collect.join(min_peers=1, admit="manual") as group:
        first = None
        while True:
            admission = group.admit(state)
            step = int(state["step"][0])
            if admission.received or first is None:
                first = step
                print(f"starts at step {step} as rank {group.rank} of {group.size}", flush=True)
            if step == STEPS:
                break
            time.sleep(STEP_S)
            ones = np.ones(1000)
            result = group.all_reduce(ones, op="avg")
            state["vector"] += ones
            state["step"] += 1
            assert group.name in result.participants
        # Those who came late have the whole sum too, although they saw only the end of it.
        assert (state["vector"] == STEPS).all()
        print(f"took part in {STEPS - first} of {STEPS} steps; the vector is complete")


if __name__ == "__main__":
    main()
