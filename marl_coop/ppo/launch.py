"""What `accelerate launch` asks of a process besides being one of several: FSDP2 for the base, or what is refused.

However it is launched, a run makes the same updates, so a launch that would change what an update is does not start.
"""

import logging
import os

from accelerate.utils import is_torch_xla_available, parse_flag_from_env

logger = logging.getLogger(__name__)

FSDP = "ACCELERATE_USE_FSDP"
FSDP_SETTINGS = {  # what accelerate hands on of a launch file -> what it must be where it is set; "": it must not be
    "FSDP_VERSION": "2",
    "FSDP_SHARDING_STRATEGY": "FULL_SHARD",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_OFFLOAD_PARAMS": "false",
    "FSDP_ACTIVATION_CHECKPOINTING": "false",
    "FSDP_ACTIVATION_CHECKPOINTING_OFFLOAD": "false",
    "FSDP_IGNORED_MODULES": "",
}
FSDP_WITHOUT_EFFECT = {  # -> what accelerate hands on where the file says nothing; "": nothing
    "FSDP_TRANSFORMER_CLS_TO_WRAP": "",
    "FSDP_MIN_NUM_PARAMS": "100000000",
    "FSDP_STATE_DICT_TYPE": "",
    "FSDP_BACKWARD_PREFETCH": "",
    "FSDP_FORWARD_PREFETCH": "false",
    "FSDP_USE_ORIG_PARAMS": "true",
    "FSDP_SYNC_MODULE_STATES": "true",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "true",
}

FITTING = "configs/accelerate/ddp.yaml fits, and fsdp2.yaml where the base leaves too little room"
DEEPSPEED = "ACCELERATE_USE_DEEPSPEED"
REFUSED = {  # what accelerate sets to true -> what that is, and why it is none of ours
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
    if parse_flag_from_env(DEEPSPEED):
        stage = os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "unknown")
        raise ValueError(
            f"the launch asks for DeepSpeed (ZeRO stage {stage}), whose engine clips all gradients as one, steps "
            "within a backward and moves what has no gradient: here each adapter is clipped by itself, and one that a "
            f"step teaches nothing stands still; {FITTING}"
        )
    for name, what in REFUSED.items():
        if parse_flag_from_env(name):
            raise ValueError(f"the launch asks for {what}; {FITTING}")
    if (compiler := os.environ.get("ACCELERATE_DYNAMO_BACKEND", "NO")) != "NO":
        raise ValueError(f"the launch asks for torch.compile ({compiler}), which no test here has seen: leave it out")
    if is_torch_xla_available():
        raise ValueError("torch_xla is installed, and transformers would train by XLA: use an environment without it")
    if not parse_flag_from_env(FSDP):
        return False
    del os.environ[FSDP]
    for name, value in FSDP_SETTINGS.items():
        if (found := os.environ.get(name, value)).lower() != value.lower():
            raise ValueError(
                f"the launch file sets {_key(name)}: {found}, which must be {value or 'left out'}; "
                "configs/accelerate/fsdp2.yaml is one that fits (activations: training.gradient_checkpointing)"
            )
    idle = {name: os.environ.get(name, default) for name, default in FSDP_WITHOUT_EFFECT.items()}
    said = [f"{_key(name)}: {found}" for name, found in idle.items() if found != FSDP_WITHOUT_EFFECT[name]]
    if said and os.environ.get("RANK", "0") == "0":
        logger.warning(
            f"the launch file sets {', '.join(said)}, without effect: every process reads the base, the layers of its "
            "decoder are shared out, and what is trained is whole on every process and in checkpoints"
        )
    return True


def warn_of_one_process(processes: int) -> None:
    """Say that one process runs where accelerate was told of several and by its `distributed_type` started one: it
    hands on where these would meet, and no rank."""
    launched = {"ACCELERATE_MIXED_PRECISION", "MASTER_PORT"} <= os.environ.keys() and "RANK" not in os.environ
    if processes == 1 and launched:
        logger.warning(
            "one process runs, whatever the launch file has as num_processes: its distributed_type must be MULTI_GPU "
            "for more, on a CPU too (configs/accelerate/cpu2.yaml)"
        )


def _key(name: str) -> str:
    """Of a launch file."""
    return name.lower().replace("transformer_cls", "transformer_layer_cls")
