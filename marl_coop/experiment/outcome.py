"""What came of a run: the table of before and after, what rings in it, and the files in the run's folder of it."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

from rich.table import Table

from envs.core.env import CoopEnv
from envs.core.episode import Episode
from marl_coop.bases import is_folder
from marl_coop.config.schema import Config
from marl_coop.evaluation.alarms import ringing, worsened
from marl_coop.evaluation.ceiling import ceiling
from marl_coop.evaluation.evaluate import TABLE, before_and_after, beside_ceiling, rows, table
from marl_coop.export.card import About, model_card
from marl_coop.runs.checkpoints import best_checkpoint
from marl_coop.runs.files import write_whole
from marl_coop.runs.records import read_episodes, read_metrics
from marl_coop.runs.rundir import Start
from rewards.metrics import Metric, seats_of


@dataclass(frozen=True)
class RunOutcome:
    """Metrics of the same unseen instances before and after training.

    Attributes:
        title: of the table.
        results: metrics by name for each side of the table.
        episodes: instances that were played.
    """

    title: str
    results: dict[str, dict[str, Metric]]
    episodes: int

    @classmethod
    def of(
        cls, run: str, env: CoopEnv, learners: Sequence[str], before: Sequence[Episode], after: Sequence[Episode]
    ) -> Self:
        """The outcome of what was played.

        Args:
            run: what the table calls the run.
            env: the environment of the evaluation.
            learners: adapters that were trained, whose seats count.
            before, after: episodes of the same tasks, in the same order.
        """
        results = before_and_after(before, after, ceiling(env, after), learners)
        title = f"{run}: {len(after)} unseen instances"
        if any(set(seats_of(learners, episode)) < set(episode.seats) for episode in after):
            title += f", the seats of {', '.join(learners)}"  # others play beside them
        return cls(title, results, len(after))

    @cached_property
    def rows(self) -> list[list[str]]:
        """The table as text, a row per metric."""
        return rows(self.results)

    @property
    def table(self) -> Table:
        """The table as a terminal shows it."""
        return table(self.results, self.title)

    def alarms(self, metrics: Path) -> list[str]:
        """What rings at the end of a run, given the records of its updates."""
        return [*ringing(read_metrics(metrics)).values(), *worsened(self.results["change"])]

    def write(self, file: Path) -> None:
        """Put the metrics into a JSON file."""
        plain = {side: {n: dataclasses.asdict(m) for n, m in found.items()} for side, found in self.results.items()}
        write_whole(file, json.dumps(plain, indent=2) + "\n")

    @property
    def values(self) -> dict[str, dict[str, float | None]]:
        """The bare numbers, as trackers take them."""
        return {side: {name: metric.value for name, metric in found.items()} for side, found in self.results.items()}


def about_run(name: str, config: Config, base: str, system: str, env: CoopEnv, judged_on: str, start: Start) -> About:
    """What the cards of a run's adapters say of it.

    Args:
        name: what the run is called.
        base: the base model, as its configuration names it.
        system: the system message of its chats.
        env: an environment as in training.
        judged_on: a sentence that says on which instances it has its results.
        start: the first of the run.
    """
    families = config.env.get("families")
    return About(
        run=name,
        base=base,
        local=is_folder(config.model.name_or_path),
        dtype=config.model.dtype,
        rank=config.lora.r,
        environment=config.env["name"],
        families=families if isinstance(families, str) else ", ".join(families or ()),
        system=system,
        phases=[str(phase) for phase in env.config.phases],
        seed=config.seed,
        judged_on=judged_on,
        commit=(start["git"] or {}).get("commit"),
        processes=start.get("processes", 1),
    )


def write_cards(
    folder: Path,
    about: About,
    learners: Sequence[str],
    command: Sequence[str],
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
) -> None:
    """Put a model card beside each trained adapter of a folder, with the table of what it came to."""
    for adapter in learners:
        write_whole(folder / adapter / "README.md", str(model_card(adapter, about, command, columns, rows)))


def write_cards_of_best(
    folder: Path, env: CoopEnv, about: About, learners: Sequence[str], command: Sequence[str]
) -> None:
    """Put a model card beside each adapter of a run's best checkpoint, with what came of the evaluation that found it.

    Nothing is written where a run has no best checkpoint, or where that or its evaluation is gone.

    Args:
        folder: the run's.
        env: the environment of the evaluation.
    """
    best = best_checkpoint(folder)
    played = folder / "evaluations" / f"update-{best['update']:04d}.jsonl" if best else folder
    if best is None or not played.is_file() or not (folder / best["checkpoint"]).is_dir():
        return
    episodes = read_episodes(played)
    results = beside_ceiling(episodes, ceiling(env, episodes), learners)
    found, ideal = results["after"], results.get("ceiling", {})
    shown = [
        [label, str(found[name]), f"{ideal[name].value:.2f}" if name in ideal else "", str(found[name].n)]
        for name, label in TABLE.items()
        if name in found
    ]
    when = f"after update {best['update']}"
    judged_on = (
        f"On {len(episodes)} unseen instances {when}, the evaluation with the highest {best['metric']} while it "
        "trained. It was chosen by this, so expect less on other instances."
    )
    columns = ("metric", when, "ceiling", "cases")
    write_cards(
        folder / best["checkpoint"], dataclasses.replace(about, judged_on=judged_on), learners, command, columns, shown
    )
