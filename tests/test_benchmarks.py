"""Every script of `benchmarks/`, started small as a user starts it."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
import tiny
from safetensors.torch import load_file
from toy_bench import write_toy
from vllm_servers import StandIn

from envs.cooperbench.env import CooperBench
from envs.core.env import SEATS
from envs.scripted.cooperbench import Gold
from envs.scripted.play import play
from marl_coop.experiment.teams import find_team
from marl_coop.runs import records

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]


def run(script: str, *words: str | Path, folder: Path, codes: Sequence[int] = (0,)) -> str:
    """What a script prints before it ends with one of some exit codes; what it keeps goes into a folder."""
    command = [sys.executable, ROOT / "benchmarks" / script, *words]
    with tempfile.TemporaryDirectory() as own:  # its path is short, as addresses of sockets are
        places = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "MARL_COOP_CACHE": str(folder / "cache"), "TMPDIR": own}
        environ = os.environ | places | {"OMP_NUM_THREADS": "1"}
        result = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=1100)
    assert result.returncode in codes, result.stderr[-2000:]
    return result.stdout


def put_model(folder: Path, tokenizer) -> Path:
    """A folder with a tokenizer and a tiny random model of its tokens."""
    tokenizer.save_pretrained(folder)
    tiny.base_model(len(tokenizer)).save_pretrained(folder)
    return folder


@pytest.fixture
def model(tmp_path) -> Path:
    return put_model(tmp_path / "model", tiny.text_tokenizer())


@pytest.mark.parametrize(
    ("script", "words", "says"),
    [
        ("environments.py", "--episodes 2", "Handover"),
        ("forecasts.py", "--seeds 1", "semantic_forecast_recall"),
        ("intervals.py", "--repeats 2", "standard error at most"),
        ("ranking.py", "--tasks 2", "| 0.5, 6 | 8 |"),
        ("sandbox.py", "--runs 2 --episodes 2 --repeats 1", "a tree around `true`"),
        ("sandbox.py", "--leaks 20", "processes    after 2 runs"),
        ("scoring.py", "--episodes 2", "MoonSurvival"),
    ],
)
def test_it_runs_small_to_its_last_line(script, words, says, tmp_path):
    assert says in run(script, *words.split(), folder=tmp_path)


def test_the_audit_writes_a_table_for_each_environment(tmp_path):
    run("audit.py", "--episodes", "2", "--output", tmp_path / "audit.md", folder=tmp_path)
    assert (tmp_path / "audit.md").read_text().count("| policy | U | J | balanced |") == 2 * 4


def test_attention_is_compared_on_any_model(model, tmp_path):
    words = ["--model", model, "--chats", "2", "--tokens", "8", "--repeats", "1"]
    assert run("attention.py", *words, folder=tmp_path).count("tokens/s") == 3


FEW = ["model.dtype=float32", "env.families=[offset]"]
SMALL = "model.dtype=float32 warmup.steps=0 training.episodes_per_update=2 training.num_mini_batches=1".split()


def test_peers_see_what_ours_saw_and_are_compared(tmp_path):
    model = put_model(tmp_path / "model", tiny.byte_tokenizer())
    words = ["--repeats", "1", "--single", "1", "--threads", "1", f"model.name_or_path={model}", *SMALL]
    said = run("peers.py", *words, folder=tmp_path)
    for compared in ("play: generate, batched", "play: generate, single", "update: full logits", "whole: GRPOTrainer"):
        assert f"| {compared} | " in said
    phases = {row.split(" | ")[0].strip("| "): row.split(" | ") for row in said.splitlines() if row.startswith("| ")}
    assert all(phases[name][4].endswith(" %") for name in ("prefill", "decode", "reference", "forward", "backward"))


def test_growth_is_measured_point_by_point(model, tmp_path):
    words = [
        "--axes",
        "seats",
        "--values",
        "3",
        "--episodes",
        "2",
        f"model.name_or_path={model}",
        "model.dtype=float32",
    ]
    last = run("growth.py", *words, folder=tmp_path).splitlines()[-1]
    axis, seats, tokens, *_ = (cell.strip() for cell in last.strip("|").split("|"))
    assert (axis, seats) == ("seats", "3") and int(tokens) > 1000


def test_one_update_ahead_is_timed_beside_updates_in_turn(tmp_path):
    server = StandIn(put_model(tmp_path / "words", tiny.word_tokenizer(tiny.WORDS)))
    try:
        server.wait()
        words = ["--updates", "2", "--repeats", "1", f"model.name_or_path={server.folder}", "env.name=tiny:CueTask"]
        words += [*SMALL, f"training.engine_options.urls=[{server.url}]"]
        last = run("async_play.py", *words, folder=tmp_path).splitlines()[-1]
    finally:
        server.end()
    in_turn, ahead, _, playing, learning = (float(cell) for cell in last.strip("| ").split(" | "))
    assert in_turn == pytest.approx(playing + learning, abs=0.02) and min(in_turn, ahead, playing, learning) > 0


def test_gold_merges_of_a_dataset_are_verified(tmp_path):
    dataset, upstream = write_toy(tmp_path)
    (tmp_path / "upstream").mkdir()
    (tmp_path / "upstream/shapes_task").symlink_to(upstream)
    places = ["--dataset", dataset, "--cache", tmp_path / "verified", "--repositories", tmp_path / "upstream"]
    assert run("cooperbench.py", *places, "merges", folder=tmp_path).count("'git': True, 'merge_file': True") == 6


class Idle:
    def reply(self, env, seat):
        return "Submit"


@pytest.mark.bubblewrap
def test_episodes_of_a_run_are_counted(tmp_path, toy):
    task, evaluator = toy
    dataset = task.folder.parent.parent
    env = CooperBench(dataset=dataset, evaluator=evaluator, rounds=1, pairs=["shapes_task/7/1-3"])
    episodes = [play(env, dict.fromkeys(SEATS, kind()), seed) for kind in (Gold, Idle) for seed in (0, 1)]
    for name, some in (("gold", episodes[:2]), ("silent", episodes[2:])):
        records.write_episodes(tmp_path / f"{name}.jsonl", some)
    words = ["--dataset", dataset, "--cache", tmp_path / "cache", "--against", tmp_path / "silent.jsonl"]
    head, _, gold, change = run("cooperbench_run.py", *words, tmp_path / "gold.jsonl", folder=tmp_path).splitlines()
    assert head.startswith("| episodes | n | passed | official | agree | named |")
    assert gold.startswith("| gold | 2 | 2 | 0 | 0 |") and change.startswith("| gold - silent |")


def test_the_quickstart_is_run_and_written_down(model, tmp_path):
    sizes = "warmup.steps=2 warmup.batch_size=4 evaluation.episodes=4 training.episodes_per_update=4 "
    sizes += "training.num_updates=1 training.num_mini_batches=2 training.gradient_accumulation_steps=1 "
    sizes += "training.report_to=none"
    words = ["--seeds", "3", "--runs", tmp_path, *FEW]
    run("quickstart.py", *words, f"model.name_or_path={model}", *sizes.split(), folder=tmp_path)
    written = (tmp_path / "quickstart.md").read_text()
    assert "## seed 3:" in written and "| J = CDR - CR |" in written and (tmp_path / "quickstart.png").exists()


def test_a_run_that_was_killed_ends_as_one_that_was_not(model, tmp_path):
    words = ["--kills", "1", "--seed", "7", "--runs", tmp_path / "runs", f"model.name_or_path={model}", *FEW]
    said = run("resume.py", *words, "training.num_updates=2", folder=tmp_path)
    assert "stopped at learning, with " in said
    assert "1 of 1 runs end as the one that was not stopped" in said


def test_a_long_run_is_watched_to_its_end(model, tmp_path):
    words = ["--updates", "12", "--every", "1", "--run", tmp_path / "run", f"model.name_or_path={model}", *FEW]
    said = run("soak.py", *words, folder=tmp_path, codes=(0, 1))  # it has hardly begun
    for quantity in ("memory of train.py", "memory of the sandbox", "open files", "processes", "disk but records"):
        assert quantity in said
    assert "records of the run: " in said and said.splitlines()[-1].startswith(("all is flat", "grows: "))


def test_the_page_of_metrics_has_a_line_for_each_metric_and_policy(tmp_path):
    run("metrics.py", "--episodes", "2", "--output", tmp_path / "metrics.md", folder=tmp_path)
    page = (tmp_path / "metrics.md").read_text()
    assert "| `j` | CDR - CR" in page and "| doubter | " in page


@pytest.mark.parametrize("method", ["imitation", "preferences"])
def test_what_is_taught_by_supervision_is_a_seed_of_its_method_that_can_be_evaluated(model, tmp_path, method):
    sizes = "warmup.steps=2 warmup.batch_size=4 training.episodes_per_update=4 training.num_updates=1 "
    words = [*sizes.split(), "training.num_mini_batches=2", *FEW, f"model.name_or_path={model}"]
    quickstart = ROOT / "configs/quickstart.yaml"
    said = run(
        "supervised.py", method, "--config", quickstart, "--output", tmp_path / "taught", *words, folder=tmp_path
    )
    assert said.splitlines()[-1] == f"written: {tmp_path / 'taught'}, taught by 8 chats"
    (warm_up,) = tmp_path.glob("cache/warmup-*")
    taught, warm = (load_file(folder / "adapter_model.safetensors") for folder in (tmp_path / "taught/team", warm_up))
    assert taught.keys() == warm.keys()
    assert any((taught[name] != warm[name]).any() for name in warm)
    team = find_team(str(tmp_path / "taught"))
    assert team.trained == (method, 0) and set(team.policies) == {f"frozen:{tmp_path / 'taught/team'}"}
