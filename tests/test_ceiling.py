"""The ceiling: ideal players on the tasks of some episodes, and the table that shows it."""

from dataclasses import replace

from test_metrics import ends

import envs
from envs.core.seeds import Stream, task_seed
from envs.scripted.exploits import Silent
from envs.scripted.handover import NoteTaker
from envs.scripted.play import play
from marl_coop.config.schema import load_config
from marl_coop.evaluation.ceiling import ceiling
from marl_coop.evaluation.evaluate import COLUMNS, before_and_after, rows, table
from rewards.metrics import measure


def played(env, partner, seeds):
    return [play(env, dict.fromkeys(env.seats, partner), seed) for seed in seeds]


def test_the_ceiling_of_the_quickstart():
    config = load_config(["configs/quickstart.yaml"])
    env = config.make_env(**config.evaluation.env)
    tasks = []
    for seed in (task_seed(Stream.EVALUATION, 0, i) for i in range(200)):
        env.reset(seed=seed)
        tasks.append(replace(ends("ab", "ab"), task=env.task))
    metrics = measure(ceiling(env, tasks))
    assert (round(metrics["success"].value, 2), round(metrics["j"].value, 3)) == (0.86, 0.912)


def test_the_ceiling_plays_the_same_tasks_in_the_same_order():
    env = envs.DesignReview()
    silent = played(env, Silent(), range(12))
    ideal = ceiling(env, silent)
    assert [episode.task for episode in ideal] == [episode.task for episode in silent]
    assert measure(ideal)["cr_as_expert"].value == 0.0
    assert measure(ideal)["success"].value > measure(silent)["success"].value


def test_the_ideal_partner_is_the_environments_own():
    env = envs.Handover()
    record = played(env, NoteTaker(0.5), range(2))
    assert [episode.outcome.success for episode in ceiling(env, record)] == [True, True]


def test_the_table_has_the_ceiling_where_it_is_known():
    before, after, ideal = [ends("ab", "bb")] * 3, [ends("ab", "ab")] * 3, [ends("ab", "aa")] * 3
    known, unknown = before_and_after(before, after, ideal), before_and_after(before, after)
    at = {row[0]: row[COLUMNS.index("ceiling")] for row in rows(known)}
    assert (at["CDR"], at["CR"]) == ("1.00", "0.00")
    assert "CR as novice" not in at  # nobody was in its case
    assert {row[COLUMNS.index("ceiling")] for row in rows(unknown)} == {""}
    assert [column.header for column in table(known, "title").columns] == list(COLUMNS)


def test_below_the_table_is_what_its_rows_mean_and_no_others():
    results = before_and_after([ends("ab", "bb")], [ends("ab", "ab")])
    shown = {row[0] for row in rows(results)}
    assert {"CDR", "J of answers"} & shown == {"CDR"}
    caption = str(table(results, "title").caption)
    assert "CDR: " in caption and "J of answers: " not in caption
    results["after"]["j_answered"] = results["after"]["j"]
    assert "J of answers: " in str(table(results, "title").caption)


def test_beside_a_partner_the_table_is_of_the_learners_seat_in_the_ceiling_too():
    players = {"agent_0": "partner", "agent_1": "x"}
    before, after = ([replace(ends("ab", held), players=players)] * 3 for held in ("bb", "ba"))
    results = before_and_after(before, after, [ends("ab", "bb")] * 3, ["x"])
    assert [results[side]["cdr"].value for side in ("before", "after", "change", "ceiling")] == [0, 1, 1, 0]
    assert not any("cr" in found for found in results.values())  # the partner alone was told right


def test_the_table_leaves_out_what_is_defined_on_no_side_and_has_the_utility():
    env = envs.Handover(confidences=False)
    before, after = played(env, NoteTaker(0.5), range(4)), played(env, NoteTaker(), range(4))
    results = before_and_after(before, after)
    lines = {row[0]: row[1:] for row in rows(results)}
    assert lines["utility"][0].startswith("0.")
    assert not any(words[0] == words[1] == "not defined" for words in lines.values())
    assert "J = CDR - CR" not in lines
    assert all(metric.value is not None for found in results.values() for metric in found.values())
    assert not {"brier", "ece", "auroc"} & results["after"].keys()
    asked = [replace(episode, confidences=True) for episode in after]
    assert {"brier", "ece"} <= before_and_after(asked, asked)["after"].keys()
