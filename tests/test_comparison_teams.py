"""The teams of an evaluation beside each other, by condition and by the method that each is a seed of."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

from marl_coop import cli
from marl_coop.config.battery import Battery
from marl_coop.config.schema import load_config
from marl_coop.evaluation.evaluated import read_evaluated
from marl_coop.evaluation.seating import Seating
from marl_coop.experiment.battery import play_battery
from marl_coop.experiment.plan import make_plan
from marl_coop.experiment.teams import find_team
from marl_coop.runs import rundir
from marl_coop.runs.checkpoints import CRITICS

ROOT = Path(__file__).parents[1]
SILENT = Seating(("scripted:silent",))


def test_teams_of_an_evaluation_are_compared_in_each_condition(tmp_path, capsys):
    battery = tmp_path / "battery.yaml"
    battery.write_text(
        "episodes: 8\nfloor: scripted:silent\nconditions:\n  - {name: x}\n  - {name: y, swapped: true}\n"
    )
    words = ["eval", "scripted:averager", "--battery", str(battery), "--config", "configs/examples/design_review.yaml"]
    assert cli.main([*words, "--output", str(tmp_path / "out")]) == 0
    teams = read_evaluated(tmp_path / "out")
    assert {(one.method, one.condition) for one in teams} >= {("scripted:averager", "x"), ("scripted:ideal", "y")}
    capsys.readouterr()
    assert cli.main(["compare", str(tmp_path / "out"), "--reference", "scripted:silent"]) == 0
    out = capsys.readouterr().out
    assert "x: 8 tasks" in out and "y: 8 tasks" in out and "speaks of a checkpoint" not in out


def test_an_evaluation_knows_which_of_its_teams_are_seeds_of_one_method_wherever_it_is_carried(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    config = load_config([ROOT / "configs/examples/design_review.yaml"], ["policies.agent_1=scripted:silent"])
    for seed in (3, 5):
        folder = Path(f"seed-{seed}")
        (folder / "agent_0").mkdir(parents=True)
        rundir.record_start(folder, "mine", config.to_yaml(), seed)
        for file in (folder / CRITICS, folder / "agent_0/adapter_config.json"):
            file.touch()
    teams = [find_team("seed-3"), find_team("seed-5"), find_team("scripted:silent")]
    battery = Battery.model_validate({"episodes": 4, "floor": None, "conditions": [{"name": "x"}]})
    plan = make_plan(battery, teams, config, "battery.yaml")
    quick = [replace(match, seating=SILENT) for match in plan.matches]  # nobody loads a model here
    play_battery(replace(plan, matches=quick), Path("out"))
    Path("out").rename("carried")
    shutil.rmtree("seed-3")
    monkeypatch.chdir("carried")
    found = {(one.method, one.seed) for one in read_evaluated(Path())}
    assert found == {("mine", 3), ("mine", 5), ("scripted:silent", None), ("scripted:ideal", None)}
    content = json.loads(Path("results.json").read_text())
    del content["trained"]  # as older versions wrote it
    Path("results.json").write_text(json.dumps(content))
    assert cli.main(["compare", "."]) == 2
    assert "the same marl-coop eval writes it anew" in capsys.readouterr().err


def test_the_warm_up_of_each_experiment_is_a_seed_of_its_own(tmp_path, capsys):
    battery = Battery.model_validate({"episodes": 4, "floor": None, "conditions": [{"name": "x"}]})
    for seed, quick in ((3, SILENT), (5, Seating(("scripted:averager",)))):  # nobody loads a model here
        config = load_config([ROOT / "configs/examples/design_review.yaml"], [f"seed={seed}"])
        plan = make_plan(battery, [find_team("warm")], config, "battery.yaml")
        matches = [replace(match, seating=quick) if match.who == "warm" else match for match in plan.matches]
        play_battery(replace(plan, matches=matches), tmp_path / f"seed-{seed}")
    assert cli.main(["compare", str(tmp_path / "seed-3"), str(tmp_path / "seed-5"), "--reference", "warm"]) == 0
    assert "too few seeds" in (out := " ".join(capsys.readouterr().out.lower().split())) and "warm (2)" in out
