"""What a merge of two branches would meet, before anybody merges: conflicts from git, symbols from the syntax tree."""

import ast
import functools
from collections.abc import Iterator
from difflib import SequenceMatcher
from typing import NamedTuple

from envs.episode import Forecast
from envs.merge import Policy
from envs.provenance import nodes
from envs.repository.files import Files
from envs.repository.merging import merge_branches


def forecast(round: int, base: Files, first: Files, second: Files) -> Forecast:
    """The forecast for two branches of a base. Its conflicts are the naive merge's, whatever is done about them."""
    clashing = merge_branches(base, first, second, Policy.NAIVE).conflicts
    symbols, signatures = _shared(base, first, second)
    return Forecast(
        round=round,
        ranges={path: overlaps(base[path], first[path], second[path]) for path in clashing},
        symbols=symbols,
        signatures=signatures,
    )


def describe(forecast: Forecast) -> str:
    """The forecast in one line, for an observation."""
    where = [
        f"{path} lines {', '.join(f'{low}-{high}' for low, high in ranges)}" for path, ranges in forecast.ranges.items()
    ]
    parts = [f"conflict in {'; '.join(where)}" if where else "clean"]
    if forecast.symbols:
        parts.append(f"both rely on {', '.join(forecast.symbols)}")
    if forecast.signatures:
        parts.append(f"signatures disagree: {', '.join(forecast.signatures)}")
    return f"Merge forecast: {'; '.join(parts)}."


def overlaps(base: str, first: str, second: str) -> tuple[tuple[int, int], ...]:
    """The lines of the base, from 1 and both ends included, on which changes of the two sides meet.

    >>> overlaps("a\\nb\\nc\\nd\\n", "a\\nx\\nc\\nd\\n", "a\\ny\\nc\\nd\\nz\\n")
    ((2, 2),)
    """
    mine, theirs = list(_hunks(base, first)), list(_hunks(base, second))
    met = [(min(a, c), max(b, d)) for a, b in mine for c, d in theirs if a <= d and c <= b]
    spans = met or [(min(a for a, _ in mine + theirs), max(b for _, b in mine + theirs))]  # git divides otherwise
    return tuple((low + 1, max(high, low + 1)) for low, high in sorted(set(spans)))


def _hunks(base: str, side: str) -> Iterator[tuple[int, int]]:
    """The runs [first, last) of lines of the base that a side changes; an insertion is an empty run."""
    matcher = SequenceMatcher(None, base.split("\n"), side.split("\n"), autojunk=False)
    return ((a, b) for tag, a, b, *_ in matcher.get_opcodes() if tag != "equal")


class _Definition(NamedTuple):
    """What a name at the top level is: its lines, the names in it, and its parameters where it is a function."""

    text: str
    words: frozenset[str]
    parameters: str | None


def _shared(base: Files, first: Files, second: Files) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """`path:name` of what one side changes and the other changes or newly uses, and those with two signatures."""
    changed = [_changed(base, side) for side in (first, second)]
    used = [frozenset().union(*(new.words for new in side.values() if new is not None)) for side in changed]
    symbols, signatures = [], []
    for path, name in sorted(changed[0].keys() | changed[1].keys()):
        mine, theirs = ((path, name) in side for side in changed)
        known = name in _outline(base[path])
        if not (mine and theirs or known and (theirs and name in used[0] or mine and name in used[1])):
            continue
        symbols.append(f"{path}:{name}")
        versions = (_outline(side[path]).get(name) for side in (first, second))
        if len({version and version.parameters for version in versions}) > 1:
            signatures.append(f"{path}:{name}")
    return tuple(symbols), tuple(signatures)


def _changed(base: Files, side: Files) -> dict[tuple[str, str], _Definition | None]:
    """(path, name) -> what it is now, None where it is no more, of all that a side defines, changes or removes."""
    found = {}
    for path in base:
        if base[path] != side[path] and path.endswith(".py"):
            old, new = _outline(base[path]), _outline(side[path])
            found |= {(path, name): new.get(name) for name in old.keys() | new.keys() if old.get(name) != new.get(name)}
    return found


@functools.lru_cache(maxsize=2048)
def _outline(source: str) -> dict[str, _Definition]:
    """What is defined at the top level of a module; {} for what is not Python."""
    lines = source.split("\n")
    return {
        name: _Definition("\n".join(lines[node.lineno - 1 : node.end_lineno]), _words(node), _parameters(node))
        for name, node in nodes(source).items()
    }


def _words(node: ast.stmt) -> frozenset[str]:
    found = (inner for inner in ast.walk(node) if isinstance(inner, ast.Name | ast.Attribute))
    return frozenset(inner.id if isinstance(inner, ast.Name) else inner.attr for inner in found)


def _parameters(node: ast.stmt) -> str | None:
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return None
    try:
        return ast.unparse(node.args)
    except RecursionError:  # a default of a thousand brackets
        return "..."
