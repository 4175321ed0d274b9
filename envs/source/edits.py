"""What the seats of a merge changed, and whose changes are in the code that came of it.

Code is compared by what it means to Python and not by its text: comments, docstrings, layout and the order of
definitions and statements are no edits, nor are files that are not Python. The names of local variables are.
"""

import ast
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache, reduce
from operator import or_
from typing import NamedTuple

from envs.core.episode import Merge
from envs.core.syntax import parse
from envs.core.task import Seat

_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


class SourceEdit(NamedTuple):
    """One piece that was added ("+") to a symbol or removed ("-") from it.

    A symbol is what a module or a class defines, as `load` or `Cache.get`. Its pieces are its parameters, decorators,
    base classes and return type, and each statement (that of a block by its head).
    """

    path: str
    symbol: str
    sign: str
    piece: str


def edits(before: Mapping[str, str], after: Mapping[str, str]) -> Counter[SourceEdit]:
    r"""The edits that lead from one code to another; code maps paths to sources.

    Raises SyntaxError, or what else `ast.parse` raises, for a source that is no Python.

    >>> old, new = {"a.py": "def f(x):\n  return x"}, {"a.py": "def f(x, by=1):  # how far\n    return x + by"}
    >>> for edit in sorted(edits(old, new)):
    ...     print(edit.symbol, edit.sign, edit.piece)
    f + by=1
    f + return x + by
    f - return x
    """
    old, new = _pieces(before), _pieces(after)
    signed = [("+", piece) for piece in (new - old).elements()] + [("-", piece) for piece in (old - new).elements()]
    return Counter(SourceEdit(path, symbol, sign, piece) for sign, (path, symbol, piece) in signed)


def surviving(merge: Merge) -> dict[Seat, int]:
    """How many edits of each seat alone are in the final code, on contested symbols: those that several seats changed.

    Only for the seats that changed one; {} where there is none, and where a source is no Python.
    """
    try:
        made = {seat: edits(merge.base, code) for seat, code in merge.proposals.items()}
        final = edits(merge.base, merge.final)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # whatever a model wrote
        return {}
    counts = {}
    for seat, mine in made.items():
        theirs = [made[partner] for partner in made if partner != seat]
        contested = _symbols(mine) & set().union(*map(_symbols, theirs))
        if contested:
            alone = mine - reduce(or_, theirs)
            counts[seat] = sum(n for edit, n in (final & alone).items() if edit[:2] in contested)
    return counts


def mixing(edits: Mapping[Seat, int]) -> float | None:
    r"""Share of the `surviving` edits that are not of the seat with most of them; None where none survives.

    Range: [0, 1 - 1 / seats]; 0 where one seat's version was taken. With two seats it is min(m, 1 - m) of
    m = |F & E_n - E_e| / |F & (E_e ^ E_n)|, with F, E_e and E_n the edits of the final code and of both proposals on
    contested symbols: 0.2 < m < 0.8 is `mixing` > 0.2, whichever seat is called the expert.

    One seat extended a function's signature (one edit) and the other its body (two); the final code has both:

    >>> base = "def load(path):\n    return read(path)"
    >>> one, other = base.replace("(path):", "(path, text=True):"), base.replace("read(path)", "check(read(path))")
    >>> final = one.replace("read(path)", "check(read(path))")
    >>> edits = surviving(Merge(base={"a.py": base}, proposals={"agent_0": {"a.py": one}, "agent_1": {"a.py": other}},
    ...                         final={"a.py": final}, worth={}, conflict=False, policy="naive"))
    >>> edits, round(mixing(edits), 3)
    ({'agent_0': 1, 'agent_1': 2}, 0.333)
    """
    total = sum(edits.values())
    return (total - max(edits.values())) / total if total else None


def _symbols(some: Iterable[SourceEdit]) -> set[tuple[str, str]]:
    return {(edit.path, edit.symbol) for edit in some}


def _pieces(code: Mapping[str, str]) -> Counter[tuple[str, str, str]]:
    """(path, symbol, piece) of all that is in the Python files."""
    sources = {path: source for path, source in code.items() if path.endswith(".py")}
    return Counter((path, *found) for path, source in sources.items() for found in _found(source))


@lru_cache(maxsize=64)  # each seat and each metric reads the same sources
def _found(source: str) -> tuple[tuple[str, str], ...]:
    """(symbol, piece) of all that is in a module."""
    tree = parse(source)
    for node in ast.walk(tree):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            del node.body[0]
    return tuple(_defined(tree.body))


def _defined(body: Iterable[ast.stmt], scope: str = "") -> Iterator[tuple[str, str]]:
    """(symbol, piece) of what the body of a module or of a class defines."""
    for node in body:
        match node:
            case ast.ClassDef():
                found = [(node.name, piece) for piece in (*_head(node), *_texts([*node.bases, *node.keywords]))]
                yield from _defined(node.body, f"{scope}{node.name}.")
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                found = [(node.name, piece) for piece in (*_head(node), *_signature(node), *_lines(node.body))]
            case ast.Import() | ast.ImportFrom():
                source = f"from {'.' * node.level}{node.module or ''} " if isinstance(node, ast.ImportFrom) else ""
                found = [(name, f"{source}import {name}") for name in _texts(node.names)]
            case ast.Assign():
                found = [(", ".join(_texts(node.targets)), ast.unparse(node))]
            case ast.AnnAssign() | ast.AugAssign():
                found = [(ast.unparse(node.target), ast.unparse(node))]
            case _:
                lines = _lines([node])
                found = [(lines[0], line) for line in lines]
        yield from ((scope + symbol, piece) for symbol, piece in found)


def _head(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """That there is such a thing, and its decorators."""
    return [type(node).__name__, *(f"@{text}" for text in _texts(node.decorator_list))]


def _signature(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """Each parameter with its default, and the return type."""
    args = node.args
    positional = [*args.posonlyargs, *args.args]
    defaults = [None] * (len(positional) - len(args.defaults)) + args.defaults + args.kw_defaults
    pairs = zip([*positional, *args.kwonlyargs], defaults, strict=True)
    pieces = [ast.unparse(arg) + (f"={ast.unparse(default)}" if default else "") for arg, default in pairs]
    pieces += [star + ast.unparse(arg) for star, arg in (("*", args.vararg), ("**", args.kwarg)) if arg]
    return [*pieces, f"-> {ast.unparse(node.returns)}"] if node.returns else pieces


def _texts(nodes: Iterable[ast.AST]) -> list[str]:
    return [ast.unparse(node) for node in nodes]


def _lines(body: Iterable[ast.stmt]) -> list[str]:
    """The statements, one to a line."""
    return [line for text in _texts(body) for line in text.split("\n")]
