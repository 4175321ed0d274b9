"""What seats are told: the system message, what to do in each phase, what the others said, what the scaffold repeats.

They are few words, because they are repeated in every episode, and tokens are compute.
"""

from collections.abc import Iterable
from typing import NamedTuple

from envs.core.episode import Phase
from envs.core.task import Decision, Seat
from envs.core.view import View

GAP = "___"  # in the place of an option


class Nouns(NamedTuple):
    """What an environment calls a decision and an option."""

    decision: str = "decision"
    option: str = "option"


def system(work: str, agents: int) -> str:
    """The system message of a team that does some work together.

    >>> system("write one module", 2), system("review one change", 1), system("review one change", 4)
    ('You and a partner write one module.', 'You review one change.', 'You and 3 partners review one change.')
    """
    others = "" if agents == 1 else " and a partner" if agents == 2 else f" and {agents - 1} partners"
    return f"You{others} {work}."


def team(agents: int) -> str:
    """The seats, as one of them is spoken to.

    >>> team(1), team(2), team(4)
    ('You', 'You and your partner', 'You and your 3 partners')
    """
    others = agents - 1
    return "You" if not others else f"You and your {f'{others} ' if others > 1 else ''}{partners(agents)}"


def partners(agents: int) -> str:
    """The others, in a word."""
    return "partner" if agents == 2 else "partners"


def instruction(view: View, phase: Phase, nouns: Nouns, *, stub: str = "", gap: str = "") -> str:
    """What to do in a phase.

    Args:
        stub, gap: of the final phase: the name of the function that the seat writes, and its code with a gap.
    """
    if phase is Phase.TALK:
        ask = f"Write your {partners(len(view.seats))} one short message, or PASS."
        return f"{ask} {acts(view, nouns)}" if view.config.acts else ask
    if phase is Phase.FINAL:
        return _final(view, nouns, stub, gap)
    form = line(view, nouns, "Answer")
    return f"Reply: {form}" if len(view.decisions) == 1 else f"Reply with a line for each: {form}"


def _final(view: View, nouns: Nouns, stub: str, gap: str) -> str:
    ask = (
        f"Answer again, then fill in: {gap}"
        if gap
        else f"Answer again, then write {stub}."
        if stub
        else "Answer again."
    )
    whose = "partner's" if len(view.seats) == 2 else "partners'"
    expect = f"First say what your {whose} answer will be: {line(view, nouns, 'Expect')}"
    return f"{expect}\n{ask}" if view.config.acts and len(view.seats) > 1 else ask


def limited(ask: str, words: int | None) -> str:
    """What to do, and how long the reply may be; None: as long as it likes."""
    return ask if words is None else f"{ask} At most {words} words."


def line(view: View, nouns: Nouns, word: str) -> str:
    """The form of a line that names an option."""
    form = f"{_head(view, nouns, word)}: <{nouns.option}>"
    return f"{form} (<confidence>%)" if view.config.confidences else form


def acts(view: View, nouns: Nouns) -> str:
    """The acts that a message may hold, and their form."""
    return (
        f"A line can be an act, {_head(view, nouns, '<act>')}: <{nouns.option}>. "
        f"Acts: Propose, Challenge, Concede, Inform, Commit. Ask and Retract need no {nouns.option}."
    )


def _head(view: View, nouns: Nouns, word: str) -> str:
    return word if len(view.decisions) == 1 else f"{word} <{nouns.decision}>"


def sources(view: View, scaffold: bool | str) -> list[str]:
    """What the seat was told of each decision and by what source, as a scaffold repeats it: rated in a word (True),
    "named" as in the brief, or not at all; nothing for one seat alone, which has read two sources and chooses."""
    if len(view.seats) == 1 or scaffold in (False, "gap"):
        return []
    return [_source(decision, view.seat, named=scaffold == "named") for decision in view.decisions]


def _source(decision: Decision, seat: Seat, *, named: bool) -> str:
    if named and seat in decision.source:
        return f"Your source, {decision.source[seat]}: {decision.told(seat)}"
    if named or decision.is_estimate:
        return f"Your source: {decision.told(seat)}"
    return f"Your {decision.quality(seat)} source: {decision.belief[seat]}"


def told(said: Iterable[tuple[Seat, str]], agents: int) -> list[str]:
    """The lines on what the others said in one step, by name where there are several; "" is nothing."""
    named = (("Partner" if agents == 2 else seat, message) for seat, message in said)
    return [f"{name}: {message}" if message else f"{name} said nothing." for name, message in named]
