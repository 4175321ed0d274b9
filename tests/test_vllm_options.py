"""What is refused of engines of vLLM before they are asked for anything."""

import importlib.util

import pytest
import tiny

from marl_coop.config.errors import ConfigError
from marl_coop.config.schema import load_config
from marl_coop.experiment import checks, setup
from marl_coop.training_rules import check_server_options


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
        checks.check_engine(config, setup.training_arguments(config, str(tmp_path)))
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is here")
def test_vllm_that_is_not_installed_is_refused_with_the_remedy(tmp_path):
    config = load_config([], ["training.engine=vllm"])
    with pytest.raises(
        ConfigError, match=r"vLLM is not there \(.*\): docs/scaling.md says how it is installed"
    ) as caught:
        setup.training_arguments(config, str(tmp_path))
    assert "\n" not in str(caught.value)
