"""The one place that leans on what torch, transformers, peft and trl do not promise to keep.

Each entry says what it stands for and what it expects. When a new version of a library breaks something, it breaks
here; `tests/test_compat.py` proves that no other module imports or overrides an internal name of them.
"""

import copy
import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from peft import LoraConfig
from peft.tuners.lora import Linear as LoraLinear  # expects: `update_layer` makes `lora_A[name]` and `lora_B[name]`
from peft.tuners.lora import LoraLayer  # what PEFT puts around an adapted module
from peft.tuners.tuners_utils import check_target_module_exists  # whether a LoRA configuration means a module
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode  # tensors that have a shape, a dtype and no content
from torch.distributed.distributed_c10d import _set_pg_timeout  # of the group of all processes
from torch.nn.functional import pad
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode  # sees every operation
from torch.utils._pytree import tree_leaves  # what is nested, flat
from transformers import Cache, PreTrainedConfig, PreTrainedModel, TrainingArguments
from transformers.integrations import get_reporting_integration_callbacks  # the trackers that a trainer would make
from transformers.masking_utils import eager_mask  # additive masks (R, 1, Q, T), for an attention of our own
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.pytorch_utils import Conv1D  # GPT-2's linear layer
from transformers.trainer_callback import ExportableState  # what a callback needs for its state to be in checkpoints
from trl.trainer.base_config import _BaseConfig as TrainingConfig  # TRL's defaults for `TrainingArguments`
from trl.trainer.base_trainer import _BaseTrainer

__all__ = [
    "Conv1D",
    "ExportableState",
    "FakeTensorMode",
    "LoraLayer",
    "LoraLinear",
    "SlotCache",
    "TorchDispatchMode",
    "TrainerBase",
    "TrainingConfig",
    "attention_mask",
    "cache_keyword",
    "check_target_module_exists",
    "checkpoint_activations",
    "dequantized",
    "disable_dropout",
    "eager_mask",
    "from_layer",
    "get_reporting_integration_callbacks",
    "head_of",
    "keep_to_one_gpu",
    "layers_of",
    "leave_to_fsdp",
    "limit_waiting",
    "tree_leaves",
    "with_layer_class",
    "writable",
]

GROWTH = 64  # positions that a cache grows by


class TrainerBase(_BaseTrainer):
    """TRL's trainer base, with the private hooks of `transformers.Trainer` that are filled in under public names."""

    _tag_names = ["trl", "multi-agent-ppo"]
    _name = "MultiAgentPPO"
    loss_is_scaled_for_ga = True  # the loss is a sum divided by a global count: nothing is left to divide by

    def save_weights(self, folder: Path) -> None:
        """Write what is trained; called on the process that saves."""
        raise NotImplementedError

    def load_weights(self, folder: Path) -> None:
        """Read what `save_weights` wrote; called on every process."""
        raise NotImplementedError

    def checkpoint_folder(self) -> Path:
        """Where checkpoints are written: `checkpoint-<step>` in it."""
        raise NotImplementedError

    def save_checkpoint(self, write: Callable[[], None]) -> None:
        """Save a checkpoint, of which `write` writes this process's part; called on every process."""
        raise NotImplementedError

    def resume_schedule(self) -> None:
        """Set what the schedule asks for at the step of the checkpoint that has been read."""
        raise NotImplementedError

    def clip_gradients(self) -> Tensor:
        """Clip the gradients and return their norm before it."""
        raise NotImplementedError

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        if self.args.should_save:
            folder = Path(output_dir or str(self.args.output_dir))
            folder.mkdir(parents=True, exist_ok=True)
            self.save_weights(folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        self.load_weights(Path(resume_from_checkpoint))

    def _get_output_dir(self, trial: Any) -> str:
        return str(self.checkpoint_folder())

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self.save_checkpoint(partial(super()._save_checkpoint, model, trial))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            self.resume_schedule()

    def _clip_grad_norm(self, model: nn.Module) -> Tensor:
        return self.clip_gradients()

    def _send_telemetry(self) -> None:
        """Nothing is sent anywhere but to the trackers of `report_to`."""


def keep_to_one_gpu(args: TrainingArguments) -> int:
    """Keep a trainer from `DataParallel`, into which it puts a model where one process sees several GPUs, and which
    would tear rows apart; how many it sees."""
    gpus, args._n_gpu = args.n_gpu, min(args.n_gpu, 1)
    return gpus


def limit_waiting(seconds: float) -> None:
    """Limit how long processes wait for each other: transformers tells this to no group of processes on a CPU."""
    if torch.distributed.is_initialized():
        _set_pg_timeout(timedelta(seconds=seconds))


# ------------------------------------------------------------------------------------------------------------- caches


class SlotCache(Cache):
    """Keys and values (R, heads, T, size) of ragged rows: what a row has at position p stands in its slot p.

    There are no gaps, whatever the lengths of the rows, so masks of every kind follow from the positions alone. Slots
    are made ahead, zeroed, and all of them go to the attention: the mask says which count.

    Expects that a layer hands its new keys and values to `update` alone, and attends to all that this returns.
    """

    def __init__(self, slots: int = 0) -> None:
        super().__init__(layers=[])
        self.slots = slots  # of every row, T
        self._pairs: dict[int, tuple[Tensor, Tensor]] = {}  # keys and values by layer
        self._positions_RQ: Tensor | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of all keys and values."""
        return sum(tensor.nbytes for pair in self._pairs.values() for tensor in pair)

    def place(self, positions_RQ: Tensor) -> None:
        """Say where the tokens of the next forward stand, and make room for them."""
        self.reserve(positions_RQ, int(positions_RQ.max()) + 1)

    def reserve(self, positions_RQ: Tensor, slots: int) -> None:
        """The same where it is known how many slots the positions need."""
        self._positions_RQ = positions_RQ
        missing = slots - self.slots
        if missing > 0:
            more = -(-missing // GROWTH) * GROWTH
            self.slots += more
            for i in self._pairs:  # one layer at a time is there twice
                keys, values = self._pairs[i]
                self._pairs[i] = pad(keys, (0, 0, 0, more)), pad(values, (0, 0, 0, more))

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_, **__) -> tuple[Tensor, Tensor]:
        if layer_idx not in self._pairs:
            self._pairs[layer_idx] = self._room(key_states), self._room(value_states)
        rows_R1 = torch.arange(len(key_states), device=key_states.device)[:, None]
        for slots, new in zip(self._pairs[layer_idx], (key_states, value_states), strict=True):
            slots[rows_R1, :, self._positions_RQ] = new.transpose(1, 2)
        return self._pairs[layer_idx]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.slots

    def _room(self, like: Tensor, rows: int | None = None) -> Tensor:
        return like.new_zeros(len(like) if rows is None else rows, like.shape[1], self.slots, like.shape[3])

    @classmethod
    def gathered(cls, places: "Sequence[tuple[SlotCache, int] | None]") -> "SlotCache":
        """A cache of copied rows: row i is row places[i][1] of places[i][0], or empty where that is None."""
        sources = {id(place[0]): place[0] for place in places if place}.values()
        made = cls(max((source.slots for source in sources), default=0))
        for source in sources:
            here, there = zip(*((i, p[1]) for i, p in enumerate(places) if p and p[0] is source), strict=True)
            for layer, pair in source._pairs.items():
                if layer not in made._pairs:
                    keys, values = (made._room(old, len(places)) for old in pair)
                    made._pairs[layer] = keys, values
                for new, old in zip(made._pairs[layer], pair, strict=True):
                    new[here, :, : source.slots] = old[there, :]
        return made


def attention_mask(config: PreTrainedConfig, positions_RQ: Tensor, slots: int, dtype: torch.dtype) -> Any:
    """What each token may attend to in a `SlotCache`, as decoders take it: additive masks (R, 1, Q, T), by kind of
    layer where a model has several.

    Raises:
        ValueError: a kind of layer that keeps no keys and values, or not one for each position.
    """
    text = config.get_text_config()
    window = getattr(text, "sliding_window", None)
    kinds = set(getattr(text, "layer_types", None) or ["sliding_attention" if window else "full_attention"])
    if strange := kinds - {"full_attention", "sliding_attention"}:
        raise ValueError(
            f"{text.model_type} has layers of kind {', '.join(sorted(strange))}, which cannot be sampled from"
        )
    slot_T, position_RQ1 = torch.arange(slots, device=positions_RQ.device), positions_RQ[:, :, None]
    masks = {}
    for kind in kinds:
        seen_RQT = slot_T <= position_RQ1
        if kind == "sliding_attention" and window is not None:
            seen_RQT &= slot_T > position_RQ1 - window
        mask = torch.zeros(seen_RQT.shape, dtype=dtype, device=seen_RQT.device)
        masks[kind] = mask.masked_fill_(~seen_RQT, torch.finfo(dtype).min)[:, None]
    return masks if len(masks) > 1 else masks.popitem()[1]


def cache_keyword(decoder: nn.Module) -> str:
    """Name under which a decoder takes its cache: `cache` since transformers 5.24, `past_key_values` before."""
    return "cache" if "cache" in inspect.signature(decoder.forward).parameters else "past_key_values"


# ------------------------------------------------------------------------------------------------------------- models


def layers_of(decoder: nn.Module) -> nn.ModuleList:
    """Layers of a decoder. Expects them under `layers`, or `h` as in GPT-2, in the order in which its forward runs
    them."""
    return cast(nn.ModuleList, decoder.layers if hasattr(decoder, "layers") else decoder.h)


class _HiddenAlone(BaseModelOutputWithPast):
    """A decoder's output that has hidden states, and None for whatever else a model looks for."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("_"):
            raise AttributeError(name)


class _Given(nn.Module):
    """Stands in a model where its decoder was: its output is what it is given."""

    def forward(self, *_, inputs_embeds: Tensor, **__) -> _HiddenAlone:
        return _HiddenAlone(last_hidden_state=inputs_embeds)


def head_of(model: PreTrainedModel) -> Callable[[Tensor], Tensor]:
    """Logits (..., vocabulary) of last hidden states (..., H), as its own forward makes them.

    Expects that the forward of a model hands `inputs_embeds` to its decoder, and makes logits of nothing but its last
    hidden states. It runs on a shallow copy, which shares every weight and has no decoder.
    """
    alone, decoder = copy.copy(model), model.get_decoder()
    vars(alone).pop("forward", None)  # of the instance, as TRL's trainers put there: it is bound to the original
    alone._modules = {
        name: _Given() if module is not None and any(part is decoder for part in module.modules()) else module
        for name, module in model._modules.items()
    }

    def logits(hidden_H: Tensor) -> Tensor:
        flat_1NH = hidden_H.reshape(1, -1, hidden_H.shape[-1])
        return alone(inputs_embeds=flat_1NH, use_cache=False).logits.view(*hidden_H.shape[:-1], -1)

    return logits


@contextmanager
def from_layer(decoder: nn.Module, first: int) -> Iterator[None]:
    """Within it, a decoder begins at layer `first`.

    Expects that its forward is embedding, layers one after the other, norm, and that `inputs_embeds` goes into the
    first of them as it is.
    """
    layers = layers_of(decoder)
    decoder.layers = layers[first:]
    try:
        yield
    finally:
        decoder.layers = layers


def leave_to_fsdp(model: nn.Module, parameters: Iterable[str]) -> None:
    """Keep DDP, which wants every tensor whole, from some of a model's parameters and from its buffers.

    PyTorch has the method for those who combine DDP with something else, and it is in its documentation of none.
    """
    ignored = [*parameters, *(name for name, _ in model.named_buffers())]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, ignored)


def leave_attention_open(config: PreTrainedConfig) -> None:
    """Forget the attention that a config.json names: it may be a kernel, which is code that comes from the Hub."""
    config._attn_implementation = None


def dequantized() -> dict[str, Any]:
    """Keywords of `from_pretrained` for the plain weights of a GGUF file, which before `GgufConfig` it always gave."""
    known = hasattr(transformers, "GgufConfig")
    return {"quantization_config": transformers.GgufConfig(dequantize=True)} if known else {}


def checkpoint_activations(model: PreTrainedModel, keywords: dict[str, Any], **options) -> None:
    """Turn on gradient checkpointing, with `keywords` of `torch.utils.checkpoint.checkpoint`.

    The method, its argument and `options` (which layers, where activations are kept) got other names in transformers
    5.23.
    """
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable(activation_checkpointing_kwargs=keywords, **options)
    else:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=keywords, **options)


def disable_dropout(model: nn.Module) -> None:
    """Set every probability of dropout to 0.

    Expects a model to keep it in `nn.Dropout`, or in a number whose name has "drop". What else a model does otherwise
    while it is trained is found by the self-test (`marl_coop.engines.selftest`).
    """
    for module in model.modules():
        names = [name for name, value in vars(module).items() if isinstance(value, float) and "drop" in name]
        vars(module).update(dict.fromkeys(names, 0.0))
        if isinstance(module, nn.Dropout):
            module.p = 0.0


def writable(output: Tensor) -> Tensor:
    """A layer's output, to be added to in place while gradients are recorded: a copy if it is not contiguous, or a
    view, as that of layers in 4 bits, which autograd may refuse to write into."""
    return output.contiguous() if output._base is None else output.clone(memory_format=torch.contiguous_format)


def with_layer_class(lora: LoraConfig, layer_class: type[LoraLinear]) -> LoraConfig:
    """A copy of `lora` by which PEFT puts `layer_class` around linear layers, GPT-2's transposed ones included.

    PEFT documents this as experimental (developer guide, "Custom models"), hence the underscore.
    """
    copied = copy.deepcopy(lora)
    copied._register_custom_module({nn.Linear: layer_class, Conv1D: layer_class})
    return copied
