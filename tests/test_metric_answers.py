"""Metrics of what seats answer, where they also write code."""

from dataclasses import replace

import pytest
from test_metrics import ends
from test_reward_terms import PAIR, decide, play

from rewards.metrics import measure


def codes(answers, committed, claims="ab"):
    """`ends` for seats that name `answers` in their last replies and write code for `committed`."""
    reports = [[None if letter == "?" else (letter, 0.9)] for letter in answers]
    decision = replace(decide(), belief=dict(zip(PAIR, claims, strict=True)))
    found = play(decision, priors=reports, finals=reports, committed=[[None if x == "?" else x] for x in committed])
    probes = dict.fromkeys(PAIR, {decision.id: {"a": ("True",)}})
    return replace(found, task=replace(found.task, probes=probes))


def test_where_there_is_code_answers_are_told_apart_from_what_the_code_does():
    """agent_0 is told right and answers so, agent_1 follows it in two of three; agent_1 has code for `b` or nothing."""
    metrics = measure([codes("aa", "a?"), codes("aa", "ab"), codes("ab", "a?")])
    assert (metrics["cdr_answered"].value, metrics["cdr_answered"].n) == (pytest.approx(2 / 3), 3)
    assert (metrics["cr_answered"].value, metrics["cr_answered"].n) == (0.0, 3)
    assert metrics["j_answered"].value == pytest.approx(2 / 3)
    assert (metrics["cdr"].value, metrics["j"].value) == (0.0, 0.0)
    assert (metrics["answer_realised"].value, metrics["answer_realised"].n) == (1 / 2, 6)


def test_a_last_reply_that_names_nothing_is_not_right_and_is_nothing_to_realise():
    metrics = measure([codes("?a", "aa")])
    assert (metrics["cr_answered"].value, metrics["cr_answered"].n) == (1.0, 1)
    assert (metrics["cr"].value, metrics["answer_realised"].n) == (0.0, 1)


def test_answers_without_code_and_code_without_a_last_answer_make_no_case():
    unasked = replace(codes("aa", "aa"), turns=())
    assert measure([ends("ab", "ab"), unasked])["j_answered"].n == 0
    assert measure([ends("ab", "ab"), unasked])["answer_realised"].n == 0
