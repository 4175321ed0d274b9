"""Environments by name, in PettingZoo's own registry too; and names of before, which work or say where they went."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pettingzoo
import pytest

import envs
from envs.cooperbench.env import CooperBench
from envs.core.config import EnvConfig
from envs.core.lookup import find
from envs.core.moved import MOVED
from envs.scripted.base import Calibrated
from marl_coop.config.errors import ConfigError
from marl_coop.config.schema import load_config
from rewards import find_term

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("cls", envs.ENVIRONMENTS, ids=lambda cls: cls.__name__)
def test_pettingzoo_makes_every_environment_by_its_own_registry(cls):
    env = pettingzoo.make("parallel", f"marl_coop/{cls.__name__}-v0", rounds=3)
    assert type(env) is cls and env.config == envs.make(cls.__name__, rounds=3).config


def test_the_registration_says_nothing_and_holds_in_a_fresh_interpreter():
    code = (
        "import envs, pettingzoo; print(pettingzoo.make('parallel', 'marl_coop/MoonSurvival-v0', items=3).config.items)"
    )
    run = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (run.stdout, run.returncode) == ("3\n", 0), run.stderr


def test_dotted_paths_of_before_lead_to_what_they_led_to():
    assert envs.find_environment("envs.cooperbench.environment:CooperBench") is CooperBench
    assert envs.find_environment("envs.moon:MoonSurvival") is envs.MoonSurvival
    assert envs.find_environment("envs.handover:Handover") is envs.Handover
    assert find("envs.partners:Calibrated", {}, kind="partner") is Calibrated
    config = load_config([], ["policies.agent_1=scripted:envs.partners:Calibrated"])
    assert config.policies["agent_1"] == "scripted:envs.partners:Calibrated"
    assert find_term("rewards.deference:Deference") is find_term("deference")


@pytest.mark.parametrize(
    ("line", "old", "new"),
    [
        ("from envs.base import CoopEnv", "envs.base", "envs.core.env and envs.core.config"),
        ("from envs.episode import Episode", "envs.episode", "envs.core.episode"),
        ("from rewards.base import prior_option", "rewards.base", "rewards.base and rewards.readings"),
        ("from rewards.edits import edits", "rewards.edits", "envs.source.edits"),
        ("from envs.handover import Handover", "envs.handover", "envs.handover.env"),
        ("from envs.families.base import Readings", "Readings", "ContractOptions"),
        ("from envs.scripted.exploits import ZOO", "ZOO", "EXPLOITS"),
    ],
)
def test_a_module_that_imports_a_name_of_before_is_told_the_new_one(tmp_path, monkeypatch, line, old, new):
    lab = f"lab_{re.sub('[^a-zA-Z]', '_', old)}"
    (tmp_path / f"{lab}.py").write_text(line)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError) as error:
        envs.make(f"{lab}:Mine")
    assert str(error.value).endswith(f"What was {old} is now {new}.") and "\n" not in str(error.value)


def test_every_new_place_exists():
    assert [place for places in MOVED.values() for place in places if find_spec(place) is None] == []


def test_the_readmes_environment_is_played_and_configured_as_it_stands(tmp_path, monkeypatch):
    section = (ROOT / "README.md").read_text().partition("## Add an environment")[2].partition("\n## ")[0]
    (code,) = re.findall(r"^```python\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
    (tmp_path / "my_env.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    env = envs.make("my_env:Colours", shades=3)
    env.reset(seed=0)
    best = env.task.decisions[0].best
    while env.agents:
        _, rewards, *_ = env.step(dict.fromkeys(env.agents, f"Answer: {best}"))
    assert rewards == {"agent_0": 1.0, "agent_1": 1.0} and len(env.task.decisions[0].options) == 3
    command = [sys.executable, "train.py", "--config", "configs/base.yaml", "--print-config", "env.name=my_env:Colours"]
    run = subprocess.run(
        [*command, "env.shades=3"], cwd=ROOT, capture_output=True, text=True, env={"PYTHONPATH": str(tmp_path)}
    )
    assert run.returncode == 0 and "shades: 3" in run.stdout, run.stderr
    assert not any(f"  {key}:" in run.stdout for key in ("families", "distractors", "expert"))  # which it does not read


def test_a_key_that_is_no_field_of_a_custom_environment_is_neither_shown_nor_taken(tmp_path, monkeypatch):
    (tmp_path / "plain_env.py").write_text(
        "from envs.core.config import EnvConfig\nfrom envs.core.env import CoopEnv\n\n"
        "class PlainConfig(EnvConfig, frozen=True):\n    shades: int = 2\n\n"
        "class Plain(CoopEnv[PlainConfig]):\n    Config = PlainConfig\n    WORK = 'choose'\n"
        "    def make_task(self, seed): ...\n    def finish(self, turns): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    config = load_config([ROOT / "configs/quickstart.yaml"], ["env.name=plain_env:Plain"])
    assert config.env.keys() == {"name", "curriculum", "shades", *EnvConfig.model_fields}
    for key in ("families", "distractors", "scaffold", "cells", "shade"):
        with pytest.raises(ConfigError, match=rf"^command line: env\.{key}: unknown key; did you mean '\w+'\?"):
            load_config([ROOT / "configs/quickstart.yaml"], ["env.name=plain_env:Plain", f"env.{key}=1"])
