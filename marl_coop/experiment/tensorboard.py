"""A run in TensorBoard: a point per update, the whole configuration, and what came of it.

It takes the place of the callback of transformers, which counts in its own steps and puts `train/` before every name.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from torch.utils.tensorboard import SummaryWriter
from transformers import TrainerCallback


class TensorBoardRun(TrainerCallback):
    """One run's event file, in `$TENSORBOARD_LOGGING_DIR`, or else in the run's folder.

    Args:
        folder: the run's.
        config: the whole configuration as YAML.
        updates: of the training; values after it stand there, those before it at 0.
        done: updates that a run which goes on has behind it; what an earlier start said of later ones is not shown.
    """

    def __init__(self, folder: Path, config: str, updates: int, done: int = 0):
        self.updates = updates
        place = os.environ.get("TENSORBOARD_LOGGING_DIR", str(folder / "tensorboard"))
        self.writer = SummaryWriter(place, purge_step=done + 1)
        self.writer.add_text("config", f"```yaml\n{config}```")

    def on_log(self, args, state, control, logs=None, **kwargs):
        if logs and "update" in logs:
            for name, value in logs.items():
                self.writer.add_scalar(name, value, int(logs["update"]))
            self.writer.flush()

    def report(self, results: Mapping[str, Mapping[str, float | None]], columns: Sequence[str], rows: Sequence) -> None:
        """What came of the run: `<side>/<metric>`, and a table.

        Args:
            results: value of each metric by side, such as before and after.
            columns, rows: of the table.
        """
        for side, found in results.items():
            for name, value in found.items():
                if value is not None:
                    self.writer.add_scalar(f"{side}/{name}", value, 0 if side == "before" else self.updates)
        lines = [columns, ["---"] * len(columns), *rows]
        self.writer.add_text("results", "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines), self.updates)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        """Write what is left."""
        self.writer.close()
