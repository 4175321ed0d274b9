"""What a merge of two branches would meet, before anybody merges: conflicts from git, symbols from the syntax tree."""

import ast
import functools
from collections.abc import Iterator
from difflib import SequenceMatcher

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


def _shared(base: Files, first: Files, second: Files) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """`path:name` of what one side changes and the other changes or newly uses, and those with two signatures."""
    changed = [_changed(base, side) for side in (first, second)]
    used = [
        {word for path, name in touched if name in nodes_of(side[path]) for word in _words(nodes_of(side[path])[name])}
        for touched, side in zip(changed, (first, second), strict=True)
    ]
    symbols, signatures = [], []
    for path, name in sorted(changed[0] | changed[1]):
        mine, theirs = ((path, name) in side for side in changed)
        known = name in nodes_of(base[path])
        if not (mine and theirs or known and (theirs and name in used[0] or mine and name in used[1])):
            continue
        symbols.append(f"{path}:{name}")
        versions = {_signature(nodes_of(side[path]).get(name)) for side in (first, second)}
        if len(versions) > 1:
            signatures.append(f"{path}:{name}")
    return tuple(symbols), tuple(signatures)


def _changed(base: Files, side: Files) -> set[tuple[str, str]]:
    """(path, name) of what a side defines, changes or removes."""
    found = set()
    for path in base:
        if base[path] == side[path] or not path.endswith(".py"):
            continue
        old, new = (_sources(files[path]) for files in (base, side))
        found |= {(path, name) for name in old.keys() | new.keys() if old.get(name) != new.get(name)}
    return found


def _sources(source: str) -> dict[str, str]:
    """The lines of what defines each name at the top level."""
    lines = source.split("\n")
    return {name: "\n".join(lines[node.lineno - 1 : node.end_lineno]) for name, node in nodes_of(source).items()}


@functools.lru_cache(maxsize=512)
def nodes_of(source: str) -> dict[str, ast.stmt]:
    return nodes(source)


def _words(node: ast.stmt) -> set[str]:
    """The names that a definition uses."""
    uses = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
    return uses | {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)}


def _signature(node: ast.stmt | None) -> str | None:
    """The parameters of a function, None for anything else."""
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return None
    try:
        return ast.unparse(node.args)
    except RecursionError:  # a default of a thousand brackets
        return "..."
