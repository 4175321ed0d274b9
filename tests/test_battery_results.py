"""What is kept of a battery, how it goes on, and what its results say. No torch in here."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import yaml
from batteries import CONFIG, IDEAL, MIXED, ROOT, battery, planned, played

from marl_coop.cli.eval import evaluate
from marl_coop.config.schema import load_config
from marl_coop.evaluation import matches
from marl_coop.evaluation.battery_tables import tables
from marl_coop.evaluation.results import difference, values
from marl_coop.experiment import battery as batteries
from marl_coop.experiment.battery import play_battery
from marl_coop.experiment.plan import make_plan
from marl_coop.experiment.teams import identity
from marl_coop.runs.lock import held
from marl_coop.runs.records import read_episodes
from marl_coop.runs.rundir import RunError
from rewards.metrics import measure


def test_every_condition_has_the_floor_and_the_ceiling_and_differences_are_paired(tmp_path):
    conditions = [{"name": "placebo", "partner": "scripted:placebo"}]
    conditions += [{"name": "persuader", "partner": "scripted:persuader", "against": "placebo"}]
    found, results = played(tmp_path, *conditions, teams=(MIXED,), episodes=30)
    everybody = {"mixed", "scripted:averager", "scripted:ideal"}
    assert {who for who, name in found if name == "placebo"} == everybody
    printed = list(tables(results))
    assert [column.header for column in printed[0].columns] == [
        "metric",
        "mixed",
        "floor: scripted:averager",
        "ceiling: scripted:ideal",
    ]
    first, second = found["mixed", "persuader"], found["mixed", "placebo"]
    shift = {row.metric: row.value for row in difference(first, second)}
    one, other = ({row.metric: row.value for row in values(side)} for side in (first, second))
    assert shift["cr"] == pytest.approx(one["cr"] - other["cr"])
    assert "mixed: differences, paired by task" in [table.title for table in printed]


def test_what_training_began_with_is_a_second_floor_where_there_was_a_warm_up():
    for steps, bars in ((5, {"base", "warm"}), (0, {"base"})):
        config = load_config([CONFIG], [f"warmup.steps={steps}"])
        plan = planned({"name": "unseen"}, {"name": "more", "seed": 1}, floor="base", start="warm", config=config)
        assert {match.who for match in plan.matches} == {"scripted:ideal", *bars}
        ideal = {(condition, than) for (who, condition), (than, _) in plan.pairs() if who == "scripted:ideal"}
        assert ideal == {(condition, bar) for condition in ("unseen", "more") for bar in bars}


def test_conditions_with_other_tasks_are_not_compared_and_the_results_say_so(tmp_path):
    conditions = [{"name": "unseen"}, {"name": "more", "seed": 1, "against": "unseen"}]
    _, results = played(tmp_path, *conditions, floor=None, ceiling=None)
    (one,) = results.unplayed
    who, condition, reason = one
    assert (who, condition) == ("scripted:ideal", "more") and reason.startswith(
        "not compared with scripted:ideal in uns"
    )
    assert str(one).startswith("scripted:ideal in more: not compared with ")


def test_the_files_say_what_the_results_say_and_lead_to_the_episodes(tmp_path):
    found, results = played(tmp_path, {"name": "unseen"}, {"name": "beside", "partner": "scripted:echo"}, episodes=6)
    content = json.loads((tmp_path / "results.json").read_text())
    assert content["conditions"]["unseen"]["episodes"] == 6
    assert (content["who"], content["floor"]) == (["scripted:ideal"], "scripted:averager")
    rows = {(r["who"], r["condition"], r["metric"]): r for r in content["results"]}
    success = rows["scripted:ideal", "unseen", "success"]
    assert success["value"] == measure(found["scripted:ideal", "unseen"].episodes)["success"].value
    assert success.keys() == {"who", "condition", "metric", "value", "low", "high", "n"}
    for place in content["episodes"]:
        assert read_episodes(tmp_path / place["file"]) == found[place["who"], place["condition"]].episodes
    assert {(p["condition"], p["judged"]) for p in content["episodes"]} == {("unseen", "all"), ("beside", "one")}
    table = (tmp_path / "results.csv").read_text().splitlines()
    assert len(table) == 1 + len(content["results"]) + len(content["differences"])


def counted(monkeypatch, stop_after=None):
    """The seeds of the episodes that are played from now on; a stop in the middle, if asked for."""
    seeds, play = [], matches.play_scripted

    def counting(tasks, sampling_seed):
        if stop_after is not None and len(seeds) >= stop_after:
            raise KeyboardInterrupt
        seeds.extend(seed for _, seed in tasks)
        return play(tasks, sampling_seed)

    monkeypatch.setattr(batteries, "play_scripted", counting)
    return seeds


def test_a_stopped_evaluation_goes_on_and_plays_nothing_twice(tmp_path, monkeypatch):
    conditions = [{"name": "unseen"}, {"name": "beside", "partner": "scripted:echo"}]
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        counted(patch, stop_after=16)
        played(tmp_path / "stopped", *conditions, batch_size=4)
    with monkeypatch.context() as patch:
        rest = counted(patch)
        _, results = played(tmp_path / "stopped", *conditions, batch_size=4)
    _, whole = played(tmp_path / "whole", *conditions, batch_size=5)
    assert len(rest) == 2 * 2 * 12 - 16
    assert results.rows == whole.rows
    with monkeypatch.context() as patch:
        more = counted(patch)
        played(tmp_path / "whole", *conditions, episodes=14)
    assert len(more) == 2 * 2 * 2  # of a longer battery, what it adds


def test_conditions_that_come_to_the_same_play_have_each_as_many_episodes_as_they_say(tmp_path):
    conditions = [{"name": "unseen"}, {"name": "few", "episodes": 4}, {"name": "many", "episodes": 14}]
    found, _ = played(tmp_path, *conditions)
    counts = {name: len(found["scripted:ideal", name].episodes) for name in ("unseen", "few", "many")}
    assert counts == {"unseen": 12, "few": 4, "many": 14}
    assert len({one.match.file for one in found.values()}) == 2  # of the team and of the floor


def test_a_stopped_evaluation_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    file, out = tmp_path / "short.yaml", tmp_path / "out"
    file.write_text(
        yaml.safe_dump({"episodes": 12, "batch_size": 4, "floor": None, "conditions": [{"name": "unseen"}]})
    )
    counted(monkeypatch, stop_after=4)
    with pytest.raises(SystemExit) as stop:
        words = ["scripted:ideal", "--battery", str(file), "--config", str(ROOT / "configs/quickstart.yaml")]
        evaluate([*words, "--output", str(out)])
    said = capsys.readouterr().err.splitlines()[-1]
    assert (stop.value.code, said) == (130, f"stopped; what was played is in {out}: the same command goes on")


def test_an_evaluation_that_is_killed_goes_on(tmp_path):
    file, out = tmp_path / "long.yaml", tmp_path / "out"
    conditions = [{"name": "unseen"}, {"name": "more", "seed": 1}]
    file.write_text(yaml.safe_dump({"episodes": 400, "batch_size": 8, "floor": None, "conditions": conditions}))
    words = ["eval", "scripted:ideal", "--battery", str(file), "--config", str(ROOT / "configs/quickstart.yaml")]
    command = [sys.executable, "-m", "marl_coop", *words, "--output", str(out)]
    places = {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}  # what is killed leaves files
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | places, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(out.glob("episodes/*.jsonl")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    (kept,) = out.glob("episodes/*.jsonl")
    before = read_episodes(kept)
    assert 0 < len(before) < 400
    short = make_plan(
        battery({"name": "unseen"}, episodes=len(before) + 8, floor=None), [IDEAL],
        load_config([ROOT / "configs/quickstart.yaml"]), "short.yaml",
    )  # fmt: skip
    results = play_battery(short, out)
    assert results.played[0].match.file == kept
    assert read_episodes(kept)[: len(before)] == before
    assert len(results.played[0].episodes) == len(before) + 8


def test_what_is_kept_is_kept_under_all_that_it_depends_on(tmp_path):
    def file(**fields):
        return play_battery(planned({"name": "a", **fields}, episodes=1, floor=None), tmp_path).played[0].match.file

    changes = ({}, {"env": {"rounds": 2}}, {"seed": 1}, {"partner": "scripted:echo"}, {"partner": "scripted:silent"})
    changes += ({"swapped": True}, {"advice": "Hold."}, {"team": "scripted:averager"})
    assert len({file(**change) for change in changes}) == len(changes)
    assert file() == file(against=None, episodes=1)


def test_an_adapter_is_known_by_its_content_and_not_by_its_place(tmp_path):
    for folder, weights in (("one", b"weights"), ("same", b"weights"), ("other", b"more weights")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "adapter_config.json").write_text("{}")
        (tmp_path / folder / "adapter_model.safetensors").write_bytes(weights)
    one, same, other = (identity(f"frozen:{tmp_path / name}") for name in ("one", "same", "other"))
    assert one == same != other
    assert identity({f"frozen:{tmp_path / 'one'}": 1.0, "base": 2.0}) == [[one, 1.0], ["base", 2.0]]


def test_scripted_teams_are_evaluated_without_torch(tmp_path):
    file = tmp_path / "b.yaml"
    file.write_text("episodes: 4\nfloor: scripted:echo\nconditions:\n  - {name: unseen}\n")
    words = ["eval", "scripted:ideal", "--battery", str(file), "--config", str(CONFIG), "--output", str(tmp_path / "o")]
    code = f"import sys; from marl_coop.cli import main; assert main({words!r}) == 0; assert 'torch' not in sys.modules"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "floor: scripted:echo" in result.stdout and "ceiling" not in result.stdout.split("differences")[1]


def test_a_folder_in_which_another_process_plays_is_refused(tmp_path):

    with held(tmp_path), pytest.raises(RunError, match="is run by another process"):
        played(tmp_path, {"name": "unseen"})
