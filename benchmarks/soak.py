"""Train for many updates, and watch what a long run may pile up: memory, open files, processes, disk.

    python benchmarks/soak.py --updates 2000 model.name_or_path=FOLDER model.dtype=float32

plays the quickstart in small (more words as for train.py), with checkpoints and evaluations on the way, and looks at
train.py and all that it has started every few updates. A quantity is flat where its median over the last quarter of the
run is hardly above that over the second (the first is the start); what is meant to grow, the records of each update, is
counted apart. The exit code is 1 where something grows.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import psutil

from marl_coop.cli import run_script
from marl_coop.cli.arguments import count
from marl_coop.runs.checkpoints import CRITICS

SMALL = (
    "warmup.steps=2 warmup.batch_size=4 evaluation.episodes=4 training.episodes_per_update=2 "
    "training.num_mini_batches=1 training.gradient_accumulation_steps=1 training.save_updates=25 "
    "training.save_total_limit=2 training.report_to=none"
).split()
RECORDS = ("episodes", "evaluations", "metrics.jsonl", "alarms.jsonl", "trainer_state.json")  # grow with the updates
SLACK = {"memory of train.py, MiB": 0.03, "memory of the sandbox, MiB": 0.05}  # of its median; others by nothing


class Sample(NamedTuple):
    update: int
    values: dict[str, float]
    records: int  # bytes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=count, default=2000, help="of the run (default: 2000)")
    parser.add_argument("--every", type=count, default=5, help="updates between two looks")
    parser.add_argument("--run", type=Path, default=Path("runs/soak"), help="the run's folder")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as for train.py")
    args = parser.parse_intermixed_args()
    words = ["--config", "configs/quickstart.yaml", *SMALL, f"training.num_updates={args.updates}"]
    words.append(f"evaluation.every={min(50, args.updates)}")
    process = psutil.Popen([sys.executable, "train.py", *words, f"output_dir={args.run}", *args.overrides])
    samples = watch(process, args.run, args.every)
    if process.wait() != 0 or len(samples) < 4:
        raise SystemExit(f"error: train.py ended with {process.returncode} after {len(samples)} looks, of at least 4")
    growing = report(samples)
    print(f"grows: {', '.join(growing)}" if growing else "all is flat")
    return int(bool(growing))


def watch(process: psutil.Popen, run: Path, every: int) -> list[Sample]:
    """A look at each `every`-th update while training lasts."""
    samples: list[Sample] = []
    metrics = run / "metrics.jsonl"
    while process.poll() is None:
        time.sleep(0.1)
        update = metrics.read_bytes().count(b"\n") if metrics.exists() else 0
        if update - (samples[-1].update if samples else 0) < every or (run / CRITICS).exists():
            continue
        try:
            samples.append(look(process, run, update))
        except (psutil.NoSuchProcess, FileNotFoundError):  # ended, or deleted, while it was looked at
            continue
    return samples


def look(process: psutil.Popen, run: Path, update: int) -> Sample:
    others = process.children(recursive=True)
    files = [path for path in run.rglob("*") if path.is_file()]
    records = [path for path in files if not {*RECORDS}.isdisjoint(path.relative_to(run).parts)]
    kept = sum(path.stat().st_size for path in files if path not in records)
    values = {
        "memory of train.py, MiB": process.memory_info().rss / 2**20,
        "memory of the sandbox, MiB": sum(other.memory_info().rss for other in others) / 2**20,
        "open files": process.num_fds() + sum(other.num_fds() for other in others),
        "threads": process.num_threads(),
        "processes": 1 + len(others),
        "files but records": len(files) - len(records),
        "disk but records, MiB": kept / 2**20,
    }
    return Sample(update, values, sum(path.stat().st_size for path in records))


def report(samples: Sequence[Sample]) -> list[str]:
    """Print the quarters' medians, and return what grows."""
    quarters = [samples[len(samples) * i // 4 : len(samples) * (i + 1) // 4] for i in range(4)]
    spans = [f"{quarter[0].update}-{quarter[-1].update}" for quarter in quarters]
    print(f"medians of {len(samples)} looks in updates {', '.join(spans)}:")
    growing = []
    for name in samples[0].values:
        medians = [statistics.median(sample.values[name] for sample in quarter) for quarter in quarters]
        print(f"{name:28}" + "".join(f"{median:12.2f}" for median in medians))
        if medians[3] > medians[1] * (1 + SLACK.get(name, 0.0)):
            growing.append(name)
    first, last = quarters[1][0], samples[-1]
    grown = (last.records - first.records) / (last.update - first.update) / 1024
    print(f"records of the run: {grown:.1f} KiB an update")
    return growing


if __name__ == "__main__":
    sys.exit(run_script(main))
