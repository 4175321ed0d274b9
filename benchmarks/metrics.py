"""Write docs/metrics.md: what each metric means, by its docstring, and what cheap policies reach beside honest play.

python benchmarks/metrics.py --episodes 400
"""

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import envs
from envs.core.episode import Episode
from envs.scripted.exploits import IDEAL
from marl_coop.cli import run_script
from marl_coop.cli.arguments import count
from marl_coop.evaluation.audit import play_exploits
from rewards.metrics import METRICS, Metric, compare, measure

ENVIRONMENT = {"acts": True, "rounds": 2}
SHOWN = ("success", "cdr", "cr", "j", "cdr_stated", "cr_stated", "j_stated", "prior_as_told")
SHOWN += ("silence_rate", "blend_rate", "dominated_blend_rate", "parse_rate", "gap_to_best_member")
SHOWN += ("message_tokens_per_episode",)

INTRODUCTION = """\
# What is measured

Made by `python benchmarks/metrics.py` from the docstrings of `rewards/metrics/`. None of it is trained on. Every \
value comes with a 95 % interval and its number of cases; without a case it is not defined, and never 0. Intervals are \
a Bayesian bootstrap over episodes with Jeffreys' pseudo-cases (`rewards/metrics/bayesian_bootstrap.py`), and \
`python benchmarks/intervals.py` shows how often they hold the truth.

A claim is what a seat's source says by its brief, a prior what the seat states before the talk. "More is better" or \
"less is better" stands where no policy below is better than honest play for certain. Others are a price, say what \
happens, or are half of something: CDR and CR are read together, and calibration beside what is right.

| metric | what it is | range | cases | source |
|---|---|---|---|---|"""
POLICY_INTRODUCTION = """
## What cheap policies reach

Each policy of `envs/scripted/exploits.py` plays {episodes} tasks of `DesignReview`, with acts and two rounds of talk, \
with its like in both seats. **Bold** is better for certain than honest play, called ideal, on the \
same tasks, in a metric that has a direction. An empty cell is not defined.
"""


class Meaning(NamedTuple):
    """The parts of a metric's docstring."""

    text: str
    range: str
    cases: str
    source: str


def meaning(name: str) -> Meaning:
    """What the docstring of a metric says.

    >>> meaning("success")
    Meaning(text='P(task solved).', range='[0, 1], more is better.', cases='Episodes.', source='Our own.')

    Raises:
        ValueError: it lacks its range, cases or source.
    """
    text, *parts = re.split(r"\b(Range|Cases|Source|Example): ", " ".join(METRICS[name].doc.split()))
    said = {label: part.strip() for label, part in zip(parts[::2], parts[1::2], strict=True)}
    lacks = {"Range", "Cases", "Source"} - said.keys()
    if lacks:
        raise ValueError(f"metric {name}: the docstring does not say {', '.join(sorted(lacks))}; add `Range: ...` etc.")
    return Meaning(text.strip(), *(said[label][0].upper() + said[label][1:] for label in ("Range", "Cases", "Source")))


def dictionary() -> list[str]:
    """The lines of the table, one for each metric."""
    return [
        f"| `{name}` | {' | '.join(part.replace('|', chr(92) + '|') for part in meaning(name))} |" for name in METRICS
    ]


def better(change: Mapping[str, Metric]) -> list[str]:
    """The metrics with a direction that are better for certain, by what `compare` says of honest play and a policy."""
    found = []
    for name, metric in change.items():
        ends = [METRICS[name].direction * end for end in (metric.low, metric.high) if end is not None]
        if ends and min(ends) > 0:
            found.append(name)
    return found


def row(policy: str, ideal: Sequence[Episode], played: Sequence[Episode]) -> str:
    """A policy's metrics, in bold where they are better for certain."""
    measured, wins = measure(played), better(compare(ideal, played))
    cells = ["" if (value := measured[name].value) is None else f"{value:.2f}" for name in SHOWN]
    return f"| {policy} | {' | '.join(f'**{c}**' if n in wins else c for n, c in zip(SHOWN, cells, strict=True))} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=count, default=400, help="tasks that each policy plays (default: 400)")
    parser.add_argument("--output", type=Path, default=Path("docs/metrics.md"), help="default: docs/metrics.md")
    args = parser.parse_args()
    played = play_exploits(envs.DesignReview(**ENVIRONMENT), args.episodes)
    lines = [INTRODUCTION, *dictionary(), POLICY_INTRODUCTION.format(episodes=args.episodes)]
    lines += [f"| policy | {' | '.join(f'`{name}`' for name in SHOWN)} |", "|---" * (1 + len(SHOWN)) + "|"]
    ideal = played.episodes[IDEAL, "symmetric"]
    lines += [row(name, ideal, episodes) for (name, mode), episodes in played.episodes.items() if mode == "symmetric"]
    args.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(run_script(main))
