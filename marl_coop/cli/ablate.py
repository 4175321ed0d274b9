"""`marl-coop ablate`: arms times seeds, trained and compared."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from marl_coop.cli.arguments import add_output, check_output, find_modules_beside, set_environment
from marl_coop.cli.terminal import wide_console
from marl_coop.config.ablation import Ablation
from marl_coop.config.errors import ConfigError
from marl_coop.config.layers import COMMAND_LINE, read_as
from marl_coop.runs.lock import held
from marl_coop.runs.progress import Progress
from marl_coop.stops import hear_stops

if TYPE_CHECKING:
    from marl_coop.experiment.ablation import Planned


def ablate(argv: Sequence[str]) -> int:
    """Train arms times seeds, doing what is not done, and compare; exit code 1 where a run failed."""
    args = _parse(argv)
    spec = read_as(args.spec, Ablation)
    find_modules_beside([*spec.config, *(file for arm in spec.arms.values() for file in arm.config)])
    set_environment()
    from marl_coop.experiment import ablation, executors  # load torch
    from marl_coop.experiment.libraries import quiet_libraries

    quiet_libraries()
    folder = args.output or Path("ablations") / spec.name
    planned = ablation.plan(spec, str(args.spec), folder)
    console = wide_console()
    todo = [one.run for one in planned if not one.run.finished]
    said = f"{spec.name}: {len(planned)} runs, {len(todo)} to do; all of {len(spec.arms)} arms can be trained"
    launcher = executors.through_accelerate(args.accelerate)
    if todo and args.executor == "print":
        print(f"# {said}", *executors.lines(todo, launcher), sep="\n")  # a script, as a shell takes it
        return 0
    console.print(said)
    hear_stops()  # runs are told before this ends
    folder.mkdir(parents=True, exist_ok=True)
    with held(folder):
        failed: dict[str, str] = {}
        if todo:
            launcher = launcher if args.accelerate else executors.ALONE
            jobs, gpus = _estimate(planned, folder, launcher, args, console)
            if args.dry_run:
                return 0
            with Progress(len(todo), spec.name, "run") as progress:
                if args.executor == "slurm":
                    failed = executors.run_on_cluster(todo, launcher, folder / "slurm", spec.slurm, progress.advance)
                else:
                    logs = folder / "logs"
                    why = executors.run_here(todo, launcher, logs, jobs, gpus, progress.advance)
                    failed = {name: f"{said} ({logs / f'{name}.log'})" for name, said in why.items()}
        return _report(spec, planned, failed, folder, console)


def _estimate(
    planned: Sequence["Planned"], folder: Path, launcher: Sequence[str], args: argparse.Namespace, console: Console
) -> tuple[int, Sequence[str]]:
    """Say how long it takes, by a run that is finished or by a pilot; how many runs at once, and on which GPUs."""
    from marl_coop.experiment import ablation, executors, run_time
    from marl_coop.experiment.machine import visible_gpus

    gpus = () if args.accelerate else visible_gpus()  # accelerate's file shares them out
    done = [one for one in planned if one.run.finished]
    times = [run_time.measured(one.run.folder, one.config.evaluation.episodes) for one in done]
    found, by = next((time for time in times if time), None), "a run that is finished"
    if found is None and args.executor == "slurm":
        console.print("no estimate: none of these runs is finished on the cluster")
        return args.jobs or 1, gpus
    if found is None:
        short = ablation.pilot(planned[0], folder)
        if not short.run.finished:
            console.print("measuring one update")
            failed = executors.run_here([short.run], launcher, folder / "logs", 1, gpus[:1], lambda: None)
            for said in failed.values():
                raise ConfigError(f"the pilot failed: {said} ({folder / 'logs'})", source=str(args.spec))
        section = planned[0].config.evaluation
        found, by = run_time.measured(short.run.folder, min(section.batch_size, section.episodes)), "a pilot"
    todo = [one for one in planned if not one.run.finished]
    jobs = args.jobs or min(
        len(todo), 1 if args.accelerate else run_time.fitting(found.memory_gib if found else 0, gpus)
    )
    if found is None:
        console.print("no estimate: the only finished run was stopped between")
        return jobs, gpus
    totals = [found.total_s(one.updates, one.config.evaluation.episodes) for one in todo]
    mean_s, rounds = sum(totals) / len(totals), -(-len(todo) // jobs)
    console.print(
        f"{len(todo)} runs of about {run_time.in_words(mean_s)}, {jobs} at once: about "
        f"{run_time.in_words(mean_s * rounds)}, by {by} alone on its machine"
    )
    return jobs, gpus


def _report(
    spec: Ablation, planned: Sequence["Planned"], failed: dict[str, str], folder: Path, console: Console
) -> int:
    """Print and write what came of it."""
    from marl_coop.evaluation.comparison_tables import PLOTTED, SHOWN, summary, tables, write
    from marl_coop.experiment import ablation

    found = ablation.budgets(planned)
    ablation.write_record(spec, planned, failed, found, folder)
    for name, said in failed.items():
        console.print(f"failed: {name}: {said}", style="yellow")
    comparison = ablation.compare_arms(planned, spec.reference, spec.metric)
    if comparison is None:
        console.print(f"nothing to compare yet: {spec.reference} and one more arm must have a finished run")
        return 1
    for table in tables(comparison, list(dict.fromkeys([spec.metric, *SHOWN]))):
        console.print(table)
    console.print(ablation.budget_table(found, spec.reference))
    console.print(summary(comparison, spec.metric))
    write([comparison], folder, list(dict.fromkeys([spec.metric, *PLOTTED])))
    console.print(f"written: {folder}")
    return int(bool(failed))


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="marl-coop ablate",
        description="Train every arm with every seed, and compare. What is finished is not done again, what was "
        "stopped goes on: the same command is given again.",
    )
    parser.add_argument("spec", type=Path, metavar="SPEC", help="such as configs/studies/terms.yaml")
    add_output(parser, "DIR", "default: ablations/<name>")
    parser.add_argument(
        "--executor",
        choices=("here", "slurm", "print"),
        default="here",
        help="this machine, SLURM through submitit, or lines for `accelerate launch` (default: here)",
    )
    parser.add_argument("--jobs", type=int, metavar="N", help="runs at once (default: by GPUs, or cores and memory)")
    parser.add_argument(
        "--accelerate", type=Path, metavar="FILE", help="start each run by accelerate, with this configuration of it"
    )
    parser.add_argument("--dry-run", action="store_true", help="judge all arms, estimate the time, and stop")
    args = parser.parse_args(argv)
    check_output(args.output, "DIR")
    if args.jobs is not None and args.jobs < 1:
        raise ConfigError(f"--jobs {args.jobs}: at least 1", source=COMMAND_LINE)
    if args.accelerate is not None and not args.accelerate.is_file():
        raise ConfigError(f"--accelerate {args.accelerate}: no such file", source=COMMAND_LINE)
    return args
