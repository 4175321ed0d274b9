"""The records that flow through the library: what a task is, what was said, what came of it.

Frozen dataclasses with look-ups and nothing else. Environments build them, reward terms and metrics read them,
and neither needs torch. A stance is parsed once, by the environment, so two reward terms can never disagree about
what an agent meant.

Utilities are in [0, 1]. Confidences are probabilities in [0, 1]. Token counts are those of `message_tokens`.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from itertools import product
from typing import ClassVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from envs.core.task import Decision, Seat, Task


class Phase(StrEnum):
    STANCE = "stance"  # sealed answer before any partner token
    TALK = "talk"  # one message to the partner
    WORK = "work"  # messages, reads and edits on the seat's own branch
    FINAL = "final"  # sealed answer after the talk, with the seat's own part of the code where the task has one


class StopReason(StrEnum):
    FINISHED = "finished"
    SANDBOX_FAULT = "sandbox_fault"  # infrastructure, not the agents: masked, counted, never scored as a failure


class ParseError(StrEnum):
    EMPTY = "empty"
    NO_ANSWER = "no_answer"
    UNKNOWN_OPTION = "unknown_option"
    BAD_CONFIDENCE = "bad_confidence"
    NO_CODE = "no_code"
    NO_ACTION = "no_action"
    BAD_ACTION = "bad_action"
    OVER_BUDGET = "over_budget"


class ActKind(StrEnum):
    PROPOSE = "propose"  # I am for this option
    CHALLENGE = "challenge"  # I am against what stands, and for this option
    CONCEDE = "concede"  # I was for another option and am for this one now
    ASK = "ask"  # what do you know of this decision?
    INFORM = "inform"  # my source says this option
    COMMIT = "commit"  # my part will realise this option
    RETRACT = "retract"  # what I committed to no longer holds
    EXPECT = "expect"  # I predict that the partner's part realises this option; sealed


AMBIGUOUS = "(ambiguous)"  # what code is committed to that follows several options; no option has such a name

# What an EXPECT may predict besides the partner's part: whether the branches will merge. Nobody settles it.
MERGE = Decision(id="merge", options=("conflict", "clean"), utility={}, belief={}, expert="", cue={})


@dataclass(frozen=True, slots=True, kw_only=True)
class Stance:
    """A sealed report: the option that a seat holds and how sure it is, in [0, 1]. No partner ever sees it."""

    decision: str
    option: str
    confidence: float

    def probability(self, decision: Decision, option: str) -> float:
        """Probability that this report gives to `option`: the confidence, the rest shared equally by the others.

        The others are the `claimable` ones, where there are any: a blend has what a report gives it by name.

        >>> options = ("a", "b", "c", "mix")
        >>> d = Decision(id="d", options=options, utility={}, belief={}, expert="", cue={}, blends=("mix",))
        >>> [round(Stance(decision="d", option="a", confidence=0.6).probability(d, o), 2) for o in options]
        [0.6, 0.2, 0.2, 0.0]
        """
        if option == self.option:
            return self.confidence
        others = [other for other in decision.claimable or decision.options if other != self.option]
        others = others or [other for other in decision.options if other != self.option]
        return (1.0 - self.confidence) / len(others) if option in others else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One structured line of a reply. ASK and RETRACT name no option. Partners see every kind but EXPECT."""

    kind: ActKind
    decision: str
    option: str | None = None
    confidence: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry of a shared memory (`envs.handover.memory`): what a seat wrote (level 0), or a summary of others.

    `clock` is the round of writing, `n_tok` the size of `line` in `message_tokens`: what writing it costs, and reading
    it. `parents` are what it was made from: the entries that a summary covers, or the version that a new one replaces.
    """

    id: int
    author: Seat
    clock: int
    key: str | None
    text: str
    n_tok: int = 0
    parents: tuple[int, ...] = ()
    level: int = 0

    @property
    def line(self) -> str:
        """What a reader gets of it: `#3 agent_0 mail_port: 47`."""
        name = "summary" if self.level else self.key
        return f"#{self.id} {self.author}{f' {name}' if name else ''}: {self.text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One reply of one seat. `index` counts that seat's own turns from 0; `round` counts steps of the environment.

    Where there is a shared memory, `reads` are the entries that the turn was given, in order, `conflicts` the unread
    versions that made it refuse a write, and `memory_tokens` the size of what the turn wrote into it and read from it,
    what it was told in refusal included.
    """

    index: int
    round: int
    phase: Phase
    agent: Seat
    observation: str
    reply: str
    message: str = ""  # what the partners see of it
    acts: tuple[Act, ...] = ()
    stances: tuple[Stance, ...] = ()
    work: str = ""  # the code of the seat's own part, or what its branch adds to the repository
    message_tokens: int = 0
    reads: tuple[int, ...] = ()
    conflicts: tuple[int, ...] = ()
    memory_tokens: int = 0
    parse_error: ParseError | None = None
    truncated: bool = False  # the reply was cut at its limit of length


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Who wrote how much of the code, in words and symbols (`message_tokens`).

    `surviving` is how much of what a seat wrote is in the merged code, `duplicated` the size of what was written again
    of symbols that several seats wrote and of which one survives.
    """

    authored: Mapping[Seat, int]
    surviving: Mapping[Seat, int]
    duplicated: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PartTests:
    """Which hidden tests of a seat's own part pass on that part alone, and which after the merge, in one order; their
    `names` where they are no expressions of `Task.hidden_tests`."""

    alone: tuple[bool, ...]
    merged: tuple[bool, ...]
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Merge:
    """How what the seats proposed became one code; code maps the paths of files to their sources.

    `base` is what all started from, `proposals` what each seat made of it, `final` what was tested; files that nobody
    touched may be left out. `worth` is the team result U in [0, 1] of each proposal had it been taken alone, so by the
    same tests as `Outcome.utility`; {} where nobody looked. `conflict` says whether the textual merge had one, `policy`
    how it became `final`.
    """

    base: Mapping[str, str]
    proposals: Mapping[Seat, Mapping[str, str]]
    final: Mapping[str, str]
    worth: Mapping[Seat, float]
    conflict: bool
    policy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What a merge of the branches would have met after a round.

    `ranges` maps each file on which git reports a conflict to the lines of the common base, from 1, that it is about.
    `symbols` are the names, `path:name` or `path:Class.method`, that one side changes and the other changes or uses in
    what it changes; `signatures` those of them whose parameters are no longer the same on both sides. These two are
    told of a clean merge too.
    """

    round: int
    ranges: Mapping[str, tuple[tuple[int, int], ...]] = field(default_factory=dict)
    symbols: tuple[str, ...] = ()
    signatures: tuple[str, ...] = ()

    @property
    def conflict(self) -> bool:
        return bool(self.ranges)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of the episode.

    `committed` maps seat and decision to the option that the seat's final act realises (its code where there is
    code, else its final stance), None where it realises none of them, AMBIGUOUS where it follows several. `provenance`
    and `parts` are there where the task has code, `merge` where the seats changed the same code, `solo_utility` where
    somebody played the task alone: the better of the seats' solo results.
    """

    utility: float  # team result U in [0, 1]
    success: bool
    committed: Mapping[Seat, Mapping[str, str | None]]
    tests_passed: int = 0  # of the hidden tests
    tests_total: int = 0
    visible_passed: int = 0  # of the tests that the seats can read and run, in the end
    visible_total: int = 0
    detail: str = ""
    provenance: Provenance | None = None
    parts: Mapping[Seat, PartTests] = field(default_factory=dict)
    merge: Merge | None = None
    forecasts: tuple[Forecast, ...] = ()  # one for each round of work, in order
    memory: tuple[Entry, ...] = ()  # the shared memory in the end
    solo_utility: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")  # of all records in it, see `from_json`

    task: Task
    turns: tuple[Turn, ...]
    outcome: Outcome
    stop_reason: StopReason = StopReason.FINISHED
    players: Mapping[Seat, str] = field(default_factory=dict)  # who sat where, as far as it is known
    confidences: bool = True  # whether the seats were asked for them; else all are 1 and say nothing

    @property
    def seats(self) -> tuple[Seat, ...]:
        return self.task.seats

    def partners_of(self, agent: Seat) -> tuple[Seat, ...]:
        return tuple(seat for seat in self.seats if seat != agent)

    def turns_of(self, agent: Seat) -> tuple[Turn, ...]:
        return tuple(turn for turn in self.turns if turn.agent == agent)

    def _stance(self, agent: Seat, decision: str, phase: Phase) -> Stance | None:
        for turn in self.turns_of(agent):
            if turn.phase is phase:
                return next((s for s in turn.stances if s.decision == decision), None)
        return None

    def prior(self, agent: Seat, decision: str) -> Stance | None:
        """The sealed stance before any partner token; None where it could not be parsed."""
        return self._stance(agent, decision, Phase.STANCE)

    def final(self, agent: Seat, decision: str) -> Stance | None:
        """The sealed stance after the talk; None where it could not be parsed."""
        return self._stance(agent, decision, Phase.FINAL)

    def committed(self, agent: Seat, decision: str) -> str | None:
        """The option that the seat acted on in the end; None where there is none, or where it is AMBIGUOUS."""
        option = self.outcome.committed[agent][decision]
        return None if option == AMBIGUOUS else option

    def heard(self, agent: Seat) -> bool:
        """Whether any partner said anything to this seat."""
        return any(turn.message for turn in self.turns if turn.agent != agent)

    def check(self) -> None:
        """Raises ValueError, in one line, where its parts do not fit each other, as in a record edited by hand."""
        strangers = {turn.agent for turn in self.turns} - {*self.seats}
        if strangers:
            raise ValueError(f"turns: {min(strangers)!r} is no seat of the task; its seats are {list(self.seats)}")
        if not math.isfinite(self.outcome.utility):
            raise ValueError(f"outcome.utility: {self.outcome.utility} is no finite number")
        for decision, seat in product(self.task.decisions, self.seats):
            if decision.id not in self.outcome.committed.get(seat, {}):
                raise ValueError(f"outcome.committed: there is nothing of {decision.id!r} for {seat!r}")

    def to_json(self) -> str:
        return json.dumps(_record().dump_python(self, mode="json"))

    @staticmethod
    def from_json(text: str) -> "Episode":
        """What `to_json` wrote; a field that has a default may be missing, as it is in a record of an older version.

        Raises:
            ValueError: the text is no record of an episode; the message is one line that says where and why.
        """
        try:
            episode = _record().validate_python(json.loads(text))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"])) or "the text"
            raise ValueError(f"Episode.from_json: {where}: {first['msg']}; it is no record of this version.") from None
        except (ValueError, RecursionError) as error:
            raise ValueError(f"Episode.from_json: the text is no JSON ({error}).") from None
        episode.check()
        return episode


@cache
def _record() -> TypeAdapter[Episode]:
    """The reader and writer of records, which refuses fields that do not exist; made when it is first needed.

    It goes by way of Python's own JSON, because a reply may hold half of a surrogate pair, which pydantic's has no
    form for.
    """
    return TypeAdapter(Episode)
