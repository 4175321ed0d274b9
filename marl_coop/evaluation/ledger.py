"""The token ledger of a run: what it cost before and after training, and the difference, with intervals."""

from collections.abc import Mapping, Sequence

from rich.table import Table

from envs.core.episode import Episode
from rewards.metrics import Metric, compare, measure
from rewards.metrics.ledger import PriceList, ledger

CHANGE = "change"
LABELS = {
    "message_share": "share of talk",
    "generated_tokens_per_solved": "tokens written per solved task",
    "tokens_per_solved": "tokens in all per solved task",
    "rework_tokens_per_episode": "rework, tokens per task",
    "duplicate_tokens_per_episode": "duplicates, tokens per task",
    "price_of_messages": "price of talk, 1,000 tasks",
    "price_of_rework": "price of rework, 1,000 tasks",
    "price_of_duplicates": "price of duplicates, 1,000 tasks",
    "price_per_task": "price of 1,000 tasks",
    "price_per_solved": "price of 1,000 solved tasks",
    "month": "month, each task tried once",
    "month_all_solved": "month, tried until solved",
}
BY_SOLVED = tuple(name for name in LABELS if name.endswith("_solved"))
OF_A_THOUSAND = tuple(name for name, label in LABELS.items() if "1,000" in label)  # one task costs too little to read


def measure_ledger(parts: Mapping[str, Sequence[Episode]], prices: PriceList) -> dict[str, dict[str, Metric]]:
    """The lines of the ledger in each part of a run, and `change` from before to after where both are there.

    Args:
        parts: episodes by part: "before", "training", "after".
        prices: what tokens cost.

    Returns:
        part -> name of a line -> its value with a 95 % interval; a line that is not defined in a part is left out.

    Raises:
        ValueError: before and after do not hold the same tasks.
    """
    lines = ledger(prices)
    found = {part: measure(episodes, lines) for part, episodes in parts.items()}
    if "before" in parts and "after" in parts:
        found[CHANGE] = compare(parts["before"], parts["after"], lines)
    return {
        part: {name: metric for name, metric in metrics.items() if metric.value is not None}
        for part, metrics in found.items()
    }


def table(found: Mapping[str, Mapping[str, Metric]], prices: PriceList, title: str) -> Table:
    """The ledger for the terminal; a line that no part defines is left out, but for those by solved tasks."""
    solved = all(name in metrics for metrics in found.values() for name in BY_SOLVED)
    out = Table(
        title=title,
        caption=f"Prices in {prices.currency}: {prices.input:g} per million tokens read, {prices.output:g} written. "
        f"Month: {prices.agents} agents,\neach with a part in {prices.tasks_per_day:g} tasks a day on {prices.days:g} "
        "days; a task needs all seats of a team.\nBrackets: 95 % intervals, a Bayesian bootstrap."
        + ("" if solved else " Not defined: no task was solved."),
    )
    out.add_column("line", no_wrap=True)
    for part in found:
        out.add_column(part, justify="right", no_wrap=True)
    for name, label in LABELS.items():
        if name in BY_SOLVED or any(name in metrics for metrics in found.values()):
            factor = 1000 if name in OF_A_THOUSAND else 1
            out.add_row(label, *(_cell(metrics.get(name), factor) for metrics in found.values()))
    return out


def _cell(metric: Metric | None, factor: int) -> str:
    if metric is None:
        return "not defined"
    ends = "" if metric.low is None else f" [{_number(factor * metric.low)}, {_number(factor * (metric.high or 0.0))}]"
    return f"{_number(factor * (metric.value or 0.0))}{ends}"


def _number(value: float) -> str:
    """As many decimals as its size asks for.

    >>> [_number(value) for value in (0.0705, 3.84, -21.8, 1889.2)]
    ['0.070', '3.84', '-21.8', '1889']
    """
    decimals = 3 - sum(abs(value) >= size for size in (1, 10, 100))
    return f"{value:.{decimals}f}"
