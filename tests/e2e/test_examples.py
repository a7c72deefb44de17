"""The examples run as their first lines say, and check themselves."""

import subprocess
import sys

import pytest

from tests.e2e.command import ROOT, run_collect

EXAMPLES = sorted(path.name for path in (ROOT / "examples").glob("[0-9]*.py"))


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_short(name: str) -> None:
    assert len((ROOT / "examples" / name).read_text().splitlines()) < 60


def test_all_reduce_sums_over_all_peers() -> None:
    done = run_collect("run", "-n", "4", "examples/01_all_reduce.py")

    assert done.returncode == 0
    for rank in range(4):
        assert f"rank {rank} of 4" in done.stdout


def test_all_reduce_runs_by_hand() -> None:
    done = subprocess.run(
        [sys.executable, "examples/01_all_reduce.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "rank 0 of 1" in done.stdout


def test_three_of_four_survive_a_death() -> None:
    done = run_collect("run", "-n", "4", "examples/02_survive_a_death.py")

    assert done.returncode == 137
    assert done.stdout.count("200 rounds done, 3 peers left") == 3
    assert done.stderr.count("killed by SIGKILL") == 1


def test_late_peers_get_the_whole_state() -> None:
    done = run_collect("run", "-n", "3", "examples/03_join_late.py")

    assert done.returncode == 0
    assert done.stdout.count("the vector is complete") == 3
    assert done.stdout.count("starts at step 0 ") == 1
