"""What the trainer tells the terminal and the run directory."""

import json
from pathlib import Path

from transformers import TrainerCallback
from transformers.trainer_callback import ProgressCallback

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
