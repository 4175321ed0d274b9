"""Attention for CPUs: `attn_implementation: grouped`.

Grouped-query models share each key and value head among several query heads. Where there is a mask, the `sdpa` of
transformers copies keys and values once per query head; torch's fused kernel for CPUs needs no copy, and is told so
here. It keeps no score of a query and a key either, so memory grows with the length of a chat and not with its square,
but for the mask, which all heads and layers share. In bfloat16 it is slow for one query at a time, as in decoding, and
its backward is on short chats: plain matrix products do both, the backward a few rows at a time. The
result is that of `eager` (`benchmarks/attention.py` compares speed and output).

Axes: B rows, H query heads, G key-value heads, Q queries, T keys, D head size.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface

from envs.core.fields import ArgumentError
from marl_coop.policy.compat import eager_mask

SHORT = 256  # keys, up to which the backward is made of matrix products
ROWS_AT_ONCE = 4  # whose scores it has in memory
IN_THE_MASK = ("position_ids", "cache_position", "sliding_window", "is_causal")  # what a mask has been made of already


def grouped_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **more: Any,
) -> tuple[Tensor, None]:
    """Softmax attention of query (B, H, Q, D) over key and value (B, G, T, D), H a multiple of G: (B, Q, H, D).

    `attention_mask` (B, 1, Q, T) is added to the scores.

    Raises:
        ArgumentError: the model asks for more than that, such as dropout, sinks or capped scores.
    """
    asked = [name for name, value in more.items() if name not in IN_THE_MASK and not isinstance(value, bool | None)]
    if dropout or asked:
        what = ", ".join(["dropout"] * bool(dropout) + asked)
        problem = f"attn_implementation 'grouped' does not compute {what}, which this model has: use 'eager'"
        raise ArgumentError(problem, ("attn_implementation",))
    if attention_mask is not None:
        attention_mask = attention_mask[..., : key.shape[2]]
        if query.shape[2] == 1 and query.dtype == torch.bfloat16:
            return _of_one_query(query, key, value, attention_mask, scaling), None
        if torch.is_grad_enabled() and query.dtype == torch.bfloat16 and key.shape[2] <= SHORT:
            output = _ShortAttention.apply(query, key, value, attention_mask, scaling)
            return output.transpose(1, 2).contiguous(), None
    output = scaled_dot_product_attention(query, key, value, attention_mask, scale=scaling, enable_gqa=True)
    return output.transpose(1, 2).contiguous(), None


def _of_one_query(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float) -> Tensor:
    """(B, 1, H, D). The query heads that share a key are its queries, so each key is read once."""
    rows, heads, _, size = query.shape
    queries = (query * scaling).reshape(rows, key.shape[1], -1, size)
    scores = torch.matmul(queries, key.transpose(2, 3)).add_(mask)
    return torch.matmul(scores.softmax(-1), value).reshape(rows, 1, heads, size)


class _ShortAttention(torch.autograd.Function):
    """The fused kernel forward; backward, scores are made again and the gradients of softmax attention written out
    (FlashAttention, arXiv 2205.14135, appendix B.4)."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float) -> Tensor:
        output = scaled_dot_product_attention(query, key, value, mask, scale=scaling, enable_gqa=True)
        ctx.save_for_backward(query, key, value, mask, output)
        ctx.scaling = scaling
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        tensors = (*ctx.saved_tensors, gradient)
        found = tuple(torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device) for tensor in tensors[:3])
        for part in zip(*(tensor.split(ROWS_AT_ONCE) for tensor in (*tensors, *found)), strict=True):
            _gradients(*part, scaling=ctx.scaling)
        return *found, None, None


def _gradients(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor,
    output: Tensor,
    gradient: Tensor,
    to_query: Tensor,
    to_key: Tensor,
    to_value: Tensor,
    scaling: float,
) -> None:
    """Fill in the gradients of query, key and value. Query heads that share a key count as more queries of it, so
    there are B * G independent products."""
    queries, (rows, groups, keys, size) = query.shape[2], key.shape
    queried = (rows * groups, -1, size)
    query, output, gradient = (one.reshape(queried) for one in (query * scaling, output, gradient))
    key, value = (one.reshape(queried) for one in (key, value))
    scores = torch.bmm(query, key.transpose(1, 2)).view(rows, -1, queries, keys)
    weights = scores.add_(mask).softmax(-1).view(rows * groups, -1, keys)
    of_output = (gradient * output).sum(-1, keepdim=True)
    of_scores = torch.bmm(gradient, value.transpose(1, 2)).sub_(of_output).mul_(weights)
    torch.bmm(of_scores, key, out=to_query.view(queried)).mul_(scaling)
    torch.bmm(of_scores.transpose(1, 2), query, out=to_key.view(queried))
    torch.bmm(weights.transpose(1, 2), gradient, out=to_value.view(queried))


def register() -> None:
    """Make `grouped` a name that `attn_implementation` knows."""
    AttentionInterface.register("grouped", grouped_attention)
    AttentionMaskInterface.register("grouped", eager_mask)
