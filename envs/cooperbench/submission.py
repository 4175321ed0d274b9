"""What of a submitted patch is merged, and what of the merged tree counts."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePosixPath

from envs.cooperbench.dataset import patched_paths
from envs.repository.git import PatchError, Repository

_TEST_FOLDERS = frozenset(("test", "tests", "__tests__", "spec", "testdata"))
_TEST_FILE = re.compile(r"test_.+|.+_test\.\w+|.+\.(test|spec)\.\w+|.*Tests?\.(java|kt|cs|scala)|tests?\.py")
_SECTION = re.compile(r"^(?=diff --git )", re.MULTILINE)
_LONGEST_NAME = 255  # bytes, of the kernel
_LONGEST_PATH = 3072  # bytes, of the kernel's 4,096 with the folders in which a tree is put
_SOURCES = frozenset((".py", ".pyi"))
_QUOTED = "'\\''"  # what a shell makes of an apostrophe, and Python's own literal of one


class Applied(StrEnum):
    """The benchmark's words for what became of a patch."""

    APPLIED = "applied"
    SKIPPED = "skipped"  # there was nothing in it
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A patch on the base: the tree that is merged, and the paths in the patch that do not count."""

    status: Applied
    tree: str
    ignored: tuple[str, ...] = ()
    detail: str = ""


def submit(repository: Repository, base: str, patch: str, packages: Sequence[str]) -> Submission:
    """Apply a patch as the benchmark does: without its test files, by `git apply` or else `git apply --3way`.

    A patch that does not apply gives the base. So does one with a name that no disk takes, and one that is no text
    (half of a surrogate pair), which the official evaluator cannot read: it then ends without a verdict. What is
    changed outside of the packages is merged (so that it can conflict, as in the benchmark) and then does not count.
    """
    text = patch.replace(_QUOTED, "'")
    sections = _SECTION.split(text if text.endswith("\n") else text + "\n")
    kept = "".join(section for section in sections if not any(map(is_test_path, patched_paths(section))))
    tests = tuple(path for path in patched_paths(text) if is_test_path(path))
    if not kept.strip():
        return Submission(status=Applied.SKIPPED, tree=base, ignored=tests)
    try:
        tree = repository.apply(base, kept)
    except PatchError as error:
        return Submission(status=Applied.FAILED, tree=base, ignored=tests, detail=str(error))
    changed = repository.changed(base, tree)
    if long := next(filter(_is_too_long, changed), ""):
        return Submission(
            status=Applied.FAILED, tree=base, ignored=tests, detail=f"{long[:80]!r}... is too long a name"
        )
    outside = tuple(path for path in changed if not counts(path, packages))
    return Submission(status=Applied.APPLIED, tree=tree, ignored=tests + outside)


def handed_in(diff: str) -> str:
    r"""The patch that `submit` and the benchmark take for a diff: both undo a shell's quotes, wherever they stand.

    So a diff that looks quoted, as one with the literal of an apostrophe does, is quoted once more.

    >>> print(handed_in("+QUOTE = '\\''"))
    +QUOTE = '\''\'\'''\''
    >>> handed_in("+QUOTE = '\\''").replace("'\\''", "'") == "+QUOTE = '\\''"
    True
    """
    return diff.replace("'", _QUOTED) if _QUOTED in diff else diff


def is_test_path(path: str) -> bool:
    """Whether the benchmark takes a path for a test file, in any language.

    >>> [is_test_path(path) for path in ("tests/data.txt", "src/mux_test.go", "src/attest.py")]
    [True, True, False]
    """
    *folders, name = PurePosixPath(path).parts
    return bool(_TEST_FOLDERS.intersection(folders) or _TEST_FILE.fullmatch(name))


def _is_too_long(path: str) -> bool:
    content = path.encode("utf-8", "surrogateescape")
    return len(content) > _LONGEST_PATH or max(map(len, content.split(b"/"))) > _LONGEST_NAME


def counts(path: str, packages: Sequence[str]) -> bool:
    """Whether a change of a path counts: Python sources inside the packages that the task is about, and no tests.

    Everything that steers pytest or Python's start (`conftest.py`, `pytest.ini`, `setup.cfg`, `pyproject.toml`,
    `sitecustomize.py`, ...) does not.

    >>> counts("src/click/core.py", ["src/click"]), counts("src/sitecustomize.py", ["src/click"])
    (True, False)
    """
    inside = any(PurePosixPath(path).is_relative_to(package) for package in packages)
    source = PurePosixPath(path).suffix in _SOURCES
    return inside and source and not is_test_path(path) and PurePosixPath(path).name != "conftest.py"


def graded_tree(repository: Repository, base: str, trusted: str, tree: str, packages: Sequence[str]) -> str:
    """The trusted tree (base and hidden tests) with those changes of a tree that count, and only regular files."""
    entries = repository.entries(tree)
    regular = {"100644", "100755"}
    paths = [
        path
        for path in repository.changed(base, tree)
        if counts(path, packages) and (path not in entries or entries[path][0] in regular)
    ]
    return repository.take(trusted, tree, paths)
