"""What came of a battery, for a reader: a table for each condition, and one of the differences of each team."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rich.table import Table

from marl_coop.evaluation.results import ResultRow, Results
from rewards.metrics import Metric

SHOWN = {  # metric -> how the tables call it
    "success": "success",
    "utility": "utility",
    "j": "J = CDR - CR",
    "cdr": "CDR",
    "cr": "CR",
    "j_answered": "J of answers",
    "answer_realised": "code as answered",
    "kairos_utility": "KAIROS utility",
    "resistance": "resistance",
    "kairos_f1": "F1 of both",
    "prior_accuracy": "right alone",
    "textual_conflict_rate": "merge conflicts",
    "parse_rate": "parse rate",
    "message_tokens_per_episode": "message tokens",
}
COMPARED = ("success", "j", "cdr", "cr")
COORDINATION = {"curse_of_coordination": "curse", "coordination_failure_rate": "broken", "token_ratio": "token ratio"}


class Grid(NamedTuple):
    """A table in words: `heads` are those of its columns, and each of `rows` has as many cells."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    labels: int = 1  # the first columns, which are no numbers
    note: str = ""


def grids(results: Results) -> Iterator[Grid]:
    """A grid for each condition that anybody has played, with all teams, the floor and the ceiling, then one of each
    team's differences."""
    values = [row for row in results.rows if row.than_who is None]
    for name in results.conditions:
        if rows := [row for row in values if row.condition == name]:
            yield _condition(results, name, rows)
    for who in results.who:
        differences = [row for row in results.rows if row.than_who is not None and row.who == who]
        if differences:
            yield _differences(who, differences)


def tables(results: Results) -> Iterator[Table]:
    """The grids for the terminal."""
    for grid in grids(results):
        out = Table(title=grid.title, title_justify="left", caption=grid.note or None)
        for i, head in enumerate(grid.heads):
            out.add_column(head, justify="left" if i < grid.labels else "right", overflow="fold")
        for row in grid.rows:
            out.add_row(*row)
        yield out


def _condition(results: Results, name: str, rows: Sequence[ResultRow]) -> Grid:
    about, found = results.conditions[name], {(row.who, row.metric): row for row in rows}
    present = list(dict.fromkeys(row.who for row in rows))
    bars = {results.floor: "floor", results.start: "start", results.ceiling: "ceiling"}
    seats = "one seat" if about["partner"] is not None else "all seats"
    cells = {label: [found.get((who, metric)) for who in present] for metric, label in SHOWN.items()}
    return Grid(
        title=f"{name}: {about['episodes']} tasks, the team in {seats}",
        heads=["metric", *(f"{bars[who]}: {who}" if who in bars else who for who in present)],
        rows=[[label, *map(_with_cases, of_metric)] for label, of_metric in cells.items() if any(of_metric)],
    )


def _differences(who: str, rows: Sequence[ResultRow]) -> Grid:
    found: dict[tuple[str, str], dict[str, ResultRow]] = {}
    for row in rows:
        same = row.than_who == who
        minus = f"in {row.than_condition}" if same else str(row.than_who)
        minus += f" in {row.than_condition}" if not same and row.than_condition != row.condition else ""
        found.setdefault((row.condition, minus), {})[row.metric] = row
    shown = {metric: SHOWN[metric] for metric in COMPARED} | COORDINATION
    columns = [metric for metric in shown if any(metric in metrics for metrics in found.values())]
    return Grid(
        title=f"{who}: differences, paired by task",
        heads=["in condition", "minus", *(shown[metric] for metric in columns)],
        rows=[[*place, *(_with_cases(metrics.get(metric)) for metric in columns)] for place, metrics in found.items()],
        labels=2,
        note="Brackets: 95 % intervals, a Bayesian bootstrap over tasks. One checkpoint speaks of itself alone.",
    )


def _with_cases(row: ResultRow | None) -> str:
    """`0.52 [0.45, 0.59] of 96`."""
    if row is None:
        return "no case"
    return f"{Metric(row.value, row.low, row.high, row.n)} of {row.n}"
