"""What all processes of a training know together."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from torch import Tensor

from marl_coop.runs.rundir import LostProcessError


def total(accelerator: Accelerator, values: Tensor) -> Tensor:
    """Sum over all processes."""
    return torch.as_tensor(accelerator.reduce(values.to(accelerator.device), reduction="sum")).to(values.device)


def most(accelerator: Accelerator, count: int) -> int:
    """The largest count of all processes."""
    return int(torch.as_tensor(accelerator.gather(torch.tensor(count, device=accelerator.device))).max())


@contextmanager
def naming_lost_processes() -> Iterator[None]:
    """Makes a LostProcessError of what a collective raises when another process is gone or silent. Gloo has no type
    for it."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.distributed.DistError) and "gloo/transport" not in str(error):
            raise
        if "timed out" in str(error).lower():
            said = "another process of this run has said nothing for as long as training.ddp_timeout allows."
        else:
            said = "another process of this run has ended, and its own output says why."
        raise LostProcessError(said) from error
