"""`collect demo`: a training run that is killed, stopped and joined, and does not notice.

Real processes on this machine, TCP between them, a real data set, and signals for faults. Read
peer.py for what a training script looks like, train.py for how a step stays exact.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from collect.cli.demo.data import load_digits
from collect.cli.demo.display import View, make_console, make_view, print_report
from collect.cli.demo.launcher import Launcher, PeerOptions
from collect.cli.demo.report import Expected, Report, evaluate
from collect.cli.demo.scenario import Scenario, pace_for
from collect.cli.demo.story import NS_PER_S, PeerState, Story
from collect.cli.demo.train import Trainer, train_alone
from collect.cli.usage import (
    UsageError,
    liveness_timeout,
    output_file,
    positive_int,
    seconds_or_zero,
)

EXIT_OK, EXIT_FAILED = 0, 1
STEPS_MIN = 50  # fewer leave no room for faults and recovery between them
BATCH_SIZE = 128


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--peers", type=positive_int, metavar="N", default=4, help="processes at the start (4)")
    add("--steps", type=positive_int, metavar="N", default=360, help="steps to train (360)")
    add("--seed", type=int, metavar="N", default=0, help="of the data, the weights, the victims")
    add(
        "--timeout",
        type=liveness_timeout,
        metavar="S",
        default=1.0,
        help="seconds of silence that count as death (default %(default)g)",
    )
    add(
        "--pace",
        type=seconds_or_zero,
        metavar="S",
        help="seconds to rest after each step (default: so that the faults can be followed)",
    )
    add("--no-faults", action="store_true", help="only train")
    add("--quiet", action="store_true", help="show the report only")
    add("--report", type=output_file, metavar="FILE", help="write the report as JSON")


def run(arguments: argparse.Namespace) -> int:
    with_faults = not arguments.no_faults
    if with_faults and arguments.steps < STEPS_MIN:
        raise UsageError(f"collect demo: the faults need --steps {STEPS_MIN} or more")
    if arguments.seed < 0:
        raise UsageError("collect demo: --seed must not be negative")
    scenario = Scenario(
        peers=arguments.peers,
        seed=arguments.seed,
        timeout_s=arguments.timeout,
        with_faults=with_faults,
    )
    pace_s = pace_for(arguments.steps, arguments.timeout, arguments.pace, with_faults)
    with tempfile.TemporaryDirectory(prefix="collect-demo-") as folder:
        report, story = _train(arguments, scenario, pace_s, Path(folder))
    print_report(make_console(), report)
    if not report.is_good:
        _print_output(story)
    if arguments.report is not None:
        _write_report(arguments.report, report)
    return EXIT_OK if report.is_good else EXIT_FAILED


def _train(
    arguments: argparse.Namespace, scenario: Scenario, pace_s: float, folder: Path
) -> tuple[Report, Story]:
    options = PeerOptions(
        data=folder / "digits.npz",
        reference=folder / "reference.npy",
        seed=arguments.seed,
        steps=arguments.steps,
        batch_size=BATCH_SIZE,
        timeout_s=arguments.timeout,
        pace_s=pace_s,
    )
    story = Story(steps=arguments.steps, started_ns=time.monotonic_ns())
    with make_view(make_console(), story, quiet=arguments.quiet) as view:
        alone = _train_alone(options, story, view)
        started_ns = time.monotonic_ns()
        launcher = Launcher(options, scenario, story, view.refresh)
        asyncio.run(launcher.run())
        duration_s = (time.monotonic_ns() - started_ns) / NS_PER_S
    expected = Expected(
        accuracy=alone.accuracy(),
        killed=scenario.killed,
        stopped=scenario.stopped,
        newcomer=None if arguments.no_faults else scenario.newcomer,
        newcomer_started_ns=launcher.newcomer_started_ns,
    )
    return evaluate(story, expected, duration_s), story


def _train_alone(options: PeerOptions, story: Story, view: View) -> Trainer:
    """Prepare what the peers load, and what the run is compared with."""
    story.tell(time.monotonic_ns(), "launcher", "loads scikit-learn's handwritten digits")
    view.refresh()
    digits = load_digits(options.seed)
    alone = train_alone(
        digits, seed=options.seed, batch_size=options.batch_size, steps=options.steps
    )
    digits.save(options.data)
    np.save(options.reference, alone.state["parameters"])
    text = f"a single process reads {alone.accuracy():.2%} of the held-out digits after training"
    story.tell(time.monotonic_ns(), "launcher", text)
    view.refresh()
    return alone


def _print_output(story: Story) -> None:
    """What peers that failed had to say besides their messages, which is mostly a traceback."""
    for peer in story.peers.values():
        if peer.state is PeerState.FAILED:
            for line in peer.output:
                print(f"{peer.name} | {line}")


def _write_report(path: Path, report: Report) -> None:
    try:
        path.write_text(json.dumps(report.as_json(), indent=2) + "\n")
    except OSError as error:
        raise UsageError(f"collect demo: cannot write {path}: {error.strerror}") from None
