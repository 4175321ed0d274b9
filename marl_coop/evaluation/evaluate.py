"""Play unseen instances and measure: the same instances before and after training."""

from collections.abc import Collection, Mapping, Sequence

from accelerate import PartialState
from accelerate.utils import gather_object
from rich.table import Table

from envs.core.episode import Episode
from envs.core.seeds import Stream, task_seed
from marl_coop.rollout.runner import RolloutRunner
from marl_coop.runs.progress import Progress
from rewards.metrics import Metric, compare, measure, of_players, of_seats, seats_of

TABLE = {  # metric -> how the table calls it
    "success": "success",
    "utility": "utility",
    "cdr": "CDR",
    "cr": "CR",
    "cr_as_expert": "CR as expert",
    "cr_as_novice": "CR as novice",
    "j": "J = CDR - CR",
    "j_answered": "J of answers",
    "answer_realised": "code as answered",
    "blend_rate": "blends",
    "parse_rate": "parse rate",
    "message_tokens_per_episode": "message tokens",
}
NOTES = {  # metric -> what its row in the table means, where its name does not say so
    "cdr": "CDR: ends right, of those told wrong beside a partner told right.",
    "cr": "CR: does not, of those told right beside a partner told wrong.",
    "cr_as_expert": "As expert: whose source was the better one.",
    "j_answered": "J of answers: by what last replies name, whatever the code does.",
    "answer_realised": "Code as answered: does what the last reply names, of those that name an option.",
    "blend_rate": "Blends: of those told apart.",
}
CLOSING = "Ceiling: ideal players on the same tasks. Brackets: 95 % intervals, a Bayesian bootstrap."
COLUMNS = ("metric", "before", "after", "change", "ceiling", "cases")


def evaluate(
    runner: RolloutRunner,
    episodes: int,
    seed: int = 0,
    batch_size: int = 48,
    label: str = "evaluation",
    stream: Stream = Stream.EVALUATION,
) -> list[Episode]:
    """Play `episodes` unseen instances, shared by all processes; every process gets all of them, in order.

    Args:
        runner: plays them.
        seed: chooses the instances, and how replies are sampled.
        batch_size: episodes that one process plays at a time.
        label: what the progress bar says.
        stream: which the instances are of.
    """
    state = PartialState()
    seeds = [task_seed(stream, seed, i) for i in range(episodes)]
    mine, played = seeds[state.process_index :: state.num_processes], []
    with Progress(episodes, label, "episode", shown=state.is_main_process) as progress:
        for start in range(0, len(mine), batch_size):
            part = mine[start : start + batch_size]
            played += [rollout.episode for rollout in runner.play(part, sampling_seed=seed)]
            progress.advance(state.num_processes * len(part))
    return sorted(gather_object(played), key=lambda episode: episode.task.seed)


def before_and_after(
    before: Sequence[Episode],
    after: Sequence[Episode],
    ideal: Sequence[Episode] = (),
    learners: Collection[str] = (),
) -> dict[str, dict[str, Metric]]:
    """Every metric of both sides, of the paired difference and, where ideal players played the same tasks, of these,
    each where it is defined.

    The keys are `before`, `after`, `change` and, where there are `ideal` episodes (`ceiling`), `ceiling`.

    Args:
        learners: the adapters that are trained. Where others play beside them, what is counted by seats is counted of
            theirs, and of the ideal players in the same seats; none: of all.
    """
    metrics, judged = of_players(learners), beside_ceiling(after, ideal, learners)
    change = _defined(compare(before, after, metrics))
    return {"before": _defined(measure(before, metrics)), "after": judged.pop("after"), "change": change} | judged


def beside_ceiling(
    episodes: Sequence[Episode], ideal: Sequence[Episode], learners: Collection[str]
) -> dict[str, dict[str, Metric]]:
    """The sides `after` and, where there are `ideal` episodes, `ceiling` of `before_and_after`."""
    seats = {episode.task.id: seats_of(learners, episode) for episode in episodes}
    ceiling = {"ceiling": _defined(measure(ideal, of_seats(lambda episode: seats[episode.task.id])))} if ideal else {}
    return {"after": _defined(measure(episodes, of_players(learners)))} | ceiling


def _defined(metrics: Mapping[str, Metric]) -> dict[str, Metric]:
    return {name: metric for name, metric in metrics.items() if metric.value is not None}


def table(results: dict[str, dict[str, Metric]], title: str) -> Table:
    """The metrics that matter, for the terminal."""
    notes = [NOTES[name] for name in _shown(results) if name in NOTES]
    out = Table(title=title, caption=" ".join([*notes, CLOSING]))
    for column in COLUMNS:
        out.add_column(column, justify="left" if column == COLUMNS[0] else "right", no_wrap=True)
    for row in rows(results):
        out.add_row(*row)
    return out


def _shown(results: dict[str, dict[str, Metric]]) -> list[str]:
    """The metrics of `TABLE` that are defined before or after."""
    return [name for name in TABLE if name in results["before"] or name in results["after"]]


def rows(results: dict[str, dict[str, Metric]]) -> list[list[str]]:
    """The cells of each metric of `TABLE` that is defined on a side, in the order of `COLUMNS`; a ceiling that is not
    known is empty."""
    lines = []
    for name in _shown(results):
        before, after, change = (results[side].get(name) for side in ("before", "after", "change"))
        ideal = results.get("ceiling", {}).get(name)
        cases = change.n if change else 0
        sides = map(cell, (before, after, change))
        lines.append([TABLE[name], *sides, "" if ideal is None else f"{ideal.value:.2f}", str(cases)])
    return lines


def cell(metric: Metric | None) -> str:
    """The metric in a table, `not defined` where there is none."""
    return "not defined" if metric is None else str(metric)
