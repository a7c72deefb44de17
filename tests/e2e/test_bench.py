"""A short benchmark: every size is verified and has figures. No figure is judged."""

import importlib.util
import json
from pathlib import Path

import pytest

from tests.e2e.command import run_collect


@pytest.mark.parametrize("algorithm", ["direct", "ring", "star"])
def test_every_size_is_measured(algorithm: str, tmp_path: Path) -> None:
    path = tmp_path / "figures.json"

    done = run_collect(
        *("bench", "all-reduce", "--world", "2", "3", "--sizes", "8", "1Ki..1Mi"),
        *("--budget", "0.05", "--algorithm", algorithm, "--json", str(path)),
    )

    figures = json.loads(path.read_text())["figures"]
    assert done.returncode == 0
    assert len(figures) == 2 * 7
    assert all(0 < each["median_s"] <= each["p95_s"] for each in figures)
    assert "1 MiB" in done.stdout


def test_a_fixed_number_of_iterations_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"

    done = run_collect(
        *("bench", "all-reduce", "--world", "2", "--sizes", "64", "--iterations", "7"),
        *("--streams", "2", "--dtype", "int64", "--json", str(path)),
    )

    (figures,) = json.loads(path.read_text())["figures"]
    assert done.returncode == 0
    assert figures["iterations"] == 7


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
def test_gloo_takes_turns_with_collect(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"

    done = run_collect(
        *("bench", "all-reduce", "--world", "2", "--sizes", "1Ki", "--budget", "0.1"),
        *("--compare", "gloo", "--json", str(path)),
    )

    libraries = [each["library"] for each in json.loads(path.read_text())["figures"]]
    assert done.returncode == 0
    assert libraries == ["collect", "gloo"]
