"""`collect bench`: latency and bandwidth between processes of this machine, over loopback TCP."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from collect.cli.bench.figures import SIZES_MAX, Figures, size_text, sizes, time_text
from collect.cli.bench.libraries import is_importable
from collect.cli.bench.worlds import Suite, measure_suite
from collect.cli.usage import UsageError, output_file, positive_int, seconds
from collect.config import STREAMS_MAX, Algorithm

EXIT_OK = 0
PLAIN_WIDTH = 120
WORLD_MAX = 64
COLLECTIVES = ("all-reduce",)
HEADINGS = ("median", "p95", "GB/s", "bus GB/s", "n")
SHORT_HEADINGS = ("median", "p95", "bus GB/s")  # with another library beside it
DTYPES = ("int32", "int64", "float32", "float64")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("collective", choices=COLLECTIVES)
    add(
        "--world",
        type=positive_int,
        nargs="+",
        metavar="P",
        default=[2, 4],
        help="members (default 2 4)",
    )
    add(
        "--sizes",
        type=sizes,
        nargs="+",
        default=[sizes("8..128Mi")],
        metavar="BYTES",
        help="sizes, or ranges in steps of a factor 4 (default 8..128Mi)",
    )
    add("--iterations", type=_iterations, default=None, metavar="N", help="per size, or 'auto'")
    add(
        "--budget",
        type=seconds,
        metavar="S",
        default=1.0,
        help="seconds per size for 'auto' (default 1)",
    )
    add("--dtype", choices=DTYPES, default="float32")
    add("--compare", choices=("gloo",), help="measure this library too, taking turns")
    add("--streams", type=positive_int, metavar="N", default=1, help="sockets per link (default 1)")
    add("--algorithm", choices=[each.value for each in Algorithm], default="direct")
    add("--json", type=output_file, metavar="FILE", help="write every figure as JSON")


def run(arguments: argparse.Namespace) -> int:
    suite = _suite(arguments)
    terminal = Console(highlight=False)
    console = terminal if terminal.is_terminal else Console(highlight=False, width=PLAIN_WIDTH)
    rows: list[list[Figures]] = []
    with console.status("starting") as status:

        def take(row: list[Figures]) -> None:
            rows.append(row)
            first = row[0]
            status.update(
                f"world {first.world}: {size_text(first.size_bytes)} in {time_text(first.median_s)}"
            )

        asyncio.run(measure_suite(suite, take))
    for world in suite.worlds:
        console.print(_table(suite, world, [row for row in rows if row[0].world == world]))
    if arguments.json is not None:
        _write(arguments.json, suite, rows)
    return EXIT_OK


def _iterations(text: str) -> int | None:
    return None if text == "auto" else positive_int(text)


def _suite(arguments: argparse.Namespace) -> Suite:
    sizes_bytes = sorted({size for group in arguments.sizes for size in group})
    itemsize = np.dtype(arguments.dtype).itemsize
    if len(sizes_bytes) > SIZES_MAX:
        raise UsageError(f"collect bench: more than {SIZES_MAX} sizes")
    if odd := [size for size in sizes_bytes if size % itemsize]:
        raise UsageError(
            f"collect bench: {odd[0]} bytes are no whole number of {arguments.dtype} elements"
        )
    if wrong := [world for world in arguments.world if not 2 <= world <= WORLD_MAX]:
        raise UsageError(f"collect bench: --world {wrong[0]} is not within 2…{WORLD_MAX}")
    if arguments.streams > STREAMS_MAX:
        raise UsageError(f"collect bench: --streams must be at most {STREAMS_MAX}")
    libraries = ("collect", arguments.compare) if arguments.compare else ("collect",)
    if missing := [library for library in libraries if not is_importable(library)]:
        raise UsageError(
            f"collect bench: --compare {missing[0]} needs torch; pip install 'collect[torch]'"
        )
    return Suite(
        libraries=libraries,
        worlds=tuple(dict.fromkeys(arguments.world)),
        sizes_bytes=tuple(sizes_bytes),
        dtype=arguments.dtype,
        streams=arguments.streams,
        algorithm=arguments.algorithm,
        iterations=arguments.iterations,
        budget_s=arguments.budget,
    )


def _table(suite: Suite, world: int, rows: list[list[Figures]]) -> Table:
    title = f"all-reduce of {suite.dtype}, {world} processes, loopback TCP, {suite.algorithm}"
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left")
    is_comparison = len(suite.libraries) > 1
    headings = [
        f"{library}\n{heading}" if is_comparison else heading
        for library in suite.libraries
        for heading in (SHORT_HEADINGS if is_comparison else HEADINGS)
    ]
    for heading in ("size", *headings, *(("times\nfaster",) if is_comparison else ())):
        table.add_column(heading, justify="right", vertical="bottom", no_wrap=True)
    for row in rows:
        table.add_row(*_cells(row))
    return table


def _cells(row: list[Figures]) -> Iterable[str]:
    is_comparison = len(row) > 1
    yield size_text(row[0].size_bytes)
    for figures in row:
        yield time_text(figures.median_s)
        yield time_text(figures.p95_s)
        if not is_comparison:
            yield f"{figures.algorithm_bytes_per_s / 1e9:.3f}"
        yield f"{figures.bus_bytes_per_s / 1e9:.3f}"
        if not is_comparison:
            yield str(figures.iterations)
    if is_comparison:
        yield f"{row[1].median_s / row[0].median_s:.2f}"


def _write(path: Path, suite: Suite, rows: list[list[Figures]]) -> None:
    document: dict[str, Any] = {
        "collective": "all-reduce",
        "transport": "loopback TCP",
        "dtype": suite.dtype,
        "streams": suite.streams,
        "algorithm": suite.algorithm,
        "machine": {"cores": os.cpu_count(), "kind": platform.machine()},
        "python": platform.python_version(),
        "figures": [figures.as_json() for row in rows for figures in row],
    }
    try:
        path.write_text(json.dumps(document, indent=2) + "\n")
    except OSError as error:
        raise UsageError(f"collect bench: cannot write {path}: {error.strerror}") from None
