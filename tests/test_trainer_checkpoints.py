"""Runs that repeat, checkpoints that go on as if nothing had stopped, and what is saved and reported."""

import json
import math

import tiny
import torch
from peft import PeftModel
from trained import Log, repeatable, same, trained

from marl_coop.policy.routed_lora import spans_of
from rewards.terms.task_success import TaskSuccess


def test_the_same_run_twice(tmp_path):
    first, records = trained(tmp_path / "first", num_updates=2, num_mini_batches=2)
    second, again = trained(tmp_path / "second", num_updates=2, num_mini_batches=2)
    assert same(tiny.weights(first.model), tiny.weights(second.model))
    assert repeatable(records) == repeatable(again)
    other, _ = trained(tmp_path / "other", num_updates=2, num_mini_batches=2, seed=1)
    assert not same(tiny.weights(first.model), tiny.weights(other.model), 1e-3)


def test_going_on_from_a_checkpoint_is_not_having_stopped(tmp_path):
    options = {"num_updates": 4, "num_mini_batches": 2, "save_updates": 2, "lr_scheduler_type": "linear"}
    straight, records = trained(tmp_path, **options)
    assert sorted(folder.name for folder in tmp_path.glob("checkpoint-*")) == ["checkpoint-4", "checkpoint-8"]
    torch.manual_seed(123)
    policy = tiny.team(tiny.base_model(len(straight.processing_class)), seed=99)  # other weights: all must be loaded
    resumed = tiny.cue_trainer(tmp_path, policy=policy, callbacks=[log := Log()], **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert same(tiny.weights(straight.model), tiny.weights(resumed.model))
    assert repeatable(log.updates) == repeatable(records[2:])


def test_going_on_from_the_middle_of_an_update(tmp_path):
    """`max_steps` need not be whole updates, and the last step is always saved."""
    tiny.cue_trainer(tmp_path, num_mini_batches=2, max_steps=3).train()
    resumed = tiny.cue_trainer(tmp_path, num_mini_batches=2, max_steps=6)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert resumed.state.global_step == 6


def test_what_is_saved(tmp_path):
    trainer, _ = trained(tmp_path, save_updates=1)
    trainer.save_model()
    for folder in (tmp_path, tmp_path / "checkpoint-1"):
        names = {str(file.relative_to(folder)) for file in folder.rglob("*")}
        assert {
            "critics.pt",
            *(f"{s}/{n}" for s in tiny.SEATS for n in ("adapter_model.safetensors", "adapter_config.json")),
        } <= names
    assert {"optimizer.pt", "scheduler.pt", "trainer_state.json"} <= {
        file.name for file in (tmp_path / "checkpoint-1").iterdir()
    }
    ids = torch.arange(6)[None]
    for seat in tiny.SEATS:
        alone = PeftModel.from_pretrained(tiny.base_model(len(trainer.processing_class)), tmp_path / seat).eval()
        with torch.no_grad():
            routed = trainer.model.logits(trainer.model.hidden(spans_of([seat]), ids))
            assert torch.allclose(alone(ids).logits, routed, atol=1e-5)


def test_what_is_reported(tmp_path):
    _, records = trained(tmp_path, rewards=[tiny.Length(), TaskSuccess()], num_updates=2, kl_coef=0.1)
    of_a_seat = """reward reward/length reward/task_success advantage_share/length generated_tokens
        explained_variance policy_loss value_loss
        clip_fraction kl_to_reference entropy approx_kl ratio"""
    expected = {f"{seat}/{name}" for seat in tiny.SEATS for name in of_a_seat.split()}
    expected |= {"team/success", "team/parse_rate", "team/message_tokens_per_episode", "team/sandbox_fault_rate"}
    expected |= {"update", "loss", "grad_norm", "learning_rate", "non_finite_losses"}
    assert [record["update"] for record in records] == [1, 2]
    for record in records:
        assert expected <= record.keys()
        assert all(math.isfinite(value) for value in record.values())
        json.dumps(record)


def test_a_metric_without_a_case_is_left_out(tmp_path):
    """CDR has no case where nobody's stance could be read: no number, no warning."""
    _, (record,) = trained(tmp_path, max_stance_tokens=1, episodes_per_update=1)
    assert record["team/parse_rate"] < 1
    assert "team/cdr" not in record


def test_a_kl_of_weight_0_is_neither_computed_nor_reported(tmp_path):
    _, (record,) = trained(tmp_path, kl_coef=0.0)
    assert "agent_0/entropy" in record and "agent_0/kl_to_reference" not in record
