"""`collect bench`: latency and bandwidth of collectives between processes of this machine."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from collect.cli.bench import installed, limits
from collect.cli.bench.cases import BOTH, COLLECTIVES, IN_PLACE, OUT_OF_PLACE
from collect.cli.bench.choices import name_list, peer_list, size_list, world_list
from collect.cli.bench.figures import Figures, size_text, time_text
from collect.cli.bench.limits import Limits
from collect.cli.bench.peers import PEERS, Peer, find
from collect.cli.bench.plot import draw, require_matplotlib
from collect.cli.bench.suite import DTYPES, OPS, Suite, peer_transports
from collect.cli.bench.table import tables
from collect.cli.bench.worlds import Notes, measure_suite
from collect.cli.usage import UsageError, output_file, positive_int, seconds
from collect.config import STREAMS_MAX

EXIT_OK = 0
PLAIN_WIDTH = 240
MODES = (installed.CALL, installed.PERSISTENT)
ARRAYS = (installed.PRIVATE, installed.SHARED)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    all_names = ", ".join(COLLECTIVES)
    add(
        "collectives",
        nargs="?",
        type=name_list(list(COLLECTIVES), has_all=True),
        metavar="COLLECTIVE,…",
        help=f"what to measure: all, or of {all_names}",
    )
    add(
        "--sizes",
        type=size_list,
        default=size_list("8:128MiB"),
        metavar="BYTES,…",
        help="of the larger buffer; also MIN:MAX[:FACTOR] (default 8:128MiB, in steps of 4)",
    )
    add("--worlds", type=world_list, default=[2, 4], metavar="P,…", help="processes (default 2,4)")
    add(
        "--dtypes",
        type=name_list(DTYPES),
        default=["float32"],
        metavar="T,…",
        help=f"of {', '.join(DTYPES)} (default float32)",
    )
    add(
        "--ops",
        type=name_list(OPS),
        default=["sum"],
        metavar="OP,…",
        help=f"of {', '.join(OPS)} (default sum)",
    )
    known = ", ".join(installed.algorithms())
    add(
        "--algorithms",
        type=name_list(installed.algorithms()),
        default=[installed.AUTO],
        metavar="A,…",
        help=f"of {known} (default auto)",
    )
    add(
        "--transports",
        type=name_list(installed.TRANSPORTS),
        default=[installed.AUTO],
        metavar="T,…",
        help="of auto, tcp, shm (default auto)",
    )
    add(
        "--mode",
        type=name_list(MODES),
        default=[installed.CALL],
        metavar="M,…",
        help="call: as most programs do; persistent: prepared once (default call)",
    )
    add(
        "--arrays",
        type=name_list(ARRAYS),
        default=[installed.PRIVATE],
        metavar="A,…",
        help="private: any array; shared: made by collect.empty (default private)",
    )
    _add_manner(parser)
    _add_outputs(parser)


def _add_outputs(parser: argparse.ArgumentParser) -> None:
    """What else is measured, and where it is written."""
    add = parser.add_argument
    add(
        "--against",
        type=peer_list(PEERS),
        metavar="PEER,…",
        help=f"measure these too, taking turns: {', '.join(PEERS)}; "
        "NAME=FOLDER tells where an MPI is installed, with its bin/mpiexec",
    )
    add("--limits", action="store_true", help="measure what this machine allows at best, too")
    add("--json", type=output_file, metavar="FILE", help="write every figure as JSON")
    add("--plot", type=output_file, metavar="FILE", help="draw time over size (.png, .svg, .pdf)")


def _add_manner(parser: argparse.ArgumentParser) -> None:
    """How each case is done, how often, and whether its result is checked."""
    add = parser.add_argument
    placement = parser.add_mutually_exclusive_group()
    for option, chosen, what in (
        ("--in-place", (IN_PLACE,), "the result replaces the input (default)"),
        ("--out-of-place", (OUT_OF_PLACE,), "the result has an array of its own"),
        ("--both", BOTH, "one after the other"),
    ):
        placement.add_argument(
            option, dest="placements", action="store_const", const=chosen, help=what
        )
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--iterations", type=positive_int, metavar="N", help="of each, in all")
    length.add_argument(
        "--seconds", type=seconds, metavar="S", default=1.0, help="of each, in all (default 1)"
    )
    add("--rounds", type=positive_int, metavar="N", default=5, help="turns of each (default 5)")
    add("--streams", type=positive_int, metavar="N", default=1, help="sockets per link (default 1)")
    add(
        "--check",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="check every element of the results, outside of the measured time",
    )


def run(arguments: argparse.Namespace) -> int:
    if arguments.collectives is None and not arguments.limits:
        raise UsageError("collect bench: name a collective, or all, or --limits")
    if arguments.plot is not None:
        require_matplotlib()
    notes = Notes()
    suite = _suite(arguments, notes) if arguments.collectives is not None else None
    terminal = Console(highlight=False)
    console = terminal if terminal.is_terminal else Console(highlight=False, width=PLAIN_WIDTH)
    found: Limits | None = None
    if arguments.limits:
        with console.status("measuring what this machine allows"):
            found = limits.measure()
        console.print(limits.table(found))
    rows: list[list[Figures]] = []
    if suite is not None:
        rows = _measure(suite, console, notes)
        for table in tables(rows, suite.peers, found):
            console.print(table)
    for name, version in notes.versions.items():
        console.print(f"{name}: {version}")
    for line in notes.lines:
        console.print(f"note: {line}", markup=False)
    if arguments.json is not None:
        _write(arguments.json, suite, rows, notes, found)
    if arguments.plot is not None and rows:
        draw([figures for row in rows for figures in row], arguments.plot)
    return EXIT_OK


def _measure(suite: Suite, console: Console, notes: Notes) -> list[list[Figures]]:
    rows: list[list[Figures]] = []
    with console.status("starting") as status:

        def take(row: list[Figures]) -> None:
            rows.append(row)
            first = row[0]
            status.update(
                f"{first.world} processes, {first.case.collective}: "
                f"{size_text(first.case.size_bytes)} in {time_text(first.median_s)}"
            )

        asyncio.run(measure_suite(suite, take, notes))
    return rows


def _suite(arguments: argparse.Namespace, notes: Notes) -> Suite:
    """What the arguments ask for, as far as the installed package can do it."""
    if arguments.streams > STREAMS_MAX:
        raise UsageError(f"collect bench: --streams must be at most {STREAMS_MAX}")
    collectives = _collectives(arguments.collectives, notes)
    _require("--arrays", arguments.arrays, installed.arrays())
    possible = {mode for collective in collectives for mode in installed.modes(collective)}
    _require("--mode", arguments.mode, [mode for mode in MODES if mode in possible])
    transports = _transports(arguments.transports, notes)
    has_choice = any(installed.takes_algorithm(collective) for collective in collectives)
    if not has_choice and len(arguments.algorithms) > 1:
        raise UsageError(
            "collect bench: this version of collect has one algorithm per group; name one"
        )
    widest = max(np.dtype(dtype).itemsize for dtype in arguments.dtypes)
    if odd := [size for size in arguments.sizes if size % widest]:
        raise UsageError(
            f"collect bench: {odd[0]} bytes are no whole number of elements of {widest} bytes"
        )
    group_algorithm = "" if has_choice else arguments.algorithms[0]
    return Suite(
        collectives=tuple(collectives),
        sizes_bytes=tuple(arguments.sizes),
        worlds=tuple(arguments.worlds),
        transports=tuple(transports),
        peers=tuple(_peers(arguments.against or {}, transports, notes)),
        dtypes=tuple(arguments.dtypes),
        ops=tuple(arguments.ops),
        placements=arguments.placements or (IN_PLACE,),
        algorithms=tuple(arguments.algorithms),
        modes=tuple(arguments.mode),
        arrays=tuple(arguments.arrays),
        group_algorithm="" if group_algorithm == installed.AUTO else group_algorithm,
        streams=arguments.streams,
        rounds=arguments.rounds,
        iterations=arguments.iterations,
        budget_s=arguments.seconds,
        is_checked=arguments.check,
    )


def _collectives(wanted: Sequence[str], notes: Notes) -> list[str]:
    here = installed.collectives()
    missing = [each for each in wanted if each not in here]
    if missing and len(wanted) < len(COLLECTIVES):
        raise UsageError(
            f"collect bench: this version of collect has no {missing[0]}; it has {', '.join(here)}"
        )
    if missing:
        notes.add(f"this version of collect has no {', '.join(missing)}")
    return [each for each in wanted if each in here]


def _require(option: str, wanted: Sequence[str], possible: Sequence[str]) -> None:
    if missing := [each for each in wanted if each not in possible]:
        raise UsageError(
            f"collect bench: {option} {missing[0]}: this version of collect has only "
            f"{', '.join(possible)}"
        )


def _transports(wanted: Sequence[str], notes: Notes) -> list[str]:
    possible = installed.transports()
    if installed.AUTO in possible:
        return list(wanted)
    if installed.AUTO in wanted:
        notes.add("this version of collect has no choice of transports: it is TCP")
    _require("--transports", [each for each in wanted if each != installed.AUTO], possible)
    return possible


def _peers(wanted: dict[str, str | None], transports: Sequence[str], notes: Notes) -> list[Peer]:
    """Each with every transport that one of ours is compared with."""
    kinds = list(dict.fromkeys(peer_transports(transport) for transport in transports))
    peers = []
    for name, folder in wanted.items():
        found = [peer for kind in kinds if (peer := find(name, folder, kind)) is not None]
        if not found:
            other = installed.TCP if kinds == [installed.SHM] else installed.SHM
            found = [peer for peer in [find(name, folder, other)] if peer is not None]
            notes.add(f"{name} has {other} only")
        peers += found
    return peers


def _write(
    path: Path,
    suite: Suite | None,
    rows: Sequence[Sequence[Figures]],
    notes: Notes,
    found: Limits | None,
) -> None:
    document: dict[str, Any] = {
        "machine": {
            "cores": os.cpu_count(),
            "kind": platform.machine(),
            "system": f"{platform.system()} {platform.release()}",
        },
        "python": platform.python_version(),
        "versions": notes.versions,
        "notes": notes.lines,
        "limits": asdict(found) if found else None,
        "streams": suite.streams if suite else None,
        "figures": [figures.as_json() for row in rows for figures in row],
    }
    try:
        path.write_text(json.dumps(document, indent=2) + "\n")
    except OSError as error:
        raise UsageError(f"collect bench: cannot write {path}: {error.strerror}") from None
