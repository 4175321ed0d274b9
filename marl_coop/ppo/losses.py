"""The arithmetic of multi-agent PPO as pure tensor functions, without a model in sight.

Axes in names: R rows (one seat of one episode), K turns of a row, G groups of P rows, N action tokens, flat over rows,
M reward terms.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

K3_LINEAR_FROM = 2.0
IMPORTANCE_CAP = 2.0

Total = Callable[[Tensor], Tensor]  # sums a tensor over all processes


def one_process(values: Tensor) -> Tensor:
    """The `Total` of one process alone: the values as they are."""
    return values


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of `values` where `mask` is true; 0 where the mask is empty."""
    return (values * mask).sum() / mask.sum().clamp(min=1)


def gae(rewards_RK: Tensor, values_RK: Tensor, mask_RK: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation over turns (Schulman et al. 2016, arXiv 1506.02438, eq. 16).

    One turn is one action. `mask_RK` marks the turns that exist, which come first in each row; after the last one the
    value is 0, because the episode has ended. Returns advantages and returns (advantage + value), both (R, K), 0 where
    the mask is false.

    >>> rewards, values = torch.tensor([[0.0, 1.0]]), torch.tensor([[0.5, 0.5]])
    >>> gae(rewards, values, torch.ones(1, 2), gamma=1.0, lam=1.0)[0]
    tensor([[0.5000, 0.5000]])
    """
    advantages_RK = torch.zeros_like(rewards_RK)
    next_advantage_R = torch.zeros_like(rewards_RK[:, 0])
    next_value_R = torch.zeros_like(rewards_RK[:, 0])
    for k in reversed(range(rewards_RK.shape[1])):
        delta_R = rewards_RK[:, k] + gamma * next_value_R - values_RK[:, k]
        next_advantage_R = (delta_R + gamma * lam * next_advantage_R) * mask_RK[:, k]
        next_value_R = values_RK[:, k] * mask_RK[:, k]
        advantages_RK[:, k] = next_advantage_R
    return advantages_RK, (advantages_RK + values_RK) * mask_RK


def returns_to_go(rewards_RK: Tensor, gamma: float) -> Tensor:
    """Discounted sum of what each turn and those after it are paid, (R, K).

    >>> returns_to_go(torch.tensor([[1.0, 0.0, 4.0]]), gamma=0.5)
    tensor([[2., 2., 4.]])
    """
    return gae(rewards_RK, torch.zeros_like(rewards_RK), torch.ones_like(rewards_RK), gamma, lam=1.0)[0]


def group_advantages(returns_RK: Tensor, mask_RK: Tensor, size: int, scale: bool = False) -> Tensor:
    """Return of each turn minus the mean over the plays of its task, (R, K), 0 where the mask is false.

    Every `size` rows are the plays of one task by one seat, and each turn has the mean over those plays that have it
    (GRPO, DeepSeekMath, arXiv 2402.03300, section 4.1, with the return from each turn on, as in MAGRPO, arXiv
    2508.04652). A turn of one play alone, or of equal returns, becomes 0. With `scale` each is divided by the standard
    deviation over those plays (the unbiased one, and 1e-4, as in TRL); Dr. GRPO (arXiv 2503.20783, section 3.1) argues
    against it, for it gives tasks that nearly always end alike the largest weight.

    >>> group_advantages(torch.tensor([[1.0, 5.0], [3.0, 7.0]]), torch.tensor([[1, 1], [1, 0]]), size=2)
    tensor([[-1.,  0.],
            [ 1.,  0.]])
    """
    returns_GPK, mask_GPK = (x.double().unflatten(0, (-1, size)) for x in (returns_RK, mask_RK))  # equal: exactly 0
    count_GK = mask_GPK.sum(1, keepdim=True)
    mean_GK = (returns_GPK * mask_GPK).sum(1, keepdim=True) / count_GK.clamp(min=1)
    centred_GPK = (returns_GPK - mean_GK) * mask_GPK
    if scale:
        variance_GK = (centred_GPK**2).sum(1, keepdim=True) / (count_GK - 1).clamp(min=1)
        centred_GPK = centred_GPK / (variance_GK.sqrt() + 1e-4)
    return centred_GPK.flatten(0, 1).to(returns_RK.dtype)


def whiten(values_RK: Tensor, mask_RK: Tensor, total: Total) -> Tensor:
    """Centre each turn's column and scale all of them to variance 1 where the mask is true; 0 elsewhere.

    Turns of one index are one kind of act (a stance, a message, a final answer), whose returns differ for reasons
    that no choice had a part in; so each kind has its own mean, and the scale is common. `total` sums a tensor over
    all processes (the identity for one process), so that every process whitens with the same global statistics.
    Values that are equal within each column become 0.

    >>> whiten(torch.tensor([[1.0, 10.0], [3.0, 10.0]]), torch.ones(2, 2), total=lambda sums: sums)
    tensor([[-1.4142,  0.0000],
            [ 1.4142,  0.0000]])
    """
    mask_RK = mask_RK.to(values_RK.dtype)
    count_K, sum_K = total(torch.stack([mask_RK.sum(0), (values_RK * mask_RK).sum(0)]))
    centred_RK = (values_RK - sum_K / count_K.clamp(min=1)) * mask_RK
    count, square = total(torch.stack([mask_RK.sum(), (centred_RK**2).sum()]))
    return centred_RK * torch.rsqrt(square / count.clamp(min=1) + 1e-8)


def advantage_shares(parts_MRK: Tensor, mask_RK: Tensor, total: Total = one_process) -> Tensor:
    """How much of what an agent is taught comes from each reward term: (M,), each in [0, 1], together 1.

    Advantages are linear in the rewards, so each is a sum with one part per term (and one of the critic, left out
    here). A term's share is the mean absolute deviation of its part from the mean of its turn's column, over that of
    all terms together, in all processes; a term that never varies teaches nothing. All are nan where nothing varies.

    >>> parts = torch.tensor([[[1.0], [0.0]], [[3.0], [0.0]], [[5.0], [5.0]]])
    >>> advantage_shares(parts, torch.ones(2, 1))
    tensor([0.2500, 0.7500, 0.0000])
    """
    sizes = []
    for part_RK in parts_MRK:
        count_K, sum_K = total(torch.stack([mask_RK.sum(0), (part_RK * mask_RK).sum(0)]))
        sizes.append(((part_RK - sum_K / count_K.clamp(min=1)).abs() * mask_RK).sum())
    sizes_M = total(torch.stack(sizes))
    return sizes_M / sizes_M.sum()


def policy_loss(
    logprobs_N: Tensor, old_logprobs_N: Tensor, advantages_N: Tensor, clip_low: float, clip_high: float
) -> tuple[Tensor, Tensor]:
    """PPO's clipped surrogate per token (Schulman et al. 2017, arXiv 1707.06347, eq. 7), to be minimised.

    The range is [1 - clip_low, 1 + clip_high]; a higher upper bound keeps exploration alive (DAPO, arXiv 2503.14476,
    section 3.1). Returns the loss and whether the clip was active, both (N,).

    >>> loss, clipped = policy_loss(torch.tensor([1.0]), torch.tensor([0.0]), torch.tensor([2.0]), 0.2, 0.28)
    >>> loss, clipped  # the ratio e is cut to 1.28
    (tensor([-2.5600]), tensor([True]))
    """
    # far outside of any clip the ratio may overflow, and its gradient with it
    ratio_N = torch.exp((logprobs_N - old_logprobs_N).clamp(-20, 20))
    clipped_N = ratio_N.clamp(1 - clip_low, 1 + clip_high)
    loss_N = -torch.minimum(ratio_N * advantages_N, clipped_N * advantages_N)
    return loss_N, (clipped_N * advantages_N) < (ratio_N * advantages_N)


def importance_weights(logprobs_N: Tensor, sampler_logprobs_N: Tensor) -> Tensor:
    """Truncated importance weights of tokens that another distribution sampled, in [0, 2] (Ionides 2008, "Truncated
    importance sampling", eq. 3).

    A mean of these weights times what the trainer's distribution gives is what sampling from it would have given, but
    for the cap, which keeps the variance finite.

    >>> importance_weights(torch.tensor([0.3, 0.9]).log(), torch.tensor([0.6, 0.1]).log())
    tensor([0.5000, 2.0000])
    """
    return torch.exp(logprobs_N - sampler_logprobs_N).clamp(max=IMPORTANCE_CAP)


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, clip: float) -> Tensor:
    """Half the squared error, each value kept within `clip` of its old one (the larger of both errors counts)."""
    near = old_values + (values - old_values).clamp(-clip, clip)
    return 0.5 * torch.maximum((values - returns) ** 2, (near - returns) ** 2)


def k3_kl(logprobs_N: Tensor, reference_N: Tensor) -> Tensor:
    """Low-variance estimate of KL(policy || reference) per token, never negative (Schulman 2020, "k3").

    With r = reference probability / policy probability it is r - 1 - log r; its mean over tokens sampled from the
    policy is the KL divergence. Above r = e^2 it goes on as a straight line in log r: a token that an update has made
    unlikely would otherwise have a gradient without bound and be all that the update hears.

    >>> k3_kl(torch.tensor([0.0]), torch.tensor([0.0]))
    tensor([0.])
    """
    log_ratio_N = reference_N - logprobs_N
    near_N = log_ratio_N.clamp(max=K3_LINEAR_FROM)
    return torch.expm1(near_N) - near_N + math.expm1(K3_LINEAR_FROM) * (log_ratio_N - near_N)


def approx_kl(logprobs_N: Tensor, old_logprobs_N: Tensor) -> Tensor:
    """How far an update has moved the policy: estimate of KL(old || new) per token that the old policy sampled, >= 0.

    With r = new probability / old probability it is (r - 1) - log r (Schulman 2020, "Approximating KL divergence",
    k3): r is over the policy that sampled, so that its mean is 1 and that of r - 1 is 0.

    >>> approx_kl(torch.tensor([0.5]).log(), torch.tensor([0.25]).log())  # r = 2: 1 - log 2
    tensor([0.3069])
    """
    log_ratio_N = logprobs_N - old_logprobs_N
    return torch.expm1(log_ratio_N) - log_ratio_N


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor, total: Total = one_process) -> float:
    """1 - Var(returns - values) / Var(returns), over all processes: 1 is a perfect critic, 0 no better than a constant.

    nan where there are fewer than 2 cases, or equal returns.

    >>> explained_variance(torch.tensor([1.5, 2.0, 2.5]), torch.tensor([1.0, 2.0, 3.0]), torch.ones(3))
    0.75
    """
    both = torch.stack([returns, returns - values])
    count = total(mask.sum())
    mean = total((both * mask).flatten(1).sum(1)) / count.clamp(min=1)
    centred = (both.flatten(1) - mean[:, None]) * mask.flatten()
    of_returns, of_errors = total((centred**2).sum(1)).tolist()
    return 1 - of_errors / of_returns if count >= 2 and of_returns > 0 else math.nan
