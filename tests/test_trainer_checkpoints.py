"""Runs that repeat, checkpoints that go on as if nothing had stopped, and what is saved and reported."""

import json
import math
from pathlib import Path

import pytest
import tiny
import torch
from peft import PeftModel
from trained import Log, repeatable, same, trained
from transformers import TrainerCallback

from marl_coop.config.errors import ConfigError
from marl_coop.config.schema import load_config
from marl_coop.experiment.checks import check_length
from marl_coop.experiment.setup import training_arguments
from marl_coop.policy.routed_lora import spans_of
from marl_coop.ppo.processes import naming_lost_processes
from marl_coop.runs.rundir import LostProcessError
from rewards.terms.task_success import TaskSuccess

ROOT = Path(__file__).parents[1]


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


@pytest.mark.parametrize("warmup_steps", [0, 5])
def test_a_run_that_is_made_longer_has_the_rates_of_one_that_was_so_from_the_start(tmp_path, warmup_steps):
    options = {"lr_scheduler_type": "linear", "num_mini_batches": 2, "save_updates": 2, "warmup_steps": warmup_steps}
    options["episodes_per_update"] = 2
    _, straight = trained(tmp_path / "straight", num_updates=5, **options)
    trained(tmp_path / "short", num_updates=3, **options)
    longer = tiny.cue_trainer(tmp_path / "short", callbacks=[log := Log()], num_updates=5, **options)
    longer.train(resume_from_checkpoint=str(tmp_path / "short" / "checkpoint-4"))
    rates = [record["learning_rate"] for record in straight]
    assert [record["learning_rate"] for record in log.updates] == pytest.approx(rates[2:], rel=1e-12)
    first = [group["initial_lr"] for group in longer.optimizer.param_groups]
    assert first == [longer.args.learning_rate] * 2 + [longer.args.critic_learning_rate]


@pytest.mark.parametrize("updates", [3, 5])
def test_the_first_step_of_a_resumed_run_is_at_the_rate_of_its_own_length(tmp_path, updates):
    options = {"lr_scheduler_type": "linear", "num_mini_batches": 2, "save_updates": 2, "episodes_per_update": 2}
    trained(tmp_path, num_updates=3, **options)
    seen = []

    class Rates(TrainerCallback):
        def on_step_begin(self, args, state, control, optimizer=None, **kwargs):
            seen.append([group["lr"] for group in optimizer.param_groups])

    longer = tiny.cue_trainer(tmp_path, callbacks=[Rates()], num_updates=updates, **options)
    longer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    left = 1 - 4 / (2 * updates)
    assert seen[0] == pytest.approx([longer.args.learning_rate * left] * 2 + [longer.args.critic_learning_rate * left])


def test_what_is_saved(tmp_path):
    trainer, _ = trained(tmp_path, save_updates=1)
    trainer.save_model()
    for folder in (tmp_path, tmp_path / "checkpoint-1"):
        names = {str(file.relative_to(folder)) for file in folder.rglob("*")}
        assert {
            "critics.safetensors",
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


@pytest.mark.parametrize(
    ("words", "key"), [(["training.num_updates=2"], "num_updates"), (["training.max_steps=7"], "max_steps")]
)
def test_a_run_does_not_go_on_as_one_that_ends_before_its_checkpoint(words, key):
    config = load_config([ROOT / "configs/quickstart.yaml"], words)
    args = training_arguments(config)
    check_length(config, args, Path(f"checkpoint-{args.max_steps}"))  # it ends there
    problem = rf"training.{key}: \d is refused: checkpoint-99 has taken 99 optimisation steps, and this comes to \d+;"
    with pytest.raises(ConfigError, match=problem):
        check_length(config, args, Path("checkpoint-99"))


def test_a_process_that_is_lost_while_a_checkpoint_is_written_is_no_trouble_of_the_disk(tmp_path):
    trainer = tiny.cue_trainer(tmp_path)

    def wait():
        raise RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer")

    with pytest.raises(LostProcessError):
        trainer.save_checkpoint(wait)
    trainer.accelerator.wait_for_everyone = wait
    with pytest.raises(LostProcessError), naming_lost_processes():
        trainer.save_checkpoint(lambda: None)
