"""The `collect` command: one subcommand, one module, imported only when it is asked for."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from collect.cli.usage import Parser, UsageError
from collect.errors import CollectError, InvalidArgument

EXIT_OK, EXIT_FAILED, EXIT_USAGE = 0, 1, 2
EXIT_INTERRUPTED, EXIT_TERMINATED = 130, 143  # 128 and the signal, as a shell counts


@dataclass(frozen=True, slots=True)
class Command:
    """A subcommand. Its module offers add_arguments(parser) and run(arguments) -> int."""

    module: str
    summary: str
    examples: tuple[str, ...]


COMMANDS: dict[str, Command] = {
    "run": Command(
        "collect.cli.run",
        "start N local peers of a script, and a coordinator for them",
        (
            "collect run -n 4 train.py --epochs 10",
            "collect run -n 2 --timeout 1 examples/01_all_reduce.py",
            "collect run -n 4 --fail-fast -m package.train",
        ),
    ),
    "coordinator": Command(
        "collect.cli.coordinator",
        "run a coordinator in the foreground",
        (
            "collect coordinator",
            "collect coordinator --bind 0.0.0.0:5555 --state /var/lib/collect/state",
        ),
    ),
    "demo": Command(
        "collect.cli.demo",
        "train a classifier while peers are killed, stopped and added",
        (
            "collect demo",
            "collect demo --peers 6 --steps 600 --report report.json",
            "collect demo --no-faults --quiet",
        ),
    ),
    "plan": Command(
        "collect.cli.plan",
        "print what each rank does in a collective, and the proof that it is right",
        ("collect plan --world 4", "collect plan --world 6 --algorithm ring --bytes 1Mi"),
    ),
    "stress": Command(
        "collect.cli.stress",
        "check every operation while peers, links and the coordinator fail",
        (
            "collect stress",
            "collect stress --peers 8 --minutes 30 --faults-per-minute 60 --report report.json",
            "collect stress --seed 7 --transport tcp --scenario faults.toml",
        ),
    ),
    "bench": Command(
        "collect.cli.bench",
        "measure latency and bandwidth of collectives between local processes",
        (
            "collect bench all-reduce",
            "collect bench all --worlds 2,4 --sizes 8:16MiB --json figures.json",
            "collect bench all-reduce --sizes 8,1KiB,1MiB --against gloo,mpich=/opt/mpich",
            "collect bench all-reduce,all-gather --transports tcp --limits --plot figures.png",
        ),
    ),
}


class Terminated(KeyboardInterrupt):
    """SIGTERM: ends a command as Ctrl-C does, so that it takes its processes with it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status; raises nothing a user could cause."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    previous = signal.signal(signal.SIGTERM, _terminate)
    try:
        return _guarded(arguments)
    finally:
        signal.signal(signal.SIGTERM, previous)


def _guarded(arguments: list[str]) -> int:
    try:
        status = _run(arguments)
        sys.stdout.flush()
        return status
    except UsageError as error:
        return _complain(str(error), EXIT_USAGE)
    except InvalidArgument as error:
        return _complain(f"collect: {error}", EXIT_USAGE)
    except CollectError as error:
        return _complain(f"collect: {error}", EXIT_FAILED)
    except Terminated:
        return EXIT_TERMINATED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output is gone; what is still buffered has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except SystemExit as ended:  # argparse, after --help and --version
        return ended.code if isinstance(ended.code, int) else EXIT_OK


def _run(arguments: list[str]) -> int:
    chosen = next((word for word in arguments if not word.startswith("-")), None)
    parsed = _build_parser(chosen).parse_args(arguments)
    module = importlib.import_module(COMMANDS[parsed.command].module)
    status: int = module.run(parsed)
    return status


def _build_parser(chosen: str | None) -> Parser:
    """All subcommands by name, but only the chosen one's module and arguments."""
    parser = Parser(
        prog="collect",
        description="Fault-tolerant collective communication.",
        epilog="'collect COMMAND --help' explains a command and gives examples.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        lines = "\n".join(f"  {example}" for example in command.examples)
        subparser = commands.add_parser(
            name,
            help=command.summary,
            description=f"{command.summary[0].upper()}{command.summary[1:]}.",
            epilog=f"examples:\n{lines}",
        )
        if name == chosen:
            importlib.import_module(command.module).add_arguments(subparser)
    return parser


def _terminate(_number: int, _frame: object) -> NoReturn:
    raise Terminated


def _complain(line: str, status: int) -> int:
    print(" ".join(line.split()), file=sys.stderr)
    return status
