"""What stands in the way of a run, found before it: each thing by name, what was found, and what helps."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import psutil
import torch

from envs.core.tokens import one_line
from marl_coop.config.checks import held_out_in_training
from marl_coop.config.errors import ConfigError, dotted
from marl_coop.config.schema import Config
from marl_coop.engines import vllm
from marl_coop.experiment import checks, memory, setup
from marl_coop.experiment.machine import GIB, Check, State
from marl_coop.experiment.start import check_folder, check_values
from marl_coop.ppo.config import ENGINES

COUNTED = (checks.FROZEN, checks.OWN_FORWARD)  # without which no memory can be counted
CONTEXT_GIB = 0.6  # that CUDA and its libraries take of a device


@dataclass
class Examined:
    """What of a configuration could be made; what could not is None, as is what needs it."""

    config: Config
    checks: list[Check] = field(default_factory=list)
    args: Any = None
    env: Any = None
    base: Any = None
    tokenizer: Any = None
    lengths: Any = None

    def attempt(self, name: str, make: Callable[[], Any], *needs: Any) -> Any:
        """What `make` gives, noted; None where it cannot be made, or something that it needs was not."""
        if any(need is None for need in needs):
            self.checks.append(Check(name, State.UNTRIED, "what it needs could not be made: see above"))
            return None
        try:
            made = make()
        except ConfigError as error:
            self.checks.append(Check(name, State.FAILURE, error.problem, dotted(error.keys)))
            return None
        self.checks.append(Check(name, State.OK, ""))
        return made


def examine(config: Config) -> Examined:
    """Do all that the start of a run does with a configuration, one after the other; `train --dry-run` has the same."""
    found = Examined(config)
    found.attempt("values that fit each other, reward terms", lambda: check_values(config))
    found.attempt("folder of the run", lambda: check_folder(config))
    found.args = found.attempt("training arguments", lambda: setup.training_arguments(config))
    args = found.args
    found.attempt("shares of the processes", lambda: checks.check_shares(config, args), args)
    for name, check in checks.checks_without_model(config, args).items():
        found.attempt(name, check, args)
    environments = found.attempt("environments", lambda: setup.make_environments(config))
    found.env = environments and environments[0]
    if held_out := held_out_in_training(config):
        found.checks.append(Check("held-out tasks", State.WARNING, held_out, "docs/families.md"))
    loaded = found.attempt("model and tokenizer", lambda: setup.load_model(config), args)
    if loaded:
        found.base, found.tokenizer = loaded
    base, tokenizer, env = found.base, found.tokenizer, found.env
    chat = found.attempt("chat template", lambda: setup.make_chat(config, base, tokenizer, env), base, env)
    found.lengths = found.attempt(
        "longest chat against positions", lambda: setup.settle_limits(config, args, base, tokenizer), chat
    )
    longest = found.lengths.chat(args.max_tokens) if found.lengths else 0
    for name, check in checks.checks_of_model(config, args, base, longest).items():
        found.attempt(name, check, found.lengths)
    return found


# ------------------------------------------------------------------------------------------------------- its memory


def check_memory(found: Examined, gpus: int, gpu_memory: float | None) -> Iterator[Check]:
    """What each phase takes, whether it fits, the largest micro-batch that does, and which launch is for so many GPUs.

    Args:
        gpus: how many there are to be; 0: what is here, a GPU or the CPU.
        gpu_memory: GiB of each; None: of the first one here.
    """
    unusable = [check.name for check in found.checks if check.state is not State.OK and check.name in COUNTED]
    if found.lengths is None or unusable:
        yield Check("memory", State.UNTRIED, "the model, or an adapter, cannot be used: see above")
        return
    config, args, model = found.config, found.args, found.base.config
    here = 0 if args.use_cpu else torch.cuda.device_count()
    on_gpu = bool(gpus or gpu_memory or here)
    if on_gpu and gpu_memory is None and not here:
        yield Check("memory", State.UNTRIED, "no GPU is here to ask", "--gpu-memory GIB")
        return
    capacity = _capacity(on_gpu, gpu_memory, found.base)
    processes = gpus or 1
    work = memory.work_of(config, args, found.lengths, processes)
    try:
        sizes = memory.sizes_of(config, args, model, work, on_gpu)
    except Exception as error:  # of any kind: not every operation of every model is known without its content
        said = f"{model.model_type} cannot be counted without running it: {type(error).__name__}: {one_line(error)}"
        yield Check("memory", State.UNTRIED, said[:300], "one update with --profile, whose records have memory_gib")
        return
    if args.engine == "vllm":
        work = replace(work, beside=_share_of_vllm(args, on_gpu, gpu_memory))
        yield _check_vllm(sizes, work)
    yield from _uncounted(args, config.model.attn_implementation)
    where = f"of {capacity / GIB:.1f} GiB " + ("of a GPU" if on_gpu else "of main memory")
    for phase in memory.phases(sizes, work, processes, args.shard_base and processes > 1):
        fits = phase.total <= capacity
        said = f"{phase.total / GIB:.2f} GiB (held {phase.held / GIB:.2f}, a step {phase.step / GIB:.2f}) {where}"
        remedy = "" if fits else REMEDIES[phase.name]
        yield Check(f"memory, {phase.name}", State.OK if fits else State.WARNING, said, remedy)
    most = memory.largest_micro_batch(sizes, work, capacity, processes, args.shard_base and processes > 1)
    fits = most >= work.micro * work.chat
    said = f"{most} tokens fit; training.micro_batch_tokens is {args.micro_batch_tokens}, a chat {work.chat} at most"
    remedy = "" if fits else f"training.micro_batch_tokens={most}" if most else "a smaller model, or shorter chats"
    yield Check("largest micro-batch", State.OK if fits else State.WARNING, said, remedy)
    if on_gpu:
        yield _check_launch(found, sizes, work, processes, capacity)


REMEDIES = {
    "loading": "a smaller model, or model.load_in_4bit=true",
    "warm-up": "a smaller warmup.micro_batch_size",
    "play": "a smaller training.max_rows, fewer training.episodes_per_update, or training.engine=vllm_server",
    "play beside vLLM": "a smaller training.engine_options.gpu_memory_utilization, or training.engine=vllm_server",
    "reference": "a smaller training.micro_batch_tokens",
    "learning": "a smaller training.micro_batch_tokens, or training.gradient_checkpointing=true",
}


def _whole(on_gpu: bool, gpu_memory: float | None) -> float:
    """Bytes of a GPU, or of main memory."""
    if not on_gpu:
        return psutil.virtual_memory().total
    return gpu_memory * GIB if gpu_memory else torch.cuda.get_device_properties(0).total_memory


def _capacity(on_gpu: bool, gpu_memory: float | None, base: Any) -> float:
    """Bytes that a run may take: of a GPU but for what CUDA takes, else of main memory, where the base is by now."""
    if on_gpu:
        return max(0.0, _whole(on_gpu, gpu_memory) - CONTEXT_GIB * GIB)
    return psutil.virtual_memory().available + base.get_memory_footprint()


def _share_of_vllm(args: Any, on_gpu: bool, gpu_memory: float | None) -> float:
    """Bytes that vLLM takes of the device beside the trainer, whatever it needs."""
    options = vllm.DEFAULTS | args.engine_options
    return options["gpu_memory_utilization"] * _whole(on_gpu, gpu_memory)


def _check_vllm(sizes: memory.Footprint, work: memory.Work) -> Check:
    fits = sizes.base < work.beside
    said = f"{work.beside / GIB:.2f} GiB are its share, of which the base takes {sizes.base / GIB:.2f}"
    remedy = "" if fits else "a larger training.engine_options.gpu_memory_utilization"
    return Check("memory, vLLM", State.OK if fits else State.WARNING, said, remedy)


def _uncounted(args: Any, attention: str | None) -> Iterator[Check]:
    """What a run takes and no estimate has."""
    if args.engine not in ENGINES:
        yield Check("memory, play", State.UNTRIED, f"what {args.engine} takes of the device is not known")
    if args.padding_free and not str(attention).startswith("flash"):
        said = "with padding_free this attention has every pair of tokens of a micro-batch, which no estimate counts"
        yield Check("memory, pairs", State.UNTRIED, said, "model.attn_implementation=flash_attention_2")


def _check_launch(found: Examined, sizes: memory.Footprint, work: memory.Work, gpus: int, capacity: float) -> Check:
    config, small = found.config, None
    name = f"launch on {gpus} GPUs" if gpus > 1 else "launch on one GPU"
    try:
        checks.check_shares(config, found.args, gpus)
    except ConfigError as error:
        return Check(name, State.FAILURE, error.problem, dotted(error.keys))
    if not config.model.load_in_4bit and work.plays and not found.args.shard_base:  # which go without
        section = config.model.model_copy(update={"load_in_4bit": True})
        quantised = config.model_copy(update={"model": section})
        small = memory.sizes_of(quantised, found.args, found.base.config, work, on_gpu=True)
    launch = memory.choose_launch(sizes, small, work, gpus, capacity, config.model.load_in_4bit)
    if not launch.fits:
        return Check(name, State.FAILURE, "none fits", launch.why)
    file = f"configs/accelerate/{launch.file} --num_processes {gpus}" if launch.file else "python train.py"
    return Check(name, State.OK, f"{' '.join([file, *launch.keys])}: {launch.why}")
