"""Plots of a run directory."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from marl_coop.runs.records import read_metrics

PANELS = {  # metric of metrics.jsonl -> title
    "team/j": "J = CDR - CR",
    "team/success": "success",
    "team/parse_rate": "parse rate",
    "team/message_tokens_per_episode": "message tokens per episode",
}


def learning_curve(runs: Sequence[Path], file: Path, window: int = 3) -> None:
    """Draw the training episodes of some runs, one line each: means over `window` updates, raw values as dots,
    evaluations on unseen instances as crosses."""
    figure = Figure(figsize=(3.2 * len(PANELS), 2.8), layout="constrained")
    axes = figure.subplots(1, len(PANELS))
    for run in runs:
        records = read_metrics(run / "metrics.jsonl")
        for axis, (metric, title) in zip(axes, PANELS.items(), strict=True):
            points = [(r["update"], r[metric]) for r in records if metric in r]
            axis.set(title=title, xlabel="update")
            if not points:  # never defined, as J in a run without a conflict
                continue
            updates, values = np.array(points).T
            smooth = [values[max(0, i + 1 - window) : i + 1].mean() for i in range(len(values))]
            (line,) = axis.plot(updates, smooth, label=run.name)
            axis.plot(updates, values, ".", color=line.get_color(), alpha=0.35)
            unseen = metric.replace("team/", "eval/")
            if points := [(r["update"], r[unseen]) for r in records if unseen in r]:
                updates, values = np.array(points).T
                axis.plot(updates, values, "x--", color=line.get_color(), label=f"{run.name}, unseen instances")
    if axes[1].lines:
        axes[1].legend(fontsize="x-small")
    figure.savefig(file, dpi=110)
