"""What can be set in the section `training`: names, types and ranges, judged without torch.

`MultiAgentPPOConfig` says what each of its own fields means, and `transformers.TrainingArguments` what those do that
come from there. Its other fields are refused: `WITHOUT_EFFECT` and `ELSEWHERE` say what to do instead. What does not go
together is in `marl_coop.training_rules`.
"""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, with_config
from typing_extensions import TypedDict

from envs.core.lookup import did_you_mean

NUM_UPDATES, EPISODES_PER_UPDATE, NUM_MINI_BATCHES = 30, 32, 2  # where nothing else is said
ENGINES = ("embedded", "vllm", "vllm_server")  # and any by its dotted path
VLLM = ("vllm", "vllm_server")  # those that have a copy of the base
VLLM_MIN_TEMPERATURE = 0.01  # vLLM rounds what is below up to it
SERVER_OPTIONS = ("urls", "adapter_folder", "timeout_s")

GROUP = 8  # plays of a task that are compared, as in TRL

TRACKERS = (
    "none all azure_ml clearml codecarbon comet_ml dagshub dvclive flyte kubeflow mlflow neptune swanlab tensorboard "
    "trackio wandb"
).split()


def _known(names: Sequence[str], name: str) -> str:
    if name not in names:
        raise ValueError(f"{name!r} is refused: it is not supported.{did_you_mean(name, names)}")
    return name


def _one_of(names: str) -> AfterValidator:
    """What lets a text pass if it is one of some names."""
    return AfterValidator(partial(_known, names.split()))


def _trackers(names: str | list[str]) -> str | list[str]:
    for name in [names] if isinstance(names, str) else names:
        _known(TRACKERS, name)
    if isinstance(names, list) and len(names) > 1 and {"none", "all"} & {*names}:
        raise ValueError(f"{names} is refused: none and all stand alone")
    return names


def _run_length(steps: int) -> int:
    if steps == 0 or steps < -1 or steps > LARGEST:
        raise ValueError(f"{steps} is refused: give 1 to {LARGEST:g}, or -1 to leave it to num_updates")
    return steps


MOST_RANK = 2**14  # no linear layer that there is has more
LARGEST = 1e9  # of any number: its square is still one of 32 bits

Count = Annotated[int, Field(ge=1, le=int(LARGEST))]
CountFrom0 = Annotated[int, Field(ge=0, le=int(LARGEST))]
Positive = Annotated[float, Field(gt=0, le=LARGEST)]
NotNegative = Annotated[float, Field(ge=0, le=LARGEST)]
Share = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Verbosity = Literal["debug", "info", "warning", "error", "critical", "passive"]
SCHEDULES = _one_of(  # those that follow from the number of a step alone
    "constant constant_with_warmup cosine cosine_warmup_with_min_lr cosine_with_min_lr cosine_with_restarts "
    "inverse_sqrt linear polynomial warmup_stable_decay"
)
OPTIMIZERS = _one_of(  # those that take any parameters, and want nothing but `step`
    "adafactor adagrad adamw_8bit adamw_bnb_8bit adamw_torch adamw_torch_4bit adamw_torch_8bit adamw_torch_fused "
    "lion_32bit lion_8bit paged_adamw_32bit paged_adamw_8bit paged_lion_32bit paged_lion_8bit rmsprop rmsprop_bnb "
    "rmsprop_bnb_32bit rmsprop_bnb_8bit sgd"
)

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


SCHEDULE_KEYWORDS = {  # of each of the SCHEDULES that takes any: `lr_scheduler_kwargs`
    "cosine": ("num_cycles",),
    "cosine_with_restarts": ("num_cycles",),
    "cosine_with_min_lr": ("num_cycles", "min_lr", "min_lr_rate"),
    "cosine_warmup_with_min_lr": ("num_cycles", "min_lr", "min_lr_rate", "warmup_lr_rate"),
    "inverse_sqrt": ("timescale",),
    "polynomial": ("lr_end", "power"),
    "warmup_stable_decay": (
        "num_decay_steps", "num_stable_steps", "warmup_type", "decay_type", "min_lr_ratio", "num_cycles",
    ),
}  # fmt: skip


@with_config(STRICT)
class CheckpointKeywords(TypedDict, total=False):
    """Keywords of `torch.utils.checkpoint.checkpoint`. Its re-entrant kind gives adapters no gradient."""

    use_reentrant: Literal[False]
    preserve_rng_state: bool
    determinism_check: Literal["default", "none"]
    debug: bool
    early_stop: bool


@with_config(STRICT)
class Hyperparameters(TypedDict, total=False):
    """The section `training`: what it leaves out has the default of `MultiAgentPPOConfig`."""

    num_updates: Count
    episodes_per_update: Count
    num_ppo_epochs: Count
    num_mini_batches: Count
    micro_batch_tokens: Count
    padding_free: bool
    max_fault_rate: Share
    async_play: bool
    shard_base: bool
    gamma: Share
    lam: Share
    clip_low: Positive
    clip_high: Positive
    cliprange_value: Positive
    vf_coef: NotNegative
    kl_coef: NotNegative
    kl_reference: Literal["base", "start"]
    entropy_coef: NotNegative
    advantage: Literal["gae", "counterfactual", "group"]
    num_generations: Count | None
    scale_rewards: Literal["none", "group", "batch"]
    critic: Literal["central", "local"]
    loraplus_lr_ratio: Positive
    critic_learning_rate: NotNegative
    temperature: Annotated[float, Field(gt=1e-3, le=LARGEST)]  # logits are divided by it
    max_stance_tokens: Count | None
    max_message_tokens: Count | None
    max_work_tokens: Count | None
    max_final_tokens: Count | None
    max_rows: Count
    engine: str  # judged where engines are made
    engine_options: dict[str, Any]
    importance: Literal["sampler", "recompute", "truncated"] | None
    save_updates: Count
    past_updates: Count
    past_limit: Count
    alternate_updates: Count | None

    max_steps: Annotated[int, AfterValidator(_run_length)]
    gradient_accumulation_steps: Count
    learning_rate: Positive
    lr_scheduler_type: Annotated[str, SCHEDULES]
    lr_scheduler_kwargs: dict[str, Any] | None
    warmup_steps: NotNegative
    optim: Annotated[str, OPTIMIZERS]
    optim_args: str | None
    weight_decay: NotNegative
    adam_beta1: Decay
    adam_beta2: Decay
    adam_epsilon: Positive
    max_grad_norm: NotNegative
    gradient_checkpointing: bool
    gradient_checkpointing_kwargs: CheckpointKeywords | None
    tf32: bool | None
    use_cpu: bool
    full_determinism: bool
    report_to: Annotated[str | list[str], AfterValidator(_trackers)]
    run_name: str | None
    log_level: Verbosity
    log_level_replica: Verbosity
    log_on_each_node: bool
    save_total_limit: Count | None
    ddp_backend: Literal["nccl", "gloo", "mpi", "ccl", "hccl", "cncl", "mccl"] | None
    ddp_timeout: Count
    ddp_find_unused_parameters: bool | None
    ddp_bucket_cap_mb: Count | None
    ddp_broadcast_buffers: bool | None


def _told(reasons: dict[str, str]) -> dict[str, str]:
    """The reason of each name, from the names of each reason."""
    return {name: reason for reason, names in reasons.items() for name in names.split()}


ELSEWHERE = _told(  # these have an effect, but are set in another place of a configuration
    {
        "set output_dir at the top level of the configuration": "output_dir",
        "set seed at the top level of the configuration": "seed",
        "set gradient_checkpointing": "activation_checkpointing",
        "set gradient_checkpointing_kwargs": "activation_checkpointing_kwargs",
        "a run shows a progress of its own, as a bar or as lines": "disable_tqdm",
    }
)

WITHOUT_EFFECT = _told(  # names of all versions of transformers that this library takes
    {
        "it has no effect: each update is logged": "logging_strategy logging_steps logging_first_step",
        "it has no effect: set save_updates": "save_strategy save_steps",
        "it has no effect: set num_updates": "num_train_epochs",
        "it has no effect: set warmup_steps, below 1 for a share of the run": "warmup_ratio",
        "it has no effect: set episodes_per_update, num_mini_batches and gradient_accumulation_steps": (
            "per_device_train_batch_size auto_find_batch_size"
        ),
        "it has no effect: set evaluation.every": "eval_strategy eval_steps",
        "it has no effect: the section evaluation says what is played": (
            "eval_delay eval_on_start eval_accumulation_steps eval_do_concat_batches "
            "eval_use_gather_object per_device_eval_batch_size prediction_loss_only include_for_metrics "
            "batch_eval_metrics do_train do_eval do_predict load_best_model_at_end metric_for_best_model "
            "greater_is_better bf16_full_eval fp16_full_eval"
        ),
        "it is not supported: set model.dtype; the base computes in that, and adapters are float32": "bf16 fp16",
        "it is not supported: go on with a run by --resume DIR": (
            "resume_from_checkpoint ignore_data_skip restore_callback_states_from_checkpoint"
        ),
        "it is not supported: a run must be able to go on from its checkpoints": "save_only_model",
        "it is not supported: checkpoints are written by the main process, whole and renamed": (
            "save_on_each_node enable_jit_checkpoint"
        ),
        "it is not supported: nothing is uploaded; adapters lie in the run's folder": (
            "push_to_hub hub_token hub_private_repo hub_model_id hub_strategy hub_always_push hub_revision"
        ),
        "it has no effect: episodes are played, no data is loaded": (
            "dataloader_drop_last dataloader_num_workers dataloader_pin_memory dataloader_persistent_workers "
            "dataloader_prefetch_factor dataloader_multiprocessing_context dataloader_in_order remove_unused_columns "
            "label_names train_sampling_strategy group_by_length length_column_name data_seed"
        ),
        "it has no effect: the loss is that of PPO, over the tokens of all processes": (
            "label_smoothing_factor average_tokens_across_devices logging_nan_inf_filter include_num_input_tokens_seen"
        ),
        "it has no effect: memory_gib is logged with each update": "torch_empty_cache_steps skip_memory_metrics",
        "it is not supported: it changes what the model computes, or how its layers are called": (
            "torch_compile torch_compile_backend torch_compile_mode use_liger_kernel liger_kernel_config use_cache "
            "neftune_noise_alpha debug optim_target_modules"
        ),
        "it is not supported: several processes run under DDP (accelerate launch)": (
            "fsdp fsdp_config deepspeed parallelism_config accelerator_config ddp_static_graph local_rank"
        ),
        "it is not supported: set it by the tracker's own environment variables": (
            "project trackio_space_id trackio_bucket_id trackio_static_space_id logging_dir"
        ),
    }
)
