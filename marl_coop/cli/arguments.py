"""What several commands take: configuration files and overrides."""

import argparse
import logging
import os
import sys
from collections.abc import Iterable
from pathlib import Path


def add_configuration(
    parser: argparse.ArgumentParser, required: bool = True, example: str = "training.learning_rate=1e-5"
) -> None:
    """The arguments that name a configuration; their values are `args.config` and `args.overrides`."""
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=f"laid over the files, such as {example}")
    parser.add_argument(
        "--config",
        action="append",
        required=required,
        default=[],
        metavar="FILE",
        help="such as configs/quickstart.yaml; may be given several times, and later files win",
    )


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
