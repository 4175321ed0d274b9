"""What came of a battery, for the terminal: a table for each condition, and one of the differences."""

from collections.abc import Iterator, Sequence

from rich.table import Table

from marl_coop.evaluation.results import ResultRow, Results
from rewards.metrics import Metric

SHOWN = {  # metric -> how the tables call it
    "success": "success",
    "utility": "utility",
    "j": "J = CDR - CR",
    "cdr": "CDR",
    "cr": "CR",
    "kairos_utility": "KAIROS utility",
    "resistance": "resistance",
    "kairos_f1": "F1 of both",
    "prior_accuracy": "right alone",
    "parse_rate": "parse rate",
    "message_tokens_per_episode": "message tokens",
}
COMPARED = ("success", "j", "cdr", "cr")
COORDINATION = {"curse_of_coordination": "curse", "coordination_failure_rate": "broken", "token_ratio": "token ratio"}


def tables(results: Results) -> Iterator[Table]:
    """A table for each condition, with all teams, the floor and the ceiling, then one of each team's differences."""
    values = [row for row in results.rows if row.than_who is None]
    for name in results.conditions:
        rows = [row for row in values if row.condition == name]
        yield _condition(results, name, rows)
    for who in results.who:
        differences = [row for row in results.rows if row.than_who is not None and row.who == who]
        if differences:
            yield _differences(who, differences)


def _condition(results: Results, name: str, rows: Sequence[ResultRow]) -> Table:
    about, found = results.conditions[name], {(row.who, row.metric): row for row in rows}
    present = list(dict.fromkeys(row.who for row in rows))
    bars = {results.floor: "floor", results.ceiling: "ceiling"}
    seats = "one seat" if about["partner"] is not None else "all seats"
    out = Table(title=f"{name}: {about['episodes']} tasks, the team in {seats}", title_justify="left")
    out.add_column("metric", no_wrap=True)
    for who in present:
        out.add_column(f"{bars[who]}: {who}" if who in bars else who, justify="right", overflow="fold")
    for metric, label in SHOWN.items():
        cells = [found.get((who, metric)) for who in present]
        if any(cells):
            out.add_row(label, *map(_with_cases, cells))
    return out


def _differences(who: str, rows: Sequence[ResultRow]) -> Table:
    found: dict[tuple[str, str], dict[str, ResultRow]] = {}
    for row in rows:
        same = row.than_who == who
        minus = f"in {row.than_condition}" if same else str(row.than_who)
        minus += f" in {row.than_condition}" if not same and row.than_condition != row.condition else ""
        found.setdefault((row.condition, minus), {})[row.metric] = row
    shown = {metric: SHOWN[metric] for metric in COMPARED} | COORDINATION
    columns = [metric for metric in shown if any(metric in metrics for metrics in found.values())]
    out = Table(
        title=f"{who}: differences, paired by task",
        title_justify="left",
        caption="Brackets: 95 % intervals, a Bayesian bootstrap over tasks. One checkpoint speaks of itself alone.",
    )
    for column in ("in condition", "minus"):
        out.add_column(column, overflow="fold")
    for metric in columns:
        out.add_column(shown[metric], justify="right")
    for place, metrics in found.items():
        out.add_row(*place, *(_with_cases(metrics.get(metric)) for metric in columns))
    return out


def _with_cases(row: ResultRow | None) -> str:
    """`0.52 [0.45, 0.59] of 96`."""
    if row is None:
        return "no case"
    return f"{Metric(row.value, row.low, row.high, row.n)} of {row.n}"
