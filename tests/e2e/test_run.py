"""`collect run` with real processes: output, exit statuses, signals."""

import signal
import subprocess
from pathlib import Path

import pytest

from tests.e2e.command import ROOT, collect_command, run_collect

TALKER = """
import os, sys
name = os.environ["COLLECT_NAME"]
for number in range(500):
    print(name, number)
    print(name, number, file=sys.stderr)
sys.stdout.write(f"{name} last words")
"""
DIES = """
import os, signal, sys
if os.environ["COLLECT_NAME"] == "peer-1":
    os.kill(os.getpid(), signal.SIGKILL)
sys.stdin.read()
print("went on")
"""
WAITS = """
import signal
print("waits", flush=True)
signal.pause()
"""
IGNORES = """
import signal
signal.signal(signal.SIGINT, lambda *_: print("waits on", flush=True))
print("waits", flush=True)
while True:
    signal.pause()
"""


@pytest.fixture
def write(tmp_path: Path):
    def write_script(text: str) -> str:
        path = tmp_path / "script.py"
        path.write_text(text)
        return str(path)

    return write_script


def test_lines_of_peers_are_whole_and_marked(write) -> None:
    done = run_collect("run", "-n", "3", write(TALKER))

    lines = done.stdout.splitlines()
    assert done.returncode == 0
    for name in ("peer-0", "peer-1", "peer-2"):
        own = [line for line in lines if line.startswith(name)]
        expected = [f"{name} | {name} {number}" for number in range(500)]
        assert own == [*expected, f"{name} | {name} last words"]
    assert len(lines) == 3 * 501
    assert done.stderr.count("peer-2 | peer-2") == 500


def test_a_crash_does_not_end_the_others(write) -> None:
    done = run_collect("run", "-n", "3", write(DIES))

    assert done.returncode == 128 + signal.SIGKILL
    assert done.stdout.count("went on") == 2
    assert "peer-1: killed by SIGKILL" in done.stderr


def test_with_fail_fast_a_crash_ends_the_others(write) -> None:
    script = write(DIES.replace("sys.stdin.read()", "signal.pause()"))

    done = run_collect("run", "-n", "3", "--fail-fast", script)

    assert done.returncode == 128 + signal.SIGKILL
    assert "went on" not in done.stdout


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_all_peers(number: signal.Signals, status: int, write) -> None:
    returncode, pids = _signal_when_waiting(write(WAITS), [number])

    assert returncode == status
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_a_second_signal_ends_peers_that_ignore_the_first(write) -> None:
    returncode, pids = _signal_when_waiting(write(IGNORES), [signal.SIGINT, signal.SIGINT])

    assert returncode == 130
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def _signal_when_waiting(script: str, numbers: list[signal.Signals]) -> tuple[int, list[str]]:
    with subprocess.Popen(
        collect_command("run", "-n", "2", script),
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        for number in numbers:
            for _ in range(2):
                assert "waits" in process.stdout.readline()
            pids = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            process.send_signal(number)
        process.stdout.read()
    return process.returncode, pids
