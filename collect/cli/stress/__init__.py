"""`collect stress`: real processes, seeded faults, and an oracle that checks every operation.

A coordinator and peers run on this machine and do operations of all sizes, types and algorithms.
Peers and the coordinator are killed, stopped, and restarted, connections cut and slowed; an
independent computation of every result from the participants that were named, and one history that
must explain all that the peers tell, decide whether the library kept its promises
(docs/failure-model.md).
"""

from __future__ import annotations

import argparse
import json
import random
import shlex
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from collect.cli.stress.churn import Progress, churn
from collect.cli.stress.display import View, make_console, print_verdict
from collect.cli.stress.launcher import NotStarted
from collect.cli.stress.oracle import Inexplicable
from collect.cli.stress.scenario import (
    MINUTES_MAX,
    PEERS_MAX,
    PEERS_MIN,
    RATE_MAX,
    TRANSPORTS,
    Scenario,
    load,
)
from collect.cli.stress.verdict import Verdict, judge
from collect.cli.stress.world import Failure, Setting, World
from collect.cli.usage import UsageError, liveness_timeout, output_file, positive_int, seconds

EXIT_OK, EXIT_FAILED = 0, 1
SEED_BITS = 32


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--peers", type=positive_int, metavar="N", help=f"most members at a time ({Scenario.peers})"
    )
    add("--minutes", type=seconds, metavar="M", help=f"how long ({Scenario.minutes:g})")
    add(
        "--faults-per-minute",
        type=seconds,
        metavar="F",
        help=f"how often, if the machine can ({Scenario.faults_per_minute:g})",
    )
    add("--seed", type=int, metavar="N", help="of the faults and the operations (random)")
    add(
        "--timeout",
        type=liveness_timeout,
        metavar="S",
        help=f"the group's liveness knob in seconds ({Scenario.timeout_s:g})",
    )
    add(
        "--transport",
        choices=TRANSPORTS,
        help="auto: also over shared memory; tcp: never (auto)",
    )
    add(
        "--scenario", type=Path, metavar="FILE", help="settings, weights and times of faults (TOML)"
    )
    add("--report", type=output_file, metavar="FILE", help="write the verdict as JSON")
    add("--logs", type=Path, metavar="DIR", help="keep the processes' logs there")
    add("--quiet", action="store_true", help="show the verdict only")


def run(arguments: argparse.Namespace) -> int:
    scenario = _scenario(arguments)
    seed = random.getrandbits(SEED_BITS) if arguments.seed is None else arguments.seed
    logs = _log_folder(arguments.logs)
    verdict = _stress(arguments, scenario, seed, logs)
    if verdict.is_good and arguments.logs is None:
        shutil.rmtree(logs)
    print_verdict(make_console(), verdict)
    if arguments.report is not None:
        arguments.report.write_text(json.dumps(verdict.as_json(), indent=1) + "\n")
    return EXIT_OK if verdict.is_good else EXIT_FAILED


def _scenario(arguments: argparse.Namespace) -> Scenario:
    """The file's, changed by what the command line says."""
    scenario = load(arguments.scenario) if arguments.scenario else Scenario()
    given = {
        "peers": arguments.peers,
        "minutes": arguments.minutes,
        "faults_per_minute": arguments.faults_per_minute,
        "timeout_s": arguments.timeout,
        "transport": arguments.transport,
    }
    scenario = replace(scenario, **{name: v for name, v in given.items() if v is not None})
    if not PEERS_MIN <= scenario.peers <= PEERS_MAX:
        raise UsageError(f"collect stress: --peers must be {PEERS_MIN} to {PEERS_MAX}")
    if scenario.minutes > MINUTES_MAX:
        raise UsageError(f"collect stress: --minutes must be at most {MINUTES_MAX:g}")
    if scenario.faults_per_minute > RATE_MAX:
        raise UsageError(f"collect stress: --faults-per-minute must be at most {RATE_MAX:g}")
    return scenario


def _log_folder(wanted: Path | None) -> Path:
    if wanted is None:
        return Path(tempfile.mkdtemp(prefix="collect-stress-"))
    try:
        wanted.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"collect stress: --logs {wanted}: {error.strerror}") from None
    return wanted


def _stress(arguments: argparse.Namespace, scenario: Scenario, seed: int, logs: Path) -> Verdict:
    setting = Setting(
        seed,
        scenario.size_min,
        scenario.peers,
        scenario.timeout_s,
        scenario.transport,
        scenario.relays,
    )
    console = make_console()
    if not arguments.quiet:
        console.print(f"seed {seed}, up to {scenario.peers} peers; logs in {logs}", soft_wrap=True)
    world = World(logs, setting)
    progress = Progress(world, scenario)
    reason = ""
    try:
        with View(console, progress, quiet=arguments.quiet) as view:
            world.on_pump = view.refresh
            churn(progress)
    except (Failure, Inexplicable, NotStarted) as error:
        (logs / "stacks.txt").write_text(world.launcher.report())
        reason = f"after {progress.fault_count} faults: {error}"
    finally:
        world.close()
    return judge(progress, reason, _replay(arguments, scenario, seed), str(logs) if reason else "")


def _replay(arguments: argparse.Namespace, scenario: Scenario, seed: int) -> str:
    words = ["collect", "stress", "--seed", str(seed), "--peers", str(scenario.peers)]
    words += ["--minutes", f"{scenario.minutes:g}"]
    words += ["--faults-per-minute", f"{scenario.faults_per_minute:g}"]
    words += ["--timeout", f"{scenario.timeout_s:g}", "--transport", scenario.transport]
    if arguments.scenario is not None:
        words += ["--scenario", str(arguments.scenario)]
    return shlex.join(words)
