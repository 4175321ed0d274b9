"""What a merge of two branches would meet, before anybody merges: conflicts from git, symbols from the syntax tree."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Set

from envs.core.episode import Forecast
from envs.repository.git import changed_lines
from envs.repository.merge import MergePolicy, merge_branches
from envs.repository.working_copy import Files, writable
from envs.source.outline import ANY, Definition, Parts, certain, names, outline


def forecast(round: int, base: Files, first: Files, second: Files) -> Forecast:
    """The forecast for two branches of a base. Its conflicts are the naive merge's, whatever is done about them.

    Its symbols are a warning and no verdict: two branches may rely on one name and agree. A side relies on what its own
    changes use, and on what is used by a definition that they use and nobody changed.

    >>> base = {"a.py": "def f(x):\\n    return x\\n", "b.py": "y = 1\\n"}
    >>> other = {**base, "b.py": "from a import f as g\\ny = g(1)\\n"}
    >>> describe(forecast(0, base, {**base, "a.py": "def f(x, z):\\n    return x\\n"}, other))
    'Merge forecast: clean; both rely on a.py:f; signatures disagree: a.py:f.'
    """
    clashing = merge_branches(base, first, second, MergePolicy.NAIVE).paths
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
    mine, theirs = changed_lines(base, first), changed_lines(base, second)
    starts, ends = [c for c, _ in theirs], [d for _, d in theirs]
    beside = ((a, b, theirs[bisect_left(ends, a) : bisect_right(starts, b)]) for a, b in mine)
    met = [(min(a, c), max(b, d)) for a, b, near in beside for c, d in near]
    spans = met or [(min(a for a, _ in mine + theirs), max(b for _, b in mine + theirs))]  # git divides otherwise
    return tuple((low + 1, max(high, low + 1)) for low, high in sorted(set(spans)))


_Changes = dict[tuple[str, str], Definition | None]
_Uses = Mapping[Parts, Set[Parts]]  # the last parts of a use, as many as one likes -> the uses that end in them


def _shared(base: Files, first: Files, second: Files) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """`path:name` of what one side changes and the other changes or relies on, and those with two signatures."""
    changed = [_changed(base, side) for side in (first, second)]
    if not all(changed):
        return (), ()
    used = [_used(base, side, changed[0].keys() | changed[1].keys()) for side in changed]
    symbols, signatures = [], []
    for path, name in sorted(changed[0].keys() | changed[1].keys()):
        mine, theirs = ((path, name) in side for side in changed)
        relied_on = theirs and _relies(used[0], path, name) or mine and _relies(used[1], path, name)
        if not (mine and theirs or relied_on and name in outline(path, base[path])):
            continue
        symbols.append(f"{path}:{name}")
        versions = (outline(path, side[path]).get(name) for side in (first, second))
        if len({version and version.signature for version in versions}) > 1:
            signatures.append(f"{path}:{name}")
    return tuple(symbols), tuple(signatures)


def _changed(base: Files, side: Files) -> _Changes:
    """(path, name) -> what it is now, None where it is no more, of all that a side defines, changes or removes."""
    found: _Changes = {}
    for path in base:
        if base[path] != side[path] and writable(path):
            old, new = outline(path, base[path]), outline(path, side[path])
            for name in old.keys() | new.keys():
                if name not in old or name not in new or old[name].text != new[name].text:
                    found[path, name] = new.get(name)
    return found


def _used(base: Files, side: _Changes, touched: Set[tuple[str, str]]) -> _Uses:
    """What a side's changes use, and what that uses in turn, where nobody touched it."""
    direct = frozenset().union(*{new.uses for new in side.values() if new is not None})
    found = _by_ending(direct)
    further = (
        certain(definition.uses)
        for path in base
        if writable(path)
        for name, definition in outline(path, base[path]).items()
        if (path, name) not in touched and _relies(found, path, name)
    )
    return _by_ending(direct.union(*further))


def _by_ending(uses: Iterable[Parts]) -> _Uses:
    found: dict[Parts, set[Parts]] = {}
    for use in uses:
        for i in range(len(use)):
            found.setdefault(use[i:], set()).add(use)
    return found


def _relies(used: _Uses, path: str, name: str) -> bool:
    parts = tuple(name.split("."))
    return any(names(use, path, name) for key in (parts, (ANY, parts[-1])) for use in used.get(key, ()))
