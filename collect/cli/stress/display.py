"""What a viewer sees: a live table on a terminal, lines elsewhere, and the verdict at the end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from collect.cli.stress.churn import Progress
from collect.cli.stress.recovery import PERCENTILES, Summary
from collect.cli.stress.verdict import Verdict

REFRESH_S = 0.2
LINES_SHOWN = 12
PLAIN_WIDTH = 110


def make_console() -> Console:
    """Standard output; a fixed width where there is no terminal to ask."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=PLAIN_WIDTH)


class View:
    """Follows a run: a screen on a terminal, else a line for each fault. `quiet`: nothing."""

    def __init__(self, console: Console, progress: Progress, *, quiet: bool) -> None:
        self._console = console
        self._progress = progress
        self._quiet = quiet
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._shown = 0
        self._next_s = 0.0

    def __enter__(self) -> Self:
        if self._console.is_terminal and not self._quiet:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.stop()

    def refresh(self) -> None:
        """Often; cheap when there is nothing to do."""
        if self._quiet:
            return
        if not self._live.is_started:
            for line in self._progress.lines[self._shown :]:
                self._console.print(line, soft_wrap=True)
            self._shown = len(self._progress.lines)
        elif (now_s := time.monotonic()) >= self._next_s:
            self._next_s = now_s + REFRESH_S
            self._live.update(self._screen(), refresh=True)

    def _screen(self) -> RenderableType:
        progress = self._progress
        world, elapsed_s = progress.world, progress.elapsed_s
        rate = world.oracle.op_count / elapsed_s if elapsed_s else 0.0
        usual_ms = world.recoveries.usual() * 1e3
        head = Text(
            f"seed {world.setting.seed}  {elapsed_s:.0f} of {progress.scenario.end_s:.0f} s  "
            f"{progress.fault_count} faults  {world.oracle.op_count} operations checked, "
            f"{rate:.0f}/s, {world.oracle.rerun_count} re-run, usually {usual_ms:.2f} ms",
            "bold",
        )
        table = Table(box=box.SIMPLE_HEAD)
        table.add_column("peer")
        table.add_column("pid", justify="right")
        table.add_column("state")
        table.add_column("works with")
        for peer in world.peers.values():
            state = "stopped" if peer.is_stopped else "goes" if peer.is_doomed else "works"
            if not peer.is_member:
                state = "joins"
            others = ", ".join(peer.participants)
            table.add_row(peer.name, str(peer.child.pid), state, others)
        log = Text("\n".join(progress.lines[-LINES_SHOWN:]), "dim")
        return Group(head, table, recovery_table(world.recoveries.summaries()), log)


def recovery_table(recoveries: Sequence[Summary]) -> Table:
    """By kind of fault: how many, percentiles and the maximum."""
    table = Table(box=box.SIMPLE_HEAD, title="recovery, ms", title_justify="left")
    table.add_column("fault")
    table.add_column("times", justify="right")
    for percent in PERCENTILES:
        table.add_column(f"p{percent}", justify="right")
    table.add_column("max", justify="right")
    for each in recoveries:
        times = (*each.percentiles_s, each.max_s)
        table.add_row(each.kind, str(each.count), *(f"{time_s * 1e3:.1f}" for time_s in times))
    return table


def print_verdict(console: Console, verdict: Verdict) -> None:
    """The tables, and one line that says whether all is well."""
    if verdict.recoveries:
        console.print(recovery_table(verdict.recoveries))
    told = (
        f"{verdict.duration_s:.0f} s, {verdict.fault_count} faults; {verdict.operations} "
        f"operations checked, {verdict.reruns} of them re-run, {verdict.failures} failed alike on "
        f"all; usually {verdict.usual_s * 1e3:.2f} ms, the longest {verdict.longest_s:.2f} s"
    )
    console.print(told, soft_wrap=True)
    if verdict.is_good:
        told = "Every operation had the right bytes, the right participants and one history."
        console.print(Text(told, "bold green"), soft_wrap=True)
    else:
        console.print(Text.assemble(("FAILED: ", "bold red"), verdict.reason), soft_wrap=True)
        console.print(f"logs are in {verdict.logs}", soft_wrap=True)
    console.print(f"to play these faults again: {verdict.replay}", soft_wrap=True)
