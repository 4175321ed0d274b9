"""The frozen base shared out among processes (FSDP2): each holds a part of every layer's weights.

What is trained is small beside the base, and stays whole in every process, under DDP as without sharding: optimiser,
checkpoints and adapters on disk are the same. A forward of shared layers is run by all processes together. To play,
which each does at its own pace, they gather the base for a while.
"""

import warnings

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

from marl_coop.policy import compat
from marl_coop.policy.routed_lora import LoraFactor
from marl_coop.policy.team import TeamPolicy


def shard(policy: TeamPolicy, device: torch.device) -> None:
    """Leave each process its part of the base, on its device. All that is not of the base stays whole.

    Raises:
        ValueError: the base is quantised.
    """
    if policy.quantized:
        raise ValueError("training.shard_base shares out plain weights: it goes without model.load_in_4bit")
    policy.keep_no_prefix()
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor", UserWarning)
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    factors = [module for module in policy.modules() if isinstance(module, LoraFactor)]
    whole = {parameter for module in (*factors, policy.critics) for parameter in module.parameters()}
    for layer in compat.layers_of(policy.decoder):
        fully_shard(layer, mesh=mesh, ignored_params=whole)
    fully_shard(policy, mesh=mesh, ignored_params=whole)
    register_fsdp_forward_method(policy, "hidden")  # is called from outside; what is not in a layer is gathered by it
    compat.leave_to_fsdp(policy, [name for name, parameter in policy.named_parameters() if parameter not in whole])


def gather(policy: nn.Module) -> None:
    """Let every process have the whole base, until `scatter`, and run forwards at its own pace. All call it."""
    for part in _parts(policy):
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()


def scatter(policy: nn.Module) -> None:
    """Leave each process its part alone; a forward gathers a layer's weights and gives them back."""
    for part in _parts(policy):
        part.set_reshard_after_forward(part is not policy, recurse=False)  # the root's are wanted again at once
        part.reshard()


def _parts(policy: nn.Module) -> list[FSDPModule]:
    """What is shared out; empty where nothing is."""
    return [module for module in policy.modules() if isinstance(module, FSDPModule)]
