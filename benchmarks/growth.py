"""How time and memory of an update grow: with episodes, seats, adapters, rounds, decisions, and over updates.

    python benchmarks/growth.py
    python benchmarks/growth.py --axes seats updates --episodes 4

Each point is a process of its own, which runs updates of `MultiAgentPPOTrainer` on the design review from a model that
has learned nothing. `ms/token` is CPU time over tokens of chats: flat where time is linear in tokens. `update 3, last`
is the memory after the third update and after the last one.
"""

import argparse
import os
import resource
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from support.fresh import in_fresh_process

from marl_coop.cli import run_script
from marl_coop.cli.arguments import count
from marl_coop.config.checks import check_config
from marl_coop.config.errors import ConfigError
from marl_coop.config.layers import COMMAND_LINE
from marl_coop.config.schema import Config, load_config

EPISODES, SEATS, UPDATES, ADAPTERS = "training.episodes_per_update", "env.agents", "training.num_updates", "adapters"
AXES: dict[str, tuple[str, tuple[int, ...]]] = {  # what grows -> its key, its values
    "episodes": (EPISODES, (16, 64, 256)),
    "seats": (SEATS, (2, 4, 8)),
    "adapters": (ADAPTERS, (1, 2, 4)),
    "rounds": ("env.rounds", (1, 2, 4)),
    "decisions": ("env.decisions", (1, 2, 3)),  # of a task: its chats are longer
    "updates": (UPDATES, (50,)),
}


@dataclass(frozen=True, slots=True)
class Point:
    """What some updates took: tokens of the chats, CPU seconds, the process's peak memory in GiB before and in the end,
    its memory after each update."""

    tokens: int
    cpu: float
    loaded_gib: float
    peak_gib: float
    memory_gib: tuple[float, ...]


def configuration(sizes: Mapping[str, int], overrides: Sequence[str]) -> Config:
    """An update or more on the design review; `ADAPTERS` are shared by the seats in turn, 0: one for each.

    Raises:
        ConfigError: no run can be so, or the overrides have other sizes.
    """
    seats, adapters = sizes[SEATS], sizes[ADAPTERS]
    if adapters > seats:
        raise ConfigError(f"{adapters} adapters are too many: there are {seats} seats", source=COMMAND_LINE)
    policies = ", ".join(f"agent_{i}: policy_{i % (adapters or seats)}" for i in range(seats))
    words = ["env.name=DesignReview", f"policies={{{policies}}}", "warmup.steps=0", "training.report_to=none"]
    words += ["model.attn_implementation=grouped", "lora.upper_layers=0.34", "training.kl_coef=0.1"]
    words += [f"{key}={value}" for key, value in sizes.items() if key != ADAPTERS]
    config = load_config([], [*words, *overrides])
    for key, value in sizes.items():
        section, _, field = key.partition(".")
        if field and getattr(config, section)[field] != value:
            raise ConfigError(f"it is {value} by --axes, --values and --episodes: leave it out", (section, field))
    check_config(config)
    return config


def measure(sizes: Mapping[str, int], overrides: Sequence[str]) -> Point:
    """Run the updates in this process."""
    from transformers import PrinterCallback

    from marl_coop.experiment.callbacks import MetricsFile
    from marl_coop.experiment.experiment import Experiment
    from marl_coop.profiling import profiling
    from marl_coop.runs.records import read_metrics

    experiment = Experiment(configuration(sizes, overrides))
    with tempfile.TemporaryDirectory() as folder, profiling() as profile:
        experiment.args.output_dir = folder
        told = MetricsFile(Path(folder) / "metrics.jsonl", print)
        trainer = experiment.make_trainer(experiment.engine, callbacks=[told])
        trainer.remove_callback(PrinterCallback)
        loaded, started = _peak_gib(), time.process_time()
        trainer.train()
        cpu = time.process_time() - started
        records = read_metrics(Path(folder) / "metrics.jsonl")
    memory = tuple(record["memory_gib"] for record in records if "memory_gib" in record)
    return Point(profile.take()["forward"].tokens, cpu, loaded, _peak_gib(), memory)


def _peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def line(axis: str, value: int, point: Point) -> str:
    """A row of the table.

    >>> line("seats", 2, Point(4000, 8.0, 1.0, 2.5, (2.0, 2.0, 2.2, 2.3)))
    '| seats | 2 | 4000 | 8.0 | 2.00 | 1.00 | 2.50 | 2.20, 2.30 |'
    """
    over_updates = f"{point.memory_gib[2]:.2f}, {point.memory_gib[-1]:.2f}" if len(point.memory_gib) > 3 else ""
    per_token = f"{1000 * point.cpu / point.tokens:.2f}"
    memory = f"{point.loaded_gib:.2f} | {point.peak_gib:.2f} | {over_updates}"
    return f"| {axis} | {value} | {point.tokens} | {point.cpu:.1f} | {per_token} | {memory} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--axes", nargs="+", choices=AXES, default=[*AXES], help="what to grow (default: all)")
    parser.add_argument("--values", type=count, nargs="+", help="in place of the usual ones")
    parser.add_argument("--episodes", type=count, default=8, help="of an update, where others grow (default: 8)")
    parser.add_argument("--threads", type=count, default=1, help="(default: 1)")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as for train.py")
    args = parser.parse_intermixed_args()
    os.environ["OMP_NUM_THREADS"] = str(args.threads)  # read by torch in the processes
    start = {EPISODES: args.episodes, SEATS: 2, ADAPTERS: 0, UPDATES: 1}
    points = [
        (axis, value, start | ({SEATS: 4} if axis == "adapters" else {}) | {AXES[axis][0]: value})
        for axis in args.axes
        for value in args.values or AXES[axis][1]
    ]
    for _, _, sizes in points:
        configuration(sizes, args.overrides)  # which refuses what is wrong before anything is measured
    print(
        "| grows | to | tokens | CPU s | ms/token | GiB, loaded | peak | update 3, last |", f"{'|---' * 8}|", sep="\n"
    )
    for axis, value, sizes in points:
        print(line(axis, value, in_fresh_process(measure, sizes, args.overrides)), flush=True)


if __name__ == "__main__":
    sys.exit(run_script(main))
