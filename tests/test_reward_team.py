"""The terms on code and on playing alone, and the comparison arms, on episodes written by hand."""

import dataclasses

import pytest
from test_reward_terms import PAIR, decide, play

from envs.core.episode import PartTests, Provenance
from rewards.baselines.approval import Approval
from rewards.baselines.naive_capitulation import NaiveCapitulation
from rewards.baselines.naive_deference import NaiveDeference
from rewards.baselines.naive_disagreement import NaiveDisagreement
from rewards.terms.do_no_harm import DoNoHarm
from rewards.terms.rework import Rework
from rewards.terms.solo_gain import SoloGain


def ended(utility=1.0, reference=20, **outcome):
    episode = play(decide(), priors=[[("a", 0.9)], [("a", 0.9)]], talk=[[3], [3]], utility=utility)
    return dataclasses.replace(
        episode,
        task=dataclasses.replace(episode.task, reference_tokens=reference),
        outcome=dataclasses.replace(episode.outcome, **outcome),
    )


# rework


def wrote(authored, surviving, duplicated=0):
    return Provenance(
        authored={"agent_0": authored, "agent_1": 10},
        surviving={"agent_0": surviving, "agent_1": 10},
        duplicated=duplicated,
    )


def test_rework_example():
    assert Rework()(ended(provenance=wrote(30, 10, duplicated=8)), "agent_0") == pytest.approx([0, 0, -0.7])


@pytest.mark.parametrize(
    ("authored", "surviving", "duplicated", "utility", "charge"),
    [
        (20, 10, 0, 1.0, 0.0),  # within the allowance
        (25, 10, 0, 1.0, -0.25),
        (25, 10, 0, 0.5, -0.125),
        (25, 10, 0, 0.0, 0.0),
        (500, 500, 0, 1.0, 0.0),  # padding survives
        (500, 0, 0, 1.0, -1.0),
        (500, 0, 90, 1.0, -1.0),
        (10, 10, 8, 1.0, -0.2),
    ],
)
def test_rework_charges_what_was_thrown_away_beyond_the_allowance_where_the_task_was_solved(
    authored, surviving, duplicated, utility, charge
):
    episode = ended(utility, provenance=wrote(authored, surviving, duplicated))
    assert sum(Rework()(episode, "agent_0")) == pytest.approx(charge)


def test_rework_charges_the_seat_that_wasted_and_both_for_what_was_written_twice():
    wasteful, twice = ended(provenance=wrote(30, 10)), ended(provenance=wrote(10, 10, duplicated=8))
    assert [sum(Rework()(wasteful, seat)) for seat in PAIR] == pytest.approx([-0.5, 0.0])
    assert [sum(Rework()(twice, seat)) for seat in PAIR] == pytest.approx([-0.2, -0.2])


def test_rework_has_nothing_to_say_without_code_or_without_its_size():
    assert Rework()(ended(), "agent_0") == [0.0, 0.0, 0.0]
    assert Rework()(ended(reference=0, provenance=wrote(500, 0)), "agent_0") == [0.0, 0.0, 0.0]


# do_no_harm


def test_do_no_harm_example_charges_the_seat_whose_partner_lost_a_test():
    lost = PartTests(alone=(True, True), merged=(True, False))
    whole = PartTests(alone=(True, True), merged=(True, True))
    episode = ended(parts={"agent_0": whole, "agent_1": lost})
    assert DoNoHarm()(episode, "agent_0") == [0.0, 0.0, -0.5]
    assert DoNoHarm()(episode, "agent_1") == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("parts", [{}, {"agent_1": PartTests(alone=(), merged=())}])
def test_do_no_harm_needs_a_test_to_break(parts):
    assert sum(DoNoHarm()(ended(parts=parts), "agent_0")) == 0.0


def test_a_test_that_failed_before_the_merge_or_passes_after_it_is_no_harm():
    episode = ended(parts={"agent_1": PartTests(alone=(False, False), merged=(False, True))})
    assert sum(DoNoHarm()(episode, "agent_0")) == 0.0


# solo_gain


def test_solo_gain_example():
    assert SoloGain()(ended(0.5, solo_utility=1.0), "agent_0") == [0.0, 0.0, -0.5]


def test_solo_gain_tells_a_solo_failure_from_no_solo_run():
    assert sum(SoloGain()(ended(0.5, solo_utility=0.0), "agent_0")) == 0.5
    assert sum(SoloGain()(ended(0.5), "agent_0")) == 0.0


# comparison arms


def arm(priors, end):
    """agent_0 with its own and the partner's prior, as letters whose right one is a, ? for none, and its answer."""
    reports = [[None if letter == "?" else (letter, 0.8)] for letter in priors]
    return play(decide(), priors=reports, committed=[[None if end == "?" else end], ["b"]], talk=[[3], [3]])


@pytest.mark.parametrize(
    ("priors", "end", "adopted", "lost", "held"),
    [
        ("ba", "a", 1, 0, 0),  # yielded to the right one
        ("ba", "b", 0, 0, 1),
        ("ab", "a", 0, 0, 1),
        ("ab", "b", 0, -1, 0),  # gave in
        ("aa", "a", 0, 0, 0),
        ("aa", "b", 0, -1, 0),
        ("bc", "a", 0, 0, 1),  # right by itself
        ("ab", "c", 0, -1, 1),
        ("bc", "c", 0, 0, 0),
        ("?a", "a", 0, 0, 0),
        ("a?", "b", 0, -1, 0),
        ("b?", "b", 0, 0, 0),
        ("ab", "?", 0, -1, 0),
        ("ba", "?", 0, 0, 0),
    ],
)
def test_truth_table_of_the_naive_arms(priors, end, adopted, lost, held):
    episode = arm(priors, end)
    paid = [sum(term()(episode, "agent_0")) for term in (NaiveDeference, NaiveCapitulation, NaiveDisagreement)]
    assert paid == [adopted, lost, held]


def test_naive_arms_average_decisions_by_weight():
    decisions = decide("heavy", weight=3.0), decide("light", weight=1.0)
    priors = [[("b", 0.9), ("a", 0.9)], [("a", 0.9), ("b", 0.9)]]
    episode = play(*decisions, priors=priors, committed=[["a", "b"], ["a", "b"]])
    paid = [sum(term()(episode, "agent_0")) for term in (NaiveDeference, NaiveCapitulation, NaiveDisagreement)]
    assert paid == [0.75, -0.25, 0.0]


@pytest.mark.parametrize(("end", "liked"), [("b", 0.8), ("a", 0.0), ("?", 0.0)])
def test_approval_example_pays_what_the_partner_believed_right_or_wrong(end, liked):
    assert Approval()(arm("ab", end), "agent_0") == pytest.approx([0.0, 0.0, liked])


def test_approval_of_an_unreadable_prior_is_zero_and_can_be_for_one_seat_alone():
    assert sum(Approval()(arm("a?", "a"), "agent_0")) == 0.0
    only = Approval(agent="agent_0")
    assert [sum(only(arm("bb", "b"), seat)) for seat in PAIR] == pytest.approx([0.8, 0.0])
