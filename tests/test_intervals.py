"""95 % intervals: their coverage by simulation, and what they say where nothing varied."""

import numpy as np
import pytest
from test_metrics import ends, mixed

from benchmarks.intervals import (
    MIDDLE,
    NEAR_0,
    NEAR_1,
    best_member,
    coverage,
    gap,
    price,
    rate,
    rate_change,
    youden,
    youden_change,
)
from rewards.metrics import compare, measure
from rewards.metrics.bayesian_bootstrap import interval
from rewards.metrics.rate import both_ways, no_prior, of_rates

REPEATS = 300  # the standard error of a coverage of 0.95 is 0.013
CASES = [
    rate(NEAR_0, agreement=0.5),
    rate(NEAR_1, agreement=1.0),
    rate(MIDDLE, agreement=0.0),
    youden((0.3, 0.7), NEAR_0),
    youden(NEAR_1, NEAR_0),
    rate_change(MIDDLE, NEAR_1),
    youden_change((MIDDLE, MIDDLE), (NEAR_1, NEAR_0)),
    gap(MIDDLE, MIDDLE, MIDDLE),
    best_member(),
    price(NEAR_1),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.kind} {case.truth}")
@pytest.mark.parametrize("episodes", [20, 48, 200])
def test_95_per_cent_of_the_intervals_hold_the_truth(case, episodes):
    assert 0.92 <= coverage(case, episodes, REPEATS) <= 0.98


@pytest.mark.parametrize(("successes", "low", "high"), [(0, 0.0, 0.117), (1, 0.005, 0.211), (10, 0.293, 0.707)])
def test_the_interval_of_one_case_an_episode_is_nearly_that_of_jeffreys(successes, low, high):
    sums = np.stack([np.arange(20) < successes, np.ones(20)], axis=1).astype(float)
    assert interval(of_rates(np.positive), sums) == pytest.approx((low, high), abs=0.03)


def test_twenty_successes_are_no_certainty_and_many_cases_of_one_episode_no_more_than_one():
    sure = measure([ends("aa", "aa", utility=1.0)] * 20)["success"]
    assert (sure.value, sure.high) == (1.0, 1.0) and 0.8 < sure.low < 0.95
    one = interval(of_rates(np.positive), np.array([[1.0, 1.0]] * 20))
    assert interval(of_rates(np.positive), np.array([[8.0, 8.0]] * 20)) == pytest.approx(one)


def test_a_change_is_not_certain_to_be_none_because_no_task_changed():
    success = compare(mixed(40), mixed(40))["success"]
    assert success.value == 0.0 and -0.1 < success.low < -0.01 < 0.01 < success.high < 0.1


def test_one_episode_says_nothing_of_the_spread_of_a_number_without_bounds():
    metrics = measure(mixed(1))
    assert metrics["message_tokens_per_episode"].value == 0.0
    assert (metrics["message_tokens_per_episode"].low, metrics["message_tokens_per_episode"].high) == (None, None)
    assert metrics["success"].low == 0.0 and 0.5 < metrics["success"].high < 1.0


def test_the_interval_of_a_mean_is_as_wide_as_the_unbiased_variance_says():
    tokens = np.stack([np.random.default_rng(0).normal(10, 3, 12), np.ones(12)], axis=1)
    mean = of_rates(np.positive)
    low, high = interval(type(mean)(mean.value, mean.cases, no_prior), tokens)
    assert high - low == pytest.approx(2 * 1.96 * tokens[:, 0].std(ddof=1) / 12**0.5, rel=0.05)


def test_units_without_a_case_and_their_order_do_not_matter():
    sums = np.array([[1.0, 1.0], [0.0, 1.0], [1.0, 2.0], [2.0, 2.0]])
    with_others = np.concatenate([np.zeros((5, 2)), sums[::-1], np.zeros((3, 2))])
    assert interval(of_rates(np.positive), with_others) == interval(of_rates(np.positive), sums)


def test_pseudo_cases_of_a_rate_without_a_case_have_no_size():
    assert not both_ways(np.zeros((3, 2))).any()
