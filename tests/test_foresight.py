"""Knowing of a conflict before the merge: the reward for sealed predictions, and what the forecasts were worth."""

from dataclasses import replace

import pytest
from test_repo_tasks import build

from envs.core.env import SEATS
from envs.core.episode import Act, ActKind, Episode, Forecast, PartTests, Phase
from envs.paired_features.env import PairedFeatures
from envs.scripted.exploits import NeverDefer
from envs.scripted.play import play
from rewards.metrics import measure
from rewards.terms.foresight import Foresight


def expect(option, confidence):
    return Act(kind=ActKind.EXPECT, decision="merge", option=option, confidence=confidence)


@pytest.fixture(scope="module")
def base() -> Episode:
    """An episode with three turns of work for each seat."""
    env = PairedFeatures(rounds=3)
    env.reset(seed=0)
    for reply in ("Answer: x", "Pass", "Pass", "Pass", "Answer: x"):
        env.step(dict.fromkeys(SEATS, reply))
    return env.episode


def predicted(episode, *acts_per_turn, conflict=False):
    """The same episode, with what agent_0 expected in each of its turns and another end."""
    acts = iter(acts_per_turn)
    turns = tuple(replace(t, acts=next(acts, ())) if t.agent == "agent_0" else t for t in episode.turns)
    merge = replace(episode.outcome.merge, conflict=conflict)
    return replace(episode, turns=turns, outcome=replace(episode.outcome, merge=merge))


def test_foresight_example(base):
    episode = predicted(base, (), (), (expect("conflict", 0.6),))
    assert Foresight()(episode, "agent_0") == pytest.approx([0, 0, 0.64 / 3, 0.64 / 3, 0])
    assert Foresight()(episode, "agent_1") == [0.0] * 5


def test_a_prediction_before_work_counts_in_every_turn_and_the_last_one_stands(base):
    early = predicted(base, (expect("conflict", 1.0),), conflict=True)
    assert Foresight()(early, "agent_0") == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3, 0])
    changed = predicted(
        base, (expect("clean", 1.0),), (), (expect("clean", 0.9), expect("conflict", 1.0)), conflict=True
    )
    assert Foresight()(changed, "agent_0") == pytest.approx([0, 0, 1 / 3, 1 / 3, 0])
    late = predicted(base, (), (), (), (), (expect("conflict", 1.0),), conflict=True)
    assert sum(Foresight()(late, "agent_0")) == 0


@pytest.mark.parametrize("belief", [0.1, 0.5, 0.8])
def test_saying_what_one_believes_is_best(base, belief):
    def worth(confidence):
        scores = [
            sum(Foresight()(predicted(base, (expect("conflict", confidence),), conflict=conflict), "agent_0"))
            for conflict in (False, True)
        ]
        return (1 - belief) * scores[0] + belief * scores[1]

    assert max((c / 20 for c in range(21)), key=worth) == pytest.approx(belief)


def test_a_prediction_of_the_partners_part_is_none_of_the_merge(base):
    other = Act(kind=ActKind.EXPECT, decision=base.task.decisions[0].id, option=base.task.decisions[0].options[0])
    assert sum(Foresight()(predicted(base, (other,)), "agent_0")) == 0


def test_without_a_merge_there_is_nothing_to_foresee(base):
    episode = predicted(base, (expect("clean", 1.0),))
    assert sum(Foresight()(replace(episode, outcome=replace(episode.outcome, merge=None)), "agent_0")) == 0


def test_what_was_predicted_in_play_is_what_is_scored():
    env = PairedFeatures(families=["append"], acts=True)
    env.reset(seed=3)
    option = env.task.decisions[0].best
    env.step(dict.fromkeys(SEATS, f"Answer: {option}\nExpect merge: conflict (80%)"))
    env.step({seat: f"{env.reference_work(seat, option, coordinated=False)}\nSubmit" for seat in SEATS})
    env.step(dict.fromkeys(SEATS, f"Answer: {option}"))
    assert Foresight()(env.episode, "agent_1") == pytest.approx([0, 1 - 0.2**2, 0])


# metrics


def forecasts(episode, rounds):
    """The same episode, with these forecasts: "x" for a conflict, "." for none."""
    made = tuple(Forecast(round=i, ranges={"a.py": ((1, 1),)} if mark == "x" else {}) for i, mark in enumerate(rounds))
    merge = replace(episode.outcome.merge, conflict=rounds.endswith("x"))
    return replace(episode, outcome=replace(episode.outcome, forecasts=made, merge=merge))


def test_the_precision_of_forecasts_is_the_share_that_came_true(base):
    metrics = measure([forecasts(base, rounds) for rounds in (".xx.", ".x.x", "xx", "...")])
    assert (metrics["forecast_precision"].value, metrics["forecast_precision"].n) == (4 / 6, 6)


def test_the_lead_of_a_forecast_is_counted_from_the_conflict_that_stayed(base):
    metrics = measure([forecasts(base, rounds) for rounds in ("x.xx", "xxxx", "...x", "xx..")])
    assert (metrics["forecast_lead_rounds"].value, metrics["forecast_lead_rounds"].n) == (4 / 3, 3)


def test_conflicts_are_counted_among_merges(base):
    no_merge = replace(base, outcome=replace(base.outcome, merge=None, forecasts=()))
    metrics = measure([forecasts(base, "x"), forecasts(base, "."), forecasts(base, "."), no_merge])
    assert (metrics["textual_conflict_rate"].value, metrics["textual_conflict_rate"].n) == (1 / 3, 3)


def test_a_conflict_of_the_last_round_is_seen_in_play_with_no_lead_and_an_early_one_with_some():
    env = PairedFeatures(families=["registry"], rounds=4)
    build(env, coordinated=False, seed=3)
    assert measure([env.episode])["forecast_lead_rounds"].value == 0
    env.reset(seed=3)
    work = {seat: env.reference_work(seat, env.task.decisions[0].best, coordinated=False) for seat in SEATS}
    env.step(dict.fromkeys(SEATS, "Pass"))
    env.step(work)
    while env.agents:
        env.step(dict.fromkeys(env.acting, "Pass"))
    assert measure([env.episode])["forecast_lead_rounds"].value == 3
    assert [turn.phase for turn in env.episode.turns_of("agent_0")].count(Phase.WORK) == 4
    assert play(env, dict.fromkeys(SEATS, NeverDefer()), 3).outcome.forecasts


# metrics of meaning


def warned(episode, rounds, *, harm, conflict=False, alone=True):
    """The same episode, with these forecasts: "x" where both rely on a symbol; one test of a part, and what became of
    it."""
    made = tuple(Forecast(round=i, symbols=("a.py:f",) if mark == "x" else ()) for i, mark in enumerate(rounds))
    parts = {"agent_0": PartTests(alone=(alone, False), merged=(not harm, False))}
    merge = replace(episode.outcome.merge, conflict=conflict)
    return replace(episode, outcome=replace(episode.outcome, forecasts=made, merge=merge, parts=parts))


def semantic(episodes):
    """(value, cases) of precision, recall and lead of the forecasts of meaning."""
    metrics = measure(episodes)
    return [
        (metrics[f"semantic_forecast_{name}"].value, metrics[f"semantic_forecast_{name}"].n)
        for name in ("precision", "recall", "lead_rounds")
    ]


def test_forecasts_of_meaning_are_held_against_harm_after_a_clean_merge(base):
    assert semantic([warned(base, ".xx", harm=True), warned(base, ".xx", harm=False)])[0] == (2 / 4, 4)
    assert semantic([warned(base, rounds, harm=True) for rounds in (".xx", "..x", "x..")])[1] == (2 / 3, 3)
    assert semantic([warned(base, "x.xx", harm=True)])[2] == (1, 1)
    mixed = [warned(base, "xxx", harm=True), warned(base, "xx.", harm=True), warned(base, "..x", harm=False)]
    assert semantic(mixed) == [(5 / 6, 6), (1 / 2, 2), (2, 1)]


def test_a_conflict_that_git_reports_and_a_part_that_never_worked_say_nothing_of_meaning(base):
    no_merge = replace(base, outcome=replace(base.outcome, merge=None, forecasts=()))
    none = [
        warned(base, "xx", harm=True, conflict=True),
        warned(base, "xx", harm=True, alone=False),
        no_merge,
    ]
    assert semantic(none) == [(None, 0)] * 3


@pytest.mark.parametrize("family", ["defaults", "returns"])
def test_played_harm_is_forecast_and_so_is_what_coordinated_work_relies_on(family):
    env, episodes = PairedFeatures(families=[family]), []
    for coordinated in (False, True):
        build(env, coordinated=coordinated, seed=3)
        episodes.append(env.episode)
    assert semantic(episodes[:1]) == [(1, 1), (1, 1), (0, 1)]
    assert semantic(episodes) == [(1 / 2, 2), (1, 1), (0, 1)]


def test_harm_that_git_reports_as_a_conflict_is_no_case_of_meaning():
    env = PairedFeatures(families=["keywords"])
    build(env, coordinated=False, seed=3)
    assert env.episode.outcome.forecasts[-1].signatures and semantic([env.episode]) == [(None, 0)] * 3
