"""What `--profile` says: where the time of an update went, how long the run will go on, and the whole in the end."""

from collections.abc import Callable, Mapping
from typing import Any

from rich.table import Table
from transformers import TrainerCallback

from marl_coop.experiment.run_time import in_words
from marl_coop.profiling import PhaseTotal, Profile

EVALUATION, WARM_UP = "evaluation", "warm-up"  # phases of a run beside those of an update


def shares(totals: Mapping[str, PhaseTotal]) -> str:
    """Where the time went, the longest phase first; what is below a percent is left out.

    >>> shares({"decode": PhaseTotal(seconds=1.5), "backward": PhaseTotal(seconds=4.5), "rewards": PhaseTotal()})
    'backward 75 %, decode 25 %'
    """
    whole = sum(total.seconds for total in totals.values())
    longest = sorted(totals.items(), key=lambda item: -item[1].seconds)
    parts = {name: 100 * total.seconds / whole for name, total in longest if whole}
    return ", ".join(f"{name} {share:.0f} %" for name, share in parts.items() if share >= 1)


class PhaseReport(TrainerCallback):
    """Says after each update where its time went and what is left of the run; `print_whole` has the run's table.

    Args:
        profile: of the run.
        steps_per_update: optimisation steps.
        say: takes a line or a table for the user.
    """

    def __init__(self, profile: Profile, steps_per_update: int, say: Callable[[Any], None]):
        self.profile, self.say = profile, say
        self._steps = steps_per_update
        self._whole: dict[str, PhaseTotal] = {}
        self._updates: list[float] = []  # seconds of each
        self._evaluation_s: float | None = None  # of the one before training; the one after it takes as long

    def on_train_begin(self, args, state, control, **kwargs):
        before = self._take().get(EVALUATION)  # none in a resumed run, which knows what came of it
        self._evaluation_s = before and before.seconds

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        self.profile.enter("optimiser")

    def on_optimizer_step(self, args, state, control, **kwargs):
        self.profile.leave()

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not logs or "update" not in logs:
            return
        totals = self._take()
        self._updates.append(sum(total.seconds for total in totals.values()))
        updates = -((state.global_step - state.max_steps) // self._steps)  # the last may be cut short by max_steps
        left_s = updates * sum(self._updates) / len(self._updates)
        left = in_words(left_s + (self._evaluation_s or 0.0)) + ("" if self._evaluation_s else " and an evaluation")
        self.say(f"update {logs['update']}, {self._updates[-1]:.1f} s: {shares(totals)}; {left} left")

    def print_whole(self) -> None:
        """The phases of the run so far, the longest first."""
        self._take()
        whole = sum(total.seconds for total in self._whole.values())
        table = Table(title=f"where {in_words(whole)} went", title_justify="left")
        for column in ("phase", "seconds", "share", "times", "tokens/s"):
            table.add_column(column, justify="left" if column == "phase" else "right")
        for name, total in sorted(self._whole.items(), key=lambda item: -item[1].seconds):
            speed = f"{total.tokens / total.seconds:.0f}" if total.tokens and total.seconds else ""
            share = f"{100 * total.seconds / whole:.1f} %"
            table.add_row(name, f"{total.seconds:.1f}", share, str(total.calls or ""), speed)
        self.say(table)

    def _take(self) -> dict[str, PhaseTotal]:
        totals = self.profile.take()
        for name, total in totals.items():
            self._whole.setdefault(name, PhaseTotal()).add(total)
        return totals
