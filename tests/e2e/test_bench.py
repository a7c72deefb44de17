"""Short benchmarks: every result is checked and has figures. No figure is judged."""

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.command import run_collect


def figures_in(path: Path) -> list[dict[str, Any]]:
    figures: list[dict[str, Any]] = json.loads(path.read_text())["figures"]
    return figures


@pytest.mark.parametrize("algorithm", ["direct", "ring", "star"])
def test_every_size_is_measured(algorithm: str, tmp_path: Path) -> None:
    path = tmp_path / "figures.json"

    done = run_collect(
        *("bench", "all-reduce", "--worlds", "2,3", "--sizes", "8,1KiB:1MiB"),
        *("--seconds", "0.05", "--algorithms", algorithm, "--json", str(path)),
    )

    figures = figures_in(path)
    assert done.returncode == 0
    assert len(figures) == 2 * 7
    assert all(0 < each["min_s"] <= each["median_s"] <= each["p99_s"] for each in figures)
    assert "1 MiB" in done.stdout


def test_every_collective_there_is_gives_right_results(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"

    done = run_collect(
        *("bench", "all", "--worlds", "2", "--sizes", "8,64KiB", "--dtypes", "int32,float64"),
        *("--ops", "sum,max", "--both", "--iterations", "4", "--rounds", "2", "--json", str(path)),
    )

    figures = figures_in(path)
    assert done.returncode == 0
    assert {"all-reduce", "barrier"} <= {each["collective"] for each in figures}
    assert {each["placement"] for each in figures} == {"in-place", "out-of-place"}
    assert {each["iterations"] for each in figures} == {4}


def test_a_fixed_number_of_iterations_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"

    done = run_collect(
        *("bench", "all-reduce", "--worlds", "2", "--sizes", "64", "--iterations", "7"),
        *("--streams", "2", "--dtypes", "int64", "--no-check", "--json", str(path)),
    )

    (figures,) = figures_in(path)
    assert done.returncode == 0
    assert figures["iterations"] == 7


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
def test_gloo_takes_turns_with_collect(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"

    done = run_collect(
        *("bench", "all-reduce", "--worlds", "2", "--sizes", "1KiB", "--seconds", "0.1"),
        *("--against", "gloo", "--json", str(path)),
    )

    figures = figures_in(path)
    assert done.returncode == 0
    assert [each["library"] for each in figures] == ["collect", "gloo"]
    assert {len(each["rounds_median_s"]) for each in figures} == {5}


@pytest.mark.skipif(
    importlib.util.find_spec("mpi4py") is None or shutil.which("mpiexec") is None,
    reason="mpi4py or an MPI is not installed",
)
def test_whichever_mpi_there_is_takes_turns_with_collect(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"

    done = run_collect(
        *("bench", "all-reduce", "--worlds", "2", "--sizes", "1KiB", "--seconds", "0.1"),
        *("--against", "mpi", "--json", str(path)),
    )

    assert done.returncode == 0
    assert {each["library"] for each in figures_in(path)} == {"collect", "mpi"}


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_the_limits_of_the_machine_are_measured(tmp_path: Path) -> None:
    path = tmp_path / "limits.json"

    done = run_collect("bench", "--limits", "--json", str(path))

    limits = json.loads(path.read_text())["limits"]
    assert done.returncode == 0
    assert "memcpy of 64 MiB" in done.stdout
    assert all(value > 0 for name, value in limits.items() if name != "stream_reno")
