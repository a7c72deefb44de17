"""What a viewer sees: a live table on a terminal, lines elsewhere, and the report at the end."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Protocol, Self

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from collect.cli.demo.report import Recovery, Report
from collect.cli.demo.story import LogLine, Peer, PeerState, Story, Tone

PLAIN_WIDTH = 110
REFRESHES_PER_S = 10
PLAIN_PROGRESS_LINES = 10  # over the whole run

_PEER_COLOURS = ("cyan", "green", "yellow", "magenta", "blue", "bright_red", "bright_cyan", "white")
_STATE_STYLES = {
    PeerState.STARTING: "dim",
    PeerState.TRAINING: "green",
    PeerState.STOPPED: "bold yellow",
    PeerState.FENCED: "bold magenta",
    PeerState.KILLED: "bold red",
    PeerState.DONE: "bold green",
    PeerState.FAILED: "bold white on red",
}
_TONE_STYLES = {Tone.PLAIN: "", Tone.FAULT: "yellow", Tone.GOOD: "green", Tone.BAD: "bold red"}


def make_console() -> Console:
    """Standard output; a fixed width where there is no terminal to ask."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=PLAIN_WIDTH)


class View(Protocol):
    """Shows a story while it grows."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    def refresh(self) -> None: ...


def make_view(console: Console, story: Story, *, quiet: bool) -> View:
    if quiet:
        return QuietView()
    return LiveView(console, story) if console.is_terminal else PlainView(console, story)


class QuietView:
    """Shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def refresh(self) -> None:
        pass


class PlainView:
    """Lines: what happened, and now and then how far the training is."""

    def __init__(self, console: Console, story: Story) -> None:
        self._console = console
        self._story = story
        self._log_shown = 0
        self._tenths_shown = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.refresh()

    def refresh(self) -> None:
        for line in self._story.log[self._log_shown :]:
            self._console.print(log_text(line), soft_wrap=True)
        self._log_shown = len(self._story.log)
        tenths = self._story.lead_step * PLAIN_PROGRESS_LINES // self._story.step_count
        if tenths > self._tenths_shown:
            self._tenths_shown = tenths
            self._console.print(_progress_line(self._story), soft_wrap=True)


class LiveView:
    """A table of peers and a progress bar that stay at the bottom; the log scrolls above."""

    def __init__(self, console: Console, story: Story) -> None:
        self._console = console
        self._story = story
        self._log_shown = 0
        self._drawn_s = 0.0
        # Drawn by `refresh`, in the thread that the story grows in.
        self._live = Live(get_renderable=self.render, console=console, auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.refresh()
        self._live.stop()

    def refresh(self) -> None:
        lines = [log_text(line) for line in self._story.log[self._log_shown :]]
        self._log_shown += len(lines)
        if lines:
            self._console.print(Text("\n").join(lines), soft_wrap=True)
        now_s = time.monotonic()
        if now_s - self._drawn_s >= 1 / REFRESHES_PER_S:
            self._drawn_s = now_s
            self._live.refresh()

    def render(self) -> RenderableType:
        story = self._story
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            Text("training"),
            ProgressBar(total=story.step_count, completed=story.lead_step, width=40),
            Text(f"step {story.lead_step} of {story.step_count}"),
        )
        return Group(peer_table(list(story.peers.values())), bar)


def peer_colour(name: str) -> str:
    """The same colour for the same peer, wherever it is shown."""
    number = "".join(character for character in name if character.isdigit())
    return _PEER_COLOURS[int(number or 0) % len(_PEER_COLOURS)]


def log_text(line: LogLine) -> Text:
    return Text.assemble(
        (f"{line.at_s:7.2f} s  ", "dim"),
        (f"{line.who:<12}", peer_colour(line.who)),
        (line.text, _TONE_STYLES[line.tone]),
    )


def peer_table(peers: list[Peer]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column("peer")
    table.add_column("pid", justify="right")
    table.add_column("state", min_width=8)
    for heading, width in (("rank", 7), ("epoch", 5), ("step", 5), ("loss", 7)):
        table.add_column(heading, justify="right", min_width=width)
    table.add_column("all-reduce", justify="right", min_width=10)
    for peer in peers:
        table.add_row(*_peer_cells(peer))
    return table


def _peer_cells(peer: Peer) -> list[Text]:
    name = Text(peer.name, peer_colour(peer.name))
    if len(peer.incarnations) > 1:
        name.append(f" #{len(peer.incarnations)}", "dim")  # its incarnation
    cells = [name, Text(str(peer.pid)), Text(peer.state.value, _STATE_STYLES[peer.state])]
    last = peer.last_step
    if last is None:
        return [*cells, *(Text("-", "dim") for _ in range(5))]
    is_member = peer.state in {PeerState.TRAINING, PeerState.DONE}
    figures = (
        f"{last.rank} of {last.size}" if is_member else "-",
        str(last.epoch),
        str(last.step),
        f"{last.loss:.4f}",
        f"{last.operations[-1].duration_ns / 1e6:.2f} ms",
    )
    return [*cells, *(Text(figure, "" if is_member else "dim") for figure in figures)]


def _progress_line(story: Story) -> Text:
    training = [peer for peer in story.peers.values() if peer.state is PeerState.TRAINING]
    losses = [peer.last_step.loss for peer in training if peer.last_step is not None]
    loss = f", loss {losses[0]:.4f}" if losses else ""
    return Text(
        f"             step {story.lead_step} of {story.step_count}, "
        f"{len(training)} peers training{loss}",
        "dim",
    )


def print_report(console: Console, report: Report) -> None:
    """Tables, and one line that says whether all is well."""
    console.print()
    console.print(_result_table(report))
    if report.recoveries:
        console.print(_recovery_table(report.recoveries))
    lines = (
        f"{report.steps} steps in {report.duration_s:.1f} s; steps lost: {report.steps_lost}",
        f"a single process on the same batches: accuracy {report.single_process_accuracy:.4f}; "
        "'off by': from its weights",
    )
    for line in lines:
        console.print(line, soft_wrap=True)
    for problem in report.problems:
        console.print(Text.assemble(("problem: ", "bold red"), problem), soft_wrap=True)
    if report.is_good:
        text = "All peers hold the same weights, bit for bit, and no step was lost."
        console.print(Text(text, "bold green"), soft_wrap=True)


def _result_table(report: Report) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title="at the end", title_justify="left")
    table.add_column("peer")
    table.add_column("accuracy", justify="right")
    table.add_column("weights (XXH3-128)", overflow="fold")
    for heading in ("steps", "joins", "off by"):
        table.add_column(heading, justify="right")
    same = len({result.digest for result in report.results}) == 1
    for result in report.results:
        table.add_row(
            Text(result.peer, peer_colour(result.peer)),
            f"{result.accuracy:.4f}",
            Text(result.digest, "green" if same else "red"),
            str(result.steps),
            str(result.incarnations),
            f"{result.parameters_difference:.1e}",
        )
    return table


def _recovery_table(recoveries: list[Recovery]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title="how long it took", title_justify="left")
    table.add_column("event")
    table.add_column("recovered", justify="right")
    table.add_column("held up", justify="right")
    table.add_column("recovered: from … to …")
    for recovery in recoveries:
        table.add_row(
            Text.assemble(recovery.event, " of ", (recovery.peer, peer_colour(recovery.peer))),
            _time_text(recovery.recovered_s),
            _time_text(recovery.held_s),
            Text(recovery.meaning, "dim"),
        )
    return table


def _time_text(time_s: float | None) -> str:
    if time_s is None:
        return "-"
    return f"{time_s:.2f} s" if time_s >= 1 else f"{time_s * 1e3:.1f} ms"
