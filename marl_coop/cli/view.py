"""`marl-coop view`: runs as one HTML file that opens from the disk."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from marl_coop.cli.arguments import add_output, check_output
from marl_coop.runs.files import write_whole
from marl_coop.runs.rundir import RunError


def view(argv: Sequence[str]) -> int:
    """Write one HTML page of some runs, and its JSON twin."""
    parser = argparse.ArgumentParser(
        prog="marl-coop view",
        description="Write one HTML file, which needs no network, and a JSON file with the same data: what was trained "
        "and what came of it, and every episode. The runs may be finished, running, stopped or empty; the folder of an "
        "evaluation (marl-coop eval) is shown too.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", type=Path, help="the folder of a run or of an evaluation")
    place = "the HTML file; its twin ends in .json (default: view.html in the run's folder; of several, in this one)"
    add_output(parser, "FILE", place)
    args = parser.parse_args(argv)
    check_output(args.output, "FILE")
    file = args.output or (args.runs[0] if len(args.runs) == 1 else Path()) / "view.html"
    if file.suffix == ".json":
        raise RunError(f"--output {file}: that is the name of its twin; end it in .html")
    from marl_coop.viewer.page import page, twin  # load Vega
    from marl_coop.viewer.source import read_run

    data = twin([read_run(run) for run in args.runs])
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file.with_suffix(".json"), json.dumps(data))
        write_whole(file, page(data))
    except OSError as error:
        raise RunError(f"{file} cannot be written: {error.strerror}; name another file with --output") from error
    for run in data["runs"]:
        for notice in run["notices"]:
            print(f"{run['label']}: {notice}")
    episodes = sum(len(run["episodes"]) for run in data["runs"])
    print(f"{file}: {episodes} episodes, {file.stat().st_size / 2**20:.1f} MiB; the same data in {file.stem}.json")
    return 0
