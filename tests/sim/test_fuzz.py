"""A thousand worlds with faults, and the mutants that prove the oracle awake.

A failing seed prints the command that replays it. Found ones are kept in tests/sim/seeds.
"""

from pathlib import Path

import pytest

from tests.sim.mutants import MUTANTS
from tests.sim.scenario import Failure, simulate
from tests.sim.world import Kinds

SEEDS = 1000
BATCHES = 10
MUTANT_SEEDS = SEEDS
KEPT = Path(__file__).parent / "seeds" / "kept.txt"


def kept_seeds() -> list[int]:
    lines = KEPT.read_text().splitlines()
    return [int(line.split()[0]) for line in lines if line and not line.startswith("#")]


def simulate_all(seeds: range, kinds: Kinds | None = None) -> None:
    for seed in seeds:
        simulate(seed, kinds)


@pytest.mark.parametrize("batch", range(BATCHES))
def test_members_agree_and_go_on_whatever_happens(batch: int) -> None:
    simulate_all(range(batch * SEEDS // BATCHES, (batch + 1) * SEEDS // BATCHES))


@pytest.mark.parametrize("seed", kept_seeds())
def test_a_seed_that_once_failed_passes(seed: int) -> None:
    simulate(seed)


@pytest.mark.parametrize("name", MUTANTS)
def test_a_broken_protocol_is_caught(name: str) -> None:
    with MUTANTS[name]() as kinds, pytest.raises(Failure):
        simulate_all(range(MUTANT_SEEDS), kinds)


def test_a_seed_determines_the_world() -> None:
    first, second = simulate(5, trace=True), simulate(5, trace=True)

    assert first.timeline == second.timeline
