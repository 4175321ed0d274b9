"""The dictionary of metrics, entry by entry: each on a few episodes whose value is worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_metrics import claimed, ends, values
from test_reward_properties import episodes
from test_reward_terms import PAIR, decide, play

from envs.core.episode import AMBIGUOUS, Merge, PartTests, Phase, Provenance
from envs.core.task import Numeric
from rewards.metrics import NAMES, Metric, measure, prices, rates
from rewards.metrics.tokens import LEDGER

NUMERIC = Numeric(truth=10.0, tolerance=0.5, sigma={"agent_0": 0.3, "agent_1": 1.5, "agent_2": 1.5})
NUMBER = decide(utility={"10": 1.0, "11.5": 0.0, "13": 0.0, "16": 0.0}, numeric=NUMERIC)


def number(metric):
    return metric.value, metric.n


def with_beliefs(episode, *beliefs):
    """The same episode, with what each seat's brief says of its one decision."""
    decision = replace(episode.task.decisions[0], belief=dict(zip(episode.seats, beliefs, strict=True)))
    return replace(episode, task=replace(episode.task, decisions=(decision,)))


def with_code(episode, **outcome):
    """The same episode of a task with code, and what came of that."""
    stubs = {seat: f"part_{i}" for i, seat in enumerate(episode.seats)}
    task, outcome = replace(episode.task, stubs=stubs), replace(episode.outcome, **outcome)
    return replace(episode, task=task, outcome=outcome)


def wrote(episode, tokens):
    """The same episode, in which the replies have so many tokens in all."""
    first, *rest = (replace(turn, reply="") for turn in episode.turns)
    return replace(episode, turns=(replace(first, reply="word " * tokens), *rest))


# all of them

ANY = (-np.inf, np.inf)
RANGE = {  # where it is not [0, 1]
    **dict.fromkeys(("j", "j_answered", "j_stated"), (-1, 1)),
    **dict.fromkeys(("numeric_position", "numeric_pool_position", "elr"), ANY),
    **{name: (0, np.inf) for name in NAMES if name in LEDGER or name.endswith("_per_episode")},
    **{name: (0, np.inf) for name in NAMES if name.endswith("_lead_rounds") or name == "memory_conflict_lead"},
    "memory_compression": (1, np.inf),
    **{name: (-np.inf, 1) for name in NAMES if name.startswith("gap_")},
}


@settings(max_examples=60)
@given(played=st.lists(episodes(), min_size=1, max_size=4))
def test_every_metric_keeps_its_range_and_is_undefined_only_without_a_case_or_a_scale(played):
    for name, metric in measure(played).items():
        low, high = RANGE.get(name, (0, 1))
        if metric.low is not None:
            assert low - 1e-9 <= metric.low <= metric.value <= metric.high <= high + 1e-9, name
        if metric.value is not None:
            assert low - 1e-9 <= metric.value <= high + 1e-9, name
        assert metric.n > 0 or metric.value is None, name
        if metric.value is None and not name.startswith("gap_") and name != "elr":
            assert metric.n == 0, name


@settings(max_examples=30)
@given(played=st.lists(episodes(), min_size=1, max_size=4))
def test_the_order_of_the_episodes_does_not_matter(played):
    assert rates(played) == pytest.approx(rates(played[::-1]))


# averaging


def test_a_blend_is_dominated_where_it_is_worth_less_than_the_best_prior():
    good = decide(utility={"a": 1.0, "b": 0.5, "c": 0.0, "mix": 1.0}, blends=("mix",))
    bad = decide(utility={"a": 1.0, "b": 0.5, "c": 0.0, "mix": 0.8}, blends=("mix",))
    good, bad = claimed(good, "a", "b"), claimed(bad, "a", "b")
    priors = [[("a", 0.9)], [("b", 0.9)]]
    episodes = [
        play(good, priors=priors, committed=[["mix"], ["mix"]]),  # a blend as good as the best prior
        play(bad, priors=priors, committed=[["mix"], ["b"]]),  # a dominated blend, and a prior held
        play(bad, priors=priors, committed=[["c"], [None]]),  # nobody's prior, and no option
        play(claimed(bad, "a", "mix"), priors=priors, committed=[["mix"], ["a"]]),  # a dominated blend that was claimed
        play(claimed(bad, "a", "a"), priors=priors, committed=[["mix"], ["mix"]]),  # agreement: no case
    ]
    assert number(measure(episodes)["dominated_blend_rate"]) == (3 / 8, 8)


def test_a_number_between_the_priors_has_metrics_of_its_own():
    episode = play(claimed(NUMBER, "10", "13"), priors=[[None]] * 2, committed=[["11.5"], ["11.5"]])
    assert number(measure([episode])["dominated_blend_rate"]) == (None, 0)


def test_log_rolling_averages_episodes_with_two_settled_disagreements():
    pair = claimed(decide("one"), "a", "b"), claimed(decide("two"), "a", "b")
    disagree = [[("a", 0.9)] * 2, [("b", 0.9)] * 2]
    episodes = [
        play(*pair, priors=disagree, committed=[["a", "b"]] * 2),  # they take turns: 1
        play(*pair, priors=disagree, committed=[["a", "a"]] * 2),  # the expert throughout: 0
        play(*pair, priors=disagree, committed=[["b", "b"]] * 2),  # the other throughout: 0
        play(*pair, priors=disagree, committed=[["a", "a"], ["a", "b"]]),  # only one is settled: no case
        ends("ab", "aa"),  # only one decision: no case
    ]
    assert number(measure(episodes)["log_rolling_rate"]) == (pytest.approx(1 / 3), 3)


def test_log_rolling_is_twice_the_share_of_the_rarer_side():
    four = [claimed(decide(name), "a", "b") for name in ("one", "two", "three", "four")]
    disagree = [[("a", 0.9)] * 4, [("b", 0.9)] * 4]
    episode = play(*four, priors=disagree, committed=[["a", "b", "b", "b"]] * 2)
    assert number(measure([episode])["log_rolling_rate"]) == (0.5, 1)


@pytest.mark.parametrize(
    ("answer", "loss"),
    [("13", 5 / 13), ("12", 0.0), ("11", 0.0), ("15", 1.0), (None, 1.0)],  # the pool is 12; L = 4, worst novice L = 16
)
def test_the_excess_loss_is_the_share_of_the_way_from_the_pool_to_the_worst_novice(answer, loss):
    numeric = Numeric(truth=10.0, tolerance=1.0, sigma={"agent_0": 1.0, "agent_1": 1.0})
    decision = decide(utility={"10": 1.0, "11": 1.0, "12": 0.0, "13": 0.0, "14": 0.0, "15": 0.0}, numeric=numeric)
    episode = play(claimed(decision, "10", "14"), priors=[[None]] * 2, committed=[[answer], [answer]])
    assert number(measure([episode])["numeric_excess_loss"]) == (pytest.approx(loss), 2)


def test_position_of_a_number_between_the_priors_and_that_of_the_pool():
    episode = play(claimed(NUMBER, "10", "13"), priors=[[None]] * 2, committed=[["11.5"], ["10"]])
    metrics = measure([episode])
    assert number(metrics["numeric_position"]) == (pytest.approx((0.5 + 1) / 2), 2)
    assert number(metrics["numeric_pool_position"]) == (pytest.approx(0.962, abs=5e-4), 2)
    assert number(metrics["numeric_excess_loss"]) == (pytest.approx(0.242 / 2, abs=5e-4), 2)


def test_position_with_three_seats_starts_at_the_mean_of_the_novices():
    episode = play(claimed(NUMBER, "10", "13", "16"), priors=[[None]] * 3, committed=[["13"], [None], [None]])
    assert number(measure([episode])["numeric_position"]) == (pytest.approx((13 - 14.5) / (10 - 14.5)), 1)


@pytest.mark.parametrize(("first", "second"), [("10", "10"), ("10", None), (None, "13")])
def test_position_needs_two_ends(first, second):
    belief = {seat: claim for seat, claim in zip(PAIR, (first, second), strict=True) if claim}
    episode = play(replace(NUMBER, belief=belief), priors=[[("10", 0.9)], [("13", 0.9)]], committed=[["10"]] * 2)
    assert number(measure([episode])["numeric_position"]) == (None, 0)


def test_code_that_follows_several_options_is_counted_of_the_parts_that_are_probed():
    pair = decide("one"), decide("two")
    ends = [["a", AMBIGUOUS], [None, AMBIGUOUS]]
    episode = play(*pair, priors=[[None] * 2] * 2, committed=ends)
    probes = {"agent_0": {"one": {"a": ("True",)}, "two": {"a": ("True",)}}, "agent_1": {"one": {"a": ("True",)}}}
    probed = replace(episode, task=replace(episode.task, probes=probes))
    assert number(measure([episode])["ambiguous_code_rate"]) == (None, 0)
    assert number(measure([episode, probed])["ambiguous_code_rate"]) == (pytest.approx(1 / 3), 3)


# calibration


def reports(*pairs):
    """An episode with one final report per decision: right or wrong at a confidence."""
    decisions = [decide(str(i)) for i in range(len(pairs))]
    finals = [("a" if right else "b", confidence) for confidence, right in pairs]
    return play(*decisions, priors=[[("a", 0.9)] * len(pairs)], finals=[finals])


def test_calibration_examples():
    metrics = measure([reports((0.9, True), (0.6, False))])
    assert number(metrics["brier"]) == (pytest.approx(0.185), 2)
    assert number(metrics["ece"]) == (pytest.approx(0.35), 2)
    assert number(measure([reports((0.9, True), (0.6, True), (0.6, False))])["auroc"]) == (0.75, 1)


def test_calibration_error_is_taken_in_bins_over_all_episodes():
    sure, unsure = (0.8, True), (0.8, False)  # four of five at 80 %: calibrated as a whole, in no report alone
    assert values([reports(sure), reports(sure), reports(sure, sure), reports(unsure)])["ece"] == pytest.approx(0)
    assert values([reports((0.1, False)), reports((0.19, True))])["ece"] == pytest.approx((0.81 - 0.1) / 2)  # one bin
    assert values([reports((1.0, True)), reports((0.9, False))])["ece"] == pytest.approx(0.9 / 2)  # the last bin
    assert values([reports((0.89, True)), reports((0.9, False))])["ece"] == pytest.approx((0.11 + 0.9) / 2)  # two


def test_auroc_is_the_share_of_pairs_in_the_right_order():
    rng = np.random.default_rng(0)
    pairs = [(int(rng.integers(101)) / 100, bool(rng.random() < 0.6)) for _ in range(90)]
    right, wrong = ([confidence for confidence, r in pairs if r is kind] for kind in (True, False))
    order = np.mean([(r > w) + 0.5 * (r == w) for r in right for w in wrong])
    episodes = [reports(*pairs[i : i + 3]) for i in range(0, 90, 3)]
    metric = measure(episodes)["auroc"]
    assert metric.value == pytest.approx(order)
    assert metric.n == min(len(right), len(wrong))
    assert metric.low < metric.value < metric.high


def test_auroc_needs_right_and_wrong_reports():
    assert number(measure([reports((0.9, True), (0.2, True))])["auroc"]) == (None, 0)


def test_a_final_report_that_cannot_be_read_is_no_case_of_calibration():
    episode = play(decide(), priors=[[("a", 0.9)]] * 2, finals=[[None], [("a", 0.8)]], committed=[["a"], ["a"]])
    assert number(measure([episode])["brier"]) == (pytest.approx(0.04), 1)


# the token ledger


def test_failed_episodes_are_paid_by_the_solved_ones():
    solved, failed = wrote(ends("aa", "aa", utility=1.0), 30), wrote(ends("bb", "bb"), 50)
    metrics = measure([solved, failed])
    assert number(metrics["generated_tokens_per_solved"]) == (80.0, 1)
    assert prices(metrics, per_million=15.0)["generated_tokens_per_solved"].value == pytest.approx(0.0012)
    assert number(measure([failed])["generated_tokens_per_solved"]) == (None, 0)


def test_prices_scale_the_whole_interval_and_leave_what_is_undefined():
    metrics = measure([wrote(ends("aa", "aa", utility=u, talk=[[t], []]), 40) for t, u in ((2, 1.0), (8, 0.0))])
    talk, price = metrics["message_tokens_per_episode"], prices(metrics, 2e6)["message_tokens_per_episode"]
    assert price == Metric(value=10.0, low=2 * talk.low, high=2 * talk.high, n=2)
    assert prices(metrics, 2e6)["rework_tokens_per_episode"] == Metric(None, None, None, 0)


def test_rework_and_duplicate_work_are_those_of_the_ledger():
    wasteful = Provenance(
        authored={"agent_0": 30, "agent_1": 10}, surviving={"agent_0": 10, "agent_1": 10}, duplicated=8
    )
    thrifty = Provenance(authored={"agent_0": 5, "agent_1": 5}, surviving={"agent_0": 5, "agent_1": 4})
    episodes = [with_code(ends("aa", "aa"), provenance=ledger) for ledger in (wasteful, thrifty, None)]
    metrics = measure(episodes)
    assert number(metrics["rework_tokens_per_episode"]) == ((20 + 1) / 2, 2)
    assert number(metrics["duplicate_tokens_per_episode"]) == (8 / 2, 2)


# outcomes


def said(episode, *messages):
    """The same episode, in which each seat says so in its only turn of talk."""
    words = dict(zip(episode.seats, messages, strict=True))
    turns = (replace(turn, message=words[turn.agent] if turn.phase is Phase.TALK else "") for turn in episode.turns)
    return replace(episode, turns=tuple(turns))


def test_silence_is_that_a_seat_never_names_the_claim_that_its_partner_needed():
    heard = ends("ab", "ab", talk=[[1], [1]])  # agent_0 knew and agent_1 needed it
    spoken = [said(heard, text, "") for text in ("It is A.", "b or a", "auth: a")]
    silent = [said(heard, text, "a") for text in ("", "ok", "b", "banana")]
    idle = [ends(same, "ab", talk=[[1], [1]]) for same in ("aa", "bb")]  # nobody needed anything
    assert number(measure([*spoken, *silent, *idle])["silence_rate"]) == (4 / 7, 7)


def test_what_is_said_of_another_decision_breaks_no_silence():
    pair = claimed(decide("auth"), "a", "b"), claimed(decide("size"), "b", "b")
    episode = play(*pair, priors=[[None] * 2] * 2, committed=[["a", "a"]] * 2, talk=[[1], [1]])
    rates = [measure([said(episode, text, "")])["silence_rate"].value for text in ("size: a", "size: b auth: a")]
    assert rates == [1.0, 0.0]


def test_parts_conflict_semantically_where_each_works_and_both_together_do_not():
    conflict, agreed_on_wrong = (with_code(ends("ab", end)) for end in ("ab", "bb"))
    equally_good = with_code(ends("ab", "ab", utility=1.0))
    broken, no_code = with_code(ends("ab", "a?")), ends("ab", "ab")  # neither is a case
    metrics = measure([conflict, agreed_on_wrong, equally_good, broken, no_code])
    assert number(metrics["semantic_conflict_rate"]) == (pytest.approx(1 / 3), 3)
    assert number(metrics["textual_conflict_rate"]) == (None, 0)


def merged(conflict=False, alone=(True, True), utility=0.0, final="x = 1"):
    """An episode whose seats changed `x = 0` to 1 and to 2; whether each proposal passes its own tests alone."""
    code = {seat: {"a.py": f"x = {i + 1}"} for i, seat in enumerate(PAIR)}
    merge = Merge(
        base={"a.py": "x = 0"}, proposals=code, final={"a.py": final}, worth={}, conflict=conflict, policy="union"
    )
    parts = {
        seat: PartTests(alone=(True, passes), merged=(False, False)) for seat, passes in zip(PAIR, alone, strict=False)
    }
    return with_code(ends("ab", "ab", utility=utility), merge=merge, parts=parts)


def test_branches_conflict_semantically_where_a_clean_merge_of_branches_that_work_alone_fails():
    cases = [merged(), merged(utility=0.5), merged(utility=1.0)]
    no_cases = [merged(conflict=True), merged(alone=(True, False)), merged(alone=(True,))]
    assert number(measure(cases + no_cases)["semantic_conflict_rate"]) == (pytest.approx(2 / 3), 3)


def test_textual_conflicts_are_counted_among_the_merges_on_record():
    metric = measure([merged(), merged(conflict=True), merged(), with_code(ends("ab", "ab"))])["textual_conflict_rate"]
    assert number(metric) == (pytest.approx(1 / 3), 3)


def test_the_mix_of_contested_code_is_averaged_over_the_merges_that_kept_some_of_it():
    pure, mixed, neither = merged(), merged(final="x = 1\nx = 2"), merged(final="x = 9")
    assert number(measure([pure, mixed, neither, ends("ab", "ab")])["code_mixing"]) == ((0 + 1 / 2) / 2, 2)
