"""What can be set about multi-agent PPO."""

import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from torch.distributed import DistError
from typing_extensions import get_protocol_members

from envs.core.episode import Phase
from envs.core.fields import ArgumentError
from envs.core.lookup import find
from envs.core.tokens import one_line
from marl_coop.engines import Engine, vllm, vllm_server
from marl_coop.engines.embedded import EmbeddedEngine
from marl_coop.hyperparameters import EPISODES_PER_UPDATE, NUM_MINI_BATCHES, NUM_UPDATES, VLLM, WITHOUT_EFFECT
from marl_coop.policy.compat import TrainingConfig, keep_to_one_gpu, limit_waiting
from marl_coop.policy.team import TeamPolicy
from marl_coop.ppo import launch
from marl_coop.training_rules import at_field, check_shares, check_together, plays_of_task, refused_together

logger = logging.getLogger(__name__)

MAX_TOKENS = {  # phase -> the field that limits its replies
    Phase.STANCE: "max_stance_tokens",
    Phase.TALK: "max_message_tokens",
    Phase.WORK: "max_work_tokens",
    Phase.FINAL: "max_final_tokens",
}


def _embedded(policy: TeamPolicy, args: "MultiAgentPPOConfig") -> Engine:
    return EmbeddedEngine(policy, args.max_rows)


def _vllm(policy: TeamPolicy, args: "MultiAgentPPOConfig") -> Engine:
    return vllm.VLLMEngine(policy, args.max_rows, args.engine_options)


def _vllm_server(policy: TeamPolicy, args: "MultiAgentPPOConfig") -> Engine:
    return vllm_server.VLLMServerEngine(policy, **args.engine_options)


ENGINES: dict[str, Callable[[TeamPolicy, "MultiAgentPPOConfig"], Engine]] = {
    "embedded": _embedded,
    "vllm": _vllm,
    "vllm_server": _vllm_server,
}


def build_engine(policy: TeamPolicy, args: "MultiAgentPPOConfig") -> Engine:
    """The engine of `training.engine`, which `check_together` has found.

    Raises:
        ValueError: what is made there is no engine.
    """
    engine = find(args.engine, ENGINES, kind="engine")(policy, args)
    members = get_protocol_members(Engine)
    if missing := [name for name in vars(Engine) if name in members and not hasattr(engine, name)]:
        lacks = f"{type(engine).__name__}, which lacks {', '.join(missing)} of marl_coop.engines.Engine"
        raise ValueError(f"training.engine: {args.engine} makes a {lacks}")
    return engine


@dataclass
class MultiAgentPPOConfig(TrainingConfig):
    """Every field of `transformers.TrainingArguments`, and those of PPO. A step is one optimisation step.

    Args:
        num_updates: rounds of play and learning; with `max_steps` left at -1 it sets the length of the run.
        episodes_per_update: episodes of one round over all processes.
        num_ppo_epochs: passes over the episodes of a round.
        num_mini_batches: minibatches of a pass; `gradient_accumulation_steps` splits each once more.
        gamma, lam: discount and lambda of GAE, per turn, in [0, 1].
        clip_low, clip_high: the ratio is clipped to [1 - clip_low, 1 + clip_high].
        cliprange_value: how far a value may move from its old one within an update.
        vf_coef, kl_coef, entropy_coef: weights of value loss, KL to the reference, entropy bonus; >= 0. With
            `kl_coef` 0 the reference gives no log-probabilities, and the KL is not measured.
        kl_reference: "base" (adapters off) or "start" (the adapters as the trainer got them). After a warm-up, the base
            knows nothing of the format of replies; the start does, and a KL to it keeps what the warm-up taught.
        advantage: "gae", or "counterfactual": a message's advantage is what the seat was paid from there on, minus what
            it would have been paid had it said nothing, by a replay with frozen partners (one more round of play per
            seat). Other turns keep GAE. Or "group": no critic; each turn's return is compared with its mean over the
            plays of the same task, for the same seat and turn (GRPO; MAGRPO, arXiv 2508.04652).
        num_generations: plays of each task in an update, with the same players and other random numbers; None: 8 for
            "group" as in TRL, else 1.
        scale_rewards: of "group", as in TRL: "none" (Dr. GRPO, arXiv 2503.20783), "group" divides each advantage by the
            standard deviation of the returns that it was compared with, "batch" by that of all advantages of the seat
            in the update.
        critic: "central" reads the features of all seats (MAPPO), "local" the seat's own (IPPO); "group" has none.
        loraplus_lr_ratio: `learning_rate` is that of the A matrices, and this times as much that of the B matrices
            (LoRA+, arXiv 2402.12354, recommends about 16); > 0.
        critic_learning_rate: the critics' own rate; the schedule is shared.
        temperature: of sampling, > 0; log-probabilities in training are of the same distribution.
        max_stance_tokens, max_message_tokens, max_work_tokens, max_final_tokens: length limits of a reply; None: what
            demonstrations take in the environments that are played, and a margin (`marl_coop.rollout.limits`).
        max_rows: chats that are played at once, all seats of an episode together; it sets the memory of playing,
            whatever the seats and episodes. Of vLLM, the replies that are sampled at once; a server has its own limit.
        micro_batch_tokens: tokens of chats in one forward and backward, padding included; it sets the memory of
            learning, whatever the seats and lengths. A chat that is longer goes alone.
        padding_free: the chats of a micro-batch stand one behind the other in one row, and none is padded (as in TRL).
            It is for `attn_implementation: flash_attention_2` and its kin: every other computes all pairs of tokens of
            the row under a mask, to the same result.
        engine: what samples while playing: "embedded" (the training model itself), "vllm" (beside the trainer, on its
            device), "vllm_server" (one or several), or a dotted path `package.module:object` to what makes a
            `marl_coop.engines.Engine` of the team's policy and these arguments.
        engine_options: of "vllm", fields of `vllm.EngineArgs`; of "vllm_server", `urls`, `adapter_folder` and
            `timeout_s` (`marl_coop.engines.vllm_server.VLLMServerEngine`). The embedded engine has none.
        importance: what the ratio starts from. "sampler": the log-probabilities with which the engine sampled.
            "recompute": those of the trainer's own forward before it learns, where another engine rounds otherwise.
            "truncated": those too, and the policy loss of each token is weighted by the trainer's probability over the
            sampler's, 2 at most (TRL's `vllm_importance_sampling_correction`). None: "sampler" for an engine that
            samples with the training model, "truncated" for vLLM.
        save_updates: a checkpoint every so many updates.
        past_updates: a snapshot of each adapter whose past selves play (`past:ADAPTER` in `policies`) is taken every so
            many updates, and before the first.
        past_limit: the latest snapshots, so many, of an adapter are kept.
        alternate_updates: one of the adapters learns for so many updates while the others stand still, then the next
            (iterated best response); None: all learn in every update.
        max_fault_rate: share of an update's episodes that may meet a sandbox fault, and of its steps whose loss may not
            be finite, in [0, 1]. Nothing is learned from them, the log counts them, and beyond it training stops.
        async_play: play an update while the one before is learned from, with weights that are one update old, which
            `importance` corrects for. It wants an engine that runs beside the trainer, such as "vllm_server". A resumed
            run plays its first update with the weights of the checkpoint.
        shard_base: several processes share out the weights of the base (FSDP2), and each has a layer's in full while
            it runs. What is trained stays whole, under DDP. While the embedded engine plays, the base is whole as well:
            one that leaves no room for that wants servers of vLLM. `configs/accelerate/fsdp2.yaml` sets it.
    """

    num_updates: int = NUM_UPDATES
    episodes_per_update: int = EPISODES_PER_UPDATE
    num_ppo_epochs: int = 1
    num_mini_batches: int = NUM_MINI_BATCHES
    gamma: float = 1.0
    lam: float = 0.95
    clip_low: float = 0.2
    clip_high: float = 0.28
    cliprange_value: float = 0.2
    vf_coef: float = 0.5
    kl_coef: float = 0.0
    kl_reference: Literal["base", "start"] = "base"
    entropy_coef: float = 0.0
    advantage: Literal["gae", "counterfactual", "group"] = "gae"
    num_generations: int | None = None
    scale_rewards: Literal["none", "group", "batch"] = "none"
    critic: Literal["central", "local"] = "central"
    loraplus_lr_ratio: float = 1.0
    critic_learning_rate: float = 1e-3
    temperature: float = 1.0
    max_stance_tokens: int | None = None
    max_message_tokens: int | None = None
    max_work_tokens: int | None = None
    max_final_tokens: int | None = None
    max_rows: int = 128
    micro_batch_tokens: int = 4096
    padding_free: bool = False
    engine: str = "embedded"
    engine_options: dict[str, Any] = field(default_factory=dict)
    importance: Literal["sampler", "recompute", "truncated"] | None = None
    save_updates: int = 5
    past_updates: int = 5
    past_limit: int = 4
    alternate_updates: int | None = None
    max_fault_rate: float = 0.5
    async_play: bool = False
    shard_base: bool = False

    learning_rate: float = 2e-4
    lr_scheduler_type: str = "constant"
    max_grad_norm: float = 1.0
    report_to: None | str | list[str] = "wandb"
    bf16: bool | None = False  # the base has its own dtype and the adapters are float32: nothing to cast
    gradient_checkpointing: bool = False
    ddp_find_unused_parameters: bool | None = False
    save_total_limit: int | None = 2
    logging_nan_inf_filter: bool = False
    log_level_replica: str = "passive"  # as the first process

    def __post_init__(self):
        counts = (
            "num_updates",
            "episodes_per_update",
            "num_ppo_epochs",
            "num_mini_batches",
            "max_rows",
            "micro_batch_tokens",
        )
        clips = ("clip_low", "clip_high", "cliprange_value")
        limits = [name for name in MAX_TOKENS.values() if getattr(self, name) is not None]
        for name in (*counts, *limits, *clips, "temperature", "learning_rate", "loraplus_lr_ratio"):
            self._check(name, 0 < getattr(self, name) < math.inf, "positive")
        for name in ("vf_coef", "kl_coef", "entropy_coef", "critic_learning_rate"):
            self._check(name, 0 <= getattr(self, name) < math.inf, "a number of at least 0")
        for name in ("gamma", "lam", "max_fault_rate"):
            self._check(name, 0 <= getattr(self, name) <= 1, "in [0, 1]")
        self._check("num_generations", self.plays > 0, "positive")
        self._check("alternate_updates", self.alternate_updates is None or self.alternate_updates > 0, "positive")
        if refused := refused_together(vars(self)):
            raise ValueError("training.{}: {}".format(*refused))
        if self.importance is None:
            self.importance = "truncated" if self.engine in VLLM else "sampler"
        choices = {
            "advantage": ("gae", "counterfactual", "group"),
            "scale_rewards": ("none", "group", "batch"),
            "critic": ("central", "local"),
            "kl_reference": ("base", "start"),
            "importance": ("sampler", "recompute", "truncated"),
        }
        for name, known in choices.items():
            self._check(name, getattr(self, name) in known, " or ".join(map(repr, known)))
        for name in ("deepspeed", "fsdp", "parallelism_config", "torch_compile"):
            if getattr(self, name, None):
                raise ValueError(f"training.{name}: {WITHOUT_EFFECT[name]}")
        self.shard_base |= launch.shares_out_base()
        try:
            check_together(vars(self))
            with at_field("engine_options"):
                if self.engine == "vllm":
                    vllm.check_options(self.engine_options)
        except ArgumentError as error:
            raise ArgumentError(f"training.{'.'.join(map(str, error.loc))}: {error}", error.loc) from error
        self._check("save_only_model", not self.save_only_model, "false, for runs to go on from their checkpoints")
        if self.max_steps < 0:
            self.max_steps = self.num_updates * self.steps_per_update
        self.logging_strategy = self.save_strategy = "steps"
        self.logging_steps = self.steps_per_update
        self.save_steps = self.save_updates * self.steps_per_update
        try:
            super().__post_init__()
            gpus = keep_to_one_gpu(self)
        except DistError as error:
            raise ValueError(
                f"the processes that were launched do not meet at MASTER_ADDR={os.environ.get('MASTER_ADDR')}, "
                f"MASTER_PORT={os.environ.get('MASTER_PORT')}: {one_line(error)}. Name the machine of rank 0, a port "
                "that is free there, and as many processes as are started"
            ) from error
        if gpus > 1:
            logger.warning(
                f"one of {gpus} GPUs is used; all of them: accelerate launch --config_file configs/accelerate/ddp.yaml "
                f"--num_processes {gpus} train.py ..."
            )
        limit_waiting(self.ddp_timeout)
        launch.warn_of_one_process(self.world_size)
        if (launched := int(os.environ.get("WORLD_SIZE", 1))) != self.world_size:
            raise ValueError(
                f"{launched} processes were launched, and each would train alone: there are not as many GPUs. For a "
                "CPU there is configs/accelerate/cpu2.yaml"
            )

    def _check(self, name: str, holds: bool, must_be: str) -> None:
        if not holds:
            raise ValueError(f"training.{name} must be {must_be}, got {getattr(self, name)!r}")

    def check_shares(self, processes: int) -> None:
        """Raises ValueError where so many processes, or the minibatches, cannot share an update's episodes evenly, all
        plays of a task together."""
        try:
            check_shares(*self.shares(processes))
        except ValueError as error:
            raise ValueError(f"training.episodes_per_update: {error}") from error

    def shares(self, processes: int) -> tuple[int, int, int, int, int]:
        """What `marl_coop.training_rules.check_shares` judges, for so many processes."""
        parts = self.num_mini_batches, self.gradient_accumulation_steps
        return self.episodes_per_update, *parts, processes, self.plays

    def learners(self, adapters: Sequence[str], update: int) -> tuple[str, ...]:
        """Those of the adapters that learn in an update, from 0."""
        if self.alternate_updates is None:
            return tuple(adapters)
        return (adapters[update // self.alternate_updates % len(adapters)],)

    @property
    def plays(self) -> int:
        """Of each task in an update."""
        return plays_of_task(self.advantage, self.num_generations)

    @property
    def has_critic(self) -> bool:
        """Whether values are learned."""
        return self.advantage != "group"

    def critic_seats(self, seats: int) -> int:
        """Seats of a team of so many whose features a critic reads together; 0: there is no critic."""
        return (seats if self.critic == "central" else 1) if self.has_critic else 0

    @property
    def steps_per_update(self) -> int:
        return self.num_ppo_epochs * self.num_mini_batches

    @property
    def max_tokens(self) -> dict[Phase, int]:
        """The length limit of a reply in each phase, without those that are None."""
        limits = {phase: getattr(self, name) for phase, name in MAX_TOKENS.items()}
        return {phase: limit for phase, limit in limits.items() if limit is not None}

    def limit_replies(self, limits: Mapping[Phase, int]) -> None:
        """Set the length limit of a reply in some phases."""
        for phase, limit in limits.items():
            setattr(self, MAX_TOKENS[phase], limit)
