"""The demo with real processes: it is killed, stopped and joined, and nothing is lost."""

import json
import signal
import subprocess
from pathlib import Path

import pytest

from tests.e2e.command import ROOT, collect_command, run_collect


@pytest.mark.parametrize("seed", [0, 1])
def test_training_survives_a_kill_a_stop_and_a_join(seed: int, tmp_path: Path) -> None:
    path = tmp_path / "report.json"

    done = run_collect(
        *("demo", "--timeout", "0.5", "--pace", "0.034"),
        *("--seed", str(seed), "--report", str(path)),
    )

    report = json.loads(path.read_text())
    recoveries = {recovery["event"]: recovery for recovery in report["recoveries"]}
    assert report["problems"] == []
    assert report["steps_lost"] == 0
    assert done.returncode == 0
    assert len(report["results"]) == 4
    assert len({result["digest"] for result in report["results"]}) == 1
    assert all(result["parameters_difference"] < 1e-9 for result in report["results"])
    assert set(recoveries) == {"kill", "stop", "return", "join"}
    # A death is seen by its closed sockets, not by silence; a stop only by silence.
    # A stop shows only by silence; on idle links the last word is up to a heartbeat older.
    assert recoveries["kill"]["recovered_s"] < 0.5
    assert recoveries["stop"]["recovered_s"] > 0.35
    assert "\x1b" not in done.stdout


def test_training_without_faults_is_short_and_quiet() -> None:
    done = run_collect("demo", "--no-faults", "--quiet", "--peers", "2", "--steps", "200")

    assert done.returncode == 0
    assert "bit for bit" in done.stdout
    assert "joined" not in done.stdout


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_demo_and_all_its_processes(number: signal.Signals, status: int) -> None:
    with subprocess.Popen(
        collect_command("demo"),
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        pids = _pids_when_training(process)
        process.send_signal(number)
        process.stdout.read()
        errors = process.stderr.read()

    assert process.returncode == status
    assert "Traceback" not in errors
    assert len(pids) >= 5
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def _pids_when_training(process: subprocess.Popen[str]) -> list[str]:
    """The demo's children, once all peers have said that they joined."""
    assert process.stdout is not None
    joined = 0
    for line in process.stdout:
        joined += "joined: rank" in line
        if joined == 4:
            break
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return children.split()
