"""`marl-coop export`: a run's episodes as other libraries open them, its adapters to the Hub, its curves in a view."""

import argparse
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from envs.core.tokens import one_line
from marl_coop.cli.arguments import add_output, check_output, say_left_out
from marl_coop.config import policies
from marl_coop.config.errors import ConfigError
from marl_coop.config.layers import COMMAND_LINE
from marl_coop.experiment.recorded import recorded_config
from marl_coop.runs import rundir
from marl_coop.runs.checkpoints import FULL, best_checkpoint
from marl_coop.runs.played import saved_episodes
from marl_coop.runs.records import read_metrics
from marl_coop.runs.rundir import RunError

KINDS = {  # kind -> module and function that writes it
    "dataset": ("marl_coop.export.dataset", "write_dataset"),
    "inspect": ("marl_coop.export.inspect_log", "write_logs"),
    "trackio": ("marl_coop.export.trackio_traces", "write_traces"),
}


def export(argv: Sequence[str]) -> int:
    """Write a run's episodes as other libraries open them, push its adapters, or save a view of its curves."""
    parser = argparse.ArgumentParser(
        prog="marl-coop export",
        description="Write a run's episodes so that other libraries open them, push its adapters with their cards, or "
        "save a view at wandb in which its curves are grouped.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="the run's folder")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--to", choices=KINDS, help="the episodes as a Hugging Face dataset, logs of Inspect or traces of trackio"
    )
    what.add_argument("--push-to-hub", metavar="OWNER/NAME", help="the adapters, each to OWNER/NAME-<adapter>")
    what.add_argument(
        "--wandb-view", metavar="PROJECT", help="a new saved view of that project at wandb, NAME or ENTITY/NAME"
    )
    add_output(parser, "DIR", "default: <RUN>/export/<kind>")
    args = parser.parse_args(argv)
    check_output(args.output, "DIR")
    if args.push_to_hub is not None:
        return _push(args.run, args.push_to_hub)
    if args.wandb_view is not None:
        return _save_view(args.run, args.wandb_view)
    return _write(args.run, args.to, _apart(args.output, args.run) or args.run / "export" / args.to)


def _apart(folder: Path | None, run: Path) -> Path | None:
    """A folder to write to, which must not be one that the run itself writes or reads."""
    if folder is None:
        return None
    place, own = folder.resolve(), run.resolve()
    if place.is_relative_to(own) and not place.is_relative_to(own / "export"):
        problem = f"--output {folder} is where the run keeps its own files; name another, or leave it out"
        raise ConfigError(problem, source=COMMAND_LINE)
    return folder


def _write(run: Path, kind: str, folder: Path) -> int:
    name, parts = rundir.recorded(run)["name"], saved_episodes(run, left_out=say_left_out)
    module, function = KINDS[kind]
    try:
        write = getattr(import_module(module), function)  # takes seconds to load
        write(parts, name, folder)
    except ModuleNotFoundError as error:
        raise RunError(f"--to {kind} needs {error.name}: pip install 'marl-coop[export]'") from error
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in FULL:
            raise
        raise RunError(f"{str(run)!r} cannot be exported to {str(folder)!r}: {one_line(error)}") from error
    print(f"{folder}: {sum(map(len, parts.values()))} episodes of {', '.join(parts)}")
    return 0


def _save_view(run: Path, project: str) -> int:
    logged = {name for record in read_metrics(run / "metrics.jsonl") for name in record}
    if not logged:
        raise RunError(f"{str(run)!r} has logged no update yet, so there is nothing to show")
    from marl_coop.experiment.tracking import wandb_mode  # loads wandb
    from marl_coop.export.wandb_view import save_view

    if wandb_mode() == "offline":
        raise RunError("a view is saved at wandb's server, and nobody is logged in here: wandb login")
    try:
        print(save_view(project, logged))
    except ModuleNotFoundError as error:
        raise RunError(f"--wandb-view needs {error.name}: pip install 'marl-coop[export]'") from error
    except ValueError as error:
        raise RunError(str(error)) from error
    return 0


def _push(run: Path, repo: str) -> int:
    from marl_coop.export.hub import push

    best, logged = best_checkpoint(run), read_metrics(run / "metrics.jsonl")
    if best and logged and best["update"] == logged[-1]["update"]:
        best = None  # it is the run's end, whose cards say more
    folder = rundir.saved_policy(run, best["checkpoint"] if best else None)
    names = policies.learners(recorded_config(run).policies)
    for adapter in names:
        if not (folder / adapter / "README.md").is_file():
            raise RunError(f"{str(folder / adapter)!r} has no card: a run writes them when it ends; let it go on")
    try:
        pushed = push([folder / adapter for adapter in names], repo)
    except ValueError as error:
        raise RunError(str(error)) from error
    if best:
        print(f"{best['checkpoint']} is pushed: {best['metric']} {best['value']:.2f}, the best while it trained")
    print(f"pushed: {', '.join(pushed)}")
    return 0
