"""What several commands take: configuration files, overrides, and where to write."""

import argparse
import logging
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from marl_coop.config.errors import ConfigError
from marl_coop.config.layers import COMMAND_LINE
from marl_coop.runs.files import write_whole
from marl_coop.runs.rundir import obstacle


def add_configuration(
    parser: argparse.ArgumentParser, required: bool = True, example: str = "training.learning_rate=1e-5"
) -> None:
    """The arguments that name a configuration; their values are `args.config` and `args.overrides`."""
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="KEY=VALUE", help=f"laid over the files, such as {example}"
    )
    parser.add_argument(
        "--config",
        action="append",
        required=required,
        default=[],
        metavar="FILE",
        help="such as configs/quickstart.yaml; may be given several times, and later files win",
    )


def add_output(parser: argparse.ArgumentParser, kind: Literal["FILE", "DIR"], help: str) -> None:
    """The argument that says where to write; judge its value, `args.output`, by `check_output`."""
    parser.add_argument("--output", type=lambda word: Path(os.path.expanduser(word)), metavar=kind, help=help)


def count(word: str) -> int:
    """The value of an argument that counts something: 1 or more."""
    if not word.isdecimal() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"{word!r} is no number of them: give 1 or more")
    return int(word)


def existing(word: str) -> Path:
    """The value of an argument that names a file or a folder to read."""
    if not (place := Path(os.path.expanduser(word))).exists():
        raise argparse.ArgumentTypeError(f"{word!r} is not there: give what was written before")
    return place


def check_output(place: Path | None, kind: Literal["FILE", "DIR"]) -> None:
    """Say whether what `--output` names could be written, before there is anything to write.

    Raises:
        ConfigError: it could not.
    """
    if place is None:
        return
    is_file = kind == "FILE"
    why = f"{str(place)!r} is a folder" if is_file and place.is_dir() else obstacle(place.parent if is_file else place)
    if why is not None:
        raise ConfigError(f"--output {place} cannot be written: {why}; name another", source=COMMAND_LINE)


def write_output(file: Path, text: str) -> None:
    """Write a file that `--output` named, and the folders above it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, text)


def say_left_out(what: str) -> None:
    """Say that something cannot be read, and that the command goes on without it."""
    print(f"left out: {what}", file=sys.stderr)


def set_environment() -> None:
    """Settings of libraries that are read when they are imported. What the user has set stays."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # without a GPU it misses kernels that nobody asked for
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the tokenizer's threads and forks do not mix


def find_modules_beside(files: Iterable[str | Path]) -> None:
    """Let a module that a configuration names lie in the working directory or beside one of its files.

    Python looks there last, so none hides another.
    """
    folders = [Path.cwd(), *(Path(file).resolve().parent for file in files)]
    sys.path += [str(folder) for folder in dict.fromkeys(folders) if str(folder) not in sys.path]
