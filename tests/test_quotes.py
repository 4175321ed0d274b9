"""`benchmarks/quotes.py`: what a last reply quotes, and what is made of it."""

from dataclasses import replace

import numpy as np
import pytest

import envs
from benchmarks.quotes import Quoted, follows_quote, quoted, quotes_own, quotes_theirs
from envs.core.episode import Phase
from envs.scripted.demonstrator import Demonstrator
from envs.scripted.play import play
from rewards.metrics import measure
from rewards.metrics.rate import bounded


@pytest.fixture(scope="module")
def episode():
    """A pair that is told different things and quotes both, by the warm-up's demonstrations."""
    env = envs.make("PairedFunctions", families=["offset"], scaffold=True, confidences=False)
    players = {seat: Demonstrator(np.random.default_rng(i)) for i, seat in enumerate(env.possible_agents)}
    played = (play(env, players, seed=seed) for seed in range(99))
    return next(one for one in played if len(set(one.task.decisions[0].belief.values())) == 2)


def ending(episode, *replies, answer):
    """The same episode, in which the first seat's last reply is this."""
    turns = [
        replace(t, reply="\n".join(replies), stances=tuple(replace(s, option=answer) for s in t.stances))
        if t.phase is Phase.FINAL and t.agent == episode.seats[0]
        else t
        for t in episode.turns
    ]
    return replace(episode, turns=tuple(turns))


def test_demonstrations_quote_both_claims(episode):
    rates = {rate.__name__: bounded(rate) for rate in (quotes_own, quotes_theirs, follows_quote)}
    found = measure([episode], rates)
    assert (found["quotes_own"].value, found["quotes_theirs"].value) == (1.0, 1.0)
    assert found["follows_quote"].n == 2


def test_a_seat_that_misquotes_its_partner_may_still_follow_its_quotes(episode):
    (decision,) = episode.task.decisions
    own, theirs = episode.seats
    mine, better = decision.quality(own), decision.quality(decision.expert)
    quote = f"Mine is {mine}: {decision.belief[own]}. Theirs is {decision.quality(theirs)}: 999."
    follows = decision.belief[own] if mine == better else "999"
    (first, _) = quoted(ending(episode, quote, f"Answer: {follows}", answer=follows))
    assert first == Quoted(own=True, theirs=False, follows=True)
    (first, _) = quoted(ending(episode, quote, "Answer: 0", answer="0"))
    assert first == Quoted(own=True, theirs=False, follows=False)


def test_a_reply_that_quotes_nothing_follows_nothing(episode):
    (first, _) = quoted(ending(episode, "Answer: 1", answer="1"))
    assert first == Quoted(own=False, theirs=False, follows=None)
