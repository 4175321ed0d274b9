"""Merges beside git's own: policies, whole trees, exported branches."""

import subprocess

import numpy as np
import pytest

from envs.repository import git
from envs.repository.git import Repository, export, need_git
from envs.repository.merge import MergePolicy, Strategy, merge_branches, merge_trees

BASE = {"a.py": "one\ntwo\nthree\nfour\nfive\n", "b.py": "x = 1\n"}


def changed(rng, text):
    """A text with one line put in, replaced or taken out; sometimes without the newline at its end."""
    lines, at, word = text.split("\n"), rng.integers(text.count("\n")), rng.choice(["one", "six", ""])
    lines[at : at + rng.integers(2)] = [word] * rng.integers(2)
    return "\n".join(lines)[: None if rng.integers(4) else -1]


def test_a_merge_is_gits_own_merge_of_the_whole_tree(tmp_path):
    rng, cases = np.random.default_rng(0), []
    for _ in range(24):
        first, second = ({path: changed(rng, text) for path, text in BASE.items()} for _ in range(2))
        cases.append((first, BASE | {"a.py": second["a.py"]}))
    branches = {f"{side}-{i}": [files] for i, case in enumerate(cases) for side, files in zip("fs", case, strict=True)}
    repository = export(tmp_path / "bare.git", BASE, branches)
    seen = set()
    for i, (first, second) in enumerate(cases):
        policy = list(MergePolicy)[i % 4]
        theirs = merge_trees(repository, "main", f"f-{i}", f"s-{i}", policy)
        ours = merge_branches(BASE, first, second, policy)
        assert ours.paths == tuple(sorted(conflict.path for conflict in theirs.conflicts))
        assert (ours.policy, ours.strategy, ours.final is None) == (policy, theirs.strategy, theirs.final is None)
        if ours.final is not None:
            assert ours.final == {path: repository.read(theirs.final, path).decode() for path in BASE}
        seen.add((policy, bool(ours.conflicts)))
    assert len(seen) >= 6  # both ends of most policies were met


def side(**texts):
    return BASE | {f"{name}.py": text for name, text in texts.items()}


def test_changes_of_different_files_and_of_different_lines_merge():
    first, second = side(a="ONE\ntwo\nthree\nfour\nfive\n"), side(a="one\ntwo\nthree\nfour\nFIVE\n", b="x = 2\n")
    merged = merge_branches(BASE, first, second, MergePolicy.NAIVE)
    assert merged.final == {"a.py": "ONE\ntwo\nthree\nfour\nFIVE\n", "b.py": "x = 2\n"}
    assert (merged.strategy, merged.conflicts) == (Strategy.NAIVE, ())


def test_a_conflict_leaves_no_files_but_by_the_policy():
    first, second = side(a="one\nTWO\nthree\nfour\nfive\n"), side(a="one\n2\nthree\nfour\nfive\n", b="x = 2\n")
    results = {policy: merge_branches(BASE, first, second, policy) for policy in MergePolicy}
    assert results[MergePolicy.NAIVE].final is None and results[MergePolicy.IDENTICAL].final is None
    assert results[MergePolicy.UNION].final == {"a.py": "one\n2\nTWO\nthree\nfour\nfive\n", "b.py": "x = 2\n"}
    assert results[MergePolicy.LEAD_FALLBACK].final == first
    assert {policy: merge_branches(BASE, first, second, policy.value) for policy in MergePolicy} == results
    with pytest.raises(ValueError, match="policy is 'typo'; it must be one of naive, union"):
        merge_branches(BASE, first, second, "typo")
    assert results[MergePolicy.IDENTICAL].paths == ("a.py", "b.py") and results[MergePolicy.UNION].paths == ("a.py",)
    assert all(result.policy is policy for policy, result in results.items())


def test_a_file_that_one_side_changed_costs_no_process(monkeypatch):
    monkeypatch.setattr(git.subprocess, "run", None)
    first, second = side(a="anything\n"), side(b="x = 3\n")
    assert merge_branches(BASE, first, second, MergePolicy.NAIVE).final == {"a.py": "anything\n", "b.py": "x = 3\n"}


def test_what_git_merged_once_is_not_merged_again(monkeypatch):
    first, second = side(a="zero\none\ntwo\nthree\nfour\nfive\n"), side(a="one\ntwo\nthree\nfour\nfive\nseven\n")
    once = merge_branches(BASE, first, second, MergePolicy.NAIVE)
    monkeypatch.setattr(git.subprocess, "run", None)
    assert merge_branches(BASE, first, second, MergePolicy.NAIVE) == once


def test_without_a_new_enough_git_there_is_one_clear_error(monkeypatch):
    for version, message in (("git version 2.30.1", "needs git 2.38"), (None, "not found on PATH")):
        need_git.cache_clear()
        monkeypatch.setattr(git.shutil, "which", lambda _, found=version: found)
        done = subprocess.CompletedProcess([], 0, stdout=version)
        monkeypatch.setattr(git.subprocess, "run", lambda *_, done=done, **__: done)
        with pytest.raises(RuntimeError, match=message):
            need_git()
    need_git.cache_clear()


def test_an_exported_repository_has_a_branch_for_each_seat_with_its_history(tmp_path):
    states = [side(b="x = 2\n"), side(b="x = 3\n")]
    repository = export(tmp_path / "bare.git", BASE, {"agent_0": states, "agent_1": []})
    log = subprocess.run(
        ["git", f"--git-dir={tmp_path / 'bare.git'}", "log", "--format=%D %s", "agent_0", "--"],
        capture_output=True,
        text=True,
    )
    assert [line.strip() for line in log.stdout.splitlines()] == [
        "agent_0 agent_0: edit 2",
        "agent_0: edit 1",
        "main, agent_1 base",
    ]
    assert repository.read("agent_0", "b.py") == b"x = 3\n" and repository.read("agent_1", "b.py") == b"x = 1\n"
    assert isinstance(repository, Repository)
