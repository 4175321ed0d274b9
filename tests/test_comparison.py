"""Methods beside each other: what is compared, over tasks and over seeds, and what is refused."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from envs.core.episode import StopReason
from envs.design_review import DesignReview
from envs.scripted.play import play
from envs.scripted.registry import find_partner
from marl_coop import cli
from marl_coop.evaluation.comparison import compare_methods, passed_over, speaks_of
from marl_coop.evaluation.comparison_tables import SHOWN, summary, write
from marl_coop.evaluation.evaluated import AFTER_TRAINING, Evaluated, read_evaluated
from marl_coop.runs import rundir
from marl_coop.runs.records import write_episodes
from marl_coop.runs.rundir import RunError
from rewards.metrics import METRICS, across_seeds, compare, measure, of_seats, rates
from rewards.metrics.across_seeds import improvement, iqm

TASKS = range(32)
ENV = DesignReview()


def played(partner: str, tasks=TASKS, env=ENV, other: str | None = None, otherwise=frozenset()):
    """The episodes of a scripted partner in all seats; `other` plays the tasks `otherwise` in its place."""
    found = []
    for seed in tasks:
        name = other if other and seed in otherwise else partner
        found.append(play(env, dict.fromkeys(env.seats, find_partner(name, env)), seed))
    return found


def by_task(episodes):
    return {episode.task.id: episode for episode in episodes}


def evaluated(method, seed, episodes, **fields) -> Evaluated:
    place = f"runs/{method}-{seed}"
    fields = {"condition": AFTER_TRAINING} | fields
    return Evaluated(place=place, method=method, seed=seed, episodes=by_task(episodes), **fields)


def run(folder, name, seed, episodes):
    """A finished run as far as a comparison reads it."""
    folder.mkdir(parents=True)
    rundir.record_start(folder, name, "{}", seed)
    write_episodes(folder / "after.jsonl", episodes)
    return str(folder)


@pytest.fixture(scope="module")
def ideal():
    return played("ideal")


@pytest.fixture(scope="module")
def silent():
    return played("silent")


def some(*names):
    return {name: METRICS[name] for name in names}


def mixed(*tasks):
    """A method that plays like `ideal`, but for some tasks."""
    return played("ideal", other="silent", otherwise=frozenset(tasks))


# ------------------------------------------------------------------------------------------------------ the arithmetic


def test_point_values_are_those_of_rliable():
    scores = np.random.default_rng(0).normal(size=(4, 4))
    assert iqm(scores.ravel(), np.ones(16)) == pytest.approx(-0.24270241014195335)  # by rliable 1.2.0
    of_each = improvement(scores.T + 0.3, scores.T, np.ones(4), np.ones(4))
    assert of_each.mean() == pytest.approx(0.671875)  # the same, as a mean over its four tasks


def test_of_few_tasks_in_many_families_the_value_lies_well_within_its_interval():
    """13 families of one task or two, which had pseudo-cases each: 0.81 of [0.46, 0.77] was said."""
    tasks = played("ideal", range(24))
    families = {f"family {seed % 13}" for seed in range(24)}
    assert len(families) == 13
    runs = []
    for first in range(5):  # seeds, each of which fails at another fifth of the tasks
        failed = range(first, 24, 5)
        found = [
            replace(
                episode,
                task=replace(episode.task, family=f"family {i % 13}"),
                outcome=replace(episode.outcome, success=i not in failed),
            )
            for i, episode in enumerate(tasks)
        ]
        runs.append(by_task(found))
    score = across_seeds({"a": runs}, "a", some("success"))["success"]["a"].score
    assert score.value == pytest.approx(19 / 24)  # 4 of the runs fail at 5 tasks and one at 4: the middle ones
    low, high = score.value - score.low, score.high - score.value
    assert 0.05 < low < 0.25 and 0.05 < high < 0.25


def test_a_method_scores_by_the_metric_over_all_tasks_of_a_run(ideal):
    """As every other table has it: not by families, of which a small one would count as much as a large one."""
    runs = [by_task(mixed(*tasks)) for tasks in ((0, 1), (2, 3, 4), (5,), (6, 7))]
    values = sorted(rates([*run.values()])["j"] or 0.0 for run in runs)
    score = across_seeds({"a": runs}, "a", some("j"))["j"]["a"].score
    assert score.value == pytest.approx(sum(values[1:3]) / 2)


def test_a_weight_of_two_is_a_cell_twice():
    values = np.array([3.0, 1.0, 2.0, 7.0, 5.0])
    assert iqm(values, np.array([1.0, 1, 2, 1, 1])) == pytest.approx(iqm(np.array([3.0, 1, 2, 2, 7, 5]), np.ones(6)))


def test_a_method_that_is_the_reference_again_is_not_told_apart(ideal, silent):
    methods = {"one": [by_task(ideal), by_task(silent)], "same": [by_task(ideal), by_task(silent)]}
    same = across_seeds(methods, "one", some("success"))["success"]["same"]
    assert same.difference.value == 0 and same.difference.low < 0 < same.difference.high
    assert same.improvement.value == 0.5


def test_better_where_less_is_better_is_an_improvement(ideal, silent):
    methods = {"silent": [by_task(silent)] * 3, "ideal": [by_task(ideal)] * 3}
    found = across_seeds(methods, "silent", some("silence_rate", "j", "cr"))
    assert METRICS["silence_rate"].direction == -1 and METRICS["j"].direction == 1 and METRICS["cr"].direction == 0
    assert found["silence_rate"]["ideal"].difference.value < 0 and found["silence_rate"]["ideal"].improvement.value == 1
    assert found["j"]["ideal"].difference.value > 0 and found["j"]["ideal"].improvement.value > 0.5
    assert found["cr"]["ideal"].improvement is None


def test_seeds_that_differ_widen_the_interval(ideal, silent):
    alike = {"a": [by_task(mixed(0, 1, 2, 3))] * 3}
    apart = {"a": [by_task(ideal), by_task(mixed(0, 1, 2, 3)), by_task(silent)]}
    narrow, wide = (across_seeds(methods, "a", some("success"))["success"]["a"].score for methods in (alike, apart))
    assert wide.high - wide.low > 1.2 * (narrow.high - narrow.low)


def test_tasks_are_paired_across_methods(ideal):
    one = [by_task(ideal)] * 2
    other = [by_task(mixed(0, 1, 2, 3, 4, 5))] * 2
    scores = across_seeds({"one": one, "other": other}, "one", some("success"))["success"]["other"]
    width = scores.difference.high - scores.difference.low
    assert width < 0.8 * (scores.score.high - scores.score.low) * 2**0.5  # unpaired they would add up


def test_a_task_that_the_sandbox_spoiled_in_one_run_is_left_out_of_all(ideal):
    solved = next(episode.task.id for episode in ideal if episode.outcome.success)
    sound = by_task(ideal)
    faulted = sound | {solved: replace(sound[solved], stop_reason=StopReason.SANDBOX_FAULT)}
    without = {task: episode for task, episode in sound.items() if task != solved}
    metrics = some("success", "sandbox_fault_rate")
    found = across_seeds({"a": [sound, sound], "b": [sound, faulted]}, "a", metrics)
    left = across_seeds({"a": [without, without]}, "a", metrics)
    assert found["success"]["a"].score == left["success"]["a"].score
    assert found["sandbox_fault_rate"]["b"].score.value == pytest.approx(0.5 / len(sound))


def test_a_metric_that_is_not_defined_in_one_run_is_left_out(ideal):
    failed = [replace(episode, outcome=replace(episode.outcome, success=False)) for episode in ideal]
    runs = {"a": [by_task(ideal)], "b": [by_task(ideal), by_task(failed)]}
    assert not across_seeds(runs, "a", some("generated_tokens_per_solved"))
    assert across_seeds({"a": runs["a"]}, "a", some("generated_tokens_per_solved"))


def test_runs_with_other_tasks_are_refused(ideal):
    with pytest.raises(ValueError, match="same tasks"):
        across_seeds({"a": [by_task(ideal)], "b": [by_task(ideal[1:])]}, "a")


# ------------------------------------------------------------------------------------------------- what is compared


def test_one_seed_speaks_of_a_checkpoint_by_paired_differences(ideal, silent):
    (found,) = compare_methods([evaluated("a", 0, silent), evaluated("b", 0, ideal)])
    assert not found.of_methods and "speaks of a checkpoint and not of a method" in speaks_of(found)
    row = next(row for row in found.rows if row.than == "a" and row.metric == "success")
    expected = compare(silent, ideal)["success"]
    assert (row.value, row.low, row.high, row.n) == (expected.value, expected.low, expected.high, len(TASKS))
    assert row.method == "b" and row.improvement is None and row.verdict == "higher"


@pytest.mark.parametrize(("seeds", "few"), [(2, True), (5, False)])
def test_several_seeds_speak_of_methods_if_there_are_enough(ideal, silent, seeds, few):
    runs = [evaluated(name, seed, side) for name, side in (("a", silent), ("b", ideal)) for seed in range(seeds)]
    (found,) = compare_methods(runs)
    assert found.of_methods and found.seeds == {"a": list(range(seeds)), "b": list(range(seeds))}
    assert ("too few" in speaks_of(found).lower()) == few
    row = next(row for row in found.rows if row.than == "a" and row.metric == "success")
    assert row.improvement is not None and row.improvement[0] > 0.5 and row.seeds == seeds


def test_the_metric_of_each_seed_stands_beside_that_of_the_method(ideal, silent):
    seeds = [evaluated("a", seed, side) for seed, side in enumerate((silent, mixed(5), mixed(9)))]
    (found,) = compare_methods([*seeds, evaluated("b", 0, ideal)], "b")
    rows = {(row.method, row.than): row for row in found.rows if row.metric == "success"}
    expected = [measure(side)["success"].value for side in (silent, mixed(5), mixed(9))]
    assert list(rows["a", None].of_seeds) == expected and len(set(expected)) == 3
    assert rows["a", "b"].of_seeds == ()


def test_an_interval_does_not_depend_on_who_else_is_compared(ideal, silent):
    sides = {"a": [silent, mixed(5)], "b": [ideal, mixed(9)], "c": [mixed(5), mixed(9)]}
    runs = {name: [by_task(side) for side in of_method] for name, of_method in sides.items()}
    alone = across_seeds({name: runs[name] for name in "ab"}, "a", {"success": METRICS["success"]})["success"]["b"]
    beside = across_seeds({name: runs[name] for name in "cba"}, "a", {"success": METRICS["success"]})["success"]["b"]
    assert alone == beside


def test_what_cannot_be_told_apart_is_said(ideal):
    (found,) = compare_methods([evaluated("a", 0, ideal), evaluated("b", 0, mixed(3))])
    assert summary(found, "success") == "not told apart from a by success: b"
    assert summary(found, "memory_recall").startswith("memory_recall has no case")


def test_the_reference_can_be_named(ideal, silent):
    runs = [evaluated("a", 0, silent), evaluated("b", 0, ideal)]
    (found,) = compare_methods(runs, "b")
    assert found.reference == "b" and {row.method for row in found.rows if row.than} == {"a"}
    with pytest.raises(RunError, match="there is no method 'c'; there are a, b"):
        compare_methods(runs, "c")


def test_conditions_are_compared_each_by_itself(ideal, silent):
    runs = [evaluated(name, None, side, condition=c) for c in "xy" for name, side in (("a", silent), ("b", ideal))]
    assert [one.condition for one in compare_methods([*runs, evaluated("b", None, ideal, condition="z")])] == ["x", "y"]


def test_a_team_in_one_seat_is_judged_by_that_seat(ideal, silent):
    sides = [evaluated(name, None, side, beside_partners=True) for name, side in (("a", silent), ("b", ideal))]
    (found,) = compare_methods(sides)
    (whole,) = compare_methods([replace(side, beside_partners=False) for side in sides])
    assert {row.n for row in found.rows if row.metric == "prior_as_told"} != {
        row.n for row in whole.rows if row.metric == "prior_as_told"
    }


def test_runs_that_do_not_train_the_same_seats_are_compared_by_those_that_all_train():
    def trained(method, seed, episodes, *learners):
        players = {seat: seat if seat in learners else "base" for seat in ENV.seats}
        return evaluated(method, seed, [replace(e, players=players) for e in episodes], learners=learners)

    sides = [trained("one", 0, played("ideal"), "agent_0"), trained("both", 0, played("silent"), *ENV.seats)]
    (found,) = compare_methods(sides)
    assert "Not all train the same seats" in speaks_of(found)
    rows = {(row.method, row.than, row.metric): row for row in found.rows}
    for side, episodes in zip(("one", "both"), (played("ideal"), played("silent")), strict=True):
        mine = measure(episodes, of_seats(lambda episode: ["agent_0"]))
        for name in ("cdr", "cr", "j", "parse_rate"):
            assert (rows[side, None, name].value, rows[side, None, name].n) == (mine[name].value, mine[name].n)
    (alike,) = compare_methods([sides[1], trained("other", 0, played("ideal"), *ENV.seats)])
    assert "Not all" not in speaks_of(alike)


# --------------------------------------------------------------------------------------------------- what is refused


def test_other_tasks_are_refused_by_name_and_number(ideal):
    with pytest.raises(RunError, match=r"'runs/a-0' and 'runs/b-0' .* 32 and 31, of which 31 are in both; not in both"):
        compare_methods([evaluated("a", 0, ideal), evaluated("b", 0, ideal[1:])])


def test_a_task_of_the_same_name_with_another_content_is_refused(ideal):
    first = replace(ideal[0], task=replace(ideal[0].task, briefs={seat: "other" for seat in ENV.seats}))
    with pytest.raises(RunError, match=f"{ideal[0].task.id!r} has another content"):
        compare_methods([evaluated("a", 0, ideal), evaluated("b", 0, [first, *ideal[1:]])])


def test_a_seed_that_is_there_twice_is_refused_unless_it_did_the_same(ideal, silent):
    with pytest.raises(RunError, match="both 'a' with seed 0"):
        compare_methods([evaluated("a", 0, ideal), evaluated("a", 0, silent), evaluated("b", 0, ideal)])
    (found,) = compare_methods([evaluated("a", 0, ideal), evaluated("a", 0, ideal), evaluated("b", 0, silent)])
    assert found.seeds == {"a": [0], "b": [0]}


def test_a_team_in_two_evaluations_is_one_whatever_its_folder_was_called_and_of_other_tasks_that_is_said(ideal, silent):
    moved = [replace(episode, players=dict.fromkeys(episode.seats, "frozen_elsewhere")) for episode in ideal]
    (found,) = compare_methods([evaluated("a", 0, ideal), evaluated("a", 0, moved), evaluated("b", 0, silent)])
    assert found.seeds == {"a": [0], "b": [0]}
    with pytest.raises(RunError, match="were not evaluated on the same tasks: 32 and 31"):
        compare_methods([evaluated("base", None, ideal), evaluated("base", None, ideal[1:]), evaluated("b", 0, silent)])


def test_one_method_alone_is_nothing_to_compare(ideal):
    with pytest.raises(RunError, match="nothing to compare: all of these are seeds of one method, 'a'"):
        compare_methods([evaluated("a", 0, ideal), evaluated("a", 1, ideal)])


def test_a_condition_with_nothing_to_compare_is_told(ideal, silent):
    alone = evaluated("a", 0, ideal, condition="alone")
    sides = [evaluated("a", 0, ideal, condition="both"), evaluated("b", 0, silent, condition="both"), alone]
    assert passed_over(sides, compare_methods(sides)) == ["not compared: alone, where only a was evaluated"]
    more = [*sides, evaluated("c", 0, silent, condition="alone")]
    assert passed_over(more, compare_methods(more)) == []
    told = ["not compared: alone, where only a, c were evaluated"]
    assert passed_over(more, compare_methods(more, reference="b")) == told


def test_a_folder_without_an_evaluation_is_refused(tmp_path, capsys):
    rundir.record_start(tmp_path, "a", "{}", 0)
    assert cli.main(["compare", str(tmp_path)]) == 2
    assert "has not been evaluated after training" in capsys.readouterr().err
    (tmp_path / "other").mkdir()
    assert cli.main(["compare", str(tmp_path / "other")]) == 2
    assert "neither a run nor an evaluation" in capsys.readouterr().err
    empty = [run(tmp_path / name, name, 0, []) for name in ("one", "two")]
    assert cli.main(["compare", *empty]) == 2
    assert "after.jsonl' has no episodes to compare" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------ the command


def test_runs_of_one_recorded_name_are_seeds_of_one_method(tmp_path, capsys, ideal, silent):
    places = [run(tmp_path / f"a{seed}", "a", seed, silent) for seed in (0, 1)]
    places += [run(tmp_path / f"b{seed}", "b", seed, ideal) for seed in (0, 1)]
    assert cli.main(["compare", *places, "--output", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert "after training: 32 tasks" in out and "minus a" in out and "higher" in out
    (content,) = json.loads((tmp_path / "out/comparison.json").read_text())
    assert content["seeds"] == {"a": [0, 1], "b": [0, 1]} and content["speaks_of"]
    with (tmp_path / "out/comparison.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(content["rows"])
    assert [len(row["of_seeds"].split()) for row in rows] == [0 if row["than"] else 2 for row in rows]
    assert {row["verdict"] for row in rows if row["than"] == "a"} <= {"higher", "lower", "not told apart"}
    assert (tmp_path / "out/comparison-after_training.png").stat().st_size > 1000


def test_a_comparison_is_by_the_metrics_that_are_named(tmp_path, capsys, ideal, silent):
    places = [run(tmp_path / name, name, 0, side) for name, side in (("a", silent), ("b", ideal))]
    words = ["compare", *places, "--output", str(tmp_path / "out"), "--metrics", "gap_to_expert", "resistance"]
    assert cli.main(words) == 0
    out = capsys.readouterr().out
    assert "gap_to_expert" in out and "success" not in out
    (content,) = json.loads((tmp_path / "out/comparison.json").read_text())
    assert {row["metric"] for row in content["rows"]} == {"gap_to_expert", "resistance"}
    with pytest.raises(SystemExit, match="2"):
        cli.main(["compare", *places, "--metrics", "gap_to_expret"])
    assert "there is no metric 'gap_to_expret'. Did you mean 'gap_to_expert'?" in capsys.readouterr().err


def test_no_interval_is_broken_into_lines(tmp_path, capsys, monkeypatch, ideal, silent):
    monkeypatch.setenv("COLUMNS", "40")
    places = [
        run(tmp_path / name, f"a_rather_long_name_of_{name}", 0, side) for name, side in (("a", silent), ("b", ideal))
    ]
    assert cli.main(["compare", *places]) == 0
    out = capsys.readouterr().out
    found = compare_methods([one for place in places for one in read_evaluated(Path(place))])
    shown = [row for row in found[0].rows if row.metric in SHOWN]
    assert len(shown) == 3 * len(SHOWN)
    for row in shown:
        assert f"[{row.low:.2f}, {row.high:.2f}] of {row.n}" in out


def test_plots_of_an_earlier_comparison_do_not_stay(tmp_path, ideal, silent):
    of_conditions = {
        name: [evaluated("a", 0, ideal, condition=name), evaluated("b", 0, silent, condition=name)] for name in "xy"
    }
    write(compare_methods([*of_conditions["x"], *of_conditions["y"]]), tmp_path)
    (tmp_path / "comparison-mine.png").touch()
    write(compare_methods(of_conditions["y"]), tmp_path)
    assert {file.name for file in tmp_path.glob("*.png")} == {"comparison-y.png", "comparison-mine.png"}


def test_names_with_brackets_and_colons_are_shown_as_they_are(tmp_path, capsys):
    for name, partner in (("[/INST] :key:", "ideal"), ("[red]b[/red]", "silent")):
        (tmp_path / partner).mkdir()
        rundir.record_start(tmp_path / partner, name, "{}", 0)
        write_episodes(tmp_path / partner / "after.jsonl", played(partner, range(3)))
    assert cli.main(["compare", str(tmp_path / "ideal"), str(tmp_path / "silent")]) == 0
    said = capsys.readouterr().out
    assert "minus [/INST] :key:" in said and "[red]b[/red]" in said
