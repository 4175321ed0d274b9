"""A base model that cannot be trained here is refused before the run, in one line that names it."""

import json
import shutil

import pytest
import tiny
import torch
import transformers
from peft import LoraConfig
from safetensors.torch import load_file, save_file

from marl_coop.config.errors import ConfigError
from marl_coop.config.schema import load_config
from marl_coop.experiment.checks import check_model, checks_of_start
from marl_coop.experiment.setup import load_model, make_chat, training_arguments
from marl_coop.policy.adapters import read_config

WEIGHT, BIAS = "model.layers.0.mlp.up_proj.weight", "model.layers.0.self_attn.q_proj.bias"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Folder of a model that can be trained."""
    folder, tokenizer = tmp_path_factory.mktemp("models") / "whole", tiny.byte_tokenizer()
    tokenizer.save_pretrained(folder)
    tiny.base_model(len(tokenizer)).save_pretrained(folder)
    return folder


def configured(folder, *overrides):
    return load_config([], [f"model.name_or_path={folder}", "model.dtype=float32", *overrides])


def changed(**fields):
    """What changes fields of a model's config.json."""

    def change(folder, file="config.json"):
        content = json.loads((folder / file).read_text()) | fields
        (folder / file).write_text(json.dumps(content))

    return change


def encoder_decoder(folder):
    transformers.T5Config(d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2).save_pretrained(folder)


def cut(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


def without_a_weight(folder):
    weights = load_file(folder / "model.safetensors")
    del weights[WEIGHT]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def with_a_weight(name):
    def change(folder):
        weights = load_file(folder / "model.safetensors") | {name: torch.ones(32)}
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    return change


def without_an_end(folder):
    changed(eos_token=None, pad_token=None)(folder, "tokenizer_config.json")


def without_files(folder):
    shutil.rmtree(folder)
    folder.mkdir()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (encoder_decoder, "t5 is an encoder and a decoder"),
        (changed(model_type="clip"), "clip is no causal language model"),
        (changed(model_type="nonsense"), "transformers has no architecture 'nonsense'"),
        (changed(model_type="mine", auto_map={"AutoConfig": "mine.Mine"}), "code that comes with a model is not run"),
        (changed(quantization_config={"quant_method": "gptq", "bits": 4}), "its weights are quantised"),
        (changed(intermediate_size=80), r"mlp.down_proj.weight has the shape \(32, 64\), and its .* says \(32, 80\)"),
        (cut, "SafetensorError: "),
        (without_a_weight, f"its weights are not whole: {WEIGHT} is not there"),
        (with_a_weight(BIAS), f"its weight {BIAS} has no place in the model that its config.json describes"),
        (with_a_weight(f"{WEIGHT}_scale_inv"), f"its weight {WEIGHT}_scale_inv has no place"),
        (without_an_end, "its tokenizer has no token that ends a text"),
        (without_files, "it has no config.json"),
    ],
)
def test_a_checkpoint_that_cannot_be_trained_is_refused(whole, tmp_path, change, problem):
    change(shutil.copytree(whole, folder := tmp_path / "model"))
    with pytest.raises(ConfigError, match=f"model.name_or_path: '{folder}' cannot be loaded: .*{problem}") as caught:
        load_model(configured(folder))
    assert "\n" not in str(caught.value)


def test_weights_of_parts_that_a_language_model_does_without_are_left_alone(whole, tmp_path):
    shutil.copytree(whole, folder := tmp_path / "model")
    for name in ("vision_tower.layers.0.weight", "model.layers.0.self_attn.rotary_emb.inv_freq"):
        with_a_weight(name)(folder)
    load_model(configured(folder))


def test_a_tokenizer_that_writes_tokens_which_the_model_does_not_know_is_refused(whole, tmp_path):
    shutil.copytree(whole, folder := tmp_path / "model")
    tokenizer = tiny.byte_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|fin|>"]})
    tokenizer.save_pretrained(folder)  # one more token than the model has, which is never used
    config = configured(folder)
    base, loaded = load_model(config)
    make_chat(config, base, loaded, config.make_env())
    loaded.chat_template = tiny.CHATML.replace("<|im_end|>", "<|fin|>")
    with pytest.raises(
        ConfigError, match=r"model.name_or_path: .* writes '<\|fin\|>' as token 259, and the model knows 259"
    ):
        make_chat(config, base, loaded, config.make_env())


@pytest.mark.parametrize("place", ["./nope", "~/nope", "a/b/c"])
def test_a_folder_that_is_not_there_is_refused(place):
    with pytest.raises(ConfigError, match=f"model.name_or_path: there is no folder '{place}': give a folder, a Hub id"):
        load_model(configured(place))


@pytest.mark.parametrize("name", ["flash_attention_2", "nonsense"])
def test_an_attention_that_is_not_there_is_refused_under_its_own_key(whole, name):
    with pytest.raises(ConfigError, match=f"model.attn_implementation: '{name}' cannot be used: ") as caught:
        load_model(configured(whole, f"model.attn_implementation={name}"))
    assert "\n" not in str(caught.value)


def test_an_attention_that_a_model_looks_up_in_vain_is_refused(tmp_path):
    tokenizer = tiny.byte_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    falcon = transformers.FalconConfig(vocab_size=len(tokenizer), **sizes)
    transformers.FalconForCausalLM(falcon).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="model.attn_implementation: 'grouped' cannot be used: this model has none"):
        load_model(configured(tmp_path, "model.attn_implementation=grouped"))


def test_an_attention_that_computes_less_than_the_models_own_is_refused_under_its_own_key(tmp_path):
    tokenizer = tiny.byte_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}
    gemma = transformers.Gemma2Config(vocab_size=len(tokenizer), intermediate_size=16, head_dim=8, **sizes)
    transformers.Gemma2ForCausalLM(gemma).save_pretrained(tmp_path)
    config = configured(tmp_path, "model.attn_implementation=grouped")
    with pytest.raises(ConfigError, match="model.attn_implementation: .* does not compute softcap, .*: use 'eager'"):
        check_model(config, load_model(config)[0], torch.device("cpu"), longest=64)


def test_what_a_cpu_or_a_model_cannot_do_is_refused_under_its_own_key(whole, tmp_path):
    flexible = configured(whole, "model.attn_implementation=flex_attention")
    with pytest.raises(
        ConfigError, match=r"model.attn_implementation: 'flex_attention' ends the process on a CPU: use "
    ):
        check_model(flexible, load_model(configured(whole))[0], torch.device("cpu"), longest=64)
    tokenizer = tiny.byte_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    ctrl = transformers.CTRLConfig(vocab_size=len(tokenizer), n_embd=16, dff=16, n_layer=1, n_head=2)
    transformers.CTRLLMHeadModel(ctrl).save_pretrained(tmp_path)
    load_model(configured(tmp_path))
    with pytest.raises(ConfigError, match="training.gradient_checkpointing: ctrl does not support it"):
        load_model(configured(tmp_path, "training.gradient_checkpointing=true"))


def test_an_argument_that_the_template_does_not_read_is_refused_under_its_own_key(whole):
    config = configured(whole, "model.chat_template_kwargs={enable_thinkin: false}")
    with pytest.raises(ConfigError, match="model.chat_template_kwargs.enable_thinkin: .* reads no such"):
        make_chat(config, *load_model(config), config.make_env())


@pytest.mark.parametrize("fields", [{"r": "16"}, {"r": None}, {"r": [8]}, {"r": -1}, {"lora_alpha": "32"}, {"r": True}])
def test_an_adapter_whose_configuration_says_nonsense_is_refused(whole, tmp_path, fields):
    tiny.team(load_model(configured(whole))[0]).save_adapter("agent_0", tmp_path / "saved")
    changed(**fields)(tmp_path / "saved", "adapter_config.json")
    ((field, _),) = fields.items()
    with pytest.raises(ValueError, match=f"saved has {field} .*: mend its adapter_config.json|is not the folder"):
        read_config(tmp_path / "saved")


def test_a_frozen_adapter_that_cannot_play_is_found_at_the_start(whole, tmp_path):
    base, _ = load_model(configured(whole))
    tiny.team(load_model(configured(whole))[0]).save_adapter("agent_0", tmp_path / "plain")
    LoraConfig(target_modules=["q_proj"], use_dora=True).save_pretrained(tmp_path / "variant")
    modules = [type(module) for module in base.modules()]

    def check(name):
        config = configured(whole, f"policies.agent_1=frozen:{tmp_path / name}", "training.report_to=none")
        checks_of_start(config, training_arguments(config), base, longest=64)["frozen adapters"]()

    check("plain")
    assert [type(module) for module in base.modules()] == modules
    with pytest.raises(ConfigError, match=r"policies: the adapter in \S+variant cannot be routed: .* use_dora=True"):
        check("variant")


def test_a_name_that_no_adapter_can_have_is_refused_under_the_key_of_the_policies(whole):
    config = configured(whole, "policies={agent_0: keys, agent_1: keys}")
    with pytest.raises(ConfigError, match="policies: .*'keys' is no name for an adapter"):
        check_model(config, load_model(config)[0], torch.device("cpu"), longest=64)


@pytest.mark.parametrize("target", ["lm_head", "all-linear", "mlp"])
def test_what_carries_no_adapter_is_refused_under_the_key_of_the_targets(whole, target):
    config = configured(whole, f"lora.target_modules=[{target}]")
    base, _ = load_model(config)
    with pytest.raises(ConfigError, match=r"lora.target_modules: \S+ cannot carry these adapters: ") as caught:
        check_model(config, base, torch.device("cpu"), longest=64)
    assert "\n" not in str(caught.value)
