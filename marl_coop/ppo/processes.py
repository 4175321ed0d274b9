"""What all processes of a training know together."""

import torch
from accelerate import Accelerator
from torch import Tensor


def total(accelerator: Accelerator, values: Tensor) -> Tensor:
    """Sum over all processes."""
    return torch.as_tensor(accelerator.reduce(values.to(accelerator.device), reduction="sum")).to(values.device)


def most(accelerator: Accelerator, count: int) -> int:
    """The largest count of all processes."""
    return int(torch.as_tensor(accelerator.gather(torch.tensor(count, device=accelerator.device))).max())
