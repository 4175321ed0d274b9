"""One seat's working copy: reading, searching and changing it. Files are text by path and never change in place."""

import ast
import os
import tokenize
from collections import Counter
from collections.abc import Mapping, Sequence
from io import StringIO

from envs.core.syntax import parse
from envs.repository.actions import CodeEdit, Function, Insert, Replace

Files = Mapping[str, str]

TESTS = "tests/"  # what lies here is for everybody to read and for nobody to write
MAX_SHOWN = 6_000  # characters of a file or a search that a seat is shown at once
MAX_FILE = 400_000  # characters of a file
MAX_HITS = 20
_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def read(files: Files, path: str, first: int = 1, last: int | None = None) -> str:
    """The numbered lines of a file from `first` to `last`, both included, or what is not there: the file, or those."""
    if path not in files:
        return f"There is no {path}. Files: {', '.join(sorted(files))}."
    lines = files[path].splitlines()
    start = max(first - 1, 0)
    shown = lines[start:last]
    if not shown:
        return f"{path} has {len(lines)} lines."
    text = "\n".join(f"{number:3} {line}" for number, line in enumerate(shown, start + 1))
    return clipped(f"{path}:\n{text}")


def search(files: Files, text: str) -> str:
    """`path:line: text` of the first lines that contain a text."""
    hits = [
        f"{path}:{number}: {line.strip()}"
        for path in sorted(files)
        for number, line in enumerate(files[path].splitlines(), 1)
        if text in line
    ]
    more = [f"... and {len(hits) - MAX_HITS} more"] if len(hits) > MAX_HITS else []
    return clipped("\n".join([f"{text!r} is on {len(hits)} lines.", *hits[:MAX_HITS], *more]))


def clipped(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}\n... and {len(text) - MAX_SHOWN} characters more"


def edited(files: Files, edit: CodeEdit) -> Files | str:
    """The files after an edit, or why it cannot be made. A file whose lines all end in CR LF keeps such ends.

    >>> edited({"a.py": "x = 1\\ny = 2\\n"}, Insert("a.py", "x = 1", "z = 3"))
    {'a.py': 'x = 1\\nz = 3\\ny = 2\\n'}
    >>> edited({"a.py": "x = 1\\nx = 1\\n"}, Insert("a.py", "x = 1", "z = 3"))
    'a.py has 2 lines that read "x = 1"; name one that is there once.'
    """
    path = edit.path
    if path not in files:
        return f"There is no {path}. Files: {', '.join(sorted(files))}."
    if not writable(path):
        return f"{path} is not yours to change."
    source, ends = files[path].replace("\r\n", "\n"), files[path].count("\r\n")
    crlf = ends > 0 and ends == source.count("\n")
    source = source if crlf else files[path]
    lines = source.split("\n")
    span = _definition(source, edit) if isinstance(edit, Function) else _lines(lines, edit)
    if isinstance(span, str):
        return span
    first, last = span
    new = edit.text.split("\n") if edit.text else []
    if isinstance(edit, Function):
        indent = lines[first][: len(lines[first]) - len(lines[first].lstrip())]
        new = _at_depth(edit.text, indent).split("\n")
    text = "\n".join([*lines[:first], *new, *lines[last:]]).replace("\n", "\r\n" if crlf else "\n")
    if len(text) > MAX_FILE:
        return f"{path} would have {len(text)} characters; a file has at most {MAX_FILE}."
    if not _is_text(text):
        return f"{path} would hold characters that are not text."
    return {**files, path: text}


def _is_text(text: str) -> bool:
    """Whether git takes it for text."""
    try:
        return b"\0" not in text.encode("utf-8")
    except UnicodeEncodeError:  # half of a surrogate pair
        return False


def writable(path: str) -> bool:
    """Whether a seat may change the file: Python outside of the tests."""
    return path.endswith(".py") and not path.startswith(TESTS)


def added(base: Files, files: Files) -> str:
    """The lines that a branch adds, under the path of each changed file; "" for an unchanged branch."""
    return "\n".join(
        line
        for path in sorted(files)
        if files[path] != base[path]
        for line in (f"# {path}", *new_lines(base[path], files[path]))
    )


def new_lines(old: str, new: str) -> list[str]:
    """The lines that a text has and an older one has not, in order; a line that occurs more often counts as often."""
    left = Counter(old.split("\n"))
    found = []
    for line in new.split("\n"):
        if left[line] > 0:
            left[line] -= 1
        else:
            found.append(line)
    return found


def _lines(lines: list[str], edit: Insert | Replace) -> tuple[int, int] | str:
    """The lines [first, last) that an insertion or a replacement puts its text in the place of."""
    bare = str.strip if isinstance(edit, Insert) else str.rstrip  # indentation is part of what is replaced
    wanted = [bare(line) for line in (edit.anchor if isinstance(edit, Insert) else edit.old).split("\n")]
    # One search in a text, as comparing lists of lines at each line takes a time that is their product.
    have, block = ("\n".join(["", *some, ""]) for some in (map(bare, lines), wanted))
    start = have.find(block)
    if start < 0 or have.find(block, start + 1) >= 0:
        found, what = "several" if start >= 0 else "0", "places that read like that"
        if len(wanted) == 1:
            found, what = str(have.split("\n")[1:-1].count(wanted[0])), f'lines that read "{wanted[0]}"'
        return f"{edit.path} has {found} {what}; name one that is there once."
    first = have.count("\n", 0, start)
    if isinstance(edit, Insert):
        return first + edit.after, first + edit.after
    return first, first + len(wanted)


def _definition(source: str, edit: Function) -> tuple[int, int] | str:
    """The lines [first, last) of the definition that an edit names, with its decorators where the new text has some."""
    try:
        scopes: Sequence[ast.Module | _Definition] = [parse(source)]
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return f"{edit.path} is not Python now: {error}. Use Replace."
    found: list[_Definition] = []
    for name in edit.name.split("."):
        inside = [node for scope in scopes for node in scope.body]
        scopes = found = [node for node in inside if isinstance(node, _Definition) and node.name == name]
    if not found:
        return f"{edit.path} has no function or class {edit.name}. Use Insert to add one."
    alike = [node for node in found if _decorators(node) == _decorators(_first(edit.text))] if found[1:] else found
    if len(alike) != 1:
        return f"{edit.path} has {len(found)} definitions of {edit.name}; use Replace."
    code = (line.strip() for line in edit.text.split("\n"))
    decorated = next((line for line in code if line and not line.startswith("#")), "").startswith("@")
    marks = [mark.lineno for mark in alike[0].decorator_list] if decorated else []
    return min([alike[0].lineno, *marks]) - 1, alike[0].end_lineno or alike[0].lineno


def _first(text: str) -> ast.AST | None:
    """The first statement of a text; None where it is not Python."""
    try:
        return next(iter(parse(_at_depth(text, "")).body), None)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _decorators(node: ast.AST | None) -> list[str] | None:
    return [ast.unparse(mark) for mark in node.decorator_list] if isinstance(node, _Definition) else None


def _at_depth(text: str, indent: str) -> str:
    """The text with its code at an indentation. Lines that start within a string are its contents and stay.

    >>> _at_depth("def f():\\n    return '''a\\n b'''", "  ")
    "  def f():\\n      return '''a\\n b'''"
    """
    lines, kept = text.split("\n"), set()
    try:
        for token in tokenize.generate_tokens(StringIO(text).readline):
            kept.update(range(token.start[0], token.end[0]))
    except (tokenize.TokenError, SyntaxError, ValueError):
        pass  # not Python: what was read until here is all that is known
    code = [i for i in range(len(lines)) if i not in kept]
    starts = [lines[i][: -len(lines[i].lstrip(" \t"))] for i in code if lines[i].strip()]
    margin = len(os.path.commonprefix(starts))
    for i in code:
        lines[i] = indent + lines[i][margin:] if lines[i].strip() else ""
    return "\n".join(lines)
