"""What the trainer tells the terminal, the run directory and the curriculum."""

import json
from pathlib import Path

from transformers import ProgressCallback, TrainerCallback

from envs.core.curriculum import Curriculum
from marl_coop.policy.compat import ExportableState

SHOWN = {
    "team/success": "success",
    "team/j": "J",
    "team/parse_rate": "parsed",
    "team/message_tokens_per_episode": "talk",
}


class ProgressBar(ProgressCallback):
    """The trainer's bar with the time left; a few numbers beside it instead of a line per log."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        if self.training_bar is not None and logs:
            self.training_bar.set_postfix({short: f"{logs[name]:.2f}" for name, short in SHOWN.items() if name in logs})


class MetricsFile(TrainerCallback):
    """Appends every record of the trainer to a JSON-lines file."""

    def __init__(self, file: Path):
        self.file = file

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero and logs:
            with self.file.open("a", encoding="utf-8") as out:
                out.write(json.dumps({"step": state.global_step} | logs) + "\n")


class CurriculumLevel(TrainerCallback, ExportableState):
    """Tells a curriculum what came of each update, and the trainer's metrics its level; every checkpoint has its state.

    The success that it is told is that of all processes, so all of them are on the same level.
    """

    def __init__(self, curriculum: Curriculum, metrics: dict[str, list[float]]):
        self.curriculum, self.metrics = curriculum, metrics

    def on_train_begin(self, args, state, control, **kwargs):
        saved = state.stateful_callbacks.setdefault(type(self).__name__, self.state())
        self.curriculum.restore(saved["attributes"])
        self.metrics["curriculum/level"].append(self.curriculum.level)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if logs and "team/success" in logs:
            self.curriculum.record(logs["team/success"], args.episodes_per_update)
            self.metrics["curriculum/level"].append(self.curriculum.level)

    def state(self) -> dict:
        return {"args": {}, "attributes": self.curriculum.state()}
