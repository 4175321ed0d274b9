"""Playing with scripted partners in every seat, to the end or up to it, and playing a record again."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, replace
from itertools import count, groupby
from typing import NamedTuple

from envs.core.env import CoopEnv
from envs.core.episode import Episode, Outcome, Phase, StopReason
from envs.core.task import Seat
from envs.core.tokens import first_tokens
from envs.scripted.base import Partner


def play(env: CoopEnv, partners: Mapping[Seat, Partner], seed: int | None = None) -> Episode:
    """Play one episode with a partner in every seat; `seed` as in `reset`."""
    env.reset(seed=seed)
    while env.agents:
        env.step({seat: partners[seat].reply(env, seat) for seat in env.acting})
    return env.episode


class Shown(NamedTuple):
    """A turn that the environment has not read: what a seat was told and what it writes."""

    phase: Phase
    seat: Seat
    observation: str
    reply: str


def shown(env: CoopEnv, reply: Callable[[Seat], str], seed: int) -> Iterator[Shown]:
    """Every turn of an episode; what comes of the last ones, which can be minutes of tests, is not asked for.

    Args:
        reply: what a seat writes; asked once for each turn, in the order of the seats.
        seed: as in `reset`.
    """
    env.reset(seed=seed)
    for step in count(1):
        phase = env.phase
        assert phase is not None  # it runs until it returns
        replies = {seat: reply(seat) for seat in env.acting}
        if (most := env.allowance) is not None:
            replies = {seat: first_tokens(text, most) for seat, text in replies.items()}
        yield from (Shown(phase, seat, env.observe(seat), text) for seat, text in replies.items())
        if step == len(env.schedule):
            return
        env.step(replies)
        if not env.agents:
            return


def replay(env: CoopEnv, episode: Episode) -> Episode:
    """Play the task of a record once more with its replies: an equal environment comes to an equal record.

    Raises:
        ValueError: the record is of another environment, has more or fewer turns than this one plays, or another end.
    """
    rounds = [
        {turn.agent: turn.reply for turn in turns} for _, turns in groupby(episode.turns, lambda turn: turn.round)
    ]
    try:
        env.reset(options={"task": episode.task})
        while rounds and env.agents:
            env.step(rounds.pop(0))
    except (ValueError, LookupError, AttributeError, StopIteration) as error:
        raise _unequal(episode, f"cannot be played in {type(env).__name__} ({error!r})") from error
    if rounds:
        raise _unequal(episode, f"goes on after {len(env.turns)} turns")
    if env.agents:
        raise _unequal(episode, f"ends in phase {env.phase}")
    ended = env.episode.outcome, episode.outcome
    if ended[0] != ended[1] and StopReason.SANDBOX_FAULT not in (env.episode.stop_reason, episode.stop_reason):
        name = next(field.name for field in fields(Outcome) if len({repr(getattr(o, field.name)) for o in ended}) > 1)
        raise _unequal(episode, f"has {name} {getattr(ended[1], name)!r} and not {getattr(ended[0], name)!r}")
    return replace(env.episode, players=episode.players)


def _unequal(episode: Episode, what: str) -> ValueError:
    return ValueError(f"replay: the record of {episode.task.id} {what}. Use an environment with the same arguments.")
