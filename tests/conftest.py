"""Settings for every test: no network, no tracker, no deadline for single examples of hypothesis on a busy machine."""

import importlib.util
import os

import pytest
from hypothesis import settings

from envs.sandbox import tree

os.environ |= {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled", "TOKENIZERS_PARALLELISM": "false"}

settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")


def pytest_runtest_setup(item):
    if item.get_closest_marker("bubblewrap") and (why := tree.tier().missing.get("bubblewrap")):
        pytest.skip(f"needs bubblewrap: {why}")
    if item.get_closest_marker("vllm") and importlib.util.find_spec("vllm") is None:
        pytest.skip("needs vLLM, which wants an environment of its own: make test-vllm")


@pytest.fixture(scope="session")
def toy(tmp_path_factory):
    """The toy task of `toy_bench` and an evaluator for it; its hidden tests are studied once."""
    from toy_bench import make_toy

    return make_toy(tmp_path_factory.mktemp("toy"))
