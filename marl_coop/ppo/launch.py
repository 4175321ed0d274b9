"""What `accelerate launch` asks of a process besides being one of several: FSDP2 for the base, or what is refused.

However it is launched, a run makes the same updates, so a launch that would change what an update is does not start.
"""

import os

from accelerate.utils import is_torch_xla_available

FSDP = "ACCELERATE_USE_FSDP"
FSDP_SETTINGS = {"FSDP_VERSION": "2", "FSDP_OFFLOAD_PARAMS": "false", "FSDP_ACTIVATION_CHECKPOINTING": "false"}

FITTING = "configs/accelerate/ddp.yaml fits, and fsdp2.yaml where the base leaves too little room"
DEEPSPEED = "ACCELERATE_USE_DEEPSPEED"
REFUSED = {  # what accelerate sets to "true" -> what that is, and why it is none of ours
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM, whose own models carry no routed adapters",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "a parallelism_config (tensor, context or sequence parallelism), which tears "
    "apart the rows that adapters are routed by",
}


def shares_out_base() -> bool:
    """Whether the launch file asks for FSDP2. From then on accelerate sees several processes and nothing more: it would
    shard the adapters too, each as a unit that no forward of theirs gathers.

    Raises:
        ValueError: the launch asks for what is not done here.
    """
    if _is_true(DEEPSPEED):
        stage = os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "unknown")
        raise ValueError(
            f"the launch asks for DeepSpeed (ZeRO stage {stage}), whose engine clips all gradients as one and steps "
            "within a backward: here each adapter is clipped by itself, and a step with a loss that is not finite is "
            f"left out whole; {FITTING}"
        )
    for name, what in REFUSED.items():
        if _is_true(name):
            raise ValueError(f"the launch asks for {what}; {FITTING}")
    if (compiler := os.environ.get("ACCELERATE_DYNAMO_BACKEND", "NO")) != "NO":
        raise ValueError(f"the launch asks for torch.compile ({compiler}), which no test here has seen: leave it out")
    if is_torch_xla_available():
        raise ValueError("torch_xla is installed, and transformers would train by XLA: use an environment without it")
    if not _is_true(FSDP):
        return False
    del os.environ[FSDP]
    for name, value in FSDP_SETTINGS.items():
        if (found := os.environ.get(name, value).lower()) != value:
            raise ValueError(
                f"the launch file sets {name.lower()}: {found}, which must be {value}; configs/accelerate/fsdp2.yaml "
                "is one that fits (activations: training.gradient_checkpointing)"
            )
    return True


def _is_true(name: str) -> bool:
    return os.environ.get(name, "false").lower() == "true"
