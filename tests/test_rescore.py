"""What saved episodes would have earned under other rewards. No torch in here."""

import doctest
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import envs
from envs.core.episode import StopReason
from envs.scripted.base import Calibrated
from envs.scripted.exploits import NeverDefer
from envs.scripted.play import play
from marl_coop import cli
from marl_coop.config.schema import load_config
from marl_coop.evaluation import rescore as module
from marl_coop.evaluation.rescore import ALL, rescore
from marl_coop.runs import rundir
from marl_coop.runs.played import PlayedEpisode, saved_episodes
from marl_coop.runs.records import EpisodeRecord, write_episodes
from rewards import RewardStack, RewardTerm

ROOT = Path(__file__).parents[1]
SETTING = ["env.name=DesignReview", "name=rescored"]
HALF = {"task_success": {"weight": 0.5}, "deference": {"weight": 0.25}}


def episodes(partner, seeds):
    env = envs.make("DesignReview")
    players = dict(zip(env.seats, ("agent_0", "agent_1"), strict=True))
    return [replace(play(env, dict.fromkeys(env.seats, partner), seed), players=players) for seed in seeds]


def evaluated(episode):
    return PlayedEpisode(id="after:1", phase="after", record=EpisodeRecord(episode=episode))


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """The folder of a run whose weight of success rises from 0 to 1 in two updates."""
    folder = tmp_path_factory.mktemp("rescore") / "run"
    folder.mkdir()
    scheduled = "rewards.task_success.weight={schedule: linear, start: 0.0, end: 1.0, updates: 2}"
    config = load_config([ROOT / "configs/presets/task_only.yaml"], [*SETTING, scheduled])
    rundir.record_start(folder, "rescored", config.to_yaml(), seed=0)
    write_episodes(folder / "before.jsonl", episodes(NeverDefer(), range(6)))
    write_episodes(folder / "after.jsonl", episodes(Calibrated(), range(6)))
    for update in range(2):
        played = episodes(Calibrated(), range(10 * update, 10 * update + 4))
        stack = config.reward_stack.at(update)
        write_episodes(folder / "episodes" / f"update-{update + 1:04d}.0.jsonl", played, [*map(stack.score, played)])
    return folder


def changed(folder, *overrides):
    own = load_config([rundir.configuration_of(folder)])
    other = load_config([rundir.configuration_of(folder)], overrides)
    found = rescore(saved_episodes(folder), own.reward_stack, other.reward_stack, ("agent_0", "agent_1"))
    return {(change.part, change.term): change for change in found}


def test_the_worked_example():
    assert doctest.testmod(module).failed == 0


def test_the_same_rewards_pay_the_same(run):
    for change in changed(run).values():
        assert change.difference.value == 0.0 == change.difference.half
        assert change.earned == change.would_earn


def test_training_was_paid_by_the_weights_of_its_updates_and_would_be_by_those_of_the_others(run):
    saved = saved_episodes(run)
    assert [one.update for one in saved["training"]] == [1] * 4 + [2] * 4
    assert {one.update for part in ("before", "after") for one in saved[part]} == {None}
    found = changed(run, "rewards.task_success.weight=1.0")
    success = [one.record.episode.outcome.utility for one in saved["training"]]
    paid = sum(weight * utility for weight, utility in zip([0.0] * 4 + [0.5] * 4, success, strict=True)) / 8
    change = found["training", "task_success"]
    assert change.earned.value == pytest.approx(paid)
    assert change.would_earn.value == pytest.approx(sum(success) / 8)
    assert change.difference.value == pytest.approx(sum(success) / 8 - paid)
    assert found["after", "task_success"].difference.value == 0.0  # the schedule ends with 1.0


def test_a_term_that_paid_nothing_before_is_told_with_what_it_would_pay(run):
    found = changed(run, "rewards.deference.weight=0.25")
    change = found["after", "deference"]
    assert change.earned.value == 0.0 < change.would_earn.value
    assert found["after", ALL].difference.value == pytest.approx(change.difference.value)
    assert ("after", "pushback") not in found


def test_where_nothing_is_earned_the_sum_says_so():
    nothing = RewardStack.from_config({"task_success": {"weight": 0.0}})
    saved = {"after": [evaluated(one) for one in episodes(Calibrated(), range(2))]}
    (whole,) = rescore(saved, nothing, nothing, [])
    assert (whole.term, whole.earned.value, whole.would_earn.value, whole.n) == (ALL, 0.0, 0.0, 2)


def test_seats_that_do_not_learn_earn_nothing_here():
    played = [replace(e, players={"agent_0": "agent_0", "agent_1": "Echo"}) for e in episodes(NeverDefer(), range(8))]
    stack = RewardStack.from_config(HALF)
    saved = {"after": [*map(evaluated, played)]}
    total = rescore(saved, stack, stack, ["agent_0"])[-1]
    assert total.earned.value == pytest.approx(sum(stack.score(e).total("agent_0") for e in played) / 8)
    without = [replace(e, players=dict.fromkeys(e.seats, "Echo")) for e in played]
    mixed = {"after": [*saved["after"], *map(evaluated, without)]}  # by a mix in both seats, say
    assert rescore(mixed, stack, stack, ["agent_0"])[-1] == total


def test_what_the_machine_spoiled_counts_for_nothing():
    sound = episodes(Calibrated(), range(6))
    fault = replace(sound[0], stop_reason=StopReason.SANDBOX_FAULT)
    stack = RewardStack.from_config(HALF)
    kept, spoiled = (
        rescore({"after": [*map(evaluated, played)]}, stack, stack, ()) for played in (sound, [*sound, fault])
    )
    assert kept == spoiled


def test_the_command_prints_all_parts_uncut_and_writes_the_numbers(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    words = ["rescore", str(run), "--config", str(ROOT / "configs/presets/balanced.yaml")]
    assert cli.main([*words, "--output", str(tmp_path / "out.json")]) == 0
    said = capsys.readouterr().out
    for word in ("before (6)", "training (8)", "after (6)", "deference", ALL):
        assert word in said
    assert "…" not in said
    rows = json.loads((tmp_path / "out.json").read_text())
    assert {row["part"] for row in rows} == {"before", "training", "after"}
    assert rows[0]["difference"].keys() == {"value", "half"}


def test_rewards_that_change_nothing_are_one_line_and_no_table(run, capsys):
    assert cli.main(["rescore", str(run), "rewards.rework.weight=0"]) == 0  # nobody writes code here
    said = capsys.readouterr().out
    assert said == f"{run}: each of its episodes would have earned the same under these rewards, in each term\n"


def alone(folder):
    """Play the training episodes of a run alone too, as far as records say."""
    for file in (folder / "episodes").iterdir():
        records = [EpisodeRecord.from_json(line) for line in file.read_text().splitlines()]
        played = [r.episode for r in records]
        solo = [replace(e, outcome=replace(e.outcome, solo_utility=0.25)) for e in played]
        write_episodes(file, solo, [r.rewards for r in records])


def test_what_solo_gain_would_pay_is_not_said_of_tasks_that_nobody_played_alone(run, tmp_path, capsys):
    words = [str(tmp_path / "run"), "rewards.solo_gain.weight=1"]
    shutil.copytree(run, tmp_path / "run")
    assert cli.main(["rescore", *words]) == 2
    *_, error = capsys.readouterr().err.splitlines()
    assert "what solo_gain would pay is not known: these tasks were not played alone" in error
    alone(tmp_path / "run")
    assert cli.main(["rescore", *words, "--output", str(tmp_path / "out.json")]) == 0
    left_out = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in left_out] == [
        f"left out: {part}: 6 of 6 tasks were not played alone" for part in ("before", "after")
    ]
    rows = json.loads((tmp_path / "out.json").read_text())
    assert {row["part"] for row in rows} == {"training"}
    mean = sum(e.episode.outcome.utility for e in saved_episodes(run)["training"]) / 8
    (gain,) = [row["would_earn"]["value"] for row in rows if row["term"] == "solo_gain"]
    assert gain == pytest.approx(mean - 0.25)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "command line: give other rewards by --config FILE"),
        (["seed=3", "rewards.task_success.weight=1"], "seed: rescore takes other rewards and nothing else"),
        (["rewards.task_sucess.weight=1"], "Did you mean 'task_success'"),
    ],
)
def test_what_is_no_other_reward_is_one_line(run, capsys, words, said):
    assert cli.main(["rescore", str(run), *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and said in line


HELD = {"schedule": "dual_ascent", "start": 0.1, "rate": 0.01, "every": 1, "max": 0.5}


def priced(budget):
    charge = {"weight": HELD | {"budget": budget}, "free_tokens": 0, "budget_tokens": 40}
    return RewardStack.from_config({"task_success": {"weight": 1.0}, "communication": charge})


def trained_at(prices):
    """Two updates of a run whose price of talk was, as is on record, each of these."""
    saved = []
    for update, price in enumerate(prices, start=1):
        stack = priced(10.0).with_weights({"communication": price})
        for episode in episodes(Calibrated(), range(4)):
            record = EpisodeRecord(episode=episode, rewards=stack.score(episode))
            saved.append(PlayedEpisode(id="", phase="training", update=update, record=record))
    return {"before": [*map(evaluated, episodes(Calibrated(), range(4)))], "training": saved}


def test_a_price_that_held_a_budget_is_that_on_record():
    saved, own = trained_at([0.3, 0.4]), priced(10.0)
    success = RewardStack.from_config({"task_success": {"weight": 2.0}}).terms
    other = RewardStack((*success, own.terms[1]))
    found = {(one.part, one.term): one for one in rescore(saved, own, other, ())}
    for part in ("before", "training"):
        assert found[part, "communication"].earned.value < 0.0 == found[part, "communication"].difference.value
    unpriced = RewardStack((own.terms[1].model_copy(update={"weight": 1.0}),))
    (talk, _) = rescore({"before": saved["before"]}, unpriced, unpriced, ())
    assert found["training", "communication"].earned.value == pytest.approx(0.35 * talk.earned.value)
    assert found["before", "communication"].earned.value == pytest.approx(0.4 * talk.earned.value)  # the last update's


def test_a_price_for_another_budget_moves_by_what_the_episodes_spent():
    saved, own, other = trained_at([0.1, 0.1]), priced(10.0), priced(1.0)
    term = other.terms[1]
    spent = [term.spent(e, seat) for e in episodes(Calibrated(), range(4)) for seat in e.seats]
    second = 0.1 + 0.01 * (sum(spent) / len(spent) - 1.0)
    assert 0.1 < second < 0.5
    found = {(one.part, one.term): one for one in rescore(saved, own, other, ())}
    change = found["training", "communication"]
    assert change.would_earn.value == pytest.approx(change.earned.value * (0.1 + second) / 2 / 0.1)
    change = found["before", "communication"]
    assert change.would_earn.value == pytest.approx(change.earned.value * second / 0.1)


class Raises(RewardTerm):
    weight: float = 1.0

    def __call__(self, episode, agent):
        return [{}["nothing"]]


def test_a_term_that_raises_is_told_with_the_episode():
    stack = RewardStack((Raises(),))
    saved = {"after": [evaluated(one) for one in episodes(Calibrated(), range(2))]}
    with pytest.raises(ValueError, match="^after:1: KeyError: 'nothing'$"):
        rescore(saved, stack, stack, ())


def test_lines_that_are_no_episodes_are_told_and_the_others_scored(run, tmp_path, capsys):
    for name in ("run.json", "config.yaml", "before.jsonl", "after.jsonl"):
        (tmp_path / name).write_text((run / name).read_text())
    lines = (run / "after.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "after.jsonl").write_text("".join([lines[0], "{}\n", *lines[2:5], lines[5][:-40]]))
    assert cli.main(["rescore", str(tmp_path), "rewards.task_success.weight=2"]) == 0
    said = capsys.readouterr()
    (line,) = said.err.splitlines()
    assert line.startswith(f"left out: {tmp_path / 'after.jsonl'}, 2 lines, first line 2: ")
    assert "before (6)" in said.out and "after (4)" in said.out


def test_a_folder_without_a_run_or_an_episode_that_can_be_read_is_one_line(run, tmp_path, capsys):
    assert cli.main(["rescore", str(tmp_path), "rewards.task_success.weight=1"]) == 2
    assert "is not the folder of a run" in capsys.readouterr().err
    (tmp_path / "run.json").write_text((run / "run.json").read_text())
    (tmp_path / "config.yaml").write_text((run / "config.yaml").read_text())
    assert cli.main(["rescore", str(tmp_path), "rewards.task_success.weight=1"]) == 2
    assert "has no episodes yet" in capsys.readouterr().err
    (tmp_path / "after.jsonl").write_text("{}\n")
    assert cli.main(["rescore", str(tmp_path), "rewards.task_success.weight=1"]) == 2
    assert "or none that can be read" in capsys.readouterr().err


def test_nothing_of_it_loads_torch(run):
    words = ["rescore", str(run), "rewards.deference.weight=1"]
    code = f"import sys; from marl_coop.cli import main; assert main({words!r}) == 0; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True).returncode == 0
