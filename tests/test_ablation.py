"""Ablations: what is planned and refused, and one that is stopped and goes on."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from train_py import ROOT, fork, make_place
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

from marl_coop import cli
from marl_coop.config.ablation import Ablation
from marl_coop.config.errors import ConfigError
from marl_coop.config.layers import read_as
from marl_coop.config.schema import load_config
from marl_coop.experiment import ablation, run_time
from marl_coop.runs import rundir
from marl_coop.runs.records import append_metrics

SPECS = sorted((ROOT / "configs/studies").glob("*.yaml"))
BASE = "name: x\nconfig: [configs/quickstart.yaml]\nseeds: [0, 1]\nreference: a\n"
ARMS = BASE + "arms:\n  a: {}\n  b: {set: [training.learning_rate=1e-4]}\n"


def spec(folder: Path, text: str):
    file = folder / "spec.yaml"
    file.write_text(text)
    return read_as(file, Ablation), str(file)


def planned(folder: Path, text: str = ARMS):
    return ablation.plan(*spec(folder, text), folder / "out")


# ---------------------------------------------------------------------------------------------------- what is planned


@pytest.mark.parametrize("file", SPECS, ids=lambda file: file.stem)
def test_published_studies_can_be_trained(file, tmp_path):
    study = read_as(file, Ablation)
    runs = ablation.plan(study, str(file), tmp_path)
    assert len(runs) == sum(len(study.seeds_of(arm)) for arm in study.arms)


def test_every_arm_has_a_seed_before_any_has_two(tmp_path):
    assert [one.run.name for one in planned(tmp_path)] == ["a-seed-0", "b-seed-0", "a-seed-1", "b-seed-1"]


def test_an_arm_may_have_fewer_seeds_than_the_ablation(tmp_path):
    text = ARMS.replace("training.learning_rate=1e-4]", "training.learning_rate=1e-4], seeds: [1]")
    assert [one.run.name for one in planned(tmp_path, text)] == ["a-seed-0", "b-seed-1", "a-seed-1"]


def test_the_command_of_a_run_gives_the_configuration_that_was_judged(tmp_path):
    for one in planned(tmp_path):
        words = one.run.command()[1:]
        files = [words[i + 1] for i, word in enumerate(words) if word == "--config"]
        assert load_config(files, words[2 * len(files) :]) == one.config
        assert one.config.seed == one.run.seed and one.config.output_dir == str(one.run.folder)
        assert one.episodes == 12 * 64 and one.updates == 12


@pytest.mark.parametrize("name", ["on", "no", "1e3", "007", "null"])
def test_an_arm_whose_quoted_name_yaml_would_read_as_something_else_is_called_so(tmp_path, name):
    _, one, *_ = planned(tmp_path, ARMS.replace("  b:", f'  "{name}":'))
    words = one.run.command()[1:]
    config = load_config(words[1:2], words[2:])
    assert config == one.config and config.name == name == one.run.arm


@pytest.mark.parametrize("place", ["${x}", "a b", "$HOME", "it's", 'say "a"', "#1", "[a]", "${oc.env:HOME}"])
def test_a_folder_may_have_any_name(tmp_path, place):
    one, *_ = ablation.plan(*spec(tmp_path, ARMS), tmp_path / place)
    assert one.config.output_dir == str(tmp_path / place / "runs/a/seed-0")
    file = tmp_path / "config.yaml"
    file.write_text(one.config.to_yaml())
    assert load_config([file]) == one.config
    words = ablation.pilot(one, tmp_path / place).run.command()[1:]
    assert load_config(words[1:2], words[2:]).output_dir == str(tmp_path / place / "pilot")


@pytest.mark.parametrize("name", ["on", "no", "1e3", "007"])
def test_a_name_that_yaml_reads_as_something_else_is_to_be_quoted(tmp_path, name):
    for text in (ARMS.replace("  b:", f"  {name}:"), ARMS.replace("name: x", f"name: {name}")):
        with pytest.raises(ConfigError, match="input should be a valid string; YAML reads .*: put it in quotes$"):
            planned(tmp_path, text)
    with pytest.raises(ConfigError, match=r"arms: .*: put the key in quotes$"):
        planned(tmp_path, ARMS.replace("  b:", "  null:"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (ARMS.replace("arms", "amrs"), "amrs: unknown key; did you mean 'arms'?"),
        (ARMS.replace("reference: a", "reference: c"), "reference: there is no 'c'"),
        (ARMS.replace("[0, 1]", "[0, 0]"), "seeds: [0, 0] has a seed twice"),
        (ARMS.replace("1e-4]", "1e-4], seeds: [1, 1]"), "arms.b.seeds: [1, 1] has a seed twice"),
        (ARMS.replace("1e-4]", "1e-4], seeds: [2]"), "arms.b.seeds: 2 is none of the ablation's seeds, [0, 1]"),
        (ARMS.replace("  b:", "  A:"), "arms: 'a' and 'A' would be one folder on a disk without case: rename one"),
        (ARMS + "metric: jj\n", "metric: there is no 'jj'"),
        (BASE + "arms: {a: {}}\n", "arms: {'a': {}} is refused"),
        (ARMS.replace("learning_rate", "lerning_rate"), "arms.b: training.lerning_rate: unknown key"),
        (ARMS.replace("training.learning_rate=1e-4", "lora.r=0"), "arms.b: lora.r: 0 is refused"),
        (ARMS.replace("training.learning_rate=1e-4", "training.num_updates=3"), "arms.b: trains on 192 episodes"),
        (ARMS.replace("training.learning_rate=1e-4", "evaluation.seed=3"), "arms.b: is not evaluated on the tasks"),
        (ARMS.replace("training.learning_rate=1e-4", "name=b"), "arms.b: trains the same as a"),
        (ARMS.replace("training.learning_rate=1e-4", "training.gamma=1.0"), "arms.b: trains the same as a"),  # default
        (ARMS.replace("training.learning_rate=1e-4", "rewards.approval.agent=agent_0"), "arms.b: trains the same as a"),
    ],
)  # fmt: skip
def test_a_slip_is_one_line_before_anything_starts(tmp_path, text, said):
    with pytest.raises(ConfigError) as error:
        planned(tmp_path, text)
    assert said in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_unequal_episodes_can_be_meant(tmp_path):
    text = ARMS.replace("training.learning_rate=1e-4", "training.num_updates=3") + "equal_episodes: false\n"
    assert [one.episodes for one in planned(tmp_path, text)] == [768, 192, 768, 192]


def test_a_run_that_was_begun_with_something_else_is_refused(tmp_path):
    one = planned(tmp_path)[1]
    one.run.folder.mkdir(parents=True)
    rundir.record_start(one.run.folder, "b", one.config.to_yaml(), 0)
    assert planned(tmp_path)[1].run.command() == ["train", "--resume", str(one.run.folder)]
    with pytest.raises(ConfigError, match=r"learning_rate: 0.01 is refused: .* begun with 0.0001; give another folder"):
        planned(tmp_path, ARMS.replace("1e-4", "1e-2"))


def test_all_runs_have_the_dtype_of_those_that_have_begun_whatever_is_the_fastest_here(tmp_path):
    def begin(one, dtype):
        one.run.folder.mkdir(parents=True)
        rundir.record_start(one.run.folder, one.run.arm, one.config.settled(dtype).to_yaml(), 0)

    first, second, *_ = planned(tmp_path)
    begin(second, "bfloat16")
    runs = planned(tmp_path)
    assert [one.config.model.dtype for one in runs] == ["bfloat16"] * 4
    assert runs[1].run.command()[1] == "--resume"
    assert [one.run.command()[-1] for one in runs if not one.run.begun] == ["model.dtype=bfloat16"] * 3
    begin(first, "float32")
    assert [one.config.model.dtype for one in planned(tmp_path)] == ["float32", "bfloat16", "fastest", "fastest"]


def test_what_is_printed_is_a_script_of_launch_lines(tmp_path, capsys):
    spec(tmp_path, ARMS)
    assert (
        cli.main(["ablate", str(tmp_path / "spec.yaml"), "--executor", "print", "--output", str(tmp_path / "a b")]) == 0
    )
    first, *lines = capsys.readouterr().out.splitlines()
    assert first.startswith("# x: 4 runs, 4 to do") and len(lines) == 4
    launch = '[ "$1 $2 $3 $4" = "launch -m marl_coop train" ] && printf "%s\\n" "${@: -1}"'
    (tmp_path / "accelerate").write_text(f"#!/bin/bash\n{launch}\n")
    (tmp_path / "accelerate").chmod(0o755)
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-e"], input="\n".join([first, *lines]), env=path, capture_output=True, text=True)
    assert done.stdout.splitlines() == [
        f"output_dir={one.run.folder}" for one in ablation.plan(*spec(tmp_path, ARMS), tmp_path / "a b")
    ]


# ------------------------------------------------------------------------------------------------ time and budgets


def test_runs_fit_by_gpus_or_by_cores_and_memory(monkeypatch):
    monkeypatch.setattr(run_time.psutil, "cpu_count", lambda: 16)
    monkeypatch.setattr(run_time.psutil, "virtual_memory", lambda: type("Memory", (), {"available": 30 * 2**30}))
    assert run_time.fitting(5.0, ("0", "1", "2")) == 3
    assert run_time.fitting(5.0, ()) == 5  # 6 GiB each with some room
    assert run_time.fitting(1.0, ()) == 8  # two cores each
    assert run_time.fitting(100.0, ()) == 1


def test_tokens_are_those_of_all_seats_in_all_updates(tmp_path):
    runs = planned(tmp_path)
    for one, tokens in zip(runs, (10.0, 12.5, 30.0, 0.0), strict=True):
        if tokens:
            one.run.folder.mkdir(parents=True)
            (one.run.folder / "results.json").write_text("{}")
            for update in (1, 2):
                record = {"update": update, "agent_0/generated_tokens": tokens, "agent_1/generated_tokens": tokens}
                append_metrics(one.run.folder / "metrics.jsonl", record)
    found = ablation.budgets(runs)
    assert found["a"] == ablation.Budget(finished=2, planned=2, episodes=128, tokens=128 * 2 * 20)
    assert found["b"] == ablation.Budget(finished=1, planned=2, episodes=128, tokens=128 * 2 * 12.5)
    assert ablation.budget_table(found, "a").columns[3]._cells == ["5120 ×1.00", "3200 ×0.62 not equal"]


# --------------------------------------------------------------------------------------------------- the whole of it


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return make_place(tmp_path_factory.mktemp("ablation"))


@pytest.mark.slow
@pytest.mark.timeout(3600)  # six trainings, on a machine that may have others to do
def test_an_ablation_that_is_stopped_goes_on_and_is_compared(place):
    sizes = "env.families=[offset] warmup.steps=2 warmup.batch_size=4 evaluation.episodes=6 "
    sizes += "training.episodes_per_update=4 training.num_updates=1 training.num_ppo_epochs=1 "
    sizes += "training.report_to=none training.num_mini_batches=1 training.gradient_accumulation_steps=1 "
    sizes += f"model.name_or_path={place / 'model'} model.dtype=float32"
    text = f"name: tiny\nconfig: [configs/quickstart.yaml]\nset: {json.dumps(sizes.split())}\nseeds: [0, 1]\n"
    text += "reference: all\narms:\n  all: {}\n  alone: {config: [configs/presets/task_only.yaml]}\n"
    (place / "spec.yaml").write_text(text)
    out = place / "out"
    command = [sys.executable, "-m", "marl_coop", "ablate", place / "spec.yaml", "--output", out, "--jobs", "2"]

    process = fork(place, command)
    begun = [out / f"runs/{arm}/seed-0/run.json" for arm in ("all", "alone")]
    try:
        while not all(file.exists() for file in begun) and process.poll() is None:
            time.sleep(0.1)
    finally:  # of the test too, which must leave no run behind
        process.send_signal(signal.SIGINT)
        said, errors = process.communicate()
    assert all(file.exists() for file in begun), errors[-2000:]
    assert process.returncode == 130, errors[-2000:]
    assert "4 runs of about" in said and "2 at once" in said and "by a pilot" in said
    assert not (out / "runs/all/seed-1").exists()

    process = fork(place, command)
    said, errors = process.communicate()
    assert process.returncode == 0, errors[-2000:] + said[-2000:]
    for words in ("minus all", "budgets", "not told apart from all by j", "Too few seeds for a claim"):
        assert words in said
    record = json.loads((out / "ablation.json").read_text())
    assert set(record["runs"].values()) == {"finished"} and len(record["runs"]) == 4
    assert record["budgets"]["alone"]["episodes"] == 4
    assert len(json.loads((out / "runs/all/seed-0/run.json").read_text())["starts"]) == 2
    (comparison,) = json.loads((out / "comparison.json").read_text())
    assert comparison["seeds"] == {"all": [0, 1], "alone": [0, 1]}
    assert (out / "comparison-after_training.png").stat().st_size > 1000

    needed = {"run.json", "results.json", "metrics.jsonl", "after.jsonl"}
    for run in out.glob("runs/*/*"):
        for kept in run.iterdir():
            if kept.is_dir():
                shutil.rmtree(kept)
            elif kept.name not in needed and not kept.match("config*.yaml"):
                kept.unlink()
    process = fork(place, command)
    said, errors = process.communicate()
    assert process.returncode == 0 and "4 runs, 0 to do" in said, errors[-2000:]
    assert json.loads((out / "comparison.json").read_text()) == [comparison]


# ----------------------------------------------------------------------------------------------------------- sweeps


@pytest.mark.parametrize("file", sorted((ROOT / "configs/sweeps").glob("*.yaml")), ids=lambda file: file.stem)
def test_a_sweep_gives_command_lines_that_train(file):
    sweep = yaml.safe_load(file.read_text())
    assert sweep["method"] in ("grid", "random", "bayes") and (ROOT / sweep["program"]).is_file()
    values = {
        key: {"value": one["values"][0] if "values" in one else one["min"]} for key, one in sweep["parameters"].items()
    }
    words = create_sweep_command_args({"args": values})["args_no_hyphens"]
    fixed = sweep["command"][: sweep["command"].index("${args_no_hyphens}")]
    files = [fixed[i + 1] for i, word in enumerate(fixed) if word == "--config"]
    overrides = [word for word in fixed if "=" in word and not word.startswith("$")]
    config = load_config(files, [*overrides, *words])
    assert config.training["report_to"] == "wandb" and sweep["metric"]["name"].startswith("eval/")
    assert config.evaluation.every > 0
