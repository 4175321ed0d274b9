"""A played episode as a log of CooperBench: who did what, and where it is written."""

import io
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console
from toy_bench import GOLD, LABEL

from envs.cooperbench import CooperBench, LogError, Message, pair_log, read_logs, write_episodes
from envs.core.env import SEATS
from envs.core.episode import Episode
from envs.design_review import DesignReview
from envs.scripted.cooperbench import Gold
from envs.scripted.demonstrator import Demonstrator
from envs.scripted.play import play
from marl_coop.runs.played import PlayedEpisode
from marl_coop.runs.records import EpisodeRecord
from marl_coop.viewer import terminal
from marl_coop.viewer.episodes import detail, row
from rewards.metrics import measure

SQUARE = GOLD[3][LABEL].removeprefix(LABEL).rstrip("\n")
ANCHOR = LABEL.splitlines()[-1].strip()
REPLIES = {
    "agent_0": ["Say: I add unit.", "Say: I don't know how.\nRead: shapes/core.py", "Expect merge: clean (80%)"],
    "agent_1": [f"Say: I add square.\nInsert shapes/core.py after: {ANCHOR}\n{SQUARE}\nEnd\nSubmit"],
}


class Scripted:
    def reply(self, env, seat):
        return REPLIES[seat][sum(turn.agent == seat for turn in env.turns)]


@pytest.fixture(scope="module")
def episode(toy):
    task, evaluator = toy
    dataset = task.folder.parent.parent
    env = CooperBench(dataset=dataset, evaluator=evaluator, rounds=3, acts=True, pairs="shapes_task/7/1-3")
    played = replace(play(env, dict.fromkeys(SEATS, Scripted()), seed=5), players={"agent_0": "my-adapter"})
    assert [turn.parse_error for turn in played.turns] == [None] * 4
    return Episode.from_json(played.to_json())


def test_a_log_has_the_branches_as_patches_and_the_turns_as_steps(toy, episode, tmp_path):
    log = pair_log(episode)
    assert (log.repo, log.number, log.features, log.setting) == ("shapes_task", 7, (1, 3), "coop")
    assert log.patches == ("", toy[0].features[3].gold)
    for seat, agent in zip(SEATS, log.agents, strict=True):
        said = [(entry["role"], entry["content"], entry["extra"]["round"]) for entry in agent.chat]
        assert said[0] == ("user", episode.turns_of(seat)[0].observation, 0)
        assert said[1::2] == [("assistant", reply, i) for i, reply in enumerate(REPLIES[seat])]
    assert [(agent.agent, agent.status, agent.model) for agent in log.agents] == [
        ("agent1", "LimitsExceeded", "my-adapter"),
        ("agent2", "Submitted", ""),
    ]
    assert (log.result["seed"], log.result["policy"]) == (5, "naive")
    assert (log.result["utility"], log.result["success"]) == (0.5, False)
    assert write_episodes(tmp_path, "mine", [episode]) == ("mine-1",)
    (read,) = read_logs(tmp_path / "mine-1")
    assert [agent["steps"] for agent in read.result["agents"].values()] == [3, 1]
    assert replace(read, result=log.result) == log


def test_a_seat_alone_is_in_a_solo_log_with_one_patch_for_both_features(toy, tmp_path):
    task, evaluator = toy
    env = CooperBench(dataset=task.folder.parent.parent, evaluator=evaluator, agents=1, pairs="shapes_task/7/1-3")
    alone = play(env, {"agent_0": Gold()}, seed=5)
    log = pair_log(alone)
    assert measure([alone])["textual_conflict_rate"].n == 0  # it merges with nobody
    assert (log.setting, [agent.features for agent in log.agents], log.messages) == ("solo", [(1, 3)], ())
    assert evaluator.solo(task, (1, 3), log.patches[0]).both_passed and log.result["success"]
    write_episodes(tmp_path, "mine", [alone])
    assert read_logs(tmp_path / "mine-1")[0].patches == log.patches


def test_the_talk_of_an_episode_is_the_conversation_in_its_order(episode, tmp_path):
    said = [("agent1", "I add unit."), ("agent2", "I add square."), ("agent1", "I don't know how.")]
    messages = tuple(
        Message(sender=sender, receiver={"agent1": "agent2", "agent2": "agent1"}[sender], text=text)
        for sender, text in said
    )
    assert pair_log(episode).messages == messages
    write_episodes(tmp_path, "mine", [episode])
    assert read_logs(tmp_path / "mine-1")[0].messages == messages


def test_a_pair_that_was_played_twice_is_in_two_runs_and_nothing_is_written_over(episode, tmp_path):
    assert write_episodes(tmp_path, "mine", [episode, episode]) == ("mine-1", "mine-2")
    assert read_logs(tmp_path / "mine-1") == read_logs(tmp_path / "mine-2")
    with pytest.raises(LogError, match="mine-1/coop/shapes_task/7/f1_f3 has a log already"):
        write_episodes(tmp_path, "mine", [episode])


def test_an_episode_of_another_environment_is_refused_before_anything_is_written(episode, tmp_path):
    other = play(DesignReview(), dict.fromkeys(SEATS, Demonstrator(np.random.default_rng(0))), seed=0)
    with pytest.raises(ValueError, match="is none of envs.cooperbench:CooperBench"):
        write_episodes(tmp_path, "mine", [episode, other])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("run", ["", "../esc", "a/b", "a b"])
def test_a_run_needs_the_name_of_a_folder(episode, tmp_path, run):
    with pytest.raises(ValueError, match="write_episodes: run is .*; give a name of letters"):
        write_episodes(tmp_path / "logs", run, [episode])
    assert list(tmp_path.iterdir()) == []


def test_the_page_and_the_terminal_show_both_branches_of_a_conflict_and_the_tests_of_each_feature_by_name(toy):
    task, evaluator = toy
    shown = {}
    for pair in ("1-2", "1-3"):
        env = CooperBench(dataset=task.folder.parent.parent, evaluator=evaluator, pairs=f"shapes_task/7/{pair}")
        episode = Episode.from_json(play(env, dict.fromkeys(SEATS, Gold()), seed=5).to_json())
        played = PlayedEpisode(id="after:1", phase="after", record=EpisodeRecord(episode=episode))
        data, console = detail(played, None), Console(file=io.StringIO(), width=100)
        console.print(terminal.episode(row(played, None), data, 100))
        shown[pair] = data, console.file.getvalue()
    (conflict, said), (clean, _) = shown.values()
    assert conflict["merge"]["conflict"] and [*conflict["merge"]["sides"]] == [*SEATS]  # nothing was merged
    assert "there is no merged code" in said and "height=None" in said and "unit=1" in said
    assert [*clean["merge"]["sides"]] == ["merged", *SEATS]
    assert "tests/test_shapes.py::test_area_in_units[2]" in clean["tests"]["parts"]["agent_0"]["names"]
