"""Run folders that explain themselves: which configuration, code, versions and command made what lies in them.

    runs/quickstart-20250131-142233/
        config.yaml     the resolved configuration (config-2.yaml: that of the second start, and so on)
        run.json        the run's name, where modules of the user may lie, and for each start time, command, number of
                        processes, configuration file, git commit, seed, versions
        best.json       the checkpoint with the best evaluation while training, if there were any
        checkpoint-12/  written by the trainer: `marl_coop.runs.checkpoints`

Several processes of one run must agree on the folder: the main process calls `new_folder` and `record_start`, and
whoever starts the run broadcasts the path to the others.
"""

import hashlib
import json
import os
import re
import shlex
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NotRequired

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from envs.core.tokens import one_line
from marl_coop.runs.checkpoints import CRITICS, all_checkpoints, best_checkpoint, flaw, whole_checkpoints
from marl_coop.runs.circumstances import circumstances
from marl_coop.runs.files import write_whole

RUNS = Path("runs")
LOCK = ".lock"
TRIAL = ".trial-"  # begins the name of a folder that is made to see whether it can be


class GitState(TypedDict):
    """Commit of the code, and whether files differed from it."""

    commit: str
    dirty: bool


class Start(TypedDict):
    """What is read of a start of a run; what else `record_start` writes is for people."""

    time: datetime
    command: list[str]
    processes: NotRequired[int]
    config: str
    sha256: NotRequired[str]  # of that file
    seed: int
    git: GitState | None


class Record(TypedDict):
    """What is read of a run's `run.json`."""

    name: str
    modules: NotRequired[list[str]]
    learners: NotRequired[list[str]]
    adapters: NotRequired[dict[str, str]]  # of other runs: folder -> digest of what was in it when this run began
    starts: list[Start]


_RECORD = TypeAdapter(Record)


class LostProcessError(Exception):
    """Another process of a run has ended or is silent, and this one cannot go on alone; one line. No RuntimeError: to
    those who write a checkpoint, these are troubles of the disk."""


class TrainingError(RuntimeError):
    """A run that cannot go on learning, and why; one line."""


class RunError(ValueError):
    """A folder that cannot be used as a run's; the text is one line that says why and what to do."""


def new_folder(name: str, output_dir: str | None = None) -> Path:
    """Create and return the folder of a new run: `output_dir`, or `runs/<name>-<time>` where that is None.

    Raises:
        RunError: `output_dir` already holds something, or the folder cannot be made.
    """
    try:
        if output_dir is not None:
            check_free(output_dir)
            folder = Path(os.path.expanduser(output_dir))
            folder.mkdir(parents=True, exist_ok=True)
            return folder
        stem = f"{_file_name(name)}-{datetime.now():%Y%m%d-%H%M%S}"
        attempt = 1
        while True:  # two runs may start in the same second, and mkdir lets only one of them have a name
            folder = RUNS / (stem if attempt == 1 else f"{stem}-{attempt}")
            try:
                folder.mkdir(parents=True)
            except FileExistsError:
                attempt += 1
            else:
                return folder
    except OSError as error:
        raise RunError(f"{str(output_dir or RUNS)!r} cannot be made: {error.strerror}; name another folder") from error


def check_free(output_dir: str | None) -> None:
    """Say whether a new run could have a folder, without making it; None: a folder of its own.

    Raises:
        RunError: it could not.
    """
    folder = RUNS if output_dir is None else Path(os.path.expanduser(output_dir))
    if output_dir is not None and not output_dir.strip(" ./"):
        raise RunError(f"{output_dir!r} is no name for the folder of a run; name another folder")
    if folder.parts[:1] and folder.parts[0].startswith("~"):
        raise RunError(
            f"{output_dir!r} cannot be made: there is no home folder {folder.parts[0]!r}; name another folder"
        )
    if (why := obstacle(folder)) is not None:
        raise RunError(f"{str(output_dir or RUNS)!r} cannot be made: {why}; name another folder")
    if (
        output_dir is not None
        and folder.is_dir()
        and any(not path.name.startswith((LOCK, TRIAL)) for path in folder.iterdir())
    ):
        raise RunError(f"{str(folder)!r} is not empty; go on with its run by --resume, or name another output_dir")


def obstacle(folder: Path) -> str | None:
    """What keeps a folder from being made, or from being written into where it is there; None: nothing."""
    there = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not there.is_dir():
        return f"{str(there)!r} is no folder"
    try:
        with TemporaryDirectory(dir=there, prefix=TRIAL) as trial:  # not all that is refused is told by permissions
            Path(trial, folder.absolute().relative_to(there.absolute())).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return f"{str(there)!r} cannot be written ({error.strerror})"
    return None


def _file_name(name: str) -> str:
    """A run's name as a part of a folder's name.

    >>> _file_name("quickstart+no_consensus+rewards[lab:Term].weight=0")
    'quickstart+no_consensus+rewards-lab-Term-.weight=0'
    """
    return re.sub(r"[^A-Za-z0-9_.+=-]+", "-", name)[:100]


def recorded(folder: Path) -> dict:
    """What `run.json` says: a `Record`, whose starts are one or more.

    Raises:
        RunError: the folder is no run.
    """
    no_run = f"{str(folder)!r} is not the folder of a run: it has no run.json that can be read"
    try:
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        _RECORD.validate_python(record)
        _ = record["starts"][0]
    except ValidationError as error:
        first = error.errors()[0]
        raise RunError(f"{no_run} ({'.'.join(map(str, first['loc']))}: {first['msg']})") from error
    except (OSError, ValueError, LookupError, RecursionError) as error:
        raise RunError(f"{no_run} ({one_line(error)})") from error
    return record


def run_id(folder: Path) -> str:
    """An id that all starts of a run share, and no other run has. Raises RunError where the folder is no run."""
    first = json.dumps([folder.resolve().name, recorded(folder)["starts"][0]], sort_keys=True)
    return hashlib.sha256(first.encode()).hexdigest()[:16]


def configuration_of(folder: Path) -> Path:
    """The file with the configuration of a run's last start. Raises RunError where the folder is no run."""
    name = recorded(folder)["starts"][-1]["config"]
    if Path(name).name != name:
        raise RunError(f"{str(folder)!r} is not the folder of a run: its configuration, {name!r}, is no file in it")
    return folder / name


def _check_configuration(folder: Path) -> None:
    """Raises RunError where the configuration of a run's last start is no longer what that start wrote: a run that goes
    on has the same."""
    file = configuration_of(folder)
    written = recorded(folder)["starts"][-1].get("sha256")
    if file.is_file() and written not in (None, hashlib.sha256(file.read_bytes()).hexdigest()):
        raise RunError(
            f"{str(file)!r} is not what the run wrote there: put that back, and change what may change on the command "
            "line, such as training.num_updates=200"
        )


def locate(place: Path) -> tuple[Path, Path | None]:
    """A run's folder and the checkpoint to go on from: the place itself, or the last whole one of that run, if it has
    any.

    Args:
        place: a run's folder or one of its checkpoints.

    Raises:
        RunError: it is neither, the checkpoint that it names is damaged, or all of them are; or the configuration is
            another than the run wrote.
    """
    if place in all_checkpoints(place.parent):
        _check_configuration(place.parent)
        if problem := flaw(place):
            run = shlex.quote(str(place.parent))
            raise RunError(f"{str(place)!r} is damaged: {problem}; --resume {run} takes the last whole one")
        return place.parent, place
    if not (place / "run.json").is_file():
        raise RunError(f"no run and no checkpoint in {str(place)!r}; name the run's folder (--resume DIR)")
    _check_configuration(place)
    if found := all_checkpoints(place):
        last = next((checkpoint for checkpoint in reversed(found) if flaw(checkpoint) is None), None)
        if last is None:
            raise RunError(
                f"{str(place)!r} has no whole checkpoint: in {found[-1].name}, {flaw(found[-1])}; begin a new run, or "
                "remove its checkpoints to begin this one again"
            )
        return place, last
    return place, None


def going_on(folder: Path | None) -> str:
    """What `--resume` does with a run that was stopped, in one line; None: it has no folder yet."""
    if folder is not None and not folder.is_dir():
        return f"its folder, {str(folder)!r}, is gone"
    if folder is None or not (folder / "run.json").is_file():
        return "the run had not begun"
    try:
        _, checkpoint = locate(folder)
    except RunError as error:
        return str(error)
    words = f"--resume {shlex.quote(str(folder))}"
    if checkpoint is None:
        return f"there is no checkpoint yet: {words} begins its training again"
    return f"{words} goes on from {checkpoint.name}"


def saved_policy(folder: Path, checkpoint: str | None = None) -> Path:
    """Where a run's adapters and critics lie: in its folder once it has been trained, else in its last checkpoint.

    Args:
        checkpoint: name of the checkpoint that is wanted, such as "checkpoint-12"; "best": the one with the best
            evaluation while training.

    Raises:
        RunError: the folder is no run, or it has no such checkpoint or nothing saved yet.
        CheckpointError: `best.json` cannot be read.
    """
    recorded(folder)
    known = {path.name: path for path in whole_checkpoints(folder)}
    if checkpoint == "best":
        best = best_checkpoint(folder)
        if best is None:
            raise RunError(f"{str(folder)!r} has no best checkpoint: no evaluation while it trained gave a value")
        checkpoint = best["checkpoint"]
    if checkpoint is not None:
        if checkpoint not in known:
            raise RunError(f"{str(folder)!r} has no checkpoint {checkpoint!r}; it has {', '.join(known) or 'none'}")
        return known[checkpoint]
    if (folder / CRITICS).is_file():
        return folder
    if not known:
        raise RunError(f"{str(folder)!r} has no adapters yet: its first checkpoint is still to come")
    return next(reversed(known.values()))


def newest_run(name: str) -> Path:
    """The folder of the newest `runs/<name>-*` that has a whole checkpoint.

    Raises:
        RunError: there is none.
    """
    stem = _file_name(name)
    runs = [run for run in RUNS.glob("*") if re.fullmatch(rf"{re.escape(stem)}-[0-9].*", run.name)]
    runs = [run for run in runs if whole_checkpoints(run)]
    if not runs:
        place = f"{RUNS}/{stem}-*"
        raise RunError(f"no checkpoint in {place!r}; name the run's folder (--resume DIR) or start without it")
    return max(runs, key=lambda run: run.stat().st_mtime)


def module_folders(folder: Path) -> list[Path]:
    """Where modules that a run's configuration names may lie: never in the run's folder, which may come from elsewhere.
    Raises RunError where the folder is no run."""
    places = ((folder / place).resolve() for place in recorded(folder).get("modules", []))
    return [place for place in places if not place.is_relative_to(folder.resolve())]


def learners(folder: Path) -> tuple[str, ...]:
    """The adapters that a run trains; none where its record is of a version that did not name them.

    Raises:
        RunError: the folder is no run.
    """
    return tuple(recorded(folder).get("learners", ()))


def record_start(
    folder: Path,
    name: str,
    configuration: str,
    seed: int,
    modules: Iterable[Path] = (),
    learners: Iterable[str] = (),
    adapters: Mapping[str, str] | None = None,
) -> None:
    """Write down one start of a run, the first or a resumed one, in `config.yaml` and `run.json`.

    Args:
        name: what the run is called; later starts change neither this nor what follows `seed`.
        configuration: the resolved configuration as YAML.
        seed: the run's.
        modules: folders where Python may find what the configuration names; kept relative to the run's.
        learners: the adapters that are trained.
        adapters: those of other runs that it uses, a digest by folder.
    """
    file = folder / "run.json"
    places = dict.fromkeys(os.path.relpath(place, folder) for place in modules)
    new = {"name": name, "modules": [*places], "learners": [*learners], "adapters": dict(adapters or {}), "starts": []}
    record = recorded(folder) if file.exists() else new
    starts = record["starts"]
    config_file = "config.yaml" if not starts else f"config-{len(starts) + 1}.yaml"
    starts.append(
        {
            "time": datetime.now().astimezone().isoformat(timespec="seconds"),
            "config": config_file,
            "sha256": hashlib.sha256(configuration.encode()).hexdigest(),
            "seed": seed,
            **circumstances(),
        }
    )
    write_whole(folder / config_file, configuration)
    try:
        write_whole(file, json.dumps(record, indent=2) + "\n")
    except OSError:
        (folder / config_file).unlink()  # a folder of no run is to be empty, so that the same command can begin again
        raise
