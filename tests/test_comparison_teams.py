"""The teams of an evaluation beside each other, by condition and by the method that each is a seed of."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from envs.design_review import DesignReview
from envs.paired_functions import PairedFunctions
from envs.scripted.play import play
from envs.scripted.registry import find_partner
from marl_coop import cli
from marl_coop.config.battery import Battery
from marl_coop.config.schema import load_config
from marl_coop.evaluation.comparison import compare_methods
from marl_coop.evaluation.evaluated import Evaluated, read_evaluated
from marl_coop.evaluation.seating import Seating
from marl_coop.experiment.battery import play_battery
from marl_coop.experiment.plan import make_plan
from marl_coop.experiment.teams import find_team
from marl_coop.runs import rundir
from marl_coop.runs.checkpoints import CRITICS
from marl_coop.runs.rundir import RunError

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


def played(env, partner: str, method: str, seeds=range(16)) -> Evaluated:
    episodes = [play(env, dict.fromkeys(env.seats, find_partner(partner, env)), seed) for seed in seeds]
    by_task = {episode.task.id: episode for episode in episodes}
    return Evaluated(place=method, method=method, seed=0, condition="x", episodes=by_task)


@pytest.mark.parametrize("environment", [DesignReview, PairedFunctions])
def test_one_agent_alone_is_compared_with_a_team_on_the_same_problems(environment):
    team = played(environment(), "silent", "team")
    alone = played(environment(agents=1), "ideal", "alone")
    (found,) = compare_methods([team, alone], metrics=("success", "j"))
    value = {(row.method, row.than): row.value for row in found.rows if row.metric == "success"}
    by_hand = [np.mean([e.outcome.success for e in side.episodes.values()]) for side in (team, alone)]
    assert by_hand[1] > by_hand[0]
    assert [value["team", None], value["alone", None]] == pytest.approx(by_hand)
    assert value["alone", "team"] == pytest.approx(by_hand[1] - by_hand[0])
    of_j = {(row.method, row.than) for row in found.rows if row.metric == "j"}
    assert of_j <= {("team", None)}, "one agent is in conflict with nobody"


def test_one_agent_alone_is_not_compared_with_a_team_that_had_other_problems():
    team, alone = played(DesignReview(), "ideal", "team"), played(DesignReview(agents=1), "ideal", "alone")
    task, episode = next(iter(alone.episodes.items()))
    (decision,) = episode.task.decisions
    other = replace(episode.task, decisions=(replace(decision, options=(*decision.options, "another")),))
    changed = replace(alone, episodes={**alone.episodes, task: replace(episode, task=other)})
    for sides in ([team, changed], [changed, team]):
        with pytest.raises(RunError, match=f"{task!r} has another content"):
            compare_methods(sides)
    with pytest.raises(RunError, match="has another content"):
        compare_methods([alone, team, played(DesignReview(agents=3), "ideal", "three")])


def test_tasks_are_the_same_where_older_records_do_not_say_what_sources_are_called():
    def older(episode):
        (decision,) = episode.task.decisions
        return replace(episode, task=replace(episode.task, decisions=(replace(decision, source={}),)))

    now, then = played(DesignReview(), "ideal", "now"), played(DesignReview(), "ideal", "then")
    then = replace(then, episodes={task: older(episode) for task, episode in then.episodes.items()})
    assert now.episodes != then.episodes
    (found,) = compare_methods([now, then], metrics=("success",))
    assert found.tasks == 16


def test_of_several_methods_those_that_are_named_are_compared(tmp_path, capsys):
    battery = tmp_path / "battery.yaml"
    battery.write_text("episodes: 4\nfloor: scripted:silent\nconditions:\n  - {name: x}\n")
    words = ["eval", "scripted:averager", "--battery", str(battery), "--config", "configs/examples/design_review.yaml"]
    assert cli.main([*words, "--output", str(tmp_path / "out")]) == 0
    capsys.readouterr()
    compare = ["compare", str(tmp_path / "out"), "--methods", "scripted:ideal"]
    assert cli.main([*compare, "scripted:averager"]) == 0
    out = capsys.readouterr().out
    assert "scripted:ideal" in out and "scripted:averager" in out and "scripted:silent" not in out
    assert cli.main([*compare, "scripted:avreager"]) == 2
    assert "there is no method 'scripted:avreager'; there are scripted:averager, scripted" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        cli.main([*compare, "--conditions"])
    assert "--methods names methods, and --conditions compares none" in capsys.readouterr().err
