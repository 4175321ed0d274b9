"""The unit of talk: that no way of writing makes a text cheaper than its length, and that ordinary words are one."""

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.core import tokens as module
from envs.core.tokens import first_tokens, message_tokens

PIECES = ("a", "the", "internationalisation", "_", "17", "2026", " ", "\n", "的", "é", "🙂", "\u200b", "привет", "'")
TEXTS = st.text(max_size=80) | st.lists(st.sampled_from(PIECES), max_size=30).map("".join)


@given(TEXTS)
def test_a_text_costs_at_least_a_token_for_every_12_characters(text):
    assert message_tokens(text) >= len("".join(text.split())) / 12


@given(TEXTS, TEXTS)
def test_gluing_two_texts_changes_their_cost_by_one_token_at_most(text, other):
    apart = message_tokens(text) + message_tokens(other)
    assert apart - 1 <= message_tokens(text + other) <= apart == message_tokens(f"{text} {other}")


@given(TEXTS, st.integers(-1, 40))
def test_what_is_cut_off_costs_what_was_too_much(text, count):
    cut, cost = first_tokens(text, count), message_tokens(text)
    assert text.startswith(cut) and message_tokens(cut) == min(max(count, 0), cost)
    assert message_tokens(text[len(cut) :]) == cost - message_tokens(cut)


@pytest.mark.parametrize(
    ("count", "kept"), [(0, ""), (4, "use RS256,"), (5, "use RS256, please"), (9, "use RS256, please")]
)
def test_a_text_is_cut_after_a_whole_token(count, kept):
    assert first_tokens("use RS256, please", count) == kept


@pytest.mark.parametrize(
    "text",
    [
        "my source the reliable one says seventeen and i am certain of it",
        "our colleague understands the consequences of a disagreement about compatibility here",
        "мой источник надёжный и говорит семнадцать",
        "مصدري موثوق ويقول سبعة عشر",
        "nguồn của tôi đáng tin cậy",
    ],
)
def test_a_word_of_ordinary_language_is_one_token(text):
    long = [word for word in text.split() if len(word) > 12]
    assert message_tokens(text) == len(text.split()) + len(long)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("x" * 1000, 84),
        ("7" * 1000, 334),
        ("我的来源说是十七我很确定", 12),
        ("offset_is_17_from_signed_spec_and_i_am_sure_of_it", 6),
        ("mail_port47chat_delay12", 4),
        ("🙂" * 5, 5),
        ("use RS256, please (80%)", 9),
        (" \n\t\u2028", 0),
    ],
)
def test_what_is_glued_costs_what_it_is(text, count):
    assert message_tokens(text) == count


def test_the_examples_in_the_docstrings_run():
    assert doctest.testmod(module).failed == 0 < doctest.testmod(module).attempted
