"""Kill train.py at random moments, go on, and compare with a run that nothing stopped.

    python benchmarks/resume.py --kills 20 model.name_or_path=FOLDER model.dtype=float32
    python benchmarks/resume.py --kills 20 --signal INT model.name_or_path=FOLDER model.dtype=float32

plays the quickstart in small (more words as for train.py) once straight, then once per kill: SIGKILL falls in turn as
the run starts, warms up, evaluates, plays, scores, learns, writes a checkpoint or ends, at a moment of that which is
drawn, and the run goes on until it is finished. Adapters, metrics, episodes and tables must then be the same to the
byte, clocks and memory apart. INT and TERM are signals that a run hears: it must also end by itself with exit code 130
and without a traceback, once Python has loaded it. Exit code 1 where something is not so.
"""

import argparse
import contextlib
import hashlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from marl_coop.cli import run_script
from marl_coop.cli.arguments import count

SMALL = (
    "warmup.steps=2 warmup.batch_size=4 evaluation.episodes=4 training.episodes_per_update=4 training.num_updates=4 "
    "training.save_updates=1 training.num_ppo_epochs=2 training.gradient_accumulation_steps=1 training.report_to=none"
).split()
MEASURED = ("seconds/", "memory_gib")
RECORDS = ("metrics.jsonl", "episodes/*", "before.jsonl", "after.jsonl", "results.json")
RESULTS = ("*/adapter_*", "past/*/*/adapter_*", "critics.safetensors", *RECORDS)
TRAIN = (sys.executable, "train.py")
LOADING_S = 2.0  # until the command line hears signals
MOMENTS = {  # -> a phase of the run, that it begins or ends, for which time, and at most so many seconds later
    "warm-up": ("warm-up", "enter", range(1, 2), 1.0),
    "evaluation": ("evaluation", "enter", range(1, 3), 1.0),
    "play": ("sampling", "enter", range(1, 20), 0.1),
    "scoring": ("rewards", "enter", range(1, 3), 0.01),
    "learning": ("backward", "enter", range(1, 5), 0.1),
    "checkpoint": ("checkpoint", "enter", range(1, 3), 0.1),
    "end": ("evaluation", "leave", range(2, 3), 0.1),
}
STOPPED = """
import os, sys, threading
from marl_coop import cli, profiling
phase, event, times, seconds, number, *words = sys.argv[1:]
class Profile(profiling.Profile):
    def enter(self, name, **options):
        super().enter(name, **options)
        self.seen(name, "enter")
    def leave(self):
        name, _ = self._running[-1]
        super().leave()
        if self._running[-1][0] != name:
            self.seen(name, "leave")
    def seen(self, *what):
        if what == (phase, event) and self._total(phase).calls == int(times):
            threading.Timer(float(seconds), os.kill, (os.getpid(), int(number))).start()
profiling.Profile = Profile
with profiling.profiling():
    sys.exit(cli.main(["train", *words]))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=count, default=20, help="runs that are stopped once (default: 20)")
    parser.add_argument(
        "--signal", choices=("KILL", "INT", "TERM"), default="KILL", help="that stops them (default: KILL)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--runs", type=Path, default=Path("runs/resume"), help="where the runs are put")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as for train.py")
    args = parser.parse_intermixed_args()
    args.runs.mkdir(parents=True)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it, and so do its own
    straight, rng = args.runs / "straight", random.Random(args.seed)
    number = getattr(signal, f"SIG{args.signal}")
    started = time.time()
    go_on_until_finished(straight, args.overrides)
    loading_s = (straight / "config.yaml").stat().st_mtime - started
    wanted, wrong = results_of(straight), 0
    for kill, moment in zip(range(args.kills), itertools.cycle(rng.sample(["start", *MOMENTS], len(MOMENTS) + 1))):
        run = args.runs / f"killed-{kill}"
        os.environ["MARL_COOP_CACHE"] = str(args.runs.absolute() / f"cache-{kill}")  # or there was no warm-up
        if moment == "start":
            after = rng.uniform(0, loading_s)
            process = start(run, args.overrides)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(after)
            process.send_signal(number)
        else:
            phase, event, times, seconds = MOMENTS[moment]
            after = rng.uniform(0, seconds)
            where = phase, event, str(rng.choice(times)), str(after), str(int(number))
            process = start(run, args.overrides, [sys.executable, "-c", STOPPED, *where])
        process.wait()
        heard = args.signal == "KILL" or moment != "start" or after > LOADING_S
        had, faults = progress(run), ending(process, run, number) if heard else []
        go_on_until_finished(run, args.overrides)
        found = results_of(run)
        faults += sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
        wrong += bool(faults)
        print(f"stopped at {moment}, with {had}: {'wrong: ' + ', '.join(faults) if faults else 'equal'}", flush=True)
    print(f"{args.kills - wrong} of {args.kills} runs end as the one that was not stopped, in {len(wanted)} files")
    return int(wrong > 0)


def ending(process: subprocess.Popen[bytes], run: Path, number: signal.Signals) -> list[str]:
    """What is wrong with how a run ended that was sent a signal; one that has its table had nothing left to do but to
    leave Python."""
    said = (run.parent / f"{run.name}.log").read_text(errors="replace")
    wanted = -number if number is signal.SIGKILL else 130
    fits = process.returncode == wanted or (run / "results.json").exists()
    return ([] if fits else [f"exit code {process.returncode}"]) + (["a traceback"] if "Traceback" in said else [])


def start(
    run: Path, overrides: Sequence[str], program: Sequence[str] = TRAIN, log: BinaryIO | None = None
) -> subprocess.Popen[bytes]:
    """A run that begins, or that goes on where its folder has something to go on with; its output goes to a file, by
    default beside it."""
    begin = ["--config", "configs/quickstart.yaml", *SMALL, f"output_dir={run}", *overrides]
    words = ["--resume", str(run)] if (run / "run.json").exists() else begin
    log = log or (run.parent / f"{run.name}.log").open("ab")
    return subprocess.Popen([*program, *words], stdout=log, stderr=log)


def go_on_until_finished(run: Path, overrides: Sequence[str]) -> None:
    if not (run / "results.json").exists() and start(run, overrides).wait() != 0:
        raise SystemExit(f"error: {run} does not go on; {run}.log says why")


def progress(run: Path) -> str:
    """What a run has come to."""
    if not (run / "before.jsonl").exists():
        return "no evaluation" if (run / "run.json").exists() else "no folder"
    steps = sorted(int(folder.name.split("-")[1]) for folder in run.glob("checkpoint-*[0-9]"))
    ended = "the table" if (run / "results.json").exists() else "adapters" if (run / "agent_0").exists() else ""
    return ended or (f"checkpoint-{steps[-1]}" if steps else "no checkpoint")


def results_of(run: Path) -> dict[str, str]:
    """What a finished run leaves behind: a digest for each file, without what clocks and memory say."""
    found = {}
    for file in sorted(path for pattern in RESULTS for path in run.glob(pattern)):
        content = file.read_bytes()
        if file.name == "metrics.jsonl":
            records = map(json.loads, content.decode().splitlines())
            kept = [{k: v for k, v in record.items() if not k.startswith(MEASURED)} for record in records]
            content = json.dumps(kept).encode()
        found[str(file.relative_to(run))] = hashlib.sha256(content).hexdigest()
    return found


if __name__ == "__main__":
    sys.exit(run_script(main))
