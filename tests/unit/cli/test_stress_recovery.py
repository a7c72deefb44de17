"""How long faults held the others up, and the verdict that tells it."""

import argparse
import json
import time
from pathlib import Path

import pytest

from collect.cli import main, stress
from collect.cli.stress.recovery import Recoveries, percentile
from collect.cli.stress.world import Failure
from collect.net.loop_thread import new_event_loop

# libuv keeps a pipe for signals from its first loop on; it is no leak of the first test that runs.
new_event_loop().close()


def test_a_recovery_ends_on_the_last_member_that_goes_on() -> None:
    recoveries = Recoveries()
    before_ns = time.monotonic_ns()
    recoveries.begin("kill", {"a", "b"})
    after_ns = time.monotonic_ns()

    recoveries.completed("a", before_ns - 1, 0.1)  # completed before the fault, told after it
    recoveries.completed("a", after_ns + 5_000_000, 0.1)
    assert recoveries.summaries() == []
    recoveries.completed("b", after_ns + 20_000_000, 0.3)

    (summary,) = recoveries.summaries()
    assert (summary.kind, summary.count) == ("kill", 1)
    assert 0.02 <= summary.max_s <= 0.02 + (after_ns - before_ns) / 1e9
    assert recoveries.longest_s == 0.3
    assert recoveries.usual() == 0.1


def test_who_is_gone_is_not_waited_for() -> None:
    recoveries = Recoveries()
    recoveries.begin("kill", {"a", "b"})
    recoveries.completed("a", time.monotonic_ns(), 0.1)

    recoveries.is_over("b")

    assert [each.count for each in recoveries.summaries()] == [1]


def test_a_fault_that_nobody_survives_has_no_recovery() -> None:
    recoveries = Recoveries()
    recoveries.begin("kill", {"a"})
    recoveries.is_over("a")
    recoveries.begin("kill", set())

    assert recoveries.summaries() == []


def test_percentiles_are_nearest_ranks() -> None:
    values = [float(value) for value in range(100, 0, -1)]

    assert [percentile(values, each) for each in (50, 90, 99)] == [50.0, 90.0, 99.0]
    assert percentile([7.0], 99) == 7.0


def test_what_is_found_wrong_is_told_with_the_logs_and_how_to_play_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(_progress: object) -> None:
        raise Failure("p3 has not moved for 10 s")

    monkeypatch.setattr(stress, "churn", fails)
    report, logs = tmp_path / "report.json", tmp_path / "logs"

    status = main(["stress", "--seed", "7", "--report", str(report), "--logs", str(logs)])

    out = capsys.readouterr().out
    told = json.loads(report.read_text())
    assert status == stress.EXIT_FAILED
    assert "FAILED: after 0 faults: p3 has not moved for 10 s" in out
    assert f"logs are in {logs}" in out
    assert "collect stress --seed 7 --peers 5" in out
    assert (told["is_good"], told["seed"]) == (False, 7)
    assert "p3 has not moved" in told["reason"]
    assert (logs / "stacks.txt").exists()


def test_the_command_line_wins_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "scenario.toml"
    path.write_text("peers = 4\nminutes = 2\n")
    parser = argparse.ArgumentParser()
    stress.add_arguments(parser)

    scenario = stress._scenario(parser.parse_args(["--scenario", str(path), "--minutes", "3"]))

    assert (scenario.peers, scenario.minutes) == (4, 3.0)
