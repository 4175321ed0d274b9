"""The ceiling: what ideal players reach on the tasks that were played, by their own briefs and cues."""

from collections.abc import Sequence

from envs.core.env import CoopEnv
from envs.core.episode import Episode
from envs.scripted.registry import find_partner, partners_of

IDEAL = "ideal"


def ceiling(env: CoopEnv, episodes: Sequence[Episode]) -> list[Episode]:
    """The tasks of some episodes, in their order, played with the environment's ideal partner in every seat.

    No seat can be expected to do better by what it is told. On one list of tasks it can, by luck: where the better
    source was wrong, say. Empty where the environment has no ideal partner, as it does not say how likely its options
    are right.

    >>> from envs.design_review import DesignReview
    >>> from envs.scripted.exploits import Silent
    >>> from envs.scripted.play import play
    >>> env = DesignReview()
    >>> silent = [play(env, dict.fromkeys(env.seats, Silent()), seed) for seed in range(20)]
    >>> ideal = ceiling(env, silent)
    >>> sum(episode.outcome.success for episode in silent), sum(episode.outcome.success for episode in ideal)
    (6, 16)

    Args:
        env: plays the tasks as they were played: the environment of the episodes, with the same arguments.
    """
    if IDEAL not in partners_of(env):
        return []
    partner, played = find_partner(IDEAL, env), []
    for episode in episodes:
        env.reset(options={"task": episode.task})
        while env.agents:
            env.step({seat: partner.reply(env, seat) for seat in env.acting})
        played.append(env.episode)
    return played
