"""The ideal's expectation of its partner is a best response: no other forecast has a higher expected score."""

from collections import defaultdict
from itertools import product
from typing import NamedTuple

import pytest

from envs.core.design import Cells
from envs.core.env import SEATS
from envs.core.episode import Phase, Stance
from envs.core.posterior import named_option
from envs.core.task import Decision
from envs.design_review import DesignReview
from envs.paired_functions import PairedFunctions
from envs.scripted.base import Calibrated
from envs.scripted.play import play
from rewards.terms.scores import quadratic_score

IDEAL = Calibrated()
TASKS = 320  # so many are balanced, so their mean is the expectation but for the rounding


class Case(NamedTuple):
    """A forecast of a seat at the end of an episode of ideal play."""

    knows: tuple[str, str | None]  # its cue, and whether the partner named its own option, another or none
    decision: Decision
    own: str
    heard: str | None
    forecast: tuple[str, float]
    realised: str  # by the partner

    def score(self, option, confidence):
        stance = Stance(decision=self.decision.id, option=option, confidence=confidence)
        return quadratic_score(stance, self.decision, self.realised)


def cases(env, seeds):
    for seed in seeds:
        env.reset(seed=seed)
        while env.phase is not Phase.FINAL:
            env.step({seat: IDEAL.reply(env, seat) for seat in env.acting})
        for seat, partner in (SEATS, SEATS[::-1]):
            for decision in env.task.decisions:
                own, heard = decision.belief[seat], named_option(env.heard(seat), decision)
                knows = decision.cue[seat], heard and ("own" if heard == own else "other")
                forecast, realised = IDEAL.expect(env, seat, decision), IDEAL.realise(env, partner, decision)[0]
                yield Case(knows, decision, own, heard, forecast, realised)


def test_who_is_alone_expects_nothing():
    episode = play(DesignReview(agents=1, acts=True), {"agent_0": IDEAL}, seed=0)
    assert not any(turn.acts or turn.parse_error for turn in episode.turns)


def test_of_a_silent_partner_among_others_it_expects_the_mean_of_them():
    """The one with the reliable source says nothing: of the other two each holds what it told."""
    env = DesignReview(agents=3, acts=True)
    seed = next(seed for seed in range(50) if env.make_task(seed).decisions[0].cue["agent_0"] == "strong")
    env.reset(seed=seed)
    (decision,) = env.task.decisions
    first, second = (option for option in decision.claimable if option != decision.belief["agent_0"])
    env.step({seat: IDEAL.reply(env, seat) for seat in env.seats})
    env.step({"agent_0": "PASS", "agent_1": first, "agent_2": second})
    assert IDEAL.expect(env, "agent_0", decision) == (first, 0.5)


@pytest.mark.parametrize("rounds", [0, 1, 2])
@pytest.mark.parametrize(
    "cells", [Cells(), Cells(both_right=0.1, one_right=0.8, both_wrong=0.1)], ids=["even", "apart"]
)
@pytest.mark.parametrize(
    ("env_class", "fields"),
    [
        (DesignReview, {"cue_reliability": 0.7}),
        (DesignReview, {"decisions": 2}),
        (DesignReview, {"expert": "hidden"}),
        (PairedFunctions, {"families": ["offset", "separator", "key"]}),
    ],
)
def test_no_forecast_of_the_partner_is_better_than_the_ideals(env_class, fields, cells, rounds):
    env = env_class(acts=True, rounds=rounds, cells=cells, **fields)
    honest, others = defaultdict(list), defaultdict(lambda: defaultdict(list))
    for case in cases(env, range(TASKS)):
        honest[case.knows].append(case.score(*case.forecast))
        decision, own, heard = case.decision, case.own, case.heard
        habits = {
            "own": [own],
            "heard": [heard or own],
            "blend": decision.blends,
            "distractor": decision.distractors[:1],
        }
        habits["another"] = [o for o in decision.claimable if o not in (own, heard)]  # which it cannot tell apart
        for (habit, options), percent in product(habits.items(), range(0, 101, 10)):
            scores = [case.score(option, percent / 100) for option in options]
            others[case.knows][habit, percent].append(sum(scores) / len(scores))
    assert {cue for cue, _ in honest} == ({"unknown"} if env.config.expert == "hidden" else {"strong", "weak"})
    for knows, scores in honest.items():
        best = max(map(sum, others[knows].values())) / len(scores)
        assert best <= sum(scores) / len(scores) + 2e-3, (knows, best)
        assert rounds == 0 or set(scores) == {1.0}  # both know all, and so what the other will do
