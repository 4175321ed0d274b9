"""The arithmetic of PPO against loops by hand and closed forms."""

import doctest
import math
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from pytest import approx

from marl_coop.policy import routed_lora
from marl_coop.ppo import losses, metrics


@pytest.mark.parametrize("module", [losses, metrics, routed_lora], ids=lambda module: module.__name__)
def test_examples_in_docstrings(module):
    result = doctest.testmod(module, extraglobs={"torch": torch})
    assert result.attempted > 0
    assert result.failed == 0


def random_rows(seed=0, rows=7, turns=5):
    """Rewards, values and mask of ragged rows; beyond a row's last turn stands rubbish that must not matter."""
    generator = torch.Generator().manual_seed(seed)
    rewards = torch.randn(rows, turns, generator=generator, dtype=torch.float64)
    values = torch.randn(rows, turns, generator=generator, dtype=torch.float64)
    lengths = [1 + i % turns for i in range(rows)]
    mask = torch.tensor([[float(k < n) for k in range(turns)] for n in lengths], dtype=torch.float64)
    return rewards, values, mask, lengths


@pytest.mark.parametrize(("gamma", "lam"), [(0.9, 0.8), (1.0, 0.95), (0.7, 0.0), (0.9, 1.0)])
def test_gae_is_the_sum_of_discounted_td_errors(gamma, lam):
    rewards, values, mask, lengths = random_rows()
    advantages, returns = losses.gae(rewards, values, mask, gamma, lam)
    for row, n in enumerate(lengths):
        r, v = rewards[row].tolist(), [*values[row].tolist()[:n], 0.0]  # 0 after the last turn
        deltas = [r[k] + gamma * v[k + 1] - v[k] for k in range(n)]
        for k in range(mask.shape[1]):
            expected = sum((gamma * lam) ** (j - k) * deltas[j] for j in range(k, n)) if k < n else 0.0
            assert advantages[row, k].item() == approx(expected, abs=1e-12)
            assert returns[row, k].item() == approx(expected + v[k] if k < n else 0.0, abs=1e-12)


def test_gae_with_lambda_1_returns_the_discounted_rewards_to_go():
    rewards, values, mask, lengths = random_rows(seed=1)
    _, returns = losses.gae(rewards, values, mask, gamma=0.9, lam=1.0)
    for row, n in enumerate(lengths):
        assert returns[row, 0].item() == approx(sum(0.9**j * rewards[row, j].item() for j in range(n)))


def test_gae_leaves_its_inputs_alone():
    rewards, values, mask, _ = random_rows()
    before = rewards.clone(), values.clone(), mask.clone()
    losses.gae(rewards, values, mask, 0.9, 0.9)
    assert all(torch.equal(a, b) for a, b in zip(before, (rewards, values, mask), strict=True))


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "clipped"),
    [
        (1.1, 2.0, -2.2, False),  # inside
        (0.9, 2.0, -1.8, False),
        (1.1, -2.0, 2.2, False),
        (0.9, -2.0, 1.8, False),
        (1.5, 2.0, -2.56, True),  # better and already far enough: cut to 1.28
        (0.5, 2.0, -1.0, False),  # worse: never cut, so that it can come back
        (1.5, -2.0, 3.0, False),
        (0.5, -2.0, 1.6, True),  # cut to 0.8
        (1.25, 2.0, -2.5, False),  # above 1 + clip_low and below 1 + clip_high
        (1.5, 0.0, 0.0, False),
    ],
)
def test_policy_loss_in_closed_form(ratio, advantage, loss, clipped):
    old = torch.tensor([-1.3])
    found, active = losses.policy_loss(old + math.log(ratio), old, torch.tensor([advantage]), 0.2, 0.28)
    assert found.item() == approx(loss, rel=1e-5)
    assert active.item() is clipped


@pytest.mark.parametrize(
    ("ratio", "advantage", "slope"),
    [
        (1.0, 2.0, -2.0),
        (1.0, -2.0, 2.0),
        (1.2, 2.0, -2.4),
        (1.5, 2.0, 0.0),
        (0.5, -2.0, 0.0),
        (0.5, 2.0, -1.0),
        (1.5, -2.0, 3.0),
    ],
)
def test_descent_raises_what_was_good_and_rests_where_clipped(ratio, advantage, slope):
    new = torch.tensor([math.log(ratio)], requires_grad=True)
    losses.policy_loss(new, torch.zeros(1), torch.tensor([advantage]), 0.2, 0.28)[0].sum().backward()
    assert new.grad.item() == approx(slope, rel=1e-5)


def test_a_ratio_beyond_float32_has_a_finite_gradient():
    new = torch.tensor([100.0], requires_grad=True)
    loss, _ = losses.policy_loss(new, torch.zeros(1), torch.ones(1), 0.2, 0.28)
    assert loss.item() == approx(-1.28)
    loss.sum().backward()
    assert new.grad.item() == 0


def test_shares_of_terms_are_those_of_their_parts_of_the_advantage():
    generator = torch.Generator().manual_seed(0)
    terms, values = torch.randn(3, 8, 4, generator=generator), torch.randn(8, 4, generator=generator)
    mask = (torch.arange(4)[None] < torch.tensor([4, 4, 3, 2, 4, 1, 4, 4])[:, None]).float()
    terms, values = terms * mask, values * mask
    parts = [losses.gae(term, torch.zeros(8, 4), mask, 0.9, 0.7)[0] for term in terms]
    whole, _ = losses.gae(terms.sum(0), values, mask, 0.9, 0.7)
    critic, _ = losses.gae(torch.zeros(8, 4), values, mask, 0.9, 0.7)
    assert torch.allclose(sum(parts) + critic, whole, atol=1e-5)  # the advantage is the sum of its parts
    sizes = []
    for part in parts:
        columns = [part[mask[:, k] > 0, k] for k in range(4)]
        sizes.append(sum((column - column.mean()).abs().sum().item() for column in columns))
    shares = losses.advantage_shares(torch.stack(parts), mask)
    assert shares.tolist() == approx([size / sum(sizes) for size in sizes], rel=1e-5)


def test_a_term_that_never_varies_has_no_share():
    terms = torch.stack([torch.full((5, 2), 3.0), torch.randn(5, 2, generator=torch.Generator().manual_seed(1))])
    assert losses.advantage_shares(terms, torch.ones(5, 2)).tolist() == approx([0.0, 1.0], abs=1e-6)


def test_k3_is_zero_at_equality_and_positive_elsewhere():
    logprobs = torch.linspace(-8, 0, 33)
    assert (losses.k3_kl(logprobs, logprobs) == 0).all()
    assert (losses.k3_kl(logprobs, logprobs.flip(0))[:16] > 0).all()
    assert (losses.k3_kl(logprobs, logprobs.flip(0))[17:] > 0).all()


def test_k3_averages_to_the_kl_divergence():
    generator = torch.Generator().manual_seed(0)
    policy_, reference = torch.randn(2, 6, generator=generator).log_softmax(-1)
    exact = (policy_.exp() * (policy_ - reference)).sum()
    assert (policy_.exp() * losses.k3_kl(policy_, reference)).sum().item() == approx(exact.item(), rel=1e-5)
    tokens = torch.multinomial(policy_.exp(), 200_000, replacement=True, generator=generator)
    assert losses.k3_kl(policy_[tokens], reference[tokens]).mean().item() == approx(exact.item(), rel=0.02)


def test_approx_kl_averages_to_the_kl_from_the_policy_that_sampled():
    generator = torch.Generator().manual_seed(0)
    old, new = torch.randn(2, 6, generator=generator).log_softmax(-1)
    exact = (old.exp() * (old - new)).sum().item()
    backwards = (new.exp() * (new - old)).sum().item()
    assert (old.exp() * losses.approx_kl(new, old)).sum().item() == approx(exact, rel=1e-5)
    assert abs(exact - backwards) > 0.1 * exact  # the other way round would show


def test_k3_pulls_a_token_that_became_unlikely_with_a_bounded_force():
    logprobs = torch.tensor([-1.9, -2.1, -30.0], requires_grad=True)
    loss = losses.k3_kl(logprobs, torch.zeros(3))
    loss.sum().backward()
    slope = math.e**2 - 1
    assert logprobs.grad.tolist() == approx([-(math.exp(1.9) - 1), -slope, -slope], rel=1e-5)
    assert (loss[2] - loss[1]).item() == approx(slope * 27.9, rel=1e-5)


def test_k3_pulls_towards_the_reference():
    logprobs = torch.tensor([-1.0, -3.0], requires_grad=True)
    losses.k3_kl(logprobs, torch.tensor([-2.0, -2.0])).sum().backward()
    assert logprobs.grad[0] > 0 > logprobs.grad[1]


@pytest.mark.parametrize(
    ("value", "old", "target", "loss"),
    [
        (0.1, 0.0, 1.0, 0.5 * 0.9**2),  # within the clip
        (0.9, 0.0, 1.0, 0.5 * 0.8**2),  # moved too far towards the target: as if at 0.2
        (-0.9, 0.0, 1.0, 0.5 * 1.9**2),  # moved away: all of the error counts
        (0.5, 0.5, 0.5, 0.0),
    ],
)
def test_value_loss_in_closed_form(value, old, target, loss):
    arguments = (torch.tensor([x]) for x in (value, old, target))
    assert losses.value_loss(*arguments, clip=0.2).item() == approx(loss, rel=1e-5, abs=1e-12)


def test_a_value_that_moved_far_enough_gets_no_gradient():
    values = torch.tensor([0.9, 0.1], requires_grad=True)
    losses.value_loss(values, torch.zeros(2), torch.ones(2), clip=0.2).sum().backward()
    assert values.grad[0] == 0
    assert values.grad[1].item() == approx(-0.9)


def one_process(statistics):
    return statistics


def some_advantages(rows=50, turns=4):
    """Columns of different means, and a mask with holes."""
    values = 3 + 5 * torch.randn(rows, turns, generator=torch.Generator().manual_seed(0)) + 10 * torch.arange(turns)
    return values, torch.arange(rows * turns).reshape(rows, turns) % 3 > 0


def test_whitening_centres_each_turn_and_scales_all_alike():
    values, mask = some_advantages()
    white = losses.whiten(values, mask, one_process)
    centred = torch.stack([column - column[keep].mean() for column, keep in zip(values.T, mask.T, strict=True)], 1)
    for column, keep in zip(white.T, mask.T, strict=True):
        assert column[keep].mean().item() == approx(0, abs=1e-5)
    assert white[mask].var(correction=0).item() == approx(1, rel=1e-4)
    assert (white[~mask] == 0).all()
    ratios = white[mask] / centred[mask]
    assert ratios.min().item() == approx(ratios.max().item(), rel=1e-3)


def in_two_processes(function):
    """What `function` gives for the first 7 rows and for the others, each with a `total` over both."""
    parts, meet = {}, threading.Barrier(2, timeout=20)

    def process(rank, rows):
        def total(statistics):
            parts[rank] = statistics
            meet.wait()
            summed = parts[0] + parts[1]
            meet.wait()
            return summed

        return function(rows, total)

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(process, (0, 1), (slice(7), slice(7, None))))


def test_whitening_in_two_processes_is_whitening_at_once():
    values, mask = some_advantages(rows=10)
    halves = in_two_processes(lambda rows, total: losses.whiten(values[rows], mask[rows], total))
    assert torch.allclose(torch.cat(halves), losses.whiten(values, mask, one_process), atol=1e-5)


def test_shares_and_explained_variance_of_two_processes_are_those_of_all_rows():
    values, mask = some_advantages(rows=10)
    mask, terms = mask.float(), torch.stack([values, values.flip(0) ** 2])
    shares = losses.advantage_shares(terms, mask)
    explained = losses.explained_variance(values, values + terms[1] / 100, mask)
    for mine in in_two_processes(lambda rows, t: losses.advantage_shares(terms[:, rows], mask[rows], t)):
        assert mine.tolist() == approx(shares.tolist(), rel=1e-4)
    returns = values + terms[1] / 100
    for mine in in_two_processes(lambda r, t: losses.explained_variance(values[r], returns[r], mask[r], t)):
        assert mine == approx(explained, rel=1e-4)


def test_whitening_of_equal_values_and_of_none():
    assert losses.whiten(torch.tensor([[0.7, 9.0]] * 3), torch.ones(3, 2), one_process).abs().max() < 1e-3
    assert (losses.whiten(torch.ones(3, 2), torch.zeros(3, 2), one_process) == 0).all()


def test_masked_mean():
    assert losses.masked_mean(torch.tensor([1.0, 5.0, 9.0]), torch.tensor([1.0, 1.0, 0.0])) == 3
    assert losses.masked_mean(torch.tensor([1.0]), torch.tensor([0.0])) == 0


def test_explained_variance():
    returns = torch.tensor([1.0, 2.0, 3.0, 99.0])
    mask = torch.tensor([1.0, 1.0, 1.0, 0.0])
    assert losses.explained_variance(returns, returns, mask) == 1
    assert losses.explained_variance(torch.full((4,), 7.0), returns, mask) == 0
    assert losses.explained_variance(torch.tensor([1.5, 2.0, 2.5, 0.0]), returns, mask) == approx(0.75)
    assert losses.explained_variance(torch.tensor([3.0, 2.0, 1.0, 0.0]), returns, mask) == approx(-3)
    assert math.isnan(losses.explained_variance(returns, torch.ones(4), mask))
    assert math.isnan(losses.explained_variance(returns, returns, torch.tensor([1.0, 0.0, 0.0, 0.0])))
