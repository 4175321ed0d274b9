"""Attention for CPUs: `attn_implementation: grouped`.

Grouped-query models share each key and value head among several query heads. The usual implementations copy keys and
values once per query head; on a CPU, with the short sequences of our chats, that copying is most of the work. Here
the query heads of a group are stacked as rows of one matrix product instead. The result is that of `eager`
(`benchmarks/attention.py` compares speed and output).

Axes: B rows, H query heads, G key-value heads, Q queries, T keys, D head size.
"""

from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

from marl_coop.policy.compat import eager_mask


def grouped_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs,
) -> tuple[Tensor, None]:
    """Softmax attention of query (B, H, Q, D) over key and value (B, G, T, D), H a multiple of G: (B, Q, H, D).

    `attention_mask` (B, 1, Q, T) is added to the scores. The softmax is in float32. Dropout is not offered.
    """
    if dropout:
        raise ValueError(f"attn_implementation 'grouped' has no attention dropout, got {dropout}; use 'eager'")
    rows, heads, queries, size = query.shape
    groups, keys = key.shape[1], key.shape[2]
    per_group = heads // groups
    stacked = query.reshape(rows, groups, per_group * queries, size)
    scores = (stacked @ key.transpose(-1, -2)).view(rows, groups, per_group, queries, keys).float() * scaling
    if attention_mask is not None:
        scores = scores + attention_mask[:, :, None, :, :keys]
    weights = scores.softmax(dim=-1).to(query.dtype).view(rows, groups, per_group * queries, keys)
    return (weights @ value).view(rows, heads, queries, size).transpose(1, 2).contiguous(), None


def register() -> None:
    """Make `grouped` a name that `attn_implementation` knows."""
    AttentionInterface.register("grouped", grouped_attention)
    AttentionMaskInterface.register("grouped", eager_mask)
