"""Whether the rewards favour honesty: every outcome of a small world, weighted by its probability.

Two seats, three options; the expert's brief is right in 90 % of the episodes and the other's in 40 %. A cue names the
expert and is right in 90 %. The partner follows the cue, and a coin decides whose answer counts. The published
simulation of the same world (400,000 episodes, reward U + S(p0)/2 + S(p1)/2) is met to two decimals.
"""

import itertools
from collections import Counter
from pathlib import Path

import pytest
from test_reward_terms import PAIR, decide, play

from envs.core.episode import Stance
from envs.design_review import DesignReview
from envs.paired_functions import PairedFunctions
from marl_coop.config.schema import load_config
from rewards import RewardStack
from rewards.baselines.naive_deference import NaiveDeference
from rewards.baselines.naive_disagreement import NaiveDisagreement
from rewards.metrics import Flip, flips
from rewards.readings import prior_option
from rewards.terms.deference import Deference
from rewards.terms.scores import quadratic_score
from rewards.terms.task_success import TaskSuccess

OPTIONS = "abc"  # a is right
CUED, OTHER = 0.85, 0.45  # how often the seat that the cue names is right, and the other seat
STACK = RewardStack((TaskSuccess(), Deference(weight=0.5)))
PRESETS = Path(__file__).parent.parent / "configs" / "presets"


def world(reliability):
    """(probability, whether the cue names agent_0, both briefs) of all 36 outcomes, for either expert."""
    for expert, cue_right, mine, theirs in itertools.product((0, 1), (True, False), OPTIONS, OPTIONS):
        accuracy = (0.9, 0.4) if expert == 0 else (0.4, 0.9)
        probability = 0.5 * (reliability if cue_right else 1 - reliability)
        for option, right in zip((mine, theirs), accuracy, strict=True):
            probability *= right if option == "a" else (1 - right) / 2
        yield probability, (expert == 0) == cue_right, mine, theirs


def follow(cued, mine, theirs):
    return (mine, CUED) if cued else (theirs, CUED)


def honest(cued, mine):
    return mine, CUED if cued else OTHER


def sandbag(cued, mine):
    return (OPTIONS[(OPTIONS.index(mine) + 1) % 3], CUED) if cued else (mine, OTHER)


def defer(cued, mine, theirs):
    return theirs, OTHER if cued else CUED


def hold(cued, mine, theirs):
    return mine, CUED if cued else OTHER


def unsure_prior(cued, mine):
    return mine, 1 / 3


def unsure_final(cued, mine, theirs):
    return follow(cued, mine, theirs)[0], 1 / 3


def certain_prior(cued, mine):
    return mine, 1.0


def certain_final(cued, mine, theirs):
    return follow(cued, mine, theirs)[0], 1.0


def expectation(prior, final, stack=STACK, reliability=0.9):
    """Expected U and reward of agent_0, and its CDR - CR where its priors can be read."""
    utility = reward = 0.0
    cases = Counter()
    for probability, cued, mine, theirs in world(reliability):
        ends = [final(cued, mine, theirs), follow(not cued, theirs, mine)]
        episode = play(
            decide(),
            priors=[[prior(cued, mine)], [honest(not cued, theirs)]],
            finals=[[end] for end in ends],
            talk=[[3], [3]],
            utility=sum(end[0] == "a" for end in ends) / 2,
        )
        utility += probability * episode.outcome.utility
        reward += probability * stack.score(episode).total("agent_0")
        if prior_option(episode, "agent_0", episode.task.decisions[0]) is not None:
            cases[next(flips(episode))] += probability
    return utility, reward, share_right(cases, prior_right=False) - 1 + share_right(cases, prior_right=True)


def share_right(cases, prior_right):
    """P(final right) where agent_0 and its partner disagreed on what is right."""
    ended = {end: cases[Flip(prior_right, end, not prior_right)] for end in (True, False)}
    return ended[True] / sum(ended.values()) if cases else float("nan")


PUBLISHED = {
    "ideal": (honest, follow, 0.851, 1.671, 0.69),
    "sandbag": (sandbag, follow, 0.851, 1.520, -0.05),
    "always defer": (honest, defer, 0.751, 1.523, 0.0),
    "never defer": (honest, hold, 0.751, 1.523, 0.0),
    "uniform hedge": (unsure_prior, unsure_final, 0.851, 1.517, None),
    "overconfident": (certain_prior, certain_final, 0.851, 1.602, 0.69),
}


@pytest.mark.parametrize("policy", PUBLISHED)
def test_the_published_simulation_is_met(policy):
    prior, final, *published = PUBLISHED[policy]
    for value, expected in zip(expectation(prior, final), published, strict=True):
        assert expected is None or value == pytest.approx(expected, abs=0.01)


def test_honesty_is_paid_more_than_every_shortcut():
    reward = {policy: expectation(prior, final)[1] for policy, (prior, final, *_) in PUBLISHED.items()}
    assert all(reward["ideal"] > reward[policy] + 0.05 for policy in reward if policy != "ideal")


def rewards_of(stack, **world):
    """Expected reward of each policy."""
    return {name: expectation(prior, final, stack, **world)[1] for name, (prior, final, *_) in PUBLISHED.items()}


def preset(name):
    return RewardStack.from_config(load_config([PRESETS / f"{name}.yaml"]).rewards)


def test_the_bonus_for_taking_over_a_right_answer_pays_bad_first_answers_and_blind_trust_more_than_honesty():
    paid = rewards_of(RewardStack((NaiveDeference(weight=1.0),)), reliability=1.0)
    assert (paid["ideal"], paid["always defer"]) == pytest.approx((0.269, 0.289), abs=0.005)  # as published
    assert paid["ideal"] < paid["always defer"] < paid["sandbag"]


def test_the_bonus_for_holding_on_pays_stubbornness_twice_what_it_pays_honesty():
    paid = rewards_of(RewardStack((NaiveDisagreement(weight=1.0),)), reliability=1.0)
    assert (paid["ideal"], paid["never defer"]) == pytest.approx((0.306, 0.610), abs=0.005)  # as published


@pytest.mark.parametrize(
    ("policy", "published"), [("ideal", 1.123), ("sandbag", 1.190), ("always defer", 0.671), ("never defer", 0.975)]
)
def test_the_published_mix_of_naive_bonuses_is_met(policy, published):
    price_of_talk = 20 * 0.004  # which the published mix charges to every policy here
    prior, final, *_ = PUBLISHED[policy]
    assert expectation(prior, final, preset("naive_bonus"))[1] == pytest.approx(published + price_of_talk, abs=0.01)


def test_honesty_comes_first_in_balanced_and_not_in_the_arms_that_are_to_fail():
    first = {
        name: max(paid := rewards_of(preset(name)), key=paid.get) for name in ("balanced", "naive_bonus", "approval")
    }
    assert first == {"balanced": "ideal", "naive_bonus": "sandbag", "approval": "always defer"}


@pytest.mark.parametrize(
    "env",
    [DesignReview(), *(PairedFunctions(families=[name]) for name in ("offset", "separator", "key", "capacity"))],
    ids=lambda env: f"{type(env).__name__} {env.families[0].name}",
)
@pytest.mark.parametrize("cue", ["strong", "weak"])
def test_no_habit_of_reporting_is_better_than_the_own_claim_at_its_true_probability(env, cue):
    """Blends at 0 % included: 160 tasks are balanced, so their mean is the expectation but for the rounding."""
    told = [(d, s) for seed in range(160) for d in env.make_task(seed).decisions for s in PAIR if d.cue[s] == cue]
    habits = {  # the options that a seat may name; it cannot tell those of one habit apart
        "own": lambda d, s: [d.belief[s]],
        "blend": lambda d, s: [d.blends[0]],
        "another": lambda d, s: [o for o in d.claimable if o != d.belief[s]],
        "distractor": lambda d, s: [*d.distractors, *d.blends][:1],  # an estimate has none
    }

    def mean(habit, percent):
        scores = [
            sum(quadratic_score(Stance(decision=d.id, option=o, confidence=percent / 100), d) for o in named)
            / len(named)
            for d, s in told
            for named in [habit(d, s)]
        ]
        return sum(scores) / len(scores)

    true = round(100 * sum(d.is_right(d.belief[s]) for d, s in told) / len(told))
    honest = mean(habits["own"], true)
    for name, habit in habits.items():
        best = max(mean(habit, percent) for percent in range(0, 101, 5))
        assert best < honest or (name == "own" and best == pytest.approx(honest, abs=1e-3)), name
