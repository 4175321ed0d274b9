"""Text that a model wrote, made safe to look at; code in colours, and as a diff."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any

from pygments.lexer import Lexer
from pygments.lexers import get_lexer_for_filename
from pygments.lexers.python import PythonLexer
from pygments.lexers.special import TextLexer
from pygments.token import STANDARD_TYPES
from pygments.util import ClassNotFound

CONTEXT = 3  # lines around a change
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


def diff(old: str, new: str, path: str, proposals: dict[str, str]) -> list[dict]:
    """What changes in a file, with a few lines around each change.

    Each line is `{"sign": "+", "-", " " or "@", "spans": ..., "by": [seat, ...]}`; "@" stands for what is left out.

    Args:
        proposals: what each seat made of the file, to tell whose a new line is.
    """
    if old == new:
        return []
    before, after = visible(old).splitlines(), visible(new).splitlines()
    coloured = {"-": highlighted("\n".join(before), path), "+": highlighted("\n".join(after), path)}
    wrote = {seat: _added(before, visible(text).splitlines()) for seat, text in proposals.items()}
    lines: list[dict] = []

    def add(sign: str, side: str, numbers: Iterable[int], texts: Sequence[str], owners: Callable[[str], list[str]]):
        lines.extend({"sign": sign, "spans": coloured[side][n], "by": owners(texts[n])} for n in numbers)

    nobody: Callable[[str], list[str]] = lambda text: []  # noqa: E731
    for group in SequenceMatcher(None, before, after, autojunk=False).get_grouped_opcodes(CONTEXT):
        if group[0][3]:
            lines.append({"sign": "@", "spans": [("", f"line {group[0][3] + 1}")], "by": []})
        for kind, old_start, old_stop, new_start, new_stop in group:
            if kind == "equal":
                add(" ", "+", range(new_start, new_stop), after, nobody)
            else:
                add("-", "-", range(old_start, old_stop), before, nobody)
                add(
                    "+",
                    "+",
                    range(new_start, new_stop),
                    after,
                    lambda text: [seat for seat, added in wrote.items() if text in added],
                )
    return lines


def _added(before: Sequence[str], after: Sequence[str]) -> set[str]:
    changes = SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    return {line for kind, _, _, start, stop in changes if kind != "equal" for line in after[start:stop]}
