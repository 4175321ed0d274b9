"""Adapters on disk: of any name, of their own shape, whole, and of the base that they were made on."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
import torch
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file, save_file

from marl_coop.policy.adapters import check_adapter
from marl_coop.policy.loading import load_base
from marl_coop.policy.routed_lora import spans_of
from marl_coop.policy.team import TeamPolicy, reference_name

A, B = tiny.SEATS


@pytest.mark.parametrize("shape", [{"r": 8, "lora_alpha": 3}, {"r": 2, "use_rslora": True}, {"layers": [1]}], ids=str)
def test_a_frozen_adapter_keeps_a_rank_scale_and_layers_of_its_own(tmp_path, shape):
    base = lambda: tiny.base_model(len(tiny.word_tokenizer(tiny.WORDS)))  # noqa: E731
    fields = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "up_proj"], "task_type": "CAUSAL_LM"} | shape
    lora = LoraConfig(layers_to_transform=fields.pop("layers", None), **fields)
    first = TeamPolicy(base(), lora, (A,), critic_seats=1)
    for weight in first.adapter_parameters(A, "B"):
        torch.nn.init.normal_(weight, std=0.3)
    first.save(tmp_path)
    second = tiny.team(base(), r=4, layers=[0])
    second.add_frozen("old", tmp_path / A)
    plain = PeftModel.from_pretrained(base(), tmp_path / A)
    ids = torch.arange(6)[None]
    with torch.no_grad():
        ours = second.logits(second.hidden(spans_of(["old"]), ids))
        assert torch.allclose(ours, plain(ids).logits, atol=1e-5)
        assert not torch.allclose(ours, base()(ids).logits, atol=1e-2)


def test_an_adapter_of_another_base_or_scale_is_refused(tmp_path):
    words = len(tiny.word_tokenizer(tiny.WORDS))
    tiny.team(tiny.base_model(words), r=4).save(tmp_path)
    with pytest.raises(ValueError, match="is of another base"):
        tiny.team(tiny.base_model(words, seed=1), r=4).add_frozen("old", tmp_path / A)
    with pytest.raises(ValueError, match=r"has r 4, and this team 2: give it the same lora"):
        tiny.team(tiny.base_model(words), r=2).load(tmp_path)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"lora_alpha": 3}, "has lora_alpha 8, and this team 3: give it the same lora"),
        ({"target_modules": ["q_proj"]}, r"layers\.[01]\.mlp\.up_proj it adapts and this team does not"),
        ({"target_modules": ["q_proj", "up_proj", "k_proj"]}, r"\.k_proj this team adapts and it does not"),
        ({"layers_to_transform": [1]}, r"layers\.0\.\S+ it adapts and this team does not"),
    ],
    ids=str,
)
def test_an_adapter_of_another_shape_is_told_before_one_is_made(tmp_path, other, said):
    base = lambda: tiny.base_model(len(tiny.word_tokenizer(tiny.WORDS)))  # noqa: E731
    fields = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "up_proj"], "task_type": "CAUSAL_LM"}
    TeamPolicy(base(), LoraConfig(**fields), (A,), critic_seats=1).save(tmp_path)
    check_adapter(LoraConfig(**fields), base(), tmp_path / A)
    with pytest.raises(ValueError, match=said):
        check_adapter(LoraConfig(**fields | other), base(), tmp_path / A)


@pytest.mark.parametrize("ours, theirs", [("Tiny-1B", "org/tiny-1b"), ("org/Tiny", "/disk/Tiny"), ("Tiny", None)])
def test_an_adapter_from_elsewhere_is_compared_by_the_name_of_its_base(tmp_path, ours, theirs):
    words = len(tiny.word_tokenizer(tiny.WORDS))
    tiny.team(tiny.base_model(words)).save(tmp_path)
    (tmp_path / A / "base.json").unlink()  # which no other library writes
    file, base = tmp_path / A / "adapter_config.json", tiny.base_model(words)
    base.config.name_or_path = ours
    policy, written = tiny.team(base), json.loads(file.read_text())
    file.write_text(json.dumps(written | {"base_model_name_or_path": theirs}))
    policy.add_frozen("same", tmp_path / A)
    file.write_text(json.dumps(written | {"base_model_name_or_path": "org/Other"}))
    with pytest.raises(ValueError, match=rf"was made on 'org/Other', and the base is '{ours}': give it that model, or"):
        policy.add_frozen("other", tmp_path / A)


def test_a_cut_adapter_is_refused(tmp_path):
    words = len(tiny.word_tokenizer(tiny.WORDS))
    policy = tiny.team(tiny.base_model(words))
    policy.save(tmp_path)
    file = tmp_path / A / "adapter_model.safetensors"
    weights = load_file(file)
    save_file(dict(list(weights.items())[1:]), file)
    with pytest.raises(ValueError, match=r"does not fit: \S+ is not there, not \("):
        policy.load(tmp_path)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match="cannot be read"):
        policy.load(tmp_path)


def test_an_adapter_with_values_that_are_not_finite_is_refused(tmp_path):
    words = len(tiny.word_tokenizer(tiny.WORDS))
    policy = tiny.team(tiny.base_model(words))
    with torch.no_grad():
        policy.adapter_parameters(A)[3][0, 0] = float("nan")
    policy.save(tmp_path)
    with pytest.raises(ValueError, match=r"is damaged: \S+lora_\S+ has values that are not finite"):
        policy.add_frozen("old", tmp_path / A)


@pytest.mark.parametrize(
    "variant",
    [{"use_dora": True}, {"bias": "all"}, {"modules_to_save": ["lm_head"]}, {"task_type": "SEQ_CLS"}],
    ids=str,
)
def test_an_adapter_on_disk_of_a_kind_that_is_not_routed_is_refused_with_its_folder(tmp_path, variant):
    lora = LoraConfig(**{"r": 2, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"} | variant)
    lora.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=rf"the adapter in {tmp_path} cannot be routed: LoraConfig: {[*variant][0]}="):
        tiny.team(tiny.base_model(40)).add_frozen("old", tmp_path)


HOSTILE = [
    {"lora_alpha": float("inf")}, {"lora_alpha": 1e308}, {"alpha_pattern": {".*": float("inf")}},
    {"alpha_pattern": {".*": "x"}}, {"r": 10**12}, {"r": 10**9}, {"rank_pattern": {".*": 10**9}},
    {"rank_pattern": {".*": -3}}, {"target_modules": "(("}, {"target_modules": []},
]  # fmt: skip


@pytest.mark.parametrize("planted", HOSTILE, ids=str)
def test_a_configuration_of_an_adapter_that_nothing_can_compute_with_is_refused_with_its_folder(tmp_path, planted):
    words = len(tiny.word_tokenizer(tiny.WORDS))
    tiny.team(tiny.base_model(words)).save(tmp_path)
    file = tmp_path / A / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | planted))
    with pytest.raises(ValueError, match=f"^the adapter in {tmp_path / A} ") as caught:
        tiny.team(tiny.base_model(words)).add_frozen("other", tmp_path / A)
    assert "\n" not in str(caught.value)


ENDLESS = r"([\w.]+)+!"
PATTERNS = [
    {"target_modules": ENDLESS}, {"target_modules": "((", "exclude_modules": ENDLESS},
    {"layers_to_transform": [0], "layers_pattern": [ENDLESS]}, {"rank_pattern": {ENDLESS: 2}},
    {"alpha_pattern": {ENDLESS: 2}},
]  # fmt: skip


@pytest.mark.timeout(60)
@pytest.mark.parametrize("planted", PATTERNS, ids=lambda planted: [*planted][-1])
def test_a_pattern_of_an_adapter_that_is_matched_without_end_is_refused_with_its_folder(tmp_path, monkeypatch, planted):
    monkeypatch.setattr("marl_coop.policy.adapters.MATCH_S", 0.5)
    base = tiny.base_model(len(tiny.word_tokenizer(tiny.WORDS)))
    tiny.team(base).save(tmp_path)
    file = tmp_path / A / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | planted))
    policy = SimpleNamespace(base=base)
    with pytest.raises(ValueError, match=f"^the adapter in {tmp_path / A} has patterns .* within 0.5 s") as caught:
        TeamPolicy.add_frozen(policy, "other", tmp_path / A)
    assert "\n" not in str(caught.value)


def test_a_pattern_that_ends_is_taken_as_peft_takes_it(tmp_path):
    words = len(tiny.word_tokenizer(tiny.WORDS))
    tiny.team(tiny.base_model(words)).save(tmp_path)
    file = tmp_path / A / "adapter_config.json"
    planted = {"target_modules": r".*\.(q|k|v|o|gate|up|down)_proj"}
    file.write_text(json.dumps(json.loads(file.read_text()) | planted))
    tiny.team(tiny.base_model(words)).add_frozen("other", tmp_path / A)


@pytest.mark.timeout(60)
def test_a_pipe_in_the_place_of_an_adapters_weights_is_refused_and_not_waited_for(tmp_path):
    words = len(tiny.word_tokenizer(tiny.WORDS))
    tiny.team(tiny.base_model(words)).save(tmp_path)
    (tmp_path / A / "adapter_model.safetensors").unlink()
    os.mkfifo(tmp_path / A / "adapter_model.safetensors")
    with pytest.raises(ValueError, match=r"cannot be read: adapter_model.safetensors is no file$"):
        tiny.team(tiny.base_model(words)).add_frozen("other", tmp_path / A)


@pytest.mark.parametrize("name", ["mlp", "0", "layers", "model", "self", "l", "lora_A", "weight", "default"])
def test_an_adapter_of_any_name_comes_back_whole(tmp_path, name):
    words, other = len(tiny.word_tokenizer(tiny.WORDS)), f"{name}0"
    policy = tiny.team(tiny.base_model(words), adapters=(name, other))
    policy.snapshot_reference()
    policy.save(tmp_path)
    again = tiny.team(tiny.base_model(words), adapters=(name, other), seed=5)
    again.load(tmp_path)
    wanted, found = tiny.weights(policy), tiny.weights(again)
    assert wanted.keys() == found.keys() and all(torch.equal(found[key], weight) for key, weight in wanted.items())
    ids = torch.arange(6)[None]
    with torch.no_grad():
        plain = PeftModel.from_pretrained(tiny.base_model(words), tmp_path / name)(ids).logits
        for adapter in (name, reference_name(name)):
            assert torch.allclose(policy.logits(policy.hidden(spans_of([adapter]), ids)), plain, atol=1e-5)


@pytest.mark.parametrize("names", [("keys",), ("train",), ("type",), ("forward",), ("x", "x_start")])
def test_a_name_that_is_used_for_something_else_is_refused(names):
    with pytest.raises(ValueError, match=f"{names[-1]!r} is no name for an adapter"):
        tiny.team(tiny.base_model(40), adapters=names)


@pytest.mark.parametrize(
    "wanted, hint", [("v_prjo", "Did you mean 'v_proj'"), ("qkv_proj", "_proj"), ("all-linear", "")]
)
def test_a_target_that_no_module_has_is_refused_by_name(wanted, hint):
    lora = LoraConfig(r=2, target_modules=["q_proj", wanted], task_type="CAUSAL_LM")
    with pytest.raises(ValueError, match=f"target_modules: llama has no '{wanted}'.*{hint}"):
        TeamPolicy(tiny.base_model(40), lora, (A,), critic_seats=1)


def test_a_target_that_is_in_no_layer_with_adapters_is_refused():
    """As in a mixture of experts whose first layer alone has a plain projection of that name."""
    base = tiny.base_model(40)
    base.model.layers[0].mlp.dense = torch.nn.Linear(32, 32)
    fields = {"r": 2, "target_modules": ["q_proj", "dense"], "task_type": "CAUSAL_LM"}
    with pytest.raises(ValueError, match=r"in llama 'dense' is model.layers.0.mlp.dense, which layers_to_transform or"):
        TeamPolicy(base, LoraConfig(**fields, layers_to_transform=[1]), (A,), critic_seats=1)
    TeamPolicy(base, LoraConfig(**fields, layers_to_transform=[0, 1]), (A,), critic_seats=1)


def test_what_is_saved_names_no_place_of_this_machine(tmp_path):
    tokenizer = tiny.byte_tokenizer()
    tokenizer.save_pretrained(tmp_path / "model")
    tiny.base_model(len(tokenizer)).save_pretrained(tmp_path / "model")
    base, _ = load_base(str(tmp_path / "model"), "float32", None)
    tiny.team(base).save(tmp_path / "saved")
    files = {file.name for file in (tmp_path / "saved" / A).iterdir()}
    assert files == {"adapter_config.json", "adapter_model.safetensors", "base.json"}
    for file in (tmp_path / "saved" / A).glob("*.json"):
        assert str(tmp_path) not in file.read_text() and '"model"' in file.read_text()


@pytest.mark.parametrize(("folder", "file"), [(0o755, 0o644), (0o750, 0o640), (0o700, 0o600)])
def test_who_may_read_the_folder_of_a_team_may_read_its_weights(tmp_path, folder, file):
    tmp_path.chmod(folder)
    before = os.umask(0o777 & ~folder)
    try:
        tiny.team(tiny.base_model(64)).save(tmp_path)
    finally:
        os.umask(before)
    found = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*.safetensors")}
    assert found == {"adapter_model.safetensors": file, "critics.safetensors": file}


def test_weights_that_this_user_may_not_read_are_not_told_to_be_missing(tmp_path, monkeypatch):
    """Root may read all."""
    tiny.byte_tokenizer().save_pretrained(tmp_path / "model")
    tiny.base_model(259).save_pretrained(tmp_path / "model")
    policy = tiny.team(tiny.base_model(259))
    policy.save(tmp_path)
    monkeypatch.setattr("os.access", lambda file, mode: Path(file).suffix != ".safetensors")
    with pytest.raises(OSError, match=r"'.*model' cannot be loaded: this user may not read model.safetensors: .*a\+r$"):
        load_base(str(tmp_path / "model"), "float32")
    with pytest.raises(ValueError, match="cannot be read: this user may not read adapter_model.safetensors"):
        policy.load_adapter("agent_0", tmp_path / "agent_0")
