"""The stress test with real processes: its faults happen, and its verdict is told."""

import json
import signal
import subprocess
import time
from pathlib import Path

from collect.cli.stress.faults import FAULTS
from tests.e2e.command import ROOT, collect_command, run_collect


def test_every_fault_once_leaves_a_history_that_is_explained(tmp_path: Path) -> None:
    scenario, report = tmp_path / "scenario.toml", tmp_path / "report.json"
    moments = [f'[[at]]\nsecond = 0\nfault = "{name}"\n' for name in FAULTS]
    scenario.write_text('transport = "tcp"\npeers = 4\ntimeout = 0.5\n' + "".join(moments))

    done = run_collect(
        *("stress", "--scenario", str(scenario), "--seed", "3", "--report", str(report))
    )

    told = json.loads(report.read_text())
    assert done.returncode == 0
    assert told["is_good"]
    assert told["faults"] == dict.fromkeys(sorted(FAULTS), 1)
    assert told["operations"] > 100
    assert told["recoveries"]["kill"]["count"] >= 1
    assert "to play these faults again: collect stress --seed 3" in done.stdout
    assert "\x1b" not in done.stdout


def test_the_same_over_shared_memory() -> None:
    done = run_collect("stress", "--minutes", "0.1", "--seed", "4", "--peers", "3", "--quiet")

    assert done.returncode == 0
    assert "one history" in done.stdout
    assert "fault 1," not in done.stdout


def test_a_signal_ends_it_and_all_its_processes(tmp_path: Path) -> None:
    with subprocess.Popen(
        collect_command("stress", "--seed", "1", "--logs", str(tmp_path)),
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            if " fault 1," in line:
                break
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        errors = process.stderr.read()

    assert process.returncode == 130
    assert "Traceback" not in errors
    assert len(children) >= 4
    deadline_s = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in children):
        assert time.monotonic() < deadline_s, children
        time.sleep(0.02)
