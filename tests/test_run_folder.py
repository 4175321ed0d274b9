"""The folder of a run: what lies in it, who may write there, and what a run that stopped is told."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from envs import sandbox
from marl_coop.config.schema import load_config
from marl_coop.runs import checkpoints, played, records, rundir
from marl_coop.runs.checkpoints import CheckpointError
from marl_coop.runs.lock import held

ROOT = Path(__file__).parent.parent
QUICKSTART = str(ROOT / "configs/quickstart.yaml")


def checkpoint(run: Path, step: int, complete: bool = True) -> Path:
    run.mkdir(parents=True, exist_ok=True)
    rundir.record_start(run, "quickstart", load_config([QUICKSTART]).to_yaml(), seed=0)
    folder, aside = run / f"checkpoint-{step}", run / checkpoints.ASIDE / f"checkpoint-{step}"
    (aside if complete else folder).mkdir(parents=True)
    if complete:
        for name in checkpoints.NEEDED:
            (aside / name).write_text("{}")
        checkpoints.publish(aside, run, limit=None)
    return folder


def test_a_new_run_gets_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = {rundir.new_folder("twice") for _ in range(3)}
    assert len(folders) == 3
    assert all(folder.is_dir() and folder.name.startswith("twice-") for folder in folders)


def test_a_run_is_not_overwritten(tmp_path):
    place = str(tmp_path / "run")
    assert rundir.new_folder("first", place) == tmp_path / "run"
    assert rundir.new_folder("first", place) == tmp_path / "run"  # still empty
    rundir.record_start(tmp_path / "run", "first", "", seed=0)
    with pytest.raises(rundir.RunError, match=r".* is not empty; go on with its run by --resume"):
        rundir.new_folder("first", place)


def test_a_run_directory_explains_itself(tmp_path):
    config = load_config([QUICKSTART], ["seed=5"])
    rundir.record_start(tmp_path, config.title, config.to_yaml(), config.seed)
    later = load_config([QUICKSTART], ["seed=5", "training.max_steps=9"])
    rundir.record_start(tmp_path, later.title, later.to_yaml(), later.seed)
    assert load_config([tmp_path / "config.yaml"]) == config
    record = json.loads((tmp_path / "run.json").read_text())
    first, second = record["starts"]
    assert (record["name"], first["seed"], first["config"]) == ("quickstart", 5, "config.yaml")
    assert load_config([tmp_path / second["config"]]).training["max_steps"] == 9
    assert {"python", "torch", "trl", "transformers", "peft", "accelerate"} <= first["versions"].keys()
    assert first["sandbox"] == sandbox.describe().splitlines()
    assert first["command"]
    assert first["git"] is None or set(first["git"]) == {"commit", "dirty"}  # None: not a checkout, or no commit yet


@pytest.mark.parametrize(("processes", "first"), [("2", "launch.py"), ("1", "start.py")])
def test_the_command_of_several_processes_is_that_of_what_launched_them(tmp_path, processes, first):
    start = "import json, sys; from marl_coop.runs.circumstances import circumstances as all_of_it; "
    (tmp_path / "start.py").write_text(f"{start}print(json.dumps(all_of_it()))")
    launch = "import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-u', *sys.argv[1:]]))"
    (tmp_path / "launch.py").write_text(launch)
    command = [sys.executable, "launch.py", str(tmp_path / "start.py"), "seed=1", "name=a b"]
    variables = os.environ | {"WORLD_SIZE": processes, "PYTHONPATH": str(ROOT)}
    said = json.loads(subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, check=True).stdout)
    assert said["processes"] == int(processes) and said["command"][-2:] == ["seed=1", "name=a b"]
    assert first in [Path(word).name for word in said["command"]][1:3]


def test_a_run_is_one_process_alone(tmp_path):
    code = "import sys; from marl_coop.runs.lock import held\nwith held(__import__('pathlib').Path(sys.argv[1])): pass"
    with held(tmp_path):
        second = subprocess.run([sys.executable, "-c", code, tmp_path], cwd=ROOT, capture_output=True, text=True)
    assert second.stderr.splitlines()[-1].endswith("is run by another process; wait for it, or stop it")
    subprocess.run([sys.executable, "-c", code, tmp_path], cwd=ROOT, check=True)


def test_a_folder_in_which_nothing_can_be_locked_is_one_line(tmp_path):
    (tmp_path / rundir.LOCK).mkdir()
    with (
        pytest.raises(rundir.RunError, match=r"cannot be kept from other processes: .*Is a directory.*$"),
        held(tmp_path),
    ):
        pass


def test_a_file_of_a_run_that_is_gone_is_one_line_and_others_are_not_hidden(tmp_path):
    (tmp_path / "run").mkdir()
    with (
        pytest.raises(CheckpointError, match=r"run' cannot be used any longer: .*No such file.*lost'$"),
        held(tmp_path / "run"),
    ):
        (tmp_path / "run" / "lost").read_text()
    with pytest.raises(FileNotFoundError), held(tmp_path / "run"):
        (tmp_path / "elsewhere").read_text()
    shutil.rmtree(tmp_path / "run")
    assert rundir.going_on(tmp_path / "run") == f"its folder, {str(tmp_path / 'run')!r}, is gone"


@pytest.mark.parametrize(("before", "after"), [("seed: 5", "seed: 6"), ("training:", "")])
def test_a_run_does_not_go_on_with_a_configuration_that_was_changed_in_its_folder(tmp_path, before, after):
    """Nor with one that was cut, of which the rest would be the defaults."""
    config = load_config([QUICKSTART], ["seed=5"])
    last = checkpoint(tmp_path, 4)
    rundir.record_start(tmp_path, config.title, config.to_yaml(), config.seed)
    assert rundir.locate(tmp_path) == rundir.locate(last) == (tmp_path, last)
    text = config.to_yaml()
    changed = text.replace(before, after) if after else text[: text.index(before)]
    rundir.configuration_of(tmp_path).write_text(changed)
    for place in (tmp_path, last):
        with pytest.raises(rundir.RunError, match=r"config-2.yaml' is not what the run wrote there: put that back"):
            rundir.locate(place)


def test_the_configuration_of_a_run_lies_in_its_folder(tmp_path):
    rundir.record_start(tmp_path, "x", "", seed=0)
    text = (tmp_path / "run.json").read_text()
    (tmp_path / "run.json").write_text(text.replace('"config.yaml"', '"../config.yaml"'))
    with pytest.raises(rundir.RunError, match=r"its configuration, '../config.yaml', is no file in it"):
        rundir.configuration_of(tmp_path)


def test_a_run_has_one_id_by_whatever_path_it_is_called(tmp_path, monkeypatch):
    run = tmp_path / "run"
    run.mkdir()
    rundir.record_start(run, "x", "", seed=0)
    (tmp_path / "link").symlink_to(run)
    monkeypatch.chdir(run)
    assert len({rundir.run_id(Path(place)) for place in (run, ".", "../run", tmp_path / "link")}) == 1


def test_what_is_no_run_is_told_so_in_one_line(tmp_path):
    for open_run in (rundir.configuration_of, rundir.saved_policy, rundir.locate):
        with pytest.raises(rundir.RunError, match="no run|not the folder of a run") as caught:
            open_run(tmp_path)
        assert "\n" not in str(caught.value)
    rundir.record_start(tmp_path, "new", "", seed=0)
    with pytest.raises(rundir.RunError, match="no adapters yet"):
        rundir.saved_policy(tmp_path)
    checkpoint(tmp_path, 4)
    with pytest.raises(rundir.RunError, match="no checkpoint 'checkpoint-5'; it has checkpoint-4"):
        rundir.saved_policy(tmp_path, "checkpoint-5")
    assert rundir.saved_policy(tmp_path) == tmp_path / "checkpoint-4"


def test_a_stopped_run_is_told_what_resume_will_do(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    assert rundir.going_on(None) == rundir.going_on(run) == "the run had not begun"
    rundir.record_start(run, "stopped", "", seed=0)
    assert rundir.going_on(run) == f"there is no checkpoint yet: --resume {run} begins its training again"
    last = checkpoint(run, 4)
    checkpoint(run, 8, complete=False)
    assert rundir.going_on(run) == f"--resume {run} goes on from checkpoint-4"
    spaced = shutil.copytree(run, tmp_path / "a run #1")
    assert rundir.going_on(spaced) == f"--resume '{spaced}' goes on from checkpoint-4"
    (last / "optimizer.pt").unlink()
    assert f"{str(run)!r} has no whole checkpoint" in rundir.going_on(run)


@pytest.mark.parametrize("record", ["{}", "[]", '{"name": "x", "starts": []}', '{"name": "x", "sta', "[" * 10**5])
def test_a_record_that_names_no_start_is_no_run(tmp_path, record):
    (tmp_path / "run.json").write_text(record)
    with pytest.raises(rundir.RunError, match="not the folder of a run: it has no run.json that can be read"):
        rundir.recorded(tmp_path)


@pytest.mark.parametrize("key", ["time", "command", "config", "seed", "git"])
def test_a_start_that_lacks_what_commands_read_of_it_is_no_run(tmp_path, key):
    rundir.record_start(tmp_path, "x", "", seed=0)
    record = rundir.recorded(tmp_path)
    del record["starts"][0][key]
    (tmp_path / "run.json").write_text(json.dumps(record))
    with pytest.raises(rundir.RunError, match=rf"\(starts\.0\.{key}: Field required\)"):
        rundir.recorded(tmp_path)


@pytest.mark.parametrize("key", ["modules", "learners"])
@pytest.mark.parametrize("value", ['"here"', "5", "null"])
def test_a_record_whose_folders_of_modules_or_learners_are_no_list_is_no_run(tmp_path, key, value):
    rundir.record_start(tmp_path, "x", "", seed=0)
    text = (tmp_path / "run.json").read_text()
    (tmp_path / "run.json").write_text(text.replace(f'"{key}": []', f'"{key}": {value}'))
    with pytest.raises(rundir.RunError, match="not the folder of a run: it has no run.json that can be read"):
        rundir.recorded(tmp_path)


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(rundir.RunError, match="cannot be made"):
        rundir.new_folder("x", str(tmp_path / "file" / "run"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert rundir.new_folder("x", "~/mine") == tmp_path / "mine"


def test_metrics_after_a_checkpoint_are_taken_back(tmp_path):
    file = tmp_path / "metrics.jsonl"
    for step in (4, 8, 12):
        records.append_metrics(file, {"step": step, "update": step // 4})
    twice = file.read_text().splitlines(keepends=True)[0]
    file.write_text(file.read_text() + twice + '{"step": 16, "upd')  # the machine went down
    records.forget_metrics_after(file, 8)
    assert [record["update"] for record in records.read_metrics(file)] == [1, 2]


@pytest.mark.parametrize("line", ["[1]", "null", "{", '{"step": "4"}', '{"update": 1}', "\ufffd"])
def test_a_line_that_is_no_record_goes_when_a_run_goes_on_and_those_after_it_stay(tmp_path, line):
    file = tmp_path / "metrics.jsonl"
    file.write_text(f'{{"step": 4, "update": 1}}\n{line}\n{{"step": 8, "update": 2}}\n')
    records.forget_metrics_after(file, 8)
    assert [record["update"] for record in records.read_metrics(file)] == [1, 2]


@pytest.mark.parametrize("line", ["[1]", "{", '{"step": 4, "update": "one"}', '{"step": 4, "update": 1, "loss": "x"}'])
def test_metrics_that_are_no_numbers_are_told_so_in_one_line(tmp_path, line):
    (tmp_path / "metrics.jsonl").write_text(f'{{"step": 4, "update": 1}}\n{line}\n')
    with pytest.raises(
        rundir.RunError, match="metrics.jsonl' cannot be read as metrics: line 2 is cut off or of anoth"
    ):
        records.read_metrics(tmp_path / "metrics.jsonl")


def test_episodes_after_a_checkpoint_are_taken_back_whatever_process_played_them(tmp_path):
    kept = ["before", "episodes/update-0004.0", "episodes/update-0004.1", "evaluations/update-0004", "after"]
    for name in (*kept, "episodes/update-0005.0", "episodes/update-0010.1", "evaluations/update-0006"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.jsonl").write_text("")
    played.forget_played_after(tmp_path, 4)
    assert played.episode_files(tmp_path) == [tmp_path / f"{name}.jsonl" for name in kept]
