"""What the forecasts of `PairedFeatures` are worth: on work of seats that know of each other, and of seats that do not.

    python benchmarks/forecasts.py

Every kind of package is built on twelve seeds, in one turn by each seat and under the right contract: as one builds it
who has read its own brief only, and as one who knows the partner's feature. For each it prints how many of the episodes
ended in a conflict that git reports, in harm after a clean merge, in success, and how many of the last forecasts named
what both rely on, and signatures that disagree. Then the metrics of forecasts of meaning over all episodes.
"""

import argparse
import sys

from envs.core.episode import Episode, Phase
from envs.paired_features.env import PairedFeatures
from envs.paired_features.templates import FAMILIES
from marl_coop.cli import run_script
from marl_coop.cli.arguments import count
from rewards.metrics import measure

METRICS = ("precision", "recall", "lead_rounds")


def built(env: PairedFeatures, seed: int, coordinated: bool) -> Episode:
    env.reset(seed=seed)
    option = env.task.decisions[0].best
    while env.agents:
        work = {seat: env.reference_work(seat, option, coordinated=coordinated) for seat in env.acting}
        final = dict.fromkeys(env.acting, f"Answer: {option}")
        env.step({seat: f"{text}\nSubmit" for seat, text in work.items()} if env.phase is Phase.WORK else final)
    return env.episode


def conflict(episode: Episode) -> bool:
    merge = episode.outcome.merge
    assert merge is not None, "every episode on a repository ends with a merge"
    return merge.conflict


def harmed(episode: Episode) -> bool:
    parts = episode.outcome.parts.values()
    broken = any(a and not m for part in parts for a, m in zip(part.alone, part.merged, strict=True))
    return broken and not conflict(episode)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=count, default=12, help="packages of each kind (default: 12)")
    seeds = range(parser.parse_args().seeds)
    print("| kind | seats know of each other | conflict | harm | success | both rely on | signatures |")
    print("|---|---|---|---|---|---|---|")
    played = []
    for coordinated in (False, True):
        for family in FAMILIES:
            env = PairedFeatures(families=[family.name])
            episodes = [built(env, seed, coordinated) for seed in seeds]
            outcomes = [episode.outcome for episode in episodes]
            counts = (
                sum(map(conflict, episodes)),
                sum(map(harmed, episodes)),
                sum(outcome.success for outcome in outcomes),
                sum(bool(outcome.forecasts[-1].symbols) for outcome in outcomes),
                sum(bool(outcome.forecasts[-1].signatures) for outcome in outcomes),
            )
            know = "yes" if coordinated else "no"
            print(f"| `{family.name}` | {know} | {' | '.join(map(str, counts))} |", flush=True)
            played += episodes
    metrics = measure(played)
    for name in METRICS:
        metric = metrics[f"semantic_forecast_{name}"]
        print(f"semantic_forecast_{name}: {metric.value:.2f} [{metric.low:.2f}, {metric.high:.2f}], {metric.n} cases")


if __name__ == "__main__":
    sys.exit(run_script(main))
