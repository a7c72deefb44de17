"""Every peer gives its own array; every peer gets the sum.

    collect run -n 4 examples/01_all_reduce.py

By itself, `python examples/01_all_reduce.py` is a group of one with a coordinator of its own.
"""

import numpy as np

import collect


def main() -> None:
    with collect.join() as group:
        mine = np.arange(1_000_000, dtype=np.float32) + group.rank

        result = group.all_reduce(mine)  # in place: `mine` now holds the sum

        others = sum(range(group.size))  # every rank added its own number
        expected = np.arange(1_000_000, dtype=np.float32) * group.size + others
        assert np.array_equal(mine, expected)
        print(
            f"rank {group.rank} of {group.size}: sum {mine[:4]}… over "
            f"{', '.join(result.participants)} in {result.duration_s * 1e3:.2f} ms"
        )


if __name__ == "__main__":
    main()
