"""Runs that are stopped, damaged or disturbed, in processes of their own: what is kept, refused, and gone on from."""

import json
import shutil
import signal
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from types import SimpleNamespace

import pytest
import tiny
from train_py import ROOT, fork, go_on, start, wait_for
from transformers import AutoModelForCausalLM

from envs.sandbox.scratch import PREFIX
from marl_coop.config.schema import Config, load_config
from marl_coop.experiment import checks
from marl_coop.experiment.experiment import Experiment
from marl_coop.runs import rundir
from marl_coop.runs.checkpoints import all_checkpoints, whole_checkpoints
from marl_coop.runs.records import read_episodes, read_metrics, write_episodes
from marl_coop.runs.rundir import RunError


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_killed_run_keeps_its_last_checkpoint_and_goes_on(place, stop):
    name = f"killed-{stop.name}"
    process = start(place, name, "training.num_updates=40")
    wait_for(place / name / "checkpoint-4", process)  # after the first update
    process.send_signal(stop)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors[-2000:]
    last = whole_checkpoints(place / name)[-1]
    assert out.splitlines()[-1] == f"stopped; --resume {place / name} goes on from {last.name}"
    before = (place / name / "before.jsonl").read_bytes()
    assert (place / name / "learning_curve.png").stat().st_size > 1000

    resumed = go_on(place, name, "training.num_updates=3")
    _, errors = resumed.communicate(timeout=900)
    assert resumed.returncode == 0, errors[-2000:]
    records = [json.loads(line) for line in (place / name / "metrics.jsonl").read_text().splitlines()]
    updates = [record["update"] for record in records if "update" in record]
    assert updates == [1, 2, 3]
    assert (place / name / "before.jsonl").read_bytes() == before
    assert (place / name / "results.json").exists()


@pytest.mark.slow
def test_a_run_that_is_told_twice_to_stop_stops_without_a_traceback(place):
    process = start(place, "twice", "training.num_updates=40")
    wait_for(place / "twice" / "checkpoint-4", process)
    for _ in range(2):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.1)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in errors, errors[-2000:]
    assert all_checkpoints(place / "twice") == whole_checkpoints(place / "twice")


@pytest.mark.slow
@pytest.mark.parametrize("then", ["nothing", "a file"])
def test_a_run_that_loses_its_folder_stops_in_one_line_and_makes_no_other(place, then):
    run = place / f"lost to {then}"
    process = start(place, run.name, "training.num_updates=40")
    wait_for(run / "checkpoint-4", process)
    run.rename(place / f"kept from {then}")
    if then == "a file":
        run.write_text("")
    _, errors = process.communicate(timeout=900)
    assert process.returncode == 1 and "Traceback" not in errors, errors[-2000:]
    (line,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert line.startswith(f"error: {str(run)!r} cannot be used any longer: ")
    assert line.endswith(f"Its folder, {str(run)!r}, is gone.")
    assert "learning_curve.png" not in line  # which is drawn last, and could not be either
    assert not run.is_dir() and "checkpoint-4" in [path.name for path in whole_checkpoints(place / f"kept from {then}")]


@pytest.mark.slow
def test_a_damaged_checkpoint_is_passed_over_in_one_line_and_each_update_is_recorded_once(place, whole):
    """As are the episodes of before, from which one is missing, and what a second process played has gone with it."""
    run = shutil.copytree(whole, place / "damaged")
    shutil.copy(run / "episodes" / "update-0003.0.jsonl", run / "episodes" / "update-0003.1.jsonl")
    lines = (whole / "before.jsonl").read_text().splitlines(keepends=True)
    (run / "before.jsonl").write_text("".join(lines[:-1]))
    optimizer = run / "checkpoint-12" / "optimizer.pt"
    optimizer.write_bytes(optimizer.read_bytes()[:100])
    process = go_on(place, "damaged")
    out, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors[-2000:]
    (line,) = [line for line in out.splitlines() if "checkpoint-12" in line]
    assert line.startswith("checkpoint-12 is now checkpoint-12.superseded-1, optimizer.pt has 100 bytes, not ")
    assert line.endswith(": the run goes on from checkpoint-8")
    assert [record["update"] for record in read_metrics(run / "metrics.jsonl")] == [1, 2, 3]
    assert [path.name for path in whole_checkpoints(run)] == ["checkpoint-8", "checkpoint-12"]
    assert (run / "checkpoint-12.superseded-1" / "optimizer.pt").stat().st_size == 100
    files = sorted(path.name for path in (run / "episodes").iterdir())
    assert files == [f"update-{number:04d}.0.jsonl" for number in (1, 2, 3)]
    (line,) = [line for line in out.splitlines() if "before.jsonl" in line]
    assert line.endswith("before.jsonl' has 3 episodes, not 4: they are played again")
    assert read_episodes(run / "before.jsonl") == read_episodes(whole / "before.jsonl")


def test_a_run_that_has_ended_is_left_as_it_is_and_one_that_was_not_judged_is_judged(place, whole):
    run = shutil.copytree(whole, place / "ended")
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    out, errors = go_on(place, "ended").communicate(timeout=900)
    assert out.splitlines() == [
        f"{str(run)!r} has ended, and results.json says what came of it: nothing is left to do; a larger "
        "training.num_updates trains it further, and marl-coop eval plays it again"
    ], errors[-2000:]
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
    found = (run / "results.json").read_text()
    (run / "results.json").unlink()  # as where it was killed in its last evaluation
    process = go_on(place, "ended")
    _, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors[-2000:]
    assert (run / "results.json").read_text() == found


def test_a_run_begins_by_removing_what_killed_ones_left_where_temporary_files_go(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / f"{PREFIX}of-a-killed-one").mkdir()
    begin(tmp_path / "run", Config())
    assert list(tmp_path.iterdir()) == []


def begin(folder, config):
    """What a process other than the first says as a run begins."""
    args, console = SimpleNamespace(run_name="run", report_to=[]), SimpleNamespace(print=(said := []).append)
    run = SimpleNamespace(folder=folder, main=False, args=args, console=console, config=config)
    Experiment._begin(run, ExitStack())
    return said


def test_a_run_on_what_is_for_evaluation_alone_says_so_as_it_begins(tmp_path):
    said = begin(tmp_path / "run", Config(env={"name": "PairedFunctions", "families": ["page_size"]}))
    assert "(families: page_size)" in said[1] and len(begin(tmp_path / "run", Config())) == 1


def test_what_was_played_before_is_taken_for_the_tasks_of_the_run_alone(whole, tmp_path):
    config = load_config([whole / "config.yaml"])
    run = SimpleNamespace(run_folder=tmp_path, config=config, console=SimpleNamespace(print=(said := []).append))
    episodes = read_episodes(whole / "before.jsonl")
    write_episodes(tmp_path / "before.jsonl", episodes)
    assert Experiment._known_before(run) == episodes and not said
    other = [replace(episodes[0], task=replace(episodes[0].task, seed=7)), *episodes[1:]]
    write_episodes(tmp_path / "before.jsonl", other)
    assert Experiment._known_before(run) == []
    assert said == [f"{str(tmp_path / 'before.jsonl')!r} has other tasks: they are played again"]


@pytest.mark.parametrize("changed", ["partner/adapter_model.safetensors", "start/agent_0/adapter_config.json"])
def test_a_run_does_not_go_on_with_another_adapter_of_another_run_than_it_began_with(tmp_path, changed):
    for place in ("partner", "start/agent_0"):
        (tmp_path / place).mkdir(parents=True)
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            (tmp_path / place / name).write_text("of then")
    words = [f"policies.agent_1=frozen:{tmp_path / 'partner'}", f"lora.start_from={tmp_path / 'start'}"]
    config = load_config([ROOT / "configs/quickstart.yaml"], words)
    run = tmp_path / "run"
    run.mkdir()
    rundir.record_start(run, "x", "", seed=0, adapters=checks.of_other_runs(config))
    checks.check_of_other_runs(config, run, start=True)

    (tmp_path / changed).write_text("of now")
    place = tmp_path / changed
    with pytest.raises(RunError, match=f"the adapter in {str(place.parent)!r} is another one than {str(run)!r} began"):
        checks.check_of_other_runs(config, run, start=True)
    if "start" in changed:  # which a run reads no more that has a checkpoint and keeps no copy of its start
        checks.check_of_other_runs(config, run, start=False)


@pytest.mark.slow
def test_a_run_that_another_process_took_further_while_this_one_loaded_is_left_alone(whole, tmp_path):
    run = shutil.copytree(whole, tmp_path / "run")
    resumed = Experiment.__new__(Experiment)  # without the model
    args, found = SimpleNamespace(run_name=None), all_checkpoints(run)[:-1]
    vars(resumed).update(folder=run, _found=found, name="x", main=True, args=args, config=SimpleNamespace(seed=0))
    before = (run / "run.json").read_bytes()
    with ExitStack() as stack, pytest.raises(RunError, match="was run by another process until now: start this again"):
        resumed._begin(stack)
    assert (run / "run.json").read_bytes() == before


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_the_checkpoints_stay(place, whole):
    """In its place, a limit to the size of a file, below that of the optimiser's."""
    run = shutil.copytree(whole, place / "full")
    size = (run / "checkpoint-12" / "optimizer.pt").stat().st_size - 1
    words = ["--resume", run, "training.num_updates=4"]
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size})); "
    limited += f"import runpy; runpy.run_path({str(ROOT / 'train.py')!r}, run_name='__main__')"
    process = fork(place, [sys.executable, "-c", limited, *words])
    _, errors = process.communicate(timeout=900)
    assert process.returncode == 1 and "Traceback" not in errors, errors[-2000:]
    (line,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert line.startswith(f"error: checkpoint-16 could not be written in '{run}': ")
    assert line.endswith(f"earlier checkpoints are whole. --resume {run} goes on from checkpoint-12.")
    assert [path.name for path in all_checkpoints(run)] == [path.name for path in whole_checkpoints(run)]
    assert [path.name for path in whole_checkpoints(run)] == ["checkpoint-8", "checkpoint-12"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "before", "after", "said"),
    [
        ("config.yaml", "r: 16", "r: 8", "has r 16, and this team 8: give it the same lora"),
        ("config.yaml", "/model", "/other", "is of another base, '"),
    ],
)
def test_a_checkpoint_of_another_team_is_refused_before_anything_is_written(place, whole, file, before, after, said):
    run = shutil.copytree(whole, place / f"team-{before.strip('/')[0]}")
    text = (run / file).read_text()
    assert before in text
    (run / file).write_text(text.replace(before, after))
    record = json.loads((run / "run.json").read_text())
    del record["starts"][0]["sha256"]  # of the file as it was, by which the change alone would be refused
    (run / "run.json").write_text(json.dumps(record))
    shutil.copytree(place / "model", place / "other", dirs_exist_ok=True)
    tiny.base_model(AutoModelForCausalLM.from_pretrained(place / "model").config.vocab_size, seed=9).save_pretrained(
        place / "other"
    )
    files = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    process = go_on(place, run.name)
    _, errors = process.communicate(timeout=900)
    assert (process.returncode, errors.count("\n")) == (2, 1), errors[-2000:]
    assert errors.startswith(f"error: '{run / 'checkpoint-12'}' is of another team: ") and said in errors
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == files


@pytest.mark.slow
def test_an_interrupt_before_training_is_one_line_and_can_be_gone_on_from(place):
    long = ["warmup.steps=100000", "training.num_updates=1"]
    process = start(place, "early", *long)
    wait_for(place / "early" / "run.json", process)
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors[-2000:]
    assert "Traceback" not in errors
    said = f"there is no checkpoint yet: --resume {place / 'early'} begins its training again"
    assert out.splitlines()[-1] == f"stopped; {said}"
    process = go_on(place, "early", "lora.r=2")
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors.count("\n")) == (2, 1)
    assert errors.startswith("error: command line: lora.r: 2 is refused: the run began with 16")
