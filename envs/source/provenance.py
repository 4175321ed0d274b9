"""Who wrote how much of the merged code: what a seat's own part needs survives, everything else was written in vain."""

import ast
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

from envs.core.episode import Provenance
from envs.core.syntax import parse
from envs.core.task import Seat
from envs.core.tokens import message_tokens
from envs.source.text import SourceText

_WORD = re.compile(r"\w+")


def provenance(names: Mapping[Seat, str], work: Mapping[Seat, str]) -> Provenance:
    """The ledger of a merge that takes one of the `names`, and what that name needs, from each seat's work."""
    sizes = {seat: definitions(source) for seat, source in work.items()}
    defined = {seat: nodes(source) for seat, source in work.items()}
    kept = {seat: needed(work[seat], name) for seat, name in names.items()}
    duplicated = 0
    for symbol in sorted(set().union(*sizes.values())):
        written = [size[symbol] for size in sizes.values() if symbol in size]
        if sum(symbol in survivors for survivors in kept.values()) == 1:
            duplicated += sum(written) - max(written)
    return Provenance(
        authored={seat: message_tokens(source) for seat, source in work.items()},
        surviving={seat: sum(_sizes(work[seat], {defined[seat][symbol] for symbol in kept[seat]})) for seat in work},
        duplicated=duplicated,
    )


def definitions(source: str) -> dict[str, int]:
    """Size of what defines each name at the top level, the last definition of a name; {} for what is not Python.

    Of several names that one statement defines the first has its size, so that the sizes are those of the code.

    >>> definitions("x = 1\\ndef f(n): return n + x\\na = b = 2")
    {'x': 3, 'f': 10, 'a': 5, 'b': 0}
    """
    first: dict[ast.stmt, str] = {}
    defined = nodes(source)
    for name, node in defined.items():
        first.setdefault(node, name)
    sizes = dict(zip(first.values(), _sizes(source, first), strict=True))
    return {name: sizes.get(name, 0) for name in defined}


def needed(source: str, name: str) -> frozenset[str]:
    """The names at the top level that a name's definition reaches, itself included; empty where it is not defined."""
    known, read = nodes(source), set()
    reached: set[str] = set()
    waiting = [name]
    while waiting:
        symbol = waiting.pop()
        if symbol in known and symbol not in reached:
            reached.add(symbol)
            if known[symbol] not in read:  # one statement may define thousands of names
                read.add(known[symbol])
                waiting += [node.id for node in ast.walk(known[symbol]) if isinstance(node, ast.Name)]
    return frozenset(reached)


def _sizes(source: str, statements: Iterable[ast.stmt]) -> list[int]:
    """Words and symbols of each statement, decorators and their @ among them."""
    nodes = [[statement, *getattr(statement, "decorator_list", ())] for statement in statements]
    text = SourceText(source) if nodes else None
    return [sum(message_tokens(text.of(node)) for node in some) + len(some) - 1 for some in nodes] if text else []


def nodes(source: str) -> dict[str, ast.stmt]:
    """What defines each name at the top level, the last definition of a name; {} for what is not Python."""
    return {name: node for node in statements(source) for name in names_of(node)}


@lru_cache(maxsize=16)  # a ledger asks for each source several times, and a tree is large
def statements(source: str) -> tuple[ast.stmt, ...]:
    """The statements at the top level; none of what is not Python."""
    try:
        return tuple(parse(source).body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # whatever a model wrote
        return ()


def names_of(node: ast.stmt) -> list[str]:
    """The names that a statement at the top level defines."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        names = [name for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]
        return [name.id for name in names if isinstance(name.ctx, ast.Store)]
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [(alias.asname or alias.name).partition(".")[0] for alias in node.names]
    return []


def used_names(source: str) -> frozenset[str]:
    """The names that a module uses outside of what defines them: as a name, an attribute, an import, a word in a text.

    >>> used = used_names("x = 1\\ndef f(n): return f(n + x)")
    >>> "x" in used, "f" in used
    (True, False)

    What is not Python uses every word that it holds.
    """
    try:
        body = parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return frozenset(_WORD.findall(source))
    return frozenset().union(*(_mentioned(statement) - set(names_of(statement)) for statement in body))


def _mentioned(statement: ast.stmt) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(statement):
        found.update(getattr(node, field) for field in ("id", "attr", "name") if getattr(node, field, None))
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.update(_WORD.findall(node.value))
    return found
