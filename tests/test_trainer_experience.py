"""What an update learns from: rewards, advantages and returns, what critics and the reference read."""

import numpy as np
import pytest
import tiny
import torch
from trained import nudge, rows_of

from marl_coop.players import BASE
from marl_coop.policy.routed_lora import Span
from rewards.terms.task_success import TaskSuccess


def test_rewards_are_those_of_the_stack(tmp_path):
    seen = []
    trainer = tiny.cue_trainer(
        tmp_path,
        rewards=[tiny.Length(weight=2.0), TaskSuccess(weight=0.5)],
        on_rollouts=lambda update, episodes, breakdowns, _: seen.append((update, episodes, breakdowns)),
    )
    trainer.play(3)
    ((update, episodes, breakdowns),) = seen
    assert update == 3
    assert [episode.task.seed for episode in episodes] == list(range(24, 32))
    assert [set(breakdown.weights.values()) for breakdown in breakdowns] == [{2.0, 0.5}] * 8
    for rows, episode in zip(trainer.rows, episodes, strict=True):
        for seat, row in rows.items():
            lengths = [len(turn.reply) / 20 for turn in episode.turns_of(seat)]
            expected = [2 * x for x in lengths]
            expected[-1] += 0.5 * episode.outcome.utility
            assert row.rewards_K.tolist() == pytest.approx(expected)


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


@pytest.mark.parametrize("critic", ["central", "local"])
def test_critics_read_the_base_at_the_end_of_each_prompt(tmp_path, critic):
    trainer = tiny.cue_trainer(tmp_path, critic=critic, max_rows=4)
    trainer.play(0)

    @torch.no_grad()
    def states(row):
        hidden = trainer.model.hidden((Span(BASE, 0, 1),), torch.tensor([row.trace.ids]))[0]
        return hidden[[turn.start - 1 for turn in row.trace.turns]]

    for rows in trainer.rows:
        first, second = (rows[seat] for seat in tiny.SEATS)
        for own, other in [(first, second), (second, first)]:
            expected = torch.cat([states(own), states(other)], -1) if critic == "central" else states(own)
            assert torch.allclose(own.features_KF, expected, atol=1e-4)


def test_the_reference_pass_has_no_dropout(tmp_path):
    base = tiny.base_model(len(tiny.word_tokenizer(tiny.WORDS)), attention_dropout=0.5)
    trainer = tiny.cue_trainer(tmp_path, policy=tiny.team(base), kl_coef=0.1)
    trainer.model.train()
    first, again = (trainer.collector.collect(0)[0]["agent_0"] for _ in range(2))
    assert torch.equal(first.reference_N, again.reference_N)
    assert torch.equal(first.features_KF, again.features_KF)
