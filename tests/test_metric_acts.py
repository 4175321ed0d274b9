"""Metrics of acts and of the failures that they show, on transcripts written by hand."""

from dataclasses import replace

import pytest
from test_metric_dictionary import number, with_beliefs
from test_reward_acts import act, acting, talked
from test_reward_terms import decide, play

from rewards.metrics import measure
from rewards.metrics.table import RATES


def metric(name, *episodes):
    return number(measure(episodes)[name])


def rewrite(episode, field, **texts):
    """The episode in which a turn, as `agent_0_1`, has another message or reply, and every other turn an empty one."""
    turns = tuple(replace(turn, **{field: texts.get(f"{turn.agent}_{turn.index}", "")}) for turn in episode.turns)
    return replace(episode, turns=turns)


def failed(episode):
    return replace(episode, outcome=replace(episode.outcome, success=False))


# pushback


def test_precision_is_the_share_of_challenges_with_something_better_than_what_stands():
    better = talked(("agent_1", 1, "propose b"), ("agent_0", 2, "challenge a"))
    worse = talked(("agent_1", 1, "propose a"), ("agent_0", 2, "challenge b"))
    equal = talked(("agent_1", 1, "propose b"), ("agent_0", 2, "challenge c"))
    moved = talked(("agent_1", 1, "propose a"), ("agent_1", 2, "concede b"), ("agent_0", 3, "challenge a"))
    at_once = talked(("agent_1", 1, "propose b"), ("agent_0", 1, "challenge a"))  # nothing stood yet
    own = talked(("agent_0", 1, "propose b"), ("agent_0", 2, "challenge a"))  # no partner's
    assert metric("pushback_precision", better, worse, equal, moved, at_once, own) == (2 / 4, 4)


def test_what_stands_among_several_partners_is_worth_their_mean():
    decision = decide(utility={"a": 1.0, "b": 0.0, "c": 0.4, "d": 0.6})
    talk = play(decision, priors=[[("a", 0.9)]] * 3, talk=[[3, 3]] * 3)
    held = ("agent_1", 1, "propose a"), ("agent_2", 1, "propose b")
    assert metric("pushback_precision", acting(talk, *held, ("agent_0", 2, "challenge c"))) == (0.0, 1)
    assert metric("pushback_precision", acting(talk, *held, ("agent_0", 2, "challenge d"))) == (1.0, 1)


def test_recall_is_the_share_of_seats_that_challenged_what_their_brief_betters():
    stands = ("agent_1", 1, "propose b")
    spoke = talked(stands, ("agent_0", 3, "challenge a"))
    silent = talked(stands)
    too_early = talked(("agent_0", 1, "challenge a"), stands)
    beside = talked(stands, ("agent_0", 2, act("challenge a", decision="1")), decisions=2, committed=("aa", "aa"))
    first = beside.task.decisions[0]
    beside = replace(beside, task=replace(beside.task, decisions=(replace(first, belief={"agent_0": "a"}),)))
    cases = [with_beliefs(episode, "a", "b") for episode in (spoke, silent, too_early)]
    no_case = [
        with_beliefs(talked(("agent_1", 3, "propose b")), "a", "b"),  # no turn to speak up in
        with_beliefs(silent, "c", "b"),  # no better
        silent,  # no brief
    ]
    assert metric("pushback_recall", *cases, beside, *no_case) == (1 / 4, 4)


def test_who_yields_is_told_apart_by_whether_the_counter_proposal_was_better():
    good = ("agent_1", 1, "propose b"), ("agent_0", 2, "challenge a")
    bad = ("agent_1", 1, "propose a"), ("agent_0", 2, "challenge b")
    even = ("agent_1", 1, "propose b"), ("agent_0", 2, "challenge c")
    episodes = [talked(*said, committed=("a", end)) for said in (good, bad, even) for end in "abc"]
    assert metric("yield_to_better", *episodes) == (pytest.approx(1 / 3), 3)  # to a
    assert metric("yield_to_worse", *episodes) == (pytest.approx(1 / 3), 3)  # to b
    assert metric("yield_to_worse", *episodes[3:4], *episodes[6:]) == (0.0, 1)  # it held; neither was better


# commitment


def test_promises_are_kept_where_the_part_realises_what_was_committed_last():
    episodes = [
        talked(("agent_0", 1, "commit b", "commit a"), ("agent_1", 1, "commit b")),  # one kept, one broken
        talked(("agent_0", 1, "commit a"), committed=(None, "a")),
        talked(("agent_0", 1, "commit b"), ("agent_0", 2, "retract")),  # taken back
    ]
    assert metric("commitments_kept", *episodes) == (pytest.approx(1 / 3), 3)


def test_coverage_is_the_share_of_seats_and_decisions_with_a_promise_where_anyone_acted():
    covered = talked(("agent_0", 1, act("commit a", decision="1"), "retract"), decisions=2, committed=("aa", "aa"))
    assert metric("commitment_coverage", covered, talked(("agent_0", 1, "ask")), talked()) == (1 / 6, 6)
    assert metric("acting_rate", covered, talked()) == (1 / 2, 2)


def test_a_retraction_is_late_where_no_partner_has_a_turn_left():
    early = talked(("agent_0", 1, "commit a"), ("agent_0", 3, "retract", "retract"))
    late = talked(("agent_0", 1, "commit a"), ("agent_0", 4, "retract"))
    left = replace(early, turns=early.turns_of("agent_0") + early.turns_of("agent_1")[:-1])  # only the seat goes on
    nothing = talked(("agent_0", 1, "retract"), ("agent_1", 4, "retract"))
    assert metric("late_retraction_rate", early, late, left, nothing) == (pytest.approx(2 / 3), 3)


@pytest.mark.parametrize(
    ("said", "silent"), [("inform a", 0.0), ("commit a", 0.0), ("inform b", 1.0), ("expect a", 1.0)]
)
def test_an_act_that_partners_see_breaks_the_silence_on_its_option(said, silent):
    episode = rewrite(with_beliefs(talked(("agent_0", 1, said)), "a", "b"), "message")
    assert metric("silence_rate", episode) == (silent, 1)


# expectation

SEALED = ("agent_0", 4, "expect a 0.8"), ("agent_1", 4, "expect b 0.6")  # the first is right


def test_expectations_are_scored_against_what_the_partner_realised():
    assert metric("expectation_brier", talked(*SEALED)) == (pytest.approx(0.2), 2)
    assert metric("expectation_gap", talked(*SEALED), talked()) == (1 / 2, 2)
    assert metric("expectation_gap", talked(*SEALED, committed=("b", "b"))) == (1 / 2, 2)


@pytest.mark.parametrize(
    ("said", "ends", "misread"),
    [
        ("inform a", "a", True),
        ("commit a", "a", True),
        ("propose a", "a", False),
        ("inform b", "a", False),
        ("inform a", None, False),  # it realises nothing that could have been told
    ],
)
def test_a_wrong_expectation_is_misread_where_the_partner_had_told_it(said, ends, misread):
    episode = talked(("agent_0", 1, said), SEALED[1], committed=(ends, "a"))
    assert metric("expectation_misread", episode) == (float(misread), 1)
    assert metric("expectation_untold", episode) == (float(not misread), 1)
    assert metric("misread_expectations_per_episode", episode) == (float(misread), 1)
    assert metric("untold_expectations_per_episode", episode) == (float(not misread), 1)


def test_what_a_partner_told_of_another_part_is_not_what_it_told_of_its_own():
    misleading = talked(("agent_1", 1, "inform a"), SEALED[1])  # the seat itself said it
    assert metric("expectation_misread", misleading) == (0.0, 1)


# taxonomy


def test_the_shares_are_of_failed_episodes_and_may_overlap():
    broken = talked(("agent_0", 1, "commit b"), SEALED[1])  # a wrong prediction and a broken promise
    asked = rewrite(talked(("agent_0", 1, "ask")), "message")
    kept = rewrite(talked(("agent_0", 1, "commit a")), "message")
    episodes = [*map(failed, (broken, asked, kept, talked())), broken]  # no act in the fourth; the last succeeds
    for kind in ("expectation", "commitment"):
        assert metric(f"{kind}_failure_share", *episodes) == (pytest.approx(1 / 3), 3)
    assert metric("communication_failure_share", failed(asked), failed(kept)) == (1 / 2, 2)
    assert metric("broken_commitments_per_episode", *episodes) == (2 / 4, 4)


@pytest.mark.parametrize(
    ("answer", "unanswered"),
    [
        (("agent_1", 2, "inform b"), 0),
        (("agent_1", 3, "concede a"), 0),
        (("agent_1", 1, "inform b"), 1),  # at once, so not in answer to it
        (("agent_1", 2, "ask"), 2),
        (("agent_1", 2, "expect b"), 1),  # nobody hears it
        (("agent_1", 2, act("inform b", decision="1")), 1),
        (("agent_0", 2, "inform b"), 1),
    ],
)
def test_a_question_is_answered_by_a_partner_who_later_names_an_option_of_that_decision(answer, unanswered):
    episode = talked(("agent_0", 1, "ask"), answer)
    assert metric("unanswered_questions_per_episode", episode) == (unanswered, 1)


def test_messages_that_could_not_help_are_counted_once_each():
    episode = rewrite(
        talked(("agent_0", 2, "commit a"), ("agent_1", 1, "expect a")),
        "message",
        agent_0_1="Let us use A",  # names an option
        agent_1_1="let us talk",  # says nothing, and a sealed act is not heard
        agent_0_2="my word on it",  # an act
        agent_1_2="LET  us talk",  # a duplicate
        agent_0_3="let us talk",  # no duplicate of one's own; says nothing
        agent_0_4="let us use a",  # a duplicate, and too late
    )
    assert metric("content_free_messages_per_episode", episode) == (2, 1)
    assert metric("duplicate_messages_per_episode", episode) == (1, 1)
    assert metric("late_messages_per_episode", episode) == (1, 1)
    assert metric("communication_failure_share", failed(episode)) == (1.0, 1)


def test_without_an_act_nothing_is_known_of_failures():
    measured = measure([failed(talked())])
    names = [rate.__name__ for rate in RATES if rate.__module__.endswith((".acts", ".taxonomy"))]
    assert [name for name in names if measured[name].n] == ["acting_rate"]
    assert len(names) == 23


# grammar


def test_lines_that_begin_like_an_act_and_are_none_are_counted():
    talk = "Commit: nonsense\nCOMMIT: a\nmy notes: b\nask: why\nPropose a\n: b\nExpect: a (80%)"
    sealed = "Expect: a (170%)\nCommit: nonsense"
    episode = rewrite(talked(("agent_0", 1, "commit a")), "reply", agent_0_1=talk, agent_1_4=sealed)
    assert metric("malformed_act_rate", episode) == (2 / 5, 5)
    assert metric("malformed_act_rate", rewrite(talked(), "reply", agent_0_1=talk)) == (None, 0)
