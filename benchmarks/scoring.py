"""What it costs to score an episode with all reward terms and to take all metrics, on scripted episodes.

    python benchmarks/scoring.py

prints milliseconds of CPU time per episode, the median of five repeats: `score` is `RewardStack.score` for all seats,
`rates` every metric without its interval, as training logs it, `measure` every metric with it.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence

from rich import print
from rich.table import Table

import envs
from envs.core.episode import Episode, Phase
from envs.core.task import Seat
from envs.scripted.base import Partner, line
from envs.scripted.play import play
from envs.scripted.registry import find_partner
from marl_coop.cli import run_script
from marl_coop.cli.arguments import count
from rewards import TERMS, RewardStack
from rewards.metrics import METRICS, measure, rates

REPEATS = 5


class Acting:
    """A partner that also says in acts what it does about the first decision."""

    def __init__(self, partner: Partner):
        self.partner = partner

    def reply(self, env: envs.CoopEnv, seat: Seat) -> str:
        reply, decision = self.partner.reply(env, seat), env.task.decisions[0]
        own = decision.belief[seat]
        if env.phase is Phase.TALK:
            words = ("Challenge", "Ask") if env.heard(seat) else ("Propose", "Commit")
            return "\n".join([reply, *(line(env, word, decision, own if word != "Ask" else "") for word in words)])
        return f"{line(env, 'Expect', decision, own, 0.7)}\n{reply}" if env.phase is Phase.FINAL else reply


def recorded(env_class: type[envs.CoopEnv], episodes: int) -> list[Episode]:
    """Played by ideal partners, with acts where an environment has them."""
    acts = env_class is not envs.Handover
    env = env_class(acts=True, rounds=2) if acts else env_class()
    ideal = find_partner("ideal", env)
    partners = dict.fromkeys(env.possible_agents, Acting(ideal) if acts else ideal)
    return [play(env, partners, seed) for seed in range(episodes)]


def milliseconds(work: Callable[[Sequence[Episode]], object], episodes: Sequence[Episode]) -> float:
    """Median time per episode of some repeats, after one to warm up."""
    times = []
    for _ in range(REPEATS + 1):
        start = time.process_time()
        work(episodes)
        times.append(time.process_time() - start)
    return 1e3 * sorted(times[1:])[REPEATS // 2] / len(episodes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=count, default=200, help="of each environment (default: 200)")
    number = parser.parse_args().episodes
    stack = RewardStack.from_config({term.name: {} for term in TERMS})
    works = (lambda episodes: [stack.score(episode) for episode in episodes]), rates, measure
    table = Table("ms per episode", f"score, {len(TERMS)} terms", f"rates, {len(METRICS)} metrics", "measure")
    for env_class in envs.ENVIRONMENTS:
        episodes = recorded(env_class, number)
        table.add_row(env_class.__name__, *(f"{milliseconds(work, episodes):.2f}" for work in works))
    print(table)


if __name__ == "__main__":
    sys.exit(run_script(main))
