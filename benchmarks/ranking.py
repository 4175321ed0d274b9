"""Average or defer? Mean scores of both rules in `MoonSurvival`, for the table of docs/environments.md.

python benchmarks/ranking.py
"""

import argparse
import sys

import numpy as np

from envs.moon_survival import MoonSurvival, ranks, score
from marl_coop.cli import run_script
from marl_coop.cli.arguments import count

NOISES = ((3.0, 3.0), (1.0, 2.0), (1.0, 4.0), (0.5, 6.0))  # of the expert, of the others


def scores(env: MoonSurvival, seed: int) -> tuple[float, float]:
    """What a team earns on one task that follows its expert, and one that averages."""
    decisions = env.make_task(seed).decisions
    key = [int(decision.best) for decision in decisions]
    told = {seat: [int(decision.belief[seat]) for decision in decisions] for seat in env.seats}
    return score(told[decisions[0].expert], key), score(ranks(np.mean([*told.values()], axis=0)), key)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=count, default=300, help="for each line (default: 300)")
    tasks = parser.parse_args().tasks
    errors = []
    print("| noise of the expert, of the others | seats | follow the expert | average |\n|---|---|---|---|")
    for noises in NOISES:
        for agents in (2, 4, 8):
            env = MoonSurvival(agents=agents, expert_noise=noises[0], novice_noise=noises[1], cue_reliability=1.0)
            played = np.array([scores(env, seed) for seed in range(tasks)])
            defer, average = (f"{mean:.3f}" for mean in played.mean(axis=0))
            errors.append((played.std(axis=0) / np.sqrt(tasks)).max())
            print(f"| {noises[0]:g}, {noises[1]:g} | {agents} | {defer} | {average} |", flush=True)
    print(f"largest standard error: {max(errors):.4f}")


if __name__ == "__main__":
    sys.exit(run_script(main))
