"""The display: a live table on a terminal, plain lines elsewhere, a report at the end of both."""

import io

import pytest
from rich.console import Console

from collect.cli.demo.display import (
    LiveView,
    PlainView,
    QuietView,
    make_view,
    peer_colour,
    peer_table,
    print_report,
)
from collect.cli.demo.report import evaluate
from collect.cli.demo.story import Story
from tests.unit.cli.demo_stories import DIGEST, DURATION_S, EXPECTED, finished, good_story


def recorder(*, is_terminal: bool) -> Console:
    return Console(
        file=io.StringIO(),
        force_terminal=is_terminal,
        record=True,
        width=120,
        highlight=False,
        legacy_windows=False,
    )


def test_a_terminal_shows_a_table_and_progress_and_the_log() -> None:
    console, story = recorder(is_terminal=True), good_story()

    with LiveView(console, story) as view:
        view.refresh()

    text = console.export_text()
    for word in ("peer-4", "killed", "peer-1 #2", "step 20 of 20", "SIGSTOP"):
        assert word in text


def test_elsewhere_there_are_lines_without_any_control_characters() -> None:
    console, story = recorder(is_terminal=False), good_story()

    with PlainView(console, story) as view:
        view.refresh()
        view.refresh()

    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert len(lines) == len(story.log) + 1
    assert not any("\x1b" in line for line in lines)
    assert "step 20 of 20" in lines[-1]


def test_a_plain_view_shows_progress_now_and_then() -> None:
    console = recorder(is_terminal=False)
    story = Story(steps=20, started_ns=0)
    full = good_story()
    story.peers = full.peers

    with PlainView(console, story) as view:
        for _ in range(5):
            view.refresh()

    assert console.export_text().count("step 20 of 20") == 1


def test_the_view_fits_the_console() -> None:
    story = good_story()

    assert isinstance(make_view(recorder(is_terminal=True), story, quiet=False), LiveView)
    assert isinstance(make_view(recorder(is_terminal=False), story, quiet=False), PlainView)
    assert isinstance(make_view(recorder(is_terminal=True), story, quiet=True), QuietView)


def test_a_peer_without_steps_has_a_row() -> None:
    console = recorder(is_terminal=True)
    story = Story(steps=20, started_ns=0)
    story.spawned("peer-0", 4711, 0, late=False)

    console.print(peer_table(list(story.peers.values())))

    assert "4711" in console.export_text()


@pytest.mark.parametrize("is_terminal", [True, False])
def test_the_report_shows_figures_and_a_verdict(is_terminal: bool) -> None:
    console = recorder(is_terminal=is_terminal)

    print_report(console, evaluate(good_story(), EXPECTED, DURATION_S))

    text = console.export_text()
    for word in (DIGEST, "0.9700", "12.0 ms", "1.10 s", "steps lost: 0", "bit for bit"):
        assert word in text


def test_the_report_names_every_problem() -> None:
    console, story = recorder(is_terminal=False), good_story()
    story.peers["peer-3"].finished = finished(digest="f" * 32)

    print_report(console, evaluate(story, EXPECTED, DURATION_S))

    text = console.export_text()
    assert "problem: the peers' weights differ" in text
    assert "bit for bit" not in text


def test_a_peer_keeps_its_colour() -> None:
    assert peer_colour("peer-1") == peer_colour("peer-1") != peer_colour("peer-2")
    assert peer_colour("coordinator") == peer_colour("peer-0")
