"""What is done where the engine's log-probabilities are not quite the trainer's."""

import math

import pytest
import tiny
import torch
from trained import SGD, rows_of, same, trained

from marl_coop.engines.embedded import EmbeddedEngine
from marl_coop.ppo import trainer as trainer_module

A, B = tiny.SEATS


class Rounds(EmbeddedEngine):
    """Says of every token that it was `by` times as probable as it was."""

    def __init__(self, policy, by):
        super().__init__(policy, 64)
        self.by = by

    def collect(self):
        done = super().collect()
        for generation in done:
            generation.logprobs[:] = [logprob + math.log(self.by) for logprob in generation.logprobs]
        return done


def policy_that_rounds(by):
    policy = tiny.team(tiny.base_model(len(tiny.word_tokenizer(tiny.WORDS))))
    return {"policy": policy, "engine": Rounds(policy, by)}


def moved(folder, by, **options):
    """How far one plain step of gradient descent without a critic moves the adapters, and the record of it."""
    made = policy_that_rounds(by)
    before = tiny.weights(made["policy"])
    steps = SGD | {"critic_learning_rate": 0.0, "max_grad_norm": 1e9, "learning_rate": 0.01}
    _, (record,) = trained(folder, **made, **steps, **options)
    after = tiny.weights(made["policy"])
    return {name: after[name] - before[name] for name in before if "lora" in name}, record


def test_truncated_importance_weights_scale_what_each_token_teaches(tmp_path):
    plain, record = moved(tmp_path / "recompute", 0.8, importance="recompute")
    weighted, _ = moved(tmp_path / "truncated", 0.8, importance="truncated")
    assert any(step.abs().max() > 1e-4 for step in plain.values())
    assert same(weighted, {name: 1.25 * step for name, step in plain.items()}, 1e-6)
    assert record[f"{A}/importance_weight"] == pytest.approx(1.25, rel=1e-4)


def test_an_importance_weight_is_at_most_2(tmp_path, monkeypatch):
    monkeypatch.setattr(trainer_module, "MAX_SAMPLING_GAP", math.inf)
    plain, _ = moved(tmp_path / "recompute", 0.1, importance="recompute")
    weighted, record = moved(tmp_path / "truncated", 0.1, importance="truncated")
    assert same(weighted, {name: 2 * step for name, step in plain.items()}, 1e-6)
    assert record[f"{A}/importance_truncated"] == 1


@pytest.mark.parametrize("importance", ["recompute", "truncated"])
def test_the_ratio_starts_from_the_trainers_own_forward(tmp_path, importance):
    _, record = moved(tmp_path, 0.8, importance=importance)
    assert record[f"{A}/ratio"] == pytest.approx(1, abs=1e-5)
    assert record[f"{A}/approx_kl"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("importance", ["sampler", "recompute", "truncated"])
def test_the_gap_between_sampler_and_trainer_is_logged_in_every_update(tmp_path, importance):
    options = {"num_updates": 2, "num_mini_batches": 2, "num_ppo_epochs": 2, "importance": importance}
    _, records = trained(tmp_path, **policy_that_rounds(0.8), **options)
    gap = -math.log(0.8)
    for record in records:
        # the embedded engine's first minibatch is seen before the adapters move, and the rest a little after
        near = {"abs": 1e-4} if importance != "sampler" else {"abs": 0.2}
        assert record[f"{B}/sampling_gap"] == pytest.approx(gap, **near)
        assert record[f"{B}/sampling_gap_max"] >= record[f"{B}/sampling_gap"] - 1e-6
        assert record[f"{B}/sampling_kl"] == pytest.approx(1.25 - 1 - math.log(1.25), **near)


def test_recomputed_log_probabilities_are_those_of_each_rows_own_adapter(tmp_path):
    trainer = tiny.cue_trainer(tmp_path, importance="recompute", env={"rounds": 2})
    for row in rows_of(trainer):
        sampled = [logprob for turn in row.trace.turns for logprob in turn.logprobs]
        assert torch.allclose(row.old_logprobs_N, torch.tensor(sampled), atol=1e-4)


def test_the_embedded_engine_starts_from_what_it_sampled_with_and_computes_nothing_again(tmp_path):
    trainer = tiny.cue_trainer(tmp_path)
    trainer.model.score = None  # a call would fail
    assert all(row.old_logprobs_N is None for row in rows_of(trainer))
    assert trainer.args.importance == "sampler"


def test_another_word_for_the_importance_is_refused_by_name(tmp_path):
    with pytest.raises(
        ValueError, match="training.importance must be 'sampler' or 'recompute' or 'truncated', got 't'"
    ):
        tiny.arguments(tmp_path, importance="t")
