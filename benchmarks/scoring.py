"""What it costs to score an episode with all reward terms and to take all metrics, on scripted episodes with acts.

    python benchmarks/scoring.py

prints milliseconds of CPU time per episode, the median of five repeats: `score` is `RewardStack.score` for all seats,
`rates` every metric without its interval, as training logs it, `measure` every metric with it.
"""

import time

from rich import print
from rich.table import Table

from envs import ENVIRONMENTS
from envs.core.env import SEATS
from envs.core.episode import Episode, Phase
from envs.scripted.base import Calibrated
from envs.scripted.play import play
from rewards import TERMS, RewardStack
from rewards.metrics import METRICS, measure, rates

EPISODES, REPEATS = 200, 5


class Acting(Calibrated):
    """The ideal partner, which also says what it does in acts."""

    def reply(self, env, seat):
        reply, (decision,) = super().reply(env, seat), env.task.decisions
        own = decision.belief[seat]
        if env.phase is Phase.TALK:
            talk = f"Propose: {own}\nCommit: {own}", f"Challenge: {own}\nAsk:"
            return f"{reply}\n{talk[bool(env.heard(seat))]}"
        return f"Expect: {own} (70%)\n{reply}" if env.phase is Phase.FINAL else reply


def milliseconds(work, episodes: list[Episode]) -> float:
    """Median time per episode of some repeats, after one to warm up."""
    times = []
    for _ in range(REPEATS + 1):
        start = time.process_time()
        work(episodes)
        times.append(time.process_time() - start)
    return 1e3 * sorted(times[1:])[REPEATS // 2] / len(episodes)


def main() -> None:
    stack = RewardStack(tuple(term() for term in TERMS))
    table = Table("ms per episode", f"score, {len(TERMS)} terms", f"rates, {len(METRICS)} metrics", "measure")
    for make in ENVIRONMENTS:
        env = make(acts=True, rounds=2)
        episodes = [play(env, dict.fromkeys(SEATS, Acting()), seed) for seed in range(EPISODES)]
        works = (lambda played: [stack.score(episode) for episode in played]), rates, measure
        table.add_row(make.__name__, *(f"{milliseconds(work, episodes):.2f}" for work in works))
    print(table)


if __name__ == "__main__":
    main()
