"""What a run writes into its folder of what it plays and comes to."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from envs.core.env import CoopEnv
from envs.core.episode import Episode
from marl_coop.evaluation.evaluate import COLUMNS
from marl_coop.evaluation.report import learning_curve
from marl_coop.experiment.outcome import RunOutcome, write_cards, write_cards_of_best
from marl_coop.export.card import About
from marl_coop.runs.checkpoints import RESULTS
from marl_coop.runs.records import Credit, write_episodes
from marl_coop.runs.rundir import Start
from rewards import RewardBreakdown


@dataclass(frozen=True)
class RunRecorder:
    """The files of a run. Of what all processes know alike, the first alone writes.

    Attributes:
        folder: the run's.
        process: index of this process.
    """

    folder: Path
    process: int

    @property
    def main(self) -> bool:
        return self.process == 0

    def rollouts(
        self, update: int, episodes: list[Episode], breakdowns: list[RewardBreakdown], credits: list[Credit]
    ) -> None:
        """Keep what this process played in training under the update's number in the metrics, which begins at 1."""
        file = self.folder / "episodes" / f"update-{update + 1:04d}.{self.process}.jsonl"
        write_episodes(file, episodes, breakdowns, credits)

    def judged(self, label: str, episodes: Sequence[Episode]) -> None:
        """Keep the evaluation by which the run is judged, "before" or "after" training."""
        if self.main:
            write_episodes(self.folder / f"{label}.jsonl", episodes)

    def held_out(self, update: int, episodes: Sequence[Episode]) -> None:
        """Keep an evaluation after an update."""
        if self.main:
            write_episodes(self.folder / "evaluations" / f"update-{update:04d}.jsonl", episodes)

    def curve(self) -> None:
        """Draw the metrics of its updates."""
        if self.main:
            learning_curve([self.folder], self.folder / "learning_curve.png")

    def outcome(self, outcome: RunOutcome, env: CoopEnv, about: About, learners: Sequence[str], start: Start) -> None:
        """Keep what came of the run, and a model card beside each adapter.

        Args:
            env: the environment of the evaluation.
            learners: adapters that were trained.
            start: the first of the run, whose command made it.
        """
        write_cards(self.folder, about, learners, start["command"], COLUMNS, outcome.rows)
        write_cards_of_best(self.folder, env, about, learners, start["command"])
        outcome.write(self.folder / RESULTS)  # the last of the folder's files: it says that the run has ended
