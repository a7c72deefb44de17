"""A thousand worlds with faults, hundreds more with sub-groups, and the mutants that prove the
oracle awake.

A failing seed prints the command that replays it. Found ones are kept in tests/sim/seeds.
"""

from pathlib import Path

import pytest

from tests.sim.mutants import MUTANTS, SCOPE_MUTANTS
from tests.sim.scenario import Failure, simulate
from tests.sim.scopes import SEEDS_FROM
from tests.sim.world import Kinds

SEEDS = 1000
BATCHES = 10
SCOPE_SEEDS = 400
SCOPE_BATCHES = 5
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


@pytest.mark.parametrize("batch", range(SCOPE_BATCHES))
def test_so_do_the_members_of_sub_groups(batch: int) -> None:
    begin = SEEDS_FROM + batch * SCOPE_SEEDS // SCOPE_BATCHES
    simulate_all(range(begin, begin + SCOPE_SEEDS // SCOPE_BATCHES))


@pytest.mark.parametrize("seed", kept_seeds())
def test_a_seed_that_once_failed_passes(seed: int) -> None:
    simulate(seed)


@pytest.mark.parametrize("name", MUTANTS)
def test_a_broken_protocol_is_caught(name: str) -> None:
    with MUTANTS[name]() as kinds, pytest.raises(Failure):
        simulate_all(range(MUTANT_SEEDS), kinds)


@pytest.mark.parametrize("name", SCOPE_MUTANTS)
def test_a_protocol_that_is_broken_for_sub_groups_is_caught(name: str) -> None:
    with SCOPE_MUTANTS[name]() as kinds, pytest.raises(Failure):
        simulate_all(range(SEEDS_FROM, SEEDS_FROM + MUTANT_SEEDS), kinds)


def test_a_seed_determines_the_world() -> None:
    first, second = simulate(5, trace=True), simulate(5, trace=True)

    assert first.timeline == second.timeline
