"""A confidence where none is asked for: it is in no record, pays nothing and is not measured."""

import pytest
import tiny
from trained import trained

import envs
from envs.core.episode import Episode, Phase
from envs.scripted.base import Calibrated
from envs.scripted.exploits import Averager
from envs.scripted.play import play
from rewards import RewardStack
from rewards.metrics import compare, measure, of_seats

OF_CONFIDENCES = ("brier", "ece", "auroc", "expectation_brier")
A, B = tiny.SEATS
STACK = RewardStack.from_config({"deference": {}, "capitulation": {}, "expectation": {}, "foresight": {"weight": 1.0}})


def reply(env, seat, sure):
    """Answers, acts and forecasts of one phase, each followed by `sure`."""
    words = ["Propose"] if env.phase in (Phase.TALK, Phase.WORK) else ["Answer", "Expect"]
    lines = [f"{word} {d.id}: {d.options[0]}{sure}" for d in env.asked(seat) for word in words]
    return "\n".join([*lines, *(["x = 1", f"Expect merge: clean{sure}"] if env.phase is Phase.FINAL else [])])


@pytest.mark.parametrize(
    ("env_class", "fields"),
    [
        (envs.DesignReview, {"acts": True, "decisions": 2}),
        (envs.PairedFunctions, {"acts": True}),
        (envs.PairedFeatures, {"acts": True, "rounds": 2}),
        (envs.MoonSurvival, {"acts": True, "items": 3}),
        (envs.Handover, {}),
    ],
)
def test_a_confidence_that_nobody_asked_for_is_in_no_record_and_pays_nothing(env_class, fields):
    env = env_class(confidences=False, **fields)
    episodes = []
    for sure in (" (30%)", ""):
        env.reset(seed=3)
        while env.agents:
            env.step({seat: reply(env, seat, sure) for seat in env.acting})
        episodes.append(env.episode)
    named, plain = episodes
    sure = [said.confidence for turn in named.turns for said in (*turn.stances, *turn.acts)]
    assert sure and set(sure) == {1.0}
    assert STACK.score(named) == STACK.score(plain)


@pytest.mark.parametrize("asked", [True, False])
def test_training_logs_what_confidences_are_worth_where_they_are_asked_for(tmp_path, asked):
    _, (record,) = trained(tmp_path, env={"confidences": asked}, policies={A: A, B: Calibrated()})
    logged = record.keys() & {f"team/{name}" for name in OF_CONFIDENCES}
    assert bool(logged) == asked and "team/success" in record


@pytest.mark.parametrize("asked", [True, False])
def test_no_table_says_what_a_confidence_is_worth_that_nobody_was_asked_for(asked):
    env = envs.DesignReview(confidences=asked, acts=True)
    played = [play(env, {A: Averager(), B: Calibrated()}, seed) for seed in range(12)]
    read = [Episode.from_json(episode.to_json()) for episode in played]  # as records have them
    for found in (measure(read), compare(read, read), measure(read, of_seats(lambda episode: [A]))):
        for name in ("brier", "ece", "auroc"):
            assert (found[name].value is not None, found[name].n > 0) == (asked, asked)
        assert found["success"].n == 12
