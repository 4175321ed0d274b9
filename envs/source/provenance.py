"""Who wrote how much of the merged code: what a seat's own part needs survives, everything else was written in vain."""

import ast
from collections.abc import Iterable, Mapping

from envs.core.episode import Provenance
from envs.core.task import Seat
from envs.core.tokens import message_tokens


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
        surviving={seat: _size(work[seat], {defined[seat][symbol] for symbol in kept[seat]}) for seat in work},
        duplicated=duplicated,
    )


def definitions(source: str) -> dict[str, int]:
    """Size of what defines each name at the top level, the last definition of a name; {} for what is not Python.

    >>> definitions("x = 1\\ndef f(n): return n + x")
    {'x': 3, 'f': 10}
    """
    return {name: _size(source, [node]) for name, node in nodes(source).items()}


def needed(source: str, name: str) -> frozenset[str]:
    """The names at the top level that a name's definition reaches, itself included; empty where it is not defined."""
    known = nodes(source)
    reached: set[str] = set()
    waiting = [name]
    while waiting:
        symbol = waiting.pop()
        if symbol in known and symbol not in reached:
            reached.add(symbol)
            waiting += [node.id for node in ast.walk(known[symbol]) if isinstance(node, ast.Name)]
    return frozenset(reached)


def _size(source: str, statements: Iterable[ast.stmt]) -> int:
    """Words and symbols of statements, decorators and their @ among them."""
    marks = [mark for statement in statements for mark in getattr(statement, "decorator_list", ())]
    texts = [ast.get_source_segment(source, node) or "" for node in (*statements, *marks)]
    return sum(map(message_tokens, texts)) + len(marks)


def nodes(source: str) -> dict[str, ast.stmt]:
    """What defines each name at the top level, the last definition of a name; {} for what is not Python."""
    return {name: node for node in statements(source) for name in names_of(node)}


def statements(source: str) -> list[ast.stmt]:
    """The statements at the top level; none of what is not Python."""
    try:
        return ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # whatever a model wrote
        return []


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


def uses(source: str, name: str) -> bool:
    """Whether a module uses a name outside of what defines it: as a name, an attribute, an import or in a text.

    >>> uses("x = 1\\ndef f(n): return n + x", "x"), uses("def f(n): return f(n - 1)", "f")
    (True, False)

    What is not Python uses whatever it holds.
    """
    try:
        body = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return name in source
    others = (node for statement in body if name not in names_of(statement) for node in ast.walk(statement))
    return any(
        name in (getattr(node, "id", None), getattr(node, "attr", None), getattr(node, "name", None))
        or (isinstance(node, ast.Constant) and isinstance(node.value, str) and name in node.value)
        for node in others
    )
