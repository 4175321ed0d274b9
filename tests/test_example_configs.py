"""The configurations of `configs/examples`: one for each environment, each run once on a model small enough."""

from pathlib import Path

import pytest
import tiny

from envs import DesignReview, Handover, MoonSurvival, PairedFeatures
from envs.cooperbench.env import CooperBench
from marl_coop.config.schema import load_config
from marl_coop.experiment.experiment import Experiment
from marl_coop.runs.records import read_episodes

EXAMPLES = Path(__file__).parents[1] / "configs" / "examples"
SMALL = [
    "model.dtype=float32",
    "lora.r=2",
    "warmup={steps: 1, batch_size: 2, micro_batch_size: 2}",
    "evaluation.episodes=2",
    "training.episodes_per_update=2",
    "training.num_updates=1",
    "training.gradient_accumulation_steps=1",
    "training.num_mini_batches=1",
    "training.report_to=none",
    "training.use_cpu=true",
]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder, tokenizer = tmp_path_factory.mktemp("model"), tiny.text_tokenizer()
    tiny.base_model(len(tokenizer), layers=1).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_every_environment_of_the_documentation_has_an_example():
    named = {load_config([file]).make_env.cls for file in EXAMPLES.glob("*.yaml")}
    assert named == {DesignReview, PairedFeatures, MoonSurvival, Handover, CooperBench}  # the quickstart has the other


@pytest.mark.parametrize(
    ("name", "fewer"),
    [
        ("design_review", "env.families=[auth_scheme, pagination]"),
        ("paired_features", "env.families=[append]"),
        ("moon_survival", "env.items=3"),
        ("handover", "env.probes=1"),
    ],
)
def test_an_example_runs_to_its_end(model, name, fewer, tmp_path, monkeypatch):
    monkeypatch.setenv("MARL_COOP_CACHE", str(tmp_path / "cache"))
    overrides = [*SMALL, fewer, f"model.name_or_path={model}", f"output_dir={tmp_path / 'run'}"]
    Experiment(load_config([EXAMPLES / f"{name}.yaml"], overrides)).run()
    assert len(read_episodes(tmp_path / "run" / "after.jsonl")) == 2
    assert (tmp_path / "run" / "results.json").exists()
