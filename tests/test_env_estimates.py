"""Estimates: the precision-weighted pool is right, and no simpler rule is."""

from collections import Counter

import numpy as np
import pytest

from envs.core.env import SEATS
from envs.core.grammar import parse_final
from envs.core.task import Decision
from envs.families import HELD_OUT, TRAINING
from envs.paired_functions import PairedFunctions
from envs.scripted.base import Calibrated
from envs.scripted.exploits import Averager, NeverDefer
from envs.scripted.play import play
from rewards.metrics import measure
from rewards.metrics.averaging import pool
from rewards.terms.consensus import Consensus

ESTIMATES = [family.name for family in (*TRAINING, *HELD_OUT) if family.kind == "estimate"]


def instances(name: str, count: int = 400, **kwargs) -> list[Decision]:
    env = PairedFunctions(families=[name], cue_reliability=1.0, **kwargs)
    return [env.make_task(seed).decisions[0] for seed in range(count)]


def numbers(decision: Decision) -> dict[str, float]:
    return {seat: float(option) for seat, option in decision.belief.items()}


def nearest(decision: Decision, number: float) -> str:
    return min(decision.options, key=lambda option: abs(float(option) - number))


@pytest.mark.parametrize("name", ESTIMATES)
@pytest.mark.parametrize("distractors", [0, 2])
def test_the_pool_is_within_the_tolerance_of_the_truth_and_no_wrong_option_is(name, distractors):
    for decision in instances(name, distractors=distractors):
        numeric = decision.numeric
        assert abs(pool(numeric, numbers(decision)) - numeric.truth) <= numeric.tolerance
        assert [o for o in decision.options if abs(float(o) - numeric.truth) <= numeric.tolerance] == [decision.best]


@pytest.mark.parametrize("name", ESTIMATES)
def test_always_and_never_blending_and_the_plain_mean_all_lose_to_the_pool(name):
    rules = {
        "pool": lambda d: nearest(d, pool(d.numeric, numbers(d))),
        "never blend": lambda d: d.belief[d.expert],
        "first blend": lambda d: d.blends[0],
        "mean": lambda d: nearest(d, np.mean(list(numbers(d).values()))),
    }
    right = {rule: np.mean([d.is_right(choose(d)) for d in instances(name)]) for rule, choose in rules.items()}
    assert right.pop("pool") == 1.0
    assert max(right.values()) < 0.8 and right["first blend"] < 0.3, right


@pytest.mark.parametrize("name", ESTIMATES)
def test_no_seat_can_tell_from_its_own_error_whether_its_claim_is_right_or_both_are_wrong(name):
    """In units of the span of the list, which says nothing of the claims: each error is as frequent in every cell."""
    env = PairedFunctions(families=[name], cue_reliability=0.5)
    cells = {}
    for seed in range(1500):
        task = env.make_task(seed)
        decision = task.decisions[0]
        ends = [int(option) for option in decision.options]
        for seat in SEATS:
            error = round(decision.numeric.sigma[seat] / (max(ends) - min(ends)), 3)
            cells.setdefault(error, Counter())[tuple(task.cell.values())] += 1
    assert sorted(cells) == [0.05, 0.1, 0.2, 0.4]
    for seen in cells.values():
        assert all(abs(count / seen.total() - 0.25) < 0.06 for count in seen.values()), seen


@pytest.mark.parametrize("name", ESTIMATES)
def test_where_both_are_wrong_several_compromises_are_listed_and_the_plain_mean_is_seldom_the_right_one(name):
    both_wrong = instances(name, 600, cells={"both_right": 0, "one_right": 0, "both_wrong": 1})
    middle = [nearest(decision, np.mean(list(numbers(decision).values()))) == decision.best for decision in both_wrong]
    assert np.mean(middle) < 0.6
    assert np.mean([len(decision.blends) for decision in both_wrong]) > 1.5
    assert all(decision.best == decision.blends[0] for decision in both_wrong)


def test_an_estimate_is_told_with_its_error_and_any_other_number_without():
    estimate, exact = instances("drift", 1)[0], instances("offset", 1)[0]
    assert estimate.told("agent_0") == f"{estimate.belief['agent_0']} +- {estimate.numeric.sigma['agent_0']:g}"
    assert exact.told("agent_0") == exact.belief["agent_0"]
    assert exact.quality(exact.expert) == "reliable" and estimate.quality("agent_0").startswith("+- ")
    task = PairedFunctions(families=["drift"], cue_reliability=1.0).make_task(0)
    assert f"measured {estimate.told('agent_0')}." in task.briefs["agent_0"]


def answers(env: PairedFunctions, partner, seeds: int) -> list[list[tuple[float, bool]]]:
    """(confidence, right?) of both seats' last stances in each instance; the code is not run."""
    found = []
    for seed in range(seeds):
        env.reset(seed=seed)
        for _ in range(2):
            env.step({seat: partner.reply(env, seat) for seat in SEATS})
        (decision,) = env.task.decisions
        finals = [parse_final(partner.reply(env, seat), [decision], wants_code=True).stances[0] for seat in SEATS]
        found.append([(stance.confidence, decision.is_right(stance.option)) for stance in finals])
    return found


def test_the_ideal_partner_pools_and_fixed_habits_fail():
    env = PairedFunctions(families=ESTIMATES, cue_reliability=1.0)
    success = {
        type(partner).__name__: np.mean([all(right for _, right in pair) for pair in answers(env, partner, 200)])
        for partner in (Calibrated(), NeverDefer(), Averager())
    }
    assert success.pop("Calibrated") == 1.0
    assert max(success.values()) < 0.6


def test_the_ideal_partner_is_as_sure_of_an_estimate_as_it_is_right():
    env, groups = PairedFunctions(families=ESTIMATES, cue_reliability=0.8), {}
    for confidence, right in sum(answers(env, Calibrated(), 600), []):
        groups.setdefault(confidence, []).append(right)
    assert groups.keys() == {0.8, 1.0}
    assert all(abs(np.mean(right) - confidence) < 0.06 for confidence, right in groups.items())


def test_a_pool_needs_the_partners_error():
    env = PairedFunctions(families=["drift"], cells={"both_right": 0, "one_right": 0})
    for text, pools in [("I have {}", False), ("{} +- 0", False), ("{told}, so not {own}", True)]:
        env.reset(seed=0)
        (decision,) = env.task.decisions
        said = text.format(decision.belief["agent_1"], told=decision.told("agent_1"), own=decision.belief["agent_0"])
        for reply in ("Answer:", said):
            env.step({"agent_0": "PASS", "agent_1": reply})
        assert env.pooled("agent_0", decision) == (decision.best if pools else None)


def test_what_is_no_estimate_is_not_pooled():
    env = PairedFunctions(families=["offset"])
    env.reset(seed=0)
    for reply in ("Answer:", f"{env.task.decisions[0].belief['agent_1']} +- 4"):
        env.step({"agent_0": "PASS", "agent_1": reply})
    assert env.pooled("agent_0", env.task.decisions[0]) is None


class SureAverager(Averager):
    """Its priors are readable: a doubtful source's own odds may leave no likeliest option."""

    def prior(self, env, seat, decision):
        return decision.belief[seat], 0.8


def test_consensus_charges_a_blend_where_a_claim_is_right_and_none_where_the_blend_is():
    env = PairedFunctions(families=ESTIMATES, cells={"both_right": 0, "one_right": 1, "both_wrong": 1})
    charged = {0: [], 1: []}
    for seed in range(12):
        episode = play(env, dict.fromkeys(SEATS, SureAverager()), seed)
        charged[sum(episode.task.cell.values())].append(sum(Consensus()(episode, "agent_0")))
    assert max(charged[1]) < 0 and set(charged[0]) == {0.0}


def test_on_the_training_families_each_fixed_habit_loses_to_reading_the_kind():
    """Perfect cues, and no instance that nobody can solve: what is left is to know when to blend."""
    env = PairedFunctions(cue_reliability=1.0)
    decisions = [env.make_task(seed).decisions[0] for seed in range(3000)]
    solvable = [d for d in decisions if d.is_estimate or d.best in d.belief.values()]
    rules = {
        "pool": lambda d: nearest(d, pool(d.numeric, numbers(d))) if d.numeric else d.belief[d.expert],
        "never blend": lambda d: d.belief[d.expert],
        "always blend": lambda d: d.blends[0] if len(set(d.belief.values())) > 1 else d.belief[d.expert],
    }
    right = {rule: np.mean([d.is_right(choose(d)) for d in solvable]) for rule, choose in rules.items()}
    assert right["pool"] == 1.0 and right["never blend"] < 0.97 and right["always blend"] < 0.6, right


def test_what_a_team_can_attain_counts_the_pool_and_both_facts_are_needed():
    """The cue is always true here, so perfect play is worth 1, although no brief is right where both are wrong."""
    env = PairedFunctions(families=ESTIMATES, cue_reliability=1.0)
    episodes = [play(env, dict.fromkeys(SEATS, Calibrated()), seed) for seed in range(16)]
    metrics = measure(episodes)
    assert metrics["worth_attainable"].value == metrics["worth_team"].value == 1.0
    assert metrics["worth_any_right"].value < 1.0
    wrong = [episode for episode in episodes if not any(episode.task.cell.values())]
    assert measure(wrong)["silence_rate"].n == 2 * len(wrong)
