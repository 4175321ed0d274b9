"""What holds for every term on every episode: ranges, names of seats, text, and the sums."""

import doctest
import importlib
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_reward_terms import PAIR, decide, play

from envs.core.episode import Act, ActKind, Episode, Forecast, Merge, PartTests, Provenance, StopReason
from envs.core.task import Numeric
from marl_coop.config.layers import read_file
from rewards import TERMS, RewardStack
from rewards.metrics import rates
from rewards.terms.capitulation import Capitulation
from rewards.terms.deference import Deference
from rewards.terms.expectation import Expectation
from rewards.terms.pushback import Pushback
from rewards.terms.scores import quadratic_score
from rewards.terms.solo_gain import SoloGain

STACK = RewardStack(tuple(term() for term in TERMS))
PUBLISHED = read_file(Path("configs/presets/balanced.yaml"))["rewards"]  # in `TERMS`, where a user may add more
COSTS = ("consensus", "communication", "rework", "commitment", "do_no_harm", "naive_capitulation")
RANGE = {
    **{term: (-1, 0) if term.name in COSTS else (0, 1) for term in TERMS if term.name in PUBLISHED},
    Deference: (0, 2),
    Capitulation: (-0.5, 0),
    Pushback: (0, 0),
    Expectation: (0, 2),
    SoloGain: (-1, 1),
}
UNIT = st.floats(0, 1)
BASE, HEAD, BODY, BOTH, BROKEN = (
    {"a.py": text}
    for text in ("def f(n): return n", "def f(n, m=1): return n", "def f(n): pass", "def f(n, m=1): pass", "def f(:")
)


@st.composite
def episodes(draw):
    """Two or three seats, one to three decisions (some of them numbers), any report, answer, talk, act and result."""
    seats = [f"agent_{i}" for i in range(draw(st.integers(2, 3)))]
    decisions = []
    for index in range(draw(st.integers(1, 3))):
        options = [str(10 * i) for i in range(draw(st.integers(2, 5)))]
        numeric = Numeric(
            truth=draw(st.floats(0, 50)), tolerance=draw(UNIT), sigma={seat: draw(st.floats(0.1, 9)) for seat in seats}
        )
        brief = {seat: draw(st.sampled_from(options)) for seat in seats}
        settled = decide(
            str(index),
            utility={option: draw(UNIT) for option in options},
            expert=draw(st.sampled_from(seats)),
            blends=tuple(draw(st.sets(st.sampled_from(options)))),
            numeric=draw(st.sampled_from([None, numeric])),
            weight=draw(st.floats(0.1, 5)),
        )
        decisions.append(replace(settled, belief=draw(st.sampled_from([{}, brief]))))

    def per_seat(strategy):
        return [[draw(strategy(decision)) for decision in decisions] for _ in seats]

    def report(decision):
        return st.none() | st.tuples(st.sampled_from(decision.options), UNIT)

    episode = play(
        *decisions,
        priors=per_seat(report),
        finals=per_seat(report),
        committed=per_seat(lambda decision: st.none() | st.sampled_from(decision.options)),
        talk=[draw(st.lists(st.integers(0, 60), max_size=3)) for _ in seats],
        utility=draw(UNIT),
    )
    confidence = draw(UNIT)
    acts = [
        Act(kind=kind, decision=decision.id, option=option, confidence=confidence)
        for kind in ActKind
        for decision in decisions
        for option in decision.options
    ]
    turns = tuple(
        replace(turn, acts=tuple(draw(st.lists(st.sampled_from(acts), max_size=2)))) for turn in episode.turns
    )
    tests = st.builds(PartTests, alone=st.tuples(*[st.booleans()] * 2), merged=st.tuples(*[st.booleans()] * 2))
    authored, lost = ({seat: draw(st.integers(0, 90)) for seat in seats} for _ in range(2))
    surviving = {seat: max(0, authored[seat] - lost[seat]) for seat in seats}
    ledger = Provenance(authored=authored, surviving=surviving, duplicated=draw(st.integers(0, 90)))
    merge = Merge(
        base=BASE,
        proposals=dict.fromkeys(seats, BODY) | {seats[0]: HEAD},
        final=draw(st.sampled_from([BOTH, HEAD, BROKEN])),
        worth={seat: draw(UNIT) for seat in seats},
        conflict=draw(st.booleans()),
        policy="union",
    )
    rounds = st.builds(
        Forecast,
        round=st.just(0),
        ranges=st.sampled_from([{}, {"a.py": ((1, 1),)}]),
        symbols=st.sampled_from([(), ("a.py:f",)]),
    )
    outcome = replace(
        episode.outcome,
        forecasts=tuple(draw(st.lists(rounds, max_size=3))),
        provenance=draw(st.sampled_from([None, ledger])),
        parts=draw(st.fixed_dictionaries({}, optional={seat: tests for seat in seats})),
        merge=draw(st.sampled_from([None, merge])),
        solo_utility=draw(st.none() | UNIT),
    )
    task = replace(episode.task, reference_tokens=draw(st.integers(0, 40)))
    return replace(episode, turns=turns, outcome=outcome, task=task)


@settings(max_examples=100)
@given(episode=episodes())
def test_a_term_gives_one_value_per_turn_whose_sum_lies_in_its_range(episode):
    for term in TERMS:
        low, high = RANGE.get(term, (-math.inf, math.inf))
        for seat in episode.seats:
            values = term()(episode, seat)
            assert len(values) == len(episode.turns_of(seat)), term
            assert low - 1e-9 <= sum(values) <= high + 1e-9, term


@settings(max_examples=60)
@given(episode=episodes(), alpha=st.floats(0, 3))
def test_deference_telescopes_to_the_anchored_prior_score_and_the_final_score(episode, alpha):
    def mean_score(reports):
        weights = [decision.weight for decision in episode.task.decisions]
        scores = [quadratic_score(report(decision), decision) for decision, report in reports]
        return sum(w * s for w, s in zip(weights, scores, strict=True)) / sum(weights)

    for seat in episode.seats:
        before = mean_score([(d, lambda d, seat=seat: episode.prior(seat, d.id)) for d in episode.task.decisions])
        after = mean_score([(d, lambda d, seat=seat: episode.final(seat, d.id)) for d in episode.task.decisions])
        first, *later = Deference(alpha=alpha)(episode, seat)
        assert first == pytest.approx((1 + alpha) * before, abs=1e-9)
        assert sum(later) == pytest.approx(after - before, abs=1e-9)
        assert sum([first, *later]) == pytest.approx(alpha * before + after, abs=1e-9)


@settings(max_examples=60)
@given(episode=episodes(), gamma=UNIT)
def test_pushback_telescopes_to_nothing(episode, gamma):
    for seat in episode.seats:
        values = Pushback(gamma=gamma)(episode, seat)
        assert sum(gamma**k * value for k, value in enumerate(values)) == pytest.approx(0.0, abs=1e-6)
        assert all(-1 - 1e-9 <= value <= 1 + 1e-9 for value in values)


@settings(max_examples=60)
@given(belief=UNIT, report=UNIT)
def test_the_quadratic_score_expects_most_from_reporting_what_is_believed(belief, report):
    decision, other = decide(), decide(utility={"a": 0.0, "b": 1.0, "c": 0.0})
    third = decide(utility={"a": 0.0, "b": 0.0, "c": 1.0})

    def expected(confidence):
        stance = play(decision, priors=[[("a", confidence)], [None]]).prior("agent_0", "auth")
        wrong = quadratic_score(stance, other) + quadratic_score(stance, third)
        return belief * quadratic_score(stance, decision) + (1 - belief) / 2 * wrong

    assert expected(belief) >= expected(report) - 1e-12


@settings(max_examples=60)
@given(data=st.data())
def test_other_names_for_the_seats_change_no_value_and_no_metric(data):
    episode = data.draw(episodes())
    names = dict(zip(episode.seats, data.draw(st.permutations(episode.seats)), strict=True))
    text = re.sub("|".join(names), lambda match: names[match[0]], episode.to_json())
    renamed = Episode.from_json(text)
    renamed = replace(renamed, task=replace(renamed.task, seats=tuple(sorted(renamed.seats))))
    mine, theirs = STACK.score(episode), STACK.score(renamed)
    for seat, other in names.items():
        for name in STACK.names:
            assert mine.values[seat][name] == pytest.approx(theirs.values[other][name], abs=1e-9), name
    assert rates([episode]) == pytest.approx(rates([renamed]), abs=1e-9)


@settings(max_examples=60)
@given(episode=episodes())
def test_no_term_reads_what_was_said_only_how_long_it_was(episode):
    rewritten = tuple(
        replace(turn, message="no " * turn.message_tokens, reply="x", observation="y", work="z", parse_error=None)
        for turn in episode.turns
    )
    assert STACK.score(replace(episode, turns=rewritten)) == STACK.score(episode)


@settings(max_examples=60)
@given(episode=episodes())
def test_what_is_trained_on_is_the_weighted_sum_of_an_episode_that_survives_the_record_on_disk(episode):
    breakdown = STACK.score(episode)
    assert Episode.from_json(episode.to_json()) == episode
    for seat in episode.seats:
        by_term = sum(term.weight * breakdown.term_total(seat, term.name) for term in STACK.terms)
        assert breakdown.total(seat) == pytest.approx(by_term, abs=1e-9)
        assert len(breakdown.per_turn(seat)) == len(episode.turns_of(seat))


def test_without_disagreement_and_talk_a_seat_is_paid_the_constant_of_result_and_two_scores():
    episode = play(decide(), priors=[[("a", 0.7)], [("a", 0.7)]], utility=1.0)
    score = 1 - 0.75 * 0.3**2
    assert [STACK.score(episode).total(seat) for seat in PAIR] == pytest.approx([1.0 + 0.25 * 2 * score] * 2)


@settings(max_examples=60)
@given(data=st.data(), utility=UNIT)
def test_whatever_the_task_without_disagreement_and_talk_there_is_nothing_but_that_constant(data, utility):
    task = data.draw(episodes()).task
    shared = [data.draw(st.tuples(st.sampled_from(d.options), UNIT)) for d in task.decisions]
    told = [dict.fromkeys(task.seats, option) for option, _ in shared]
    decisions = [replace(d, belief=belief) for d, belief in zip(task.decisions, told, strict=True)]
    episode = play(*decisions, priors=[shared] * len(task.seats), utility=utility)
    pairs = [(d, quadratic_score(episode.prior("agent_0", d.id), d)) for d in decisions]
    score = sum(d.weight * s for d, s in pairs) / sum(d.weight for d, _ in pairs)
    for seat in episode.seats:
        assert STACK.score(episode).total(seat) == pytest.approx(utility + 0.25 * 2 * score, abs=1e-9)


@settings(max_examples=30)
@given(episode=episodes())
def test_without_acts_code_and_a_solo_run_the_terms_that_need_them_are_exactly_zero(episode):
    turns = tuple(replace(turn, acts=()) for turn in episode.turns)
    bare = replace(episode, turns=turns, outcome=replace(episode.outcome, provenance=None, parts={}, solo_utility=None))
    breakdown = STACK.score(bare)
    for seat in bare.seats:
        for name in ("pushback", "rework", "commitment", "expectation", "foresight", "do_no_harm", "solo_gain"):
            assert not any(breakdown.values[seat][name])


def test_a_sandbox_fault_scores_zero_for_every_turn_even_without_commitments():
    episode = play(decide(), priors=[[("a", 0.9)], [("b", 0.9)]], talk=[[50], [50]], utility=1.0)
    outcome = replace(episode.outcome, committed={})
    breakdown = STACK.score(replace(episode, outcome=outcome, stop_reason=StopReason.SANDBOX_FAULT))
    assert all(turns == (0.0,) * 3 for terms in breakdown.values.values() for turns in terms.values())


MODULES = [
    "rewards.stack",
    "rewards.terms.capitulation",
    "rewards.terms.consensus",
    "rewards.terms.scores",
    "rewards.metrics.averaging",
    "envs.source.edits",
]


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_in_docstrings_run(module):
    result = doctest.testmod(importlib.import_module(module))
    assert result.attempted > 0
    assert result.failed == 0
