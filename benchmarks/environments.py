"""How fast the environments are, each with its default arguments, one process, no language model.

    python benchmarks/environments.py

Plays recorded replies of ideal partners and prints, for each environment: steps a second up to the last step (no tests
of code run there, but edits are made and branches merged), the share of that time that is `reset`, and whole episodes a
second with merge and tests, the first time and again, when caches know the verdicts.
"""

import argparse
import sys
import time

import envs
from envs.core.episode import Episode
from envs.scripted.play import play, replay
from envs.scripted.registry import find_partner
from marl_coop.cli import run_script
from marl_coop.cli.arguments import count


def recorded(env: envs.CoopEnv, episodes: int) -> list[Episode]:
    return [play(env, dict.fromkeys(env.possible_agents, find_partner("ideal", env)), seed) for seed in range(episodes)]


def unfinished(env: envs.CoopEnv, episode: Episode) -> tuple[int, float]:
    """(steps taken, seconds of making the task and beginning): an episode from its seed, without its last step."""
    start = time.perf_counter()
    env.reset(seed=episode.task.seed)
    began = time.perf_counter() - start
    rounds = sorted({turn.round for turn in episode.turns})[:-1]
    for round in rounds:
        env.step({turn.agent: turn.reply for turn in episode.turns if turn.round == round})
    return len(rounds), began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=count, default=60, help="of each environment (default: 60)")
    number = parser.parse_args().episodes
    print(f"{'environment':16} {'steps/s':>8} {'of it reset':>12} {'episodes/s':>11} {'again':>8}")
    for env_class in envs.ENVIRONMENTS:
        env = env_class()
        start = time.perf_counter()
        episodes = recorded(env, number)
        first = number / (time.perf_counter() - start)
        start = time.perf_counter()
        for episode in episodes:
            replay(env, episode)
        again = number / (time.perf_counter() - start)
        start = time.perf_counter()
        played = [unfinished(env, episode) for episode in episodes]
        seconds = time.perf_counter() - start
        steps, began = (sum(column) for column in zip(*played, strict=True))
        print(f"{env_class.__name__:16} {steps / seconds:8.0f} {began / seconds:12.0%} {first:11.1f} {again:8.1f}")


if __name__ == "__main__":
    sys.exit(run_script(main))
