"""The one place that leans on what transformers, peft and trl do not promise to keep.

Each entry says what it stands for and what it expects. When a new version of a library breaks something, it breaks
here; `tests/test_compat.py` proves that no other module imports or overrides an internal name of the three.
"""

import copy
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import transformers
from peft import LoraConfig
from peft.tuners.lora import Linear as LoraLinear  # expects: `update_layer` makes `lora_A[name]` and `lora_B[name]`
from peft.tuners.lora import LoraLayer  # what PEFT puts around an adapted module
from torch import Tensor, nn
from transformers import Cache, DynamicLayer, PreTrainedModel
from transformers.masking_utils import eager_mask  # additive masks (R, 1, Q, T), for an attention of our own
from transformers.pytorch_utils import Conv1D  # GPT-2's linear layer
from transformers.trainer_callback import ExportableState  # what a callback needs for its state to be in checkpoints
from trl.trainer.base_config import _BaseConfig as TrainingConfig  # TRL's defaults for `TrainingArguments`
from trl.trainer.base_trainer import _BaseTrainer
from trl.trainer.utils import disable_dropout_in_model, selective_log_softmax_and_entropy

__all__ = [
    "ExportableState",
    "LoraLayer",
    "LoraLinear",
    "PreallocatedLayer",
    "TrainerBase",
    "TrainingConfig",
    "cache_keyword",
    "checkpoint_activations",
    "dequantized",
    "disable_dropout_in_model",
    "eager_mask",
    "from_layer",
    "layers_of",
    "new_cache",
    "selective_log_softmax_and_entropy",
    "with_layer_class",
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

    def _clip_grad_norm(self, model: nn.Module) -> Tensor:
        return self.clip_gradients()

    def _send_telemetry(self) -> None:
        """Nothing is sent anywhere but to the trackers of `report_to`."""


# ------------------------------------------------------------------------------------------------------------- caches


class PreallocatedLayer(DynamicLayer):
    """A layer's keys and values (R, heads, T, size) with room to spare, so that a new token does not copy the old.

    Expects that `DynamicLayer` reads its length from `self.keys`, and that a layer is filled by `update` alone.
    """

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._rooms: dict[str, Tensor] = {}
        start = self.get_seq_length()
        self.keys = self._put("keys", start, key_states)
        self.values = self._put("values", start, value_states)
        return self.keys, self.values

    def _put(self, name: str, start: int, new: Tensor) -> Tensor:
        stop, room = start + new.shape[-2], self._rooms.get(name)
        if room is None or stop > room.shape[-2]:
            larger = new.new_empty(*new.shape[:2], stop + GROWTH, new.shape[-1])
            if room is not None:
                larger[:, :, :start] = room[:, :, :start]
            self._rooms[name] = room = larger
        room[:, :, start:stop] = new
        return room[:, :, :stop]


def new_cache() -> Cache:
    """An empty cache of `PreallocatedLayer`s."""
    return Cache(layer_class_to_replicate=PreallocatedLayer)


def cache_keyword(decoder: nn.Module) -> str:
    """Name under which a decoder takes its cache: `cache` since transformers 5.24, `past_key_values` before."""
    return "cache" if "cache" in inspect.signature(decoder.forward).parameters else "past_key_values"


# ------------------------------------------------------------------------------------------------------------- models


def layers_of(decoder: nn.Module) -> nn.ModuleList:
    """Layers of a decoder. Expects them under `layers`, in the order in which its forward runs them."""
    return cast(nn.ModuleList, decoder.layers)


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


def with_layer_class(lora: LoraConfig, layer_class: type[LoraLinear]) -> LoraConfig:
    """A copy of `lora` by which PEFT puts `layer_class` around linear layers, GPT-2's transposed ones included.

    PEFT documents this as experimental (developer guide, "Custom models"), hence the underscore.
    """
    copied = copy.deepcopy(lora)
    copied._register_custom_module({nn.Linear: layer_class, Conv1D: layer_class})
    return copied
