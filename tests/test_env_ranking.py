"""The ranking task: NASA's key, its score, and when it is better to average and when to defer."""

import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs import moon_survival
from envs.core.env import seats_of
from envs.core.episode import ParseError
from envs.core.posterior import named_option
from envs.moon_survival import NASA_KEY, MoonSurvival, ranks, score
from envs.scripted.base import Calibrated, Scripted
from envs.scripted.demonstrator import Demonstrator
from envs.scripted.play import play


class Holds(Scripted):
    def decide(self, env, seat, decision):
        return decision.belief[seat], 0.8


class Follows(Scripted):
    def decide(self, env, seat, decision):
        return named_option(env.heard(seat), decision), 0.8


class Averages(Scripted):
    def decide(self, env, seat, decision):
        return decision.blends[0], 0.8


RANKINGS = st.integers(2, 15).flatmap(lambda n: st.tuples(*[st.permutations(range(1, n + 1))] * 2))


def answer(ranking):
    return "\n".join(f"Answer {item}: {rank}" for item, rank in ranking.items())


@given(RANKINGS)
def test_the_score_is_1_for_the_key_0_for_its_reverse_and_between_for_all_others(pair):
    ranking, key = pair
    assert 0 <= score(ranking, key) <= 1 and score(key, key) == 1
    assert score([len(key) + 1 - rank for rank in key], key) == 0
    assert score(ranking, key) == score(key, ranking)


def test_the_score_counts_the_error_points_of_the_exercise():
    swapped = [2, 1, *range(3, 15), 15]
    assert score(swapped, range(1, 16)) == 1 - 2 / 112  # two items are one rank off each; 112 points are the most


def test_two_random_rankings_score_a_third_on_average():
    rng = np.random.default_rng(0)
    assert np.mean([score(rng.permutation(15), range(15)) for _ in range(4000)]) == pytest.approx(1 / 3, abs=0.005)


def test_the_key_is_nasas():
    assert len(set(NASA_KEY)) == 15
    assert [NASA_KEY.index(item) + 1 for item in ("oxygen", "water", "radio", "pistols", "matches")] == [
        1,
        2,
        5,
        11,
        15,
    ]


@pytest.mark.parametrize("items", [3, 15])
@pytest.mark.parametrize("agents", [1, 2, 5])
def test_a_task_ranks_its_items_as_the_key_does_and_tells_each_seat_a_whole_ranking(items, agents):
    env = MoonSurvival(items=items, agents=agents)
    for seed in range(50):
        task = env.make_task(seed)
        in_order = sorted(task.decisions, key=lambda decision: int(decision.best))
        assert [d.id for d in in_order] == [item for item in NASA_KEY if item in {d.id for d in task.decisions}]
        for seat in task.seats:
            told = sorted(int(decision.belief[seat]) for decision in task.decisions)
            assert told == list(range(1, items + 1))
            assert all(f"{d.id} {d.belief[seat]}" in task.briefs[seat] for d in task.decisions)


def test_the_order_of_the_brief_says_nothing_of_the_key():
    first = [int(MoonSurvival().make_task(seed).decisions[0].best) for seed in range(600)]
    assert abs(np.mean(first) - 8) < 0.6


def test_renamed_items_are_letters_and_leave_the_task_as_it_is():
    named, lettered = MoonSurvival().make_task(3), MoonSurvival(renamed=True).make_task(3)
    assert [decision.id for decision in lettered.decisions] == list("ABCDEFGHIJKLMNO")
    assert not any(item in " ".join(lettered.briefs.values()) for item in NASA_KEY)
    assert [d.belief for d in named.decisions] == [d.belief for d in lettered.decisions]


@pytest.mark.parametrize("reliability", [1.0, 0.7])
def test_the_cue_points_to_the_quiet_seat_as_often_as_asked(reliability):
    env = MoonSurvival(agents=3, cue_reliability=reliability)
    hits = []
    for seed in range(700):
        decision = env.make_task(seed).decisions[0]
        assert [seat for seat in env.seats if decision.cue[seat] == "strong"] == [decision.expert]
        hits.append(decision.numeric.sigma[decision.expert] == 1.0)
    assert np.mean(hits) == pytest.approx(reliability, abs=0.04)


def team_score(agents, expert_noise, novice_noise, *, all_average):
    """Mean U over 80 tasks of teams that average, or in which all follow the expert."""
    env = MoonSurvival(agents=agents, expert_noise=expert_noise, novice_noise=novice_noise, cue_reliability=1.0)
    results = []
    for seed in range(80):
        env.reset(seed=seed)
        decisions = env.task.decisions
        told = {seat: [int(decision.belief[seat]) for decision in decisions] for seat in env.seats}
        ranking = np.mean([*told.values()], axis=0) if all_average else told[decisions[0].expert]
        reply = answer({d.id: rank for d, rank in zip(decisions, ranks(ranking), strict=True)})
        while env.agents:
            _, rewards, *_ = env.step(dict.fromkeys(env.agents, reply))
        results.append(rewards["agent_0"])
    return np.mean(results)


@pytest.mark.parametrize(
    ("agents", "expert_noise", "novice_noise", "averaging_is_better"),
    [(2, 3.0, 3.0, True), (2, 1.0, 4.0, False), (8, 1.0, 2.0, True), (8, 0.5, 6.0, False)],
)
def test_whether_to_average_or_to_defer_depends_on_the_noise(agents, expert_noise, novice_noise, averaging_is_better):
    averaged, deferred = (
        team_score(agents, expert_noise, novice_noise, all_average=average) for average in (True, False)
    )
    assert (averaged > deferred + 0.01) == averaging_is_better
    assert (deferred > averaged + 0.01) != averaging_is_better


@pytest.mark.parametrize(
    ("agents", "expert_noise", "novice_noise", "reliability", "best"),
    [
        (2, 3.0, 3.0, 0.95, "average"),
        (2, 1.0, 4.0, 0.95, "defer"),
        (2, 1.0, 2.0, 0.95, "defer"),
        (2, 2.0, 3.0, 0.95, "average"),
        (4, 1.0, 4.0, 0.6, "average"),
        (4, 1.0, 2.0, 0.95, "average"),
        (4, 0.5, 6.0, 1.0, "defer"),
        (1, 3.0, 3.0, 0.95, "average"),
    ],
)
def test_an_ideal_team_is_no_worse_than_the_best_of_holding_deferring_and_averaging(
    agents, expert_noise, novice_noise, reliability, best
):
    knobs = {"expert_noise": expert_noise, "novice_noise": novice_noise, "cue_reliability": reliability}
    env, pair = MoonSurvival(agents=agents, **knobs), MoonSurvival(agents=max(2, agents), **knobs)
    scores = {"ideal": [], "hold": [], "defer": [], "average": []}
    for seed in range(50):
        scores["ideal"].append(play(env, dict.fromkeys(env.seats, Calibrated()), seed).outcome.utility)
        decisions = pair.make_task(seed).decisions  # one seat alone reads what a pair would
        key = [int(decision.best) for decision in decisions]
        lists = {seat: [int(decision.belief[seat]) for decision in decisions] for seat in pair.seats}
        scores["hold"].append(np.mean([score(ranking, key) for ranking in lists.values()]))
        scores["defer"].append(score(lists[decisions[0].expert], key))
        scores["average"].append(score(ranks(np.mean([*lists.values()], axis=0)), key))
    means = {rule: np.mean(values) for rule, values in scores.items()}
    ideal = means.pop("ideal")
    assert max(means, key=means.get) == best
    assert ideal > means[best] - 0.004, (ideal, means)


def test_the_ideal_partner_is_as_sure_of_a_rank_as_the_noise_allows():
    for expert_noise, novice_noise in ((0.5, 6.0), (1.0, 4.0), (3.0, 3.0)):
        env, sure, right = MoonSurvival(expert_noise=expert_noise, novice_noise=novice_noise), [], []
        for seed in range(40):
            episode = play(env, dict.fromkeys(env.seats, Calibrated()), seed)
            stances = [
                (d, turn.stances[i])
                for turn in episode.turns
                if turn.stances
                for i, d in enumerate(episode.task.decisions)
            ]
            sure += [stance.confidence for _, stance in stances]
            right += [d.is_right(stance.option) for d, stance in stances]
        assert np.mean(sure) == pytest.approx(np.mean(right), abs=0.05)


def test_an_ideal_teams_answers_are_one_whole_ranking():
    env = MoonSurvival(agents=3)
    for seed in range(10):
        episode = play(env, dict.fromkeys(env.seats, Calibrated()), seed)
        for seat in env.seats:
            answers = sorted(int(episode.final(seat, d.id).option) for d in episode.task.decisions)
            assert answers == list(range(1, 16))


def test_the_ideal_partner_finds_the_quiet_list_by_its_likeness_to_the_others_too():
    """Two that agree and one that does not: with a cue that says nothing the odd one is not believed."""
    ranking, odd = tuple(range(1, 16)), tuple(range(15, 0, -1))
    odds = moon_survival.rank_posterior((odd, ranking, ranking), (0,), 1 / 3, 1.0, 4.0)
    assert ranks(odds @ np.arange(15)) == ranking


def test_scripted_partners_hold_defer_and_average_item_by_item():
    env = MoonSurvival(items=5)
    episode = play(env, {"agent_0": Holds(), "agent_1": Follows()}, seed=4)
    for decision in episode.task.decisions:
        assert {episode.final(seat, decision.id).option for seat in episode.seats} == {decision.belief["agent_0"]}
    averaged = play(env, dict.fromkeys(env.seats, Averages()), seed=4)
    for decision in averaged.task.decisions:
        a, b = (int(decision.belief[seat]) for seat in averaged.seats)
        assert int(averaged.final("agent_0", decision.id).option) == round((a + b) / 2)
    shown = play(env, dict.fromkeys(env.seats, Demonstrator(np.random.default_rng(0))), seed=4)
    assert all(turn.parse_error is None for turn in shown.turns)


def test_items_with_one_rank_stand_in_the_order_of_the_brief_and_unread_ones_score_nothing():
    env = MoonSurvival(items=4)
    env.reset(seed=0)
    names = [decision.id for decision in env.task.decisions]
    for _ in range(2):
        env.step(dict.fromkeys(env.agents, "PASS"))
    _, rewards, *_ = env.step(
        {"agent_0": answer(dict(zip(names, (2, 1, 2, 1), strict=True))), "agent_1": answer({names[0]: 1})}
    )
    committed = env.episode.outcome.committed
    assert committed["agent_0"] == dict(zip(names, "3142", strict=True))
    assert committed["agent_1"] == dict.fromkeys(names)
    assert env.episode.turns[-1].parse_error is ParseError.NO_ANSWER
    key = [int(decision.best) for decision in env.task.decisions]
    assert rewards["agent_1"] == score([3, 1, 4, 2], key) / 2


def test_a_team_succeeds_when_no_seat_ends_worse_than_the_best_list_it_was_told():
    env = MoonSurvival()
    for seed in range(20):
        decisions = env.make_task(seed).decisions
        key = [int(decision.best) for decision in decisions]
        told = {seat: score([int(d.belief[seat]) for d in decisions], key) for seat in env.seats}
        best, other = sorted(env.seats, key=told.get, reverse=True)
        assert play(env, {best: Holds(), other: Follows()}, seed).outcome.success
        assert play(env, dict.fromkeys(env.seats, Holds()), seed).outcome.success == (told[best] == told[other])


def test_by_vote_the_mean_of_the_final_ranks_counts_and_one_that_cannot_be_read_has_no_vote():
    env = MoonSurvival(items=3, agents=4, rounds=0, settle="vote")
    env.reset(seed=0)
    named = [decision.id for decision in env.task.decisions]
    key = [int(decision.best) for decision in env.task.decisions]
    votes = [(1, 2, 3), (1, 3, 2), (3, 2, 1)]  # mean ranks 5/3, 7/3, 2: together 1, 3, 2
    replies = [answer(dict(zip(named, vote, strict=True))) for vote in votes] + ["I cannot say."]
    for _ in range(2):
        env.step(dict(zip(env.seats, replies, strict=True)))
    outcome = env.episode.outcome
    assert outcome.utility == score((1, 3, 2), key)
    assert outcome.committed["agent_2"] == dict(zip(named, "321", strict=True))
    assert set(outcome.committed["agent_3"].values()) == {None}


def test_a_vote_of_nobody_scores_nothing():
    env = MoonSurvival(items=3, settle="vote")
    env.reset(seed=0)
    while env.agents:
        env.step(dict.fromkeys(env.seats, "I cannot say."))
    assert (env.episode.outcome.utility, env.episode.outcome.success) == (0.0, False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"items": 2}, "items is 2"),
        ({"items": 16}, "items is 16"),
        ({"expert_noise": 0}, "expert_noise is 0"),
        ({"novice_noise": float("nan")}, "novice_noise is nan"),
        ({"agents": 9}, "agents is 9"),
    ],
)
def test_a_bad_argument_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        MoonSurvival(**arguments)


def test_one_seat_reads_what_a_pair_would():
    for seed in range(20):
        solo, pair = MoonSurvival(agents=1, items=6).make_task(seed), MoonSurvival(items=6).make_task(seed)
        for seat in seats_of(2):
            ranked = ", ".join(f"{d.id} {d.belief[seat]}" for d in pair.decisions)
            assert ranked in solo.briefs["agent_0"]
        expert = pair.decisions[0].expert
        assert [d.belief["agent_0"] for d in solo.decisions] == [d.belief[expert] for d in pair.decisions]


def test_the_examples_in_the_docstrings_run():
    assert doctest.testmod(moon_survival).failed == 0 < doctest.testmod(moon_survival).attempted


def test_a_demonstrated_act_leaves_the_words_before_it_under_the_name_of_their_item():
    env = MoonSurvival(items=5, acts=True)
    for seed in range(10):
        episode = play(env, dict.fromkeys(env.seats, Demonstrator(np.random.default_rng(seed))), seed)
        for seat in env.seats:
            for decision in episode.task.decisions:
                said = [turn.message for turn in episode.turns_of(seat)]
                assert named_option(said, decision) in (decision.belief[seat], None)
