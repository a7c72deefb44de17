"""The command: mistakes are told in one line, help has examples, modules are imported lazily."""

import subprocess
import sys
from pathlib import Path

import pytest

from collect.cli import COMMANDS, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE, main
from collect.cli import demo as demo_command
from collect.errors import CoordinatorUnreachable, InvalidArgument

MISTAKES = [
    [],
    ["dance"],
    ["--dance"],
    ["run"],
    ["run", "-n", "0", "x.py"],
    ["run", "-n", "two", "x.py"],
    ["run", "-n", "2"],
    ["run", "-n", "2", "no/such/script.py"],
    ["run", "-n", "2", "--timeout", "-1", "x.py"],
    ["coordinator", "--bind", "nowhere"],
    ["coordinator", "--bind", "127.0.0.1:99999"],
    ["coordinator", "--bind", "::1:5"],
    ["coordinator", "--log-level", "loud"],
    ["demo", "--peers", "1"],
    ["demo", "--peers", "2"],
    ["demo", "--steps", "10"],
    ["demo", "--steps", "many"],
    ["demo", "--timeout", "nan"],
    ["demo", "--timeout", "0.001"],
    ["demo", "--pace", "0"],
    ["demo", "--pace", "-0.1"],
    ["demo", "--seed", "-1"],
    ["demo", "left", "over"],
    ["demo", "--report", "no/such/folder/report.json"],
    ["demo", "--report", "."],
    ["stress", "--peers", "2"],
    ["stress", "--minutes", "0"],
    ["stress", "--faults-per-minute", "1000"],
    ["stress", "--timeout", "0.001"],
    ["stress", "--transport", "pigeon"],
    ["stress", "--scenario", "no/such/file.toml"],
    ["stress", "--report", "."],
    ["bench", "all-reduce", "--json", "no/such/folder/figures.json"],
    ["bench"],
    ["bench", "sing"],
    ["bench", "all-reduce", "--worlds", "1"],
    ["bench", "all-reduce", "--worlds", "2,65"],
    ["bench", "all-reduce", "--sizes", "8:4"],
    ["bench", "all-reduce", "--sizes", "zero"],
    ["bench", "all-reduce", "--sizes", "6"],
    ["bench", "all-reduce", "--sizes", "0"],
    ["bench", "all-reduce", "--iterations", "0"],
    ["bench", "all-reduce", "--iterations", "5", "--seconds", "1"],
    ["bench", "all-reduce", "--in-place", "--both"],
    ["bench", "all-reduce", "--streams", "17"],
    ["bench", "all-reduce", "--dtypes", "float128"],
    ["bench", "all-reduce", "--algorithms", "magic"],
    ["bench", "all-reduce", "--transports", "pigeon"],
    ["bench", "all-reduce", "--against", "nobody"],
    ["bench", "all-reduce", "--against", "gloo=somewhere"],
]


@pytest.mark.parametrize("arguments", MISTAKES, ids=" ".join)
def test_a_mistake_is_told_in_one_line_and_ends_with_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(arguments)

    captured = capsys.readouterr()
    assert status == EXIT_USAGE
    assert captured.out == ""
    assert captured.err.startswith("collect")
    assert captured.err.count("\n") == 1
    assert captured.err.endswith("\n")


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "plan"])
def test_help_of_a_command_gives_its_examples(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main([command, "--help"])

    out = capsys.readouterr().out
    assert status == 0
    for example in COMMANDS[command].examples:
        assert example in out


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["--help"])

    out = capsys.readouterr().out
    assert status == 0
    assert all(f" {name} " in out for name in COMMANDS)


@pytest.mark.parametrize(
    ("raised", "status"),
    [
        (KeyboardInterrupt(), EXIT_INTERRUPTED),
        (InvalidArgument("name is 3"), EXIT_USAGE),
        (CoordinatorUnreachable("nobody\nanswers"), EXIT_FAILED),
    ],
)
def test_what_a_command_raises_becomes_a_status_and_at_most_one_line(
    raised: BaseException,
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(_arguments: object) -> int:
        raise raised

    monkeypatch.setattr(demo_command, "run", fail)

    assert main(["demo"]) == status
    assert capsys.readouterr().err.count("\n") == (status != EXIT_INTERRUPTED)


def test_a_command_imports_no_other_command() -> None:
    code = (
        "import sys; from collect.cli import main; main(['coordinator', '--bind', 'x']);"
        "print(*(name for name in sys.modules if name.startswith('collect.cli.')), sep='\\n')"
    )
    listing = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[3],
    )

    modules = set(listing.stdout.split())
    assert "collect.cli.coordinator" in modules
    assert not modules & {"collect.cli.run", "collect.cli.demo", "collect.cli.bench"}


def test_without_scikit_learn_the_demo_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)

    status = main(["demo"])

    assert status == EXIT_USAGE
    assert "pip install 'collect[demo]'" in capsys.readouterr().err


def test_without_torch_the_comparison_says_what_it_needs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)

    status = main(["bench", "all-reduce", "--against", "gloo"])

    assert status == EXIT_USAGE
    assert "needs torch" in capsys.readouterr().err
