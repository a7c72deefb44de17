"""Output of several peers: whole lines, each with the name of who wrote it."""

import io

from hypothesis import given
from hypothesis import strategies as st

from collect.cli.run import PARTIAL_LINE_BYTES_MAX, Ending, LineSplitter, Prefix


def test_a_half_line_waits_for_its_end() -> None:
    splitter = LineSplitter()

    assert splitter.feed(b"one\ntw") == [b"one"]
    assert splitter.feed(b"o") == []
    assert splitter.feed(b"\n\n") == [b"two", b""]
    assert splitter.finish() == []


def test_a_last_line_without_an_end_is_not_lost() -> None:
    splitter = LineSplitter()

    assert splitter.feed(b"dying wor") == []
    assert splitter.finish() == [b"dying wor"]
    assert splitter.finish() == []


def test_a_line_without_any_end_does_not_grow_for_ever() -> None:
    splitter = LineSplitter()

    lines = splitter.feed(b"x" * (PARTIAL_LINE_BYTES_MAX + 1))

    assert [len(line) for line in lines] == [PARTIAL_LINE_BYTES_MAX + 1]
    assert splitter.finish() == []


@given(st.lists(st.binary(max_size=20)))
def test_lines_do_not_depend_on_how_the_bytes_come_in(pieces: list[bytes]) -> None:
    splitter = LineSplitter()

    lines = [line for piece in pieces for line in splitter.feed(piece)] + splitter.finish()

    expected = b"".join(pieces).split(b"\n")
    assert lines == (expected if expected[-1] else expected[:-1])


class Counting(io.BytesIO):
    """Counts writes: what is written in one call stays together."""

    write_count = 0

    def write(self, data: bytes, /) -> int:  # type: ignore[override]
        self.write_count += 1
        return super().write(data)


def test_every_line_is_marked_and_written_whole() -> None:
    target = Counting()

    Prefix("peer-1", width=7, colour=None).write([b"a", b"", b"c"], target)

    assert target.getvalue() == b"peer-1  | a\npeer-1  | \npeer-1  | c\n"
    assert target.write_count == 1


def test_on_a_terminal_the_mark_has_a_colour_and_the_line_has_its_own() -> None:
    target = io.BytesIO()

    Prefix("peer-1", width=6, colour=36).write([b"\x1b[31mred\x1b[0m"], target)

    assert target.getvalue() == b"\x1b[36mpeer-1 | \x1b[0m\x1b[31mred\x1b[0m\n"


def test_nothing_to_say_writes_nothing() -> None:
    target = Counting()

    Prefix("peer-1", width=6, colour=None).write([], target)

    assert target.write_count == 0


def test_an_ending_by_a_signal_is_named_and_counted_as_a_shell_does() -> None:
    assert str(Ending("peer-2", -9)) == "peer-2: killed by SIGKILL"
    assert Ending("peer-2", -9).shell_status == 137
    assert str(Ending("peer-0", 3)) == "peer-0: exit status 3"
    assert Ending("peer-0", 3).shell_status == 3
