"""What a tree of files does: hidden and visible tests, run in the sandbox on modules that exist in memory only.

The modules of a tree are imported from a dictionary, so nothing is written to disk and the hidden tests are in no tree.
An expression reaches into the tree by `tree("shop.core")`, which imports the module; a module that is broken fails the
tests that need it and no others.
"""

import ast
import functools
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from envs.core.syntax import parse
from envs.repository.working_copy import TESTS, Files
from envs.sandbox import Part, Status, run_expressions

_LOADER = """
import sys
from importlib import import_module as {name}
from importlib.machinery import ModuleSpec


class _Tree:
    def __init__(self, files):
        self.files = files

    def find_spec(self, name, path=None, target=None):
        stem = name.replace(".", "/")
        if stem + ".py" in self.files:
            return ModuleSpec(name, self, origin=stem + ".py")
        if any(file.startswith(stem + "/") for file in self.files):
            return ModuleSpec(name, self, origin=stem + "/__init__.py", is_package=True)

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        origin = module.__spec__.origin
        exec(compile(self.files.get(origin, ""), origin, "exec", dont_inherit=True), module.__dict__)


sys.meta_path.insert(0, _Tree({files!r}))
"""


class TreeVerdict(NamedTuple):
    """Which expressions are true of a tree, and whether the sandbox could tell."""

    passed: tuple[bool, ...]
    status: Status
    detail: str


def judge(
    files: Files | None, expressions: Sequence[str], parts: Sequence[str] = (), *, timeout_s: float
) -> TreeVerdict:
    """Which expressions are true of a tree; none of them where there is no tree.

    Args:
        files: the tree, text by path.
        expressions: what is asked of it.
        parts: for each expression the part that it tests. What is asked of one part runs in a process of its own, on
            the whole tree; without parts all is of one.
        timeout_s: wall time in seconds for each process.

    >>> judge({"a.py": "x = 1"}, ['same(tree("a").x, 1)', 'same(tree("a").y, 1)'], timeout_s=2.0).passed
    (True, False)
    """
    if files is None:
        return TreeVerdict((False,) * len(expressions), Status.OK, "")
    parts = parts or [""] * len(expressions)
    names = {part: f"tree_{i}" for i, part in enumerate(dict.fromkeys(parts))}
    modules = repr({path: text for path, text in files.items() if path.endswith(".py")})
    trees = [Part(name, _LOADER.replace("{name}", name).replace("{files!r}", modules)) for name in names.values()]
    asked = [bound(text, {"tree": names[part]}) for text, part in zip(expressions, parts, strict=True)]
    result = run_expressions(tuple(trees), tuple(asked), timeout_s=timeout_s)
    return TreeVerdict(result.passed, result.status, result.detail)


_STRING = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""


def bound(expression: str, names: Mapping[str, str]) -> str:
    """The expression with names replaced by expressions of their own; strings and attributes stay as they are.

    >>> bound("same(encode('encode'), 20)", {"encode": 'tree("shop.codec").encode'})
    'same(tree("shop.codec").encode(\\'encode\\'), 20)'
    """
    pattern = rf"{_STRING}|(?<![\w.])(?:{'|'.join(map(re.escape, names))})(?!\w)"
    return re.sub(pattern, lambda found: names.get(found[0], found[0]), expression)


@functools.lru_cache(maxsize=1024)
def visible_tests(source: str) -> Mapping[str, str]:
    """The tests of a file under tests/: name of the function -> an expression that is true iff the test passes.

    A test is `def test_name():` with one `assert`, on modules that the file imports by `from package import module`.
    It is taken apart here, so what compares is never a process in which submitted code runs.

    >>> visible_tests("from shop import core\\ndef test_double():\\n    assert core.double(2) == 4")
    {'test_double': 'tree("shop.core").double(2) == 4'}
    """
    body = parse(source).body
    imports = [node for node in body if isinstance(node, ast.ImportFrom)]
    names = {alias.name: f'tree("{node.module}.{alias.name}")' for node in imports for alias in node.names}
    tests = [node for node in body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    return {test.name: bound(ast.unparse(_asserted(test)), names) for test in tests}


def _asserted(test: ast.FunctionDef) -> ast.expr:
    last = test.body[-1]
    if not isinstance(last, ast.Assert):
        raise ValueError(f"{test.name} ends in {ast.unparse(last)!r}; a visible test ends in its one assert.")
    return last.test


def kept_tests(files: Files) -> dict[str, str]:
    """The visible tests of a tree."""
    sources = [files[path] for path in sorted(files) if path.startswith(TESTS) and path.endswith(".py")]
    return {name: expression for source in sources for name, expression in visible_tests(source).items()}
