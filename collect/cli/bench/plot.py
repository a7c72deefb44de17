"""Figures as a picture: time over size, a panel for each world and collective."""

from __future__ import annotations

import importlib.util
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from collect.cli.bench.figures import Figures, size_text
from collect.cli.usage import UsageError

PANEL_INCHES = (5.2, 3.8)
COLUMNS_MAX = 3


def require_matplotlib() -> None:
    """Raises UsageError, before anything is measured, when nothing could be drawn."""
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError("collect bench: --plot needs matplotlib; pip install 'collect[plot]'")


def draw(figures: Sequence[Figures], path: Path) -> None:
    """Writes a picture; its kind follows from the name. Lines are medians, both axes are logs."""
    import matplotlib as mpl  # noqa: PLC0415 - an optional extra

    mpl.use("agg")  # no display is needed
    from matplotlib import pyplot  # noqa: PLC0415

    panels: dict[tuple[str, int], list[Figures]] = defaultdict(list)
    for each in figures:
        panels[each.case.collective, each.world].append(each)
    columns = min(len(panels), COLUMNS_MAX)
    lines = -(-len(panels) // columns)
    width, height = PANEL_INCHES
    picture, axes = pyplot.subplots(
        lines, columns, figsize=(width * columns, height * lines), squeeze=False
    )
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    for axis, ((collective, world), members) in zip(axes.flat, panels.items(), strict=False):
        _panel(axis, f"{collective}, {world} processes", members)
    picture.tight_layout()
    try:
        picture.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise UsageError(f"collect bench: cannot write {path}: {error}") from None
    finally:
        pyplot.close(picture)


def _panel(axis: Any, title: str, members: Sequence[Figures]) -> None:
    series: dict[str, list[Figures]] = defaultdict(list)
    for each in members:
        series[_name(each)].append(each)
    for name, points in series.items():
        points.sort(key=lambda each: each.case.size_bytes)
        sizes = [max(each.case.size_bytes, 1) for each in points]
        is_ours = points[0].library == "collect"
        axis.plot(
            sizes,
            [each.median_s * 1e6 for each in points],
            marker="o",
            markersize=3,
            linewidth=2 if is_ours else 1,
            linestyle="-" if is_ours else "--",
            label=name,
        )
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    ticks = sorted({max(each.case.size_bytes, 1) for each in members})
    axis.set_xticks(ticks, [size_text(size) for size in ticks], rotation=40, ha="right", fontsize=7)
    axis.minorticks_off()
    axis.grid(alpha=0.3)
    axis.set_title(title, fontsize=10)
    axis.set_ylabel("median, us", fontsize=8)
    axis.legend(fontsize=6)


def _name(figures: Figures) -> str:
    variant, case = figures.variant, figures.case
    words = [f"{figures.library}/{figures.transport}", variant.algorithm, variant.mode]
    words += [variant.arrays, case.dtype, case.op, case.placement]
    usual = ("", "auto", "call", "private", "float32", "sum", "in-place")
    return " ".join([words[0], *(word for word in words[1:] if word not in usual)])
