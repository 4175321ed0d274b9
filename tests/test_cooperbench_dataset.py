"""The dataset's layout, what is refused, and the tree of logs."""

import json
import shutil
from dataclasses import replace

import pytest
from toy_bench import GOLD, write_toy

from envs.cooperbench.dataset import Dataset, DatasetError, Pair, patched_paths
from envs.cooperbench.logs import AgentLog, LogError, Message, PairLog, read_logs, write_log
from envs.cooperbench.recipes import DEFECTS, RECIPES, Refused, known_defect, recipe
from envs.cooperbench.runner import CHILD, docker_command
from envs.cooperbench.submission import counts
from envs.cooperbench.venvs import Cache, PreparationError, package_folders


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return write_toy(tmp_path_factory.mktemp("toy"))


def test_a_task_has_what_its_folder_says(toy):
    dataset, upstream = toy
    task = Dataset(dataset).task("shapes_task", 7)
    assert task.targets == ("tests/test_shapes.py",) and task.url == str(upstream)
    assert task.image == "akhatua/cooperbench-shapes:task7"
    assert set(task.features) == set(GOLD) and "square" in task.features[3].gold
    assert patched_paths(task.features[3].gold) == ("shapes/core.py",)


def test_pairs_are_all_combinations_with_the_lower_feature_first(toy):
    pairs = Dataset(toy[0]).pairs()
    assert [pair.features for pair in pairs] == [(1, 2), (1, 3), (1, 4), (2, 3), (2, 4), (3, 4)]
    assert pairs[0] == Pair(repo="shapes_task", number=7, features=(1, 2))


def test_a_subset_names_its_pairs_or_whole_tasks(toy):
    dataset = Dataset(toy[0])
    assert [pair.features for pair in dataset.pairs("few")] == [(1, 3)]
    (toy[0] / "subsets/whole.json").write_text('{"tasks": [{"repo": "shapes_task", "task_id": 7}]}')
    assert dataset.pairs("whole") == dataset.pairs()


@pytest.fixture
def copy(toy, tmp_path):
    shutil.copytree(toy[0], tmp_path / "dataset")
    return tmp_path / "dataset"


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("shapes_task/task7/feature2/tests.patch", None, "feature2/tests.patch is missing.*get the dataset again"),
        ("shapes_task/task7/runner.sh", None, "runner.sh is missing"),
        ("shapes_task/task7/Dockerfile", "RUN git clone x repo\n", "names 0 commits"),
        ("shapes_task/task7/setup.sh", f"git checkout {'a' * 40}\n", "names 2 commits"),
        ("shapes_task/task7/featureX/feature.md", "", "task<number>/feature<number>"),
    ],
)
def test_a_task_that_is_not_whole_is_one_clear_error(copy, file, content, message):
    place = copy / file
    if content is None:
        place.unlink()
    else:
        place.parent.mkdir(exist_ok=True)
        place.write_text(content)
    with pytest.raises(DatasetError, match=message):
        Dataset(copy)


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ([{"repo": "shapes_task", "task_id": 8}], "names tasks that .* lacks: shapes_task/8"),
        ([{"repo": "shapes_task", "task_id": 7, "pairs": [[1, 9]]}], r"features \[9\] that shapes_task/7 lacks"),
        ([{"repo": "shapes_task", "task_id": 7, "groups": [[1, 2, 3]]}], "only pairs can be read"),
        ([{"repo": "shapes_task"}], "is not a subset of CooperBench"),
    ],
)
def test_a_bad_subset_is_one_clear_error(copy, tasks, message):
    (copy / "subsets/bad.json").write_text(json.dumps({"tasks": tasks}))
    with pytest.raises(DatasetError, match=message):
        Dataset(copy).pairs("bad")


def test_a_wrong_path_names_the_right_one(copy):
    with pytest.raises(DatasetError, match="There is no folder .*nowhere"):
        Dataset(copy / "nowhere")
    with pytest.raises(DatasetError, match=f"Did you mean {copy}"):
        Dataset(copy.parent)
    with pytest.raises(DatasetError, match="no subset 'huge'.*Known: few"):
        Dataset(copy).pairs("huge")
    with pytest.raises(DatasetError, match="no task shapes_task/1. It has shapes_task/7"):
        Dataset(copy).task("shapes_task", 1)


def test_a_task_without_a_recipe_is_refused_with_the_reason(toy):
    with pytest.raises(Refused, match="shapes_task/7 does not run without docker: there is no recipe"):
        recipe(Dataset(toy[0]).task("shapes_task", 7))
    assert {r.tier for r in RECIPES.values()} == {1, 2}


def test_a_defect_is_known_by_the_content_of_the_tests(toy, monkeypatch):
    task = Dataset(toy[0]).task("shapes_task", 7)
    assert not known_defect(task, 4)
    monkeypatch.setitem(DEFECTS, (task.key, 4, "0" * 16), "tests of another version")
    assert not known_defect(task, 4)


def test_a_submission_may_write_the_packages_that_gold_patches_write(toy):
    task = Dataset(toy[0]).task("shapes_task", 7)
    repository = Cache(toy[0].parent / "cache", sources={"shapes_task": toy[1]}).repository(task)
    assert package_folders(repository, task) == ("shapes",)
    assert counts("shapes/new.py", ["shapes"]) and not counts("shapes/conftest.py", ["shapes"])


def test_a_repository_without_the_commit_is_one_clear_error(toy, tmp_path):
    other = write_toy(tmp_path)[1]
    task = Dataset(toy[0]).task("shapes_task", 7)
    other.joinpath("objects").rename(tmp_path / "objects")
    with pytest.raises(PreparationError, match="shapes_task/7 needs commit .*sources="):
        Cache(tmp_path / "cache", sources={"shapes_task": other}).repository(task)


def test_a_docker_run_has_no_network_and_can_write_nothing_of_ours(tmp_path):
    command = docker_command("image:task1", tmp_path, {"LANG": "C"}, ["64", "t.py"], 30)
    assert command[:5] == ["docker", "run", "--rm", "--network", "none"]
    mounts = [command[i + 1] for i, word in enumerate(command) if word == "--volume"]
    assert mounts == [f"{tmp_path}:/submission:ro", f"{CHILD}:/harness/child.py:ro"]
    assert "timeout -s KILL 30" in command[-4]
    assert command[-6:-3] == ["image:task1", "-c", command[-4]] and command[-2:] == ["64", "t.py"]


CHAT = (
    {"role": "user", "content": "your task"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"function": {"arguments": '{"command": "send_message agent2 hi"}'}}],
    },
    {"role": "tool", "content": "sent", "extra": {"timestamp": 20.0}},
)
REPLY = ({"role": "assistant", "content": "send_message agent1 'first'", "extra": {"timestamp": 10.0}},)
LOG = PairLog(
    repo="shapes_task",
    number=7,
    features=(1, 3),
    setting="coop",
    agents=(
        AgentLog(agent="agent1", features=(1,), patch="diff --git a/x b/x", chat=CHAT, model="m"),
        AgentLog(agent="agent2", features=(3,), patch="", chat=REPLY),
    ),
    messages=(
        Message(sender="agent1", receiver="agent2", text="hi"),
        Message(sender="agent2", receiver="agent1", text="first"),
    ),
)


def test_logs_that_were_written_are_read_again(tmp_path):
    folder = write_log(tmp_path, LOG)
    assert folder == tmp_path / "coop/shapes_task/7/f1_f3"
    names = {"agent1.patch", "agent3.patch", "agent1_traj.json", "agent3_traj.json", "conversation.json", "result.json"}
    assert {file.name for file in folder.iterdir()} == names
    (read,) = read_logs(tmp_path)
    assert [agent.chat for agent in read.agents] == [CHAT, REPLY]
    assert [agent.patch for agent in read.agents] == ["diff --git a/x b/x\n", ""]
    assert (read.features, read.setting, read.result["messages_sent"]) == ((1, 3), "coop", 2)


def test_messages_without_a_time_take_it_from_the_trajectory(tmp_path):
    write_log(tmp_path, LOG)
    messages = read_logs(tmp_path)[0].messages
    assert [(message.text, message.seconds) for message in messages] == [("first", 10.0), ("hi", 20.0)]


def test_a_solo_log_has_one_agent_for_both_features(tmp_path):
    agent = AgentLog(agent="agent", features=(1, 3), patch="p\n")
    write_log(tmp_path, PairLog(repo="shapes_task", number=7, features=(1, 3), setting="solo", agents=(agent,)))
    assert read_logs(tmp_path)[0].agents == (agent,)


def test_logs_that_cannot_be_read_are_one_clear_error(tmp_path):
    with pytest.raises(LogError, match="Give the folder of one run"):
        read_logs(tmp_path)
    folder = write_log(tmp_path, LOG)
    (folder / "result.json").write_text("[]")
    with pytest.raises(LogError, match="result.json holds a list; it must be a dict"):
        read_logs(tmp_path)
    for text, message in {"{": "is not JSON", "[3]": "a list of messages must be", "{}": "it must be a list"}.items():
        (folder / "conversation.json").write_text(text)
        with pytest.raises(LogError, match=f"conversation.json .*{message}"):
            read_logs(tmp_path)


@pytest.mark.parametrize("chat", [3, [3], "text", {"role": "user"}])
def test_a_trajectory_that_is_no_chat_is_one_clear_error(tmp_path, chat):
    (write_log(tmp_path, LOG) / "agent1_traj.json").write_text(json.dumps({"messages": chat}))
    with pytest.raises(LogError, match="agent1_traj.json has .* where a list of messages must be"):
        read_logs(tmp_path)


def test_what_a_harness_stores_beside_a_message_may_be_anything(tmp_path):
    odd = ({"role": "assistant", "content": None, "extra": 3, "tool_calls": [3, {"function": 3}]}, {"tool_calls": 3})
    write_log(tmp_path, replace(LOG, agents=(replace(LOG.agents[0], chat=odd), LOG.agents[1])))
    assert read_logs(tmp_path)[0].agents[0].chat == odd


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"setting": "copo"}, "setting is 'copo'; it must be one of solo, coop, team"),
        ({"setting": "solo"}, r"have the features \[\(1,\), \(3,\)\]; in the setting solo it must be \[\(1, 3\)\]"),
        ({"repo": "shapes"}, "repo is 'shapes'; it must end in _task"),
        ({"messages": (Message(sender="", receiver="agent1", text="hi"),)}, "conversation.json has a message from ''"),
        ({"agents": (replace(LOG.agents[0], patch="\ud800"), LOG.agents[1])}, "the patch of agent1 is no text"),
    ],
)
def test_a_log_that_could_not_be_read_again_is_not_written(tmp_path, changed, message):
    with pytest.raises(LogError, match=f"{tmp_path}.*f1_f3 cannot be written: .*{message}"):
        write_log(tmp_path, replace(LOG, **changed))
    assert not list(tmp_path.iterdir())


def test_a_run_has_one_log_of_a_pair(tmp_path):
    write_log(tmp_path, LOG)
    with pytest.raises(LogError, match="f1_f3 has a log already. A run has one of each pair"):
        write_log(tmp_path, LOG)


def test_an_official_verdict_is_read_and_written_with_its_log(tmp_path):
    (write_log(tmp_path / "a", LOG) / "eval.json").write_text('{"both_passed": true}')
    (log,) = read_logs(tmp_path / "a")
    assert log.evaluation == {"both_passed": True} and log.patches == ("diff --git a/x b/x\n", "")
    write_log(tmp_path / "b", log)
    assert read_logs(tmp_path / "b") == (log,)
