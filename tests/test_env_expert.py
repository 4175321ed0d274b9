"""How seats learn who has the reliable source, and a vote where final stances differ."""

from dataclasses import replace

import pytest

import envs
from envs.core.fields import ArgumentError
from envs.scripted.base import Calibrated
from envs.scripted.exploits import NeverDefer
from envs.scripted.play import play, replay
from rewards.metrics import measure

CUED = ["DesignReview", "PairedFunctions", "PairedFeatures", "MoonSurvival"]
STRONG, WEAK = "the signed spec", "an old draft"


def tasks(name, count=24, **options):
    env = envs.make(name, **options)
    return [env.make_task(seed) for seed in range(count)]


@pytest.mark.parametrize("name", CUED)
def test_what_is_told_of_the_expert_changes_the_briefs_and_nothing_else(name):
    for expert in ("hidden", "revealed", "falsely_revealed"):
        for cued, other in zip(tasks(name), tasks(name, expert=expert), strict=True):
            decisions = tuple(
                replace(d, cue=c.cue, source=c.source, revealed=None)
                for d, c in zip(other.decisions, cued.decisions, strict=True)
            )
            assert replace(other, briefs=cued.briefs, decisions=decisions) == cued


@pytest.mark.parametrize("name", CUED)
def test_a_hidden_expert_is_named_by_no_word_of_a_brief(name):
    """The names of sources are the same few, whoever is the expert."""
    one = {"PairedFunctions": {"families": ["offset"]}, "PairedFeatures": {"contracts": ["offset"]}}
    families = one.get(name, {})
    named = {"strong": set(), "weak": set()}
    for cued, hidden in zip(*(tasks(name, 60, expert=e, **families) for e in ("cued", "hidden")), strict=True):
        for seat, cue in cued.decisions[0].cue.items():
            named[cue].add(hidden.briefs[seat].split("Your source, ")[1].split(",")[0])
        assert set(hidden.decisions[0].cue.values()) == {"unknown"}
    assert named["strong"] == named["weak"]


def test_every_brief_names_the_revealed_seat_which_is_the_expert_or_is_not():
    for expert in ("revealed", "falsely_revealed"):
        for task in tasks("PairedFunctions", families=["offset"], expert=expert):
            (decision,) = task.decisions
            assert (decision.revealed == decision.expert) == (expert == "revealed")
            for seat, brief in task.briefs.items():
                whose = "yours" if seat == decision.revealed else "your partner's"
                assert brief.endswith(f" The reliable source is {whose}.")


def test_with_three_seats_the_brief_names_the_seat():
    for task in tasks("DesignReview", agents=3, expert="falsely_revealed"):
        (decision,) = task.decisions
        others = [seat for seat in task.seats if seat != decision.revealed]
        assert all(task.briefs[seat].endswith(f"source is {decision.revealed}'s.") for seat in others)
        assert decision.revealed != decision.expert


def test_an_estimate_tells_its_error_and_names_nobody():
    for expert in ("hidden", "revealed"):
        pairs = (tasks("PairedFunctions", families=["capacity"], expert=e) for e in ("cued", expert))
        assert next(pairs) == next(pairs)


def test_an_ideal_pair_hears_a_false_word_and_goes_by_its_sources_and_without_them_agrees_on_one_seat():
    """Nobody can tell who is right where the expert is hidden, so all that is left is to end together."""
    ends = {
        expert: measure([
            play(env, dict.fromkeys(env.seats, Calibrated()), seed)
            for env in [envs.make("DesignReview", expert=expert)]
            for seed in range(80)
        ])
        for expert in ("cued", "falsely_revealed", "hidden")
    }  # fmt: skip
    assert ends["falsely_revealed"] == ends["cued"]
    assert ends["cued"]["j"].value > 0.8
    assert ends["hidden"]["j"].value == pytest.approx(0.0, abs=0.2)
    assert ends["hidden"]["success"].value > 0.35


def test_an_ideal_team_on_the_moon_hears_a_false_word_and_goes_by_its_sources_and_weighs_all_alike_without_them():
    worth = {}
    for expert in ("cued", "falsely_revealed", "hidden"):
        env = envs.make("MoonSurvival", items=6, expert=expert)
        ended = [play(env, dict.fromkeys(env.seats, Calibrated()), seed).outcome.utility for seed in range(40)]
        worth[expert] = sum(ended) / len(ended)
    assert worth["falsely_revealed"] == worth["cued"] > worth["hidden"] + 0.05


def test_a_seat_alone_has_no_expert_to_hear_of():
    with pytest.raises(ArgumentError, match="expert is 'revealed'; a seat alone is cued"):
        envs.make("DesignReview", agents=1, expert="revealed")


def voted(**options):
    env = envs.make("DesignReview", rounds=0, settle="vote", **options)
    return env, [play(env, dict.fromkeys(env.seats, NeverDefer()), seed) for seed in range(60)]


def test_a_vote_takes_what_most_seats_hold():
    env, episodes = voted(agents=3, cells={"both_right": 0, "one_right": 1, "both_wrong": 0})
    assert {episode.outcome.success for episode in episodes} == {True, False}
    for episode in episodes:
        right = sum(episode.task.cell.values())
        assert episode.outcome.success == (right > 1)
        assert episode.outcome.utility == float(right > 1)
        assert replay(env, episode) == episode


def test_a_tied_vote_is_drawn_by_lot_and_the_same_lot_each_time():
    env, episodes = voted(cells={"both_right": 0, "one_right": 1, "both_wrong": 0})
    assert 0.3 < sum(episode.outcome.success for episode in episodes) / len(episodes) < 0.7
    assert all(replay(env, episode) == episode for episode in episodes)


def test_who_says_nothing_readable_has_no_vote():
    env = envs.make("DesignReview", agents=3, rounds=0, settle="vote")
    env.reset(seed=0)
    best = env.task.decisions[0].best
    env.step(dict.fromkeys(env.seats, "?"))
    env.step({seat: f"Answer: {best} (50%)" if seat == "agent_2" else "?" for seat in env.seats})
    assert env.episode.outcome.success
    env.reset(seed=0)
    env.step(dict.fromkeys(env.seats, "?"))
    env.step(dict.fromkeys(env.seats, "?"))
    assert env.episode.outcome.utility == 0.0
