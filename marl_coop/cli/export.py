"""`marl-coop export`: a run's episodes as a Hugging Face dataset, its adapters to the Hub."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from marl_coop.config import policies
from marl_coop.evaluation.rescore import saved_episodes
from marl_coop.experiment.recorded import recorded_config
from marl_coop.runs import rundir
from marl_coop.runs.rundir import RunError


def export(argv: Sequence[str]) -> int:
    """Write what is asked for and say where it is."""
    parser = argparse.ArgumentParser(
        prog="marl-coop export",
        description="Write a run's episodes so that other libraries open them, or push its adapters with their cards.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="the run's folder")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--to", choices=("dataset",), help="the episodes as a Hugging Face dataset")
    what.add_argument("--push-to-hub", metavar="OWNER/NAME", help="the adapters, each to OWNER/NAME-<adapter>")
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: <RUN>/export/<kind>")
    args = parser.parse_args(argv)
    if args.push_to_hub:
        return _push(args.run, args.push_to_hub)
    return _write(args.run, args.output or args.run / "export" / args.to)


def _write(run: Path, folder: Path) -> int:
    record = rundir.recorded(run)
    try:
        parts = saved_episodes(run)
    except ValueError as error:
        raise RunError(f"{str(run)!r} cannot be exported: {error}") from error
    if not parts:
        raise RunError(f"{str(run)!r} has no episodes yet")
    from datasets import disable_progress_bars  # takes seconds to load

    from marl_coop.export.dataset import write_dataset

    disable_progress_bars()  # a bar for each part, which is a second's work
    write_dataset(parts, record["name"], folder)
    episodes = sum(map(len, parts.values()))
    print(f"{folder}: {episodes} episodes of {', '.join(parts)}")
    return 0


def _push(run: Path, repo: str) -> int:
    from marl_coop.export.hub import push

    folder = rundir.saved_policy(run)
    names = policies.learners(recorded_config(run).policies)
    for adapter in names:
        if not (folder / adapter / "README.md").is_file():
            raise RunError(f"{str(folder / adapter)!r} has no card: a run writes them when it ends; let it go on")
    try:
        pushed = push([folder / adapter for adapter in names], repo)
    except ValueError as error:
        raise RunError(str(error)) from error
    print(f"pushed: {', '.join(pushed)}")
    return 0
