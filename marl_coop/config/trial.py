"""A trial of the reward terms on one scripted episode, before a model is loaded. Loads no torch."""

import math

import numpy as np

from envs.core.seeds import Stream, task_seed
from envs.scripted.demonstrator import Demonstrator
from envs.scripted.play import play
from marl_coop.config.schema import Config
from rewards import RewardStack


def try_rewards(config: Config) -> None:
    """Score one demonstration of the environment that is trained on with each reward term, once a configuration.

    Raises:
        ConfigError: the environment cannot be made, or a term raises, gives another number of values than the seat has
            turns, or one that is no finite number.
    """
    if config._tried:
        return
    try:
        env = config.make_env()
    except ValueError as error:  # a data set that is not there
        raise config.error(("env",), str(error)) from error
    seats = enumerate(env.seats)
    players = {seat: Demonstrator(np.random.default_rng(i)) for i, seat in seats}
    episode = play(env, players, seed=task_seed(Stream.WARM_UP, 0, 0))
    for key, term in zip(config.rewards, config.reward_stack.terms, strict=True):
        try:
            values = RewardStack((term,)).score(episode).values
            numbers = [float(value) for seat in episode.seats for value in values[seat][term.name]]
        except Exception as error:  # a term is code of the user, which may raise anything
            problem = f"fails on a scripted episode: {type(error).__name__}: {error}"
            raise config.error(("rewards", key), problem) from error
        if wrong := [number for number in numbers if not math.isfinite(number)]:
            raise config.error(("rewards", key), f"gives {wrong[0]} on a scripted episode")
    config._tried = True
