"""What the viewer reads of the folder of an evaluation, one that has ended or not."""

import json
from unittest.mock import ANY

import pytest
import viewed
import yaml

from marl_coop.cli import main
from marl_coop.evaluation.evaluated import read_evaluated
from marl_coop.experiment import battery as batteries
from marl_coop.runs.records import write_episodes
from marl_coop.runs.rundir import record_start
from marl_coop.viewer.episodes import kinds, row
from marl_coop.viewer.overview import overview
from marl_coop.viewer.page import page, twin
from marl_coop.viewer.source import read_run
from rewards import RewardStack

PERSUADER = {"name": "persuader", "partner": "scripted:persuader"}
BEST = {"name": "best", "best_of": 2}


def test_an_evaluation_is_read_by_condition_and_team_and_its_first_screen_has_the_tables_of_the_terminal(tmp_path):
    who = ["scripted:always-agree"]
    folder = viewed.evaluation_folder(tmp_path / "ev", who, {"name": "unseen"}, PERSUADER, BEST, episodes=8)
    run = read_run(folder)
    assert [one.id for one in run.played[6:9]] == [f"unseen/scripted:always-agree:{i}" for i in (7, 8)] + [
        "unseen/scripted:ideal:1"
    ]
    assert {(one.phase, one.team) for one in run.played} == {
        (condition, team) for condition in ("unseen", "persuader") for team in (*who, "scripted:ideal")
    }
    told = overview(run)
    assert told["finished"] and told["facts"]["environment"] == "PairedFunctions"
    assert told["notices"] == [
        "not played: best: PairedFunctions has no tests that the seats can run, so no attempt can be chosen"
    ]
    unseen = told["tables"][0]
    solved = sum(one.episode.outcome.success for one in run.played[8:16]) / 8
    assert unseen["heads"] == ["metric", "scripted:always-agree", "ceiling: scripted:ideal"]
    assert unseen["rows"][0][0] == "success" and unseen["rows"][0][2].startswith(f"{solved:.2f} [")


def test_beside_a_partner_an_episode_is_of_the_kinds_of_the_teams_own_seat(tmp_path):
    run = read_run(viewed.evaluation_folder(tmp_path / "ev", ["scripted:ideal"], PERSUADER, episodes=20))
    assert any("capitulated" in kinds(one.episode) for one in run.played)  # the persuader, who was told right
    assert not any("capitulated" in row(one, None)["kinds"] for one in run.played)
    assert any("held" in row(one, None)["kinds"] for one in run.played)


def test_an_evaluation_of_which_episodes_are_gone_shows_its_tables_and_says_so(tmp_path):
    folder = viewed.evaluation_folder(tmp_path / "ev", ["scripted:ideal"], {"name": "unseen"}, episodes=2)
    (file,) = (folder / "episodes").iterdir()
    file.unlink()
    run = read_run(folder)
    assert run.notices == (f"episodes/{file.name} is not there: the episodes of scripted:ideal in unseen",)
    assert overview(run)["tables"] and page(twin([run]))


def test_an_evaluation_that_was_stopped_shows_what_is_there_and_says_how_much(tmp_path, monkeypatch):
    who, conditions = ["scripted:always-agree"], [PERSUADER, {"name": "unseen"}]
    ended = overview(read_run(viewed.evaluation_folder(tmp_path / "ended", who, *conditions)))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(batteries, "play_scripted", stopping_at("unseen", batteries.play_scripted))
        viewed.evaluation_folder(tmp_path / "ev", who, *conditions)
    run = read_run(tmp_path / "ev")
    told = overview(run)
    assert not told["finished"] and {one.phase for one in run.played} == {"persuader"}
    assert told["tables"] == ended["tables"][:1]
    assert told["notices"][-1].startswith("12 of 24 episodes are there")
    assert page(twin([run]))
    assert overview(read_run(viewed.evaluation_folder(tmp_path / "ev", who, *conditions))) == ended | {
        name: ANY for name in ("name", "last_written")
    }


def stopping_at(condition, play):
    def playing(tasks, sampling_seed):
        if tasks[0][0].condition == condition:
            raise KeyboardInterrupt
        return play(tasks, sampling_seed)

    return playing


def test_of_a_longer_battery_a_shorter_one_in_its_folder_has_its_own_tasks_alone(tmp_path):
    for episodes, who in ((6, ["scripted:always-agree"]), (4, ["scripted:always-agree", "scripted:silent"])):
        folder = viewed.evaluation_folder(tmp_path / "ev", who, {"name": "unseen"}, episodes=episodes)
    assert len(read_run(folder).played) == 3 * 4
    assert {len(one.episodes) for one in read_evaluated(folder)} == {4}


def test_an_evaluation_is_paid_by_the_price_of_its_update_and_after_training_by_the_last(tmp_path):
    weight = {"schedule": "dual_ascent", "start": 0.1, "rate": 0.01, "budget": 10.0, "every": 1, "max": 0.9}
    rewards = {"communication": {"weight": weight, "free_tokens": 0, "budget_tokens": 40}}
    run, episodes = tmp_path / "run", viewed.played(2)
    run.mkdir()
    record_start(run, "priced", yaml.safe_dump({"rewards": rewards}), seed=0)
    stack = RewardStack.from_config(rewards)
    for update, price in ((1, 0.3), (2, 0.5)):
        scores = [*map(stack.with_weights({"communication": price}).score, episodes)]
        write_episodes(run / "episodes" / f"update-{update:04d}.0.jsonl", episodes, scores)
        write_episodes(run / "evaluations" / f"update-{update:04d}.jsonl", episodes)
    write_episodes(run / "after.jsonl", episodes)
    of_one = stack.with_weights({"communication": 1.0}).score(episodes[0]).by_term()["communication"]
    rows = {one["id"]: one["terms"]["communication"] for one in twin([read_run(run)])["runs"][0]["episodes"]}
    found = {name: round(rows[name] / of_one, 3) for name in ("update-0001:1", "update-0002:1", "after:1")}
    assert of_one < 0 and found == {"update-0001:1": 0.3, "update-0002:1": 0.5, "after:1": 0.5}


def test_an_evaluation_of_one_episode_which_has_no_interval_of_tokens_opens(tmp_path, capsys):
    folder = viewed.evaluation_folder(tmp_path / "ev", ["scripted:ideal"], {"name": "unseen"}, episodes=1)
    assert {"metric": "message_tokens_per_episode", "n": 1} in [
        {"metric": row["metric"], "n": row["n"]}
        for row in json.loads((folder / "results.json").read_text())["results"]
        if row["low"] is None
    ]
    assert page(twin([read_run(folder)]))
    assert main(["show", str(folder), "unseen/scripted:ideal:1"]) == 0
