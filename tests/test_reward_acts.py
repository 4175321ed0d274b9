"""The terms that read acts, on transcripts written by hand: pushback, commitment, expectation."""

import dataclasses

import pytest
from test_reward_terms import PAIR, decide, play

from envs.core.episode import Act, ActKind
from rewards.readings import positions, standing_promise
from rewards.terms.commitment import Commitment
from rewards.terms.expectation import Expectation
from rewards.terms.pushback import Pushback


def act(text, decision="auth"):
    """`commit a` or `expect a 0.8` as data."""
    kind, *rest = text.split()
    fields = dict(zip(("option", "confidence"), rest, strict=False))
    if "confidence" in fields:
        fields["confidence"] = float(fields["confidence"])
    return Act(kind=ActKind(kind), decision=decision, **fields)


def acting(episode, *said):
    """The episode with acts, each (seat, index of its turn, act, ...)."""
    turns = {(turn.agent, turn.index): turn for turn in episode.turns}
    for seat, index, *acts in said:
        acts = tuple(act(a) if isinstance(a, str) else a for a in acts)
        turns[seat, index] = dataclasses.replace(turns[seat, index], acts=acts)
    return dataclasses.replace(episode, turns=tuple(turns[turn.agent, turn.index] for turn in episode.turns))


def talked(*said, committed=("a", "a"), rounds=3, decisions=1):
    """Two seats, decisions whose right option is a, some rounds of talk."""
    settled = [decide("auth" if i == 0 else str(i)) for i in range(decisions)]
    reports = [[("a", 0.9)] * decisions] * 2
    episode = play(
        *settled,
        priors=reports,
        committed=[list(ends) if decisions > 1 else [ends] for ends in committed],
        talk=[[3] * rounds] * 2,
        utility=1.0,
    )
    return acting(episode, *said)


# pushback


def test_pushback_example():
    episode = talked(("agent_1", 1, "propose b"), ("agent_0", 2, "challenge a"), ("agent_1", 3, "concede a"))
    for seat in PAIR:
        assert Pushback()(episode, seat) == pytest.approx([0.0, -1 / 3, 1 / 2, 1 / 2, -2 / 3])


def test_pushback_pays_nothing_for_a_challenge_that_is_not_better():
    episode = talked(("agent_1", 1, "propose b"), ("agent_0", 2, "challenge c"))
    assert Pushback()(episode, "agent_0") == pytest.approx([0.0, -1 / 3, 0.0, 0.0, 1 / 3])


def test_pushback_pays_the_arsonist_who_puts_out_his_own_fire_nothing_in_all():
    episode = talked(("agent_0", 1, "propose b"), ("agent_0", 2, "propose a"))
    assert Pushback()(episode, "agent_0") == pytest.approx([0.0, -1 / 3, 1.0, 0.0, -2 / 3])


@pytest.mark.parametrize("gamma", [1.0, 0.9, 0.0])
def test_pushback_telescopes_to_zero_when_discounted_as_the_training_does(gamma):
    episode = talked(("agent_1", 1, "propose b"), ("agent_0", 2, "challenge a"), ("agent_1", 3, "propose c"))
    for seat in PAIR:
        paid = Pushback(gamma=gamma)(episode, seat)
        assert any(paid) and sum(gamma**k * value for k, value in enumerate(paid)) == pytest.approx(0, abs=1e-6)


def test_pushback_depends_on_what_each_seat_stands_for_and_not_on_who_spoke_first():
    together = talked(("agent_0", 1, "propose a"), ("agent_1", 1, "propose b"))
    swapped = talked(("agent_0", 1, "propose b"), ("agent_1", 1, "propose a"))
    assert Pushback()(together, "agent_0") == Pushback()(swapped, "agent_0") == pytest.approx([0, 1 / 6, 0, 0, -1 / 6])


def test_only_proposals_challenges_and_concessions_are_positions_and_the_last_one_counts():
    episode = talked(
        ("agent_0", 1, "propose b", "challenge c", "inform a", "commit a", "expect a", "ask", "retract"),
        ("agent_1", 2, "concede c"),
    )
    decision = episode.task.decisions[0]
    assert positions(episode, decision, last_round=1) == {"agent_0": "c"}
    assert positions(episode, decision, last_round=2) == {"agent_0": "c", "agent_1": "c"}


# commitment


def test_commitment_example():
    promises = act("commit a"), act("commit a", decision="1")
    episode = talked(("agent_0", 1, *promises), committed=("ab", "aa"), decisions=2)
    assert Commitment()(episode, "agent_0") == pytest.approx([0, 0, 0, 0, -0.5])
    assert sum(Commitment()(episode, "agent_1")) == 0.0


@pytest.mark.parametrize(
    ("said", "committed", "charge"),
    [
        ([("agent_0", 1, "commit b")], ("a", "b"), -1.0),  # the partner built on b
        ([("agent_0", 1, "commit b")], ("a", "a"), 0.0),  # nobody relied on b
        ([("agent_0", 1, "commit b")], ("b", "b"), 0.0),  # kept
        ([("agent_0", 1, "commit b")], (None, "b"), -1.0),  # realised nothing
        ([("agent_0", 1, "commit b"), ("agent_1", 2, "concede b")], ("a", "a"), -1.0),  # acknowledged
        ([("agent_0", 1, "commit b"), ("agent_1", 2, "commit b")], ("a", "c"), -1.0),
        ([("agent_0", 1, "commit b"), ("agent_1", 1, "commit b")], ("a", "c"), 0.0),  # said before it was heard
        ([("agent_0", 1, "commit b"), ("agent_1", 2, "inform b")], ("a", "c"), 0.0),
        ([("agent_0", 1, "commit b"), ("agent_0", 2, "retract")], ("a", "b"), 0.0),  # taken back in time
        ([("agent_0", 1, "commit b"), ("agent_0", 4, "retract")], ("a", "b"), -1.0),  # nobody can act on it any more
        ([("agent_0", 1, "commit b", "commit a")], ("a", "b"), 0.0),  # the last one holds
        ([("agent_0", 1, "retract", "commit b")], ("a", "b"), -1.0),
        ([("agent_0", 1, "propose b", "inform b")], ("a", "b"), 0.0),  # no promise
    ],
)
def test_commitment_charges_a_promise_that_was_broken_kept_standing_and_relied_on(said, committed, charge):
    assert sum(Commitment()(talked(*said, committed=committed), "agent_0")) == charge


def test_a_promise_and_its_retraction_are_about_one_decision():
    episode = talked(("agent_0", 1, act("commit b"), act("retract", decision="1")), committed=("aa", "ba"), decisions=2)
    first, second = episode.task.decisions
    assert standing_promise(episode, "agent_0", first) == ("b", 1)
    assert standing_promise(episode, "agent_0", second) is None


# expectation


def test_expectation_example():
    episode = talked(("agent_0", 4, "expect a 0.8"), ("agent_1", 4, "expect b 0.6"))
    for seat in PAIR:
        assert Expectation()(episode, seat) == pytest.approx([0, 0, 0, 0, 1.45])


def test_the_last_expectation_counts_and_a_wrong_one_scores_what_is_left():
    episode = talked(("agent_0", 1, "expect a"), ("agent_0", 4, "expect b"))
    assert sum(Expectation()(episode, "agent_0")) == sum(Expectation()(episode, "agent_1")) == 0.0


def test_an_expectation_is_about_what_the_partner_does_and_not_about_what_is_right():
    episode = talked(("agent_0", 4, "expect b"), committed=("a", "b"))
    assert sum(Expectation()(episode, "agent_0")) == 1.0


def test_no_expectation_and_a_part_that_realises_nothing_score_zero():
    assert sum(Expectation()(talked(), "agent_0")) == 0.0
    assert sum(Expectation()(talked(("agent_0", 4, "expect a"), committed=("a", None)), "agent_0")) == 0.0


def test_expectations_of_several_partners_are_averaged():
    reports = [[("a", 0.9)]] * 3
    episode = acting(play(decide(), priors=reports, committed=[["a"], ["a"], ["b"]]), ("agent_0", 1, "expect a"))
    paid = [sum(Expectation()(episode, seat)) for seat in episode.seats]
    assert paid == [0.5, 0.5, 0.0]  # agent_0 was right of one of two; each partner is paid for its own half


@pytest.mark.parametrize("belief", [0.2, 0.5, 0.9])
def test_to_report_what_is_believed_of_the_partner_pays_most(belief):
    def worth(report):
        ends = {
            end: sum(Expectation()(talked(("agent_0", 4, f"expect a {report}"), committed=("a", end)), "agent_0"))
            for end in "abc"
        }
        return belief * ends["a"] + (1 - belief) / 2 * (ends["b"] + ends["c"])

    reports = [i / 10 for i in range(11)]
    assert max(reports, key=worth) == belief
