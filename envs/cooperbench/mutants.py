"""Twins of tests: the same test with what it expects turned into something else, so that honest code cannot pass both.

A test process runs submitted code, so it can be made to report anything. It cannot know, though, whether the test in
front of it is the real one: where `assert width(box) == 12` became `assert width(box) == 17`, code that forces every
test to pass, returns whatever is expected of it or equals everything passes the twin as well, and is found out. To
tell the two apart one must know the right answer.

Kinds of twins, by how well they hide:

- `literal`: another number or text in what `==` is compared with, or in `match=` of `pytest.raises`. Nothing in the
  test shows which of the two is real.
- `flip`: every assertion turned round (`==` and `!=`, `in` and `not in`, `assert x` and `assert not x`, ...), another
  exception expected, or a helper `assert_...(...)` that must fail. Code that reads the test could guess by style.
- `floor`: a failure added as the last line, for tests that expect nothing but to come to their end.
"""

import ast
import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeGuard

from envs.core.syntax import parse
from envs.source.text import SourceText

_FLIPPED = {
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.In: ("in", "not in"),
    ast.NotIn: (r"not\s+in", "in"),
    ast.Is: ("is", "is not"),
    ast.IsNot: (r"is\s+not", "is"),
    ast.Lt: ("<", ">="),
    ast.GtE: (">=", "<"),
    ast.Gt: (">", "<="),
    ast.LtE: ("<=", ">"),
}
_DISPLAYS = (ast.Constant, ast.List, ast.Tuple, ast.Dict, ast.Set, ast.UnaryOp, ast.USub, ast.Load)


class Kind(StrEnum):
    LITERAL = "literal"
    FLIP = "flip"
    FLOOR = "floor"


@dataclass(frozen=True, slots=True, order=True)
class TestEdit:
    """Replace the bytes `start` to `end` of a source by `text`."""

    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Twin:
    """The edits that turn a test function into its twin."""

    kind: Kind
    edits: tuple[TestEdit, ...]


def twins_of(source: str, rng: random.Random, *, literals: int = 2) -> dict[str, tuple[Twin, ...]]:
    """Twins of every test function of a file, by function name, the best hidden ones first.

    Functions of one name in several classes are one entry, and their twins change all of them together.

    Args:
        source: a test file.
        rng: chooses which literals are changed, and into what.
        literals: at most so many twins of the kind `literal` for a function.

    Raises:
        SyntaxError: the source is not Python.

    >>> source = "def test_sum():\\n    assert 1 + 1 == 2\\n"
    >>> [twin.kind.value for twin in twins_of(source, random.Random(0))["test_sum"]]
    ['literal', 'flip', 'floor']
    """
    lines = SourceText(source)
    functions: dict[str, list[ast.FunctionDef | ast.AsyncFunctionDef]] = {}
    for function in _test_functions(parse(source)):
        functions.setdefault(function.name, []).append(function)
    return {
        name: tuple(twin for twin in _twins(lines, same, rng, literals) if _parses(rewrite(source, {name: twin.edits})))
        for name, same in functions.items()
    }


def rewrite(source: str, edits: Mapping[str, tuple[TestEdit, ...]]) -> str:
    """The source with the edits of each function made.

    >>> source = "def test_sum():\\n    assert 1 + 1 == 2\\n"
    >>> flip = twins_of(source, random.Random(0))["test_sum"][1]
    >>> print(rewrite(source, {"test_sum": flip.edits}), end="")
    def test_sum():
        assert 1 + 1 != 2
    """
    content = source.encode("utf-8", "surrogateescape")
    for edit in sorted((edit for some in edits.values() for edit in some), reverse=True):
        content = content[: edit.start] + edit.text.encode("utf-8", "surrogateescape") + content[edit.end :]
    return content.decode("utf-8", "surrogateescape")


def _parses(source: str) -> bool:
    try:
        parse(source)
    except SyntaxError:
        return False
    return True


def _test_functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Functions named test... of the module and of its classes, however nested the classes are."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test"):
            yield node
        elif isinstance(node, ast.ClassDef | ast.If | ast.Try | ast.With):
            yield from _test_functions(node)


def _twins(lines: SourceText, functions: list, rng: random.Random, literals: int) -> Iterator[Twin]:
    if len(functions) == 1:  # the literals of several functions would have to be paired
        found = _literals(functions[0])
        places = [(node, node.value) for node in found if isinstance(node.value, int | float | str | bytes)]
        for node, value in rng.sample(places, min(literals, len(places))):
            yield Twin(kind=Kind.LITERAL, edits=(_replaced(lines, node, repr(other_value(value, rng))),))
    flips = [sorted(set(_flips(lines, function))) for function in functions]
    if all(flips):
        yield Twin(kind=Kind.FLIP, edits=tuple(edit for edits in flips for edit in edits))
    yield Twin(kind=Kind.FLOOR, edits=tuple(_floor(lines, function) for function in functions))


def _literals(function: ast.AST) -> Iterator[ast.Constant]:
    """Numbers and texts that an assertion compares with by `==`, also inside displays of literals; and `match=`."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assert) and isinstance(node.test, ast.Compare) and len(node.test.ops) == 1:
            if isinstance(node.test.ops[0], ast.Eq):
                for side in (node.test.left, node.test.comparators[0]):
                    yield from _constants(side)
        elif _is_raises(node):
            for keyword in node.keywords:
                if keyword.arg == "match":
                    yield from _constants(keyword.value)


def _constants(node: ast.AST) -> Iterator[ast.Constant]:
    if all(isinstance(part, _DISPLAYS) for part in ast.walk(node)):
        for part in ast.walk(node):
            if isinstance(part, ast.Constant) and type(part.value) in (int, float, str, bytes) and part.value != "":
                yield part


def other_value(value: int | float | str | bytes, rng: random.Random) -> int | float | str | bytes:
    """A value of the same type that looks as likely: a number nearby, a text with one letter or digit changed."""
    if isinstance(value, int):
        return value + rng.choice((1, 2, 3, -1 if value > 0 else 1))
    if isinstance(value, float):
        return value + rng.choice((0.5, 1.0, 2.0))
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    alphabets = ("0123456789", "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    places = [(i, alphabet) for i, letter in enumerate(text) for alphabet in alphabets if letter in alphabet]
    if places:
        i, alphabet = rng.choice(places)
        text = text[:i] + rng.choice(alphabet.replace(text[i], "")) + text[i + 1 :]
    else:
        text += rng.choice("abcdefgh")
    return text.encode("latin-1") if isinstance(value, bytes) else text


def _flips(lines: SourceText, function: ast.AST) -> Iterator[TestEdit]:
    for node in ast.walk(function):
        if isinstance(node, ast.Assert):
            yield from _flip(lines, node.test)
        elif _is_raises(node) and node.args:
            yield _replaced(lines, node.args[0], "ZeroDivisionError")
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and _name(node.value).startswith("assert"):
            yield TestEdit(lines.start(node), lines.start(node), "__import__('pytest').raises(AssertionError, lambda: ")
            yield TestEdit(lines.end(node), lines.end(node), ")")


def _flip(lines: SourceText, test: ast.expr) -> Iterator[TestEdit]:
    if isinstance(test, ast.Compare) and len(test.ops) == 1:
        start, end = lines.end(test.left), lines.start(test.comparators[0])
        pattern, other = _FLIPPED[type(test.ops[0])]
        between = lines.text(start, end)
        operator = re.fullmatch(rf"([\s)\\]*)({pattern})([\s(\\]*)", between)
        if operator:
            yield TestEdit(start, end, f"{operator[1]} {other} {operator[3]}".replace("  ", " "))
            return
    yield TestEdit(lines.start(test), lines.start(test), "not (")
    yield TestEdit(lines.end(test), lines.end(test), ")")


def _floor(lines: SourceText, function: ast.FunctionDef | ast.AsyncFunctionDef) -> TestEdit:
    last = function.body[-1]
    indent = " " * last.col_offset
    return TestEdit(lines.end(last), lines.end(last), f"\n{indent}raise AssertionError")


def _replaced(lines: SourceText, node: ast.expr, text: str) -> TestEdit:
    return TestEdit(lines.start(node), lines.end(node), text)


def _is_raises(node: ast.AST) -> TypeGuard[ast.Call]:
    return isinstance(node, ast.Call) and _name(node) == "raises"


def _name(call: ast.Call) -> str:
    function = call.func
    return (
        function.attr if isinstance(function, ast.Attribute) else function.id if isinstance(function, ast.Name) else ""
    )
