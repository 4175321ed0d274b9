"""Play unseen instances and measure: the same instances before and after training."""

from collections.abc import Sequence

from accelerate import PartialState
from accelerate.utils import gather_object
from rich.table import Table

from envs.core.episode import Episode
from marl_coop.rollout.runner import RolloutRunner
from marl_coop.runs.progress import Progress
from rewards.metrics import Metric, compare, measure

EVALUATION_SEEDS = 2**41  # no training or warm-up task has a seed this high

TABLE = {  # metric -> how the table calls it
    "success": "success",
    "cdr": "CDR",
    "cr": "CR",
    "j": "J = CDR - CR",
    "blend_rate": "blends",
    "parse_rate": "parse rate",
    "message_tokens_per_episode": "message tokens",
}


def evaluate(
    runner: RolloutRunner, episodes: int, seed: int = 0, batch_size: int = 48, label: str = "evaluation"
) -> list[Episode]:
    """Play `episodes` unseen instances, shared by all processes; every process gets all of them, in order.

    Args:
        runner: plays them.
        seed: chooses the instances, and how replies are sampled.
        batch_size: episodes that one process plays at a time.
        label: what the progress bar says.
    """
    state = PartialState()
    seeds = [EVALUATION_SEEDS + seed * 1_000_000 + i for i in range(episodes)]
    mine, played = seeds[state.process_index :: state.num_processes], []
    with Progress(episodes, label, "episode", shown=state.is_main_process) as progress:
        for start in range(0, len(mine), batch_size):
            part = mine[start : start + batch_size]
            played += [rollout.episode for rollout in runner.play(part, sampling_seed=seed)]
            progress.advance(state.num_processes * len(part))
    return sorted(gather_object(played), key=lambda episode: episode.task.seed)


def before_and_after(before: Sequence[Episode], after: Sequence[Episode]) -> dict[str, dict[str, Metric]]:
    """Every metric of both sides and of the paired difference, with 95 % intervals."""
    return {"before": measure(before), "after": measure(after), "change": compare(before, after)}


def table(results: dict[str, dict[str, Metric]], title: str) -> Table:
    """The metrics that matter, for the terminal."""
    out = Table(
        title=title,
        caption="CDR: ends right, of those told wrong beside a partner told right. CR: does not, of those told right beside\n"
        "a partner told wrong. Blends: of those told apart. Brackets: 95 % intervals, a Bayesian bootstrap over tasks.",
    )
    out.add_column("metric", no_wrap=True)
    for column in ("before", "after", "change"):
        out.add_column(column, justify="right", no_wrap=True)
    out.add_column("cases", justify="right")
    for name, label in TABLE.items():
        row = [results[column][name] for column in ("before", "after", "change")]
        out.add_row(label, *(cell(metric) for metric in row), str(row[2].n))
    return out


def cell(metric: Metric) -> str:
    """`0.52 [0.45, 0.59]`, `0.52` where there is no interval, `not defined` where there was no case."""
    if metric.value is None:
        return "not defined"
    if metric.low is None:  # one episode tells nothing of the spread
        return f"{metric.value:.2f}"
    return f"{metric.value:.2f} [{metric.low:.2f}, {metric.high:.2f}]"
