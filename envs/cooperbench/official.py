"""Runs the official evaluator, `cooperbench.eval.evaluate`, without docker.

    python envs/cooperbench/official.py CONFIG.json

The interpreter is one that has the `cooperbench` package; this file needs nothing else, and in particular not this
library. The official evaluator is what it is: this makes its verdicts available for comparison, with bubblewrap in the
place of a container, and makes none of them safe against forgery. Use it for patches that you trust.

CONFIG.json has the folders `dataset` and `logs`, the names of the `runs` in logs, and `images`: an `image_entry` by the
name of each image. A pair that has an eval.json already is left as it is.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/etc/alternatives")
_RUNNER = "/usr/local/bin/runner.sh"


class LocalBackend:
    """What `cooperbench.eval.backends.get_backend` returns: makes a sandbox for an image."""

    def __init__(self, images: dict):
        self.images = images

    def create_sandbox(self, image: str, timeout: int = 600, workdir: str = "/workspace") -> "LocalSandbox":
        return LocalSandbox(self.images[image], timeout)


class LocalSandbox:
    """A checkout of the task's commit at /workspace/repo, /patches and the task's runner, as in the task's image."""

    def __init__(self, place: dict, timeout: int):
        self.place, self.timeout = place, timeout
        self.folder = tempfile.TemporaryDirectory(prefix="marl-coop-official-")
        self.root = Path(self.folder.name)
        repo = self.root / "repo"
        for words in (
            ["clone", "--quiet", "--shared", place["repository"], str(repo)],
            ["-C", str(repo), "checkout", "--quiet", place["commit"]],
        ):
            subprocess.run(["git", *words], check=True, capture_output=True)
        for name in ("patches", "bin"):
            (self.root / name).mkdir()
        # Everything is installed already; what an install puts into the tree comes back after each cleaning of it.
        install = "#!/bin/sh\n[ -d /built ] && cp -r /built/. /workspace/repo/\nexit 0\n"
        for name in ("pip", "uv"):
            tool = self.root / "bin" / name
            tool.write_text(install)
            tool.chmod(0o755)

    def exec(self, *words: str) -> SimpleNamespace:
        command = [word.replace(_RUNNER, "/harness/runner.sh") for word in words]
        result = subprocess.run([*self._shell(), *command], capture_output=True, text=True, timeout=self.timeout)
        return SimpleNamespace(
            returncode=result.returncode, stdout_read=lambda: result.stdout, stderr_read=lambda: result.stderr
        )

    def terminate(self) -> None:
        self.folder.cleanup()

    def _shell(self) -> list[str]:
        place = self.place
        python = Path(place["python"])
        visible = [Path(os.path.realpath(python)).parent.parent, python.parent.parent, *_objects(place["repository"])]
        binds = [word for path in _SYSTEM for word in ("--ro-bind-try", path, path)]
        binds += [word for path in map(str, visible) for word in ("--ro-bind", path, path)]
        mounts = {"repo": "/workspace/repo", "patches": "/patches", "bin": "/harness/bin"}
        binds += [word for name, path in mounts.items() for word in ("--bind", str(self.root / name), path)]
        binds += ["--ro-bind", place["runner"], "/harness/runner.sh"]
        binds += ["--ro-bind", place["built"], "/built"] if place["built"] else []
        roots = ":".join(str(Path("/workspace/repo", root)) for root in place["roots"])
        environ = {
            "PATH": f"/harness/bin:{python.parent}:/usr/bin:/bin",
            "HOME": "/tmp",
            "LANG": "C.UTF-8",
            "PYTHONPATH": roots,
            "PYTHONDONTWRITEBYTECODE": "1",
            **place["environ"],
        }
        variables = [word for item in environ.items() for word in ("--setenv", *item)]
        shell = ["bwrap", "--unshare-all", "--die-with-parent", "--clearenv", "--proc", "/proc", "--dev", "/dev"]
        return [*shell, "--tmpfs", "/tmp", *binds, *variables, "--chdir", "/workspace/repo"]


def _objects(repository: str) -> list[Path]:
    """A bare repository and those that it shares objects with."""
    found, todo = [], [Path(repository)]
    while todo:
        git_dir = todo.pop()
        found.append(git_dir)
        alternates = git_dir / "objects/info/alternates"
        if alternates.is_file():
            todo += [Path(line).parent for line in alternates.read_text().splitlines() if line]
    return found


def image_entry(bench: Any) -> dict:
    """What stands for the image of a task, as JSON, from its `grading.Workbench`."""
    return {
        "repository": str(bench.repository.git_dir),
        "commit": bench.task.commit,
        "runner": str(bench.task.folder / "runner.sh"),
        "python": str(bench.place.python),
        "roots": list(bench.place.roots),
        "built": str(bench.place.built or ""),
        "environ": dict(bench.place.environ),
    }


def evaluate_logs(python: Path, dataset: Path, logs: Path, runs: Sequence[str], images: Mapping[str, dict]) -> None:
    """Have an interpreter that has the package write eval.json beside each log of some runs.

    Args:
        images: an `image_entry` by the name of each image.

    Raises:
        subprocess.CalledProcessError: the evaluator did not come to its end.
    """
    config = {"dataset": str(dataset), "logs": str(logs), "runs": list(runs), "images": images}
    (logs / "config.json").write_text(json.dumps(config))
    subprocess.run([python, __file__, logs / "config.json"], check=True, capture_output=True, text=True)


def main(config: dict) -> None:
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # importing cooperbench must not look for the network
    from cooperbench.eval import evaluate, sandbox  # pyright: ignore[reportMissingImports] (the other interpreter's)

    backend = LocalBackend(config["images"])
    sandbox.get_backend = lambda name: backend
    for run in config["runs"]:
        evaluate(run, dataset_dir=config["dataset"], logs_dir=config["logs"], concurrency=1)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
