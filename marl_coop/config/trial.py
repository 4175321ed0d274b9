"""A trial of the reward terms on one scripted episode, before a model is loaded. Loads no torch."""

import numpy as np

from envs.core.seeds import Stream, task_seed
from envs.repository.git import NoGitError
from envs.scripted.demonstrator import Demonstrator
from envs.scripted.play import play
from marl_coop.config.schema import Config
from marl_coop.hyperparameters import LARGEST
from rewards import RewardStack


def try_rewards(config: Config) -> None:
    """Score one demonstration of the environment that is trained on with each reward term, once a configuration.

    Raises:
        ConfigError: the environment cannot be made, or a term raises, gives another number of values than the seat has
            turns, one that is no finite number, or changes the episode.
    """
    if config._tried:
        return
    try:
        env = config.make_env()
    except (ValueError, NoGitError) as error:  # a data set that is not there
        raise config.error(("env",), str(error)) from error
    seats = enumerate(env.seats)
    players = {seat: Demonstrator(np.random.default_rng(i)) for i, seat in seats}
    episode = play(env, players, seed=task_seed(Stream.WARM_UP, 0, 0))
    played = episode.to_json()
    for key, term in zip(config.rewards, config.reward_stack.terms, strict=True):
        try:
            values = RewardStack((term,)).score(episode).values
            given = [value for seat in episode.seats for value in values[seat][term.name]]
        except Exception as error:  # a term is code of the user, which may raise anything
            problem = f"fails on a scripted episode: {type(error).__name__}: {error}"
            raise config.error(("rewards", key), problem) from error
        if wrong := [value for value in given if not abs(value) <= LARGEST]:
            problem = (
                f"gives {wrong[0]!r} on a scripted episode: give numbers of at most {LARGEST:g}, one for each turn"
            )
            raise config.error(("rewards", key), problem)
        if episode.to_json() != played:
            raise config.error(("rewards", key), "changes the episode that it is to score: let it work on a copy")
    config._tried = True
