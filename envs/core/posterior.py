"""What a seat can know that knows how instances are drawn: who claims what, and how likely each option is right."""

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from itertools import product
from math import comb
from typing import NamedTuple

import numpy as np

from envs.core.config import DesignConfig
from envs.core.design import Cells
from envs.core.task import QUALITY, Decision, Seat
from envs.core.view import View


class Claim(NamedTuple):
    """What a partner said of its source: an option and how good it is, in the words of `Decision.quality`, or ""."""

    option: str
    quality: str


def named_option(messages: Sequence[str], decision: Decision) -> str | None:
    """The option that the messages name first, oldest message first; None where they name none.

    The first word counts because it is the partner's own: what it says later may be an echo. A message that names the
    decision is read from there on, so `oxygen: 1 water: 2` names 2 for `water`; a name with a colon goes before one
    without. Longer options are tried first, so a blend is not mistaken for its first half. What a brief calls a source
    names no option: `I got v3 from the audited schema` is v3.
    """
    sources = tuple(sorted(set(decision.source.values())))
    named = (_first_option(message, decision.id, decision.options, sources) for message in messages)
    return next((option for option in named if option is not None), None)


@lru_cache(maxsize=8192)  # a message is read again for every decision, by every partner and in every later turn
def _first_option(message: str, name: str, options: tuple[str, ...], sources: tuple[str, ...]) -> str | None:
    for source in sources:
        message = re.sub(rf"\b{re.escape(source)}\b", "it", message, flags=re.I)
    headed = re.search(rf"\b{re.escape(name)}\s*:", message, re.I) or re.search(
        rf"\b{re.escape(name)}\b", message, re.I
    )
    on_it = message[headed.end() :] if headed else message
    longest_first = sorted(options, key=len, reverse=True)
    edge = {True: r"(?!\w)", False: ""}, {True: r"(?<!\w)", False: ""}
    patterns = [edge[1][o[0].isalnum()] + re.escape(o) + edge[0][o[-1].isalnum()] for o in longest_first]
    match = re.search("|".join(f"({pattern})" for pattern in patterns), on_it, re.IGNORECASE)
    return longest_first[match.lastindex - 1] if match and match.lastindex else None


@lru_cache(maxsize=8192)
def _quality_of(option: str, messages: tuple[str, ...]) -> str:
    words = "|".join([*QUALITY.values(), r"\+- [1-9][0-9]*"])
    named = re.escape(option)
    either = rf"(?<!\w){named} ({words})|(?<!\w)({words}): {named}(?!\w)"
    match = re.search(either, " ".join(messages), re.IGNORECASE)
    return (match[1] or match[2]).lower() if match else ""


def claims(view: View, decision: Decision) -> dict[Seat, Claim]:
    """What each partner named first of a decision; without those that have named nothing."""
    found = {}
    for partner in view.partners:
        messages = tuple(message for seat, message in view.heard if seat == partner)
        option = named_option(messages, decision)
        if option is not None:
            found[partner] = Claim(option, _quality_of(option, messages))
    return found


def experts(view: View, decision: Decision) -> tuple[Seat, ...]:
    """Who may have the source that sounds reliable, which one seat has, as far as this seat can tell: itself, else who
    says so, else those that have named nothing, else any partner; anybody where the cue is hidden."""
    if decision.cue[view.seat] == "strong":
        return (view.seat,)
    if decision.cue[view.seat] == "unknown":
        return view.seats
    claimed = claims(view, decision)
    reliable = tuple(partner for partner in claimed if claimed[partner].quality == QUALITY["strong"])
    return reliable or tuple(partner for partner in view.partners if partner not in claimed) or view.partners


def pooled(view: View, decision: Decision) -> str | None:
    """What the seat comes to by its own measurement and those that it heard; None where it has nothing to pool.

    Of an estimate: the option nearest to both, weighted by 1 / error^2, once the partner has told its error.
    """
    if decision.numeric is None or not decision.is_estimate:
        return None
    measured = [(decision.belief[view.seat], decision.numeric.sigma[view.seat])]
    for option, quality in claims(view, decision).values():
        measured += [(option, float(quality.removeprefix("+- ")))] if quality.startswith("+- ") else []
    if len(measured) == 1:
        return None
    pool = np.average([float(option) for option, _ in measured], weights=[error**-2 for _, error in measured])
    return min(decision.options, key=lambda option: abs(float(option) - pool))


def posterior(view: View, decision: Decision, design: DesignConfig) -> dict[str, float]:
    """How likely it is, in [0, 1], that an option is right: the one to choose first, and with it at least the seat's
    own belief and all that was named. Who is alone goes by the source that sounds reliable. Where the cue is hidden and
    two options are as likely, what the first seat claims comes first, so that all who reckon so agree.

    Args:
        design: how instances are drawn, which is public.
    """
    own, claimed = decision.belief[view.seat], claims(view, decision)
    heard = [claim.option for claim in claimed.values()]
    reliability = design.cue_reliability
    pool = pooled(view, decision)
    if pool is not None:  # certain, unless it is one of two claims
        sure = reliability if pool in (own, *heard) and len({own, *heard}) > 1 else 1.0
        return {pool: sure} | {option: 1 - sure for option in (own, *heard) if option != pool}
    # sources claim two options: beside the own the one that most have named
    other = next((option for option, _ in Counter(heard).most_common() if option != own), None)
    partners = view.partners or (None,)  # who is alone stands for a pair
    agrees = {own: True, other: False}
    told = [agrees.get(claimed[partner].option) if partner in claimed else None for partner in partners]
    pointed = experts(view, decision)
    places = tuple([view.seat, *partners].index(expert) for expert in pointed)
    chances = right_probabilities(design.cells, reliability, (True, *told), places)
    found = dict.fromkeys(heard, 0.0) | dict(zip((own, other) if other else (own,), chances, strict=False))
    # by the cue where it is known and not by the larger number: they are equal at reliability 1/2
    said = {view.seat: own} | {partner: claim.option for partner, claim in claimed.items()}
    cued = said.get(pointed[0]) if len(pointed) == 1 else None
    first = said.get(view.seats[0]) if decision.cue[view.seat] == "unknown" else own
    return dict(sorted(found.items(), key=lambda item: (item[0] != cued, -round(item[1], 9), item[0] != first)))


def expected_choice(view: View, decision: Decision, design: DesignConfig, said: str | None) -> tuple[str, float]:
    """The option that a partner which goes by its own posterior will choose, and how likely it is, in [0, 1].

    All go by the claim of the one source that sounds reliable, once it was told. Before that a partner goes by its own
    claim, which is the one that it told, else the seat's own as often as sources agree. No other report of a pair
    expects a higher quadratic score: one that names an option leaves the rest to the others that could be claimed, each
    alike, and so does the design, as long as no distractor is left out. Of several partners it is the mean.

    Args:
        said: the option that the seat itself told them; None for none.
    """
    own, heard = decision.belief[view.seat], {seat: claim.option for seat, claim in claims(view, decision).items()}
    told, pointed = heard | ({view.seat: said} if said else {}), experts(view, decision)
    if len(pointed) == 1 and pointed[0] in told:
        return told[pointed[0]], 1.0
    if said and len(heard) == len(view.partners):  # all know the same
        return next(iter(posterior(view, decision, design))), 1.0
    places = tuple([view.seat, *view.partners].index(expert) for expert in pointed)
    known = (True, *(heard[partner] == own if partner in heard else None for partner in view.partners))
    chosen: dict[str, float] = {}
    for i, partner in enumerate(view.partners, start=1):
        alike, any_claim = (
            sum(_masses(design.cells, design.cue_reliability, (*known[:i], claim, *known[i + 1 :]), places))
            for claim in (True, known[i])
        )
        option, mass = (heard[partner], 1.0) if partner in heard else (own, alike / (any_claim or 1.0))
        chosen[option] = chosen.get(option, 0.0) + mass
    option = max(chosen, key=chosen.__getitem__)
    return option, chosen[option] / len(view.partners)


@lru_cache(maxsize=8192)
def right_probabilities(
    cells: Cells, cue_reliability: float, told: tuple[bool | None, ...], experts: tuple[int, ...]
) -> tuple[float, float]:
    """How likely the first seat's claim is right, and how likely the other one is, as `draw_decision` draws them.

    Args:
        told: for each seat whether it claims what the first one does; None where that is not known.
        experts: places of the seats that may have the source that sounds reliable, each as likely.

    >>> own, other = right_probabilities(Cells(), 0.95, (True, False), (0,))  # in 0.8 of such pairs one is right
    >>> f"{own:.2f} {other:.2f}"
    '0.76 0.04'
    """
    own, other, neither = _masses(cells, cue_reliability, told, experts)
    total = (own + other + neither) or 1.0
    return own / total, other / total


@lru_cache(maxsize=8192)
def _masses(
    cells: Cells, cue_reliability: float, told: tuple[bool | None, ...], experts: tuple[int, ...]
) -> tuple[float, float, float]:
    """How much probability the draws have that agree with what was told, where the first seat's claim is right, where
    the other one is, and where neither is; arguments as in `right_probabilities`."""
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
    return own, other, neither
