"""Weights that change: their values in time, how they are written, and that a run goes on with them exactly."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch
from pydantic import ValidationError
from test_reward_stack import Humility, an_episode
from test_reward_terms import play
from trained import Log, repeatable, same
from transformers import TrainerState

from marl_coop.config.errors import ConfigError
from marl_coop.config.schema import load_config
from marl_coop.ppo.reward_weights import RewardWeights
from rewards import RewardStack
from rewards.schedules import After, DualAscent, Linear, Schedule
from rewards.terms.communication import Communication
from rewards.terms.deference import Deference
from rewards.terms.task_success import TaskSuccess

ABLATION = Path(__file__).parent.parent / "configs/ablations/no_communication.yaml"
LINEAR = "{schedule: linear, end: 0.2, updates: 4}"


class Words(tiny.Length):
    """Makes rewards vary, whatever the weight of another term is."""


class Talker:
    """A partner that talks at length."""

    name = "talker"

    def reply(self, env, seat):
        return "word " * 50


class Zigzag(Schedule):
    """Somebody else's."""

    high: float

    def at(self, update):
        return self.high if update % 2 == 1 else 0.0


# ------------------------------------------------------------------------------------------------------ values in time


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        (Linear(end=0.2, begin=2, updates=4), [0, 0, 0, 0.05, 0.1, 0.15, 0.2, 0.2]),
        (Linear(start=0.4, end=0.1, updates=1), [0.4, 0.1, 0.1]),
        (After(updates=3, weight=0.5), [0, 0, 0, 0.5, 0.5]),
        (After(updates=1, weight=0.0, before=0.3), [0.3, 0, 0]),
        (After(updates=0, weight=0.5), [0.5, 0.5]),
    ],
)
def test_a_schedule_at_its_edges_and_at_its_end(schedule, values):
    assert [schedule.at(update) for update in range(len(values))] == pytest.approx(values)
    assert schedule.at(math.inf) == values[-1]


@pytest.mark.parametrize(
    ("weight", "spent", "after"),
    [
        (0.1, 26, 0.16),  # talk above the budget is made dearer
        (0.1, 15, 0.05),
        (0.1, 20, 0.1),
        (0.16, 26, 0.2),  # and never dearer than the cap
        (0.04, 2, 0.0),
    ],
)
def test_dual_ascent_moves_by_the_rate_and_stays_between_0_and_its_cap(weight, spent, after):
    assert DualAscent(rate=0.01, budget=20, max=0.2).moved(weight, spent) == pytest.approx(after)


def test_a_stack_has_the_weights_of_an_update_and_scores_with_those_of_the_end():
    ramp, step = Linear(end=0.2, updates=4), After(updates=2, weight=0.5)
    price = DualAscent(start=0.1, rate=0.01, budget=20)
    stack = RewardStack((TaskSuccess(), Deference(weight=ramp), Humility(weight=step), Communication(weight=price)))
    assert stack.scheduled == ("deference", "humility", "communication")
    third = stack.at(2)
    assert third.scheduled == ()
    numbers = {"task_success": 1.0, "deference": 0.1, "humility": 0.5, "communication": 0.1}
    assert third.score(an_episode()).weights == third.weights() == stack.weights(2) == pytest.approx(numbers)
    assert stack.at(1).weights()["humility"] == 0
    assert stack.score(an_episode()).weights == numbers | {"deference": 0.2}
    assert stack.score(an_episode()).values == third.score(an_episode()).values


# ------------------------------------------------------------------------------------------------------------ in YAML


@pytest.fixture
def ramped(tmp_path) -> Path:
    """A file in which talk has a price that rises."""
    file = tmp_path / "ramped.yaml"
    file.write_text(f"rewards: {{communication: {{weight: {LINEAR}}}}}\n")
    return file


def weight_in(*files, overrides=()):
    return load_config(files, overrides).rewards["communication"]["weight"]


def test_a_schedule_by_name(ramped):
    assert weight_in(ramped) == {"schedule": "linear", "start": 0.0, "end": 0.2, "begin": 0, "updates": 4}
    stack = RewardStack.from_config(load_config([ramped]).rewards)
    assert stack.weights(1)["communication"] == pytest.approx(0.05)


def test_one_key_switches_off_a_term_that_has_a_schedule(ramped):
    assert weight_in(ramped, ABLATION) == weight_in(ramped, overrides=["rewards.communication.weight=0"]) == 0


def test_an_override_sets_one_field_of_a_schedule(ramped):
    assert weight_in(ramped, overrides=["rewards.communication.weight.end=0.3"]) == weight_in(ramped) | {"end": 0.3}
    repeated = "rewards.communication.weight={schedule: linear, start: 0.1}"
    assert weight_in(ramped, overrides=[repeated]) == weight_in(ramped) | {"start": 0.1}


def test_another_schedule_replaces_the_one_below(ramped):
    fields = ["schedule=after", "updates=3", "weight=0.1"]
    replaced = weight_in(ramped, overrides=[f"rewards.communication.weight.{field}" for field in fields])
    assert replaced == {"schedule": "after", "updates": 3, "weight": 0.1, "before": 0.0}


@pytest.mark.parametrize(
    "weight", [LINEAR, "{schedule: dual_ascent, rate: 0.01, budget: 20}", f"{{schedule: '{__name__}:Zigzag', high: 1}}"]
)
def test_what_is_printed_loads_to_the_same(weight, tmp_path):
    config = load_config([], [f"rewards.communication.weight={weight}"])
    (tmp_path / "printed.yaml").write_text(config.to_yaml())
    assert load_config([tmp_path / "printed.yaml"]) == config


def test_a_schedule_of_somebody_else_and_for_a_term_of_somebody_else():
    weight = {"schedule": f"{__name__}:Zigzag", "high": 3.0}
    stack = RewardStack.from_config({"test_reward_stack:Humility": {"weight": weight}})
    assert [stack.weights(update)["humility"] for update in range(3)] == [0, 3, 0]


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("weight={schedule: linaer}", "weight: There is no schedule 'linaer'. Did you mean 'linear'? Known: linear, a"),
        ("weight={end: 0.1}", "weight: {'end': 0.1} is no weight: give a number, or as `schedule` one of linear, aft"),
        ("weight={schedule: 3}", "weight: {'schedule': 3} is no weight: give a number, or as `schedule` one of linea"),
        ("weight={schedule: 'rewards:RewardStack'}", "weight: 'rewards:RewardStack' is <class 'rewards.stack.RewardSt"),
        ("weight={schedule: after, update: 3}", "weight.update: unknown key; did you mean 'updates'?"),
        ("weight={schedule: after, updates: 3}", "weight: 'weight' must be given"),
        ("weight={schedule: after, updates: -1, weight: 1}", "weight.updates: -1 is refused: input should be greater"),
        ("weight={schedule: linear, end: -1, updates: 4}", "weight.end: -1 is refused: input should be greater than"),
        ("weight={schedule: linear, end: .inf, updates: 4}", "weight.end: inf is refused: input should be a finite"),
        ("weight={schedule: linear, end: 1, updates: 0}", "weight.updates: 0 is refused: input should be greater tha"),
        ("weight={schedule: linear, end: 1, updates: 2.5}", "weight.updates: 2.5 is refused: input should be a valid"),
        ("weight={schedule: dual_ascent, budget: 9}", "weight: 'rate' must be given"),
        ("weight={schedule: dual_ascent, budget: 9, rate: 0}", "weight.rate: 0 is refused: input should be greater"),
        ("weight={schedule: dual_ascent, budget: 9, rate: 1, start: 0.3}", "weight: start (0.3) must not exceed max ("),
        ("weight={schedule: dual_ascent, budget: 4, rate: 1}", "weight.budget (4) must exceed free_tokens (4) and"),
        ("weight={schedule: dual_ascent, budget: 41, rate: 1}", "(4) and not exceed budget_tokens (40)"),
    ],
)
def test_a_wrong_schedule_is_one_clear_line(key, message):
    with pytest.raises(ConfigError) as caught:
        load_config([], [f"rewards.communication.{key}"])
    assert message in str(caught.value)
    assert str(caught.value).startswith("command line: rewards.communication")
    assert "\n" not in str(caught.value)


def test_the_file_named_is_the_one_that_holds_the_wrong_field(ramped):
    wrong = ramped.with_name("wrong.yaml")
    wrong.write_text("rewards: {communication: {weight: {strat: 0.1}}}\n")
    with pytest.raises(ConfigError, match=r"wrong.yaml: rewards.communication.weight.strat: unknown key; .*'start'"):
        load_config([ramped, wrong], ["rewards.communication.weight.end=0.3"])


def test_a_budget_needs_a_term_that_counts():
    with pytest.raises(ValidationError, match="deference has no method `spent`"):
        Deference(weight=DualAscent(rate=0.01, budget=20))


# ---------------------------------------------------------------------------------------------------- while training


def priced(budget: float, **options) -> Communication:
    """Talk at a price that moves, charged from the first token on."""
    ascent = {"start": 0.1, "rate": 0.01, "every": 1} | options
    return Communication(weight=DualAscent(budget=budget, **ascent), free_tokens=0)


def trained(folder, rewards, resume=None, **options):
    """A trainer after training, the records of its updates, and of each update the episodes and what they earned."""
    log, played = Log(), []
    keep = lambda update, episodes, breakdowns, _: played.append((episodes, breakdowns))  # noqa: E731
    trainer = tiny.cue_trainer(folder, rewards=rewards, callbacks=[log], on_rollouts=keep, **options)
    trainer.train(resume_from_checkpoint=resume)
    return trainer, log.updates, played


def test_each_update_is_scored_and_logged_with_its_weight(tmp_path):
    rewards = [Words(), tiny.Length(weight=Linear(end=0.2, updates=2))]
    _, records, played = trained(tmp_path, rewards, num_updates=4, num_mini_batches=2)
    values = [0.0, 0.1, 0.2, 0.2]
    assert [record["weight/length"] for record in records] == pytest.approx(values)
    for value, (_, breakdowns) in zip(values, played, strict=True):
        assert [breakdown.weights["length"] for breakdown in breakdowns] == pytest.approx([value] * 8)
    assert "weight/words" not in records[0]
    assert [bool(record["agent_0/advantage_share/length"]) for record in records] == [False, True, True, True]


def test_the_price_of_talk_moves_every_few_updates_by_what_learners_said_in_the_last(tmp_path):
    policies, env = {"agent_0": "agent_0", "agent_1": Talker()}, {"fault_every": 3}
    rewards = [tiny.Length(), priced(8.0, every=2)]
    _, records, played = trained(tmp_path, rewards, policies=policies, env=env, num_updates=5)
    prices = [0.1, 0.1]
    for episodes, _ in (played[1], played[3]):
        said = [sum(turn.message_tokens for turn in e.turns_of("agent_0")) for e in episodes if e.task.seed % 3]
        prices += [prices[-1] + 0.01 * (np.mean(said) - 8.0)] * 2
    assert [record["weight/communication"] for record in records] == pytest.approx(prices[:5])
    assert len(set(prices)) == 3


def test_going_on_from_a_checkpoint_keeps_every_weight(tmp_path):
    rewards = [tiny.Length(weight=Linear(start=1.0, end=0.3, updates=3)), priced(2.0, rate=0.001)]
    options = {"num_updates": 4, "num_mini_batches": 2, "save_updates": 2}
    straight, records, _ = trained(tmp_path, rewards, **options)
    prices = [record["weight/communication"] for record in records]
    assert len(set(prices)) == 4
    state = json.loads((tmp_path / "checkpoint-4/trainer_state.json").read_text())
    assert state["stateful_callbacks"]["reward_weights"] == {"communication": pytest.approx(prices[2])}
    resumed, again, _ = trained(tmp_path, rewards, str(tmp_path / "checkpoint-4"), **options)
    assert repeatable(again) == repeatable(records[2:])
    assert same(tiny.weights(straight.model), tiny.weights(resumed.model))


def test_going_on_within_an_update_counts_it_once(tmp_path):
    rewards, options = [tiny.Length(), priced(2.0, max=1.0)], {"num_mini_batches": 2, "save_updates": 9}
    trained(tmp_path, rewards, max_steps=3, **options)
    resume = str(tmp_path / "checkpoint-3")
    flag = {"restore_callback_states_from_checkpoint": True}  # transformers' own way, which must not get in ours
    _, (second, third), _ = trained(tmp_path, rewards, resume, max_steps=6, **options, **flag)
    rise = third["weight/communication"] - second["weight/communication"]
    assert rise == pytest.approx(0.01 * (second["team/message_tokens_per_episode"] / 2 - 2.0), rel=1e-4)


# ------------------------------------------------------------------------------------------------------- the callback


def reward_weights(*terms, saved=None) -> tuple[RewardWeights, TrainerState]:
    """The callback at the start of a run, on one process, with the state of the trainer."""

    def alone(values):
        assert values.dtype == torch.float32  # also where a process has nothing to add: they must agree
        return values

    weights, state = RewardWeights(RewardStack(terms), total=alone), TrainerState()
    state.stateful_callbacks = {"reward_weights": saved} if saved else {}
    weights.on_train_begin(None, state, None)
    return weights, state


def price_after(weights, state, step, *episodes) -> float:
    """The price once the episodes were played and the step is over, at two steps per update."""
    weights.count([(episode, seat) for episode in episodes for seat in episode.seats])
    state.global_step = step
    weights.on_step_end(SimpleNamespace(steps_per_update=2), state, None)
    return weights.at(step // 2).weights()["communication"]


def talked(*tokens: int):
    """An episode in which each seat sent one message."""
    return play(priors=[[], []], talk=[[n] for n in tokens])


def test_talk_above_the_budget_raises_the_price_and_talk_below_lowers_it():
    weights, state = reward_weights(priced(10.0, every=2))
    assert price_after(weights, state, 2, talked(30, 0)) == 0.1  # only every second update
    assert price_after(weights, state, 4, talked(12, 14), talked(16, 10)) == pytest.approx(0.13)
    assert price_after(weights, state, 5, talked(30, 0)) == pytest.approx(0.13)  # within an update
    assert price_after(weights, state, 8, talked(0, 8)) == pytest.approx(0.07)
    assert price_after(weights, state, 12, talked(40, 40)) == 0.2
    assert state.stateful_callbacks == {"reward_weights": {"communication": 0.2}}


def test_an_update_without_anything_to_learn_from_leaves_the_price():
    weights, state = reward_weights(priced(10.0))
    assert price_after(weights, state, 2, talked(12, 12)) == pytest.approx(0.12)
    assert price_after(weights, state, 4) == pytest.approx(0.12)


def test_a_run_without_a_saved_price_begins_with_the_first_and_one_with_a_plain_number_keeps_it():
    weights, state = reward_weights(priced(10.0), saved={"communication": 0.17})
    assert weights.at(5).weights() == {"communication": 0.17}
    weights.on_train_begin(None, TrainerState(), None)
    assert weights.at(5).weights() == {"communication": 0.1}
    weights, state = reward_weights(Communication(weight=0.05), saved={"communication": 0.17})
    assert weights.at(5).weights() == {"communication": 0.05}


def test_a_term_of_somebody_else_may_have_a_budget():
    class Turns(Humility):
        def spent(self, episode, agent):
            return float(len(episode.turns_of(agent)))

    weights, state = reward_weights(priced(10.0), Turns(weight=DualAscent(rate=0.01, budget=1)))
    price_after(weights, state, 20, talked(10, 10))
    assert weights.at(10).weights() == pytest.approx({"communication": 0.1, "turns": 0.1 + 0.01 * (3 - 1)})
