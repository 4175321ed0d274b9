"""Settings for every test: no network, no tracker, no deadline for single examples of hypothesis on a busy machine."""

import gc
import importlib.util
import os
from pathlib import Path

import pytest
from hypothesis import settings

from envs.sandbox import tree

os.environ |= {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled", "TOKENIZERS_PARALLELISM": "false"}
os.environ["TORCHDYNAMO_DISABLE"] = "1"  # bitsandbytes loads a compiler that nothing here uses: 2 s of each process

settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")


def pytest_collection_finish():
    gc.freeze()  # each training collects garbage once; what the imports hold takes most of that time, and stays


def pytest_runtest_setup(item):
    if item.get_closest_marker("bubblewrap") and (why := tree.tier().missing.get("bubblewrap")):
        pytest.skip(f"needs bubblewrap: {why}")
    if item.get_closest_marker("vllm") and importlib.util.find_spec("vllm") is None:
        pytest.skip("needs vLLM, which wants an environment of its own: make test-vllm")


@pytest.fixture(scope="session")
def place(tmp_path_factory) -> Path:
    """A folder with a small model in it, where train.py puts runs; tests copy what they change."""
    from train_py import make_place

    return make_place(tmp_path_factory.mktemp("place"))


@pytest.fixture(scope="session")
def whole(place) -> Path:
    """The folder of a finished run in `place`, where its output is in `out` and `err`."""
    from train_py import command, spawn

    process = spawn(place, command(place, "whole", "--profile"))  # as a user starts it
    out, errors = process.communicate(timeout=280)
    assert process.returncode == 0, errors[-2000:]
    (place / "out").write_text(out)
    (place / "err").write_text(errors)
    return place / "whole"


@pytest.fixture(scope="session")
def started(tmp_path_factory):
    from vllm_servers import start_two

    servers = start_two(tmp_path_factory.mktemp("served"))
    yield servers
    for server in servers:
        server.end()


@pytest.fixture
def servers(started):
    """Two servers that speak as vLLM does, of one base, and do nothing wrong yet."""
    for server in started:
        server.behave()
    return started


@pytest.fixture(scope="session")
def toy(tmp_path_factory):
    """The toy task of `toy_bench` and an evaluator for it; its hidden tests are studied once."""
    from toy_bench import make_toy

    return make_toy(tmp_path_factory.mktemp("toy"))
