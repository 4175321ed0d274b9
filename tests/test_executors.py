"""Where the runs of an ablation are done: here, on a cluster, or by whoever reads the printed lines."""

import json
import os
import shlex
import sys
from pathlib import Path

import pytest

from marl_coop.config.errors import ConfigError
from marl_coop.experiment import executors
from marl_coop.experiment.arm_run import ArmRun
from marl_coop.runs import rundir


def script(folder: Path, name: str, code: str) -> ArmRun:
    """A run whose command is a piece of Python."""
    return ArmRun(arm=name, seed=0, folder=folder / name, words=("-c", code))


PYTHON = (sys.executable, "-c", "import sys; exec(sys.argv[3])")  # after "train" and "-c"


def test_printed_lines_are_read_by_a_shell_as_the_commands(tmp_path):
    run = ArmRun(arm="a", seed=0, folder=tmp_path / "a b", words=("--config", "x y.yaml", "seed=0"))
    (line,) = executors.lines([run], executors.through_accelerate(Path("ddp.yaml")))
    expected = "accelerate launch --config_file ddp.yaml -m marl_coop train --config".split()
    assert shlex.split(line) == [*expected, "x y.yaml", "seed=0"]


def test_no_more_runs_than_jobs_are_done_at_once_and_each_sees_one_gpu(tmp_path):
    code = "import os, time; print(time.time(), os.environ['CUDA_VISIBLE_DEVICES']); time.sleep(1); print(time.time())"
    runs, ended = [script(tmp_path, name, code) for name in "abcd"], []
    failed = executors.run_here(runs, PYTHON, tmp_path / "logs", 2, ("6", "7"), lambda: ended.append(1))
    assert failed == {} and len(ended) == 4
    said = [(tmp_path / f"logs/{run.name}.log").read_text().split() for run in runs]
    spans = [(float(start), float(end)) for start, _, end in said]
    assert max(sum(start <= at < end for start, end in spans) for at, _ in spans) == 2
    assert {gpu for _, gpu, _ in said} == {"6", "7"}


def test_a_run_that_fails_stops_no_other_and_its_last_line_is_told(tmp_path):
    runs = [script(tmp_path, "bad", "print('a'); sys.exit('out of memory')"), script(tmp_path, "good", "pass")]
    ended = []
    failed = executors.run_here(runs, PYTHON, tmp_path / "logs", 1, (), lambda: ended.append(1))
    assert failed == {"bad-seed-0": "out of memory"} and len(ended) == 2


def test_the_error_of_a_run_is_told_and_not_what_its_launcher_says_after_it_or_an_earlier_attempt_said(tmp_path):
    said = "print('error: no such key'); print('=' * 60); sys.exit(1)"
    logs = tmp_path / "logs"
    raised = "error = RuntimeError('it broke'); error.add_note('--resume a goes on'); raise error"
    for code, told in (
        (said, "error: no such key"),
        (raised, "RuntimeError: it broke"),
        ("sys.exit(1)", "it said nothing"),
    ):
        failed = executors.run_here([script(tmp_path, "a", code)], PYTHON, logs, 1, (), lambda: None)
        assert failed == {"a-seed-0": told}
    assert "error: no such key" in (logs / "a-seed-0.log").read_text()


def test_a_run_that_is_killed_is_told_by_the_signal_and_not_by_what_it_said_before(tmp_path):
    code = "import os, signal; print('update 3', flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    failed = executors.run_here([script(tmp_path, "a", code)], PYTHON, tmp_path / "logs", 1, (), lambda: None)
    assert failed == {"a-seed-0": "killed by SIGKILL, as where memory runs out"}


def test_jobs_of_a_cluster_do_the_runs_and_tell_what_failed(tmp_path):
    runs = [script(tmp_path, "bad", "sys.exit(3)"), script(tmp_path, "good", f"open({str(tmp_path / 'did')!r}, 'w')")]
    failed = executors.run_on_cluster(
        runs, PYTHON, tmp_path / "slurm", {"timeout_min": 5}, lambda: None, cluster="local", poll_s=0.1
    )
    assert list(failed) == ["bad-seed-0"]
    assert "exit status 3" in Path(failed["bad-seed-0"].removesuffix(" says why")).read_text()
    assert (tmp_path / "did").exists()
    assert json.loads((tmp_path / "slurm/jobs.json").read_text()).keys() == {"bad-seed-0", "good-seed-0"}


def test_a_job_that_is_out_of_time_goes_on_with_its_run(tmp_path):
    run = ArmRun(arm="a", seed=0, folder=tmp_path / "a", words=("--config", "x.yaml"))
    again = executors.TrainJob(run, PYTHON).checkpoint().function
    assert again.run.command() == ["train", "--config", "x.yaml"]
    run.folder.mkdir()
    rundir.record_start(run.folder, "a", "{}", 0)
    assert again.run.command() == ["train", "--resume", str(run.folder)]


def test_a_job_that_the_cluster_does_not_know_is_not_waited_for(tmp_path, monkeypatch):
    """As of one whose record is gone: it would be waited for without an end."""
    for name, text in (("srun", ""), ("sacct", "echo 'JobID|State|NodeList'")):
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (tmp_path / "slurm").mkdir()
    (tmp_path / "slurm/jobs.json").write_text('{"a-seed-0": "987_0"}')
    with pytest.raises(
        ConfigError, match=r"^slurm: the cluster does not know job 987_0 of a-seed-0; remove .*jobs.json"
    ):
        executors.run_on_cluster([script(tmp_path, "a", "")], PYTHON, tmp_path / "slurm", {}, lambda: None)


def test_no_cluster_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match="srun"):
        executors.run_on_cluster([], PYTHON, tmp_path, {}, lambda: None)
