"""What `training.async_play` gains: updates with and without it, in turn, on servers that already run.

    python benchmarks/async_play.py --config my.yaml training.engine_options.urls=[http://localhost:8000/v1]

`docs/scaling.md` says how a server is started. Each run is a process of its own, from the same start. Its seconds are
those of an update by wall-clock, from the end of the first to the end of the last; those of learning are what is not
spent waiting for servers. The gain is at most (playing + learning) / the longer of both, where they share no core.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from support.fresh import in_fresh_process

from marl_coop.cli import run_script
from marl_coop.cli.arguments import count
from marl_coop.config.schema import load_config


@dataclass(frozen=True, slots=True)
class Seconds:
    """Of an update: all, and of it what was spent waiting for replies."""

    update: float
    waiting: float


def measure(files: Sequence[Path], overrides: Sequence[str]) -> Seconds:
    """Train in this process; the first update, in which nothing can have been played ahead, does not count."""
    from transformers import PrinterCallback, TrainerCallback

    from marl_coop.experiment.experiment import Experiment
    from marl_coop.profiling import PhaseTotal, profiling

    ends: list[float] = []
    waits: list[float] = []

    class Clock(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):
            if logs and "update" in logs:
                ends.append(time.perf_counter())
                waits.append(profile.take().get("sampling", PhaseTotal()).seconds)

    experiment = Experiment(load_config(files, overrides))
    with tempfile.TemporaryDirectory() as folder, profiling() as profile:
        experiment.args.output_dir = folder
        trainer = experiment.make_trainer(experiment.engine, callbacks=[Clock()])
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return Seconds((ends[-1] - ends[0]) / (len(ends) - 1), statistics.mean(waits[1:]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, action="append", default=[], metavar="FILE", help="as for train.py")
    parser.add_argument("--updates", type=count, default=6, help="of each run (default: 6)")
    parser.add_argument("--repeats", type=count, default=3, help="of both ways in turn (default: 3)")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as for train.py")
    args = parser.parse_intermixed_args()
    if args.updates < 2:
        parser.error("argument --updates: give 2 or more, as the first does not count")
    usual = ["training.engine=vllm_server", "warmup.steps=0", f"training.num_updates={args.updates}"]
    usual += ["training.report_to=none", *args.overrides]
    print("| in turn, s | one ahead, s | gain | playing, s | learning, s |", f"{'|---' * 5}|", sep="\n")
    for _ in range(args.repeats):
        found: list[Seconds] = []
        for ahead in ("false", "true"):
            found.append(in_fresh_process(measure, args.config, [*usual, f"training.async_play={ahead}"]))
        in_turn, one_ahead = found
        parts = f"{in_turn.waiting:.2f} | {in_turn.update - in_turn.waiting:.2f}"
        gain = in_turn.update / one_ahead.update
        print(f"| {in_turn.update:.2f} | {one_ahead.update:.2f} | {gain:.2f} | {parts} |", flush=True)


if __name__ == "__main__":
    sys.exit(run_script(main))
