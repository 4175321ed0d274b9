"""A task's repository and virtual environment, made once and kept in a cache folder.

<cache>/repositories/<repo>.git          a bare copy of the upstream repository
<cache>/environments/<task>-<key>/       a virtual environment; the key is of everything that went into it
<cache>/suites/                          what `grading` found out of each feature's hidden tests
"""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path, PurePosixPath

from envs.cooperbench.dataset import BenchTask, patched_paths
from envs.cooperbench.recipes import Recipe
from envs.cooperbench.runner import Place
from envs.repository.git import GitError, Repository
from envs.sandbox.scratch import scratch

_PYTEST = ("pytest==8.4.2", "pytest-mock")
_LAZY = """import sys
from importlib.machinery import PathFinder
from importlib.util import LazyLoader


class Lazy(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        spec = super().find_spec(name, path, target) if name in {modules!r} else None
        if spec is not None and spec.loader is not None:
            spec.loader = LazyLoader(spec.loader)
        return spec


sys.meta_path.insert(0, Lazy)
"""


class PreparationError(RuntimeError):
    """A repository or an environment cannot be made; the message has what failed and the remedy."""


class Cache:
    """Repositories and environments on disk. Several processes may share one.

    Args:
        folder: where to keep them; made where it is missing.
        sources: repository folder or URL for a task's `repo`, such as {"pallets_click_task": "/data/click"}; a
            repository that is not named is cloned from the URL in the dataset.
        pip_options: more words for every `pip install`, such as ("--constraint", "cpu.txt").
        python: the interpreter of the environments; the benchmark's images have 3.11.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        sources: Mapping[str, str | Path] | None = None,
        pip_options: Sequence[str] = (),
        python: str | Path = sys.executable,
    ):
        self.folder = Path(folder).absolute()
        self.sources = dict(sources or {})
        self.pip_options = tuple(pip_options)
        self.python = str(python)

    def repository(self, task: BenchTask) -> Repository:
        """The bare copy of a task's upstream repository, which has the task's commit.

        Raises:
            PreparationError: it cannot be cloned, or lacks the commit.
        """
        git_dir = self.folder / "repositories" / f"{task.repo}.git"
        source = self.sources.get(task.repo, task.url)
        with _lock(git_dir):
            try:
                if not git_dir.exists():
                    with tempfile.TemporaryDirectory(dir=git_dir.parent) as folder:
                        Repository.clone(source, Path(folder, "bare"))
                        os.rename(Path(folder, "bare"), git_dir)
                repository = Repository(git_dir)
                repository.tree(task.commit)
            except GitError as error:
                raise PreparationError(
                    f"{task.key} needs commit {task.commit} of {source}: {error}. "
                    f"Name a repository that has it: sources={{{task.repo!r}: PATH}}, and remove {git_dir}."
                ) from error
        return repository

    def environment(self, task: BenchTask, recipe: Recipe) -> Place:
        """The virtual environment of a task; the first call installs it, which takes seconds to minutes.

        Raises:
            PreparationError: an install fails; the message ends with what pip said.
        """
        repository = self.repository(task)
        base = repository.tree(task.commit)
        packages = package_folders(repository, task)
        inputs = [base, asdict(recipe), _PYTEST, self.pip_options, self.python, packages]
        key = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:12]
        folder = self.folder / "environments" / f"{task.repo}-{task.number}-{key}"
        with _lock(folder):
            if not (folder / "ready").exists():
                shutil.rmtree(folder, ignore_errors=True)
                self._install(folder, repository, base, recipe)
                _keep_built(folder, repository, base, packages)
                _make_lazy(_site(folder), recipe.lazy)
                (folder / "ready").touch()
        site = _site(folder)
        return Place(
            python=folder / "venv/bin/python",
            roots=_roots(packages),
            readable=(folder / "venv",),
            environ={name: value.format(site=site) for name, value in recipe.environ.items()},
            built=folder / "built",
        )

    def _install(self, folder: Path, repository: Repository, base: str, recipe: Recipe) -> None:
        _call(self.python, "-m", "venv", str(folder / "venv"))
        pip = [str(folder / "venv/bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        with scratch() as source:
            repository.export(base, source)
            package = recipe.built or str(source)
            version = {"SETUPTOOLS_SCM_PRETEND_VERSION": "0.0.0"}  # the export has no git history to read it from
            _call(*pip, *self.pip_options, *_PYTEST, *recipe.requires)
            _call(*pip, *self.pip_options, "--no-deps", package, *recipe.bundles, environ=version)


def image_place(task: BenchTask, packages: Sequence[str]) -> Place:
    """The task's own docker image, for runs isolated by docker."""
    return Place(python=Path("python"), roots=_roots(packages), image=task.image)


def package_folders(repository: Repository, task: BenchTask) -> tuple[str, ...]:
    """The Python packages of the base that the gold patches write, such as ("src/click",): a submission may too."""
    paths = repository.entries(task.commit)
    found = {}
    for feature in task.features.values():
        for path in patched_paths(feature.gold):
            folders = [str(folder) for folder in reversed(PurePosixPath(path).parents)]
            package = next((folder for folder in folders if f"{folder}/__init__.py" in paths), None)
            if package is not None and "test" not in package.casefold():
                found[package] = None
    if not found:
        raise PreparationError(f"{task.key}: no gold patch writes into a Python package of commit {task.commit}.")
    return tuple(found)


def _keep_built(folder: Path, repository: Repository, base: str, packages: Sequence[str]) -> None:
    """Copy what installing added to the packages, such as compiled modules, into `built`, laid out as in the tree."""
    known = repository.entries(base)
    for package in packages:
        installed = _site(folder) / PurePosixPath(package).name
        for file in filter(Path.is_file, installed.rglob("*")):
            path = f"{package}/{file.relative_to(installed)}"
            if path not in known and file.suffix != ".pyc":
                target = folder / "built" / path
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(file, target)
    (folder / "built").mkdir(exist_ok=True)


def _make_lazy(site: Path, modules: Sequence[str]) -> None:
    """Have every Python of an environment load some modules where something of them is first used."""
    if modules:
        (site / "lazy_modules.py").write_text(_LAZY.format(modules=tuple(modules)))
        (site / "lazy_modules.pth").write_text("import lazy_modules\n")


def _site(folder: Path) -> Path:
    return next((folder / "venv/lib").glob("python*/site-packages"))


def _roots(packages: Sequence[str]) -> tuple[str, ...]:
    """The folders that packages are imported from, "" for the top."""
    parents = (str(PurePosixPath(package).parent) for package in packages)
    return tuple(dict.fromkeys("" if parent == "." else parent for parent in parents))


def _call(*command: str, environ: Mapping[str, str] = {}) -> None:  # noqa: B006  read only
    result = subprocess.run(command, env=os.environ | dict(environ), capture_output=True, text=True)
    if result.returncode:
        said = (result.stderr or result.stdout).strip()[-2000:]
        raise PreparationError(f"{' '.join(command)} ended with {result.returncode}:\n{said}")


class _lock:
    """One process at a time makes a thing of the cache."""

    def __init__(self, thing: Path):
        thing.parent.mkdir(parents=True, exist_ok=True)
        self.file = thing.with_name(f"{thing.name}.lock")

    def __enter__(self) -> None:
        self.stream = open(self.file, "w")
        fcntl.flock(self.stream, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        self.stream.close()
