"""Attention for CPUs: `attn_implementation: grouped`.

Grouped-query models share each key and value head among several query heads. Where there is a mask, the `sdpa` of
transformers copies keys and values once per query head; torch's fused kernel for CPUs needs no copy, and is told so
here. It keeps no score of a query and a key either, so memory grows with the length of a chat and not with its square,
but for the mask, which all heads and layers share. The result is that of `eager` (`benchmarks/attention.py` compares
speed and output).

Axes: B rows, H query heads, G key-value heads, Q queries, T keys, D head size.
"""

from typing import Any

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface

from envs.core.fields import ArgumentError
from marl_coop.policy.compat import eager_mask

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
    output = scaled_dot_product_attention(query, key, value, attention_mask, scale=scaling, enable_gqa=True)
    return output.transpose(1, 2).contiguous(), None


def register() -> None:
    """Make `grouped` a name that `attn_implementation` knows."""
    AttentionInterface.register("grouped", grouped_attention)
    AttentionMaskInterface.register("grouped", eager_mask)
