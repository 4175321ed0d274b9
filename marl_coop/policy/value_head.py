"""The critic of one policy."""

import torch
from torch import Tensor, nn


class ValueHead(nn.Module):
    """Small critic: layer norm (hidden states are large and uneven), one hidden layer, a scalar that starts at 0.

    Args:
        features: size of what it reads.
        width: size of its hidden layer.
    """

    def __init__(self, features: int, width: int = 128):
        super().__init__()
        self.norm = nn.LayerNorm(features, elementwise_affine=False)
        self.hidden = nn.Linear(features, width)
        self.value = nn.Linear(width, 1)
        nn.init.zeros_(self.value.weight)
        nn.init.zeros_(self.value.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Values (...) of features (..., features)."""
        return self.value(torch.tanh(self.hidden(self.norm(features)))).squeeze(-1)
