"""Every peer gives its own array; every peer gets the sum.

    collect run -n 4 examples/01_all_reduce.py

By itself, `python examples/01_all_reduce.py` is a group of one with a coordinator of its own.
"""

import numpy as np

import collect


def main() -> None:
    with collect.join() as group:
        # Asked once: when the sum is done, others may leave, and `group` then counts without them.
        rank, size = group.rank, group.size
        mine = np.arange(1_000_000, dtype=np.float32) + rank

        result = group.all_reduce(mine)  # in place: `mine` now holds the sum

        others = sum(range(size))  # every rank added its own number
        expected = np.arange(1_000_000, dtype=np.float32) * size + others
        assert np.array_equal(mine, expected)
        print(
            f"rank {rank} of {size}: sum {mine[:4]}… over "
            f"{', '.join(result.participants)} in {result.duration_s * 1e3:.2f} ms"
        )


if __name__ == "__main__":
    main()
