"""Branches that meet: three-way merges by git without a work tree, the policies of CooperBench, and a real repository.

Seats change files and make or remove none, so git's merge of two branches is its merge of each file that both changed;
a file that one side changed is taken as it is. `git merge-file` does that in one process for a file, once for each
content. `export` writes the branches with their history as a bare repository, for people and for `envs.repository.git`.
"""

import functools
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from envs.core.task import Seat
from envs.repository.git import MergePolicy, Repository, Strategy
from envs.repository.working_copy import Files

_OLDEST_GIT = (2, 38)  # the first with `git merge-tree --write-tree`


class BranchMerge(NamedTuple):
    """What came of a merge: the files, None where the policy found none, and where git met conflicts."""

    files: Files | None
    policy: MergePolicy
    strategy: Strategy
    conflicts: tuple[str, ...]


def merge_branches(base: Files, first: Files, second: Files, policy: MergePolicy | str) -> BranchMerge:
    """Merge two branches of a base under a policy, given as a `MergePolicy` or by its name (else ValueError).

    About 4 ms for a file that both changed.

    >>> sides = {"a.py": "x = 1\\n\\ny = 1\\n"}, {"a.py": "x = 2\\n\\ny = 1\\n"}, {"a.py": "x = 1\\n\\ny = 2\\n"}
    >>> merge_branches(*sides, MergePolicy.NAIVE).files
    {'a.py': 'x = 2\\n\\ny = 2\\n'}
    """
    policy = MergePolicy(policy)
    if first == second:
        return BranchMerge(first, policy, Strategy.IDENTICAL, ())
    if policy is MergePolicy.IDENTICAL:
        return BranchMerge(None, policy, Strategy.IDENTICAL, tuple(p for p in sorted(base) if first[p] != second[p]))
    files, conflicts = _three_way(base, first, second, union=False)
    if not conflicts:
        return BranchMerge(files, policy, Strategy.NAIVE, ())
    if policy is MergePolicy.UNION:
        return BranchMerge(_three_way(base, first, second, union=True)[0], policy, Strategy.UNION, conflicts)
    if policy is MergePolicy.LEAD_FALLBACK:
        return BranchMerge(first, policy, Strategy.LEAD, conflicts)
    return BranchMerge(None, policy, Strategy.NAIVE, conflicts)


def _three_way(base: Files, first: Files, second: Files, *, union: bool) -> tuple[Files, tuple[str, ...]]:
    """The merged files and the paths on which git met conflicts."""
    merged, conflicts = {}, []
    for path, text in base.items():
        if first[path] in (text, second[path]):
            merged[path] = second[path]
        elif second[path] == text:
            merged[path] = first[path]
        else:
            merged[path], conflict = merge_file(text, first[path], second[path], union=union)
            conflicts += [path] if conflict else []
    return merged, tuple(sorted(conflicts))


@functools.lru_cache(maxsize=4096)
def merge_file(base: str, first: str, second: str, *, union: bool = False) -> tuple[str, bool]:
    """git's merge of two versions of a file, and whether it met a conflict that `union` did not settle.

    As in CooperBench the first is merged into the second, so a union has the second's lines on top.

    Raises:
        RuntimeError: git failed.
    """
    with tempfile.TemporaryDirectory(prefix="marl-coop-") as folder:
        names = ("second", "base", "first")
        for name, text in zip(names, (second, base, first), strict=True):
            Path(folder, name).write_text(text, encoding="utf-8", newline="")
        options = ["--union"] if union else []
        result = subprocess.run(["git", "merge-file", "-p", "-q", *options, *names], cwd=folder, capture_output=True)
    if result.returncode > 127:  # up to there it is the number of conflicts
        raise RuntimeError(f"git merge-file failed: {result.stderr.decode(errors='replace').strip()}")
    return result.stdout.decode("utf-8"), result.returncode > 0


@functools.lru_cache(maxsize=1)
def need_git() -> None:
    """See that git is there and new enough.

    Raises:
        RuntimeError: it is not; the message has the version.
    """
    if shutil.which("git") is None:
        raise RuntimeError("git was not found on PATH; this environment merges with git. Install git 2.38 or newer.")
    version = subprocess.run(["git", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    found = re.search(r"(\d+)\.(\d+)", version)
    if found is None or tuple(map(int, found.groups())) < _OLDEST_GIT:
        raise RuntimeError(f"git is {version!r}; this environment needs git 2.38 or newer.")


def export(folder: Path, base: Files, history: Mapping[Seat, Sequence[Files]]) -> Repository:
    """A bare repository in a new folder: the base is `main`, and every seat's states are commits on its own branch.

    Raises:
        ValueError: there is something at the folder's path.
    """
    if folder.exists() and not (folder.is_dir() and next(folder.iterdir(), None) is None):
        raise ValueError(f"export: {folder} is there already and not empty; give a new folder for each episode.")
    repository = Repository.create(folder)
    stream = [_commit("main", "base", base)]
    for seat, states in history.items():
        stream.append(f"reset refs/heads/{seat}\nfrom refs/heads/main\n\n".encode())
        stream += [_commit(seat, f"{seat}: edit {number}", files) for number, files in enumerate(states, 1)]
    command = ["git", f"--git-dir={folder}", "fast-import", "--quiet"]
    subprocess.run(command, input=b"".join(stream), check=True, capture_output=True)
    return repository


def _commit(branch: str, message: str, files: Files) -> bytes:
    """The next commit of a branch, in the language of `git fast-import`."""
    head = f"commit refs/heads/{branch}\ncommitter {branch} <{branch}@localhost> 0 +0000\n".encode() + _data(message)
    return head + b"".join(f"M 100644 inline {path}\n".encode() + _data(files[path]) for path in files) + b"\n"


def _data(text: str) -> bytes:
    content = text.encode("utf-8")
    return f"data {len(content)}\n".encode() + content + b"\n"
