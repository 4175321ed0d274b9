"""The weights of the reward terms while training, among them those that move to hold a budget."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback

from envs.core.episode import Episode
from envs.core.task import Seat
from rewards import RewardStack
from rewards.schedules import DualAscent

KEY = "reward_weights"  # in `trainer_state.json`


class RewardWeights(TrainerCallback):
    """Gives each update its weights, and moves those of `DualAscent` at the end of an update.

    Most schedules are functions of the update's number. The weights that have moved are kept in the trainer's state
    among those of callbacks, so they are in every checkpoint and in no other file. (transformers itself would make the
    callback anew from what was saved, and only with `restore_callback_states_from_checkpoint`.)

    Args:
        stack: the terms with their schedules.
        total: sums a tensor over all processes.
    """

    def __init__(self, stack: RewardStack, total: Callable[[Tensor], Tensor]):
        self.stack, self.total = stack, total
        self.held = {t.name: (t, t.weight) for t in stack.terms if isinstance(t.weight, DualAscent)}
        self.moved: dict[str, float] = {}
        self.spent: dict[str, float] = {}  # means of the running update; none where nothing was to be learned from

    def at(self, update: int) -> RewardStack:
        """The stack of an update: every weight is a plain number."""
        return self.stack.at(update).with_weights(self.moved)

    def count(self, played: Sequence[tuple[Episode, Seat]]) -> None:
        """Note what was spent in the running update, in this process's share of what is learned from."""
        for name, (term, _) in self.held.items():
            spent = [term.spent(episode, seat) for episode, seat in played]
            total, cases = self.total(torch.tensor([sum(spent), len(spent)], dtype=torch.float32)).tolist()
            self.spent |= {name: total / cases} if cases else {}

    def on_train_begin(self, args, state: Any, control, **kwargs):
        saved = state.stateful_callbacks.get(KEY, {})
        self.moved = {name: weight for name, weight in saved.items() if name in self.held}

    def on_step_end(self, args: Any, state: Any, control, **kwargs):
        update, step = divmod(state.global_step, args.steps_per_update)
        if step or not self.held:
            return
        for name, spent in self.spent.items():
            _, schedule = self.held[name]
            if update % schedule.every == 0:
                self.moved[name] = schedule.moved(self.moved.get(name, schedule.start), spent)
        self.spent = {}
        state.stateful_callbacks[KEY] = dict(self.moved)
