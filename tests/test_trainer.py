"""The trainer on a tiny team: what a step may touch, what it must equal, and what it reports and saves."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from peft import PeftModel
from transformers import TrainerCallback

from marl_coop.config.errors import ConfigError
from marl_coop.config.schema import load_config
from marl_coop.experiment.setup import training_arguments
from marl_coop.players import BASE
from marl_coop.policy.routed_lora import Span, spans_of
from marl_coop.ppo import losses
from rewards.terms.task_success import TaskSuccess

SGD = {"optim": "sgd", "learning_rate": 1.0, "critic_learning_rate": 1.0}


class Log(TrainerCallback):
    """Keeps what callbacks are told."""

    def __init__(self):
        self.records = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.records.append(dict(logs))

    @property
    def updates(self):
        return [record for record in self.records if "update" in record]


def trained(folder, **options):
    """A trainer after training, and the records of its updates."""
    trainer = tiny.cue_trainer(folder, callbacks=[log := Log()], **options)
    trainer.train()
    return trainer, log.updates


def same(first, second, tolerance=0.0):
    assert first.keys() == second.keys()
    return all(torch.allclose(first[name], second[name], rtol=0, atol=tolerance) for name in first)


def rows_of(trainer, update=0):
    """A minibatch with all the episodes of an update."""
    trainer._rows = trainer.collector.collect(update)
    return trainer._sorted(range(len(trainer._rows)))


def nudge(policy, size=0.02, seed=7):
    """A small step of the adapters, so that ratios are not 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for adapter in policy.adapters:
            for parameter in policy.adapter_parameters(adapter):
                parameter.add_(size * torch.randn(parameter.shape, generator=generator))
        for parameter in policy.critics.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))


# --------------------------------------------------------------------------------------------------------- the loss


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_the_ratio_of_the_first_minibatch_is_1(tmp_path, temperature):
    _, (record,) = trained(tmp_path, temperature=temperature)
    for seat in tiny.SEATS:
        assert record[f"{seat}/ratio"] == pytest.approx(1, abs=1e-3)
        assert record[f"{seat}/approx_kl"] == pytest.approx(0, abs=1e-6)
        assert record[f"{seat}/clip_fraction"] == 0


def test_each_minibatch_ratio_of_a_later_epoch_is_not_1(tmp_path):
    _, (record,) = trained(tmp_path, num_ppo_epochs=4)
    assert all(record[f"{seat}/approx_kl"] > 1e-5 for seat in tiny.SEATS)


@pytest.mark.parametrize("critic", ["central", "local"])
def test_the_loss_is_the_formula(tmp_path, critic):
    """SeatSample by row and token by token, without batches, routing or gathered logits."""
    trainer = tiny.cue_trainer(
        tmp_path,
        critic=critic,
        vf_coef=0.3,
        kl_coef=0.2,
        entropy_coef=0.1,
        temperature=0.8,
        cliprange_value=0.01,
        clip_low=0.05,
        clip_high=0.1,
    )
    rows, policy = rows_of(trainer), trainer.model
    nudge(policy)
    expected, clipped, moved = 0.0, 0, 0
    for seat in tiny.SEATS:
        mine = [row for row in rows if row.seat == seat]
        tokens = sum(turn.stop - turn.start for row in mine for turn in row.trace.turns)
        turns = sum(len(row.trace.turns) for row in mine)
        for row in mine:
            ids = torch.tensor([row.trace.ids])
            with torch.no_grad():
                logprobs, reference = (
                    (policy.logits(policy.hidden(spans_of([adapter]), ids)[0]) / 0.8).log_softmax(-1)
                    for adapter in (seat, BASE)
                )
                values = policy.critics[seat](row.features_KF)
            for k, turn in enumerate(row.trace.turns):
                advantage, target, old_value = (float(x[k]) for x in (row.advantages_K, row.returns_K, row.values_K))
                value = float(values[k])
                near = old_value + min(max(value - old_value, -0.01), 0.01)
                moved += near != value
                expected += 0.3 * 0.5 * max((value - target) ** 2, (near - target) ** 2) / turns
                for t in range(turn.start, turn.stop):
                    at = logprobs[t - 1]
                    new = float(at[row.trace.ids[t]])
                    ratio = math.exp(new - turn.logprobs[t - turn.start])
                    cut = min(max(ratio, 0.95), 1.1)
                    clipped += cut != ratio
                    loss = -min(ratio * advantage, cut * advantage)
                    gap = float(reference[t - 1][row.trace.ids[t]]) - new
                    near = min(gap, 2.0)  # from there on a straight line
                    loss += 0.2 * (math.exp(near) - 1 - near + (math.exp(2.0) - 1) * (gap - near))
                    loss -= 0.1 * -float((at.exp() * at).sum())
                    expected += loss / tokens
    assert clipped > 5
    assert moved > 5
    with torch.no_grad():
        loss = trainer.compute_loss(policy, rows, num_items_in_batch=trainer._token_counts(rows))
    assert float(loss) == pytest.approx(expected, rel=1e-4)


def hidden_gradient(trainer, rows):
    """Where the loss of some rows touches the model's output: the gradient at each position, as true or false."""
    policy, kept = trainer.model, []
    through = policy.hidden

    def leaf(*args, **kwargs):
        kept.append(through(*args, **kwargs).detach().requires_grad_())
        return kept[-1]

    policy.hidden = leaf
    trainer.compute_loss(policy, rows, num_items_in_batch=trainer._token_counts(rows)).backward()
    del policy.hidden
    (states,) = kept
    return states.grad.abs().sum(-1) > 0


def test_no_prompt_or_partner_token_gets_a_gradient(tmp_path):
    trainer = tiny.cue_trainer(tmp_path, kl_coef=0.1, entropy_coef=0.1)
    rows = rows_of(trainer)
    touched = hidden_gradient(trainer, rows)
    expected = torch.zeros_like(touched)
    for r, row in enumerate(rows):
        for turn in row.trace.turns:
            expected[r, turn.start - 1 : turn.stop - 1] = True  # what predicts a sampled token
    assert torch.equal(touched, expected)
    assert 0.1 < expected.float().mean() < 0.5


def test_a_sandbox_fault_teaches_nothing(tmp_path):
    """The update with the faulted episodes is the update without them."""
    trainer = tiny.cue_trainer(tmp_path, env={"fault_every": 3}, kl_coef=0.1, entropy_coef=0.1)
    rows = rows_of(trainer)
    trainable = [row for row in rows if row.trainable]
    assert 0 < len(trainable) < len(rows)
    assert all(row.trainable == (trainer_seed(row, trainer) % 3 != 0) for row in rows)
    touched = hidden_gradient(trainer, rows)
    assert [bool(row.any()) for row in touched] == [row.trainable for row in rows]
    losses = [
        float(trainer.compute_loss(trainer.model, some, num_items_in_batch=trainer._token_counts(some)).detach())
        for some in (rows, trainable)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for seat in tiny.SEATS:
        advantages = torch.cat([row.advantages_K for row in trainable if row.seat == seat])
        assert advantages.mean().item() == pytest.approx(0, abs=1e-5)
        assert advantages.var(correction=0).item() == pytest.approx(1, rel=1e-3)


def trainer_seed(row, trainer):
    """The task seed of a row of `trainer._rows`."""
    (index,) = [i for i, rows in enumerate(trainer._rows) if any(r is row for r in rows.values())]
    return index  # update 0 of run seed 0 plays the tasks 0, 1, 2, ...


def test_an_update_with_faults_alone_changes_nothing(tmp_path):
    policy = tiny.team(tiny.base_model(len(tiny.word_tokenizer(tiny.WORDS))))
    before = tiny.weights(policy)
    _, (record,) = trained(tmp_path, policy=policy, env={"fault_every": 1}, kl_coef=0.1, entropy_coef=0.1)
    assert record["team/sandbox_fault_rate"] == 1
    assert same(before, tiny.weights(policy), 1e-5)
    assert same(tiny.weights(policy.lm), {n.removeprefix("lm."): p for n, p in before.items() if n.startswith("lm.")})


def test_weights_decay_as_the_arguments_say(tmp_path):
    optimizer = tiny.cue_trainer(tmp_path, weight_decay=0.003).create_optimizer()
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.003] * 3


def test_a_and_b_matrices_and_critics_have_their_own_rates(tmp_path):
    trainer = tiny.cue_trainer(tmp_path, learning_rate=1e-4, loraplus_lr_ratio=16, critic_learning_rate=1e-3)
    names = {id(p): name for name, p in trainer.model.named_parameters() if p.requires_grad}
    groups = trainer.create_optimizer().param_groups
    rates = {names.pop(id(p)): group["lr"] for group in groups for p in group["params"]}
    assert not names
    for name, rate in rates.items():
        assert rate == pytest.approx(1e-4 if ".lora_A." in name else 16e-4 if ".lora_B." in name else 1e-3)


def test_advantages_are_whitened_per_agent(tmp_path):
    trainer = tiny.cue_trainer(tmp_path)
    rows = rows_of(trainer)
    for seat in tiny.SEATS:
        advantages = torch.cat([row.advantages_K for row in rows if row.seat == seat])
        assert advantages.mean().item() == pytest.approx(0, abs=1e-5)
        assert advantages.var(correction=0).item() == pytest.approx(1, rel=1e-3)


def test_advantages_and_returns_are_gae_of_rewards_and_values(tmp_path):
    trainer = tiny.cue_trainer(tmp_path, gamma=0.9, lam=0.7)
    nudge(trainer.model)  # values that are not 0
    rows = rows_of(trainer)
    for seat in tiny.SEATS:
        mine = [row for row in rows if row.seat == seat]
        raw = np.zeros((len(mine), 3))
        for i, row in enumerate(mine):
            values = [*row.values_K.tolist(), 0.0]
            later = 0.0
            for k in (2, 1, 0):
                later = float(row.rewards_K[k]) + 0.9 * values[k + 1] - values[k] + 0.9 * 0.7 * later
                raw[i, k] = later
                assert float(row.returns_K[k]) == pytest.approx(later + values[k], abs=1e-5)
        raw -= raw.mean(0)  # each turn by itself, the scale in common
        assert torch.stack([row.advantages_K for row in mine]).numpy() == pytest.approx(raw / raw.std(), abs=1e-3)


def test_rewards_are_those_of_the_stack(tmp_path):
    seen = []
    trainer = tiny.cue_trainer(
        tmp_path,
        rewards=[tiny.Length(weight=2.0), TaskSuccess(weight=0.5)],
        on_rollouts=lambda update, episodes, breakdowns: seen.append((update, episodes, breakdowns)),
    )
    trainer._rows = trainer.collector.collect(3)
    ((update, episodes, breakdowns),) = seen
    assert update == 3
    assert [episode.task.seed for episode in episodes] == list(range(24, 32))
    assert [set(breakdown.weights.values()) for breakdown in breakdowns] == [{2.0, 0.5}] * 8
    for rows, episode in zip(trainer._rows, episodes, strict=True):
        for seat, row in rows.items():
            lengths = [len(turn.reply) / 20 for turn in episode.turns_of(seat)]
            expected = [2 * x for x in lengths]
            expected[-1] += 0.5 * episode.outcome.utility
            assert row.rewards_K.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("critic", ["central", "local"])
def test_critics_read_the_base_at_the_end_of_each_prompt(tmp_path, critic):
    trainer = tiny.cue_trainer(tmp_path, critic=critic, max_rows=4)
    trainer._rows = trainer.collector.collect(0)

    @torch.no_grad()
    def states(row):
        hidden = trainer.model.hidden((Span(BASE, 0, 1),), torch.tensor([row.trace.ids]))[0]
        return hidden[[turn.start - 1 for turn in row.trace.turns]]

    for rows in trainer._rows:
        first, second = (rows[seat] for seat in tiny.SEATS)
        for own, other in [(first, second), (second, first)]:
            expected = torch.cat([states(own), states(other)], -1) if critic == "central" else states(own)
            assert torch.allclose(own.features_KF, expected, atol=1e-4)


# ------------------------------------------------------------------------------------------------------- the update


def test_accumulating_gradients_is_the_same_update(tmp_path):
    """Parts of different lengths: a mean of means would differ."""
    whole, _ = trained(tmp_path, **SGD, kl_coef=0.1, entropy_coef=0.1, gradient_accumulation_steps=1)
    parts, _ = trained(tmp_path, **SGD, kl_coef=0.1, entropy_coef=0.1, gradient_accumulation_steps=4)
    counts = {tuple(parts._token_counts(parts._minibatch(0, 0, micro)[0]).values()) for micro in range(4)}
    assert len(counts) > 1
    assert same(tiny.weights(whole.model), tiny.weights(parts.model), 1e-5)
    start = tiny.weights(tiny.team(tiny.base_model(len(whole.processing_class))))
    assert not same(tiny.weights(whole.model), start, 1e-2)


def test_minibatches_share_the_episodes_of_an_update(tmp_path):
    trainer = tiny.cue_trainer(tmp_path, num_mini_batches=2, gradient_accumulation_steps=2, num_ppo_epochs=2)
    trainer._rows = trainer.collector.collect(0)
    orders = []
    for epoch in range(2):
        seen = []
        for index in range(2):
            micros = [trainer._minibatch(0, 2 * epoch + index, micro) for micro in range(2)]
            assert {id(r) for part, _ in micros for r in part} == {id(r) for r in micros[0][1]}
            seen += [id(r) for part, _ in micros for r in part]
        assert sorted(seen) == sorted(id(r) for rows in trainer._rows for r in rows.values())
        orders.append(seen)
    assert orders[0] != orders[1]


def test_checkpointing_activations_is_the_same_update(tmp_path):
    plain, _ = trained(tmp_path, **SGD)
    less_memory, _ = trained(tmp_path, **SGD, gradient_checkpointing=True)
    assert less_memory.model.lm.get_base_model().get_decoder().layers[0].gradient_checkpointing
    assert same(tiny.weights(plain.model), tiny.weights(less_memory.model), 1e-5)


def test_what_lies_below_the_adapters_may_be_kept(tmp_path, monkeypatch):
    """The same updates whether the lower layers run in every epoch or their states are kept from play."""
    options = SGD | {"learning_rate": 0.3, "num_ppo_epochs": 2, "num_mini_batches": 2, "num_updates": 2, "max_rows": 6}
    found = []
    for models in (("llama",), ()):
        monkeypatch.setattr("marl_coop.policy.team.PREFIX_MODELS", models)
        base = tiny.base_model(len(tiny.word_tokenizer(tiny.WORDS)), layers=3)
        trainer, _ = trained(tmp_path, policy=tiny.team(base, layers=[2]), **options)
        assert all(
            (row.trace.prefix_hidden_TH is not None) == bool(models) for rows in trainer._rows for row in rows.values()
        )
        found.append(tiny.weights(trainer.model))
    assert same(*found, 1e-5)


def test_training_one_agent_leaves_the_others_bytes(tmp_path):
    trainer = tiny.cue_trainer(tmp_path / "run", rewards=[tiny.Length(agent="agent_0")], num_updates=2, vf_coef=0.0)
    trainer.model.save(tmp_path / "before")
    trainer.train()
    trainer.model.save(tmp_path / "after")
    files = [
        [(tmp_path / side / seat / "adapter_model.safetensors").read_bytes() for side in ("before", "after")]
        for seat in tiny.SEATS
    ]
    assert files[0][0] != files[0][1]
    assert files[1][0] == files[1][1]


def test_the_base_never_changes(tmp_path):
    trainer = tiny.cue_trainer(tmp_path, num_updates=2)
    frozen = {name: p.detach().clone() for name, p in trainer.model.named_parameters() if not p.requires_grad}
    trainer.train()
    after = dict(trainer.model.named_parameters())
    assert frozen
    assert all(torch.equal(frozen[name], after[name]) for name in frozen)


@pytest.mark.parametrize("reference", ["base", "start"])
def test_an_update_moves_away_from_the_reference_and_is_played(tmp_path, reference):
    base = tiny.base_model(len(tiny.word_tokenizer(tiny.WORDS)))
    trainer = tiny.cue_trainer(
        tmp_path,
        policy=tiny.team(base, trained=reference == "start"),
        callbacks=[log := Log()],
        num_updates=2,
        learning_rate=0.05,
        kl_coef=1e-6,
        kl_reference=reference,
    )
    before = trainer.players.play(range(8), sampling_seed=1)
    trainer.train()
    after = trainer.players.play(range(8), sampling_seed=1)
    for seat in tiny.SEATS:
        first, second = (record[f"{seat}/kl_to_reference"] for record in log.updates)
        assert first == pytest.approx(0, abs=1e-6)
        assert second > 1e-3
        logprobs = [[t.logprobs for r in rollouts for t in r.traces[seat].turns] for rollouts in (before, after)]
        assert logprobs[0] != logprobs[1]
    assert [r.episode.turns for r in before] != [r.episode.turns for r in after]


def test_a_kl_of_weight_0_is_neither_computed_nor_reported(tmp_path):
    _, (record,) = trained(tmp_path, kl_coef=0.0)
    assert "agent_0/entropy" in record and "agent_0/kl_to_reference" not in record


def test_descent_makes_good_replies_likelier(tmp_path):
    trainer = tiny.cue_trainer(tmp_path, **(SGD | {"learning_rate": 0.1}), vf_coef=0.0)
    rows = rows_of(trainer)
    before = scores(trainer, rows)
    trainer.train()  # plays the same episodes
    gain = scores(trainer, rows) - before
    advantages = torch.cat(
        [row.advantages_K[k].expand(t.stop - t.start) for row in rows for k, t in enumerate(row.trace.turns)]
    )
    assert (gain * advantages).sum() > 0


@torch.no_grad()
def scores(trainer, rows):
    return torch.cat(
        [
            trainer.model.score(
                spans_of([row.trace.adapter]),
                torch.tensor([row.trace.ids]),
                torch.ones(1, len(row.trace.ids), dtype=torch.long),
                *(
                    torch.tensor(axis)
                    for axis in zip(
                        *[(0, t) for turn in row.trace.turns for t in range(turn.start, turn.stop)], strict=True
                    )
                ),
                1.0,
            )[0].logprobs_N
            for row in rows
        ]
    )


@torch.no_grad()
def entropy_and_kl(trainer, rows):
    """Means over the sampled tokens of the policy's entropy and of its KL to the base, from whole distributions."""
    found = []
    for row in rows:
        ids = torch.tensor([row.trace.ids])
        policy, base = (
            trainer.model.logits(trainer.model.hidden(spans_of([adapter]), ids)[0]).log_softmax(-1)
            for adapter in (row.trace.adapter, BASE)
        )
        for turn in row.trace.turns:
            p, q = policy[turn.start - 1 : turn.stop - 1], base[turn.start - 1 : turn.stop - 1]
            found.append(torch.stack([-(p.exp() * p).sum(-1), (p.exp() * (p - q)).sum(-1)], -1))
    return torch.cat(found).mean(0)


def test_the_entropy_bonus_and_the_kl_do_what_they_say(tmp_path):
    options = SGD | {"learning_rate": 0.1, "rewards": [tiny.Length(weight=0.0)], "vf_coef": 0.0}
    for coefficient, index, sign in [("entropy_coef", 0, 1), ("kl_coef", 1, -1)]:
        trainer = tiny.cue_trainer(tmp_path, **options, **{coefficient: 1.0})
        rows = rows_of(trainer)
        before = entropy_and_kl(trainer, rows)
        trainer.train()
        assert sign * (entropy_and_kl(trainer, rows) - before)[index] > 0.01


def break_the_second_loss(monkeypatch):
    """The second call of the loss from now on gives nan; the list grows with every call."""
    calls, through = [], losses.policy_loss

    def sometimes_nan(*args):
        calls.append(1)
        loss, clipped = through(*args)
        return loss * (math.nan if len(calls) == 2 else 1.0), clipped

    monkeypatch.setattr(losses, "policy_loss", sometimes_nan)
    return calls


class Watch(Log):
    """Keeps the weights after every step."""

    def __init__(self):
        super().__init__()
        self.steps = []

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.steps.append(tiny.weights(model))


def test_a_loss_that_is_not_finite_is_skipped_and_counted(tmp_path, monkeypatch):
    break_the_second_loss(monkeypatch)
    trainer = tiny.cue_trainer(tmp_path, callbacks=[log := Watch()], num_ppo_epochs=3, num_updates=2)
    trainer.train()
    assert [record["non_finite_losses"] for record in log.updates] == [1, 0]
    assert all(torch.isfinite(p).all() for p in log.steps[-1].values())
    assert same(log.steps[0], log.steps[1])  # neither the gradient nor Adam's momentum moved anything
    assert not same(log.steps[1], log.steps[2])
    assert all(math.isfinite(record["loss"]) for record in log.updates)


def test_a_loss_that_is_not_finite_drops_its_whole_step(tmp_path, monkeypatch):
    calls = break_the_second_loss(monkeypatch)
    policy = tiny.team(tiny.base_model(len(tiny.word_tokenizer(tiny.WORDS))))
    before = tiny.weights(policy)
    options = {"num_mini_batches": 1, "gradient_accumulation_steps": 4, "num_ppo_epochs": 2}
    tiny.cue_trainer(tmp_path, policy=policy, callbacks=[log := Watch()], **options).train()
    assert len(calls) == 2 + 4  # the third and fourth part of the first step were not computed
    assert same(before, log.steps[0])
    assert not same(log.steps[0], log.steps[1])


def test_one_agents_spike_does_not_shrink_the_others_step(tmp_path):
    trainer = tiny.cue_trainer(tmp_path)
    for adapter, size in [("agent_0", 100.0), ("agent_1", 1e-4)]:
        for parameter in trainer.model.adapter_parameters(adapter):
            parameter.grad = torch.full_like(parameter, size)
    trainer.clip_gradients()
    norm = torch.stack([p.grad.norm() for p in trainer.model.adapter_parameters("agent_0")]).norm()
    assert norm.item() == pytest.approx(trainer.args.max_grad_norm, rel=1e-3)
    assert all((p.grad == 1e-4).all() for p in trainer.model.adapter_parameters("agent_1"))


# ---------------------------------------------------------------------------------------------- repeat, save, resume


def repeatable(records):
    """Records without what depends on the machine."""
    return [{k: v for k, v in r.items() if not k.startswith(("seconds/", "memory"))} for r in records]


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


def test_going_on_from_the_middle_of_an_update(tmp_path):
    """`max_steps` need not be whole updates, and the last step is always saved."""
    tiny.cue_trainer(tmp_path, num_mini_batches=2, max_steps=3).train()
    resumed = tiny.cue_trainer(tmp_path, num_mini_batches=2, max_steps=6)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert resumed.state.global_step == 6


def test_the_reference_pass_has_no_dropout(tmp_path):
    base = tiny.base_model(len(tiny.word_tokenizer(tiny.WORDS)), attention_dropout=0.5)
    trainer = tiny.cue_trainer(tmp_path, policy=tiny.team(base), kl_coef=0.1)
    trainer.model.train()
    first, again = (trainer.collector.collect(0)[0]["agent_0"] for _ in range(2))
    assert torch.equal(first.reference_N, again.reference_N)
    assert torch.equal(first.features_KF, again.features_KF)


@pytest.mark.parametrize(
    "options", [{"num_mini_batches": 3}, {"num_mini_batches": 2, "gradient_accumulation_steps": 8}]
)
def test_episodes_that_cannot_be_shared(tmp_path, options):
    parts = options["num_mini_batches"] * options.get("gradient_accumulation_steps", 1)
    with pytest.raises(ValueError, match=rf"episodes_per_update=8 cannot be shared by .* use a multiple of {parts}"):
        tiny.cue_trainer(tmp_path, **options)


# ---------------------------------------------------------------------------------------------------- configuration


def configured(*overrides):
    return training_arguments(load_config([], [*overrides, "training.report_to=none", "training.use_cpu=true"]), "x")


def test_the_training_section_becomes_arguments():
    args = configured("training.num_updates=7", "training.kl_coef=0.5", "seed=3", "training.num_ppo_epochs=2")
    assert (args.num_updates, args.kl_coef, args.seed, args.output_dir) == (7, 0.5, 3, "x")
    assert args.steps_per_update == 4
    assert args.max_steps == 28
    assert args.logging_steps == 4


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "training.learning_rat=1e-3",
            "command line: training.learning_rat: unknown key; did you mean 'learning_rate'?",
        ),
        ("training.klcoef=1", "unknown key; did you mean 'kl_coef'?"),
        ("training.kl_coef=-0.1", "training.kl_coef must be a number of at least 0, got -0.1"),
        ("training.kl_coef=.nan", "training.kl_coef must be a number of at least 0, got nan"),
        ("training.learning_rate=.inf", "training.learning_rate must be positive, got inf"),
        ("training.kl_reference=me", "training.kl_reference must be 'base' or 'start', got 'me'"),
        ("training.loraplus_lr_ratio=0", "training.loraplus_lr_ratio must be positive, got 0"),
        ("training.num_updates=0", "training.num_updates must be positive, got 0"),
        ("training.temperature=0", "training.temperature must be positive"),
        ("training.critic=none", "training.critic must be 'central' or 'local', got 'none'"),
        ("training.num_updates=ten", "command line: training: "),
        ("training.seed=1", "training.seed: set seed at the top level"),
        ("training.output_dir=y", "training.output_dir: set output_dir at the top level"),
        ("training.lr_scheduler_type=sometimes", "command line: training: "),
        ("training.gamma=2", "gamma"),
        ("training.clip_low=-1", "clip_low"),
    ],
)
def test_a_wrong_training_key_is_one_clear_line(override, message):
    with pytest.raises(ConfigError) as caught:
        configured(override)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


# -------------------------------------------------------------------------------------------------- two processes

SCRIPT = """
import json, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
import tiny
from accelerate import Accelerator
from transformers import TrainerCallback
from rewards import Communication
from rewards.schedules import DualAscent

folder = Path(sys.argv[1])

class Log(TrainerCallback):
    def on_log(self, args, state, control, logs=None, **kwargs):
        records.append(logs)

records, backwards = [], []
price = DualAscent(rate=0.01, budget=9, every=1)
trainer = tiny.cue_trainer(
    folder / "run", callbacks=[Log()], rewards=[tiny.Length(), Communication(weight=price)],
    num_updates=2, num_ppo_epochs=2, kl_coef=0.1, entropy_coef=0.01,
    optim="sgd", learning_rate=1.0, critic_learning_rate=1.0, gradient_accumulation_steps=2, env={"fault_every": 5},
)
through = Accelerator.backward
Accelerator.backward = lambda self, loss, **k: (backwards.append(1), through(self, loss, **k))[1]
trainer.train()
rank = trainer.args.process_index
trainer.model.save(folder / f"rank-{rank}")
updates = [r for r in records if "update" in r]
(folder / f"rank-{rank}.json").write_text(json.dumps({"backwards": len(backwards), "updates": updates}))
"""


def launch(folder: Path, processes: int) -> list[dict]:
    folder.mkdir()
    (folder / "script.py").write_text(SCRIPT)
    root = Path(__file__).parent
    command = "-m torch.distributed.run --standalone --nproc_per_node".split() + [str(processes)]
    environment = {
        **os.environ,
        "PYTHONPATH": f"{root}:{root.parent}",
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "true",
    }
    command = [sys.executable, *(command if processes > 1 else []), str(folder / "script.py"), str(folder)]
    with (folder / "output.txt").open("w") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
        try:
            code = process.wait(timeout=200)
        finally:
            process.terminate()  # torchrun ends its workers
    assert code == 0, (folder / "output.txt").read_text()[-4000:]
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(processes)]


def saved(folder: Path) -> list[bytes]:
    return [(folder / seat / "adapter_model.safetensors").read_bytes() for seat in tiny.SEATS]


def test_two_processes_stay_in_step_and_do_what_one_does(tmp_path):
    (alone,) = launch(tmp_path / "one", 1)
    ranks = launch(tmp_path / "two", 2)
    assert ranks[0]["backwards"] == ranks[1]["backwards"] == alone["backwards"]
    assert saved(tmp_path / "two" / "rank-0") == saved(tmp_path / "two" / "rank-1")
    one, two = (loaded(tmp_path / name / "rank-0") for name in ("one", "two"))
    start = tiny.weights(tiny.team(tiny.base_model(len(tiny.word_tokenizer(tiny.WORDS)))))
    distance = max((one[name] - two[name]).abs().max().item() for name in one)
    moved = max((one[name] - start[name]).abs().max().item() for name in one)
    print(f"one process and two differ by {distance:.1e}, training moved by {moved:.1e}")
    assert distance < 1e-4 < 1e-2 < moved
    for a, b in zip(alone["updates"], ranks[0]["updates"], strict=True):
        assert {k: v for k, v in a.items() if "/reward" in k} == pytest.approx(
            {k: v for k, v in b.items() if "/reward" in k}, rel=1e-5
        )
    prices = [[record["weight/communication"] for record in run["updates"]] for run in (alone, *ranks)]
    assert (
        prices[0] == prices[1] == prices[2]
    )  # of talk without the faults, of which the processes have not equally many
    assert prices[0][0] != prices[0][1]


def loaded(folder):
    policy = tiny.team(tiny.base_model(len(tiny.word_tokenizer(tiny.WORDS))))
    policy.load(folder)
    return tiny.weights(policy)
