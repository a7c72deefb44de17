"""Figures as tables for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from rich import box
from rich.table import Table

from collect.cli.bench.cases import COLLECTIVES, Case, Variant
from collect.cli.bench.figures import Figures, best, size_text, time_text
from collect.cli.bench.limits import Limits
from collect.cli.bench.peers import Peer
from collect.cli.bench.suite import is_comparable
from collect.cli.bench.worlds import COLLECT

HEADINGS = ("median", "p99", "min", "alg GB/s", "bus GB/s")
TRANSPORT_NAMES = {"tcp": "loopback TCP", "shm": "shared memory", "auto": "transport auto"}


def tables(
    rows: Sequence[Sequence[Figures]], peers: Sequence[Peer], limits: Limits | None
) -> Iterator[Table]:
    """One table for each world, transport and kind of case; one line for each size and way."""
    for _, group in groupby(rows, key=lambda row: _kind(row[0])):
        members = list(group)
        ours = [figures for row in members for figures in row if figures.library == COLLECT]
        for transport in dict.fromkeys(figures.transport for figures in ours):
            beside = [peer for peer in peers if is_comparable(transport, peer)]
            yield _table(members, transport, beside, limits)


def _kind(figures: Figures) -> tuple[object, ...]:
    case = figures.case
    return figures.world, case.collective, case.dtype, case.op, case.placement


def _table(
    rows: Sequence[Sequence[Figures]],
    transport: str,
    peers: Sequence[Peer],
    limits: Limits | None,
) -> Table:
    first = rows[0][0]
    title = f"{_case_text(first.case)}, {first.world} processes, {TRANSPORT_NAMES[transport]}"
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", padding=(0, 1))
    ours = [
        figures
        for row in rows
        for figures in row
        if figures.library == COLLECT and figures.transport == transport
    ]
    ways = _differing([figures.variant for figures in ours])
    headings = ["size", *ways, *HEADINGS, "n", *(("of limit",) if limits else ())]
    for peer in peers:
        headings += [f"{peer.label}\nmedian", "times\nfaster", "by min"]
    for heading in headings:
        table.add_column(heading, justify="right", vertical="bottom", no_wrap=True)
    for row in rows:
        for figures in row:
            if figures.library == COLLECT and figures.transport == transport:
                table.add_row(*_cells(figures, ways, row, peers, limits))
    return table


def _case_text(case: Case) -> str:
    kind = COLLECTIVES[case.collective]
    words = [f"{case.dtype} {case.op}".strip()] if kind.is_sized else []
    words += [case.placement.replace("-", " ")] if len(kind.placements) > 1 else []
    return ", ".join([case.collective, *words])


def _differing(variants: Sequence[Variant]) -> list[str]:
    """The choices in which the variants differ: they get a column each."""
    names = ("algorithm", "mode", "arrays")
    return [name for name in names if len({getattr(each, name) for each in variants}) > 1]


def _cells(
    figures: Figures,
    ways: Sequence[str],
    row: Sequence[Figures],
    peers: Sequence[Peer],
    limits: Limits | None,
) -> Iterable[str]:
    yield size_text(figures.case.size_bytes)
    yield from (getattr(figures.variant, way) for way in ways)
    yield time_text(figures.median_s)
    yield time_text(figures.p99_s)
    yield time_text(figures.min_s)
    yield f"{figures.algorithm_bytes_per_s / 1e9:.3f}"
    yield f"{figures.bus_bytes_per_s / 1e9:.3f}"
    yield str(figures.iterations)
    if limits is not None:
        yield f"{100 * limits.least_s(figures) / figures.median_s:.0f} %"
    for peer in peers:
        theirs = best(
            [each for each in row if (each.library, each.transport) == (peer.name, peer.transport)]
        )
        if theirs is None:
            yield from ("-", "-", "-")
        else:
            yield time_text(theirs.median_s)
            yield f"{theirs.median_s / figures.median_s:.2f}"
            yield f"{theirs.min_s / figures.min_s:.2f}"
