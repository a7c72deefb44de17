"""Scenarios of the stress test: read from files, refused with a reason, and when faults are due."""

from pathlib import Path

import pytest

from collect.cli.stress.faults import FAULTS
from collect.cli.stress.scenario import Moment, Scenario, load
from collect.cli.usage import UsageError

FILE = """
peers = 4
minutes = 2
faults-per-minute = 30
timeout = 0.5
transport = "tcp"

[weights]
kill = 3
cut = 1
pause = 0
"""


def test_a_file_says_all_that_can_be_said(tmp_path: Path) -> None:
    path = tmp_path / "scenario.toml"
    path.write_text(FILE)

    scenario = load(path)

    assert scenario == Scenario(4, 2.0, 30.0, 0.5, "tcp", {"kill": 3.0, "cut": 1.0})
    assert [scenario.due_s(number) for number in (0, 1, 59, 60)] == [0.0, 2.0, 118.0, None]
    assert scenario.named(0) is None
    assert scenario.relays  # of `cut`


def test_what_a_file_leaves_out_is_the_default(tmp_path: Path) -> None:
    path = tmp_path / "empty.toml"
    path.write_text("")

    assert load(path) == Scenario()
    assert set(Scenario().weights) == set(FAULTS)


def test_moments_are_played_in_their_order_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "moments.toml"
    path.write_text('[[at]]\nsecond = 3\nfault = "kill"\n[[at]]\nsecond = 1.5\nfault = "leave"\n')

    scenario = load(path)

    assert scenario.moments == (Moment(1.5, "leave"), Moment(3.0, "kill"))
    assert [scenario.due_s(number) for number in range(3)] == [1.5, 3.0, None]
    assert scenario.named(1) == "kill"
    assert not scenario.relays


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("peers = 2", "from 3 to 64"),
        ("peers = 4.5", "whole number"),
        ('peers = "4"', "must be a number"),
        ("minutes = 0", "minutes must be"),
        ("faults-per-minute = 10000", "from 0.01 to 600"),
        ('transport = "pigeon"', "'auto' or 'tcp'"),
        ("speed = 1", "'speed' is none of peers"),
        ("[weights]\ndance = 1", "'dance' is none of kill-in-operation"),
        ("[weights]\nkill = -1", "kill must be a number"),
        ("[weights]\nkill = 0", "more than 0"),
        ("weights = 3", "must be a table"),
        ("at = []", "one or more"),
        ("[[at]]\nsecond = 1", "'second' and a 'fault'"),
        ('[[at]]\nsecond = -1\nfault = "kill"', "second must be"),
        ("peers = ", "is no TOML"),
    ],
)
def test_a_wrong_file_is_refused_with_what_is_allowed(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(text)

    with pytest.raises(UsageError, match=told):
        load(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.toml: No such file"):
        load(tmp_path / "none.toml")
