"""What the control thread makes of the core's events, and of a view it installs."""

import logging
from typing import Any

import pytest

from collect.config import Address, Algorithm, load
from collect.errors import MembersChanged
from collect.membership.events import InstallComm, OpCancelled
from collect.native.communicator import InstallRequest
from collect.native.engine import EngineEvent, EventKind
from collect.session import control as control_module
from collect.session import wishes
from collect.session.control import ControlPlane, cancel_of
from collect.session.operations import FAILURES
from collect.types import (
    COMMIT_BYTES_DEFAULT,
    CancelKind,
    FailKind,
    Member,
    Recipe,
    Verdict,
    View,
)
from tests.unit.session.fakes import FakePeer

OTHER = 8


class RecordingCommunicator:
    def __init__(self) -> None:
        self.installed: list[InstallRequest] = []

    def install(self, request: InstallRequest) -> None:
        self.installed.append(request)

    def lend(self, passed: int, limit: int) -> int:
        assert limit == 0
        self.passed = passed
        return passed


@pytest.fixture(autouse=True)
def numbers_of_algorithms(monkeypatch: pytest.MonkeyPatch) -> None:
    """The core's, without the core."""
    codes = {Algorithm.AUTO: -1, Algorithm.DIRECT: 0, Algorithm.RING: 1, Algorithm.STAR: 2}
    monkeypatch.setattr(control_module, "algorithm_code", codes.__getitem__)
    monkeypatch.setattr(wishes, "algorithm_code", codes.__getitem__)


def control(**settings: Any) -> ControlPlane:
    plane = ControlPlane(load({"name": "me", **settings}, {}), Address("127.0.0.1", 5000))
    plane.communicator = RecordingCommunicator()  # type: ignore[assignment]
    plane.peer = FakePeer()  # type: ignore[assignment]
    return plane


def install(plane: ControlPlane, recipe: Recipe, *hosts: str) -> InstallRequest:
    members = tuple(
        Member(plane.self_id if i == 0 else OTHER + i, f"p{i}", host, ("127.0.0.1:1",))
        for i, host in enumerate(hosts)
    )
    view = View(5 << 24, members, 1, recipe)
    plane._install(InstallComm(view, 0, 0, Verdict(), (), (), has_repair=False))
    return plane.communicator.installed[-1]  # type: ignore[union-attr]


def test_boundaries_before_a_newcomers_time_lie_behind_it() -> None:
    plane = control()
    plane.peer.boundaries = 41  # type: ignore[union-attr]

    install(plane, Recipe(), "x")

    assert plane.communicator.passed == 41  # type: ignore[union-attr]
    assert plane.lease.passed == 41


def aborted(detail: str) -> EngineEvent:
    return EngineEvent(EventKind.ABORTED, None, 1, 0, 9, 5 << 24, 0, detail)


def test_a_call_for_other_members_is_cancelled_as_that() -> None:
    expected = OpCancelled(9, CancelKind.MEMBERS, "called for 4, there are 3")

    assert cancel_of(aborted("members: called for 4, there are 3")) == expected


def test_what_the_user_gave_up_is_an_abort() -> None:
    assert cancel_of(aborted("")) == OpCancelled(9, CancelKind.ABORT, "called abort")


def test_members_that_changed_have_an_exception_of_their_own() -> None:
    assert FAILURES[FailKind.MEMBERS] is MembersChanged


def test_the_core_gets_the_recipe_and_numbered_hosts() -> None:
    recipe = Recipe(algorithm=1, weights=(1, 2, 3))

    request = install(control(), recipe, "x#7", "y", "x#7")

    assert request.recipe == recipe
    assert request.hosts == (0, 1, 0)


@pytest.mark.parametrize(
    ("settings", "recipe", "told"),
    [
        ({"algorithm": "ring"}, Recipe(algorithm=0), "algorithm ring"),
        ({"algorithm": "ring"}, Recipe(algorithm=1), ""),
        ({"algorithm": "direct", "commit_bytes": 5}, Recipe(algorithm=0), "commit_bytes 5"),
        (
            {"algorithm": "direct", "commit_bytes": COMMIT_BYTES_DEFAULT},
            Recipe(algorithm=0, commit_bytes=7),
            "",
        ),
        ({"algorithm": "direct", "transport": "tcp"}, Recipe(algorithm=0), "transport tcp"),
        ({"algorithm": "direct"}, Recipe(algorithm=0, transport=1), ""),
    ],
)
def test_a_wish_that_the_founders_did_not_share_is_logged_once(
    settings: dict[str, Any], recipe: Recipe, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    plane = control(**settings)

    with caplog.at_level(logging.WARNING, "collect"):
        install(plane, recipe, "x")
        install(plane, recipe, "x")

    messages = [record.getMessage() for record in caplog.records]
    assert [told in each for each in messages] == ([True] if told else [])
