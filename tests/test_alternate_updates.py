"""`alternate_updates`: one adapter learns while the other stands still, and they swap."""

import json
import logging

import pytest
import tiny
import torch
from processes import launch
from trained import Log, repeatable, same, trained

from marl_coop.config.errors import ConfigError
from marl_coop.config.schema import load_config

A, B = tiny.SEATS
TURNS = {"alternate_updates": 2, "weight_decay": 0.1, "kl_coef": 0.1, "kl_reference": "start"}


class Weights(Log):
    """Keeps the weights before and after each step."""

    def __init__(self):
        super().__init__()
        self.steps = []

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        self.steps.append([tiny.weights(model)])

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.steps[-1].append(tiny.weights(model))


def moved(before, after):
    """The adapters of which something has moved, and whether all of it has: adapter and critic."""
    names = {seat: [name for name in before if f".{seat}." in name] for seat in tiny.SEATS}
    changed = {seat: [not torch.equal(before[name], after[name]) for name in names[seat]] for seat in names}
    assert all(any("critics" in name for name in names[seat]) for seat in names)
    assert all(all(changes) or not any(changes) for changes in changed.values())
    return [seat for seat in names if all(changed[seat])]


@pytest.mark.parametrize("advantage", ["gae", "counterfactual"])
def test_one_learns_while_the_other_stands_still_and_they_swap(tmp_path, advantage):
    """After the first swap Adam has momentum for who stands still, and its weights would decay."""
    options = TURNS | {"num_mini_batches": 2, "num_updates": 5, "advantage": advantage}
    trainer = tiny.cue_trainer(tmp_path, callbacks=[log := Weights()], **options)
    trainer.train()
    assert [moved(*step) for step in log.steps] == [[A]] * 4 + [[B]] * 4 + [[A]] * 2
    for record, learner in zip(log.updates, [A, A, B, B, A], strict=True):
        other = B if learner == A else A
        assert {f"{learner}/{name}" for name in ("policy_loss", "value_loss", "explained_variance")} <= record.keys()
        assert not {f"{other}/{name}" for name in ("policy_loss", "value_loss", "explained_variance")} & record.keys()
        assert f"{other}/reward" in record


def test_who_stands_still_is_credited_with_nothing(tmp_path):
    seen = []
    trainer = tiny.cue_trainer(
        tmp_path, on_rollouts=lambda update, episodes, breakdowns, credits: seen.append(credits), **TURNS
    )
    for update in (0, 1, 2):
        trainer.play(update)
        rows, _ = trainer.minibatch(update, 0, 0)
        assert {row.seat for row in rows} == {A if update < 2 else B}
    assert [{seat for credit in credits for seat in credit.turns} for credits in seen] == [{A}, {A}, {B}]


def test_three_adapters_take_turns_in_the_order_of_the_seats(tmp_path):
    args = tiny.arguments(tmp_path, alternate_updates=2)
    assert ["".join(args.learners("xyz", update)) for update in range(7)] == [*"xxyyzzx"]
    assert tiny.arguments(tmp_path).learners("xyz", 3) == ("x", "y", "z")


def test_without_a_critic_they_take_turns_too(tmp_path):
    options = {"alternate_updates": 1, "advantage": "group", "num_generations": 4, "num_updates": 2}
    trainer = tiny.cue_trainer(tmp_path, callbacks=[log := Weights()], **options)
    trainer.train()
    for (before, after), still in zip(log.steps, (B, A), strict=True):
        same_as_before = {name for name in before if torch.equal(before[name], after[name])}
        assert same_as_before == {name for name in before if f".{still}." in name}


@pytest.mark.parametrize("stopped", [1, 3])
def test_a_resumed_run_goes_on_with_whose_turn_it_is(tmp_path, stopped):
    """At 1 the other adapter has never learned, at 3 its turn is half over."""
    options = TURNS | {"num_updates": 4, "save_updates": 1, "save_total_limit": None}
    straight, records = trained(tmp_path, **options)
    policy = tiny.team(tiny.base_model(len(straight.processing_class)))
    resumed = tiny.cue_trainer(tmp_path, policy=policy, callbacks=[log := Log()], **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{stopped}"))
    assert same(tiny.weights(straight.model), tiny.weights(resumed.model))
    assert repeatable(log.updates) == repeatable(records[stopped:])


SCRIPT = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
import tiny
from trained import Log, record_rank

folder = Path(sys.argv[1])
trainer = tiny.cue_trainer(
    folder / "run", callbacks=[log := Log()], alternate_updates=1, num_mini_batches=2, num_updates=3,
    optim="sgd", learning_rate=1.0, critic_learning_rate=1.0, weight_decay=0.01,
)
trainer.train()
record_rank(folder, trainer, log)
"""


@pytest.mark.slow
def test_two_processes_do_what_one_does(tmp_path):
    (one,), (first, second) = (launch(SCRIPT, tmp_path / str(n), n) for n in (1, 2))
    assert json.dumps(first["weights"]) == json.dumps(second["weights"])
    for name, weight in first["weights"].items():
        assert torch.allclose(torch.tensor(one["weights"][name]), torch.tensor(weight), rtol=0, atol=1e-4)
    for alone, together in zip(one["updates"], first["updates"], strict=True):
        assert alone == pytest.approx(together, rel=1e-3, abs=1e-3)


def test_who_has_not_had_a_turn_is_not_said_to_be_taught_nothing(tmp_path, caplog):
    policy = tiny.team(tiny.base_model(len(tiny.word_tokenizer(tiny.WORDS))), trained=False)
    with caplog.at_level(logging.WARNING, logger="marl_coop"):
        tiny.cue_trainer(tmp_path, policy=policy, num_updates=3, alternate_updates=1).train()
    assert not [record for record in caplog.records if "just what the base does" in record.message]


def test_one_adapter_alone_is_refused_in_one_line(tmp_path):
    shared = ["policies={agent_0: team, agent_1: team}", "training.alternate_updates=2"]
    with pytest.raises(ConfigError) as caught:
        load_config([], shared)
    assert "training.alternate_updates: 2 is refused: team alone is trained" in str(caught.value)
    assert "\n" not in str(caught.value)
    policy = tiny.team(tiny.base_model(len(tiny.word_tokenizer(tiny.WORDS))), adapters=("team",))
    with pytest.raises(ValueError, match=r"training\.alternate_updates: 2 is refused: team alone is trained"):
        tiny.cue_trainer(tmp_path, policy=policy, policies=dict.fromkeys(tiny.SEATS, "team"), alternate_updates=2)
    with pytest.raises(ConfigError, match=r"training\.alternate_updates: 0 is refused"):
        load_config([], ["training.alternate_updates=0"])
