"""A bare git repository without a work tree: files and patches in, trees and merges of trees out.

    repository = Repository.create(folder / "bare.git")
    base = repository.write({"a.py": b"x = 1\\n"})
    left = repository.with_files(base, {"a.py": b"x = 2\\n"})
    right = repository.with_files(base, {"b.py": b"y = 1\\n"})
    tree, conflicts = repository.three_way(base, left, right)

A tree is named by its hash, so equal content has an equal name and a verdict can be cached by it. Needs git 2.38 or
newer (`git merge-tree --write-tree`). A call of git takes about 3 ms. It is git itself and no library of it, because
what is measured is what git does. Merges under a policy are in `envs.repository.merge`.
"""

import contextlib
import errno
import functools
import os
import re
import shutil
import subprocess
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from envs.repository.working_copy import Files
from envs.sandbox.scratch import scratch

EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
_OLDEST = (2, 38)  # the first with `git merge-tree --write-tree`
_REGULAR = frozenset(("100644", "100755"))
_NOBODY = {f"GIT_{who}_{what}": f"{who}@localhost" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")} | {
    f"GIT_{who}_DATE": "2000-01-01T00:00:00Z" for who in ("AUTHOR", "COMMITTER")
}


class GitError(RuntimeError):
    """git refused; the message has the command and what it said. That a disk is full is an OSError instead."""


class NoGitError(RuntimeError):
    """git is not there, or too old; the message says what to install."""


class PatchError(ValueError):
    """A patch does not apply to a tree; the message has what git said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PathConflict:
    """A path that git could not merge, and its word for why, such as "contents" or "modify/delete"."""

    path: str
    kind: str


class Repository:
    """A bare git repository. Trees and commits are given by hash; every method leaves the refs as they are."""

    def __init__(self, git_dir: Path):
        self.git_dir = Path(git_dir)

    @classmethod
    def create(cls, git_dir: Path) -> "Repository":
        """A new, empty repository in a folder that does not exist yet or is empty."""
        _git(None, "init", "--quiet", "--bare", str(git_dir))
        return cls(git_dir)

    @classmethod
    def clone(cls, source: str | Path, git_dir: Path) -> "Repository":
        """A bare copy of a repository: of a folder, sharing its objects (which must stay there), or of a URL."""
        if Path(source).is_dir():
            _git(None, "clone", "--quiet", "--bare", "--shared", str(Path(source).resolve()), str(git_dir))
        else:
            _git(None, "clone", "--quiet", "--bare", str(source), str(git_dir))
        return cls(git_dir)

    def tree(self, revision: str) -> str:
        """The tree of a commit, a ref or a tree.

        Raises:
            GitError: the repository has no such revision.
        """
        return self._git("rev-parse", "--verify", "--quiet", f"{revision}^{{tree}}").decode().strip()

    def write(self, files: Mapping[str, bytes]) -> str:
        """A tree of these files and no others."""
        return self.with_files(EMPTY_TREE, files)

    def with_files(self, tree: str, files: Mapping[str, bytes | None]) -> str:
        """The tree with files written over it; None removes one."""
        entries = []
        for path, content in files.items():
            blob = (
                None if content is None else self._git("hash-object", "-w", "--stdin", input=content).decode().strip()
            )
            entries.append((path, None if blob is None else ("100644", blob)))
        return self._with_entries(tree, entries)

    def take(self, tree: str, source: str, paths: Iterable[str]) -> str:
        """The tree with each of the paths as it is in `source`: regular files copied, missing ones removed.

        Raises:
            GitError: a path is a link or a submodule in `source`.
        """
        theirs = self.entries(source)
        entries = [(path, theirs.get(path)) for path in paths]
        for path, entry in entries:
            if entry is not None and entry[0] not in _REGULAR:
                raise GitError(f"{path} has mode {entry[0]} in {source}; only regular files can be taken.")
        return self._with_entries(tree, entries)

    def entries(self, tree: str) -> dict[str, tuple[str, str]]:
        """Mode and blob of every path."""
        listing = self._git("ls-tree", "-r", "-z", tree).decode("utf-8", "surrogateescape")
        found = {}
        for line in filter(None, listing.split("\0")):
            meta, path = line.split("\t", 1)
            mode, _, blob = meta.split()
            found[path] = (mode, blob)
        return found

    def read(self, tree: str, path: str) -> bytes | None:
        """Content of a file; None where the tree has none."""
        try:
            return self._git("cat-file", "blob", f"{tree}:{path}")
        except GitError:
            return None

    def blobs(self, names: Collection[str]) -> list[bytes]:
        """Contents of the blobs of these names (see `entries`), in their order, by one call of git."""
        output = self._git("cat-file", "--batch", input="".join(f"{name}\n" for name in names).encode())
        found, at = [], 0
        for _ in names:
            start = output.index(b"\n", at) + 1  # after a line `<name> blob <size>`
            end = start + int(output[at:start].split()[2])
            found.append(output[start:end])
            at = end + 1
        return found

    def changed(self, old: str, new: str) -> tuple[str, ...]:
        """Paths that differ between two trees, sorted."""
        names = self._git("diff-tree", "-r", "-z", "--name-only", "--no-renames", old, new)
        return tuple(sorted(filter(None, names.decode("utf-8", "surrogateescape").split("\0"))))

    def diff(self, old: str, new: str) -> str:
        """The patch from one tree to the other, as CooperBench wants it handed in."""
        return self._git("diff", "--no-color", "--no-ext-diff", "--full-index", "--binary", old, new).decode(
            "utf-8", "surrogateescape"
        )

    def apply(self, tree: str, patch: str, *, ignore_space: bool = False) -> str:
        """The tree after a unified diff: `git apply`, and where that fails `git apply --3way`.

        Raises:
            PatchError: neither works, or the patch has characters that are none (half of a surrogate pair).
        """
        if not patch.strip():
            return self.tree(tree)
        try:
            content = patch.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            raise PatchError(f"the patch does not apply to tree {tree[:12]}, for it is no text: {error}") from error
        spaces = ["--ignore-whitespace", "--ignore-space-change"] if ignore_space else []
        said = []
        for options in (spaces, ["--3way"]):
            with self._index(tree) as index:
                try:
                    self._git("apply", "--cached", *options, "-", input=content, index=index)
                    return self._git("write-tree", index=index).decode().strip()
                except GitError as error:
                    said.append(str(error))
        raise PatchError(f"the patch does not apply to tree {tree[:12]}: {said[0]}")

    def export(self, tree: str, folder: Path) -> None:
        """Write the files of a tree into a folder that exists."""
        with self._index(tree) as index:
            self._git(f"--work-tree={folder}", "checkout-index", "--all", index=index)

    def commit(self, tree: str, *parents: str) -> str:
        """A commit of the tree; equal trees and parents give an equal commit."""
        options = [word for parent in parents for word in ("-p", parent)]
        return self._git("commit-tree", tree, *options, "-m", "tree").decode().strip()

    def three_way(
        self, base: str, ours: str, theirs: str, *, union: bool = False
    ) -> tuple[str, tuple[PathConflict, ...]]:
        """git's merge of two trees over a base: the merged tree, with markers where there are conflicts."""
        root = self.commit(self.tree(base))
        sides = [self.commit(self.tree(side), root) for side in (ours, theirs)]
        with scratch() as folder:
            attributes = folder / "attributes"
            attributes.write_text("* merge=union\n" if union else "")
            config = ["-c", f"core.attributesFile={attributes}"]
            result = _run(self.git_dir, [*config, "merge-tree", "--write-tree", "--name-only", "-z", *sides])
        if result.returncode not in (0, 1):
            raise _error("git merge-tree", result)
        return _read_merge(result.stdout.decode("utf-8", "surrogateescape"))

    def _with_entries(self, tree: str, entries: Iterable[tuple[str, tuple[str, str] | None]]) -> str:
        lines = [f"{entry[0]} {entry[1]}\t{path}\0" if entry else f"0 {'0' * 40}\t{path}\0" for path, entry in entries]
        with self._index(tree) as index:
            content = "".join(lines).encode("utf-8", "surrogateescape")
            self._git("update-index", "-z", "--index-info", input=content, index=index)
            return self._git("write-tree", index=index).decode().strip()

    @contextlib.contextmanager
    def _index(self, tree: str) -> Iterator[str]:
        """An index file of its own that holds a tree."""
        with scratch() as folder:
            index = str(folder / "index")
            self._git("read-tree", tree, index=index)
            yield index

    def _git(self, *words: str, input: bytes = b"", index: str | None = None) -> bytes:
        return _git(self.git_dir, *words, input=input, index=index)


@functools.cache
def need_git() -> None:
    """See that git is there and new enough.

    Raises:
        NoGitError: it is not; the message has the version.
    """
    if shutil.which("git") is None:
        raise NoGitError("git was not found on PATH; this environment merges with git. Install git 2.38 or newer.")
    version = subprocess.run(["git", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    found = re.search(r"(\d+)\.(\d+)", version)
    if found is None or tuple(map(int, found.groups())) < _OLDEST:
        raise NoGitError(f"git is {version!r}; this environment needs git 2.38 or newer.")


@functools.lru_cache(maxsize=4096)
def merge_file(base: str, first: str, second: str, *, union: bool = False) -> tuple[str, bool]:
    """git's merge of two versions of a file, and whether it met a conflict that `union` did not settle.

    As in CooperBench the first is merged into the second, so a union has the second's lines on top.

    Raises:
        GitError: git failed.
    """
    with scratch() as folder:
        names = ("second", "base", "first")
        for name, text in zip(names, (second, base, first), strict=True):
            (folder / name).write_text(text, encoding="utf-8", newline="")
        options = ["--union"] if union else []
        result = _run(None, ["merge-file", "-p", "-q", *options, *names], cwd=folder)
    if result.returncode > 127:  # up to there it is the number of conflicts
        raise _error("git merge-file", result)
    return result.stdout.decode("utf-8"), result.returncode > 0


@functools.lru_cache(maxsize=4096)
def changed_lines(old: str, new: str) -> tuple[tuple[int, int], ...]:
    """The runs [first, last) of lines, from 0, that git's diff changes in an old text; an insertion is an empty run.

    >>> changed_lines("a\\nb\\nc\\n", "a\\nx\\nc\\nd\\n")
    ((1, 2), (3, 3))
    """
    with scratch() as folder:
        for name, text in (("old", old), ("new", new)):
            (folder / name).write_text(text, encoding="utf-8", newline="")
        words = ["diff", "--no-index", "--no-color", "--no-ext-diff", "--text", "-U0", "old", "new"]
        result = _run(None, words, cwd=folder)
    if result.returncode not in (0, 1):
        raise _error("git diff", result)
    runs = []
    for start, count in re.findall(rb"^@@ -(\d+)(?:,(\d+))? ", result.stdout, re.MULTILINE):
        size = int(count or 1)
        first = int(start) - (size > 0)  # where nothing is taken out, git names the line before
        runs.append((first, first + size))
    return tuple(runs)


def export(folder: Path, base: Files, history: Mapping[str, Sequence[Files]]) -> Repository:
    """A bare repository in a new folder: the base is `main`, the states of every branch are commits on it.

    Raises:
        ValueError: there is something at the folder's path.
    """
    if folder.exists() and not (folder.is_dir() and next(folder.iterdir(), None) is None):
        raise ValueError(f"export: {folder} is there already and not empty; give a new folder for each episode.")
    repository = Repository.create(folder)
    stream = [_commit("main", "base", base)]
    for branch, states in history.items():
        stream.append(f"reset refs/heads/{branch}\nfrom refs/heads/main\n\n".encode())
        stream += [_commit(branch, f"{branch}: edit {number}", files) for number, files in enumerate(states, 1)]
    _git(folder, "fast-import", "--quiet", input=b"".join(stream))
    return repository


def _commit(branch: str, message: str, files: Files) -> bytes:
    """The next commit of a branch, in the language of `git fast-import`."""
    head = f"commit refs/heads/{branch}\ncommitter {branch} <{branch}@localhost> 0 +0000\n".encode() + _data(message)
    return head + b"".join(f"M 100644 inline {path}\n".encode() + _data(files[path]) for path in files) + b"\n"


def _data(text: str) -> bytes:
    content = text.encode("utf-8")
    return f"data {len(content)}\n".encode() + content + b"\n"


def _read_merge(output: str) -> tuple[str, tuple[PathConflict, ...]]:
    """The tree and the conflicts in what `git merge-tree --name-only -z` prints.

    Fields end in NUL: the tree, the conflicting paths, an empty field, then messages of a count of paths, the paths,
    a type and a text.
    """
    tree, *fields = output.split("\0")
    paths = []
    while fields and fields[0]:
        paths.append(fields.pop(0))
    fields = fields[1:]
    kinds: dict[str, str] = {}
    while len(fields) > 2:
        count = int(fields[0])
        named, kind = fields[1 : 1 + count], fields[1 + count]
        if kind.startswith("CONFLICT"):
            kinds |= dict.fromkeys(named, kind.removeprefix("CONFLICT").strip(" ()"))
        fields = fields[3 + count :]
    return tree.strip(), tuple(
        PathConflict(path=path, kind=kinds.get(path, "contents")) for path in dict.fromkeys(paths)
    )


def _run(
    git_dir: Path | None, words: list[str], input: bytes = b"", index: str | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[bytes]:
    keep = {
        name: os.environ[name] for name in ("PATH", "SSL_CERT_FILE", "https_proxy", "HTTPS_PROXY") if name in os.environ
    }
    clean = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, "LC_ALL": "C", "HOME": "/nonexistent"}
    above = {"GIT_CEILING_DIRECTORIES": os.path.dirname(cwd)} if cwd else {}  # no settings of a repository around it
    env = keep | clean | _NOBODY | above | ({"GIT_INDEX_FILE": index} if index else {})
    where = [f"--git-dir={git_dir}"] if git_dir else []
    return subprocess.run(
        ["git", *where, "-c", "core.attributesFile=/dev/null", *words],
        input=input,
        env=env,
        cwd=cwd,
        capture_output=True,
    )


def _git(git_dir: Path | None, *words: str, input: bytes = b"", index: str | None = None) -> bytes:
    result = _run(git_dir, list(words), input, index)
    if result.returncode:
        raise _error(f"git {' '.join(words)}", result)
    return result.stdout


def _error(command: str, result: subprocess.CompletedProcess[bytes]) -> GitError | OSError:
    """What a command of git that failed is to raise: that a disk is full says nothing of what it was asked to do."""
    said = f"{command}: {result.stderr.decode(errors='replace').strip() or f'exit {result.returncode}'}"
    full = any(words in said for words in (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT), "Out of diskspace"))
    return OSError(errno.ENOSPC, said) if full else GitError(said)
