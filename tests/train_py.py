"""train.py in processes of its own, on a model small enough for a test.

Those that are forked are there in no time; the others import all that a user's would.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny
from forked import ROOT, Forked

from marl_coop.config.schema import load_config
from marl_coop.experiment.experiment import Experiment


def make_place(folder: Path, by_bytes: bool = False) -> Path:
    """A folder with a model in it, where runs may be put; one of bytes has few tokens to choose from and long chats."""
    tokenizer = tiny.byte_tokenizer() if by_bytes else tiny.text_tokenizer()
    tokenizer.save_pretrained(folder / "model")
    model = tiny.base_model(len(tokenizer))
    model.config.max_position_embeddings = 2048 if by_bytes else 700  # chats of two rounds fit in
    model.save_pretrained(folder / "model")
    return folder


def command(place: Path, run: str, *words: str | Path) -> list[str | Path]:
    sizes = "env.families=[offset] warmup.steps=2 warmup.batch_size=4 evaluation.episodes=4 "
    sizes += "training.episodes_per_update=4 training.num_updates=3 training.save_updates=1 training.num_ppo_epochs=2 "
    sizes += "training.num_mini_batches=2 training.gradient_accumulation_steps=1 training.report_to=none"
    files = [sys.executable, ROOT / "train.py", "--config", ROOT / "configs/quickstart.yaml"]
    names = [f"model.name_or_path={place / 'model'}", "model.dtype=float32", f"output_dir={place / run}"]
    return [*files, *sizes.split(), *names, *words]


def environment(place: Path) -> dict[str, str]:
    """What a process is told; one that is killed leaves its temporary files in `place`."""
    (place / "tmp").mkdir(exist_ok=True)
    mine = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    return mine | {
        "NETRC": os.devnull,
        "MARL_COOP_CACHE": str(place / "cache"),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        "TMPDIR": str(place / "tmp"),
    }


def run_here(place: Path, run: str, *words: str) -> Path:
    """The folder of a run that this process does: it has imported already what a process of its own would import."""
    _, _, _, file, *overrides = command(place, run, *words)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MARL_COOP_CACHE", str(place / "cache"))
        Experiment(load_config([file], [*map(str, overrides)])).run()
    return place / run


def start(place: Path, run: str, *words: str | Path, cwd: Path = ROOT) -> Forked:
    return fork(place, command(place, run, *words), cwd=cwd)


def go_on(place: Path, run: str, *words: str) -> Forked:
    """A resumed run says nothing of its configuration but what it changes."""
    return fork(place, [sys.executable, ROOT / "train.py", "--resume", place / run, *words])


def fork(place: Path, command: list, variables: dict[str, str] | None = None, cwd: Path = ROOT) -> Forked:
    return Forked(command, environment(place) | (variables or {}), place, cwd)


def spawn(place: Path, command: list, **options) -> subprocess.Popen:
    """A process from nothing."""
    options = {"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
    return subprocess.Popen(command, env=environment(place), preexec_fn=hear_interrupts, **options)


def wait_for(path: Path, process: Forked) -> None:
    """Wait until a process has written something; one that ends without it, or takes too long, fails the test."""
    deadline = time.monotonic() + 300
    while not path.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)
    if not path.exists():
        process.kill()
        pytest.fail(f"no {path.name}: {process.communicate()[1][-2000:]}")


def hear_interrupts() -> None:
    """A job that a shell started in the background ignores SIGINT, one under nohup SIGHUP, and so do their children."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
