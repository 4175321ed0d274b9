"""`marl-coop compare`: runs or evaluations on the same tasks, with what can be told apart."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from envs.core.lookup import did_you_mean
from marl_coop.cli.arguments import add_output, check_output
from marl_coop.cli.terminal import wide_console
from marl_coop.evaluation.comparison import COMPARED, compare_methods, only, passed_over
from marl_coop.evaluation.conditions import compare_conditions
from marl_coop.evaluation.evaluated import read_evaluated
from rewards.metrics import METRICS


def compare(argv: Sequence[str]) -> int:
    """Compare runs or evaluations on the same tasks with a reference."""
    parser = argparse.ArgumentParser(
        prog="marl-coop compare",
        description="Compare methods on the tasks on which all of them were evaluated. Runs of one recorded name are "
        "seeds of one method. Intervals are of 95 %.",
    )
    parser.add_argument(
        "places",
        nargs="+",
        type=Path,
        metavar="FOLDER",
        help="of a finished run, or of an evaluation (marl-coop eval); with --conditions, of evaluations alone",
    )
    parser.add_argument(
        "--reference", metavar="METHOD", help="what the others are compared with (default: the first method)"
    )
    parser.add_argument(
        "--methods", nargs="+", metavar="METHOD", help="those to compare; the others of the folders are left out"
    )
    parser.add_argument(
        "--conditions",
        action="store_true",
        help="compare the conditions of evaluations in the place of methods: each minus the one that its battery says "
        "it is against, of each method over its seeds",
    )
    parser.add_argument(
        "--metrics",
        nargs="+",
        type=_metric,
        metavar="NAME",
        help="what to compare by, of docs/metrics.md (default: success, utility, j, cdr, cr, message tokens; files "
        "have more)",
    )
    add_output(parser, "DIR", "write JSON, CSV and, of methods, plots there too")
    args = parser.parse_args(argv)
    check_output(args.output, "DIR")
    if args.conditions:
        for option in ("reference", "methods"):
            if getattr(args, option):
                parser.error(
                    f"--{option} names methods, and --conditions compares none: a battery says what is against"
                )
        return _compare_conditions(args.places, args.metrics, args.output)
    evaluated = [one for place in args.places for one in read_evaluated(place)]
    if args.methods:
        evaluated = only(evaluated, args.methods)
    comparisons = compare_methods(evaluated, args.reference, args.metrics or COMPARED)
    from marl_coop.evaluation.comparison_tables import PLOTTED, SHOWN, tables, write  # load matplotlib

    console = wide_console()
    for comparison in comparisons:
        for table in tables(comparison, args.metrics or tuple(SHOWN)):
            console.print(table)
    for line in passed_over(evaluated, comparisons):
        console.print(line, style="yellow")
    if args.output:
        write(comparisons, args.output, args.metrics or PLOTTED)
        console.print(f"written: {args.output}")
    return 0


def _compare_conditions(places: Sequence[Path], metrics: Sequence[str] | None, output: Path | None) -> int:
    changes = compare_conditions(places, metrics or COMPARED)
    from marl_coop.evaluation.comparison_tables import (
        SHOWN,
        tables_of_changes,
        undefined,
        write_changes,
    )  # load matplotlib

    console = wide_console()
    for table in tables_of_changes(changes, metrics or tuple(SHOWN)):
        console.print(table)
    for line in undefined(changes, metrics or tuple(SHOWN)):
        console.print(line, style="yellow")
    if output:
        write_changes(changes, output)
        console.print(f"written: {output}")
    return 0


def _metric(name: str) -> str:
    if name not in METRICS:
        raise argparse.ArgumentTypeError(f"there is no metric {name!r}.{did_you_mean(name, tuple(METRICS))}")
    return name
