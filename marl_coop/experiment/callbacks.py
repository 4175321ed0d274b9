"""What the trainer tells the terminal, the run folder and the curriculum."""

import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback

from envs.core.curriculum import Curriculum
from marl_coop.evaluation.alarms import ringing, still_read
from marl_coop.policy.compat import ExportableState
from marl_coop.ppo.metrics import MeanMetrics
from marl_coop.ppo.trainer import MultiAgentPPOTrainer
from marl_coop.runs.checkpoints import BEST, step_of
from marl_coop.runs.files import write_whole
from marl_coop.runs.progress import Progress
from marl_coop.runs.records import append_metrics, forget_metrics_after, read_metrics

SHOWN = {  # beside the KL
    "team/success": "success",
    "team/j": "J",
    "team/message_tokens_per_episode": "tokens",
}


def headline(logs: Mapping[str, float]) -> dict[str, str]:
    """What the progress of an update shows: success, J, message tokens, and the greatest KL of an adapter, to its
    reference if that is measured, else to itself before the update.

    >>> headline({"team/success": 0.5, "agent_0/approx_kl": 0.004, "agent_1/approx_kl": 0.01, "agent_1/entropy": 1.0})
    {'success': '0.50', 'KL': '0.010'}
    """
    shown = {short: f"{logs[name]:.2f}" for name, short in SHOWN.items() if name in logs}
    for kind in ("kl_to_reference", "approx_kl"):
        if found := [value for name, value in logs.items() if name.endswith(f"/{kind}")]:
            return shown | {"KL": f"{max(found):.3f}"}
    return shown


class UpdateProgress(TrainerCallback):
    """The updates with the time left and a few numbers of each: a bar in a terminal, a line per update elsewhere."""

    def __init__(self, steps_per_update: int):
        self._steps = steps_per_update

    def on_train_begin(self, args, state, control, **kwargs):
        total, done = state.max_steps // self._steps, state.global_step // self._steps
        self._progress = Progress(total, "training", "update", done=done, shown=state.is_world_process_zero)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if logs and "update" in logs:
            self._progress.advance(1, headline(logs))


class StepProgress(TrainerCallback):
    """The steps of a supervised training with the time left."""

    def __init__(self, label: str):
        self._label = label

    def on_train_begin(self, args, state, control, **kwargs):
        self._progress = Progress(state.max_steps, self._label, "step", shown=state.is_world_process_zero, pause_s=10)

    def on_step_end(self, args, state, control, **kwargs):
        self._progress.advance()


def show_progress(trainer: Trainer, progress: TrainerCallback) -> None:
    """Put a progress of ours in the place of the trainer's own bar or prints."""
    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(progress)


class MetricsFile(TrainerCallback):
    """Appends every record of the trainer to a JSON-lines file; a resumed run first takes back what it makes anew.

    Args:
        file: gets a line for each record.
        say: takes a line for the user, of records that were lost.
    """

    def __init__(self, file: Path, say: Callable[[str], None]):
        self.file, self.say = file, say

    def on_train_begin(self, args: Any, state, control, **kwargs):
        if not state.is_world_process_zero:
            return
        forget_metrics_after(self.file, state.global_step)
        done = range(1, state.global_step // args.steps_per_update + 1)
        there = {record["update"] for record in read_metrics(self.file)}
        if lost := [update for update in done if update not in there]:
            first = f"{len(lost)} of {len(done)} updates, of which the first is {lost[0]}"
            self.say(f"{str(self.file)!r} has no record of {first}: the run goes on without")

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero and logs:
            append_metrics(self.file, {"step": state.global_step} | logs)


class AlarmBell(TrainerCallback):
    """Says in one line that an alarm begins to ring, and in one that it has stopped; both are in a JSON-lines file.

    Args:
        file: gets a line for each change.
        metrics: the file of `MetricsFile`, whose callback comes before this one.
        say: takes a line for the user.
    """

    def __init__(self, file: Path, metrics: Path, say: Callable[[str], None]):
        self.file, self.metrics, self.say = file, metrics, say
        self._rows: list[Mapping[str, float]] = []  # those that alarms still read

    def on_train_begin(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            forget_metrics_after(self.file, state.global_step)
            self._rows = still_read(read_metrics(self.metrics))

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not state.is_world_process_zero or not logs or "update" not in logs:
            return
        before = ringing(self._rows)
        self._rows = still_read([*self._rows, dict(logs)])
        now, update = ringing(self._rows), logs["update"]
        for name in sorted(now.keys() ^ before.keys()):  # a set has another order in each process
            rings = name in now
            text = now[name] if rings else f"no longer: {before[name]}"
            self.say(f"alarm at update {update}: {text}")
            record = {"step": state.global_step, "update": update, "alarm": name, "rings": rings, "text": text}
            append_metrics(self.file, record)


class HeldOut(TrainerCallback, ExportableState):
    """Evaluates on unseen instances every so many updates, and has the trainer keep the checkpoint of the best one.

    What comes of it is in the update's record, under `eval/`. The best so far is in every checkpoint, so a resumed run
    knows it and keeps its checkpoint, and in `best.json`.

    Args:
        trainer: has the metrics of the record, and the checkpoints.
        measure: plays for an update, and gives the metrics that are defined.
        every: updates between two evaluations; 0: there are none, and what earlier starts found best is kept.
        metric: whose highest value is the best.
        say: takes a line for the user, of a best checkpoint that is gone.
    """

    def __init__(
        self,
        trainer: MultiAgentPPOTrainer,
        measure: Callable[[int], Mapping[str, float]],
        every: int,
        metric: str,
        say: Callable[[str], None],
    ):
        self.trainer, self.measure, self.every, self.metric, self.say = trainer, measure, every, metric, say
        self.file = Path(str(trainer.args.output_dir)) / BEST
        self.best: dict[str, Any] = {}

    def on_train_begin(self, args, state, control, **kwargs):
        saved = cast(dict[str, Any], state.stateful_callbacks).setdefault(type(self).__name__, self.state())
        self._keep(saved["attributes"])
        if self.best and not self.file.with_name(self.best["checkpoint"]).is_dir():
            self.say(
                f"the best checkpoint until here, {self.best['checkpoint']}, is gone: the best of those to come stays"
            )
            self._keep({})
        if state.is_world_process_zero:  # the file may be of a later checkpoint than the one where the run goes on
            self._write()

    def on_step_end(self, args: Any, state, control, **kwargs):
        update, step = divmod(state.global_step, args.steps_per_update)
        if not self.every or step or update % self.every:
            return
        started = time.perf_counter()
        found = self.measure(update)
        for name, value in found.items():
            self.trainer.metrics.add(f"eval/{name}", value)
        self.trainer.metrics.add("seconds/eval", time.perf_counter() - started)
        value = found.get(self.metric)
        if value is not None and value > self.best.get("value", -math.inf):
            checkpoint = f"checkpoint-{state.global_step}"
            self._keep({"checkpoint": checkpoint, "update": update, "metric": self.metric, "value": value})
            control.should_save = True

    def on_save(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            self._write()

    def _write(self) -> None:
        if self.best:
            write_whole(self.file, json.dumps(self.best, indent=1) + "\n")
        else:
            self.file.unlink(missing_ok=True)

    def _keep(self, best: Mapping[str, Any]) -> None:
        self.best = dict(best)
        self.trainer.kept_step = step_of(Path(best["checkpoint"])) if best else None

    def state(self) -> dict:
        return {"args": {}, "attributes": self.best}


class CurriculumLevel(TrainerCallback, ExportableState):
    """Tells a curriculum what came of each update, and the trainer's metrics its level; every checkpoint has its state.

    The success that it is told is that of all processes, so all of them are on the same level. One that plays ahead has
    begun an update before it knows what came of the one before: that update counts for the level that it was played on,
    and for none where the level has changed since.
    """

    def __init__(self, curriculum: Curriculum, metrics: MeanMetrics):
        self.curriculum, self.metrics = curriculum, metrics

    def on_train_begin(self, args, state, control, **kwargs):
        saved = cast(dict[str, Any], state.stateful_callbacks).setdefault(type(self).__name__, self.state())
        self.curriculum.restore(saved["attributes"])
        self._play_on(self.curriculum.level)

    def on_log(self, args: Any, state, control, logs=None, **kwargs):
        if logs and "team/success" in logs:
            begun = self.curriculum.level
            if self._played == begun:
                self.curriculum.record(logs["team/success"], args.episodes_per_update)
            self._play_on(begun if args.async_play else self.curriculum.level)

    def _play_on(self, level: int) -> None:
        """Note the level of the next update that is logged."""
        self._played = level
        self.metrics.add("curriculum/level", level)

    def state(self) -> dict:
        return {"args": {}, "attributes": self.curriculum.state()}
