"""`policy/compat.py` alone leans on internals of transformers, peft and trl; what it promises of them holds."""

import ast
import importlib
import inspect
import pkgutil
import warnings
from pathlib import Path

import pytest
import tiny
import torch
from peft import get_peft_model
from torch import nn
from transformers import Lfm2Config, MistralConfig, Trainer

import marl_coop
from marl_coop.policy import compat
from marl_coop.policy.routed_lora import RoutedLinear, spans_of
from marl_coop.ppo.config import MultiAgentPPOConfig
from marl_coop.ppo.trainer import MultiAgentPPOTrainer

ROOT = Path(__file__).parents[1]
LIBRARIES = {"transformers", "peft", "trl"}
PYTHON = {"_abc_impl", "_asdict", "_replace", "_exit"}  # of abstract classes, of named tuples and of os
FILES = [*(ROOT / "marl_coop").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py"), ROOT / "train.py"]
OURS = {str(file.relative_to(ROOT)): file.read_text(encoding="utf-8") for file in FILES}
COMPAT = OURS.pop("marl_coop/policy/compat.py")


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__") and name not in PYTHON


def internals(source: str) -> list[str]:
    """What a module imports of the three libraries that is no public name of their top level."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [name.name for name in node.names if "." in name.name and name.name.split(".")[0] in LIBRARIES]
        elif isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] in LIBRARIES:
            found += [f"{node.module}.{n.name}" for n in node.names if "." in str(node.module) or is_private(n.name)]
    return found


def private_names(source: str) -> tuple[set[str], set[str]]:
    """Names with an underscore that a module takes from objects, and those that it gives to something itself."""
    taken, given = set(), set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            (taken if isinstance(node.ctx, ast.Load) else given).add(node.attr)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            given.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            given.add(node.name)
    return {name for name in taken if is_private(name)}, given


def overridden(cls: type) -> set[str]:
    """Private names of a library's class that a class of ours defines again."""
    above = [base for base in cls.__mro__[1:] if base.__module__.split(".")[0] in LIBRARIES]
    return {name for name in vars(cls) if is_private(name) and any(name in vars(base) for base in above)}


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("from transformers.cache_utils import DynamicLayer", ["transformers.cache_utils.DynamicLayer"]),
        ("from trl import _BaseTrainer", ["trl._BaseTrainer"]),
        ("import peft.tuners.lora as lora", ["peft.tuners.lora"]),
        ("def late():\n    from trl.trainer.utils import pad", ["trl.trainer.utils.pad"]),
        ("from transformers import Trainer\nimport peft\nfrom peftless import x\nfrom . import y", []),
    ],
)
def test_an_import_of_an_internal_is_found(line, found):
    assert internals(line) == found


def test_no_other_module_imports_an_internal():
    assert {file: found for file, source in OURS.items() if (found := internals(source))} == {}
    assert len(internals(COMPAT)) > 5


def test_no_other_module_takes_a_private_name_that_our_code_did_not_give():
    assert private_names("lora._register(x)\nself._own = other.public") == ({"_register"}, {"_own"})
    whole = {
        str(f): f.read_text(encoding="utf-8") for folder in ("envs", "rewards") for f in (ROOT / folder).rglob("*.py")
    }
    given = set().union(*(private_names(source)[1] for source in (OURS | whole).values()))
    assert {file: found for file, source in OURS.items() if (found := private_names(source)[0] - given)} == {}
    assert "_register_custom_module" in private_names(COMPAT)[0]


def test_no_other_class_defines_a_private_name_of_a_library_again():
    class Saves(Trainer):
        def _save(self, output_dir=None, state_dict=None): ...

    assert overridden(Saves) == {"_save"}
    names = [m.name for m in pkgutil.walk_packages(marl_coop.__path__, "marl_coop.") if m.name != "marl_coop.__main__"]
    modules = [importlib.import_module(name) for name in names]
    classes = {cls for module in modules for _, cls in inspect.getmembers(module, inspect.isclass)}
    assert MultiAgentPPOTrainer in classes
    ours = {cls for cls in classes if cls.__module__.startswith("marl_coop.")}
    assert [cls for cls in ours if overridden(cls)] == [compat.TrainerBase]


class NewDecoder(nn.Module):
    def forward(self, input_ids, cache=None): ...


class OldDecoder(nn.Module):
    def forward(self, input_ids, past_key_values=None): ...


def test_the_cache_is_given_by_the_name_that_the_decoder_has():
    assert compat.cache_keyword(NewDecoder()) == "cache"
    assert compat.cache_keyword(OldDecoder()) == "past_key_values"


def test_a_forward_with_a_cache_uses_nothing_that_is_deprecated():
    policy, ids = tiny.team(tiny.base_model(40)), torch.arange(6)[None]
    whole = policy.hidden(spans_of(["agent_0"]), ids)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("error")
        cache, pieces = compat.SlotCache(), []
        for places in torch.arange(6)[None].split(4, 1):
            cache.place(places)
            mask = compat.attention_mask(policy.config, places, cache.slots, policy.dtype)
            options = {"position_ids": places, "attention_mask": mask, "cache": cache, "use_cache": True}
            pieces.append(policy.hidden(spans_of(["agent_0"]), ids[:, places[0]], **options))
    assert torch.allclose(torch.cat(pieces, 1), whole, atol=1e-5)


def test_a_cache_of_ragged_rows_holds_each_token_at_its_position():
    cache, generator, starts = compat.SlotCache(), torch.Generator().manual_seed(0), torch.tensor([0, 5, 2])
    expected = [torch.zeros(3, 3, 300, 4) for _ in range(4)]
    for new in (3, 1, compat.GROWTH - 1, 1, 2 * compat.GROWTH, 1):
        places = starts[:, None] + torch.arange(new)
        cache.place(places)
        for layer in range(2):
            pair = [torch.randn(3, 3, new, 4, generator=generator) for _ in range(2)]
            found = cache.update(*pair, layer)
            for kept, x, wanted in zip(found, pair, expected[2 * layer :], strict=False):
                for row in range(3):
                    wanted[row, :, places[row]] = x[row]
                assert torch.equal(kept, wanted[:, :, : cache.slots])
        starts += new
    taken = compat.SlotCache.gathered([(cache, 2), None, (cache, 0)])
    taken.place(torch.zeros(3, 1, dtype=torch.long))
    keys, _ = taken.update(torch.ones(3, 3, 1, 4), torch.ones(3, 3, 1, 4), 0)
    assert torch.equal(keys[0, :, 1:], expected[0][2, :, 1 : taken.slots]) and keys[1, :, 1:].count_nonzero() == 0
    assert torch.equal(keys[2, :, 1:], expected[0][0, :, 1 : taken.slots])


def test_a_mask_sees_what_is_before_and_within_the_window():
    places = torch.tensor([[3, 4], [0, 1]])
    for window, seen in ((None, [[4, 5], [1, 2]]), (2, [[2, 2], [1, 2]])):
        mask = compat.attention_mask(MistralConfig(sliding_window=window), places, 8, torch.float32)
        assert (mask == 0).sum(-1).tolist() == [[seen[0]], [seen[1]]]
    with pytest.raises(ValueError, match="lfm2 has layers of kind conv, which cannot be sampled from"):
        compat.attention_mask(
            Lfm2Config(num_hidden_layers=2, layer_types=["conv", "full_attention"]), places, 8, torch.float32
        )


def test_a_decoder_is_whole_again_after_a_part_of_it_has_failed():
    decoder = tiny.base_model(40, layers=3).get_decoder()
    layers = list(compat.layers_of(decoder))
    with pytest.raises(KeyError), compat.from_layer(decoder, 2):
        assert list(compat.layers_of(decoder)) == layers[2:]
        raise KeyError
    assert list(compat.layers_of(decoder)) == layers


def test_a_lora_configuration_stays_as_it_was():
    lora = tiny.lora_config()
    before = lora.to_dict()
    compat.with_layer_class(lora, RoutedLinear)
    assert lora.to_dict() == before
    plain = get_peft_model(tiny.base_model(40), lora)
    assert not any(isinstance(module, RoutedLinear) for module in plain.modules())
    routed = get_peft_model(tiny.base_model(40), compat.with_layer_class(lora, RoutedLinear))
    assert any(isinstance(module, RoutedLinear) for module in routed.modules())


def test_a_process_that_sees_several_gpus_uses_one_and_says_how_to_use_all(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(MultiAgentPPOConfig, "n_gpu", property(lambda args: vars(args).get("_n_gpu") or 4))
    assert tiny.arguments(tmp_path).n_gpu == 1
    assert "one of 4 GPUs is used" in caplog.text and "--num_processes 4" in caplog.text
