"""Greeting, generation, rate limit and routing ids: what surrounds the messages."""

from pathlib import Path

import pytest

from collect.errors import InvalidArgument
from collect.net import generation, greeting
from collect.net.greeting import Greeting
from collect.net.zmq_bus import RateLimit, incarnation_of, routing_id
from collect.types import Member, Scope, View


@pytest.mark.parametrize("scope", Scope)
def test_an_answer_survives_the_wire(scope: Scope) -> None:
    here = Greeting(scope, 2.5)

    assert greeting.decode(greeting.encode(here)) == here
    assert greeting.is_greeting(greeting.encode(here))
    assert greeting.is_greeting(greeting.ASK)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        greeting.ASK,
        b"COLLECT/1 HERE ",
        b"COLLECT/1 HERE ANY",
        b"COLLECT/1 HERE ANY x",
        b"COLLECT/1 HERE ANY nan",
        b"COLLECT/1 HERE ANY 0",
        b"COLLECT/1 HERE ANY 1e9",
        b"COLLECT/1 HERE NOWHERE 5.0",
        b"COLLECT/1 HERE ANY 5.0 more",
        b"COLLECT/2 HERE ANY 5.0",
        b"COLLECT/1 HERE ANY \xff",
        b"COLLECT/1 HERE ANY " + b"1" * 200,
    ],
)
def test_what_is_no_answer_is_none(payload: bytes) -> None:
    assert greeting.decode(payload) is None


@pytest.mark.parametrize("incarnation", [1, 255, 2**62, 2**63 - 1])
def test_an_incarnation_names_its_connection(incarnation: int) -> None:
    identity = routing_id(incarnation)

    assert len(identity) == 8
    assert identity[0] != 0  # ids that begin so are libzmq's
    assert incarnation_of(identity) == incarnation


@pytest.mark.parametrize("identity", [b"", b"\x00abcd", b"\x7f" * 8, b"\xff" * 9])
def test_other_connections_are_nobodys(identity: bytes) -> None:
    assert incarnation_of(identity) is None


def test_generations_count_up_and_survive(tmp_path: Path) -> None:
    path = tmp_path / "state"

    assert [generation.advance(path) for _ in range(3)] == [(1, True), (2, False), (3, False)]
    assert [each.name for each in tmp_path.iterdir()] == ["state"]


def test_a_file_that_is_something_else_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_text("my thesis")

    with pytest.raises(InvalidArgument, match="no state file"):
        generation.advance(path)

    assert path.read_text() == "my thesis"


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="cannot write the state file"):
        generation.advance(tmp_path / "missing" / "state")
    with pytest.raises(InvalidArgument, match="cannot read the state file"):
        generation.advance(tmp_path)


def test_the_last_view_of_each_group_is_kept_beside_the_state(tmp_path: Path) -> None:
    path = tmp_path / "state"
    views = [
        View(epoch << 24 | 1, (Member(7, "a", "host", ("127.0.0.1:1",)),), 5) for epoch in (1, 2)
    ]

    for view in views:
        generation.save_view(path, "mine/../x", view)
    generation.save_view(path, "other", views[0])

    assert generation.load_view(path, "mine/../x") == views[1]
    assert generation.load_view(path, "other") == views[0]
    assert generation.load_view(path, "third") is None
    assert all(each.parent == tmp_path for each in tmp_path.rglob("*"))


def test_a_damaged_view_is_refused_and_named(tmp_path: Path) -> None:
    path = tmp_path / "state"
    generation.save_view(path, "g", View(1 << 24 | 1, (), 5))
    (kept,) = tmp_path.iterdir()
    kept.write_bytes(kept.read_bytes()[:-1])

    with pytest.raises(InvalidArgument, match=r"holds no view"):
        generation.load_view(path, "g")


def test_drawn_generations_fit_a_ballot() -> None:
    assert all(0 < generation.draw() < 1 << 24 for _ in range(100))


def test_a_flood_of_lines_is_held_back_and_counted() -> None:
    limit = RateLimit(count=2, period_s=10.0)

    lines = [limit.note("x", 100.0 + second) for second in range(5)]

    assert lines == ["x", "x", None, None, None]
    assert limit.note("y", 111.0) == "y (3 more were refused before)"
    assert limit.note("z", 111.0) == "z"
