"""Lengths in tokens of the model: what replies and chats of an environment take, and the limits that follow.

A limit that is too short cuts right answers, which then count as wrong ones. So it is taken from demonstrations
(`envs.scripted.demonstrator`) and ideal play of every family, or compared with them.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from envs.core.env import CoopEnv
from envs.core.episode import Phase
from envs.core.seeds import Stream, task_seed
from envs.core.task import Seat
from envs.scripted.base import Partner
from envs.scripted.demonstrator import Demonstrator
from envs.scripted.play import shown
from envs.scripted.registry import partners_of
from marl_coop.rollout.chat import Chat

EPISODES = 32  # of each family, and of each kind of player
WORDINGS = 8  # of each message, of which the longest is taken: of many decisions one draw seldom words all at length
MARGIN = 8  # a limit that nobody gave is longer than what was seen by one part in so many


@dataclass(frozen=True, slots=True)
class Lengths:
    """The longest that was seen, in tokens.

    Attributes:
        replies: of a reply with its end, by phase.
        told: of what one seat is told in an episode: system message, observations and the marks around them.
        turns: turns of one seat in an episode, by phase.
        heard: messages that one seat hears in an episode.
    """

    replies: Mapping[Phase, int]
    told: int
    turns: Mapping[Phase, int]
    heard: int

    @classmethod
    def longest(cls, parts: Iterable[Self]) -> Self:
        """What is the longest in any of some lengths."""
        parts = list(parts)
        return cls(
            replies={phase: max(part.replies.get(phase, 0) for part in parts) for phase in Phase},
            told=max(part.told for part in parts),
            turns={phase: max(part.turns.get(phase, 0) for part in parts) for phase in Phase},
            heard=max(part.heard for part in parts),
        )

    def chat(self, limits: Mapping[Phase, int]) -> int:
        """Tokens that a chat may come to if every reply and every message is as long as its limit."""
        written = sum(count * (limits[phase] + 1) for phase, count in self.turns.items())  # + 1: an end that was cut
        return self.told + written + self.heard * limits[Phase.TALK]


def measure(env: CoopEnv, chat: Chat) -> Lengths:
    """The longest replies and observations of an environment, by demonstrations and ideal play of all its families.

    Args:
        env: plays; what comes of the last replies is not asked for, so no tests run.
        chat: with the environment's system message.
    """
    players: list[Partner] = [Demonstrator(np.random.default_rng(0))]
    players += [kind() for name, kind in partners_of(env).items() if name == "ideal"]
    seeds = [task_seed(Stream.WARM_UP, 0, index) for index in range(EPISODES * max(1, len(env.families)))]
    return Lengths.longest(_measured(env, chat, player, seed) for player in players for seed in seeds)


def _measured(env: CoopEnv, chat: Chat, player: Partner, seed: int) -> Lengths:
    """The lengths of one episode with the same player in every seat."""
    replies: Counter[Phase] = Counter()
    told: Counter[Seat] = Counter()
    turns: Counter[tuple[Seat, Phase]] = Counter()

    def longest(seat: Seat) -> str:
        wordings = range(WORDINGS if env.phase is Phase.TALK else 1)
        return max((player.reply(env, seat) for _ in wordings), key=len)

    for phase, seat, news, reply in shown(env, longest, seed):
        replies[phase] = max(replies[phase], len(chat.reply_ids(reply)))
        told[seat] += len(chat.follow([chat.eos], news)) - 1 if seat in told else len(chat.open(news))
        turns[seat, phase] += 1
    most = {phase: max(turns[seat, phase] for seat in env.seats) for phase in Phase}
    heard = (len(env.seats) - 1) * most[Phase.TALK]
    return Lengths(replies=replies, told=max(told.values()), turns=most, heard=heard)


def shortest(lengths: Lengths) -> dict[Phase, int]:
    """Limits that cut nothing that was measured, with a margin for what is longer still.

    >>> shortest(Lengths(replies={Phase.FINAL: 40}, told=200, turns={}, heard=0))[Phase.FINAL]
    47
    """
    longest = {phase: lengths.replies.get(phase, 0) for phase in Phase}
    return {phase: tokens + tokens // MARGIN + 2 for phase, tokens in longest.items()}


def settled(given: Mapping[Phase, int], env: CoopEnv, chat: Chat) -> Mapping[Phase, int]:
    """The limits as given, and where one is missing for a phase of the environment, the shortest that will do."""
    return given if given.keys() >= set(env.schedule) else {**shortest(measure(env, chat)), **given}
