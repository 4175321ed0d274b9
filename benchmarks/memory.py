"""`marl-coop doctor`'s estimate of each phase's memory against the peaks of one real update on this machine's CPU.

    python benchmarks/memory.py --config configs/quickstart.yaml training.episodes_per_update=16 warmup.steps=0

plays and learns one update in this process and prints a line for each phase: what was estimated, the highest resident
memory that Linux saw while it ran, and by how much the estimate is off.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from marl_coop.cli import run_script
from marl_coop.cli.arguments import add_configuration, set_environment
from marl_coop.config.schema import load_config

MIB = 2**20


class Peaks:
    """The highest resident memory of this process while some methods run, by phase, in bytes."""

    def __init__(self) -> None:
        self.found: dict[str, int] = {}

    def watch(self, owner: Any, method: str, phase: str) -> None:
        """Measure every call of a method from now on."""
        inner = getattr(owner, method)
        setattr(owner, method, lambda *args, **kwargs: self.during(phase, lambda: inner(*args, **kwargs)))

    def during(self, phase: str, work: Callable[[], Any]) -> Any:
        Path("/proc/self/clear_refs").write_text("5")  # the highest so far is what is resident now: man 5 proc
        try:
            return work()
        finally:
            (line,) = (x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
            self.found[phase] = max(self.found.get(phase, 0), int(line.split()[1]) * 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_configuration(parser)
    args = parser.parse_intermixed_args()
    set_environment()
    with tempfile.TemporaryDirectory() as folder:
        sizes = ["training.num_updates=1", "training.report_to=none", f"output_dir={folder}/run"]
        sizes += ["evaluation.every=0", "evaluation.batch_size=1"]  # none is played here
        compare(load_config(args.config, [*args.overrides, *sizes]), folder)


def compare(config: Any, folder: str) -> None:
    os.environ["MARL_COOP_CACHE"] = os.environ.get("MARL_COOP_CACHE", folder)
    from marl_coop.experiment import memory, setup
    from marl_coop.experiment.experiment import Experiment
    from marl_coop.ppo.experience import Collector
    from marl_coop.ppo.trainer import MultiAgentPPOTrainer
    from marl_coop.rollout.runner import RolloutRunner

    process = psutil.Process().memory_info().rss  # Python and its libraries
    peaks = Peaks()
    peaks.watch(setup, "load_model", "loading")
    peaks.watch(Experiment, "warm_up", "warm-up")
    peaks.watch(RolloutRunner, "play", "play")
    peaks.watch(Collector, "_add_reference_and_values", "reference")
    peaks.watch(MultiAgentPPOTrainer, "_learn", "learning")
    experiment = Experiment(config)
    lengths = setup.settle_limits(config, experiment.args, experiment.base, experiment.tokenizer)
    work = memory.work_of(config, experiment.args, lengths)
    sizes = memory.sizes_of(config, experiment.args, experiment.base.config, work, experiment.args.device.type != "cpu")
    experiment.folder = Path(folder)
    experiment.args.output_dir = folder
    experiment.warm_up()
    experiment.train()
    print(f"{work}\nPython and its libraries: {process / MIB:.0f} MiB, which are in every line")
    print(f"{'phase':12}{'estimated':>12}{'measured':>12}{'off':>8}")
    for phase in memory.phases(sizes, work):
        if measured := peaks.found.get(phase.name):
            estimated = phase.total + process
            off = estimated / measured - 1
            print(f"{phase.name:12}{estimated / MIB:8.0f} MiB{measured / MIB:8.0f} MiB{off:+8.0%}")


if __name__ == "__main__":
    sys.exit(run_script(main))
