"""Where the runs of an ablation are done: on this machine, on SLURM, or by hand from printed lines."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marl_coop.config.errors import ConfigError
from marl_coop.experiment.arm_run import ArmRun

ALONE = (sys.executable, "-m", "marl_coop")
POLL_S = 0.2

Advance = Callable[[], None]
"""Is told of each run that has ended."""


def through_accelerate(file: Path | None) -> tuple[str, ...]:
    """What starts the processes of a run, by a file of accelerate or, without one, by the machine's own."""
    return ("accelerate", "launch", *(("--config_file", str(file)) if file else ()), "-m", "marl_coop")


def lines(runs: Sequence[ArmRun], launcher: Sequence[str]) -> list[str]:
    """The command of each run, for a shell."""
    return [shlex.join([*launcher, *run.command()]) for run in runs]


def run_here(
    runs: Sequence[ArmRun], launcher: Sequence[str], logs: Path, jobs: int, gpus: Sequence[str], advance: Advance
) -> dict[str, str]:
    """Do the runs in processes of their own, and return why each failed that did: its last error or line, or what
    killed it.

    Whatever stops this stops them too, as Ctrl-C would, and waits until they have.

    Args:
        logs: the folder for what each of them says.
        jobs: how many at once.
        gpus: ids, of which each run sees one; none: each sees whatever there is.
    """
    logs.mkdir(parents=True, exist_ok=True)
    waiting, running, failed = list(runs), {}, {}
    free = [gpus[i % len(gpus)] for i in range(jobs)] if gpus else [None] * jobs
    try:
        while waiting or running:
            while waiting and free:
                run, gpu = waiting.pop(0), free.pop(0)
                log = logs / f"{run.name}.log"
                before = log.stat().st_size if log.exists() else 0  # of earlier attempts
                running[run.name] = (_start(run, launcher, log, gpu, jobs), gpu, log, before)
            time.sleep(POLL_S)
            for name, (process, gpu, log, before) in list(running.items()):
                if process.poll() is not None:
                    del running[name]
                    free.append(gpu)
                    if process.returncode:
                        failed[name] = _why(process.returncode, log.read_bytes()[before:])
                    advance()
    finally:
        for process, *_ in running.values():
            os.killpg(process.pid, signal.SIGTERM)
        for process, *_ in running.values():
            process.wait()
    return failed


def _start(run: ArmRun, launcher: Sequence[str], log: Path, gpu: str | None, jobs: int) -> subprocess.Popen:
    env = dict(os.environ)
    env.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
    if gpu is not None:
        env["CUDA_VISIBLE_DEVICES"] = gpu
    with log.open("ab") as out:
        command = [*launcher, *run.command()]
        return subprocess.Popen(command, env=env, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)


def _why(code: int, log: bytes) -> str:
    """Why a process ended, by what it wrote: its last error, after which a launcher may have said more, what its last
    traceback ends with, or its last words, but where a signal killed it, for it could say nothing then."""
    if code < 0:
        name = signal.Signals(-code).name
        return f"killed by {name}{', as where memory runs out' if -code == signal.SIGKILL else ''}"
    said = log.decode(errors="replace").strip().splitlines()
    if errors := [line for line in said if line.startswith("error: ")]:
        return errors[-1]
    traces = [i for i, line in enumerate(said, start=1) if line.startswith("Traceback ")]
    words = [line for line in said[traces[-1] :] if line[:1] not in (" ", "")] if traces else said[-1:]
    return words[0] if words else "it said nothing"  # an error's notes come after it


@dataclass(frozen=True)
class TrainJob:
    """What a job of the cluster does. One that is preempted or out of time is queued again and goes on with its run."""

    run: ArmRun
    launcher: tuple[str, ...]

    def __call__(self) -> None:
        subprocess.run([*self.launcher, *self.run.command()], check=True)

    def checkpoint(self) -> Any:
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def run_on_cluster(
    runs: Sequence[ArmRun],
    launcher: Sequence[str],
    folder: Path,
    parameters: Mapping[str, Any],
    advance: Advance,
    cluster: str = "slurm",
    poll_s: float = 5.0,
) -> dict[str, str]:
    """Submit the runs as one array, wait for them, and return where each that failed says why.

    Whatever stops this does not stop the jobs: the next call waits for those that are still queued or running.

    Args:
        folder: of submitit's files, which every node sees.
        parameters: of `submitit.AutoExecutor.update_parameters`.
        cluster: as submitit names it; "local" and "debug" are its own stand-ins.

    Raises:
        ConfigError: submitit is not installed, there is no such cluster here, it refuses a parameter, or it does not
            know a job that is to be waited for.
    """
    try:
        import submitit
    except ImportError as error:
        raise ConfigError("SLURM needs submitit: pip install 'marl-coop[slurm]'", ("slurm",)) from error
    try:
        executor = submitit.AutoExecutor(folder, cluster=cluster)
        executor.update_parameters(name="marl-coop", **parameters)
    except (RuntimeError, ValueError, NameError, TypeError) as error:
        raise ConfigError(str(error), ("slurm",)) from error
    record = folder / "jobs.json"
    ids: dict[str, str] = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
    known = {name: submitit.SlurmJob(folder, job_id) for name, job_id in ids.items()} if cluster == "slurm" else {}
    jobs: dict[str, Any] = {
        run.name: known[run.name] for run in runs if run.name in known and not known[run.name].done()
    }
    for name, job in jobs.items():
        if job.state == "UNKNOWN":
            problem = f"the cluster does not know job {ids[name]} of {name}; remove {record} to submit it again"
            raise ConfigError(problem, ("slurm",))
    submitted: dict[str, Any] = {}
    if fresh := [run for run in runs if run.name not in jobs]:
        with executor.batch():
            submitted = {run.name: executor.submit(TrainJob(run, tuple(launcher))) for run in fresh}
    jobs |= submitted
    record.write_text(json.dumps(ids | {name: job.job_id for name, job in submitted.items()}), encoding="utf-8")
    waiting, failed = dict(jobs), {}
    while waiting:
        for name, job in list(waiting.items()):
            if job.done():
                del waiting[name]
                if job.exception() is not None:
                    failed[name] = f"{job.paths.stderr} says why"
                advance()
        time.sleep(poll_s if waiting else 0)
    return failed
