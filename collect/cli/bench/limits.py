"""What this machine allows at best, so that figures can be seen beside it.

Measured by a small C program (limits.c), compiled here with `cc`, that does nothing else; and the
cost of a call from Python into C, which every operation pays.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from collect import native
from collect.cli.bench.figures import Figures, time_text
from collect.cli.bench.installed import TCP
from collect.cli.usage import UsageError

SOURCE = Path(__file__).with_name("limits.c")
COMPILE_S, RUN_S = 60.0, 120.0
CALLS, CALL_ROUNDS = 20_000, 7


@dataclass(frozen=True, slots=True)
class Limits:
    """Speeds in bytes per second of one operand, times in seconds; the best of several rounds.

    Attributes:
        copy_large, copy_cached: memcpy of 64 MiB and of 256 KiB.
        add_large, add_cached: a += b of float32, as large.
        flag_s: until a flag that one process sets in shared memory is seen by another.
        tcp_asleep_s, tcp_spinning_s: 8 bytes over loopback TCP, one way, when the receiver sleeps
            until they come, and when it asks all the time.
        stream_default, stream_reno: one loopback TCP stream with the default congestion control
            and with reno; 0 where there is no reno.
        call_s: a call from Python into the compiled module.
    """

    copy_large: float
    copy_cached: float
    add_large: float
    add_cached: float
    flag_s: float
    tcp_asleep_s: float
    tcp_spinning_s: float
    stream_default: float
    stream_reno: float
    call_s: float

    def least_s(self, figures: Figures) -> float:
        """What an operation of these figures takes at least, by a simple model.

        A call into C, one message one way, and the bus bytes at the speed of one stream, or of one
        memcpy in shared memory; with more processes than cores these share the cores.
        """
        bus_bytes = figures.bus_bytes_per_s * figures.median_s
        bytes_s = bus_bytes * max(1.0, figures.world / (os.cpu_count() or 1))
        if figures.transport == TCP:
            hop_s = min(self.tcp_asleep_s, self.tcp_spinning_s)
            return self.call_s + hop_s + bytes_s / max(self.stream_default, self.stream_reno)
        is_cached = figures.case.size_bytes * figures.world <= 1 << 20
        return (
            self.call_s
            + self.flag_s
            + bytes_s / (self.copy_cached if is_cached else self.copy_large)
        )


def measure() -> Limits:
    """Takes about ten seconds. Raises UsageError without a C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise UsageError("collect bench: --limits needs a C compiler (cc, gcc or clang)")
    with tempfile.TemporaryDirectory(prefix="collect-bench-") as folder:
        program = str(Path(folder) / "limits")
        _run([compiler, "-O3", "-march=native", "-o", program, str(SOURCE)], COMPILE_S)
        figures: dict[str, Any] = json.loads(_run([program], RUN_S))
    return Limits(**figures, call_s=_call_s())


def table(limits: Limits) -> Table:
    """For people."""
    found = Table(box=box.SIMPLE_HEAD, title="limits of this machine", title_justify="left")
    found.add_column("what")
    found.add_column("at best", justify="right")
    for what, value in (
        ("memcpy of 64 MiB", limits.copy_large),
        ("memcpy of 256 KiB", limits.copy_cached),
        ("a += b, float32, of 64 MiB", limits.add_large),
        ("a += b, float32, of 256 KiB", limits.add_cached),
        ("loopback TCP, one stream, default congestion control", limits.stream_default),
        ("loopback TCP, one stream, reno", limits.stream_reno),
    ):
        found.add_row(what, f"{value / 1e9:.2f} GB/s" if value else "-")
    for what, value in (
        ("8 bytes over loopback TCP, one way, receiver asleep", limits.tcp_asleep_s),
        ("8 bytes over loopback TCP, one way, receiver spinning", limits.tcp_spinning_s),
    ):
        found.add_row(what, time_text(value))
    found.add_row("a flag in shared memory, one way", f"{limits.flag_s * 1e9:.0f} ns")
    found.add_row("a call from Python into C", f"{limits.call_s * 1e9:.0f} ns")
    return found


def _run(command: list[str], limit_s: float) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)
    except subprocess.TimeoutExpired:
        raise UsageError(f"collect bench: --limits: no end within {limit_s:.0f} s") from None
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["failed without a word"]
        raise UsageError(f"collect bench: --limits: {lines[-1]}")
    return done.stdout


def _call_s() -> float:
    """The smallest call there is: it returns a number."""
    call, clock = native.lib.collect_heap_blocks, time.perf_counter
    rounds_s = []
    for _ in range(CALL_ROUNDS):
        begun_s = clock()
        for _ in range(CALLS):
            call()
        rounds_s.append((clock() - begun_s) / CALLS)
    return min(rounds_s)
