"""One seat that builds both features of a package: the solo baseline of work on branches."""

import pytest

import envs
from envs.core.episode import Phase
from envs.core.task import BOTH
from envs.scripted.base import Calibrated
from envs.scripted.play import play

PLACES = ["append", "registry", "dispatch", "keywords", "defaults", "returns"]


@pytest.mark.parametrize("place", PLACES)
def test_one_seat_plays_the_tasks_of_a_pair_on_one_branch_and_an_ideal_one_solves_them(place):
    alone, pair = (envs.make("PairedFeatures", families=[place], agents=n, cue_reliability=1.0) for n in (1, 2))
    right = next(seed for seed in range(20) if any(pair.make_task(seed).cell.values()))
    task, shared = alone.make_task(right), pair.make_task(right)
    assert (task.files, task.seed, task.id) == (shared.files, shared.seed, shared.id)
    assert sorted(test.expression for test in task.hidden_tests) == sorted(t.expression for t in shared.hidden_tests)
    assert {*task.stubs["agent_0"].split(BOTH)} == {*shared.stubs.values()}
    for brief in shared.briefs.values():
        assert brief.partition("Your source")[2] in task.briefs["agent_0"]
    assert "partner" not in task.briefs["agent_0"]
    episode = play(alone, {"agent_0": Calibrated()}, right)
    outcome = episode.outcome
    assert outcome.success and outcome.merge and not outcome.merge.conflict and not outcome.forecasts
    assert not any("partner" in turn.observation for turn in episode.turns)
    assert episode.outcome.parts["agent_0"].alone == episode.outcome.parts["agent_0"].merged


def test_a_seat_alone_that_follows_a_wrong_option_fails_and_is_committed_to_it():
    env = envs.make("PairedFeatures", families=["append"], contracts=["offset"], agents=1)
    env.reset(seed=0)
    (decision,) = env.task.decisions
    wrong = next(option for option in decision.options if option != decision.best)
    env.step({"agent_0": f"Answer: {decision.best}"})
    env.step({"agent_0": f"{env.reference_work('agent_0', wrong)}\nSubmit"})
    env.step({"agent_0": f"Answer: {decision.best}"})
    assert not env.agents and not env.episode.outcome.success
    assert env.episode.outcome.committed["agent_0"] == {decision.id: wrong}


def test_a_pair_and_a_seat_alone_have_the_same_tokens_in_all():
    for agents in (1, 2):
        env = envs.make("PairedFeatures", agents=agents, tokens=60)
        env.reset(seed=0)
        while env.phase is not Phase.WORK:
            env.step(dict.fromkeys(env.acting, "Answer: none"))
        assert all(f" {120 // agents} tokens left." in env.observe(seat) for seat in env.seats)
