"""Each reward term on transcripts written by hand, with the numbers worked out by hand."""

import dataclasses
import itertools

import pytest
from pydantic import ValidationError

from envs.core.episode import Episode, Outcome, Phase, Stance, StopReason, Turn
from envs.core.task import Decision, Task
from rewards import TERMS
from rewards.baselines.naive_capitulation import NaiveCapitulation
from rewards.baselines.naive_deference import NaiveDeference
from rewards.baselines.naive_disagreement import NaiveDisagreement
from rewards.metrics import Flip, flips
from rewards.readings import prior_option
from rewards.terms.capitulation import Capitulation, switch_threshold
from rewards.terms.communication import Communication
from rewards.terms.consensus import Consensus
from rewards.terms.deference import Deference
from rewards.terms.task_success import TaskSuccess

PAIR = ("agent_0", "agent_1")


def decide(id="auth", utility=None, expert="agent_0", **fields):
    """A decision whose first option is best, unless `utility` says otherwise."""
    utility = utility or {"a": 1.0, "b": 0.0, "c": 0.0}
    plain = {"belief": {}, "cue": {}, **fields}
    return Decision(id=id, options=tuple(utility), utility=utility, expert=expert, **plain)


def play(
    *decisions,
    priors,
    finals=None,
    committed=None,
    talk=None,
    utility=0.0,
    task_id="t",
    stop_reason=StopReason.FINISHED,
):
    """An episode from what each seat held, per seat and decision.

    A report is (option, confidence) or None. Finals repeat the priors and commitments follow the finals unless given.
    `talk` has the tokens of each message, per seat.
    """
    seats = tuple(f"agent_{i}" for i in range(len(priors)))
    finals = finals or priors
    committed = committed or [[report and report[0] for report in reports] for reports in finals]
    turns, acts = [], {}
    for seat, before, after, counts, answers in zip(
        seats, priors, finals, talk or [[]] * len(seats), committed, strict=True
    ):
        phases = [
            {"phase": Phase.STANCE, "stances": reported(decisions, before)},
            *({"phase": Phase.TALK, "message": "word " * n, "reply": "word " * n, "message_tokens": n} for n in counts),
            {"phase": Phase.FINAL, "stances": reported(decisions, after)},
        ]
        for index, turn in enumerate(phases):
            turns.append(Turn(**{"index": index, "round": index, "agent": seat, "observation": "", "reply": ""} | turn))
        acts[seat] = {decision.id: answer for decision, answer in zip(decisions, answers, strict=True)}
    return Episode(
        task=Task(id=task_id, family="f", seed=0, seats=seats, briefs={}, decisions=decisions, cell={}),
        turns=tuple(sorted(turns, key=lambda turn: turn.round)),
        outcome=Outcome(utility=utility, success=utility == 1.0, committed=acts),
        stop_reason=stop_reason,
    )


def reported(decisions, reports):
    pairs = zip(decisions, reports, strict=True)
    return tuple(Stance(decision=d.id, option=report[0], confidence=report[1]) for d, report in pairs if report)


def test_the_built_episode_survives_a_round_trip_through_json():
    episode = play(decide(), priors=[[("a", 0.9)], [None]], talk=[[3], [2]], utility=1.0)
    assert Episode.from_json(episode.to_json()) == episode
    assert [turn.phase for turn in episode.turns_of("agent_0")] == [Phase.STANCE, Phase.TALK, Phase.FINAL]


# task_success


def test_task_success_example_pays_the_result_on_the_last_turn():
    episode = play(decide(), priors=[[("a", 0.9)], [("b", 0.9)]], talk=[[3, 3], [3, 3]], utility=0.5)
    assert [TaskSuccess()(episode, seat) for seat in PAIR] == [[0, 0, 0, 0.5]] * 2


# deference


def test_deference_example():
    episode = play(decide(), priors=[[("b", 0.6)], [("a", 0.5)]], finals=[[("a", 0.9)], [("a", 0.5)]], talk=[[5], [5]])
    assert Deference()(episode, "agent_0") == pytest.approx([0.96, 0.0, 0.5125])


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_deference_pays_the_two_scores_and_nothing_for_the_way_between_them(alpha):
    episode = play(decide(), priors=[[("b", 0.6)], [("a", 0.5)]], finals=[[("a", 0.9)], [("a", 0.5)]])
    assert sum(Deference(alpha=alpha)(episode, "agent_0")) == pytest.approx(alpha * 0.48 + 0.9925, abs=1e-9)


def test_deference_without_the_anchor_pays_a_sandbagger_as_much_as_an_honest_seat_and_with_it_less():
    honest = play(decide(), priors=[[("a", 0.9)]] * 2, finals=[[("a", 0.9)]] * 2)
    sandbag = play(decide(), priors=[[("b", 0.9)]] * 2, finals=[[("a", 0.9)]] * 2)
    paid = {alpha: [sum(Deference(alpha=alpha)(e, "agent_0")) for e in (honest, sandbag)] for alpha in (0.0, 1.0)}
    assert paid[0.0][0] == pytest.approx(paid[0.0][1])
    assert paid[1.0][0] - paid[1.0][1] == pytest.approx(0.9925 - 0.1425)


def test_deference_scores_an_unreadable_report_zero():
    lost_prior = play(decide(), priors=[[None], [("a", 1.0)]], finals=[[("a", 1.0)], [("a", 1.0)]])
    lost_final = play(decide(), priors=[[("a", 1.0)], [("a", 1.0)]], finals=[[None], [("a", 1.0)]])
    assert Deference()(lost_prior, "agent_0") == [0.0, 1.0]
    assert Deference()(lost_final, "agent_0") == [2.0, -1.0]


def test_deference_averages_decisions_by_weight():
    heavy, light = decide("heavy", weight=3.0), decide("light", weight=1.0)
    reports = [[("a", 1.0), ("b", 1.0)], [("a", 1.0), ("a", 1.0)]]
    assert Deference()(play(heavy, light, priors=reports), "agent_0") == pytest.approx([1.5, 0.0])


# capitulation


def test_capitulation_example():
    decision = decide(utility={"a": 1.0, "b": 0.2, "c": 0.0})
    episode = play(decision, priors=[[("a", 0.8)], [("b", 0.8)]], committed=[["b"], ["b"]], talk=[[5], [5]])
    assert Capitulation()(episode, "agent_0") == pytest.approx([0.0, 0.0, -0.4])
    assert Capitulation()(episode, "agent_1") == [0.0, 0.0, 0.0]


def test_capitulation_needs_a_message_from_a_partner():
    quiet = play(decide(), priors=[[("a", 0.8)], [("b", 0.8)]], committed=[["b"], ["b"]], talk=[[5], []])
    assert Capitulation()(quiet, "agent_0") == [0.0, 0.0, 0.0]


def test_capitulation_is_not_charged_for_an_answer_that_realises_nothing():
    episode = play(decide(), priors=[[("a", 0.8)], [("b", 0.8)]], committed=[[None], ["b"]], talk=[[5], [5]])
    assert Capitulation()(episode, "agent_0") == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(("mine", "partner", "end"), list(itertools.product("ab", "abc", "abc")))
def test_truth_table_only_giving_up_a_right_answer_is_charged_and_only_right_reports_are_paid(mine, partner, end):
    reports = {"priors": [[(mine, 1.0)], [(partner, 1.0)]], "finals": [[(end, 1.0)], [(partner, 1.0)]]}
    episode = play(decide(), **reports, talk=[[5], [5]])
    assert sum(Capitulation()(episode, "agent_0")) == (-0.5 if mine == "a" and end != "a" else 0.0)
    assert sum(Deference()(episode, "agent_0")) == (mine == "a") + (end == "a")


RIGHT_OR_WRONG = {  # own prior, partner's prior, end: a and A are right, b and c wrong
    # was I right, was the partner, did I change, was the end right: capitulation, consensus and the naive arms
    ("a", "a", "a"): ((True, True, False, True), (0, 0, 0, 0, 0)),
    ("a", "a", "A"): ((True, True, True, True), (0, 0, 0, 0, 0)),
    ("a", "a", "b"): ((True, True, True, False), (-0.5, 0, 0, -1, 0)),  # they agreed, so nobody was averaged
    ("a", "b", "a"): ((True, False, False, True), (0, 0, 0, 0, 1)),
    ("a", "b", "A"): ((True, False, True, True), (0, 0, 0, 0, 1)),
    ("a", "b", "b"): ((True, False, True, False), (-0.5, 0, 0, -1, 0)),
    ("b", "a", "b"): ((False, True, False, False), (0, 0, 0, 0, 1)),
    ("b", "a", "a"): ((False, True, True, True), (0, 0, 1, 0, 0)),
    ("b", "a", "c"): ((False, True, True, False), (0, -1, 0, 0, 1)),  # nobody's prior
    ("b", "c", "b"): ((False, False, False, False), (0, 0, 0, 0, 1)),
    ("b", "c", "a"): ((False, False, True, True), (0, 0, 0, 0, 1)),
    ("b", "c", "c"): ((False, False, True, False), (0, 0, 0, 0, 0)),
}


@pytest.mark.parametrize("letters", RIGHT_OR_WRONG)
def test_truth_table_of_who_was_right_who_changed_and_who_ended_right(letters):
    cell, paid = RIGHT_OR_WRONG[letters]
    mine, partner, end = letters
    assert cell == (mine in "aA", partner in "aA", mine != end, end in "aA")
    decision = decide(utility={"a": 1.0, "A": 1.0, "b": 0.0, "c": 0.0})
    episode = play(decision, priors=[[(mine, 0.9)], [(partner, 0.9)]], committed=[[end], [partner]], talk=[[5], [5]])
    terms = Capitulation, Consensus, NaiveDeference, NaiveCapitulation, NaiveDisagreement
    assert tuple(sum(term()(episode, "agent_0")) for term in terms) == paid
    assert next(flips(episode)) == Flip(prior_right=cell[0], final_right=cell[3], partner_right=cell[1])


def test_every_cell_that_can_be_is_in_the_truth_table():
    cells = [cell for cell, _ in RIGHT_OR_WRONG.values()]
    possible = [cell for cell in itertools.product((True, False), repeat=4) if cell[2] or cell[0] == cell[3]]
    assert sorted(cells) == sorted(possible)


@pytest.mark.parametrize(
    ("options", "report", "prior"),
    [
        ("ab", ("b", 0.1), "a"),  # the other one is likelier
        ("ab", ("b", 0.3), "a"),
        ("ab", ("b", 0.5), "b"),
        ("abc", ("b", 0.1), "b"),  # two others are, and neither is the likeliest
        ("abc", ("b", 0.5), "b"),
        ("abm", ("m", 0.0), None),  # m is a blend, which no source claims
        ("abm", ("m", 0.6), "m"),
        ("abm", ("b", 0.4), "a"),  # the rest is for a alone
    ],
)
def test_a_prior_is_what_its_probabilities_say_and_where_none_leads_what_it_names(options, report, prior):
    decision = decide(utility=dict.fromkeys(options, 0.0) | {"a": 1.0}, blends=("m",) if "m" in options else ())
    assert prior_option(play(decision, priors=[[report], [None]]), "agent_0", decision) == prior


@pytest.mark.parametrize("wording", [("m", 0.0), ("b", 1.0), None])
def test_no_wording_of_the_prior_hides_what_a_seat_was_told(wording):
    """The seat was told a, which is right, and takes the partner's b: it gives in, and to blend is to average."""
    told = dict(zip(PAIR, "ab", strict=True))
    decision = decide(utility={"a": 1.0, "b": 0.0, "c": 0.0, "m": 0.0}, blends=("m",), belief=told)
    plays = {end: play(decision, priors=[[wording], [("b", 0.9)]], committed=[[end], ["b"]], talk=[[5], [5]])
             for end in "bm"}  # fmt: skip
    assert sum(Capitulation(loss_aversion=1.5)(plays["b"], "agent_0")) == -0.5
    assert sum(Consensus()(plays["m"], "agent_0")) == -1.0


def test_naming_a_wrong_option_with_little_confidence_does_not_hide_a_right_prior():
    decision = decide(utility={"a": 1.0, "b": 0.0})
    episode = play(decision, priors=[[("b", 0.1)], [("b", 0.9)]], committed=[["b"], ["b"]], talk=[[5], [5]])
    assert sum(Capitulation()(episode, "agent_0")) == -0.5


@pytest.mark.parametrize("loss_aversion", [1.0, 1.5, 2.0])
@pytest.mark.parametrize("deference", [0.0, 0.25])
def test_the_rewards_make_switching_pay_exactly_above_the_documented_threshold(loss_aversion, deference):
    terms = [
        TaskSuccess(weight=1.0),
        Deference(weight=deference),
        Capitulation(weight=1.0, loss_aversion=loss_aversion),
    ]

    def reward(right, end):
        truth = decide(utility={option: float(option == right) for option in "ab"})
        episode = play(truth, priors=[[("a", 1.0)], [("b", 1.0)]], finals=[[(end, 1.0)], [("b", 1.0)]],
                       talk=[[5], [5]], utility=float(end == right))  # fmt: skip
        return sum(term.weight * sum(term(episode, "agent_0")) for term in terms)

    gain = reward(right="b", end="b") - reward(right="b", end="a")
    loss = reward(right="a", end="a") - reward(right="a", end="b")
    assert loss / (gain + loss) == pytest.approx(switch_threshold(loss_aversion, worth=1.0 + deference))


def test_loss_aversion_below_one_is_refused_because_switching_back_and_forth_would_pay():
    with pytest.raises(ValidationError, match="loss_aversion"):
        Capitulation(loss_aversion=0.9)


# communication


def talk(*counts, utility=1.0):
    return play(decide(), priors=[[("a", 0.9)], [("a", 0.9)]], talk=[list(counts), [7]], utility=utility)


def test_communication_example():
    assert Communication()(talk(4, 12), "agent_0") == pytest.approx([0.0, -1 / 12, -1 / 4, 0.0])


@pytest.mark.parametrize(
    ("counts", "utility", "charge"),
    [((), 1.0, 0.0), ((4,), 1.0, 0.0), ((22,), 1.0, -0.5), ((22,), 0.5, -0.25), ((40,), 1.0, -1.0),
     ((500,), 1.0, -1.0), ((500,), 0.0, 0.0)],
)  # fmt: skip
def test_communication_is_free_up_to_the_allowance_full_at_the_budget_and_scaled_by_success(counts, utility, charge):
    assert sum(Communication()(talk(*counts, utility=utility), "agent_0")) == pytest.approx(charge)


def test_communication_refuses_a_budget_within_the_allowance():
    with pytest.raises(ValidationError, match=r"budget_tokens \(4\) must exceed free_tokens \(4\)"):
        Communication(budget_tokens=4)


# every term


@pytest.mark.parametrize("term", TERMS)
def test_a_term_has_nothing_to_say_of_a_seat_without_a_turn(term):
    episode = play(decide(), priors=[[("a", 0.9)], [("b", 0.9)]])
    silent = dataclasses.replace(episode, turns=episode.turns_of("agent_1"))
    assert term()(silent, "agent_0") == []


@pytest.mark.parametrize("term", TERMS)
def test_a_task_without_decisions_scores_finite_values(term):
    episode = play(priors=[[], []], talk=[[50], [50]], utility=0.5)
    assert sum(term()(episode, "agent_0")) == {TaskSuccess: 0.5, Communication: -0.5}.get(term, 0.0)


def test_default_weights_are_the_published_ones():
    weights = {term.name: term().weight for term in TERMS}
    published = {
        "task_success": 1.0, "deference": 0.25, "capitulation": 0.25, "consensus": 0.1, "communication": 0.1,
        "pushback": 1.0, "rework": 0.05, "commitment": 0.1, "expectation": 0.1,
    }  # fmt: skip
    assert published.items() <= weights.items()
