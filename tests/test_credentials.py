"""Keys and passwords of a user are in no record, message, export or page of a run."""

import sys
from pathlib import Path

import pytest
from train_py import ROOT, command, fork, make_place

from marl_coop.config.errors import ConfigError
from marl_coop.config.schema import load_config
from marl_coop.credentials import key_of, masked
from marl_coop.engines import EngineError
from marl_coop.engines.vllm_server import Servers
from marl_coop.rollout.endpoint import Endpoint, EndpointError
from marl_coop.training_rules import check_engine_options, check_server_options

MARL_COOP = [sys.executable, "-m", "marl_coop"]
NAMES = "WANDB_API_KEY HF_TOKEN OPENAI_API_KEY VLLM_API_KEY AWS_SECRET_ACCESS_KEY MY_PASSWORD NETRC HF_TOKEN_PATH"
PLANTED = {name: f"planted{i}{i:032}" for i, name in enumerate(NAMES.split())}  # as long as keys of wandb


@pytest.fixture(scope="module")
def told(tmp_path_factory) -> tuple[Path, str]:
    """The folder of a run with keys in its environment, in netrc and in the file of the Hub's token, which was also
    evaluated, exported and made a page of; and all that was said on the way."""
    place = make_place(tmp_path_factory.mktemp("keys"))
    (place / "home").mkdir()
    netrc, token = place / "home" / "netrc", place / "home" / "token"
    netrc.write_text(f"machine api.wandb.ai\n  login user\n  password {PLANTED['NETRC']}\n")
    token.write_text(PLANTED["HF_TOKEN_PATH"])
    keys = PLANTED | {"NETRC": str(netrc), "HF_TOKEN_PATH": str(token), "WANDB_MODE": "offline"}
    small = "training.num_updates=1 training.episodes_per_update=2 training.num_mini_batches=1 evaluation.episodes=2"
    (place / "battery.yaml").write_text("episodes: 2\nbatch_size: 2\nconditions: [{name: unseen}]\n")
    folder = place / "run"
    commands = [
        command(place, "run", *small.split(), "training.report_to=[wandb,tensorboard]"),
        [*MARL_COOP, "eval", folder, "--battery", place / "battery.yaml", "--output", folder / "battery"],
        [*MARL_COOP, "export", folder, "--to", "dataset"],
        [*MARL_COOP, "view", folder],
    ]
    said = ""
    for words in commands:
        process = fork(place, words, keys)
        out, errors = process.communicate(timeout=280)
        assert process.returncode == 0, errors[-2000:]
        said += out + errors
    return folder, said


@pytest.mark.slow
def test_a_run_its_evaluation_its_export_and_its_page_have_no_key(told):
    folder, said = told
    files = [file for file in folder.rglob("*") if file.is_file()]
    names = {file.name for file in files}
    assert {"run.json", "config.yaml", "view.json", "view.html", "README.md", "metrics.jsonl", "results.csv"} <= names
    assert any(file.suffix == ".wandb" for file in files) and any("tfevents" in name for name in names)
    for name, key in PLANTED.items():
        assert key not in said, name
        assert [file for file in files if key.encode() in file.read_bytes()] == [], name


@pytest.mark.parametrize("key", ["ключ", "se\ncret", "naïve"])
def test_a_key_that_no_header_can_have_is_one_line_without_the_key(monkeypatch, key):
    monkeypatch.setenv("VLLM_API_KEY", key)
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(EngineError, match=r"^\$VLLM_API_KEY has a character that no key has") as engine:
        Servers(["http://a/v1"], 1.0)
    with pytest.raises(EndpointError, match=r"^\$OPENAI_API_KEY has a character that no key has") as endpoint:
        Endpoint("http://a/v1", "model", "", 1.0, {})
    assert not any(key in str(caught.value) for caught in (engine, endpoint))


@pytest.mark.parametrize("address", ["https://me:{key}@host/v1", "https://{key}@host/v1", "http://host/v1?key={key}"])
def test_an_address_with_a_key_in_it_is_refused_without_saying_the_key(address):
    address = address.format(key="planted-key")
    for error, refused in (
        (ConfigError, lambda: load_config([ROOT / "configs/quickstart.yaml"], [f"policies.agent_1={address}#model"])),
        (ValueError, lambda: check_server_options({"urls": [address]})),
    ):
        with pytest.raises(error, match="'host' has a user, a password or a query in it") as caught:
            refused()
        assert "planted-key" not in str(caught.value)


@pytest.mark.parametrize("address", ["HTTPS://me:{key}@host/v1", "https://me:{key}/x@host/v1", "https://me:{key}@[/v1"])
def test_no_refusal_of_an_address_quotes_what_may_be_a_key(address):
    address = address.format(key="planted-key")
    for entry in (f"{address}#model", f"frozen:{address}", f"ws{address[address.index(':') :]}#model"):
        with pytest.raises(ConfigError, match="the address of|an address is none") as caught:
            load_config([ROOT / "configs/quickstart.yaml"], [f"policies.agent_1={entry}"])
        assert "planted-key" not in str(caught.value.problem)
    for urls in ([address], address):
        with pytest.raises(ValueError, match="the address of|an address is none") as caught:
            check_server_options({"urls": urls})
        assert "planted-key" not in str(caught.value)


@pytest.mark.parametrize("key", ["name", "training.run_name", "model.name_or_path", "training.engine_options.urls"])
def test_a_key_of_the_environment_is_no_value_of_a_configuration(monkeypatch, key):
    """As `${oc.env:...}`, or as what a shell has made of it."""
    monkeypatch.setenv("MY_API_KEY", "sk-planted-0123456789")
    for value in ("${oc.env:MY_API_KEY}", "[a, 'https://h/sk-planted-0123456789/v1']"):
        with pytest.raises(ConfigError, match=r"\$MY_API_KEY") as caught:
            load_config([ROOT / "configs/quickstart.yaml"], [f"{key}={value}"])
        assert "planted" not in caught.value.problem
    monkeypatch.setenv("MY_API_KEY", "a")  # as every name has it
    load_config([ROOT / "configs/quickstart.yaml"])


def test_a_key_of_the_environment_is_no_name_in_a_mix(monkeypatch):
    monkeypatch.setenv("MY_API_KEY", "sk-planted-0123456789")
    mix = "policies.agent_1={agent_1: 0.5, 'https://host/sk-planted-0123456789/v1#model': 0.5}"
    with pytest.raises(ConfigError, match=r"^command line: policies.agent_1: it has what \$MY_API_KEY has") as caught:
        load_config([ROOT / "configs/quickstart.yaml"], [mix])
    assert "planted" not in str(caught.value)


def test_a_token_of_the_hub_is_no_part_of_a_configuration():
    with pytest.raises(ConfigError, match="training.hub_token: .*nothing is uploaded") as caught:
        load_config([ROOT / "configs/quickstart.yaml"], ["training.hub_token=planted-key"])
    assert "planted-key" not in str(caught.value)

    with pytest.raises(ValueError, match="HF_TOKEN") as refused:
        check_engine_options("vllm", {"hf_token": "planted-key"})
    assert "planted-key" not in str(refused.value)


@pytest.mark.parametrize("key", ["planted-key", "planted-key\n"])
def test_a_server_that_quotes_the_key_is_quoted_without_it(monkeypatch, key):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    assert masked("401: bad key planted-key", "OPENAI_API_KEY") == "401: bad key $OPENAI_API_KEY"
    assert key_of("OPENAI_API_KEY") == "planted-key"


def test_a_key_that_a_client_quotes_as_bytes_is_masked_too(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "planted\nkey")
    said = f"Illegal header value {b'Bearer ' + b'planted' + bytes([10]) + b'key'!r}"
    assert masked(said, "OPENAI_API_KEY") == "Illegal header value b'Bearer $OPENAI_API_KEY'"


@pytest.mark.parametrize("key", ["", " ", None])
def test_without_a_key_nothing_is_masked(monkeypatch, key):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    if key is not None:
        monkeypatch.setenv("OPENAI_API_KEY", key)
    assert masked("there is none", "OPENAI_API_KEY") == "there is none" and key_of("OPENAI_API_KEY") is None
