"""From what a seat wrote to what it meant: the one grammar of the library.

    stance   Answer: <option> (<confidence>%)                one decision
             Answer <decision>: <option> (<confidence>%)     one such line per decision
    talk     any text; PASS says nothing
    final    the lines of a stance, then the seat's code where the task asks for some

`Answer`, the decision and the option may be in any case, the option in quotes or backticks; the confidence is a whole
number from 0 to 100, and an option without one is held for certain. Other lines are free, and the first line for a
decision counts. A reply that breaks the grammar is a `ParseError` value and counts for nothing: none of these functions
raises on any text.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from envs.episode import Decision, ParseError, Stance

_QUOTES = " \t\r\n'\"`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Final:
    """The last reply of a seat: its sealed stances, one per decision in order, and its code ("" where none is due)."""

    stances: tuple[Stance, ...]
    work: str = ""


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


def parse_message(reply: str) -> str | ParseError:
    """The message that the partner sees: the reply on one line, "" for PASS, EMPTY where nothing was written."""
    message = " ".join(reply.split())
    if not message:
        return ParseError.EMPTY
    return "" if message.casefold() in ("pass", "pass.") else message


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
    ids = {decision.id.casefold(): decision.id for decision in decisions}
    if len(decisions) == 1:
        ids[""] = decisions[0].id
    found = []
    for number, line in enumerate(lines):
        head, colon, text = line.partition(":")
        word, *name = head.split() or [""]
        id = ids.get(" ".join(name).casefold())
        if colon and word.casefold() == "answer" and id is not None:
            found.append((number, id, text))
    return found


def _stance(text: str, decision: Decision) -> Stance | ParseError:
    """One stance from `<option>` or `<option> (<confidence>%)`."""
    options = {option.casefold(): option for option in decision.options}
    name, bracket, tail = text.rpartition("(")
    option = options.get((name if bracket else text).strip(_QUOTES).casefold())
    if option is None:
        return ParseError.UNKNOWN_OPTION
    if not bracket:
        return Stance(decision=decision.id, option=option, confidence=1.0)
    number = tail.strip().rstrip(".").rstrip().removesuffix(")").strip().removesuffix("%").strip()
    if not (number.isascii() and number.isdigit() and len(number) <= 3 and int(number) <= 100):
        return ParseError.BAD_CONFIDENCE
    return Stance(decision=decision.id, option=option, confidence=int(number) / 100)
