"""Merging in a bare repository, against git in a work tree."""

import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.repository.git import GitError, PatchError, Repository, changed_lines, merge_file
from envs.repository.merge import MergePolicy, Strategy, merge_trees

TEXT = b"".join(b"line %d\n" % i for i in range(9))


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    return Repository.create(tmp_path_factory.mktemp("git") / "bare.git")


def sides(repository, left, right):
    base = repository.write({"a.py": TEXT, "folder/b.py": b"b\n"})
    return base, repository.with_files(base, left), repository.with_files(base, right)


TOP, BOTTOM, OTHER = TEXT.replace(b"line 0", b"top"), TEXT.replace(b"line 8", b"bottom"), TEXT.replace(b"line 0", b"x")


@pytest.mark.parametrize("policy", [MergePolicy.NAIVE, MergePolicy.UNION, MergePolicy.LEAD_FALLBACK])
def test_changes_far_apart_merge_under_every_policy_that_merges(repository, policy):
    result = merge_trees(repository, *sides(repository, {"a.py": TOP}, {"a.py": BOTTOM}), policy)
    assert result.clean and result.strategy is Strategy.NAIVE and result.policy is policy
    assert repository.read(result.final, "a.py") == TOP.replace(b"line 8", b"bottom")


def test_each_policy_has_its_own_answer_to_a_conflict(repository):
    base, first, second = sides(repository, {"a.py": TOP}, {"a.py": OTHER})
    results = {policy: merge_trees(repository, base, first, second, policy) for policy in MergePolicy}
    assert results[MergePolicy.NAIVE].final is None and results[MergePolicy.IDENTICAL].final is None
    assert results[MergePolicy.LEAD_FALLBACK].final == first
    assert repository.read(results[MergePolicy.UNION].final, "a.py") == TOP.replace(b"top\n", b"x\ntop\n")
    named = {policy: result.strategy.value for policy, result in results.items()}
    assert named == {"naive": "naive", "union": "union", "lead_fallback": "lead", "identical": "identical"}
    assert [(c.path, c.kind) for c in results[MergePolicy.NAIVE].conflicts] == [("a.py", "contents")]
    assert b"<<<<<<<" in repository.read(results[MergePolicy.NAIVE].marked, "a.py")


@pytest.mark.parametrize("policy", MergePolicy)
def test_equal_sides_are_not_merged(repository, policy):
    base, first, _ = sides(repository, {"a.py": TOP}, {})
    result = merge_trees(repository, base, first, first, policy)
    assert (result.final, result.strategy, result.conflicts) == (first, Strategy.IDENTICAL, ())


def test_a_union_cannot_settle_a_removed_file(repository):
    base, first, second = sides(repository, {"a.py": None}, {"a.py": TOP})
    result = merge_trees(repository, base, first, second, MergePolicy.UNION)
    assert result.final is None and [c.kind for c in result.conflicts] == ["modify/delete"]


@pytest.mark.parametrize("policy", MergePolicy)
def test_a_policy_by_name_is_that_policy(repository, policy):
    trees = sides(repository, {"a.py": TOP}, {"a.py": OTHER})
    assert merge_trees(repository, *trees, policy.value) == merge_trees(repository, *trees, policy)
    with pytest.raises(ValueError, match="policy is 'typo'; it must be one of naive, union, lead_fallback, identical"):
        merge_trees(repository, *trees, "typo")


def test_many_blobs_are_read_at_once(repository):
    files = {"a.py": TEXT, "b.bin": b"\n\0\n", "empty.py": b""}
    names = [name for _, name in repository.entries(repository.write(files)).values()]
    assert repository.blobs(names) == list(files.values()) and repository.blobs([]) == []


def lines():
    return st.lists(st.sampled_from(["keep", "drop", "edit", "grow"]), min_size=9, max_size=9)


def changed(plan, mark):
    kept = {"keep": "{0}", "drop": "", "edit": "{1}", "grow": "{0}{1}"}
    return "".join(kept[do].format(f"line {i}\n", f"{mark} {i}\n") for i, do in enumerate(plan)).encode()


@settings(max_examples=15)
@given(lines(), lines())
def test_a_merge_of_one_file_is_that_of_git_merge_file(tmp_path_factory, repository, left, right):
    files = {"first": changed(left, "first"), "base": TEXT, "second": changed(right, "second")}
    base, first, second = sides(repository, {"a.py": files["first"]}, {"a.py": files["second"]})
    folder = tmp_path_factory.mktemp("merge")
    for name, content in files.items():
        (folder / name).write_bytes(content)
    reference = subprocess.run(["git", "merge-file", "-p", "second", "base", "first"], cwd=folder, capture_output=True)
    result = merge_trees(repository, base, first, second, MergePolicy.NAIVE)
    assert result.clean == (reference.returncode == 0)
    if result.clean:
        assert repository.read(result.final, "a.py") == reference.stdout


def test_settings_of_the_user_change_nothing(repository, tmp_path, monkeypatch):
    (tmp_path / ".gitconfig").write_text("[merge]\n\tconflictStyle = nonsense\n[core]\n\tattributesFile = ~/all\n")
    (tmp_path / "all").write_text("* merge=union\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert merge_trees(repository, *sides(repository, {"a.py": TOP}, {"a.py": OTHER}), MergePolicy.NAIVE).final is None


def test_settings_of_a_repository_around_the_temporary_folder_change_nothing(tmp_path, monkeypatch):
    texts = ("x\ny\n", "left\ny\n", "right\ny\n")
    merged, runs = merge_file(*texts), changed_lines(*texts[:2])
    merge_file.cache_clear()
    changed_lines.cache_clear()
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    ran = tmp_path / "ran"
    settings = f'[merge]\nconflictStyle = diff3\n[diff "mine"]\ntextconv = touch {ran}; true\n'
    (tmp_path / ".git" / "config").write_text(settings)
    (tmp_path / ".git" / "info").mkdir(exist_ok=True)
    (tmp_path / ".git" / "info" / "attributes").write_text("* diff=mine\n")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert (merge_file(*texts), changed_lines(*texts[:2])) == (merged, runs) and not ran.exists()


def test_a_diff_applies_to_its_base_and_gives_the_tree_back(repository):
    base, first, _ = sides(repository, {"a.py": TOP, "folder/b.py": None, "new.bin": b"\0\1"}, {})
    assert repository.changed(base, first) == ("a.py", "folder/b.py", "new.bin")
    assert repository.apply(base, repository.diff(base, first)) == first


def test_a_patch_of_other_lines_is_refused_with_what_git_said(repository):
    base, first, second = sides(repository, {"a.py": TOP}, {"a.py": b"other\n"})
    with pytest.raises(PatchError, match="patch failed: a.py:1"):
        repository.apply(second, repository.diff(base, first))


def test_a_patch_that_is_no_text_is_refused(repository):
    with pytest.raises(PatchError, match="it is no text: .*surrogates not allowed"):
        repository.apply(repository.write({"a.py": TEXT}), "diff --git a/a.py b/a.py\n\ud800")


def test_an_export_has_every_file_whatever_attributes_say(repository, tmp_path):
    tree = repository.write({"a.py": TEXT, "folder/b.py": b"b\n", ".gitattributes": b"*.py export-ignore\n"})
    repository.export(tree, tmp_path)
    assert (tmp_path / "a.py").read_bytes() == TEXT and (tmp_path / "folder/b.py").read_bytes() == b"b\n"


def link_patch(path, target):
    """The patch that adds a symbolic link."""
    head = f"diff --git a/{path} b/{path}\nnew file mode 120000\n--- /dev/null\n+++ b/{path}\n"
    return f"{head}@@ -0,0 +1 @@\n+{target}\n\\ No newline at end of file\n"


def test_a_link_cannot_be_taken_from_a_tree(repository):
    tree = repository.apply(repository.write({"a.py": TEXT}), link_patch("link.py", "/etc/passwd"))
    with pytest.raises(GitError, match="link.py has mode 120000"):
        repository.take(repository.write({"a.py": TEXT}), tree, ["link.py"])


def test_a_tree_that_is_not_there_is_an_error(repository):
    with pytest.raises(GitError):
        merge_trees(repository, "0" * 40, "1" * 40, "2" * 40, MergePolicy.NAIVE)
