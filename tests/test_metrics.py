"""Metrics on transcripts counted by hand, and the intervals around them."""

from dataclasses import replace

import pytest
from test_reward_terms import decide, play

from envs.core.episode import Episode, ParseError, StopReason
from envs.core.task import Numeric
from rewards.metrics import (
    NAMES,
    SEATWISE,
    Flip,
    Metric,
    compare,
    conflicts,
    flip_matrix,
    measure,
    of_players,
    of_seats,
    rates,
)


def ends(priors, committed, expert="agent_0", claims=None, **fields):
    """One decision whose right option is a; priors and commitments as one letter per seat, ? for none.

    The sources claim what the priors say, unless `claims` are given in the same way.
    """
    belief = {f"agent_{i}": letter for i, letter in enumerate(claims or priors) if letter != "?"}
    reports = [[None if letter == "?" else (letter, 0.9)] for letter in priors]
    answers = [[None if letter == "?" else letter] for letter in committed]
    decision = replace(decide(expert=expert), belief=belief)
    return play(decision, priors=reports, finals=reports, committed=answers, **fields)


def claimed(decision, *claims):
    """The decision, with what the source of each seat claims."""
    return replace(decision, belief={f"agent_{i}": claim for i, claim in enumerate(claims)})


def values(episodes):
    return {name: metric.value for name, metric in measure(episodes).items()}


BY_HAND = [
    ends("ab", "aa"),  # agent_1 defers and is right
    ends("ab", "bb"),  # agent_0 gives in; agent_1 stays wrong
    ends("ab", "ab"),  # both hold
    ends("ba", "aa"),  # agent_0 defers and is right
    ends("aa", "bb"),  # agreement: no case
    ends("bc", "aa"),  # nobody was right: no case
    ends("a?", "b?"),  # a partner that was told nothing: no case
]


def test_deference_and_capitulation_rates_counted_by_hand():
    metrics = measure(BY_HAND)
    assert (metrics["cdr"].value, metrics["cdr"].n) == (2 / 4, 4)
    assert (metrics["cr"].value, metrics["cr"].n) == (1 / 4, 4)
    assert (metrics["j"].value, metrics["j"].n) == (1 / 4, 4)


def test_deference_example():
    """Two seats; seat 0 is told right in tasks 1 and 2 and ends right in 1 alone, and is told wrong in 3 and 4."""
    tasks = [ends("ab", "ab"), ends("ab", "bb"), ends("ba", "aa"), ends("ba", "ba")]
    cases = [conflict for episode in tasks for conflict in conflicts(episode, seats=["agent_0"])]
    assert [(case.told_right, case.final_right) for case in cases] == [(1, 1), (1, 0), (0, 1), (0, 0)]


@pytest.mark.parametrize("priors", ["ab", "ba", "aa", "bb", "cc", "??", "a?", "?b"])
def test_what_the_seats_state_before_the_talk_does_not_touch_cdr_cr_and_j(priors):
    names = ("cdr", "cr", "j", "cr_as_expert", "cr_as_novice")
    stated, honest = ([ends(said, end, claims="ab") for end in ("aa", "bb", "ab", "?b")] for said in (priors, "ab"))
    assert [measure(stated)[name] for name in names] == [measure(honest)[name] for name in names]
    assert measure(stated)["cdr"].n == measure(stated)["cr"].n == 4


def test_a_seat_of_which_no_claim_is_known_makes_no_case_and_is_no_partner():
    assert measure([ends("ab", "aa", claims="a?"), ends("ab", "aa", claims="??")])["j"].n == 0


def test_capitulation_is_split_by_whose_source_was_the_better_one():
    gave_in, misled, held = ends("ab", "bb"), ends("ab", "bb", expert="agent_1"), ends("ab", "aa", expert="agent_1")
    metrics = measure([gave_in, misled, held])
    assert (metrics["cr_as_expert"].value, metrics["cr_as_expert"].n) == (1.0, 1)
    assert (metrics["cr_as_novice"].value, metrics["cr_as_novice"].n) == (1 / 2, 2)
    assert (metrics["cr"].value, metrics["cr"].n) == (2 / 3, 3)


def saying(episode, **messages):
    """The episode in which these seats say so before the end."""
    turns = [
        replace(turn, message=messages[turn.agent]) if turn.index == 1 and turn.agent in messages else turn
        for turn in episode.turns
    ]
    return replace(episode, turns=tuple(turns))


def test_misled_is_who_ends_on_a_partners_wrong_option_while_its_own_source_claims_another_wrong_one():
    followed, kept = ends("ba", "ca", talk=[[1], [1]]), ends("ba", "ba", talk=[[1], [1]])
    metrics = measure([saying(episode, agent_0="It is b.", agent_1="It is c.") for episode in (followed, kept)])
    assert (metrics["misled"].value, metrics["misled"].n) == (1 / 2, 2)  # the own source of agent_1 is right: no case
    assert (metrics["cdr"].value, metrics["cdr"].n) == (0, 2)
    for heard in ("It is a.", "b", "Well."):  # what is right, the same as the own, nothing
        assert measure([saying(followed, agent_1=heard)])["misled"].n == 0


def test_with_three_seats_who_gives_in_to_the_wrong_one_of_two_partners_does_not_follow_the_better_source():
    metrics = measure([ends("aab", "baa", expert="agent_1")])
    assert (metrics["cr"].n, metrics["cr_as_expert"].n, metrics["cr_as_novice"].n) == (2, 1, 0)


def test_stated_rates_go_by_the_priors_and_the_share_that_states_its_claim_is_told_beside():
    metrics = measure([ends("ab", "aa", claims="ba"), ends("?b", "aa", claims="ab"), ends("ca", "aa", claims="ab")])
    assert (metrics["cdr_stated"].value, metrics["cdr_stated"].n) == (1.0, 2)
    assert (metrics["cr_stated"].value, metrics["cr_stated"].n) == (0.0, 2)
    assert metrics["j_stated"].value == 1.0
    assert (metrics["prior_as_told"].value, metrics["prior_as_told"].n) == (1 / 6, 6)


def test_flip_matrix_counts_each_seat_with_two_known_priors_once():
    counts = flip_matrix(BY_HAND)
    assert len(counts) == 8
    assert {flip: n for flip, n in counts.items() if n} == {
        Flip(prior_right=True, final_right=True, partner_right=False): 3,
        Flip(prior_right=True, final_right=False, partner_right=False): 1,
        Flip(prior_right=False, final_right=True, partner_right=True): 2,
        Flip(prior_right=False, final_right=False, partner_right=True): 2,
        Flip(prior_right=True, final_right=False, partner_right=True): 2,
        Flip(prior_right=False, final_right=True, partner_right=False): 2,
    }


@pytest.mark.parametrize(
    ("committed", "expected"), [("aa", (1.0, 0.0, 1.0)), ("ba", (1.0, 1.0, 0.0)), ("ab", (0.0, 0.0, 0.0))]
)
def test_j_is_one_for_perfect_and_zero_for_always_and_never_deferring(committed, expected):
    swapped = ends("ba", committed[::-1])
    result = values([ends("ab", committed), swapped])
    assert (result["cdr"], result["cr"], result["j"]) == expected


def test_with_three_seats_one_right_partner_is_enough():
    metrics = measure([ends("bab", "aaa"), ends("bcb", "aaa")])
    assert (metrics["cdr"].value, metrics["cdr"].n) == (1.0, 2)
    assert (metrics["cr"].value, metrics["cr"].n) == (0.0, 1)
    assert (metrics["j"].value, metrics["j"].n) == (1.0, 1)  # the fewer cases of both


def test_an_answer_that_realises_nothing_is_wrong():
    assert values([ends("ab", "?b")])["cr"] == 1.0


def test_a_rate_without_a_case_is_undefined_and_not_zero():
    metrics = measure([ends("aa", "aa")])
    for name in ("cdr", "cr", "j", "blend_rate", "message_share"):
        assert metrics[name] == Metric(value=None, low=None, high=None, n=0)
        assert rates([ends("aa", "aa")])[name] is None


def test_kairos_counts_what_was_mended_and_what_was_kept_of_all_that_was_answered_alone():
    metrics = measure([ends("ab", "ab"), ends("ba", "aa"), ends("cc", "ac"), ends("aa", "ab"), ends("?a", "aa")])
    assert (metrics["kairos_utility"].value, metrics["kairos_utility"].n) == (2 / 4, 4)
    assert (metrics["resistance"].value, metrics["resistance"].n) == (4 / 5, 5)
    assert (metrics["kairos_f1"].value, metrics["kairos_f1"].n) == (pytest.approx(2 * 0.5 * 0.8 / 1.3), 4)
    assert values([ends("ab", "ba")])["kairos_f1"] == 0.0  # nothing mended, nothing kept
    assert values([ends("aa", "aa")])["kairos_f1"] is None  # nobody was wrong alone


def test_metrics_of_some_seats_leave_the_others_out_and_metrics_of_the_team_as_they_are():
    episodes = [ends("ab", "aa"), ends("ab", "ab"), ends("ba", "bb"), ends("ab", "?b")]
    first = measure(episodes, of_seats(lambda episode: ["agent_0"]))
    both = measure(episodes)
    assert (first["cr"].value, first["cr"].n) == (1 / 3, 3)
    assert (first["cdr"].value, first["cdr"].n) == (0.0, 1)
    assert (both["cdr"].value, both["cdr"].n) == (1 / 4, 4)
    assert {name for name in NAMES if first[name] != both[name]} <= set(SEATWISE)
    everybody = measure(episodes, of_seats(lambda episode: episode.seats))
    assert everybody == both


def test_metrics_of_players_are_of_the_seats_that_they_had():
    first, second = {"agent_0": "x", "agent_1": "partner"}, {"agent_0": "partner", "agent_1": "x"}
    episodes = [replace(ends("ab", "ab"), players=first), replace(ends("ab", "bb"), players=second)]
    found = measure(episodes, of_players(["x"]))
    assert (found["cr"].value, found["cr"].n) == (0.0, 1)  # agent_0 holds, as x; it gives in, as the partner
    assert (found["cdr"].value, found["cdr"].n) == (0.0, 1)
    assert found["success"].n == 2
    assert measure(episodes, of_players(())) == measure(episodes)
    assert measure([ends("ab", "ab")], of_players(["x"])) == measure([ends("ab", "ab")])  # who played is not known


def test_a_difference_of_some_seats_is_paired_by_task():
    before, after = [ends("ab", "bb")] * 3, [ends("ab", "ab")] * 3
    change = compare(before, after, of_seats(lambda episode: ["agent_0"]))
    assert (change["cr"].value, change["cr"].n, change["cdr"].n) == (-1.0, 3, 0)


def test_prior_accuracy_counts_an_unreadable_prior_as_not_right():
    metric = measure([ends("a?", "aa"), ends("ab", "aa")])["prior_accuracy"]
    assert (metric.value, metric.n) == (2 / 4, 4)


def test_blend_rate_is_the_share_of_compromises_among_answers_to_disagreements():
    words = claimed(decide(utility={"a": 1.0, "b": 0.0, "mix": 0.9}, blends=("mix",)), "a", "b")
    numeric = Numeric(truth=1.0, tolerance=0.1, sigma={"agent_0": 1.0, "agent_1": 1.0})
    numbers = claimed(decide(utility={"1": 1.0, "2": 0.0, "3": 0.0}, numeric=numeric), "1", "3")
    a, b, one, three = ("a", 0.9), ("b", 0.9), ("1", 0.9), ("3", 0.9)
    episodes = [
        play(words, priors=[[a], [b]], committed=[["mix"], ["a"]]),
        play(claimed(words, "a", "a"), priors=[[a], [b]], committed=[["mix"], ["mix"]]),  # agreement: no case
        play(numbers, priors=[[one], [three]], committed=[["2"], ["3"]]),
        play(numbers, priors=[[one], [three]], committed=[[None], ["1"]]),
    ]
    metric = measure(episodes)["blend_rate"]
    assert (metric.value, metric.n) == (2 / 6, 6)


def test_talk_is_counted_per_episode_and_as_a_share_of_what_was_written():
    first = ends("ab", "ab", talk=[[3, 5], []])
    turns = tuple(replace(t, reply=t.reply or "seven more words than the message had") for t in first.turns)
    result = values([replace(first, turns=turns), ends("ab", "ab", talk=[[2], [2]])])
    assert result["message_tokens_per_episode"] == (8 + 4) / 2
    assert result["message_share"] == 12 / (12 + 4 * 7)


def test_parse_rate_is_the_share_of_turns_that_were_read():
    episode = ends("ab", "ab")
    first, *rest = episode.turns
    broken = replace(episode, turns=(replace(first, parse_error=ParseError.NO_ANSWER), *rest))
    assert values([broken])["parse_rate"] == 3 / 4


def test_truncation_rate_is_the_share_of_turns_that_were_cut():
    episode = ends("ab", "ab")
    first, *rest = episode.turns
    cut = replace(episode, turns=(replace(first, truncated=True), *rest))
    assert values([cut])["truncation_rate"] == 1 / 4
    assert values([episode])["truncation_rate"] == 0
    assert Episode.from_json(cut.to_json()) == cut


def test_success_and_utility_are_means_over_episodes():
    result = values([ends("aa", "aa", utility=1.0), ends("aa", "aa", utility=0.5), ends("bb", "bb")])
    assert (result["success"], result["utility"]) == (pytest.approx(1 / 3), 0.5)


def test_a_sandbox_fault_is_counted_and_left_out_of_everything_else():
    fault = ends("ab", "bb", stop_reason=StopReason.SANDBOX_FAULT)
    fault = replace(fault, outcome=replace(fault.outcome, committed={}))
    with_fault, without = values([*BY_HAND, fault]), values(BY_HAND)
    assert with_fault.pop("sandbox_fault_rate") == 1 / 8
    assert without.pop("sandbox_fault_rate") == 0.0
    assert with_fault == without
    assert flip_matrix([*BY_HAND, fault]) == flip_matrix(BY_HAND)


def test_measuring_nothing_is_an_error():
    with pytest.raises(ValueError, match="no episodes"):
        measure([])


def test_every_name_is_measured_with_the_same_value_with_and_without_an_interval():
    assert tuple(measure(BY_HAND)) == NAMES
    assert rates(BY_HAND) == values(BY_HAND)


def test_episodes_that_all_have_a_sandbox_fault_leave_every_other_metric_undefined():
    faults = [replace(episode, stop_reason=StopReason.SANDBOX_FAULT) for episode in BY_HAND]
    metrics = measure(faults)
    assert (metrics["sandbox_fault_rate"].value, metrics.pop("sandbox_fault_rate").n) == (1.0, 7)
    assert set(metrics.values()) == {Metric(value=None, low=None, high=None, n=0)}


# intervals


def mixed(n):
    """Half of the seats that should defer do, a quarter of those that should hold give in."""
    cycle = [ends("ab", "aa"), ends("ab", "ab"), ends("ab", "bb"), ends("ab", "aa", utility=1.0)]
    return [replace(e, task=replace(e.task, id=str(i))) for i, e in enumerate((cycle * n)[:n])]


def test_intervals_hold_the_value_shrink_with_the_sample_and_repeat():
    few, many = measure(mixed(20)), measure(mixed(400))
    for name in ("success", "utility", "cdr", "cr", "j"):
        for metric in (few[name], many[name]):
            assert metric.low < metric.value < metric.high
        ratio = (few[name].high - few[name].low) / (many[name].high - many[name].low)
        assert 3.0 < ratio < 6.5  # sqrt(20) = 4.5
    assert measure(mixed(20)) == few


def test_the_interval_of_a_proportion_is_the_textbook_one():
    metric = measure(mixed(400))["success"]
    half_width = 1.96 * (0.25 * 0.75 / 400) ** 0.5
    assert metric.low == pytest.approx(0.25 - half_width, abs=0.006)
    assert metric.high == pytest.approx(0.25 + half_width, abs=0.006)


def test_episodes_are_weighed_and_not_the_decisions_in_them():
    copies = [decide(str(i)) for i in range(4)]
    right = play(*copies, priors=[[("a", 0.9)] * 4] * 2)
    wrong = play(*copies, priors=[[("b", 0.9)] * 4] * 2)
    metric = measure([right, wrong] * 50)["prior_accuracy"]
    assert metric.n == 800
    assert metric.high - metric.low == pytest.approx(2 * 1.96 * (0.25 / 100) ** 0.5, rel=0.15)


def test_compare_is_the_difference_on_the_same_tasks_in_any_order():
    before = mixed(8)
    after = [replace(e, outcome=replace(e.outcome, utility=e.outcome.utility + 0.25)) for e in reversed(before)]
    difference = compare(before, after)
    assert (difference["utility"].value, difference["utility"].n) == (0.25, 8)
    assert (difference["j"].value, difference["j"].n) == (0.0, 8)


def test_compare_needs_the_same_tasks_and_names_those_that_are_missing():
    with pytest.raises(ValueError, match=r"only in before \['3'\], only in after \[\]"):
        compare(mixed(4), mixed(3))


def test_compare_drops_a_task_with_a_fault_on_one_side_from_both():
    before = mixed(4)
    after = [replace(before[0], stop_reason=StopReason.SANDBOX_FAULT), *before[1:]]
    difference = compare(before, after)
    assert (difference["utility"].value, difference["utility"].n) == (0.0, 3)
    assert difference["sandbox_fault_rate"].value == 0.25


def test_compare_takes_all_episodes_of_a_task_as_one_unit():
    wins, losses = ends("aa", "aa", utility=1.0), ends("aa", "aa")
    difference = compare([losses], [wins, wins, losses, losses])
    assert (difference["success"].value, difference["success"].n) == (0.5, 1)


def test_compare_is_undefined_where_one_side_has_no_case():
    assert compare([ends("aa", "aa")], [ends("ab", "aa")])["cdr"] == Metric(None, None, None, 0)
