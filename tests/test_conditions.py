"""What conditions change, over the seeds of a method."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from envs.design_review import DesignReview
from envs.scripted.play import play
from envs.scripted.registry import find_partner
from marl_coop import cli
from marl_coop.config.battery import Battery
from marl_coop.config.schema import load_config
from marl_coop.evaluation.comparison import OF_ONE_SEAT
from marl_coop.evaluation.evaluated import read_evaluation
from marl_coop.evaluation.seating import Seating
from marl_coop.experiment.battery import play_battery
from marl_coop.experiment.plan import make_plan
from marl_coop.experiment.teams import find_team
from marl_coop.runs import rundir
from marl_coop.runs.checkpoints import CRITICS
from rewards.metrics import METRICS, across_seeds, change_across_seeds, rates

ROOT = Path(__file__).parents[1]
SUCCESS = {"success": METRICS["success"]}
TASKS, SEEDS = 12, (3, 5, 8)
CONDITIONS = [
    {"name": "plain"},
    {"name": "hidden", "env": {"expert": "hidden"}, "against": "plain"},
    {"name": "cross_play", "partner": "others", "against": "plain"},
    {"name": "prompt", "team": "warm", "advice": "Look at the source.", "against": "plain"},
]


def solving(*tasks: int):
    """By task, plays of four tasks of which some are solved."""
    env = DesignReview()
    ideal = play(env, dict.fromkeys(env.seats, find_partner("ideal", env)), 0)
    outcomes = {task: replace(ideal.outcome, success=task in tasks) for task in range(4)}
    return {str(task): [replace(ideal, outcome=outcome)] for task, outcome in outcomes.items()}


# ------------------------------------------------------------------------------------------------------ the arithmetic


def test_seeds_that_each_solve_one_more_of_four_change_by_a_quarter_however_much_they_differ():
    before, after = (
        [solving(0), solving(0, 1), solving(0, 1, 2)],
        [solving(0, 1), solving(0, 1, 2), solving(0, 1, 2, 3)],
    )
    change = change_across_seeds(before, after, SUCCESS)["success"]
    assert change.difference.value == 0.25 and change.of_seeds == (0.25, 0.25, 0.25) and change.difference.seeds == 3
    of_methods = {
        name: [{task: plays[0] for task, plays in run.items()} for run in runs]
        for name, runs in (("before", before), ("after", after))
    }
    apart = across_seeds(of_methods, "before", SUCCESS)["success"]["after"].difference
    assert change.difference.high - change.difference.low < 0.9 * (apart.high - apart.low)


def test_several_plays_of_a_task_count_as_many():
    twice = {task: [*plays, *solving()[task]] for task, plays in solving(0, 1, 2, 3).items()}
    assert change_across_seeds([solving()], [twice], SUCCESS)["success"].of_seeds == (0.5,)


def test_sides_with_other_tasks_are_refused():
    fewer = {task: plays for task, plays in solving().items() if task != "3"}
    with pytest.raises(ValueError, match="same tasks"):
        change_across_seeds([solving()], [fewer], SUCCESS)
    with pytest.raises(ValueError, match="both sides"):
        change_across_seeds([solving(), solving()], [solving()], SUCCESS)


# --------------------------------------------------------------------------------------------------------- the command


def evaluate(folder: Path, conditions=CONDITIONS, seeds=SEEDS, recorded: int | None = None) -> Path:
    """An evaluation of seeds of a method, each of which is played by a scripted partner: nobody loads a model here.
    `recorded` is what its run says to be the seed, where that is not the one in its folder's name."""
    config = load_config([ROOT / "configs/examples/design_review.yaml"])
    teams = []
    for seed in seeds:
        run = folder / f"seed-{seed}"
        run.mkdir(parents=True)
        rundir.record_start(run, "mine", config.to_yaml(), seed if recorded is None else recorded)
        (run / CRITICS).touch()
        for seat in config.make_env().seats:
            (run / seat).mkdir()
            (run / seat / "adapter_config.json").touch()
        teams.append(find_team(str(run)))
    battery = Battery.model_validate({"episodes": TASKS, "floor": None, "conditions": conditions})
    plan = make_plan(battery, teams, config, "battery.yaml")
    play_battery(replace(plan, matches=[scripted(match) for match in plan.matches]), folder / "out")
    return folder / "out"


def scripted(match):
    """The first seed is ideal and the others average; beside a partner, who is silent, or told nothing, all do."""
    name = "ideal" if match.who.endswith("seed-3") and match.condition == "plain" else "averager"
    partner = ("scripted:silent",) if match.seating.partner else None
    return replace(match, seating=Seating((f"scripted:{name}",), partner=partner))


@pytest.fixture(scope="module")
def played(tmp_path_factory) -> Path:
    return evaluate(tmp_path_factory.mktemp("evaluation"))


def test_each_condition_minus_the_one_that_it_is_against_over_the_seeds_of_a_method(played, tmp_path, capsys):
    assert cli.main(["compare", str(played), "--conditions", "--output", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "mine\n" in out and "Too few seeds" in out
    rows = json.loads((tmp_path / "conditions.json").read_text())
    found = {(row["condition"], row["than_condition"], row["metric"]): row for row in rows if row["method"] == "mine"}
    assert {key[:2] for key in found} == {("hidden", "plain"), ("cross_play:mine", "plain"), ("plain", "prompt")}
    _, teams = read_evaluation(played)
    runs = [str(played.parent / f"seed-{seed}") for seed in SEEDS]

    def success(who, condition):
        return rates([*teams[who, condition].episodes.values()], SUCCESS)["success"]

    hidden = found["hidden", "plain", "success"]
    assert hidden["seeds"] == [*SEEDS] and hidden["tasks"] == TASKS
    assert hidden["of_seeds"] == pytest.approx([success(who, "hidden") - success(who, "plain") for who in runs])
    assert len({*hidden["of_seeds"]}) > 1
    prompt = found["plain", "prompt", "success"]
    assert prompt["than_method"] == "warm" and prompt["seeds"] == [*SEEDS]
    assert prompt["of_seeds"] == pytest.approx([success(who, "plain") - success("warm", "prompt") for who in runs])
    with (tmp_path / "conditions.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == len(rows)


def test_beside_strangers_all_partners_of_a_method_count_and_one_seat_is_judged(played, tmp_path):
    assert (
        cli.main(["compare", str(played), "--conditions", "--metrics", "parse_rate", "cr", "--output", str(tmp_path)])
        == 0
    )
    rows = json.loads((tmp_path / "conditions.json").read_text())
    (row,) = [r for r in rows if (r["method"], r["condition"], r["metric"]) == ("mine", "cross_play:mine", "cr")]
    _, teams = read_evaluation(played)
    one_seat = {"cr": OF_ONE_SEAT["cr"]}
    for seed, change in zip(SEEDS, row["of_seeds"], strict=True):
        who = str(played.parent / f"seed-{seed}")
        mine = [team for (name, condition), team in teams.items() if name == who and condition.startswith("cross_play")]
        assert len(mine) == len(SEEDS) - 1
        after = rates([episode for team in mine for episode in team.episodes.values()], one_seat)["cr"]
        assert change == pytest.approx(after - rates([*teams[who, "plain"].episodes.values()], one_seat)["cr"])


def test_what_cannot_be_compared_is_told(played, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["compare", str(played), "--conditions", "--reference", "mine"])
    assert "a battery says what is against" in capsys.readouterr().err
    assert cli.main(["compare", str(played.parent / "seed-3"), "--conditions"]) == 2
    assert "seed-3 is a run, which has no conditions: give the evaluation" in capsys.readouterr().err
    assert cli.main(["compare", str(played), "--conditions", "--metrics", "textual_conflict_rate"]) == 2
    assert "nothing to compare: textual_conflict_rate has no case on both sides" in capsys.readouterr().err
    alone = evaluate(tmp_path, conditions=[{"name": "plain"}], seeds=(3,))
    assert cli.main(["compare", str(alone), "--conditions"]) == 2
    assert "no condition of these evaluations is `against` another" in capsys.readouterr().err
    again = evaluate(tmp_path / "again", conditions=CONDITIONS[:2], seeds=(3,), recorded=5)
    assert cli.main(["compare", str(played), str(again), "--conditions"]) == 2
    assert "out' are both 'mine' with seed 5 in plain; leave one out" in capsys.readouterr().err


def test_conditions_of_one_name_with_other_tasks_are_not_taken_together(played, tmp_path, capsys):
    changed = [{"name": "plain", "env": {"expert": "revealed"}}, CONDITIONS[1]]
    other = evaluate(tmp_path, conditions=changed, seeds=(9,))
    assert cli.main(["compare", str(played), str(other), "--conditions"]) == 2
    assert "has another content in the second" in capsys.readouterr().err


def test_a_metric_that_has_no_case_on_a_side_is_told(tmp_path, capsys):
    conditions = [{"name": "plain"}, {"name": "alone", "env": {"agents": 1}, "against": "plain"}]
    assert cli.main(["compare", str(evaluate(tmp_path, conditions=conditions, seeds=(3,))), "--conditions"]) == 0
    assert "no case on both sides of every seed: j, cdr, cr of mine, alone minus plain" in capsys.readouterr().out


def test_each_seed_may_be_in_an_evaluation_of_its_own_where_a_team_that_is_in_all_counts_once(tmp_path):
    folders = [str(evaluate(tmp_path / str(seed), seeds=(seed,))) for seed in SEEDS]
    assert cli.main(["compare", *folders, "--conditions", "--output", str(tmp_path)]) == 0
    rows = json.loads((tmp_path / "conditions.json").read_text())
    seeds = {(row["method"], row["condition"]): row["seeds"] for row in rows}
    assert seeds["mine", "hidden"] == [*SEEDS] and seeds["scripted:ideal", "hidden"] == [None]
