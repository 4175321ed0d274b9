"""A comparison for the terminal, as JSON and CSV, and as a plot that shows what cannot be told apart."""

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from itertools import chain
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.table import Table

from marl_coop.evaluation.comparison import ENOUGH_SEEDS, ComparedRow, Comparison, Verdict, speaks_of, verdict
from marl_coop.evaluation.conditions import ConditionChange
from marl_coop.runs.files import write_whole
from rewards.metrics import METRICS, Metric

SHOWN = {  # metric -> how tables and plots call it
    "success": "success",
    "utility": "utility",
    "j": "J = CDR - CR",
    "cdr": "CDR",
    "cr": "CR",
    "message_tokens_per_episode": "message tokens",
}
PLOTTED = ("j", "success", "cr")
TOLD_APART, NOT_TOLD_APART, REFERENCE = "#0072b2", "#999999", "#000000"  # blue and grey differ for every eye


def tables(comparison: Comparison, shown: Sequence[str] = tuple(SHOWN)) -> Iterator[Table]:
    """A table of the methods, and one of their differences to the reference."""
    values = {(row.method, row.metric): row for row in comparison.rows if row.than is None}
    differences = {(row.method, row.metric): row for row in comparison.rows if row.than is not None}
    columns = [metric for metric in shown if any(metric == known for _, known in values)]
    title = f"{comparison.condition}: {comparison.tasks} tasks"
    out = Table(title=title, title_justify="left")
    out.add_column("method", overflow="fold")
    out.add_column("seeds", justify="right")
    for metric in columns:
        out.add_column(_name(metric), justify="right", no_wrap=True)
    for method, seeds in comparison.seeds.items():
        cells = (values.get((method, metric)) for metric in columns)
        out.add_row(method, str(len(seeds) or "none"), *map(_value, cells))
    yield out
    out = Table(title=f"minus {comparison.reference}", title_justify="left", caption=speaks_of(comparison))
    for column in ("metric", "method"):
        out.add_column(column, overflow="fold")
    for column in ("difference", "improvement", "told apart"):
        out.add_column(column, justify="right", no_wrap=True)
    for metric in columns:
        rows = [row for (_, known), row in differences.items() if known == metric]
        for row in rows:
            told = _told_apart(row.verdict)
            out.add_row(_name(metric), row.method, _value(row), _improvement(row), told, end_section=row is rows[-1])
    yield out


def tables_of_changes(changes: Sequence[ConditionChange], shown: Sequence[str] = tuple(SHOWN)) -> Iterator[Table]:
    """A table of each method: what each condition changes in its metrics."""
    for method in dict.fromkeys(change.sides.method for change in changes):
        mine = [change for change in changes if change.sides.method == method]
        few = "" if all(len(change.seeds) >= ENOUGH_SEEDS for change in mine) else "Too few seeds for a claim. "
        note = (
            f"{few}Interquartile means over seeds of what changes in each; intervals for other seeds and other tasks."
        )
        out = Table(title=method, title_justify="left", caption=note)
        for column in ("metric", "condition", "minus"):
            out.add_column(column, overflow="fold")
        for column in ("seeds", "tasks", "difference", "of seeds", "told apart"):
            out.add_column(column, justify="right", no_wrap=True)
        for metric in shown:
            rows = [change for change in mine if metric in change.metrics]
            for row in rows:
                difference, of_seeds = row.metrics[metric].difference, row.metrics[metric].of_seeds
                seeds = "none" if row.seeds == [None] else str(len(row.seeds))
                out.add_row(
                    _name(metric),
                    row.sides.condition,
                    row.sides.than,
                    seeds,
                    str(row.tasks),
                    str(Metric(difference.value, difference.low, difference.high, 0)),
                    " ".join(f"{value:.2f}" for value in of_seeds),
                    _told_apart(verdict(difference.low, difference.high)),
                    end_section=row is rows[-1],
                )
        yield out


def undefined(changes: Sequence[ConditionChange], shown: Sequence[str] = tuple(SHOWN)) -> Iterator[str]:
    """A line of each change that has no value in some of the metrics."""
    for change in changes:
        if names := [name for name in change.undefined if name in shown]:
            sides = f"{change.sides.method}, {change.sides.condition} minus {change.sides.than}"
            yield f"no case on both sides of every seed: {', '.join(names)} of {sides}"


def write_changes(changes: Sequence[ConditionChange], folder: Path) -> None:
    """Write `conditions.json` and `conditions.csv`."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        change.sides._asdict()
        | {"metric": metric, "tasks": change.tasks, "seeds": list(change.seeds)}
        | {end: getattr(found.difference, end) for end in ("value", "low", "high")}
        | {"of_seeds": found.of_seeds, "verdict": verdict(found.difference.low, found.difference.high)}
        for change in changes
        for metric, found in change.metrics.items()
    ]
    write_whole(folder / "conditions.json", json.dumps(rows, indent=1) + "\n")
    _write_csv(folder / "conditions.csv", list(rows[0]), rows)


def _write_csv(file: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """A table in which the numbers of a list stand beside each other in one cell."""
    with file.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.DictWriter(lines, columns)
        writer.writeheader()
        for row in rows:
            cells = {name: " ".join(map(str, cell)) for name, cell in row.items() if isinstance(cell, list | tuple)}
            writer.writerow({**row, **cells})


def _told_apart(said: Verdict) -> str:
    return "no" if said == "not told apart" else said


def _name(metric: str) -> str:
    arrow = {1: " ↑", -1: " ↓", 0: ""}[METRICS[metric].direction]
    return SHOWN.get(metric, metric) + arrow


def _value(row: ComparedRow | None) -> str:
    if row is None:
        return "no case"
    cases = "" if row.n is None else f" of {row.n}"
    return f"{Metric(row.value, row.low, row.high, row.n or 0)}{cases}"


def _improvement(row: ComparedRow) -> str:
    if row.improvement is None:
        return ""
    value, low, high = row.improvement
    return f"P {value:.2f} [{low:.2f}, {high:.2f}]"


def summary(comparison: Comparison, metric: str) -> str:
    """In a line, the methods of which the metric cannot be told apart from the reference's."""
    rows = [row for row in comparison.rows if row.than is not None and row.metric == metric]
    if not rows:
        return f"{metric} has no case in these runs, so nothing is told apart by it"
    alike = [row.method for row in rows if row.verdict == "not told apart"]
    return f"not told apart from {comparison.reference} by {metric}: {', '.join(alike) or 'none'}"


def write(comparisons: Sequence[Comparison], folder: Path, plotted: Sequence[str] = PLOTTED) -> None:
    """Write `comparison.json`, `comparison.csv` and, of each condition, `comparison-<condition>.png`.

    The plots of an earlier comparison in the folder, by its `comparison.json`, are removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for condition in _earlier(folder / "comparison.json"):
        (folder / _plot_of(condition)).unlink(missing_ok=True)
    rows = [[_plain(row) for row in one.rows] for one in comparisons]
    content = [
        asdict(one) | {"speaks_of": speaks_of(one), "rows": plain} for one, plain in zip(comparisons, rows, strict=True)
    ]
    write_whole(folder / "comparison.json", json.dumps(content, indent=1) + "\n")
    columns = [*(field.name for field in fields(ComparedRow)), "verdict"]
    _write_csv(folder / "comparison.csv", columns, chain.from_iterable(rows))
    for one in comparisons:
        plot(one, folder / _plot_of(one.condition), plotted)


def _earlier(file: Path) -> list[str]:
    """The conditions of an earlier comparison; none where there is none that can be read."""
    try:
        return [one["condition"] for one in json.loads(file.read_text(encoding="utf-8"))]
    except (OSError, ValueError, LookupError, TypeError):
        return []


def _plot_of(condition: str) -> str:
    return f"comparison-{re.sub(r'[^A-Za-z0-9_.-]+', '_', condition)}.png"


def _plain(row: ComparedRow) -> dict:
    return asdict(row) | {"verdict": row.verdict if row.than is not None else None}


def plot(comparison: Comparison, file: Path, shown: Sequence[str] = PLOTTED) -> None:
    """Draw each method with its interval, grey where it cannot be told apart from the reference, which is black, and
    each of its seeds as a small dot."""
    values = {(row.method, row.metric): row for row in comparison.rows if row.than is None}
    verdicts = {(row.method, row.metric): row.verdict for row in comparison.rows if row.than is not None}
    metrics = [metric for metric in shown if any(metric == known for _, known in values)]
    methods = list(comparison.seeds)
    figure = Figure(figsize=(3.2 * max(1, len(metrics)) + 1.2, 0.32 * len(methods) + 1.4), layout="constrained")
    axes = figure.subplots(1, max(1, len(metrics)), sharey=True, squeeze=False)[0]
    for axis, metric in zip(axes[: len(metrics)], metrics, strict=True):
        for place, method in enumerate(methods):
            row = values.get((method, metric))
            if row is None:
                continue
            told = verdicts.get((method, metric))
            color = REFERENCE if told is None else NOT_TOLD_APART if told == "not told apart" else TOLD_APART
            if row.low is not None and row.high is not None:
                axis.plot([row.low, row.high], [place, place], "-", color=color, linewidth=2)
            axis.plot(row.of_seeds, [place + 0.25] * len(row.of_seeds), ".", color=color, alpha=0.6, markersize=4)
            axis.plot(row.value, place, "o", color=color, fillstyle="none" if color == NOT_TOLD_APART else "full")
        if (bar := values.get((comparison.reference, metric))) is not None:
            axis.axvline(bar.value, color=REFERENCE, linewidth=0.6, linestyle=":")
        axis.set(title=_name(metric), yticks=range(len(methods)), yticklabels=methods)
        axis.grid(axis="x", alpha=0.3)
        axis.set_ylim(len(methods) - 0.5, -0.5)
    figure.suptitle(f"{comparison.condition}, 95 %; grey: not told apart from {comparison.reference}", fontsize="small")
    figure.savefig(file, dpi=110)
