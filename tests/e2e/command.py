"""The `collect` command as a process of its own, as a user starts it."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 100


def collect_command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "collect", *arguments]


def run_collect(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs it to its end; output is captured, and shown by pytest when an assertion fails."""
    done = subprocess.run(
        collect_command(*arguments),
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    print(done.stdout)
    print(done.stderr)
    return done
