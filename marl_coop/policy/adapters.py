"""Adapters on disk: plain PEFT folders, written and read by module, so that no name of an adapter is mistaken for one.

(PEFT finds an adapter's weights by searching for its name in theirs: one called `mlp` or `0` would lose some.)
"""

import copy
import hashlib
import json
import math
import re
import reprlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from peft import LoraConfig
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import PreTrainedModel

from envs.core.fields import ArgumentError
from envs.core.lookup import did_you_mean
from envs.core.tokens import one_line
from marl_coop.hyperparameters import LARGEST, MOST_RANK
from marl_coop.policy.compat import Conv1D, check_target_module_exists
from marl_coop.policy.routed_lora import RoutedLinear, check_plain
from marl_coop.policy.tensor_files import check_readable, write_tensors

CONFIG, WEIGHTS, BASE_FILE = "adapter_config.json", "adapter_model.safetensors", "base.json"
SAME = ("r", "lora_alpha", "use_rslora", "fan_in_fan_out", "rank_pattern", "alpha_pattern")  # what scales and shapes
KINDS = {  # of what is read of a configuration, which PEFT takes as it stands
    "r": int, "lora_alpha": int | float, "use_rslora": bool, "fan_in_fan_out": bool, "rank_pattern": dict,
    "alpha_pattern": dict, "target_modules": str | list | set,
}  # fmt: skip
SIZES = {"r": MOST_RANK, "rank_pattern": MOST_RANK, "lora_alpha": LARGEST, "alpha_pattern": LARGEST}  # at most
MATCH_S = 10.0
MATCH = """
import json, re, sys
patterns, modules = json.load(sys.stdin)
for pattern in patterns:
    for form in (pattern, rf"(.*\\.)?({pattern})$", rf"(?:^|.*?\\.){pattern}\\.(\\d+)\\."):
        try:
            [(re.fullmatch(form, module), re.match(form, module)) for module in modules]
        except re.error:
            pass
"""  # the forms in which PEFT takes them
SAMPLES = 64  # values of each tensor that a fingerprint reads


def reference_name(adapter: str) -> str:
    """Name of the frozen copy of an adapter that `TeamPolicy.snapshot_reference` makes."""
    return f"{adapter}_start"


def weights_of(lm: nn.Module, adapter: str) -> dict[str, nn.Parameter]:
    """Weights of an adapter under the names that PEFT gives them on disk."""
    layers = {name: layer for name, layer in lm.named_modules() if isinstance(layer, RoutedLinear)}
    return {
        f"{name}.lora_{matrix}.weight": cast(nn.Parameter, factors[adapter].weight)
        for name, layer in layers.items()
        for matrix, factors in (("A", layer.lora_A), ("B", layer.lora_B))
        if adapter in factors
    }


class BaseIdentity(NamedTuple):
    """The model that an adapter was made on: its name, and what `fingerprint` says of its weights."""

    name: str | None
    fingerprint: str


def write_adapter(lm: nn.Module, adapter: str, lora: LoraConfig, base: BaseIdentity, folder: Path) -> None:
    """Write a PEFT adapter, and see that all of it is on disk.

    Raises:
        OSError: it is not.
    """
    weights = {name: weight.detach().cpu().contiguous() for name, weight in weights_of(lm, adapter).items()}
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(weights, folder / WEIGHTS)
    (folder / BASE_FILE).write_text(json.dumps(base._asdict()) + "\n", encoding="utf-8")
    written = copy.deepcopy(lora)
    if isinstance(written.target_modules, set):  # in any order, and the file is to be the same each time
        written.target_modules = sorted(written.target_modules)
    written.base_model_name_or_path, written.inference_mode = base.name, True
    written.save_pretrained(str(folder))
    with safe_open(folder / WEIGHTS, "pt") as file:
        found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    if found != {name: tuple(weight.shape) for name, weight in weights.items()}:
        raise OSError(f"{folder / WEIGHTS} does not hold what was written: {len(found)} of {len(weights)} weights")


def read_config(folder: Path) -> LoraConfig:
    """Configuration of a PEFT adapter.

    Raises:
        ValueError: the folder has none, or one of a kind that routed rows do not compute.
    """
    try:
        lora = LoraConfig.from_pretrained(str(folder))
    except Exception as error:  # the file may say anything
        raise ValueError(f"{folder} is not the folder of a PEFT adapter: {one_line(error)}") from error
    if not isinstance(lora, LoraConfig):
        raise ValueError(f"the adapter in {folder} is a {type(lora).__name__}, not LoRA")
    for field, kind in KINDS.items():
        value = getattr(lora, field)
        sizes = [*value.values()] if isinstance(value, dict) else [value]
        most = SIZES.get(field)
        if not isinstance(value, kind) or (most and not all(_is_size(size, most) for size in sizes)):
            raise ValueError(f"the adapter in {folder} has {field} {value!r}: mend its adapter_config.json")
    try:
        check_plain(lora)
    except ValueError as error:
        raise ValueError(f"the adapter in {folder} cannot be routed: {error}") from error
    return lora


def check_patterns(lora: LoraConfig, modules: Sequence[str], folder: Path) -> None:
    """Check, in a process that can be ended, that the patterns of an adapter on disk are matched against a base's
    modules in time. One such as `(a+)+b` takes for ever.

    Raises:
        ValueError: they are not.
    """
    sized = [*(lora.rank_pattern or ()), *(lora.alpha_pattern or ())]
    said = [lora.target_modules, lora.exclude_modules, lora.layers_pattern, *sized]
    flat = [text for one in said for text in (one if isinstance(one, list | set) else [one]) if isinstance(text, str)]
    if not (patterns := [text for text in flat if not re.fullmatch(r"[\w.-]*", text)]):
        return
    command = [sys.executable, "-I", "-S", "-c", MATCH]
    try:  # an error of theirs is told when the adapter is made
        subprocess.run(command, input=json.dumps([patterns, modules]), timeout=MATCH_S, text=True, capture_output=True)
    except subprocess.TimeoutExpired as error:
        problem = f"patterns that are not matched within {MATCH_S:g} s, one of {reprlib.repr(patterns)}"
        raise ValueError(f"the adapter in {folder} has {problem}: name the modules in its {CONFIG}") from error


def digest(folder: Path) -> str:
    """A short text that says what a PEFT adapter on disk is. Raises OSError where it cannot be read."""
    content = hashlib.sha256()
    for name in (CONFIG, WEIGHTS):
        content.update((folder / name).read_bytes())
    return content.hexdigest()[:16]


def _is_size(value: object, most: float) -> bool:
    """Whether a rank or an alpha is one that can be computed with."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= most


def read_weights(lm: nn.Module, adapter: str, base: BaseIdentity, folder: Path) -> None:
    """Put the weights of a PEFT adapter on disk into an adapter that has its shape.

    Raises:
        ValueError: they cannot be read, are of another base, or have other layers or another shape.
    """
    _check_base(base, folder)
    with _opened(folder) as file:
        weights: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    own = weights_of(lm, adapter)
    for name in sorted(own.keys() | weights.keys()):
        theirs, ours = (tuple(w[name].shape) if name in w else None for w in (weights, own))
        if theirs != ours:
            raise ValueError(f"the adapter in {folder} does not fit: {name} is {theirs or 'not there'}, not {ours}")
        if not weights[name].isfinite().all():
            raise ValueError(f"the adapter in {folder} is damaged: {name} has values that are not finite")
    with torch.no_grad():
        for name, weight in own.items():
            weight.copy_(weights[name])


def weights_in(folder: Path) -> int:
    """Number of the weights of a PEFT adapter on disk.

    Raises:
        ValueError: they cannot be read.
    """
    with _opened(folder) as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118


@contextmanager
def _opened(folder: Path) -> Iterator[Any]:
    """The file of an adapter's weights."""
    try:
        check_readable(folder / WEIGHTS)
        with safe_open(folder / WEIGHTS, "pt") as file:
            yield file
    except (OSError, SafetensorError) as error:
        raise ValueError(f"the adapter in {folder} cannot be read: {one_line(error)}") from error


def _check_base(base: BaseIdentity, folder: Path) -> None:
    file = folder / BASE_FILE
    if not file.is_file():  # an adapter from elsewhere, which has a name alone
        made_on = read_config(folder).base_model_name_or_path
        if base.name and made_on and Path(base.name).name.lower() != Path(made_on).name.lower():
            raise ValueError(
                f"the adapter in {folder} was made on {made_on!r}, and the base is {base.name!r}: give it that model, "
                "or, if they are the same, put the base's name into its adapter_config.json"
            )
        return
    try:
        made_on = json.loads(file.read_text("utf-8"))
        name, made_by = made_on["name"], made_on["fingerprint"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ValueError(f"the adapter in {folder} cannot be read: {BASE_FILE}: {one_line(error)}") from error
    if made_by != base.fingerprint:
        raise ValueError(
            f"the adapter in {folder} is of another base, {name!r}: give it the same model, in 4 bits if it was that"
        )


def check_adapter(lora: LoraConfig, base: PreTrainedModel, folder: Path) -> None:
    """Check, before an adapter is made, that one on disk would be one of shape `lora` on this base.

    Raises:
        ValueError: it would not, or is not there.
    """
    check_same(lora, read_config(folder), folder)
    _check_base(identify(base), folder)
    ours = {name for name, _ in base.named_modules() if check_target_module_exists(lora, name)}
    with _opened(folder) as file:
        theirs = {name.removeprefix("base_model.model.").rpartition(".lora_")[0] for name in file.keys()}  # noqa: SIM118
    for name in sorted(ours ^ theirs):
        where = "this team adapts and it does not" if name in ours else "it adapts and this team does not"
        raise ValueError(f"the adapter in {folder} has other target_modules or layers: {name} {where}")


def check_same(lora: LoraConfig, saved: LoraConfig, folder: Path) -> None:
    """Check that an adapter on disk computes what one of shape `lora` with its weights would.

    Raises:
        ValueError: it does not.
    """
    for field in SAME:
        ours, theirs = getattr(lora, field), getattr(saved, field)
        if ours != theirs:
            raise ValueError(
                f"the adapter in {folder} has {field} {theirs}, and this team {ours}: give it the same lora"
            )


def check_names(adapters: Sequence[str]) -> None:
    """Check that adapters can be called so: they become names in torch's containers.

    Raises:
        ArgumentError: one cannot.
    """
    for name in adapters:
        copies = map(reference_name, adapters)
        if hasattr(nn.ModuleDict(), name) or not name or "." in name or name in copies:
            problem = f"{name!r} is no name for an adapter: it is used for something else; choose another"
            raise ArgumentError(problem, ("adapters",))


def check_targets(base: PreTrainedModel, lora: LoraConfig) -> None:
    """Check that every name in `target_modules` is that of a module that gets an adapter.

    Raises:
        ValueError: one is not; the message has the nearest, or all there are.
    """
    if isinstance(lora.target_modules, str) or not lora.target_modules:
        return  # a pattern, or PEFT's own choice
    modules = {n.removesuffix(".base_layer"): m for n, m in base.named_modules() if ".lora_" not in n}
    for wanted in sorted(lora.target_modules):
        named = [name for name in modules if name == wanted or name.endswith(f".{wanted}")]
        if not named:
            linear = {n.rpartition(".")[2] for n, m in modules.items() if isinstance(m, nn.Linear | Conv1D)}
            hint = did_you_mean(wanted, sorted(linear))
            raise ValueError(f"target_modules: {base.config.model_type} has no {wanted!r}.{hint}")
        if not any(check_target_module_exists(lora, name) for name in named):
            where = f"in {base.config.model_type} {wanted!r} is {named[0]}"
            raise ValueError(f"target_modules: {where}, which layers_to_transform or exclude_modules leaves out")


def identify(base: PreTrainedModel) -> BaseIdentity:
    """Which base a model is. Ask before its weights are shared out among processes."""
    return BaseIdentity(base.config.name_or_path or None, fingerprint(base))


def fingerprint(base: PreTrainedModel) -> str:
    """A short text that says which base a model is, by a sample of its weights; adapters and dtype change nothing."""
    content = hashlib.sha256()
    for name, weight in base.named_parameters():
        if ".lora_" in name:
            continue
        flat = weight.detach().reshape(-1)
        if weight.is_meta:  # of a model that has shapes alone
            content.update(f"{name} {tuple(weight.shape)}".encode())
            continue
        some = flat[:: max(1, len(flat) // SAMPLES)].to(torch.bfloat16).float().cpu()
        content.update(f"{name.replace('.base_layer', '')} {tuple(weight.shape)}".encode() + some.numpy().tobytes())
    return content.hexdigest()[:16]
