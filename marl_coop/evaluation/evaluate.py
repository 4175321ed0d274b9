"""Play unseen instances and measure: the same instances before and after training."""

from collections.abc import Sequence

from accelerate import PartialState
from accelerate.utils import gather_object
from rich.table import Table

from envs.core.episode import Episode
from envs.core.seeds import Stream, task_seed
from marl_coop.rollout.runner import RolloutRunner
from marl_coop.runs.progress import Progress
from rewards.metrics import Metric, compare, measure

TABLE = {  # metric -> how the table calls it
    "success": "success",
    "cdr": "CDR",
    "cr": "CR",
    "cr_as_expert": "CR as expert",
    "cr_as_novice": "CR as novice",
    "j": "J = CDR - CR",
    "blend_rate": "blends",
    "parse_rate": "parse rate",
    "message_tokens_per_episode": "message tokens",
}
COLUMNS = ("metric", "before", "after", "change", "ceiling", "cases")


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
    seeds = [task_seed(Stream.EVALUATION, seed, i) for i in range(episodes)]
    mine, played = seeds[state.process_index :: state.num_processes], []
    with Progress(episodes, label, "episode", shown=state.is_main_process) as progress:
        for start in range(0, len(mine), batch_size):
            part = mine[start : start + batch_size]
            played += [rollout.episode for rollout in runner.play(part, sampling_seed=seed)]
            progress.advance(state.num_processes * len(part))
    return sorted(gather_object(played), key=lambda episode: episode.task.seed)


def before_and_after(
    before: Sequence[Episode], after: Sequence[Episode], ideal: Sequence[Episode] = ()
) -> dict[str, dict[str, Metric]]:
    """Every metric of both sides, of the paired difference and, where ideal players played the same tasks, of these.

    The keys are `before`, `after`, `change` and, where there are `ideal` episodes (`ceiling`), `ceiling`.
    """
    results = {"before": measure(before), "after": measure(after), "change": compare(before, after)}
    return results | ({"ceiling": measure(ideal)} if ideal else {})


def table(results: dict[str, dict[str, Metric]], title: str) -> Table:
    """The metrics that matter, for the terminal."""
    out = Table(
        title=title,
        caption="CDR: ends right, of those told wrong beside a partner told right. CR: does not, of those told right\n"
        "beside a partner told wrong; as expert: whose source was the better one. Blends: of those told apart.\n"
        "Ceiling: ideal players on the same tasks. Brackets: 95 % intervals, a Bayesian bootstrap.",
    )
    for column in COLUMNS:
        out.add_column(column, justify="left" if column == COLUMNS[0] else "right", no_wrap=True)
    for row in rows(results):
        out.add_row(*row)
    return out


def rows(results: dict[str, dict[str, Metric]]) -> list[list[str]]:
    """The cells of each metric of `TABLE`, in the order of `COLUMNS`; a ceiling that is not known is empty."""
    lines = []
    for name, label in TABLE.items():
        sides = [results[side][name] for side in ("before", "after", "change")]
        ideal = results["ceiling"][name].value if "ceiling" in results else None
        lines.append([label, *map(cell, sides), "" if ideal is None else f"{ideal:.2f}", str(sides[-1].n)])
    return lines


def cell(metric: Metric) -> str:
    """`0.52 [0.45, 0.59]`, `0.52` where there is no interval, `not defined` where there was no case."""
    if metric.value is None:
        return "not defined"
    if metric.low is None:  # one episode tells nothing of the spread
        return f"{metric.value:.2f}"
    return f"{metric.value:.2f} [{metric.low:.2f}, {metric.high:.2f}]"
