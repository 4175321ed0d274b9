"""Run directories that explain themselves: which configuration, code, versions and command made what lies in them.

    runs/quickstart-20250131-142233/
        config.yaml     the resolved configuration (config-2.yaml: that of the second start, and so on)
        run.json        one entry per start: time, command, configuration file, git commit, seed, versions
        checkpoint-12/  written by the trainer

Nothing here imports torch. Several processes of one run must agree on the directory: the main process calls
`plan_output_dir` and `record_start`, and whoever starts the run broadcasts the path to the others.
"""

import json
import platform
import subprocess
import sys
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from envs import sandbox
from marl_coop.config.schema import Config
from marl_coop.config.errors import ConfigError

RUNS = Path("runs")
_PACKAGES = ("marl-coop", "torch", "trl", "transformers", "peft", "accelerate")


def plan_output_dir(config: Config) -> Path:
    """Create and return the directory of a new run: `output_dir`, or `runs/<name>-<time>` where that is null.

    Raises:
        ConfigError: `output_dir` already holds something.
    """
    if config.output_dir is not None:
        directory = Path(config.output_dir)
        if directory.exists() and not (directory.is_dir() and not any(directory.iterdir())):
            raise config.error(
                ("output_dir",),
                f"{str(directory)!r} is not empty; go on with its run by --resume, or name another output_dir",
            )
        directory.mkdir(parents=True, exist_ok=True)
        return directory
    stem = f"{config.name}-{datetime.now():%Y%m%d-%H%M%S}"
    attempt = 1
    while True:  # two runs may start in the same second, and mkdir lets only one of them have a name
        directory = RUNS / (stem if attempt == 1 else f"{stem}-{attempt}")
        try:
            directory.mkdir(parents=True)
        except FileExistsError:
            attempt += 1
        else:
            return directory


def newest_checkpoint(directory: Path) -> Path | None:
    """The checkpoint with the most steps in a run directory. One cut off while it was written does not count."""
    complete = [path.parent for path in directory.glob("checkpoint-*/trainer_state.json")]
    numbered = [path for path in complete if path.name.removeprefix("checkpoint-").isdigit()]
    return max(numbered, key=lambda path: int(path.name.removeprefix("checkpoint-")), default=None)


def find_checkpoint(config: Config, directory: str | None = None) -> Path:
    """The checkpoint that `--resume` goes on from; its parent is the run directory.

    Args:
        config: names the run when no directory is given: its `output_dir`, or the newest `runs/<name>-*` with a
            checkpoint.
        directory: a run directory or one of its checkpoints.

    Raises:
        ConfigError: there is none.
    """
    if directory is not None and (Path(directory) / "trainer_state.json").is_file():
        return Path(directory)
    if directory is None and config.output_dir is None:
        runs = sorted(RUNS.glob(f"{config.name}-[0-9]*"), key=lambda path: path.stat().st_mtime, reverse=True)
        place = f"{RUNS}/{config.name}-*"
    else:
        runs = [Path(directory or config.output_dir)]
        place = str(runs[0])
    for run in runs:
        if (checkpoint := newest_checkpoint(run)) is not None:
            return checkpoint
    raise ConfigError(f"--resume: no checkpoint in {place!r}; name the run's folder (--resume DIR) or start without it")


def record_start(directory: Path, config: Config) -> None:
    """Write down one start of a run, the first or a resumed one, in `config.yaml` and `run.json`."""
    record = directory / "run.json"
    starts = json.loads(record.read_text(encoding="utf-8"))["starts"] if record.exists() else []
    config_file = "config.yaml" if not starts else f"config-{len(starts) + 1}.yaml"
    (directory / config_file).write_text(config.to_yaml(), encoding="utf-8")
    starts.append(
        {
            "time": datetime.now().astimezone().isoformat(timespec="seconds"),
            "command": sys.orig_argv,
            "config": config_file,
            "seed": config.seed,
            "git": _git_state(),
            "sandbox": sandbox.describe().splitlines(),
            "versions": {"python": platform.python_version()} | {name: _version(name) for name in _PACKAGES},
        }
    )
    record.write_text(json.dumps({"name": config.name, "starts": starts}, indent=2) + "\n", encoding="utf-8")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # a clone that is imported without being installed
        return None


def _git_state() -> dict | None:
    """Commit of this code, and whether files differ from it; None where the code is in no git checkout."""
    here = Path(__file__).parent

    def git(*words: str) -> str | None:
        try:
            result = subprocess.run(["git", "-C", str(here), *words], capture_output=True, text=True, check=False)
        except FileNotFoundError:  # no git on this machine
            return None
        return result.stdout.strip() if result.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    return None if commit is None else {"commit": commit, "dirty": git("status", "--porcelain") != ""}
