"""A battery with a model: a run, its checkpoint, the base and the warmed-up base on one frozen base."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import yaml
from test_endpoint import completion, server  # noqa: F401  a fixture
from train_py import run_here

from marl_coop import cli
from marl_coop.experiment import model_play
from marl_coop.experiment.teams import find_team
from marl_coop.runs.records import read_episodes
from marl_coop.runs.rundir import CRITICS

CONDITIONS = [
    {"name": "unseen"},
    {"name": "swapped", "swapped": True, "against": "unseen"},
    {"name": "beside", "partner": "scripted:silent"},
    {"name": "told", "team": "warm", "advice": "Hold when your source is reliable.", "against": "unseen"},
    {"name": "cross", "partner": "others", "episodes": 1},
]


@pytest.fixture(scope="module")
def run(place) -> Path:
    """The folder of a run of one update."""
    return run_here(place, "run", "training.num_updates=1", "evaluation.episodes=2")


@pytest.fixture
def evaluate(place, tmp_path, monkeypatch):
    """Runs the command on some conditions, and gives its exit code."""
    monkeypatch.setattr(os, "environ", os.environ | {"MARL_COOP_CACHE": str(place / "cache")})

    def command(*words, conditions=CONDITIONS):
        file = tmp_path / "battery.yaml"
        file.write_text(yaml.safe_dump({"episodes": 2, "batch_size": 3, "conditions": conditions}))
        return cli.main(["eval", *map(str, words), "--battery", str(file), "--output", str(tmp_path / "out")])

    return command


def nameless(episodes):
    """Episodes without the names of who played."""
    return [replace(episode, players={}) for episode in episodes]


def test_a_run_plays_as_in_its_own_evaluation_and_everybody_else_beside_it(run, evaluate, tmp_path, monkeypatch):
    checkpoint = run / "checkpoint-4"
    assert evaluate(run, checkpoint) == 0
    content = json.loads((tmp_path / "out/results.json").read_text())
    files = {(one["who"], one["condition"]): tmp_path / "out" / one["file"] for one in content["episodes"]}
    own, floor = str(run), "base"

    after = read_episodes(run / "after.jsonl")
    assert nameless(read_episodes(files[own, "unseen"])) == nameless(after)
    assert files[own, "unseen"] == files[str(checkpoint), "unseen"]  # the same adapters: nothing is played twice
    assert nameless(read_episodes(files[floor, "unseen"])) != nameless(after)

    names = [read_episodes(files[own, name])[0].players for name in ("unseen", "swapped")]
    assert list(names[0].values()) == list(names[1].values())[::-1]
    assert len(set(names[0].values())) == 2
    assert "checkpoint" not in str(names)  # who was named first is on record
    assert {floor} == {*read_episodes(files[floor, "unseen"])[0].players.values()}
    beside = read_episodes(files[own, "beside"])
    assert [list(episode.players.values()).index("Silent") for episode in beside] == [1, 0]

    cross = {condition for _, condition in files if condition.startswith("cross:")}
    assert cross == {f"cross:{who}" for who in (own, str(checkpoint), floor)}
    bars = {(d["who"], d["than_who"], d["than_condition"]) for d in content["differences"]}
    assert {(own, "base", "unseen"), (own, "warm", "told"), (own, own, "unseen")} <= bars
    assert content["unplayed"] == []

    monkeypatch.setattr(model_play.ModelPlay, "__call__", None)
    before = (tmp_path / "out/results.json").read_text()
    assert evaluate(run, checkpoint) == 0  # all of it is kept
    assert (tmp_path / "out/results.json").read_text() == before


def refusal(evaluate, run, folder, capsys, **changes):
    """What is said of a run on another base model, whose configuration has some changes."""
    tokenizer = tiny.byte_tokenizer()
    tokenizer.save_pretrained(folder)
    base = tiny.base_model(len(tokenizer), seed=1)
    for key, value in changes.items():
        setattr(base.config, key, value)
    base.save_pretrained(folder)
    assert evaluate(run, "--set", f"model.name_or_path={folder}", conditions=CONDITIONS[:1]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    return line


def test_an_adapter_of_another_base_is_one_line(run, evaluate, tmp_path, capsys):
    said = refusal(evaluate, run, tmp_path / "model", capsys)
    assert "cannot play: the adapter in" in said and "is of another base" in said


def test_a_model_of_which_samples_would_be_wrong_is_refused_as_in_training(run, evaluate, tmp_path, capsys):
    unread = {"sliding_window": 40}  # by this architecture; the cache believes it
    said = refusal(evaluate, run, tmp_path / "model", capsys, **unread)
    assert "model.name_or_path: " in said and "nats off" in said


def test_a_run_that_has_not_ended_plays_by_its_last_checkpoint_and_is_called_so(run, evaluate, tmp_path, capsys):
    stopped = shutil.copytree(run, tmp_path / "stopped")
    (stopped / CRITICS).unlink()
    trained = find_team(str(stopped)).trained
    assert trained is not None and trained.method.endswith(" checkpoint-4")
    assert evaluate(stopped, "--set", "no_such_key=1") == 2  # before anybody plays
    assert f"{stopped} has not ended: its checkpoint-4 plays" in capsys.readouterr().err


@pytest.mark.slow
def test_a_chat_that_outgrows_the_model_is_told_and_the_rest_is_played(run, evaluate, tmp_path):
    conditions = [{"name": "unseen"}, {"name": "long", "env": {"rounds": 60}}]
    assert evaluate(run, conditions=conditions) == 0
    content = json.loads((tmp_path / "out/results.json").read_text())
    ((who, reason),) = {(one["who"], one["reason"]) for one in content["unplayed"] if one["who"] == str(run)}
    assert who == str(run) and "and the model has 700 positions" in reason
    assert content["conditions"].keys() == {"unseen", "long"}  # the ceiling needs no model


def test_a_hosted_model_is_evaluated_on_the_same_tasks_and_told_the_advice(run, evaluate, tmp_path, server):  # noqa: F811
    server.answer = 200, completion("PASS")
    who = f"{server.url}#hosted"
    assert evaluate(who, run, conditions=[{"name": "told", "advice": "Hold."}]) == 0
    content = json.loads((tmp_path / "out/results.json").read_text())
    files = {one["who"]: tmp_path / "out" / one["file"] for one in content["episodes"]}
    tasks = [[episode.task.id for episode in read_episodes(files[name])] for name in (who, str(run), "base")]
    assert tasks[0] == tasks[1] == tasks[2]
    systems = {body["messages"][0]["content"] for _, _, body in server.asked}
    assert systems == {"You and a partner write one module. Hold."}
