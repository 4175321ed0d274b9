"""Scripted partners: they keep the grammar, know only what their seat knows, and the ideal one is the best."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from played import episodes, other

from envs import CoopEnv
from envs.core.env import SEATS
from envs.core.episode import ActKind, Outcome, Phase, StopReason
from envs.core.posterior import named_option
from envs.core.task import Decision, Task
from envs.design_review import DesignReview
from envs.families import HELD_OUT, TRAINING
from envs.families.sources import SOURCES
from envs.paired_functions import PairedFunctions
from envs.scripted.base import Calibrated, promised
from envs.scripted.demonstrator import Demonstrator
from envs.scripted.exploits import EXPLOITS, AlwaysDefer, Averager, NeverDefer
from rewards import TERMS, RewardStack

ENVIRONMENTS = [
    PairedFunctions(rounds=1),
    PairedFunctions(rounds=2, acts=True, confidences=False),
    DesignReview(),
    DesignReview(decisions=3, rounds=2),
    DesignReview(decisions=3, rounds=2, acts=True),
    DesignReview(rounds=0, acts=True),
]
READABLE = [partner for name, partner in EXPLOITS.items() if name not in ("no-prior", "no-answer")]
NO_BLAME = [*READABLE, Demonstrator(np.random.default_rng(0))]
WITH_ACTS = [PairedFunctions(rounds=2, acts=True), DesignReview(decisions=3, rounds=2, acts=True)]


@pytest.mark.parametrize("env", ENVIRONMENTS, ids=str)
@pytest.mark.parametrize("partner", NO_BLAME, ids=lambda p: type(p).__name__)
def test_no_partner_ever_breaks_the_grammar(env, partner):
    for episode in episodes(env, partner, 12):
        assert [turn.reply for turn in episode.turns if turn.parse_error is not None] == []
        assert all(len(t.stances) == len(episode.task.decisions) for t in episode.turns if t.phase is not Phase.TALK)


@pytest.mark.parametrize("env", [PairedFunctions(), DesignReview()], ids=str)
def test_a_calibrated_pair_succeeds_far_more_often_than_any_fixed_habit(env):
    success = {
        type(partner).__name__: np.mean([e.outcome.success for e in episodes(env, partner, 60)])
        for partner in (Calibrated(), AlwaysDefer(), NeverDefer(), Averager())
    }
    assert success.pop("Calibrated") > 0.65 and max(success.values()) < 0.35


def test_a_calibrated_partner_is_as_sure_as_it_is_right():
    env = DesignReview()
    groups = {}
    for episode in episodes(env, Calibrated(), 2000):
        decision = episode.task.decisions[0]
        for seat in SEATS:
            for stance in (episode.prior(seat, decision.id), episode.final(seat, decision.id)):
                groups.setdefault(stance.confidence, []).append(decision.is_right(stance.option))
    assert len(groups) == 4
    for confidence, right in groups.items():
        assert abs(np.mean(right) - confidence) < 0.03, (confidence, np.mean(right))


def test_two_always_deferring_seats_swap_their_answers():
    env = DesignReview(cells={"both_right": 0, "both_wrong": 0})
    for episode in episodes(env, AlwaysDefer(), 20):
        (decision,) = episode.task.decisions
        assert episode.committed("agent_0", decision.id) == decision.belief["agent_1"]
        assert episode.committed("agent_1", decision.id) == decision.belief["agent_0"]


def test_an_averager_settles_for_the_blend_on_every_disagreement():
    env = PairedFunctions(cells={"both_right": 0, "both_wrong": 0})
    for episode in episodes(env, Averager(), 20):
        (decision,) = episode.task.decisions
        assert episode.committed("agent_0", decision.id) == decision.blends[0]


def expectations(episode):
    """(seat, act) of every prediction."""
    return [(turn.agent, act) for turn in episode.turns for act in turn.acts if act.kind is ActKind.EXPECT]


@pytest.mark.parametrize("env", WITH_ACTS, ids=str)
def test_a_calibrated_pair_keeps_its_promises_and_foresees_each_other(env):
    promises = 0
    for episode in episodes(env, Calibrated(), 30):
        for seat, act in expectations(episode):
            assert act.confidence == 1.0 and episode.committed(other(seat), act.decision) == act.option
        for seat in SEATS:
            for decision in episode.task.decisions:
                option = promised(episode.turns_of(seat), decision)
                promises += option is not None
                assert option in (None, episode.committed(seat, decision.id))
        assert len(expectations(episode)) == 2 * len(episode.task.decisions)
    assert promises > 30


@pytest.mark.parametrize("env", [PairedFunctions(rounds=3), PairedFunctions(rounds=3, acts=True)], ids=str)
def test_a_calibrated_partner_says_nothing_twice_and_promises_nothing_that_goes_without_saying(env):
    for episode in episodes(env, Calibrated(), 30):
        (decision,) = episode.task.decisions
        agreed = len(set(decision.belief.values())) == 1
        for seat in SEATS:
            said = [turn.message for turn in episode.turns_of(seat) if turn.message]
            knows = env.config.acts and decision.cue[seat] == "strong"
            first = f"Commit: {decision.belief[seat]}" if knows else decision.belief[seat]
            commits = env.config.acts and not (agreed or knows)
            later = [f"Commit: {episode.committed(seat, decision.id)}"] if commits else []
            # of two estimates both know the pool
            assert said == ([decision.told(seat)] if decision.is_estimate else [first, *later])


@pytest.mark.parametrize(
    ("messages", "strong", "weak"),  # what it expects, by its own source; both told what they know, unless it is PASS
    [
        (["PASS", "PASS"], ("own", 1.0), ("own", 0.38)),  # the sources agree in 3 of 8 tasks
        (["own", "PASS"], ("own", 1.0), ("own", 1.0)),
        (["new", "PASS"], ("own", 1.0), ("new", 1.0)),  # who has the doubtful source will yield
        (["new", "Commit: own"], ("own", 1.0), ("own", 1.0)),
        (["Commit: own", "Retract:"], ("own", 1.0), ("own", 1.0)),
        (["Commit: new", "Retract:"], ("own", 1.0), ("new", 1.0)),
        (["Commit: new", "Commit: blend"], ("blend", 1.0), ("blend", 1.0)),
    ],
)
def test_what_a_calibrated_partner_expects(messages, strong, weak):
    env = DesignReview(rounds=2, acts=True, distractors=0)
    cues = set()
    for seed in range(8):
        env.reset(seed=seed)
        (decision,) = env.task.decisions
        cues.add(decision.cue["agent_0"])
        expected = {"strong": strong, "weak": weak}[decision.cue["agent_0"]]
        own, blend = decision.belief["agent_0"], decision.blends[0]
        option = {"own": own, "blend": blend, "new": next(o for o in decision.options if o not in (own, blend))}
        for text in ["PASS", *messages]:
            for word, name in option.items():
                text = text.replace(word, name) if word in text.split() else text
            env.step({"agent_0": Calibrated().reply(env, "agent_0"), "agent_1": text})
        first, *_ = Calibrated().reply(env, "agent_0").splitlines()
        assert first == f"Expect: {option[expected[0]]} ({expected[1]:.0%})"
    assert cues == {"strong", "weak"}


def test_a_calibrated_partner_believes_the_first_word_and_not_the_echo():
    """A partner that takes over the option brings no second source for it."""
    env = DesignReview(rounds=2, acts=True, cells={"both_right": 0, "both_wrong": 0})
    for episode in episodes(env, Calibrated(), 20):
        (decision,) = episode.task.decisions
        assert {episode.final(seat, decision.id).confidence for seat in SEATS} == {0.95}


def test_a_partner_knows_only_what_its_seat_may_know():
    """Swap the partner's private belief and cue: as long as it says the same, the seat replies the same."""
    env = DesignReview(cells={"both_right": 0, "both_wrong": 0})
    for seed in range(30):
        for partner in EXPLOITS.values():
            replies = []
            for hidden in (False, True):
                env.reset(seed=seed)
                decision = env.task.decisions[0]
                if hidden:
                    decision.belief["agent_1"] = "nothing"
                    decision.cue["agent_1"] = "nothing"
                    decision.utility.clear()
                said = decision.options[seed % 4]
                stance = partner.reply(env, "agent_0")
                env.step({"agent_0": stance, "agent_1": "PASS"})
                message = partner.reply(env, "agent_0")
                env.step({"agent_0": message, "agent_1": f"I have {said}"})
                replies.append((stance, message, partner.reply(env, "agent_0")))
            assert replies[0] == replies[1]


@pytest.mark.parametrize(
    ("text", "quality"),
    [
        ("{} reliable", "reliable"),
        ("Reliable: {}.", "reliable"),
        ("My source is doubtful: {}.", "doubtful"),
        ("I have {}.", ""),
        ("unreliable: {}", ""),
        ("reliable: {}s", ""),
    ],
)
def test_how_good_a_source_is_may_be_said_before_what_it_claims_or_after(text, quality):
    env = DesignReview(families=["error_style"])
    env.reset(seed=0)
    (decision,) = env.task.decisions
    option = decision.belief["agent_1"]
    for reply in (f"Answer: {option} (80%)", text.format(option)):
        env.step(dict.fromkeys(SEATS, reply))
    claims = env.claims("agent_0", decision)
    assert claims == ({} if text.endswith("s") else {"agent_1": (option, quality)})


@pytest.mark.parametrize("env", [PairedFunctions(families=["separator", "key"]), DesignReview()], ids=str)
def test_a_message_with_a_blend_names_the_blend_and_not_its_first_half(env):
    for seed in range(60):
        (decision,) = env.make_task(seed).decisions
        for option in decision.options:
            assert named_option([f"Mine says {option}."], decision) == option


def test_a_message_names_an_option_in_any_case_but_no_part_of_a_longer_word():
    (decision,) = PairedFunctions(families=["offset"]).make_task(0).decisions
    number, other = decision.options[:2]
    assert named_option([f"x{number} or {number}0"], decision) is None
    assert named_option([number, "nothing"], decision) == number
    assert named_option(["nothing", f"{other}, not {number}", number], decision) == other
    assert named_option([], decision) is None
    (decision,) = DesignReview(families=["auth_scheme"]).make_task(0).decisions
    assert named_option([decision.options[0].upper()], decision) == decision.options[0]


@pytest.mark.parametrize("family", [family.name for family in (*TRAINING, *HELD_OUT)])
def test_no_name_of_a_source_is_taken_for_an_option_or_for_the_decision(family):
    decision = PairedFunctions(families=[family]).make_task(0).decisions[0]
    option = decision.best
    for pool in SOURCES.values():
        for name in (*pool.strong, *pool.weak, *pool.measured):
            named = replace(decision, source=dict.fromkeys(decision.belief, name))
            for said in (f"My source, {name}, says {option}.", f"I got {option} from {name}.", f"{option} in {name}"):
                assert named_option([said], named) == option, said


class Recipe(CoopEnv):
    """What one must write of an environment and no more: briefs, one decision without blends, and what comes of it."""

    def make_task(self, seed):
        true, false = ("red", "blue") if seed % 2 else ("blue", "red")
        decision = Decision(
            id="colour",
            options=("red", "blue"),
            utility={true: 1.0, false: 0.0},
            belief={"agent_0": true, "agent_1": false},
            expert="agent_0",
            cue={"agent_0": "strong", "agent_1": "weak"},
        )
        return Task(
            id=f"recipe-{seed}",
            family="recipe",
            seed=seed,
            seats=SEATS,
            briefs={seat: f"You were told {decision.belief[seat]}." for seat in SEATS},
            decisions=(decision,),
            cell={"agent_0": True, "agent_1": False},
        )

    def finish(self, turns):
        held = {seat: turns[seat].stances[0].option for seat in SEATS}
        right = [self.task.decisions[0].is_right(option) for option in held.values()]
        committed = {seat: {"colour": option} for seat, option in held.items()}
        return Outcome(utility=sum(right) / 2, success=all(right), committed=committed), StopReason.FINISHED


@pytest.mark.parametrize("acts", [False, True])
@pytest.mark.parametrize("partner", NO_BLAME, ids=lambda p: type(p).__name__)
def test_an_environment_of_the_least_that_one_can_write_is_played_and_paid(partner, acts):
    stack = RewardStack.from_config({term.name: {} for term in TERMS})
    for episode in episodes(Recipe(acts=acts), partner, 6):
        assert [turn.reply for turn in episode.turns if turn.parse_error is not None] == []
        values = stack.score(episode).values
        assert all(np.isfinite(paid).all() for seat in SEATS for paid in values[seat].values())


def test_without_blends_the_demonstrator_still_ends_on_both_options():
    ends = Counter(e.committed("agent_0", "colour") == "red" for e in episodes(Recipe(), NO_BLAME[-1], 60))
    assert min(ends[True], ends[False]) > 10
