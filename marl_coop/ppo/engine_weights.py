"""Which weights an engine samples from while the trainer changes them, and which a past self keeps."""

from collections.abc import Iterable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Any

from accelerate import PartialState
from transformers import TrainerCallback

from marl_coop.engines import Engine
from marl_coop.policy.team import TeamPolicy
from marl_coop.rollout.trajectory import Rollout


@dataclass(frozen=True, slots=True)
class Ahead:
    """An update's play that began while the one before is learned from, and the version of the weights that play it."""

    update: int
    version: int
    rollouts: Future[list[Rollout]]


class PastSnapshots(TrainerCallback):
    """Lets a policy take the snapshots that are due, before an engine is told of them."""

    def __init__(self, policy: TeamPolicy):
        self.policy = policy

    def on_step_end(self, args: Any, state, control, **kwargs):
        update, step = divmod(state.global_step, args.steps_per_update)
        if step == 0:
            self.policy.snapshot_past(update)


class EngineWeights(TrainerCallback):
    """Tells an engine of new adapters, and holds what it samples against them.

    The version of weights is the number of optimisation steps that made them, so it goes on where a run is resumed.
    An engine is told at the start, after each update, which is when it is to play, and at the end.
    """

    def __init__(self, engine: Engine):
        self.engine = engine
        self.ahead: Ahead | None = None
        self._load(0)

    def _load(self, version: int) -> None:
        if self.ahead is not None:
            wait([self.ahead.rollouts])  # begun with other weights,
            PartialState().wait_for_everyone()  # which servers forget as soon as one process tells them
        self.version = version
        self.engine.load_adapters(version)

    def check(self, rollouts: Iterable[Rollout], version: int) -> None:
        """Raises RuntimeError where a reply was sampled by other weights than those of a version."""
        turns = (turn for rollout in rollouts for trace in rollout.traces.values() for turn in trace.turns)
        if stale := sorted({turn.version for turn in turns if turn.version not in (None, version)}, key=str):
            raise RuntimeError(
                f"{type(self.engine).__name__} was told of weights {version} and sampled from weights {stale}: "
                "its load_adapters must take effect before the next request"
            )

    def on_train_begin(self, args, state, control, **kwargs):
        self._load(state.global_step)

    def on_step_end(self, args: Any, state, control, **kwargs):
        if state.global_step % args.steps_per_update == 0:
            self._load(state.global_step)

    def on_train_end(self, args, state, control, **kwargs):
        self._load(state.global_step)
