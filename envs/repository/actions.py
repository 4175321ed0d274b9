"""From what a seat wrote in a phase of work to what it does on its branch: the grammar of actions.

    Say: <text>                           the partner reads it
    Read: <path>                          or `Read: <path> <line>`, or `Read: <path> <first line>-<last line>`
    Search: <text>                        lines of any file that contain it
    Insert <path> after: <line>           or `before`; new lines follow, then a line `End`
    Replace <path>:                       old lines, a line `With:`, new lines, `End`
    Function <path> <name>:               the whole new function or class (`Class.method` for a method), `End`;
                                          without decorators it keeps those of the old one
    Test                                  run the visible tests on the own branch
    Submit                                the branch is final
    Pass                                  do nothing

A reply is any number of them, done from top to bottom. The words may be in any case; those of one word, `End` and
`With:` also bold, in backticks or with a full stop, a path in quotes or backticks, and new or old lines in a ``` fence,
which is no part of them. Where the environment reads acts, a line of `envs.core.grammar` such as `Propose: 17` is said
to the partner, and `Expect` is sealed. Any other line outside of a block is a private note.

A reply without an action, with a block that has no `End` before the next one (in a fence, the head of a block is code),
a `Replace` without a `With:` or an action without what it
needs is a `ParseError` value and counts for nothing, its other actions too: they were meant to be done together, and
half of a change could be submitted. Nothing here raises on any text.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from envs.core.episode import MERGE, Act, ActKind, ParseError
from envs.core.grammar import parse_acts
from envs.core.task import Decision


@dataclass(frozen=True, slots=True)
class Say:
    text: str


@dataclass(frozen=True, slots=True)
class Read:
    """The lines of a file from `first` to `last`, both included and from 1; to its end where `last` is None."""

    path: str
    first: int = 1
    last: int | None = None


@dataclass(frozen=True, slots=True)
class Search:
    text: str


@dataclass(frozen=True, slots=True)
class Insert:
    """New lines after or before the one line that reads `anchor`, whatever its indentation."""

    path: str
    anchor: str
    text: str
    after: bool = True


@dataclass(frozen=True, slots=True)
class Replace:
    """New lines in the place of the one run of lines that reads `old`."""

    path: str
    old: str
    text: str


@dataclass(frozen=True, slots=True)
class Function:
    """A new definition in the place of function, class or method `name`; without decorators it keeps the old ones."""

    path: str
    name: str
    text: str


@dataclass(frozen=True, slots=True)
class RunTests:
    pass


@dataclass(frozen=True, slots=True)
class Submit:
    pass


@dataclass(frozen=True, slots=True)
class Pass:
    pass


CodeEdit = Insert | Replace | Function
Action = Say | Read | Search | CodeEdit | RunTests | Submit | Pass
Word = Literal["say", "read", "search", "insert", "replace", "function", "test", "submit", "pass"]
WORDS: Mapping[type[Action], Word] = {  # what an action begins with
    Say: "say", Read: "read", Search: "search", Insert: "insert", Replace: "replace", Function: "function",
    RunTests: "test", Submit: "submit", Pass: "pass",
}  # fmt: skip


class Reply(NamedTuple):
    """What a reply of a phase of work says: its actions in order, and its acts, the sealed ones too."""

    actions: tuple[Action, ...]
    acts: tuple[Act, ...] = ()


_PATH = r"""["'`]*([^\s"'`]+?)["'`]*"""


def _word(text: str) -> str:
    """The pattern of a word that is a line of its own; nothing that it matches is a line of Python."""
    return rf"(?:(?P<mark>\*{{1,2}}|`)?{text}[.!]?(?(mark)(?P=mark))[.!]?)"


def _read(path: str, first: str | None, last: str | None) -> Read:
    return Read(path, int(first), int(last or first)) if first else Read(path)


_LINES: Sequence[tuple[re.Pattern[str], Callable[..., Action]]] = tuple(
    (re.compile(pattern, re.IGNORECASE), make)
    for pattern, make in (
        (r"say: *(.+)", Say),
        (rf"read: *{_PATH}(?:[ ,:]{{1,3}}(?:lines? *)?(\d{{1,9}})(?: *(?:-|\u2013|to) *(\d{{1,9}}))?)?", _read),
        (r"search: *(.+)", Search),
        (_word("test"), lambda *_: RunTests()),
        (_word("submit"), lambda *_: Submit()),
        (_word("pass"), lambda *_: Pass()),
    )
)
_BLOCKS: Sequence[tuple[re.Pattern[str], Callable[..., CodeEdit | None]]] = tuple(
    (re.compile(pattern, re.IGNORECASE), make)
    for pattern, make in (
        (rf"insert +{_PATH} +(after|before): *(.*\S)", lambda *found: _insert(*found)),
        (rf"replace +{_PATH} *:", lambda *found: _replace(*found)),
        (rf"function +{_PATH} +[`'\"]?([\w.]+)[`'\"]? *:", lambda *found: _function(*found)),
    )
)
_END, _WITH = (re.compile(_word(word), re.IGNORECASE) for word in ("end", "with:"))
# What starts like an action and is none breaks the grammar: a slip is told and not taken for a note.
_SLIP = re.compile(rf"(say|read|search) *:|(insert|replace|function)\b.*:|{_word('(end|with:)')}$", re.IGNORECASE)


def parse_actions(reply: str, decisions: Sequence[Decision] = (), *, acts: bool = False) -> Reply | ParseError:
    """The actions of a reply, in order.

    >>> parse_actions("A note.\\nSearch: math\\nInsert shop/core.py after: import math\\nx = 1\\nEnd").actions
    (Search(text='math'), Insert(path='shop/core.py', anchor='import math', text='x = 1', after=True))
    >>> parse_actions("Insert shop/core.py after: import math\\nx = 1")
    <ParseError.BAD_ACTION: 'bad_action'>

    Args:
        reply: what the seat wrote.
        decisions: what acts may be on.
        acts: read acts, on the decisions and, for EXPECT, on `envs.core.episode.MERGE`.

    Returns:
        The actions, or EMPTY (nothing written), NO_ACTION (nothing but notes), BAD_ACTION (a broken one).
    """
    return _parsed(reply, decisions, acts)[0]


def broken_line(reply: str) -> str:
    """The first line of a reply that is a BAD_ACTION; "" where there is none. Of a block it is the head, and of one
    without an `End` before the next block the head of that.

    >>> broken_line("Say: I start\\nInsert shop/core.py after: import math\\nx = 1")
    'Insert shop/core.py after: import math'
    """
    return _parsed(reply, (), False)[1]


def _parsed(reply: str, decisions: Sequence[Decision], acts: bool) -> tuple[Reply | ParseError, str]:
    """The actions or the error of a reply, and the line that is broken, "" for none."""
    if not reply.strip():
        return ParseError.EMPTY, ""
    lines = [line.rstrip("\r") for line in reply.split("\n")]
    actions: list[Action] = []
    made: list[Act] = []
    at = 0
    while at < len(lines):
        line, at = lines[at].strip(), at + 1
        if block := _match(_BLOCKS, line):
            end = next((i for i in range(at, len(lines)) if _END.fullmatch(lines[i].strip())), None)
            if head := _head_within(lines[at:end]):
                return ParseError.BAD_ACTION, head
            edit = None if end is None else block[0](lines[at:end], *block[1])
            if end is None or edit is None:
                return ParseError.BAD_ACTION, line
            actions.append(edit)
            at = end + 1
        elif single := _match(_LINES, line):
            actions.append(single[0](*single[1]))
        elif act := _act(line, decisions) if acts else None:
            made.append(act)
            actions += [Say(line)] if act.kind is not ActKind.EXPECT else []
        elif _SLIP.match(line):
            return ParseError.BAD_ACTION, line
    return Reply(tuple(actions), tuple(made)) if actions or made else ParseError.NO_ACTION, ""


def edits(reply: str) -> tuple[CodeEdit, ...]:
    """The edits of a reply; none of one that breaks the grammar."""
    parsed = parse_actions(reply)
    return () if isinstance(parsed, ParseError) else tuple(a for a in parsed.actions if isinstance(a, CodeEdit))


def expected_merge(reply: str) -> tuple[Act, ...]:
    """The sealed predictions of the merge in a reply: lines `Expect: conflict (70%)`."""
    return tuple(act for act in parse_acts(reply, (MERGE,)) if act.kind is ActKind.EXPECT)


def _match(table: Sequence[tuple[re.Pattern[str], Callable]], line: str) -> tuple[Callable, tuple[str, ...]] | None:
    return next(((make, found.groups()) for pattern, make in table if (found := pattern.fullmatch(line))), None)


def _head_within(body: list[str]) -> str:
    """The head of a further block in the body of one, which so lacks its End; "" for none. In a fence it is code."""
    fenced = False
    for line in body:
        fenced ^= _opens(line)
        found = None if fenced else _match(_BLOCKS, line.strip())
        if found and re.search(r"\.\w+$", found[1][0]):
            return line.strip()
    return ""


def _act(line: str, decisions: Sequence[Decision]) -> Act | None:
    """The act that a line is: on one of the decisions, or what it expects of the merge."""
    return next(iter((*parse_acts(line, decisions), *expected_merge(line))), None)


def _insert(body: list[str], path: str, where: str, anchor: str) -> Insert | None:
    body = _unfenced(body)
    return Insert(path, anchor, "\n".join(body), where.casefold() == "after") if body else None


def _replace(body: list[str], path: str) -> Replace | None:
    middle = next((i for i, line in enumerate(body) if _WITH.fullmatch(line.strip())), 0)
    if not middle:
        return None
    old, new = body[:middle], body[middle + 1 :]
    if _fences(old) == [0] and _fences(new) in ([], [len(new) - 1]):  # one fence around both
        old, new = old[1:], new[: -1 if _fences(new) else None]
    else:
        old, new = _unfenced(old), _unfenced(new)
    return Replace(path, "\n".join(old), "\n".join(new)) if old else None


def _function(body: list[str], path: str, name: str) -> Function | None:
    body = _unfenced(body)
    return Function(path, name, "\n".join(body)) if body else None


def _unfenced(lines: list[str]) -> list[str]:
    """The lines without a ``` fence around all of them, which may lack its end, and the empty lines around that."""
    full, fences = [i for i, line in enumerate(lines) if line.strip()], _fences(lines)
    if not fences or fences[0] != full[0] or len(fences) > 1 and fences[-1] != full[-1]:
        return lines
    return lines[full[0] + 1 : fences[-1] if len(fences) > 1 else full[-1] + 1]


def _fences(lines: list[str]) -> list[int]:
    return [i for i, line in enumerate(lines) if _opens(line)]


def _opens(line: str) -> bool:
    """Whether a line opens or closes a fence."""
    return line.lstrip().startswith("```")
