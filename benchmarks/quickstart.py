"""Run the quickstart with several seeds and write down what came of it.

    python benchmarks/quickstart.py --seeds 0 1 2

writes runs/quickstart.md (before, after and change of each seed, with wall-clock and peak memory) and
runs/quickstart.png (the learning curves), of which docs/quickstart.md tells. The runs are in runs/quickstart-seed<k>.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

from marl_coop.cli import run_script
from marl_coop.evaluation.evaluate import COLUMNS, rows
from marl_coop.evaluation.report import learning_curve
from rewards.metrics import Metric


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="a run for each (default: 0 1 2)")
    parser.add_argument(
        "--runs", type=Path, default=Path("runs"), help="where the runs and these files go (default: runs)"
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as for train.py")
    args = parser.parse_intermixed_args()
    seeds = args.seeds
    lines = [
        "# The quickstart, seed by seed",
        "",
        f"`python benchmarks/quickstart.py --seeds {' '.join(map(str, seeds))}` on 2 CPU cores. Same unseen instances "
        "before and after; brackets are 95 % bootstrap intervals over instances, paired for the change.",
    ]
    runs = []
    for seed in seeds:
        run = args.runs / f"quickstart-seed{seed}"
        runs.append(run)
        started = time.time()
        if not (run / "results.json").exists():
            command = [sys.executable, "train.py", "--config", "configs/quickstart.yaml"]
            subprocess.run([*command, f"seed={seed}", f"output_dir={run}", *args.overrides], check=True)
            (run / "cost.json").write_text(
                json.dumps(
                    {
                        "minutes": (time.time() - started) / 60,
                        "peak_gib": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20,
                    }
                )
            )
        cost, results, start = (json.loads((run / f"{name}.json").read_text()) for name in ("cost", "results", "run"))
        commit = start["starts"][0]["git"]["commit"][:7]
        lines += [
            "",
            f"## seed {seed}: {cost['minutes']:.1f} minutes, at most {cost['peak_gib']:.1f} GiB, commit {commit}",
            "",
            f"| {' | '.join(COLUMNS)} |",
            f"{'|---' * len(COLUMNS)}|",
        ]
        measured = {side: {n: Metric(**metric) for n, metric in table.items()} for side, table in results.items()}
        lines += [f"| {' | '.join(row)} |" for row in rows(measured)]
    (args.runs / "quickstart.md").write_text("\n".join([*lines, "", "![learning curves](quickstart.png)", ""]))
    learning_curve(runs, args.runs / "quickstart.png")


if __name__ == "__main__":
    sys.exit(run_script(main))
