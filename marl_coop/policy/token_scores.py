"""Log-probability and entropy of sampled tokens, from the hidden states before them.

The log-probability of a token depends on one hidden state alone, so its gradient is a vector of the size of that state.
It is made while the logits are at hand, and nothing of the size of the vocabulary is kept for the backward pass or made
again there (as Liger Kernel does for the loss of a whole batch, arXiv 2410.10989, section 3.2).

Axes in names: N tokens, H hidden size, V vocabulary.
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Head = Callable[[Tensor], Tensor]  # hidden states (N, H) -> logits (N, V), float32


def token_scores(hidden_NH: Tensor, ids_N: Tensor, head: Head, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probability (N,) of tokens and entropy (N,) of what they were drawn from, in nats, at a temperature.

    Gradients reach the hidden states; the head is frozen. That of the entropy makes the logits once more.
    """
    scores: tuple[Tensor, Tensor] = _TokenScores.apply(hidden_NH, ids_N, head, temperature)
    return scores


class _TokenScores(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_NH: Tensor, ids_N: Tensor, head: Head, temperature: float) -> tuple[Tensor, Tensor]:
        needed = ctx.needs_input_grad[0]
        leaf_NH, logits_NV = _logits(hidden_NH, head, needed)
        logprobs_NV = (logits_NV.detach() / temperature).log_softmax(-1)
        logprob_N = logprobs_NV.gather(-1, ids_N[:, None]).squeeze(-1)
        probs_NV = logprobs_NV.exp()
        entropy_N = -torch.linalg.vecdot(probs_NV, logprobs_NV)
        if needed:
            slope_NV = probs_NV.mul_(-1 / temperature)  # of log p(token) by the logits: ([it is the token] - p) / T
            slope_NV.scatter_add_(-1, ids_N[:, None], torch.full_like(logprob_N, 1 / temperature)[:, None])
            (slope_NH,) = torch.autograd.grad(logits_NV, leaf_NH, slope_NV)
            ctx.save_for_backward(hidden_NH, slope_NH)
            ctx.head, ctx.temperature = head, temperature
        ctx.set_materialize_grads(False)
        return logprob_N, entropy_N

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, logprob_gradient_N: Tensor | None, entropy_gradient_N: Tensor | None
    ) -> tuple[Tensor, None, None, None]:
        hidden_NH, slope_NH = ctx.saved_tensors
        gradient_NH = torch.zeros_like(hidden_NH)
        if logprob_gradient_N is not None:
            gradient_NH += slope_NH * logprob_gradient_N[:, None]
        if entropy_gradient_N is not None:
            leaf_NH, logits_NV = _logits(hidden_NH, ctx.head, needed=True)
            logprobs_NV = (logits_NV.detach() / ctx.temperature).log_softmax(-1)
            probs_NV = logprobs_NV.exp()
            entropy_N1 = -torch.linalg.vecdot(probs_NV, logprobs_NV)[:, None]
            slope_NV = -probs_NV * (logprobs_NV + entropy_N1) / ctx.temperature  # of the entropy by the logits
            (slope_NH,) = torch.autograd.grad(logits_NV, leaf_NH, slope_NV * entropy_gradient_N[:, None])
            gradient_NH += slope_NH
        return gradient_NH, None, None, None


def _logits(hidden_NH: Tensor, head: Head, needed: bool) -> tuple[Tensor, Tensor]:
    """Logits (N, V), and the leaf (N, H) that a gradient of theirs reaches if one is needed."""
    leaf_NH = hidden_NH.detach().requires_grad_(needed)
    with torch.enable_grad() if needed else nullcontext():
        return leaf_NH, head(leaf_NH)
