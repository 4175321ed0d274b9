"""Where the numbers of a run go beside its own folder: wandb and TensorBoard, in the place of those of transformers."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from envs.core.episode import Episode
from marl_coop.config.schema import Config
from marl_coop.ppo.config import MultiAgentPPOConfig
from marl_coop.runs import rundir

if TYPE_CHECKING:
    from marl_coop.experiment.tensorboard import TensorBoardRun
    from marl_coop.experiment.tracking import WandbRun

OURS = frozenset({"wandb", "tensorboard"})  # of what `training.report_to` may name


@dataclass(frozen=True, slots=True)
class Trackers:
    """Those that a run reports to, in the process that does."""

    wandb: "WandbRun | None" = None
    tensorboard: "TensorBoardRun | None" = None

    @classmethod
    def of_run(
        cls,
        stack: ExitStack,
        names: set[str],
        folder: Path,
        name: str,
        config: Config,
        args: MultiAgentPPOConfig,
        *,
        done: int,
        say: Callable[[str], None],
    ) -> Self:
        """Open those of some names until `stack` is closed.

        Args:
            folder: the run's.
            name: what the run is called, with which others of that name it belongs together.
            done: updates that were made before this start.
            say: takes the one line that says what went wrong.
        """
        wandb = tensorboard = None
        if "wandb" in names:
            from marl_coop.experiment.tracking import WandbRun  # loads wandb, which takes a second

            wandb = stack.enter_context(
                WandbRun(
                    folder,
                    run_id=rundir.run_id(folder),
                    name=str(args.run_name),
                    group=name,
                    config=config.model_dump(mode="json") | {"training": args.to_dict()},
                    say=say,
                )
            )
        if "tensorboard" in names:
            from marl_coop.experiment.tensorboard import TensorBoardRun  # loads tensorboard, which takes a second

            updates = -(-args.max_steps // args.steps_per_update)
            tensorboard = stack.enter_context(TensorBoardRun(folder, config.to_yaml(), updates, done))
        return cls(wandb, tensorboard)

    @property
    def callbacks(self) -> "list[WandbRun | TensorBoardRun]":
        """Those that there are, which the trainer tells of every update."""
        return [tracker for tracker in (self.wandb, self.tensorboard) if tracker is not None]

    def transcripts(self, label: str, episodes: Sequence[Episode], update: int | None = None) -> None:
        """Hand over what was played in an evaluation, after an update or, with None, before or after training."""
        if self.wandb:
            self.wandb.transcripts(label, episodes, update)

    def report(self, results: Mapping[str, Mapping[str, float | None]], columns: Sequence[str], rows: Sequence) -> None:
        """Hand over what came of the run: the values, and the table that it prints."""
        for tracker in self.callbacks:
            tracker.report(results, columns, rows)
