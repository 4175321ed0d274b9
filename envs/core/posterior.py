"""What a seat can know that knows how instances are drawn: who claims what, and how likely each option is right."""

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from itertools import product
from math import comb
from typing import NamedTuple

import numpy as np

from envs.core.config import EnvConfig
from envs.core.design import Cells
from envs.core.episode import Turn
from envs.core.task import QUALITY, Decision, Seat


class Claim(NamedTuple):
    """What a partner said of its source: an option and how good it is, in the words of `Decision.quality`, or ""."""

    option: str
    quality: str


def named_option(messages: Sequence[str], decision: Decision) -> str | None:
    """The option that the messages name first, oldest message first; None where they name none.

    The first word counts because it is the partner's own: what it says later may be an echo. A message that names the
    decision is read from there on, so `oxygen: 1 water: 2` names 2 for `water`; a name with a colon goes before one
    without. Longer options are tried first, so a blend is not mistaken for its first half.
    """
    named = (_first_option(message, decision.id, decision.options) for message in messages)
    return next((option for option in named if option is not None), None)


@lru_cache(maxsize=8192)  # a message is read again for every decision, by every partner and in every later turn
def _first_option(message: str, name: str, options: tuple[str, ...]) -> str | None:
    headed = re.search(rf"\b{re.escape(name)}\s*:", message, re.I) or re.search(
        rf"\b{re.escape(name)}\b", message, re.I
    )
    on_it = message[headed.end() :] if headed else message
    longest_first = sorted(options, key=len, reverse=True)
    edge = {True: r"(?!\w)", False: ""}, {True: r"(?<!\w)", False: ""}
    patterns = [edge[1][o[0].isalnum()] + re.escape(o) + edge[0][o[-1].isalnum()] for o in longest_first]
    match = re.search("|".join(f"({pattern})" for pattern in patterns), on_it, re.IGNORECASE)
    return longest_first[match.lastindex - 1] if match else None


@lru_cache(maxsize=8192)
def _quality_of(option: str, messages: tuple[str, ...]) -> str:
    words = "|".join([*QUALITY.values(), r"\+- [1-9][0-9]*"])
    match = re.search(rf"(?<!\w){re.escape(option)} ({words})", " ".join(messages), re.IGNORECASE)
    return match[1].lower() if match else ""


class Odds:
    """What `envs.core.env.CoopEnv`, which has the attributes used here, lets a seat conclude from what it was told.

    How instances are drawn is public: it is the constructor's arguments. The rest is the seat's own belief and cue, and
    the messages that it heard. Here the cells draw who is right; an environment that draws otherwise overrides `odds`.
    """

    config: EnvConfig
    seats: tuple[Seat, ...]
    turns: tuple[Turn, ...]

    @property
    def knows_odds(self) -> bool:
        """Whether `odds` has an answer."""
        return self.config.cells is not None or type(self).odds is not Odds.odds

    def heard(self, seat: Seat) -> tuple[str, ...]:
        """What the partners have said to this seat so far, oldest first."""
        return tuple(turn.message for turn in self.turns if turn.agent != seat and turn.message)

    def claims(self, seat: Seat, decision: Decision) -> dict[Seat, Claim]:
        """What each partner named first of a decision; without those that have named nothing."""
        claims = {}
        for partner in self.seats:
            messages = tuple(turn.message for turn in self.turns if turn.agent == partner != seat and turn.message)
            option = named_option(messages, decision)
            if option is not None:
                claims[partner] = Claim(option, _quality_of(option, messages))
        return claims

    def experts(self, seat: Seat, decision: Decision) -> tuple[Seat, ...]:
        """Who may have the source that sounds reliable, which one seat has, as far as this seat can tell: itself, else
        who says so, else those that have named nothing, else any partner."""
        if decision.cue[seat] == "strong":
            return (seat,)
        claims = self.claims(seat, decision)
        others = tuple(partner for partner in self.seats if partner != seat)
        reliable = tuple(partner for partner in claims if claims[partner].quality == QUALITY["strong"])
        return reliable or tuple(partner for partner in others if partner not in claims) or others

    def pools(self, decision: Decision) -> bool:
        """Whether the sources measure one thing, so that all who hear the same come to the same option."""
        return decision.is_estimate

    def pooled(self, seat: Seat, decision: Decision) -> str | None:
        """What the seat comes to by its own measurement and those that it heard; None where it has nothing to pool.

        Of an estimate: the option nearest to both, weighted by 1 / error^2, once the partner has told its error.
        """
        if not decision.is_estimate:
            return None
        measured = [(decision.belief[seat], decision.numeric.sigma[seat])]
        for option, quality in self.claims(seat, decision).values():
            measured += [(option, float(quality.removeprefix("+- ")))] if quality.startswith("+- ") else []
        if len(measured) == 1:
            return None
        pool = np.average([float(option) for option, _ in measured], weights=[error**-2 for _, error in measured])
        return min(decision.options, key=lambda option: abs(float(option) - pool))

    def odds(self, seat: Seat, decision: Decision) -> dict[str, float]:
        """How likely it is, in [0, 1], that an option is right: the one to choose first, and with it at least the
        seat's own belief and all that was named. Who is alone goes by the source that sounds reliable.

        Raises:
            ValueError: the environment does not say how likely its options are right.
        """
        if not self.knows_odds:
            raise ValueError(f"{type(self).__name__} does not say how likely its options are right; override `odds`.")
        own, claims = decision.belief[seat], self.claims(seat, decision)
        heard = [claim.option for claim in claims.values()]
        pool = self.pooled(seat, decision)
        if pool is not None:  # certain, unless it is one of two claims
            sure = self.config.cue_reliability if pool in (own, *heard) and len({own, *heard}) > 1 else 1.0
            return {pool: sure} | {option: 1 - sure for option in (own, *heard) if option != pool}
        # sources claim two options: beside the own the one that most have named
        other = next((option for option, _ in Counter(heard).most_common() if option != own), None)
        partners = [partner for partner in self.seats if partner != seat] or [None]  # who is alone stands for a pair
        agrees = {own: True, other: False}
        told = [agrees.get(claims[partner].option) if partner in claims else None for partner in partners]
        experts = self.experts(seat, decision)
        places = tuple([seat, *partners].index(expert) for expert in experts)
        chances = right_odds(self.config.cells, self.config.cue_reliability, (True, *told), places)
        odds = dict.fromkeys(heard, 0.0) | dict(zip((own, other) if other else (own,), chances, strict=False))
        # by the cue where it is known and not by the larger number: they are equal at reliability 1/2
        claimed = {seat: own} | {partner: claim.option for partner, claim in claims.items()}
        cued = claimed.get(experts[0]) if len(experts) == 1 else None
        return dict(sorted(odds.items(), key=lambda item: (item[0] != cued, -item[1], item[0] != own)))


@lru_cache(maxsize=8192)
def right_odds(
    cells: Cells, cue_reliability: float, told: tuple[bool | None, ...], experts: tuple[int, ...]
) -> tuple[float, float]:
    """How likely the first seat's claim is right, and how likely the other one is, as `draw_decision` draws them.

    Args:
        told: for each seat whether it claims what the first one does; None where that is not known.
        experts: places of the seats that may have the source that sounds reliable, each as likely.

    >>> own, other = right_odds(Cells(), 0.95, (True, False), (0,))  # in 0.8 of such pairs one is right
    >>> f"{own:.2f} {other:.2f}"
    '0.76 0.04'
    """
    seats = len(told)
    both, one, none = (cells.probability(name) for name in ("both_right", "one_right", "both_wrong"))
    own = other = neither = 0.0
    for claims in product(*([True, False] if claim is None else [claim] for claim in told)):
        agreeing = sum(claims)
        for expert in experts:
            if agreeing == seats:  # the cue is any seat's; of those that are all wrong half agree
                own += both / seats
                neither += none / 2 / seats
            else:  # any number of seats is right, and any of so many; any split of those that are all wrong
                minded = agreeing if claims[expert] else seats - agreeing
                mixed = one / (seats - 1) / comb(seats, agreeing) / minded
                right, wrong = mixed * cue_reliability, mixed * (1 - cue_reliability)
                own += right if claims[expert] else wrong
                other += wrong if claims[expert] else right
                neither += none / 2 / (2 ** (seats - 1) - 1) / seats
    total = (own + other + neither) or 1.0
    return own / total, other / total
