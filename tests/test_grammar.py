"""The grammar of replies: what is read, what is an error, and that no text can raise."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.core.episode import Act, ActKind, ParseError, Stance
from envs.core.grammar import Final, parse_acts, parse_final, parse_message, parse_stance
from envs.core.task import Decision


def decision(id: str, *options: str) -> Decision:
    utility = {option: float(option == options[0]) for option in options}
    return Decision(id=id, options=options, utility=utility, belief={}, expert="agent_0", cue={})


OFFSET = decision("offset", "17", "23", "20", "31")
AUTH = decision("auth_scheme", "RS256 JWT", "session token", "RS256 JWT inside session token", "API key")


def test_a_stance_is_read_with_its_confidence_as_a_probability():
    assert parse_stance("Answer: 17 (80%)", [OFFSET]) == (Stance(decision="offset", option="17", confidence=0.8),)


def test_an_option_without_a_confidence_is_held_for_certain():
    assert parse_stance("Answer: 17", [OFFSET]) == (Stance(decision="offset", option="17", confidence=1.0),)


@pytest.mark.parametrize(
    "reply",
    [
        "answer: 17 (80%)",
        "  ANSWER :  `17`  ( 80 % ) ",
        "Answer: '17' (80).",
        'I think so.\r\nAnswer offset: "17" (80%)\r\nDone.',
    ],
)
def test_case_space_and_quotes_around_an_answer_do_not_matter(reply):
    assert parse_stance(reply, [OFFSET]) == (Stance(decision="offset", option="17", confidence=0.8),)


@pytest.mark.parametrize(
    "reply",
    [
        "**Answer: 17 (80%)**",
        "**Answer:** 17 (80%)",
        "__Answer__: **17** (**80%**).",
        "**Answer offset:** `17` (80%)",
        "Answer **offset**: **'17'** (80%)",
        "\ufeffAnswer: 17 (80%)",
        "Answer:\u00a017\u00a0(80\u202f%)",
        "\u00a0\ufeff**Answer\u00a0offset:**\u00a017 (80%)\u00a0",
    ],
)
def test_bold_byte_order_marks_and_no_break_spaces_do_not_matter(reply):
    assert parse_stance(reply, [OFFSET]) == (Stance(decision="offset", option="17", confidence=0.8),)


def test_an_option_keeps_stars_and_underscores_of_its_own():
    odd = decision("mark", "**", "a_", "a b")
    replies = ["Answer: **", "Answer: a_", "**Answer: a_ (100%)**", "Answer: **a\u00a0b**"]
    assert [parse_stance(reply, [odd])[0].option for reply in replies] == ["**", "a_", "a_", "a b"]


def test_an_option_is_matched_in_any_case_and_reported_as_it_is_written_in_the_decision():
    assert parse_stance("Answer: rs256 jwt (100%)", [AUTH])[0].option == "RS256 JWT"


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        ("", ParseError.EMPTY),
        (" \n\t", ParseError.EMPTY),
        ("17 (80%)", ParseError.NO_ANSWER),
        ("The answer: 17 (80%)", ParseError.NO_ANSWER),
        ("Answer auth: 17 (80%)", ParseError.NO_ANSWER),
        ("Answer 17 (80%)", ParseError.NO_ANSWER),
        ("Answer: 18 (80%)", ParseError.UNKNOWN_OPTION),
        ("Answer: 17 or 23 (80%)", ParseError.UNKNOWN_OPTION),
        ("Answer: (80%)", ParseError.UNKNOWN_OPTION),
        ("Answer: 17 (101%)", ParseError.BAD_CONFIDENCE),
        ("Answer: 17 (-5%)", ParseError.BAD_CONFIDENCE),
        ("Answer: 17 (80.5%)", ParseError.BAD_CONFIDENCE),
        ("Answer: 17 (sure)", ParseError.BAD_CONFIDENCE),
        ("Answer: 17 (²%)", ParseError.BAD_CONFIDENCE),
        ("Answer: 17 ()", ParseError.BAD_CONFIDENCE),
    ],
)
def test_a_reply_that_breaks_the_grammar_gives_the_error_that_names_the_break(reply, error):
    assert parse_stance(reply, [OFFSET]) is error


def test_the_first_line_for_a_decision_counts():
    assert parse_stance("Answer: 23 (60%)\nAnswer: 17 (90%)", [OFFSET])[0].option == "23"


def test_several_decisions_are_read_by_name_and_returned_in_their_own_order():
    reply = "Answer auth_scheme: API key (50%)\nAnswer offset: 31 (0%)"
    assert [stance.option for stance in parse_stance(reply, [OFFSET, AUTH])] == ["31", "API key"]


def test_with_several_decisions_a_line_without_a_name_answers_none_of_them():
    assert parse_stance("Answer: 31 (70%)", [OFFSET, AUTH]) is ParseError.NO_ANSWER


def test_a_message_is_put_on_one_line():
    assert parse_message("  I have\n17,\r\n  from the spec ") == "I have 17, from the spec"


def test_pass_says_nothing_and_an_empty_message_is_an_error():
    assert parse_message("PASS") == "" and parse_message(" \n") is ParseError.EMPTY


@pytest.mark.parametrize("fence", ["{}", "```python\n{}\n```", "\n```\n{}\n```\n"])
def test_code_after_the_last_answer_line_is_the_work_without_its_fences(fence):
    code = "def encode(n):\n    return n + 17"
    reply = "Answer: 17 (90%)\n" + fence.format(code)
    assert parse_final(reply, [OFFSET], wants_code=True) == Final(
        stances=(Stance(decision="offset", option="17", confidence=0.9),), work=code
    )


def test_a_final_reply_without_code_is_an_error_only_where_code_is_due():
    assert parse_final("Answer: 17 (90%)\n```\n```", [OFFSET], wants_code=True) is ParseError.NO_CODE
    assert parse_final("Answer: 17 (90%)", [OFFSET], wants_code=False).work == ""


@pytest.mark.parametrize("kind", [kind for kind in ActKind if kind not in (ActKind.ASK, ActKind.RETRACT)])
def test_an_act_names_an_option_of_its_decision_and_how_sure_it_is(kind):
    reply = f"Listen.\n {kind.value.upper()} offset : `17` (80%)\nBye."
    assert parse_acts(reply, [OFFSET, AUTH]) == (Act(kind=kind, decision="offset", option="17", confidence=0.8),)


@pytest.mark.parametrize("line", ["Ask: what does your source say?", "Ask:", "ask offset: 17"])
def test_a_question_takes_any_text(line):
    assert parse_acts(line, [OFFSET]) == (Act(kind=ActKind.ASK, decision="offset"),)


def test_acts_are_read_in_the_order_of_their_lines():
    reply = "Commit offset: 17\nRetract offset:\nCommit auth_scheme: api key"
    assert parse_acts(reply, [OFFSET, AUTH]) == (
        Act(kind=ActKind.COMMIT, decision="offset", option="17"),
        Act(kind=ActKind.RETRACT, decision="offset"),
        Act(kind=ActKind.COMMIT, decision="auth_scheme", option="API key"),
    )


@pytest.mark.parametrize(
    "line",
    [
        "Commit: 18",
        "Commit 17",
        "Commit:",
        "Commit timeout: 17",
        "Commit: 17 (sure)",
        "I commit: 17",
        "Promise: 17",
        "",
    ],
)
def test_what_is_nearly_an_act_is_free_text(line):
    assert parse_acts(line, [OFFSET]) == ()
    assert parse_message(f"Hi.\n{line}", acts_on=[OFFSET]) == f"Hi. {line}".strip()


def test_only_expectations_are_sealed_and_only_where_acts_are_read():
    reply = "Propose: 17\nExpect: 23 (60%)\nOver to you."
    assert parse_message(reply, acts_on=[OFFSET]) == "Propose: 17 Over to you."
    assert parse_message(reply) == "Propose: 17 Expect: 23 (60%) Over to you."
    assert parse_message("Expect: 23 (60%)", acts_on=[OFFSET]) == ""


ODD_TEXT = st.one_of(
    st.text(),
    st.lists(
        st.sampled_from(
            [
                "Answer",
                "Commit",
                "Ask",
                "Expect",
                ":",
                " ",
                "17",
                "(",
                ")",
                "80",
                "%",
                "\n",
                "offset",
                "`",
                "PASS",
                "\ud800",
            ]
        )
    ).map("".join),
)


@given(ODD_TEXT)
def test_no_text_makes_the_grammar_raise(text):
    for decisions in ([OFFSET], [OFFSET, AUTH]):
        assert isinstance(parse_stance(text, decisions), tuple | ParseError)
        assert isinstance(parse_final(text, decisions, wants_code=True), Final | ParseError)
        assert all(act.decision in ("offset", "auth_scheme") for act in parse_acts(text, decisions))
        assert isinstance(parse_message(text, acts_on=decisions), str)
    assert isinstance(parse_message(text), str)
