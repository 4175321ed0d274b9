"""From what a seat wrote to what it meant: the one grammar of the library.

    stance   Answer: <option> (<confidence>%)                one decision
             Answer <decision>: <option> (<confidence>%)     one such line per decision
    talk     any text; PASS says nothing
    final    the lines of a stance, then the seat's code where the task asks for some

Where the environment reads acts, a line of any reply can be one:

    Propose: <option>                   also Challenge, Concede, Inform, Commit
    Expect: <option> (<confidence>%)    sealed: the partner never sees the line
    Ask: <any text>                     also Retract

Where the team has a shared memory, a line of its talk can be an act on it, which is no part of the message:

    Write <key>: <text>                 a new version of the key's value; without a key a note
    Query: <words>                      the entries that match; without words the newest
    Expand: #<number>                   what a summary covers; also without the #
    Summarise: <text>                   put the oldest entries under a summary; without a text it is made for you

`Answer`, the name of an act, the decision and the option may be in any case, the option in quotes or backticks, and
any of it in bold; a byte-order mark is not read, and a no-break space is a space. The confidence is a whole number from
0 to 100, and an option without one is held for certain; where none is asked for, the environment takes each option so.
With several decisions the name of one stands before the colon: `Commit offset: 17`. Other lines are free, and so is a
line that is nearly an act.
The first answer for a decision counts. A reply that breaks the grammar is a `ParseError` value and counts for nothing:
none of these functions raises on any text.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from envs.core.episode import Act, ActKind, ParseError, Phase, Stance
from envs.core.task import Decision
from envs.core.tokens import message_tokens

_QUOTES = " \t\r\n'\"`"
_BOLD = "*_"
_SPACES = str.maketrans(
    {"\ufeff": None, "\u00a0": " ", "\u2007": " ", "\u202f": " "}
)  # byte-order mark, no-break spaces
_KINDS = {kind.value: kind for kind in ActKind}
WITHOUT_OPTION = (ActKind.ASK, ActKind.RETRACT)
_ID = re.compile(r"#?([0-9]{1,9})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Final:
    """The last reply of a seat: its sealed stances, one per decision in order, and its code ("" where none is due)."""

    stances: tuple[Stance, ...]
    work: str = ""


class MemoryKind(StrEnum):
    WRITE = "write"
    QUERY = "query"
    EXPAND = "expand"
    SUMMARISE = "summarise"


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryAct:
    """One line that acts on a shared memory: `key` where something is written, `id` of what is expanded."""

    kind: MemoryKind
    key: str | None = None
    text: str = ""
    id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedReply:
    """All that a reply says in a phase; where there is an `error` it says nothing."""

    message: str = ""
    stances: tuple[Stance, ...] = ()
    work: str = ""
    acts: tuple[Act, ...] = ()
    error: ParseError | None = None


def parse_reply(
    reply: str, phase: Phase, *, asked: Sequence[Decision], acts_on: Sequence[Decision], wants_code: bool
) -> ParsedReply:
    """What a reply says in a phase of talk, a stance, or the final one.

    Args:
        asked: the decisions that a stance must answer.
        acts_on: the decisions that acts may be on; none where acts are not read.
        wants_code: whether the final reply must hold code.
    """
    if phase is Phase.TALK:
        parsed = parse_message(reply, acts_on=acts_on)
    elif phase is Phase.STANCE:
        parsed = parse_stance(reply, asked)
    else:
        parsed = parse_final(reply, asked, wants_code=wants_code)
    if isinstance(parsed, ParseError):
        return ParsedReply(error=parsed)
    acts = parse_acts(reply, acts_on)
    if isinstance(parsed, str):
        return ParsedReply(message=parsed, acts=acts)
    acts = tuple(act for act in acts if act.kind is ActKind.EXPECT)  # nobody hears it: only what is sealed is meant
    if isinstance(parsed, Final):
        return ParsedReply(stances=parsed.stances, work=parsed.work, acts=acts)
    return ParsedReply(stances=parsed, acts=acts)


def parse_stance(reply: str, decisions: Sequence[Decision]) -> tuple[Stance, ...] | ParseError:
    """The sealed stances of a reply, one per decision and in their order.

    >>> d = Decision(id="offset", options=("17", "23"), utility={"17": 1.0}, belief={}, expert="agent_0", cue={})
    >>> parse_stance("Answer: 17 (80%)", [d])
    (Stance(decision='offset', option='17', confidence=0.8),)
    >>> parse_stance("Answer: 18 (80%)", [d])
    <ParseError.UNKNOWN_OPTION: 'unknown_option'>

    Returns:
        The stances, or the first error: EMPTY (nothing written), NO_ANSWER (a decision without its line),
        UNKNOWN_OPTION (the line names no option of the decision), BAD_CONFIDENCE (not whole, outside 0..100).
    """
    if not reply.strip():
        return ParseError.EMPTY
    lines = _answer_lines(reply.split("\n"), decisions)
    stances = []
    for decision in decisions:
        text = next((text for _, id, text in lines if id == decision.id), None)
        stance = ParseError.NO_ANSWER if text is None else _stance(text, decision)
        if isinstance(stance, ParseError):
            return stance
        stances.append(stance)
    return tuple(stances)


def parse_message(reply: str, acts_on: Sequence[Decision] = ()) -> str | ParseError:
    """The message that the partner sees: the reply on one line, "" for PASS, EMPTY where nothing was written.

    Without the lines that are an EXPECT on one of the decisions `acts_on`.
    """
    if not reply.strip():
        return ParseError.EMPTY
    message = " ".join(" ".join(line for line in reply.split("\n") if not _is_sealed(_act(line, acts_on))).split())
    return "" if message.casefold() in ("pass", "pass.") else message


def parse_acts(reply: str, decisions: Sequence[Decision]) -> tuple[Act, ...]:
    """Every line of a reply that is an act on one of the decisions, in order.

    >>> d = Decision(id="offset", options=("17", "23"), utility={"17": 1.0}, belief={}, expert="agent_0", cue={})
    >>> parse_acts("My notes are old.\\nConcede: 17\\nCommit: 18", [d])
    (Act(kind=<ActKind.CONCEDE: 'concede'>, decision='offset', option='17', confidence=1.0),)
    """
    acts = (_act(line, decisions) for line in reply.split("\n"))
    return tuple(act for act in acts if act is not None)


def parse_memory(reply: str) -> tuple[tuple[MemoryAct, ...], str]:
    """The acts of a reply on the shared memory, in order, and the other lines of it.

    >>> parse_memory("Write timeout: 30 s\\nIt is noted.\\nExpand: #7")[1]
    'It is noted.'
    """
    read = [(line, _memory_act(line)) for line in reply.split("\n")]
    rest = "\n".join(line for line, act in read if act is None)
    return tuple(act for _, act in read if act is not None), rest


def parse_final(reply: str, decisions: Sequence[Decision], *, wants_code: bool) -> Final | ParseError:
    """The stances of a reply and, where `wants_code`, what follows the last answer line, without ``` fences.

    Returns:
        Both, or an error as in `parse_stance`, or NO_CODE (nothing follows the last answer line).
    """
    stances = parse_stance(reply, decisions)
    if isinstance(stances, ParseError) or not wants_code:
        return stances if isinstance(stances, ParseError) else Final(stances=stances)
    lines = reply.split("\n")
    last = _answer_lines(lines, decisions)[-1][0]
    work = "\n".join(line for line in lines[last + 1 :] if not line.strip().startswith("```")).strip("\r\n")
    return Final(stances=stances, work=work) if work.strip() else ParseError.NO_CODE


def _answer_lines(lines: Sequence[str], decisions: Sequence[Decision]) -> list[tuple[int, str, str]]:
    """(line number, decision id, text after the colon) of every line that answers one of the decisions."""
    headed = ((number, _headed(line, decisions)) for number, line in enumerate(lines))
    return [(number, found[1].id, found[2]) for number, found in headed if found and found[0] == "answer"]


def _headed(line: str, decisions: Sequence[Decision]) -> tuple[str, Decision, str] | None:
    """(word, decision, text) of a line `<word> <decision>: <text>` or, for a single decision, `<word>: <text>`."""
    known = {decision.id.casefold(): decision for decision in decisions}
    if len(decisions) == 1:
        known[""] = decisions[0]
    head, colon, text = line.translate(_SPACES).partition(":")
    word, *name = head.strip(_BOLD + " ").split() or [""]
    id = " ".join(name).casefold()
    decision = known.get(id) or known.get(id.strip(_BOLD))
    return (word.strip(_BOLD).casefold(), decision, text) if colon and decision is not None else None


def _act(line: str, decisions: Sequence[Decision]) -> Act | None:
    """The act that a line is, None where it is free text."""
    headed = _headed(line, decisions)
    kind = _KINDS.get(headed[0]) if headed else None
    if headed is None or kind is None:
        return None
    _, decision, text = headed
    if kind in WITHOUT_OPTION:
        return Act(kind=kind, decision=decision.id)
    stance = _stance(text, decision)
    if isinstance(stance, ParseError):
        return None
    return Act(kind=kind, decision=decision.id, option=stance.option, confidence=stance.confidence)


def _memory_act(line: str) -> MemoryAct | None:
    """The act on the memory that a line is, None where it is free text."""
    head, colon, text = line.partition(":")
    word, *name = head.split() or [""]
    key, text, word = " ".join(name), text.strip(), word.casefold()
    if not colon or (key and word != MemoryKind.WRITE):
        return None
    if word == MemoryKind.WRITE:
        return MemoryAct(kind=MemoryKind.WRITE, key=key or None, text=text) if message_tokens(text) else None
    if word == MemoryKind.EXPAND:
        number = _ID.fullmatch(text)
        return MemoryAct(kind=MemoryKind.EXPAND, id=int(number[1])) if number else None
    return MemoryAct(kind=MemoryKind(word), text=text) if word in tuple(MemoryKind) else None


def _is_sealed(act: Act | None) -> bool:
    return act is not None and act.kind is ActKind.EXPECT


def _stance(text: str, decision: Decision) -> Stance | ParseError:
    """One stance from `<option>` or `<option> (<confidence>%)`."""
    options = {option.casefold(): option for option in decision.options}
    name, bracket, tail = text.rpartition("(")
    written = (name if bracket else text).strip(_QUOTES).casefold()
    option = options.get(written) or options.get(written.strip(_BOLD + _QUOTES))
    if option is None:
        return ParseError.UNKNOWN_OPTION
    if not bracket:
        return Stance(decision=decision.id, option=option, confidence=1.0)
    blank = _BOLD + " \t\r\n"
    number = tail.strip(blank).rstrip(".").rstrip(blank).removesuffix(")").strip(blank).removesuffix("%").strip(blank)
    if not (number.isascii() and number.isdigit() and len(number) <= 3 and int(number) <= 100):
        return ParseError.BAD_CONFIDENCE
    return Stance(decision=decision.id, option=option, confidence=int(number) / 100)
