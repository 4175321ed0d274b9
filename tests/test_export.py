"""What a run gives to others: episodes that other libraries read back, and adapters on the Hub."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from viewed import HOSTILE, REWARDS, played

from envs.core.env import SEATS
from envs.core.episode import StopReason
from envs.core.seeds import Stream, task_seed
from marl_coop import cli
from marl_coop.evaluation.evaluate import before_and_after
from marl_coop.export.dataset import write_dataset
from marl_coop.export.hub import push
from marl_coop.runs.checkpoints import CRITICS, NEEDED, publish
from marl_coop.runs.played import PlayedEpisode, saved_episodes
from marl_coop.runs.records import EpisodeRecord, append_metrics, write_episodes
from marl_coop.runs.rundir import record_start
from rewards import RewardStack
from rewards.metrics import measure

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """The folder of a run in which hostile text was said."""
    folder = tmp_path_factory.mktemp("export") / "run"
    folder.mkdir()
    record_start(folder, "paired", "env: {name: PairedFunctions}\n", seed=0)
    stack, trained = RewardStack.from_config(REWARDS), played(3, says=HOSTILE[2])
    far = task_seed(Stream.EVALUATION, 2**32 - 1, 0)  # of the largest seed of a run
    assert far > 2**64
    first, second = played(2, says=HOSTILE[0])
    write_episodes(folder / "before.jsonl", [first, replace(second, task=replace(second.task, seed=far))])
    write_episodes(folder / "episodes" / "update-0001.0.jsonl", trained, [*map(stack.score, trained)])
    return folder


def test_a_dataset_is_read_back_with_every_turn_and_the_whole_record(run, tmp_path, monkeypatch):
    from datasets import load_dataset

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    saved = saved_episodes(run)
    write_dataset(saved, "paired", tmp_path / "out")
    found = load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert {part: len(split) for part, split in found.items()} == {"before": 2, "training": 3}
    for part, split in found.items():
        for row, one in zip(split, saved[part], strict=True):
            episode = one.record.episode
            assert EpisodeRecord.from_json(row["record"]).episode == episode
            said = [turn.reply.replace("\ud800", "?") for turn in episode.turns]
            assert [turn["reply"] for turn in row["turns"]] == said
            assert int(row["seed"]) == episode.task.seed
            assert row["update"] == (1 if part == "training" else None)
    paid, one = found["training"][0], saved["training"][0].record
    for seat in one.episode.seats:
        rewards = [turn["reward"] for turn in paid["turns"] if turn["seat"] == seat]
        assert rewards == pytest.approx(one.rewards.per_turn(seat))
    assert found["before"][0]["turns"][0]["reward"] is None
    assert "Episodes of paired" in (tmp_path / "out/README.md").read_text()


def test_inspect_reads_back_every_turn_score_and_metric(run, tmp_path):
    log = pytest.importorskip("inspect_ai.log", reason="inspect-ai is not installed: marl-coop[export]")
    from marl_coop.export.inspect_log import write_logs

    saved = saved_episodes(run)
    write_logs(saved, "paired", tmp_path)
    assert {info.name.rsplit("/", 1)[1] for info in log.list_eval_logs(str(tmp_path))} == {
        "before.eval",
        "training.eval",
    }
    for part, listed in saved.items():
        found = log.read_eval_log(str(tmp_path / f"{part}.eval"), resolve_attachments=True)
        assert found.status == "success" and found.eval.task == f"paired: {part}"
        assert found.eval.viewer.trust_content is False
        metrics, measured = found.results.scores[0].metrics, measure([one.episode for one in listed])
        assert {name: metric.value for name, metric in metrics.items()} == {
            name: metric.value for name, metric in measured.items() if metric.value is not None
        }
        for sample, one in zip(found.samples, listed, strict=True):
            episode, asked = one.episode, [event for event in sample.events if event.event == "model"]
            assert sample.id == one.id and not sample.error
            assert [event.role for event in asked] == [turn.agent for turn in episode.turns]
            replies = [turn.reply.replace("\ud800", "?") for turn in episode.turns]
            assert [event.output.completion for event in asked] == replies
            assert [message.text for message in sample.messages[1::2]] == replies
            last = asked[-1]  # has all that its seat heard and said before
            chat = [text for turn in episode.turns_of(last.role) for text in (turn.observation, turn.reply)]
            assert [message.text for message in last.input] == [t.replace("\ud800", "?") for t in chat[:-1]]
            assert sample.scores["team"].value["success"] == episode.outcome.success
            paid = one.record.rewards
            assert ("rewards" in sample.scores) == (paid is not None)
            assert paid is None or sample.scores["rewards"].value == pytest.approx(paid.by_term())


def test_inspect_has_the_metrics_of_the_seats_that_learn_as_the_run_has(tmp_path):
    log = pytest.importorskip("inspect_ai.log", reason="inspect-ai is not installed: marl-coop[export]")
    from marl_coop.export.inspect_log import write_logs

    (tmp_path / "run").mkdir()
    record_start(tmp_path / "run", "beside", "env: {name: PairedFunctions}\n", seed=0, learners=["learner"])
    players = {"agent_0": "learner", "agent_1": "scripted:stubborn-wrong"}
    episodes = [replace(one, players=players) for one in played(8, "stubborn-wrong")]
    write_episodes(tmp_path / "run/after.jsonl", episodes)
    write_logs(saved_episodes(tmp_path / "run"), "beside", tmp_path / "out")
    found = log.read_eval_log(str(tmp_path / "out/after.eval")).results.scores[0].metrics
    expected = before_and_after(episodes, episodes, learners=["learner"])["after"]
    assert {name: (metric.value, metric.metadata["n"]) for name, metric in found.items()} == {
        name: (metric.value, metric.n) for name, metric in expected.items()
    }
    assert found["parse_rate"].metadata["n"] == 24  # three turns of one seat, in each of 8 episodes


def test_inspect_counts_what_the_sandbox_spoiled_as_an_error(tmp_path):
    log = pytest.importorskip("inspect_ai.log", reason="inspect-ai is not installed: marl-coop[export]")
    from marl_coop.export.inspect_log import write_logs

    sound, other = played(2)
    spoiled = replace(other, stop_reason=StopReason.SANDBOX_FAULT)
    records = [EpisodeRecord(episode=episode) for episode in (sound, spoiled)]
    listed = [PlayedEpisode(id=f"after:{i}", phase="after", record=record) for i, record in enumerate(records, 1)]
    write_logs({"after": listed}, "paired", tmp_path)
    found = log.read_eval_log(str(tmp_path / "after.eval"))
    assert (found.results.total_samples, found.results.completed_samples) == (2, 1)
    assert [bool(sample.error) for sample in found.samples] == [False, True]


def test_trackio_reads_back_every_turn_and_an_export_replaces_itself(run, tmp_path):
    pytest.importorskip("trackio", reason="trackio is not installed: marl-coop[export]")
    words = [sys.executable, "-m", "marl_coop", "export", str(run), "--to", "trackio", "--output", str(tmp_path)]
    online = os.environ | {"TRACKIO_SERVER_URL": "http://127.0.0.1:9/?write_token=x"}  # where nothing is to go
    after = run / "after.jsonl"  # of an earlier export alone
    write_episodes(after, played(1))
    done = subprocess.run(words, cwd=ROOT, env=online, capture_output=True, text=True)
    after.unlink()
    assert (done.returncode, done.stdout) == (0, f"{tmp_path}: 6 episodes of before, training, after\n"), done.stderr
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"{tmp_path}: 5 episodes of before, training\n"), done.stderr
    asked = [sys.executable, "-m", "trackio.cli", "list", "traces", "--project", "paired", "--json"]
    done = subprocess.run(asked, env=os.environ | {"TRACKIO_DIR": str(tmp_path)}, capture_output=True, text=True)
    traces = {trace["metadata"]["id"]: trace for trace in json.loads(done.stdout)["traces"]}
    saved = saved_episodes(run)
    assert traces.keys() == {one.id for listed in saved.values() for one in listed}
    for part, listed in saved.items():
        for one in listed:
            trace, episode = traces[one.id], one.episode
            assert (trace["run"], trace["step"]) == (part, one.update or 0)
            said = [(turn.agent, turn.reply.replace("\ud800", "?")) for turn in episode.turns]
            assert [(m["name"], m["content"]) for m in trace["messages"] if m["role"] == "assistant"] == said
            assert [span["output"] for span in trace["spans"]] == [reply for _, reply in said]
            paid = one.record.rewards.by_term() if one.record.rewards else {}
            assert trace["metadata"]["rewards"] == pytest.approx(paid)


@pytest.mark.parametrize(("kind", "files"), [("dataset", "data/*.parquet"), ("inspect", "*.eval")])
def test_an_export_takes_the_place_of_an_earlier_one(kind, files, run, tmp_path):
    write = {"dataset": write_dataset, "inspect": None}[kind]
    if write is None:
        pytest.importorskip("inspect_ai.log", reason="inspect-ai is not installed: marl-coop[export]")
        from marl_coop.export.inspect_log import write_logs as write
    saved = saved_episodes(run)
    write(saved, "paired", tmp_path)
    write({"before": saved["before"]}, "paired", tmp_path)
    assert [file.stem for file in tmp_path.glob(files)] == ["before"]


def test_what_cannot_be_exported_is_one_line(run, tmp_path, capsys, monkeypatch):
    (tmp_path / "file").touch()
    for place, said in [(tmp_path / "file", "is no folder; name another"), (Path("/proc/x"), "cannot be written")]:
        assert cli.main(["export", str(run), "--to", "dataset", "--output", str(place)]) == 2
        told = capsys.readouterr().err
        assert said in told and told.count("\n") == 1
    for inside in (".", "episodes", "checkpoint-1/export"):
        assert cli.main(["export", str(run), "--to", "dataset", "--output", str(run / inside)]) == 2
        assert "is where the run keeps its own files; name another, or leave it out" in capsys.readouterr().err
    assert cli.main(["export", str(run), "--push-to-hub", ""]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    monkeypatch.setitem(sys.modules, "inspect_ai.event", None)
    monkeypatch.delitem(sys.modules, "marl_coop.export.inspect_log", raising=False)
    assert cli.main(["export", str(run), "--to", "inspect"]) == 2
    assert capsys.readouterr().err.endswith("needs inspect_ai.event: pip install 'marl-coop[export]'\n")


def test_the_command_writes_a_dataset_beside_the_run(run, capsys):
    assert cli.main(["export", str(run), "--to", "dataset"]) == 0
    assert "5 episodes of before, training" in capsys.readouterr().out
    assert (run / "export/dataset/data/before.parquet").is_file()


def test_a_dataset_is_written_over_an_earlier_one_and_over_no_other_readme(run, tmp_path, capsys):
    again = ["export", str(run), "--to", "dataset", "--output", str(tmp_path)]
    for readme in ("# A project\n", "---\ntags: [marl-coop]\n---\n# An adapter\n"):
        (tmp_path / "README.md").write_text(readme)
        assert cli.main(again) == 2
        assert "it has a README.md of something else; name another folder" in capsys.readouterr().err
        assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
        assert (tmp_path / "README.md").read_text() == readme
    (tmp_path / "README.md").unlink()
    assert cli.main(again) == cli.main(again) == 0


class Stub:
    """The Hub as `push` sees it."""

    def __init__(self):
        self.pushed = {}

    def create_repo(self, name, exist_ok):
        assert exist_ok

    def upload_folder(self, repo_id, folder_path, commit_message):
        self.pushed[repo_id] = folder_path


def test_each_adapter_has_a_repository_of_its_own(tmp_path):
    hub = Stub()
    folders = [tmp_path / seat for seat in SEATS]
    assert push(folders, "me/team", hub) == ["me/team-agent_0", "me/team-agent_1"]
    assert list(hub.pushed.values()) == folders
    assert push(folders[:1], "me/one", hub) == ["me/one"]


@pytest.mark.parametrize("name", ["", "a b/c", "me/team/x", "-me/team"])
def test_a_name_that_is_none_of_a_repository_is_one_line_and_nothing_is_pushed(name, tmp_path):
    hub = Stub()
    with pytest.raises(ValueError, match=r"is no name of a repository: .*; give OWNER/NAME$"):
        push([tmp_path / seat for seat in SEATS], name, hub)
    assert not hub.pushed


@pytest.mark.parametrize("offline", [False, True])
def test_a_hub_that_is_not_reached_is_one_line(offline, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
    nobody = HfApi(endpoint="http://127.0.0.1:9", token="hf_none")
    with pytest.raises(ValueError, match=r"^'me/one' is not taken by the Hub: .*; see `hf auth login`$"):
        push([tmp_path / "agent_0"], "me/one", nobody)


@pytest.mark.parametrize(("updates", "pushed"), [(2, "checkpoint-12"), (1, "")])
def test_the_best_checkpoint_is_pushed_unless_it_is_the_runs_end(run, tmp_path, capsys, monkeypatch, updates, pushed):
    place = tmp_path / "run"
    shutil.copytree(run, place)
    checkpoint = tmp_path / "checkpoint-12"
    for folder in (place, checkpoint):
        for seat in SEATS:
            (folder / seat).mkdir(parents=True)
            (folder / seat / "README.md").touch()
    for name in NEEDED:
        (checkpoint / name).touch()
    publish(checkpoint, place, limit=None)
    (place / CRITICS).touch()
    best = {"checkpoint": "checkpoint-12", "update": 1, "metric": "j", "value": 0.8}
    (place / "best.json").write_text(json.dumps(best))
    for update in range(1, updates + 1):
        append_metrics(place / "metrics.jsonl", {"update": update, "step": 12 * update, "eval/j": 0.9 - 0.1 * update})
    taken = []
    monkeypatch.setattr("marl_coop.export.hub.push", lambda adapters, repo: taken.extend(adapters) or [repo])
    assert cli.main(["export", str(place), "--push-to-hub", "me/team"]) == 0
    assert taken == [place / pushed / seat for seat in SEATS]
    said = ["checkpoint-12 is pushed: j 0.80, the best while it trained"] if pushed else []
    assert capsys.readouterr().out.splitlines() == [*said, "pushed: me/team"]


def test_adapters_without_a_card_are_not_pushed(run, capsys):
    (run / "critics.safetensors").touch()
    assert cli.main(["export", str(run), "--push-to-hub", "me/team"]) == 2
    assert "has no card" in capsys.readouterr().err
    (run / "critics.safetensors").unlink()
