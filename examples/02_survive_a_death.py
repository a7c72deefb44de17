"""One peer is killed while all are at work. The others' sums go on, complete and equal.

    collect run -n 4 examples/02_survive_a_death.py

Every peer adds the power of two of its rank, so a sum tells who is in it. The command ends with
status 137: one peer was killed, as asked. Its absence is no error to the others.
"""

import os
import signal

import numpy as np

import collect

ROUNDS = 200
DEATH_ROUND = 100


def main() -> None:
    with collect.join() as group:
        # Ranks change when somebody is lost; the first ones are kept as names for bits.
        bit_of = {peer.name: 2.0**peer.rank for peer in group.peers}
        victim = group.peers[-1].name
        for round_index in range(ROUNDS):
            if round_index == DEATH_ROUND and group.name == victim and len(bit_of) > 1:
                print("dies", flush=True)
                os.kill(os.getpid(), signal.SIGKILL)

            array = np.full(250_000, bit_of[group.name])
            result = group.all_reduce(array)

            assert (array == sum(bit_of[name] for name in result.participants)).all()
            if result.attempts > 1 or len(result.participants) != len(bit_of):
                text = f"round {round_index}: goes on with {', '.join(result.participants)}"
                print(f"{text} after {result.duration_s * 1e3:.1f} ms")
                bit_of = {name: bit_of[name] for name in result.participants}
        print(f"{ROUNDS} rounds done, {group.size} peers left")


if __name__ == "__main__":
    main()
