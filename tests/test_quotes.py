"""`benchmarks/quotes.py`: what a last reply quotes, and what is made of it."""

import sys
from dataclasses import replace

import numpy as np
import pytest

import envs
from benchmarks.quotes import RATES, Quoted, main, own_seats, played, quoted, rates_own
from envs.core.episode import Phase
from envs.scripted.demonstrator import Demonstrator
from envs.scripted.play import play
from marl_coop.evaluation.evaluated import Evaluated
from marl_coop.runs.records import write_episodes
from marl_coop.runs.rundir import RunError
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
    found = measure([episode], {rate.__name__: bounded(rate) for rate in RATES})
    assert {found[name].value for name in ("rates_own", "quotes_own", "quotes_theirs")} == {1.0}
    assert found["follows_quote"].n == 2


def test_a_seat_that_misquotes_its_partner_may_still_follow_its_quotes(episode):
    (decision,) = episode.task.decisions
    own, theirs = episode.seats
    mine, better = decision.quality(own), decision.quality(decision.expert)
    quote = f"Mine is {mine}: {decision.belief[own]}. Theirs is {decision.quality(theirs)}: 999."
    follows = decision.belief[own] if mine == better else "999"
    (first, _) = quoted(ending(episode, quote, f"Answer: {follows}", answer=follows))
    assert first == Quoted(rates=True, own=True, theirs=False, follows=True)
    (first, _) = quoted(ending(episode, quote, "Answer: 0", answer="0"))
    assert first == Quoted(rates=True, own=True, theirs=False, follows=False)


def test_a_reply_that_quotes_one_source_follows_nothing(episode):
    (decision,) = episode.task.decisions
    own = episode.seats[0]
    quote = f"Mine is {decision.quality(own)}: {decision.belief[own]}."
    (first, _) = quoted(ending(episode, quote, "Answer: 1", answer=decision.belief[own]))
    assert first == Quoted(rates=True, own=True, theirs=False, follows=None)


def test_of_several_decisions_each_has_a_line_of_its_own():
    env = envs.make("DesignReview", decisions=3, confidences=False)
    players = {seat: Demonstrator(np.random.default_rng(i)) for i, seat in enumerate(env.possible_agents)}
    found = [one for seed in range(20) for one in quoted(play(env, players, seed=seed))]
    assert {one.rates for one in found} == {True} and {one.own for one in found} == {True, None}


def test_beside_a_partner_the_seat_of_the_team_counts(episode, tmp_path, monkeypatch):
    seat = next(iter(own_seats(episode)))
    one = Evaluated(place="x", method="m", seed=0, condition="c", episodes={"t": episode}, beside_partners=True)
    monkeypatch.setattr("benchmarks.quotes.read_evaluated", lambda place: [one])
    ((_, _, judged),) = played(tmp_path)
    assert list(judged(episode)) == [seat] and len(episode.seats) == 2


def test_a_reply_that_quotes_nothing_follows_nothing(episode):
    (first, _) = quoted(ending(episode, "Answer: 1", answer="1"))
    assert first == Quoted(rates=None, own=False, theirs=False, follows=None)


def test_a_seat_that_calls_its_source_the_other_word_rates_it_wrongly(episode):
    (decision,) = episode.task.decisions
    own, other = episode.seats
    wrong = {"reliable": "doubtful", "doubtful": "reliable"}[decision.quality(own)]
    changed = ending(episode, f"Mine is {wrong}: {decision.belief[own]}.", "Answer: 1", answer="1")
    assert (rates_own(changed, [own]), rates_own(changed, [other])) == ((0.0, 1), (1.0, 1))


def test_a_seat_that_is_told_what_its_partner_is_told_rates_its_source_and_that_is_all(episode):
    (decision,) = episode.task.decisions
    belief = dict.fromkeys(episode.seats, decision.belief[episode.seats[0]])
    agreed = replace(episode, task=replace(episode.task, decisions=(replace(decision, belief=belief),)))
    assert set(quoted(agreed)) == {Quoted(rates=True)}


def test_episodes_of_a_file_are_told_by_seat(episode, tmp_path, monkeypatch, capsys):
    file = tmp_path / "played.jsonl"
    write_episodes(file, [episode])
    monkeypatch.setattr(sys, "argv", ["quotes.py", str(file)])
    main()
    first, second = capsys.readouterr().out.splitlines()[2:]
    assert first.startswith(f"| {file} | agent_0 | 1.00 [") and second.startswith(f"| {file} | agent_1 | 1.00 [")


def test_episodes_of_one_agent_alone_are_refused(tmp_path, monkeypatch):
    env = envs.make("PairedFunctions", families=["offset"], agents=1)
    (seat,) = env.possible_agents
    file = tmp_path / "alone.jsonl"
    write_episodes(file, [play(env, {seat: Demonstrator(np.random.default_rng(0))}, seed=0)])
    monkeypatch.setattr(sys, "argv", ["quotes.py", str(file)])
    with pytest.raises(RunError, match="alone.jsonl has episodes of 1 seats, and this is about pairs: leave it out"):
        main()


def test_a_file_without_an_episode_is_refused(tmp_path, monkeypatch):
    write_episodes(tmp_path / "none.jsonl", [])
    monkeypatch.setattr(sys, "argv", ["quotes.py", str(tmp_path / "none.jsonl")])
    with pytest.raises(RunError, match="none.jsonl has no episodes: leave it out"):
        main()
