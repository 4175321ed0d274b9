"""What is refused of engines of vLLM before they are asked for anything."""

import importlib.util

import pytest
import tiny
import torch
from vllm_servers import known

from envs.core.fields import ArgumentError
from marl_coop.config.checks import check_config
from marl_coop.config.errors import ConfigError
from marl_coop.config.schema import load_config
from marl_coop.experiment import checks, setup
from marl_coop.training_rules import check_server_options, check_together


@pytest.mark.parametrize("engine", ["embedded", "vllm"])
def test_an_engine_that_sleeps_while_adapters_learn_does_not_play_ahead(tmp_path, engine):
    with pytest.raises(ValueError, match=f"training.async_play: it must be false: '{engine}' sleeps"):
        tiny.arguments(tmp_path, engine=engine, async_play=True)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, r"urls must be a list of addresses such as \['http://localhost:8000/v1'\], got None"),
        ({"urls": "http://a/v1"}, "urls must be a list of addresses .* got 'http://a/v1'"),
        ({"urls": ["a:8000"]}, "urls must be a list of addresses"),
        ({"urls": ["http://a/v1", "http://a/v1/"]}, "urls names a server twice"),
        ({"urls": ["http://a/v1"], "timeout": 3}, "unknown key 'timeout'; did you mean 'timeout_s'"),
        (
            {"urls": ["http://a/v1"], "timeout_s": 0},
            "timeout_s must be a positive number .* a day at most, got 0",
        ),
        ({"urls": ["http://a/v1"], "adapter_folder": 3}, "adapter_folder must be a folder, got 3"),
    ],
)
def test_options_that_cannot_be_used_are_refused_by_name(tmp_path, options, told):
    with pytest.raises(ValueError, match=told):
        check_server_options(options)
    with pytest.raises(ValueError, match=f"training.engine_options: {told}"):
        tiny.arguments(tmp_path, engine="vllm_server", engine_options=options)


def test_only_an_engine_that_has_options_takes_some(tmp_path):
    with pytest.raises(ValueError, match=r"training.engine_options: the embedded engine has none, got \['urls'\]"):
        tiny.arguments(tmp_path, engine_options={"urls": ["http://a/v1"]})


def test_a_sampler_of_its_own_is_corrected_for_unless_told_otherwise(tmp_path):
    options = {"engine": "vllm_server", "engine_options": {"urls": ["http://a/v1"]}}
    assert tiny.arguments(tmp_path, **options).importance == "truncated"
    assert tiny.arguments(tmp_path, importance="recompute", **options).importance == "recompute"


def test_servers_that_do_not_answer_are_refused_before_the_run(tmp_path):
    config = load_config([], ["training.engine=vllm_server", "training.engine_options.urls=[http://127.0.0.1:9/v1]"])
    with pytest.raises(ConfigError, match=r"training.engine_options.*http://127.0.0.1:9/v1 does not answer") as caught:
        checks.check_servers(config, setup.training_arguments(config, str(tmp_path)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("engine", ["vllm", "vllm_server"])
def test_a_temperature_that_vllm_does_not_have_is_refused_before_the_run(engine):
    with pytest.raises(ArgumentError, match="0.005 is too low: vLLM samples at 0.01 or more") as caught:
        check_together({"engine": engine, "engine_options": {"urls": ["http://a/v1"]}, "temperature": 0.005})
    assert caught.value.loc == ("temperature",)
    check_together({"temperature": 0.005})


def test_play_of_older_weights_is_not_learned_from_uncorrected():
    options = {"engine": "vllm_server", "engine_options": {"urls": ["http://a/v1"]}, "async_play": True}
    with pytest.raises(ArgumentError, match="it must be false: importance='recompute' corrects for rounding"):
        check_together(options | {"importance": "recompute"})
    check_together(options)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (["training.engine=vllm_server", "training.engine_options.urls=[http://a/v1]"], "'vllm_server' would sample"),
        (["training.shard_base=true"], "training.shard_base shares out plain weights"),
    ],
)
def test_a_base_in_4_bits_is_refused_where_it_would_be_another_model_or_cannot_be_shared(said, why):
    with pytest.raises(ConfigError, match=f"model.load_in_4bit: it must be false: {why}"):
        check_config(load_config([], [*said, "model.load_in_4bit=true"]))


def served_config(servers):
    options = ["training.engine=vllm_server", f"training.engine_options.urls=[{servers[0].url}]"]
    config = load_config([], [*options, f"model.name_or_path={servers[0].folder}", "model.dtype=float32"])
    return config, setup.training_arguments(config), setup.load_model(config)[0]


def test_servers_play_a_little_before_the_run_and_forget_it(servers):
    config, args, base = served_config(servers)
    before, state = servers[0].now(), torch.get_rng_state()
    checks.check_engine(config, args, base, longest=100)
    assert len(servers[0].seen("completions", before)) == 6  # two adapters and the base
    assert known(servers[0]) == [] and torch.equal(torch.get_rng_state(), state)
    assert not [name for name, _ in base.named_modules() if "lora" in name]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"fixed": True}, "does not load adapters"),
        ({"temperature": 3.0}, "does not sample from what is trained"),
        ({"positions": 99}, "a chat may come to 100 tokens, and vLLM has 99 positions: a larger max_model_len"),
    ],
)
def test_a_server_that_cannot_play_the_team_is_refused_before_the_run(servers, wrong, told):
    config, args, base = served_config(servers)
    servers[0].behave(**wrong)
    with pytest.raises(ConfigError, match=f"training.engine_options: .*{told}") as caught:
        checks.check_engine(config, args, base, longest=100)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is here")
def test_vllm_that_is_not_installed_is_refused_with_the_remedy(tmp_path):
    config = load_config([], ["training.engine=vllm"])
    with pytest.raises(
        ConfigError, match=r"vLLM is not there \(.*\): docs/scaling.md says how it is installed"
    ) as caught:
        setup.training_arguments(config, str(tmp_path))
    assert "\n" not in str(caught.value)
