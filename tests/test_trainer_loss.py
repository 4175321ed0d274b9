"""The loss against the formula written out, and the tokens, episodes and agents that it may touch."""

import math

import pytest
import tiny
import torch
from trained import nudge, rows_of, trained

from marl_coop.players import BASE
from marl_coop.policy.routed_lora import spans_of


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
        loss = trainer.loss(policy, rows, trainer.token_counts(rows))
    assert float(loss) == pytest.approx(expected, rel=1e-4)


def hidden_gradient(trainer, rows):
    """Where the loss of some rows touches the model's output: the gradient at each position, as true or false."""
    policy, kept = trainer.model, []
    through = policy.hidden

    def leaf(*args, **kwargs):
        kept.append(through(*args, **kwargs).detach().requires_grad_())
        return kept[-1]

    policy.hidden = leaf
    trainer.loss(policy, rows, trainer.token_counts(rows)).backward()
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
        float(trainer.loss(trainer.model, some, trainer.token_counts(some)).detach()) for some in (rows, trainable)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for seat in tiny.SEATS:
        advantages = torch.cat([row.advantages_K for row in trainable if row.seat == seat])
        assert advantages.mean().item() == pytest.approx(0, abs=1e-5)
        assert advantages.var(correction=0).item() == pytest.approx(1, rel=1e-3)


def trainer_seed(row, trainer):
    """The task seed of a row of `trainer.rows`."""
    (index,) = [i for i, rows in enumerate(trainer.rows) if any(r is row for r in rows.values())]
    return index  # update 0 of run seed 0 plays the tasks 0, 1, 2, ...
