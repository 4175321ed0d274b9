"""CooperBench's dataset as it lies on disk: tasks, features, patches, pairs and subsets.

    <dataset>/<repo>_task/task<number>/{Dockerfile, setup.sh, runner.sh, combined.patch}
                                       feature<number>/{feature.md, feature.patch, tests.patch}
    <dataset>/subsets/<name>.json

Nothing of the dataset comes with this library. Get it with the official package (`cooperbench prepare`) or from a
clone of the benchmark's repository, and give the path of its `dataset` folder.
"""

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

_CHECKOUT = re.compile(r"git checkout ([0-9a-f]{40})")
_CLONE = re.compile(r"git clone (?:--\S+ )*(\S+)")
_HEADER = re.compile(r'^diff --git "?a/(.+?)"? "?b/(.+?)"?$')
_PYTEST = re.compile(r"^\s*(?:timeout \d+ )?(?:uv run )?python -m pytest (.+)$", re.MULTILINE)


class DatasetError(ValueError):
    """The folder is not a dataset that can be used; the message has the path and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """One feature of a task: what an agent is asked, a gold patch, and the hidden tests as a patch."""

    id: int
    spec: str = field(repr=False)
    gold: str = field(repr=False)
    tests: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchTask:
    """One repository at one commit with features that can be built side by side.

    `repo` ends in "_task" as the folder does; `number` is the folder's number. `targets` are the test files that the
    task's runner names, () where it finds them in another way.
    """

    folder: Path
    repo: str
    number: int
    commit: str
    url: str
    targets: tuple[str, ...]
    features: Mapping[int, Feature]

    @property
    def key(self) -> str:
        """Such as "pallets_click_task/2956"."""
        return f"{self.repo}/{self.number}"

    @property
    def image(self) -> str:
        """The name of the benchmark's image of this task."""
        return f"akhatua/cooperbench-{self.repo.removesuffix('_task').replace('_', '-')}:task{self.number}"

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """All pairs of features, the lower id first: agent 1 gets that one."""
        return tuple(combinations(sorted(self.features), 2))

    def targets_of(self, feature: int) -> tuple[str, ...]:
        """The test files to run for a feature: the runner's, or those that the feature's tests touch."""
        return self.targets or patched_paths(self.features[feature].tests)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two features of one task, one for each agent."""

    repo: str
    number: int
    features: tuple[int, int]


class Dataset:
    """The tasks in a dataset folder, in the order of the official package.

    Example: `Dataset("dataset").pairs()` has 652 pairs of 30 tasks, `Dataset("dataset").pairs("lite")` has 100.

    Raises:
        DatasetError: the folder is missing, has another layout, or a task in it lacks a part.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        if not self.path.is_dir():
            raise DatasetError(f"There is no folder {self.path}. Give the path of CooperBench's dataset folder.")
        self.tasks: dict[str, BenchTask] = {task.key: task for task in self._read()}
        if not self.tasks:
            inner = self.path / "dataset"
            hint = f" Did you mean {inner}?" if inner.is_dir() else ""
            raise DatasetError(f"{self.path} has no folder <repo>_task/task<number> with two features.{hint}")

    def task(self, repo: str, number: int) -> BenchTask:
        """The task of a folder.

        Raises:
            DatasetError: there is no such task; the message lists the tasks of that repository, or all repositories.
        """
        found = self.tasks.get(f"{repo}/{number}")
        if found is None:
            near = [key for key in self.tasks if key.startswith(f"{repo}/")]
            known = near or sorted({task.repo for task in self.tasks.values()})
            raise DatasetError(f"{self.path} has no task {repo}/{number}. It has {', '.join(known)}.")
        return found

    @property
    def subsets(self) -> tuple[str, ...]:
        """The names of the subsets that it has, sorted."""
        return tuple(sorted(file.stem for file in (self.path / "subsets").glob("*.json")))

    def pairs(self, subset: str | None = None) -> tuple[Pair, ...]:
        """Every pair of features of every task, or the pairs of a subset, in the official order.

        Raises:
            DatasetError: there is no such subset, or it names a task or feature that the dataset does not have.
        """
        if subset is None:
            return tuple(_pair(task, ids) for task in self.tasks.values() for ids in task.pairs)
        wanted = self._subset(subset)
        found = []
        for task in self.tasks.values():
            if task.key in wanted:
                ids = wanted.pop(task.key)
                unknown = {i for pair in ids or () for i in pair} - set(task.features)
                if unknown:
                    raise DatasetError(f"Subset {subset!r} names features {sorted(unknown)} that {task.key} lacks.")
                found += [_pair(task, pair) for pair in (task.pairs if ids is None else ids)]
        if wanted:
            raise DatasetError(f"Subset {subset!r} names tasks that {self.path} lacks: {', '.join(sorted(wanted))}.")
        return tuple(found)

    def _subset(self, name: str) -> dict[str, list[tuple[int, int]] | None]:
        """The pairs that a subset names for each task; None for all of them."""
        file = self.path / "subsets" / f"{name}.json"
        if not file.is_file():
            raise DatasetError(f"There is no subset {name!r} at {file}. Known: {', '.join(self.subsets) or 'none'}.")
        try:
            tasks = json.loads(file.read_text())["tasks"]
            if any("groups" in task for task in tasks):
                raise DatasetError(f"Subset {name!r} is of groups of three or more agents; only pairs can be read.")
            return {
                f"{task['repo']}/{task['task_id']}": [(i, j) for i, j in task["pairs"]] if "pairs" in task else None
                for task in tasks
            }
        except (ValueError, KeyError, TypeError) as error:
            if isinstance(error, DatasetError):
                raise
            raise DatasetError(f"{file} is not a subset of CooperBench: {error!r}. Get the file again.") from error

    def _read(self) -> Iterator[BenchTask]:
        for repo in sorted(self.path.glob("*_task")):
            for folder in sorted(repo.glob("task*")):
                if folder.is_dir():
                    task = _read_task(repo.name, folder)
                    if len(task.features) > 1:
                        yield task


def _pair(task: BenchTask, ids: tuple[int, int]) -> Pair:
    return Pair(repo=task.repo, number=task.number, features=ids)


def _read_task(repo: str, folder: Path) -> BenchTask:
    setup = _text(folder / "Dockerfile") + (_text(folder / "setup.sh") if (folder / "setup.sh").is_file() else "")
    commits, clone = set(_CHECKOUT.findall(setup)), _CLONE.search(setup)
    if len(commits) != 1 or clone is None:
        said = f"names {len(commits)} commits" if len(commits) != 1 else "clones no repository"
        raise DatasetError(f"{folder}/Dockerfile (with setup.sh) {said}; it must name one of each. Get the task again.")
    numbers = [name.removeprefix("feature") for name in (f.name for f in folder.glob("feature*") if f.is_dir())]
    try:
        number, ids = int(folder.name.removeprefix("task")), sorted(map(int, numbers))
    except ValueError as error:
        raise DatasetError(f"{folder}: folders are named task<number>/feature<number>; {error}.") from error
    return BenchTask(
        folder=folder.absolute(),
        repo=repo,
        number=number,
        commit=commits.pop(),
        url=clone[1],
        targets=_targets(_text(folder / "runner.sh")),
        features={i: _read_feature(i, folder / f"feature{i}") for i in ids},
    )


def _read_feature(id: int, folder: Path) -> Feature:
    spec, gold, tests = (_text(folder / name) for name in ("feature.md", "feature.patch", "tests.patch"))
    return Feature(id=id, spec=spec, gold=gold, tests=tests)


def _text(file: Path) -> str:
    if not file.is_file():
        raise DatasetError(f"{file} is missing. The task is not whole; get the dataset again.")
    return file.read_text(encoding="utf-8", errors="surrogateescape")


def _targets(runner: str) -> tuple[str, ...]:
    """Files that the runner's call of pytest names literally; () where a shell variable or pattern picks them."""
    call = _PYTEST.search(runner)
    words = shlex.split(call[1].split("|")[0].replace("2>&1", "")) if call else []
    files = tuple(word for word in words if not word.startswith("-"))
    return () if any(character in word for word in files for character in "$*") else files


def patched_paths(patch: str) -> tuple[str, ...]:
    """Paths that a patch writes, from its `diff --git` headers, in their order."""
    lines = (line.rstrip("\r") for line in patch.split("\n"))  # the form feed of an old source ends no line of a patch
    headers = filter(None, map(_HEADER.match, lines))
    return tuple(dict.fromkeys(header[2] for header in headers))
