"""How far what sampled is from what learns: another engine has other kernels, another precision and other batches.

Axes in names: N sampled tokens.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from marl_coop.policy.team import TeamPolicy
from marl_coop.ppo import losses
from marl_coop.ppo.batch import SeatSample, collate
from marl_coop.ppo.config import MultiAgentPPOConfig
from marl_coop.ppo.metrics import MeanMetrics


@torch.no_grad()
def add_old_logprobs(
    policy: TeamPolicy,
    parts: Sequence[Sequence[SeatSample]],
    args: MultiAgentPPOConfig,
    pad: int,
    metrics: MeanMetrics,
) -> None:
    """Give rows the log-probabilities of the trainer's own forward, and measure the gap to those of the sampler.

    Args:
        policy: as it sampled; it has not learned yet.
        parts: rows that learn and have turns, those of one forward together, in any order; none: a forward without.
        args: says at which temperature was sampled, and whether chats are padded.
        pad: any token id.
        metrics: takes the gap of each adapter.
    """
    policy.eval()
    for part in parts:
        if not part:
            policy.idle()
            continue
        part = sorted(part, key=lambda row: policy.adapters.index(str(row.trace.adapter)))
        batch = collate(part, pad, policy.device, args.padding_free)
        scores, _ = policy.score(batch.spans, temperature=args.temperature, **batch.scored)
        counts = [sum(turn.stop - turn.start for turn in row.trace.turns) for row in part]
        for row, old_N in zip(part, scores.logprobs_N.split(counts), strict=True):
            row.old_logprobs_N = old_N
        trainable_N = torch.cat([torch.full((n,), row.trainable) for row, n in zip(part, counts, strict=True)])
        for adapter, tokens in batch.tokens.items():
            mask_N = trainable_N[tokens].to(policy.device)
            add_gap(metrics, adapter, scores.logprobs_N[tokens][mask_N], batch.sampler_logprobs_N[tokens][mask_N])


def add_gap(metrics: MeanMetrics, adapter: str, logprobs_N: Tensor, sampler_logprobs_N: Tensor) -> None:
    """Measure how far the trainer's log-probabilities of an adapter's tokens are from those of the sampler: the mean
    and the largest distance in nats, the estimated KL divergence, and the importance weights that would correct it.
    """
    if not (tokens := len(logprobs_N)):
        return
    gap_N = (logprobs_N - sampler_logprobs_N).abs()
    weights_N = losses.importance_weights(logprobs_N, sampler_logprobs_N)
    metrics.add_peak(f"{adapter}/sampling_gap_max", float(gap_N.max()))
    for name, values_N in {
        "sampling_gap": gap_N,
        "sampling_kl": losses.approx_kl(logprobs_N, sampler_logprobs_N),
        "importance_weight": weights_N,
        "importance_truncated": (weights_N == losses.IMPORTANCE_CAP).float(),
    }.items():
        metrics.add(f"{adapter}/{name}", float(values_N.mean()), cases=tokens)
