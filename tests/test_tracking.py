"""What a run tells wandb, read back from what wandb wrote; and a wandb that is not there."""

import json
import socket
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import tiny
import wandb_files
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from marl_coop.experiment.tensorboard import TensorBoardRun
from marl_coop.experiment.tracking import PROJECT, WandbRun, unreachable, wandb_mode


@pytest.fixture(autouse=True)
def no_login(monkeypatch, tmp_path):
    for name in ("API_KEY", "MODE", "BASE_URL", "PROJECT", "RUN_GROUP", "DIR"):
        monkeypatch.delenv(f"WANDB_{name}", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


def tracked(folder, said, name="first-seed3"):
    config = {"seed": 3, "rewards": {"consensus": {"weight": 0.1}}, "lora": {"r": 4}}
    return WandbRun(folder, run_id="0123abcd", name=name, group="first", config=config, say=said.append)


def test_a_run_at_wandb_has_its_name_group_configuration_updates_and_results(tmp_path):
    said = []
    with tracked(tmp_path, said) as run:
        trainer = tiny.cue_trainer(tmp_path, callbacks=[run], num_updates=2, num_ppo_epochs=3)
        played = [rollout.episode for rollout in trainer.players.play(range(30), sampling_seed=0)]
        run.transcripts("before", played)
        trainer.train()
        run.transcripts("after", played[:3])
        run.report({"before": {"j": 0.25}, "after": {"j": 0.75}}, ["metric", "before"], [["J", "0.25"]])
    found = wandb_files.records(tmp_path)
    run = wandb_files.run_of(found)
    assert (run.run_id, run.display_name, run.run_group, run.project) == ("0123abcd", "first-seed3", "first", PROJECT)
    config = wandb_files.config(found)
    assert (config["seed"], config["rewards"], config["lora"]) == (3, {"consensus": {"weight": 0.1}}, {"r": 4})
    updates = [row for row in wandb_files.history(found) if "loss" in row]
    assert [(row["update"], row["_step"]) for row in updates] == [(1, 1), (2, 2)]  # of six steps of the optimiser
    assert {"team/success", "agent_0/entropy", "loss"} <= updates[0].keys()
    (axis,) = [record.metric for record in found if record.HasField("metric") and record.metric.glob_name == "*"]
    assert axis.step_metric == "update"
    summary = wandb_files.summary(found)
    assert (summary["before/j"], summary["after/j"]) == (0.25, 0.75)
    (table,) = [row for row in wandb_files.history(found) if "results/_type" in row]
    assert (table["results/_type"], table["results/ncols"], table["results/nrows"]) == ("table-file", 2, 1)
    rows = wandb_files.history(found)
    sizes = {
        side: [row[f"transcripts/{side}/nrows"] for row in rows if f"transcripts/{side}/nrows" in row]
        for side in ("before", "after")
    }
    assert sizes == {"before": [20], "after": [3]}
    (file,) = (tmp_path / "wandb").glob("offline-run-*/files/media/table/transcripts/before_*.json")
    (_, family, _, _, _, transcript), *_ = json.loads(file.read_text())["data"]
    assert family == played[0].task.family
    assert all(turn.reply in transcript for turn in played[0].turns)
    assert said == []


def test_what_was_said_after_an_update_stands_at_that_update(tmp_path):
    with tracked(tmp_path, []) as run:
        played = [rollout.episode for rollout in tiny.cue_trainer(tmp_path).players.play(range(2), sampling_seed=0)]
        run.transcripts("before", played)
        for update in (1, 2):
            run.transcripts("held_out", played, update)
            run.on_log(None, None, None, logs={"update": update, "loss": 1.0})
        run.transcripts("after", played)
        run.report({}, ["metric"], [["J"]])
    rows = wandb_files.history(wandb_files.records(tmp_path))
    places = {
        side: [row["update"] for row in rows if f"transcripts/{side}/nrows" in row]
        for side in ("before", "held_out", "after")
    }
    assert places == {"before": [0], "held_out": [1, 2], "after": [2]}


def test_wandb_is_told_of_the_git_remote_without_a_token_that_is_its_user(tmp_path, monkeypatch):
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    remote = "https://planted-token:x-oauth-basic@github.com/me/mine.git"
    for words in (["init", "-q"], ["remote", "add", "origin", remote], ["commit", "-q", "--allow-empty", "-m", "x"]):
        subprocess.run([*git, *words], check=True)
    monkeypatch.chdir(tmp_path)
    with tracked(tmp_path, []):
        pass
    assert wandb_files.run_of(wandb_files.records(tmp_path)).git.remote_url == "https://github.com/me/mine.git"
    files = [file for file in tmp_path.glob("wandb/**/*") if file.is_file()]
    assert files and not [file for file in files if b"planted-token" in file.read_bytes()]


@pytest.mark.timeout(60)  # wandb itself waits for 90 seconds, and then raises
def test_a_server_that_does_not_answer_costs_a_line_and_the_run_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    said = []
    with tracked(tmp_path, said) as run:
        run.on_log(None, None, None, logs={"update": 1, "team/j": 0.5})
    (line,) = said
    assert line.startswith("wandb is not used: http://127.0.0.1:9 does not answer (") and "\n" not in line
    assert [row["team/j"] for row in wandb_files.history(wandb_files.records(tmp_path)) if "team/j" in row] == [0.5]


@pytest.mark.parametrize("status", [401, 200], ids=["refuses", "talks_nonsense"])
def test_a_server_that_answers_and_takes_no_run_costs_a_line_and_the_run_is_kept(status, tmp_path, monkeypatch):
    class Odd(BaseHTTPRequestHandler):
        def do_POST(self):
            self.send_response(status)
            self.send_header("Content-Length", "5")
            self.end_headers()
            self.wfile.write(b"hello")

        do_GET = do_POST

        def log_message(self, format, *words):
            pass

    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    said = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Odd) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_port}")
        with tracked(tmp_path, said) as run:
            run.on_log(None, None, None, logs={"update": 1, "team/j": 0.5})
        server.shutdown()
    (line,) = said
    assert line.startswith("wandb is not used: ") and line.endswith("can send it later") and "\n" not in line
    assert [row["team/j"] for row in wandb_files.history(wandb_files.records(tmp_path)) if "team/j" in row] == [0.5]


@pytest.mark.parametrize("said", [b"hello, I am no server\r\n\r\n", b"", b"HTTP/1.1 x\r\n\r\n"])
def test_what_speaks_no_http_is_no_wandb_server(said):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"

        def speak():
            connection, _ = listening.accept()
            with connection:
                connection.recv(9999)
                connection.sendall(said)

        threading.Thread(target=speak, daemon=True).start()
        assert (unreachable(address) or "").startswith(f"{address} does not answer (")


@pytest.mark.parametrize("address", ["http://me:planted@127.0.0.1:9", "https://me:plan/ted@host", "http://planted@["])
def test_a_wandb_address_with_a_password_is_not_quoted(address):
    found = unreachable(address)
    assert found and "does not answer" in found and "plan" not in found


def test_a_wandb_that_is_lost_while_training_is_said_once_and_training_goes_on(tmp_path, monkeypatch):
    said = []

    def fails(*words, **options):
        raise ConnectionResetError("Connection lost")

    with tracked(tmp_path, said) as run:
        monkeypatch.setattr(run.run, "log", fails)
        trainer = tiny.cue_trainer(tmp_path, callbacks=[run], num_updates=3)
        trainer.train()
    assert trainer.state.global_step == 3
    assert said == ["wandb is lost: Connection lost; the run goes on without it"]


def test_of_what_a_resumed_run_repeats_wandb_keeps_the_first(tmp_path):
    with tracked(tmp_path, []) as run:
        for update, value in ((1, 0.1), (2, 0.2), (1, 0.3), (2, 0.4), (3, 0.5)):
            run.on_log(None, None, None, logs={"update": update, "team/j": value})
    rows = [row for row in wandb_files.history(wandb_files.records(tmp_path)) if "team/j" in row]
    assert [row["team/j"] for row in rows] == [0.1, 0.2, 0.5]


def test_a_run_goes_to_the_server_only_with_a_login(tmp_path, monkeypatch):
    assert wandb_mode() == "offline"
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password secret\n")
    (tmp_path / "netrc").chmod(0o600)
    assert wandb_mode() is None
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    assert wandb_mode() is None
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert wandb_mode() == "disabled"


def test_a_run_in_tensorboard_has_its_configuration_updates_and_results(tmp_path, monkeypatch):
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    with TensorBoardRun(tmp_path, "seed: 3\n", updates=2) as run:
        run.on_log(None, None, None, logs={"loss": 1.0})  # of transformers, without an update
        for update in (1, 2):
            run.on_log(None, None, None, logs={"update": float(update), "team/j": 0.25 * update})
        results = {"before": {"j": 0.0, "brier": None}, "after": {"j": 0.5, "brier": None}}
        run.report(results, ["metric", "after"], [["J = CDR - CR", "0.50"]])
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    points = {name: [(e.step, e.value) for e in events.Scalars(name)] for name in events.Tags()["scalars"]}
    assert points == {
        "update": [(1, 1.0), (2, 2.0)],
        "team/j": [(1, 0.25), (2, 0.5)],
        "before/j": [(0, 0.0)],
        "after/j": [(2, 0.5)],
    }
    texts = {name: events.Tensors(name)[0].tensor_proto.string_val[0].decode() for name in events.Tags()["tensors"]}
    assert "seed: 3" in texts["config/text_summary"]
    assert "| J = CDR - CR | 0.50 |" in texts["results/text_summary"]


def test_in_tensorboard_a_run_that_goes_on_has_each_update_once(tmp_path, monkeypatch):
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    for done, value in ((0, 0.0), (2, 1.0)):  # the first start was killed after its fourth update
        with TensorBoardRun(tmp_path, "seed: 3\n", updates=5, done=done) as run:
            for update in range(done + 1, 5):
                run.on_log(None, None, None, logs={"update": float(update), "team/j": value})
        time.sleep(1.1)  # files of events are read in the order of the seconds in their names
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("team/j")] == [(1, 0.0), (2, 0.0), (3, 1.0), (4, 1.0)]
