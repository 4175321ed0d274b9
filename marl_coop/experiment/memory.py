"""What a run takes of a device's memory, phase by phase, before it is run.

    loading    the base, whole on every device: a run tries it before it is shared out
    warm-up    + an adapter, its gradients and Adam's two moments, `warmup.micro_batch_size` chats with gradients
    play       + all adapters; the keys and values of the chats that are played at once, and either those again, as they
               are copied into another batch, or what reading them makes; or the share of a vLLM beside the trainer
    reference  + what play kept of the frozen layers; a micro-batch without gradients
    learning   + gradients and Adam's moments of adapters and critics; a micro-batch with gradients

Every chat is as long as it can be. The sizes are those of `marl_coop.policy.footprint`; on a CPU a step that differs
in shape from the last takes more, for what malloc keeps of that has gaps (`GAPS`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig

from envs.core.episode import Phase
from marl_coop.config import policies
from marl_coop.config.schema import Config
from marl_coop.experiment import setup
from marl_coop.policy import attention
from marl_coop.policy.adapters import weights_in
from marl_coop.policy.footprint import Footprint, footprint
from marl_coop.policy.layout import padded_width
from marl_coop.ppo.config import MultiAgentPPOConfig
from marl_coop.ppo.experience import reads_start
from marl_coop.rollout.limits import Lengths

GIB = 2**30
NF4_BYTES = 4.127 / 8  # of a weight, the scales of its block and the scales of those included (QLoRA, section 3)
MOMENTS = 2  # of Adam
WEIGHT_BYTES = 4  # of an adapter's, in float32 whatever its file has
GAPS = 1.3  # on a CPU: measured over what is alive in steps of the reference and of learning, benchmarks/memory.py


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a run plays and learns: chats of `chat` tokens, of which `told` are read at once and `written` sampled.

    `chats` are played by one process for an update or a batch of an evaluation, `batch` of them at once, and `learned`
    are of one update; `warm` are in one micro-batch of the warm-up, 0 where there is none, `scored` in one of the
    reference and `micro` in one of learning, where a part of a minibatch is all that there is. `adapters` are trained,
    and beside them lie `copies` of some, frozen: references and past selves; and `frozen` weights of adapters on disk.

    `engine` is that of `training.engine`, and `beside` the bytes that another process of it takes of the device while
    it plays.
    """

    chat: int
    told: int
    written: int
    chats: int
    batch: int
    learned: int
    warm: int
    scored: int
    micro: int
    adapters: int
    copies: int
    frozen: int = 0
    engine: str = "embedded"
    beside: float = 0.0

    @property
    def plays(self) -> bool:
        """Whether the trainer's own model samples."""
        return self.engine == "embedded"


@dataclass(frozen=True, slots=True)
class PhaseMemory:
    """Bytes of a phase: what is held all the while, and what its largest step makes."""

    name: str
    held: float
    step: float

    @property
    def total(self) -> float:
        return self.held + self.step


def work_of(config: Config, args: MultiAgentPPOConfig, lengths: Lengths, processes: int = 1) -> Work:
    """The work of one of some processes.

    Args:
        lengths: the longest of all environments; `args` has limits for every phase of them.
    """
    limits: Mapping[Phase, int] = args.max_tokens
    chat = padded_width(lengths.chat(limits))
    seats = sum(not policies.is_scripted(policy) for policy in config.policies.values())
    learned = -(-args.episodes_per_update // processes)
    step = -(-learned // (args.num_mini_batches * args.gradient_accumulation_steps))
    at_once = max(1, args.micro_batch_tokens // chat)
    evaluated = min(config.evaluation.batch_size, -(-config.evaluation.episodes // processes))
    chats = max(learned, evaluated) * seats
    warms = config.warmup.steps > 0 and config.lora.start_from is None
    adapters = len(policies.learners(config.policies))
    references = adapters if reads_start(args, config.reward_stack) else 0
    return Work(
        chat=chat,
        told=lengths.told,
        written=max(1, sum(count * limits[phase] for phase, count in lengths.turns.items() if count)),
        chats=chats,
        batch=min(max(1, args.max_rows // max(1, seats)) * seats, chats),
        learned=learned * seats,
        warm=config.warmup.micro_batch_size if warms else 0,
        scored=min(at_once, learned * seats),
        micro=min(at_once, step * seats),
        adapters=adapters,
        copies=references + args.past_limit * len(policies.past(config.policies)),
        frozen=sum(map(weights_in, policies.frozen(config.policies).values())),
        engine=args.engine,
    )


def sizes_of(config: Config, args: MultiAgentPPOConfig, model: PreTrainedConfig, work: Work, on_gpu: bool) -> Footprint:
    """The sizes of the configuration's team on a model of this configuration, of which no weight is needed."""
    attention.register()
    named = setup.dtype_of(config, on_gpu)
    dtype = model.dtype or torch.float32 if named == "auto" else getattr(torch, named)
    with torch.device("meta"):
        base = AutoModelForCausalLM.from_config(
            model, dtype=dtype, attn_implementation=config.model.attn_implementation
        )
        linear = [m.weight for m in base.get_decoder().modules() if isinstance(m, torch.nn.Linear)]
        policy = setup.make_shapes(config, base, args)
    keywords: Any = args.gradient_checkpointing_kwargs or {}
    checkpointing = keywords if args.gradient_checkpointing else None
    lengths = {"chat": work.chat, "told": work.told, "written": work.written}
    found = footprint(policy, rows=work.batch, **lengths, checkpointing=checkpointing)
    if not on_gpu:
        steps = ("score_row", "score", "learn_row", "learn", "warm_row", "warm")
        found = replace(found, **{name: int(GAPS * getattr(found, name)) for name in steps})
    if not config.model.load_in_4bit:
        return found
    saved = sum(weight.numel() * (weight.element_size() - NF4_BYTES) for weight in linear)
    share = 1 - saved / found.layers
    return replace(
        found, base=int(found.base - saved), layers=int(found.layers * share), layer=int(found.layer * share)
    )


def phases(sizes: Footprint, work: Work, processes: int = 1, shared: bool = False) -> list[PhaseMemory]:
    """The memory of each phase in one of some processes.

    Args:
        shared: the processes share out the base; to play and to warm up each has it whole.
    """
    resident = sizes.base
    if shared:  # what is in no layer stays whole, and two layers are whole at a time: one runs, one is fetched
        resident = sizes.base - sizes.layers + sizes.layers // processes + 2 * sizes.layer
    adapters = sizes.trained * (1 + work.copies / work.adapters) + WEIGHT_BYTES * work.frozen
    moments, learner = MOMENTS * sizes.trained, sizes.trained * (1 + MOMENTS)
    prefix_row = sizes.prefix_row if work.plays and not shared else 0  # who shares the base out runs all layers
    prefixes = work.learned * prefix_row
    found = [PhaseMemory("loading", sizes.base, 0)]
    if work.warm:
        one = sizes.trained / work.adapters
        step = sizes.warm + work.warm * sizes.warm_row
        found.append(PhaseMemory("warm-up", sizes.base + one * (2 + MOMENTS), step))
    if work.plays:
        cache = work.batch * sizes.cache_row
        held = sizes.base + adapters + moments + work.chats * prefix_row + cache
        found.append(PhaseMemory("play", held, max(sizes.feed, cache)))
    elif work.beside:
        found.append(PhaseMemory("play beside vLLM", sizes.base + adapters + moments, work.beside))
    held = resident + adapters + moments + prefixes
    found.append(PhaseMemory("reference", held, sizes.score + work.scored * sizes.score_row))
    held = resident + adapters + learner + prefixes
    found.append(PhaseMemory("learning", held, sizes.learn + work.micro * sizes.learn_row))
    return found


def largest_micro_batch(sizes: Footprint, work: Work, free: float, processes: int = 1, shared: bool = False) -> int:
    """The most tokens of `training.micro_batch_tokens` with which learning takes no more than `free` bytes; 0: not even
    one chat fits."""
    learning = phases(sizes, replace(work, micro=0), processes, shared)[-1]
    return max(0, int((free - learning.total) // sizes.learn_row)) * work.chat


@dataclass(frozen=True, slots=True)
class Launch:
    """A way to launch a run, and why. `file` is in configs/accelerate; None: `python train.py`, or nothing fits."""

    fits: bool
    file: str | None
    keys: tuple[str, ...]
    why: str


def choose_launch(
    sizes: Footprint, small: Footprint | None, work: Work, gpus: int, memory: float, quantised: bool = False
) -> Launch:
    """The simplest launch with which every phase fits.

    Args:
        sizes, small: of the base as it is, and in 4 bits; None: it is so already, or cannot be.
        work: of one of the processes.
        gpus: one process has one each.
        memory: bytes of one.
        quantised: whether the configuration has the base in 4 bits already.
    """
    plain = "ddp.yaml" if gpus > 1 else None
    largest = max(phases(sizes, work), key=lambda phase: phase.total)
    takes = f"{largest.name} takes {largest.total / GIB:.1f} GiB of {memory / GIB:.1f}"
    if largest.total <= memory:
        return Launch(True, plain, (), f"the whole base fits each GPU: {takes}")
    if gpus > 1 and not quantised and _fits(phases(sizes, work, gpus, shared=True), memory):
        why = f"the whole base beside learning does not fit ({takes}); shared out among {gpus} it does"
        return Launch(True, "fsdp2.yaml", (), why)
    if small and _fits(phases(small, work), memory):
        return Launch(True, plain, ("model.load_in_4bit=true",), f"{takes}; in 4 bits it fits")
    served = replace(work, engine="vllm_server", beside=0.0, warm=0)
    if gpus > 1 and not quantised and _fits(phases(sizes, served, gpus, shared=True), memory):
        keys = ("training.engine=vllm_server", "warmup.steps=0")
        why = f"{takes}; learning fits when the base is shared out, and servers on other GPUs must play"
        return Launch(True, "fsdp2.yaml", keys, why)
    return Launch(False, None, (), f"{takes}: shorter chats, fewer chats at once, a smaller model, or more GPUs")


def _fits(found: list[PhaseMemory], memory: float) -> bool:
    return all(phase.total <= memory for phase in found)
