"""Text that a model wrote, made safe to look at; code in colours, and as a diff."""

import re
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from functools import lru_cache
from itertools import takewhile
from typing import Any, NamedTuple

from pygments.lexer import Lexer
from pygments.lexers import get_lexer_for_filename
from pygments.lexers.python import PythonLexer
from pygments.lexers.special import TextLexer
from pygments.token import STANDARD_TYPES
from pygments.util import ClassNotFound

CONTEXT = 3  # lines around a change
_STATEMENT = re.compile(r"(@|class |(async )?def |import |from |if |for |with |try:|[A-Za-z_][\w.]* *[=(\[:])")
Spans = list[tuple[str, str]]  # pieces of a line of code: short name of the kind of token by Pygments, and the text


def visible(text: str) -> str:
    r"""The text with an escape in place of each character that has no glyph, such as one that moves the cursor, turns
    the direction of reading or is half of a surrogate pair; line feeds and tabs stay.

    >>> print(visible("so\x1b[2J be\u202e it \ud83d"))
    so\x1b[2J be\u202e it \ud83d
    """
    if text.replace("\n", "").replace("\t", "").isprintable():  # as nearly all text, and in no time
        return text
    shown = (c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)
    return "".join(shown)


def all_visible(data: Any) -> Any:
    """Data as JSON can hold it, with every text in it `visible`, names of fields included."""
    if isinstance(data, str):
        return visible(data)
    if isinstance(data, Mapping):
        return {visible(name): all_visible(value) for name, value in data.items()}
    return [all_visible(value) for value in data] if isinstance(data, list | tuple) else data


def highlighted(code: str, path: str = "code.py") -> list[Spans]:
    """The lines of a file in pieces by kind of token; the texts together are the code, made `visible`.

    >>> highlighted("return 1")
    [[('k', 'return'), ('', ' '), ('mi', '1')]]
    """
    lines: list[Spans] = [[]]
    for kind, text in _lexer(path).get_tokens(visible(code).rstrip("\n")):
        name = next(STANDARD_TYPES[known] for known in reversed(kind.split()) if known in STANDARD_TYPES)
        for i, part in enumerate(text.split("\n")):
            lines += [[]] if i else []
            lines[-1] += [(name.removeprefix("w"), part)] if part else []
    return lines[:-1] if len(lines) > 1 and not lines[-1] else lines  # a lexer ends with a line feed


def _lexer(path: str) -> Lexer:
    options = {"stripnl": False, "stripall": False}
    if path.endswith(".py"):
        return PythonLexer(**options)
    try:
        return get_lexer_for_filename(path, None, **options)
    except ClassNotFound:
        return TextLexer(**options)


class _Change(NamedTuple):
    """Two versions of a file: their lines, the changes in groups with a few equal lines around, and what was added."""

    before: list[str]
    after: list[str]
    groups: list[list[tuple[str, int, int, int, int]]]  # opcodes of difflib
    added: frozenset[str]


def diff(old: str, new: str, path: str, proposals: dict[str, str]) -> list[dict]:
    """What changes in a file, with a few lines around each change.

    Each line is `{"sign": "+", "-", " " or "@", "spans": ..., "by": [seat, ...]}`; "@" stands for what is left out.

    Args:
        proposals: what each seat made of the file, to tell whose a new line is.
    """
    if old == new:
        return []
    change = _change(old, new)
    wrote = {seat: _change(old, text).added for seat, text in proposals.items()}
    lines: list[dict] = []
    for group in change.groups:
        (_, first_old, _, first_new, _), (_, _, last_old, _, last_new) = group[0], group[-1]
        if first_new:
            lines.append({"sign": "@", "spans": [("", f"line {first_new + 1}")], "by": []})
        gone = _coloured(change.before, first_old, last_old, path)
        here = _coloured(change.after, first_new, last_new, path)
        for kind, old_start, old_stop, new_start, new_stop in group:
            if kind != "equal":
                lines += [{"sign": "-", "spans": gone[n - first_old], "by": []} for n in range(old_start, old_stop)]
            for n in range(new_start, new_stop):
                by = [seat for seat, added in wrote.items() if kind != "equal" and change.after[n] in added]
                lines.append({"sign": " " if kind == "equal" else "+", "spans": here[n - first_new], "by": by})
    return lines


@lru_cache(maxsize=64)  # each proposal of an episode is compared with the base as its own side and beside the others
def _change(old: str, new: str) -> _Change:
    before, after = visible(old).splitlines(), visible(new).splitlines()
    head = _same(before, after)
    tail = _same(before[head:][::-1], after[head:][::-1])
    head, tail = max(0, head - CONTEXT), max(0, tail - CONTEXT)  # long files change in few places
    matcher = SequenceMatcher(None, before[head : len(before) - tail], after[head : len(after) - tail], autojunk=False)
    groups = [
        [(kind, a + head, b + head, c + head, d + head) for kind, a, b, c, d in group]
        for group in matcher.get_grouped_opcodes(CONTEXT)
    ]
    changed = (code for group in groups for code in group if code[0] != "equal")
    return _Change(before, after, groups, frozenset(line for *_, c, d in changed for line in after[c:d]))


def _same(some: Sequence[str], others: Sequence[str]) -> int:
    """How many lines are the same from the first on."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(some, others, strict=False)))


def _coloured(lines: Sequence[str], start: int, stop: int, path: str) -> list[Spans]:
    """Some lines of a file in colours. Of Python, the lexer begins at the statement of the module that they are in: a
    whole file takes long."""
    above = range(min(start, len(lines) - 1), 0, -1) if path.endswith(".py") else ()
    begin = next((n for n in above if _STATEMENT.match(lines[n])), 0)
    coloured = highlighted("\n".join(lines[begin:stop]), path)
    coloured += [[] for _ in range(stop - begin - len(coloured))]  # a lexer leaves out empty lines at the end
    return coloured[start - begin :]
