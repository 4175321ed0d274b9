"""The examples for SLURM, with programs in place of a cluster's that do what those would."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from train_py import ROOT, command, environment, make_place, start
from trained import repeatable

from marl_coop.runs.records import read_episodes, read_metrics

SLURM = ROOT / "configs" / "slurm"
PYTHON = f'#!/bin/bash\nexec {sys.executable} "$@"\n'
SRUN = """#!/bin/bash
set -e
shift  # an option
for ((node = 1; node < SLURM_NNODES; node++)); do
    SLURM_NODEID=$node "$@" &
done
SLURM_NODEID=0 "$@"
wait
"""


def put(folder: Path, **programs: str) -> str:
    """Programs in a folder that comes first on PATH, which is returned."""
    folder.mkdir()
    for name, text in programs.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def sbatch(place: Path, name: str, *words: str, **variables: str) -> subprocess.CompletedProcess:
    command = ["bash", str(SLURM / name), *words]
    return subprocess.run(command, cwd=ROOT, env=environment(place) | variables, capture_output=True, text=True)


@pytest.mark.parametrize("file", sorted(SLURM.glob("*.sbatch")), ids=lambda file: file.stem)
def test_bash_reads_the_examples(file):
    subprocess.run(["bash", "-n", file], check=True)


@pytest.mark.slow
def test_four_processes_of_two_machines_do_what_one_does_and_queued_again_the_job_goes_on(tmp_path):
    """With as many episodes of an evaluation as four do not share evenly."""
    place = make_place(tmp_path, by_bytes=True)  # of 2,000 tokens, a sample is soon another where a weight is rounded
    sizes = ["env.families=[offset,scale,timeout,padding]", "warmup.batch_size=16", "evaluation.episodes=6"]
    sizes += ["training.episodes_per_update=8", "training.num_updates=1"]
    alone = start(place, "alone", *sizes)
    _, errors = alone.communicate(timeout=250)
    assert alone.returncode == 0, errors[-2000:]
    words = [str(word) for word in command(place, "two", *sizes)[2:] if not str(word).startswith("output_dir")]
    accelerate = f'#!/bin/bash\nexec {sys.executable} -m accelerate.commands.accelerate_cli "$@"\n'
    scontrol = "#!/bin/bash\nfor _ in {1..20000}; do echo localhost; done\n"  # more than a pipe holds unread
    job = {
        "PATH": put(tmp_path / "bin", srun=SRUN, scontrol=scontrol, accelerate=accelerate),
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_JOB_NODELIST": "node[0-1]",
        "SLURM_NNODES": "2",
        "SLURM_GPUS_ON_NODE": "2",
    }
    first = sbatch(place, "train.sbatch", str(place / "two"), *words, **job)
    assert first.returncode == 0, first.stderr[-3000:]
    for name in ("before.jsonl", "after.jsonl"):
        assert read_episodes(place / "two" / name) == read_episodes(place / "alone" / name)
    one, two = (load_file(place / run / "agent_0" / "adapter_model.safetensors") for run in ("alone", "two"))
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=0, atol=1e-4)
    assert {path.suffixes[0] for path in (place / "two/episodes").iterdir()} == {".0", ".1", ".2", ".3"}
    (by_one,), (by_four,) = (repeatable(read_metrics(place / run / "metrics.jsonl")) for run in ("alone", "two"))
    assert by_four == pytest.approx(by_one, rel=1e-3, abs=1e-3)
    (place / "two/results.json").unlink()  # as if it had been stopped before it had ended
    for starts in (2, 2):  # a run that has ended is not started again
        again = sbatch(place, "train.sbatch", str(place / "two"), *words, **job)
        assert again.returncode == 0, again.stderr[-3000:]
        assert len(json.loads((place / "two/run.json").read_text())["starts"]) == starts
        assert (place / "two/results.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("gpus", ["0,1,2,3", "4,5,6,7", "0,1,2,3,4"])
def test_half_of_the_gpus_serve_and_the_others_learn(tmp_path, gpus):
    note = '#!/bin/bash\necho "$(basename "$0") $CUDA_VISIBLE_DEVICES $*" >> "$NOTES"\n'
    up = '#!/bin/bash\n[ "$(grep -c ^vllm "$NOTES")" = 2 ]\n'  # both servers have begun
    programs = {"vllm": f"{note}exec sleep 60\n", "accelerate": note, "curl": up, "python": PYTHON}
    job = {
        "PATH": put(tmp_path / "bin", **programs),
        "SLURM_GPUS_ON_NODE": str(1 + gpus.count(",")),
        "NOTES": str(tmp_path / "notes"),
    }
    job |= {} if gpus.startswith("0") else {"CUDA_VISIBLE_DEVICES": gpus}  # as SLURM gives a part of a machine
    first, second, *others = gpus.split(",")
    result = sbatch(tmp_path, "servers.sbatch", "some/model", "--config", "my.yaml", **job)
    assert result.returncode == 0, result.stderr
    *serving, learning = sorted((tmp_path / "notes").read_text().splitlines(), reverse=True)
    ports = dict(re.match(r"vllm (\d) serve some/model --port (\d+)", line).groups() for line in serving)
    assert ports.keys() == {first, second} and len(set(ports.values())) == 2
    for port in ports.values():
        socket.create_server(("", int(port))).close()  # it was free
    given = f"accelerate {','.join(others)}"
    assert learning.startswith(
        f"{given} launch --config_file configs/accelerate/ddp.yaml --num_processes {len(others)}"
    )
    urls = ",".join(f"http://localhost:{ports[gpu]}/v1" for gpu in (first, second))
    assert learning.endswith(f"training.engine_options.urls=[{urls}]")


def test_one_gpu_cannot_both_serve_and_learn(tmp_path):
    job = {"PATH": put(tmp_path / "bin", python=PYTHON), "SLURM_GPUS_ON_NODE": "1"}
    result = sbatch(tmp_path, "servers.sbatch", "some/model", **job)
    assert result.returncode == 1
    assert result.stderr == "servers.sbatch: this job has 1 GPU, and needs 2 or more: sbatch --gpus-per-node=2\n"


def test_a_task_has_the_cores_that_the_job_asked_for(tmp_path):
    programs = {"srun": '#!/bin/bash\necho "cores: $SRUN_CPUS_PER_TASK"\n', "scontrol": "#!/bin/bash\necho node0\n"}
    job = {"PATH": put(tmp_path / "bin", **programs), "SLURM_JOB_ID": "1", "SLURM_JOB_NODELIST": "node0"}
    job |= {"SLURM_NNODES": "1", "SLURM_GPUS_ON_NODE": "1", "SLURM_CPUS_PER_TASK": "64"}
    assert sbatch(tmp_path, "train.sbatch", str(tmp_path / "run"), **job).stdout == "cores: 64\n"


def test_a_server_that_does_not_start_ends_the_job(tmp_path):
    programs = {"vllm": "#!/bin/bash\nexit 1\n", "curl": "#!/bin/bash\nexit 7\n", "sleep": "#!/bin/bash\n"}
    job = {"PATH": put(tmp_path / "bin", python=PYTHON, **programs), "SLURM_GPUS_ON_NODE": "2"}
    assert sbatch(tmp_path, "servers.sbatch", "some/model", **job).returncode != 0
