"""Work on branches of one repository: turns, budgets, what each seat is told, what a merge would meet."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import Field

from envs.core import prompts
from envs.core.config import EnvConfig
from envs.core.env import CoopEnv
from envs.core.episode import Forecast, ParseError, Phase, Turn
from envs.core.grammar import ParsedReply
from envs.core.prompts import GAP
from envs.core.task import Seat
from envs.core.tokens import message_tokens
from envs.repository.actions import WORDS, Reply, Word, broken_line, expected_merge, parse_actions
from envs.repository.forecast import describe, forecast
from envs.repository.git import Repository, export, need_git
from envs.repository.working_copy import Files, added, clipped
from envs.repository.workspace import Desk

GRAMMAR = """Work on your branch. A reply is any of these actions, each from the start of a line:
Say: <text to your partner>
Read: <path>
Search: <text>
Insert <path> after: <line>  (or before; then new lines, then End)
Replace <path>:  (then old lines, With:, new lines, End)
Function <path> <name>:  (then the whole new function, End)
Test
Submit
Pass"""
EXPECT_MERGE = "Say what the merge will be, unseen by your partner: Expect merge: <conflict or clean> (<confidence>%)"


class BranchConfig(EnvConfig, frozen=True):
    BEFORE: ClassVar[tuple[Phase, ...]] = (Phase.STANCE,)  # the phases before the work
    AFTER: ClassVar[tuple[Phase, ...]] = (Phase.FINAL,)

    rounds: Annotated[int, Field(ge=1, le=100)] = 6
    """Turns of work of each seat."""
    tokens: Annotated[int, Field(ge=1)] = 1000
    """Words and symbols that each seat of a pair may write in all of its turns of work; one alone has those of both. A
    reply beyond counts for nothing and submits the branch."""
    order: Literal["simultaneous", "alternating"] = "simultaneous"
    """Whether both work in every step, or one seat at a time."""
    policy: Literal["naive", "union", "lead_fallback", "identical"] = "naive"
    """How branches are merged (`envs.repository.merge.MergePolicy`); agent_0 leads."""
    actions: Annotated[Sequence[Word], Field(min_length=1)] | None = None
    """The first words of the actions that a seat may use, such as ["say", "read", "insert", "submit"]; None: all. The
    grammar that it is told has no others, and a reply with another is a bad action and counts for nothing."""
    forecast: bool = False
    """Tell the seats what a merge would meet now, and as a warning on which names both rely, whether or not they agree
    (`envs.repository.forecast`). It is made in any case."""
    test_timeout_s: Annotated[float, Field(gt=0, le=86_400)] = 2.0
    """Wall time in seconds for the tests of one tree."""

    @property
    def tokens_of_seat(self) -> int:
        """What a seat may write, so that a pair and one alone have the same in all."""
        return self.tokens if self.agents > 1 else 2 * self.tokens

    @property
    def phases(self) -> tuple[Phase, ...]:
        steps = self.rounds if self.order == "simultaneous" else self.agents * self.rounds
        return (*self.BEFORE, *[Phase.WORK] * steps, *self.AFTER)


B = TypeVar("B", bound=BranchConfig)


class BranchEnv(CoopEnv[B]):
    """Two seats work on branches of one repository, which are merged in the end: what all such environments share.

    An abstract base: a subclass says what a task is (`make_task`, with `Task.files`) and what becomes of the branches
    (`finish`). `envs.repository.actions` has the grammar of a phase of work; a reply that breaks it counts for
    nothing, and the seat is told where. Observations then are what its actions showed, what the partner said, the
    forecast, what is left.
    `env.acting` are the seats whose turn it is. A seat that waits sees "", and what is new waits for it.

    The arguments are the fields of `BranchConfig`. Raises NoGitError where there is no git of 2.38 or newer.
    """

    GRAMMAR: ClassVar[str] = GRAMMAR
    Config: ClassVar[type[EnvConfig]] = BranchConfig

    def __init__(self, config: B | None = None, **fields: Any):
        super().__init__(config, **fields)
        need_git()
        self._desks: dict[Seat, Desk] = {}
        self._forecasts: list[Forecast] = []
        self._foreseen = 0  # changes of any branch that the last forecast knows of

    def export(self, folder: str | Path) -> Repository:
        """Write the branches as a bare git repository into a new folder: `main`, `agent_0` and `agent_1`, one commit
        for each turn that changed something. Raises ValueError where the folder holds something."""
        return export(Path(folder), self.task.files, {seat: desk.states for seat, desk in self._desks.items()})

    # -- the phase of work

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[Seat, str], dict[Seat, dict[str, Any]]]:
        self._schedule, self._forecasts = self.config.phases, []
        self._desks = {seat: Desk({}, self.config.rounds, self.config.tokens_of_seat) for seat in self.seats}
        observations, infos = super().reset(seed, options)
        if not self.task.files:
            raise ValueError(
                f"reset: the task {self.task.id!r} has no files; {type(self).__name__} plays a repository."
            )
        for desk in self._desks.values():
            desk.files = self.task.files
        self._observations = {seat: text if seat in self.acting else "" for seat, text in observations.items()}
        return dict(self._observations), infos

    @property
    def acting(self) -> tuple[Seat, ...]:
        if self.phase is not Phase.WORK:
            return super().acting
        working = tuple(seat for seat in self.seats if self._desks[seat].working)
        if self.config.order == "simultaneous" or len(working) < 2:
            return working
        last = next((turn.agent for turn in reversed(self._turns) if turn.phase is Phase.WORK), None)
        return (self.seats[self.task.seed % 2],) if last is None else tuple(seat for seat in working if seat != last)

    def branch(self, seat: Seat) -> Files:
        """The files of a seat's branch as they are now."""
        return self._desks[seat].files

    def turns_left(self, seat: Seat) -> int:
        """How many turns of work the seat may still take."""
        return self._desks[seat].turns_left

    def instruction(self, seat: Seat, phase: Phase) -> str:
        if phase is not Phase.WORK:  # the code is on the branch: the end asks for none
            ask = prompts.instruction(self.view(seat), phase, self.NOUNS)
            return f"{ask}\n{EXPECT_MERGE}" if self._merges and self.config.acts and phase is Phase.FINAL else ask
        desk = self._desks[seat]
        left = f"{desk.turns_left} turns and {desk.tokens_left} tokens left."
        if desk.turns_left < self.config.rounds:
            return left
        acts = [prompts.acts(self.view(seat), self.NOUNS)] if self.config.acts and self.task.decisions else []
        acts += [EXPECT_MERGE] if self._merges and self.config.acts else []
        gap = [f"Your work with a gap:\n{self.reference_work(seat, GAP)}"] if self.scaffold else []
        head, *lines = self.GRAMMAR.split("\n")
        offered = [line for line in lines if self._offers(re.split(r"\W", line.lower())[0])]
        return "\n".join([head, *offered, *acts, *gap, left])

    def _offers(self, action: str) -> bool:
        """Whether the seats are told of an action, by its first word."""
        return (self.config.actions is None or action in self.config.actions) and (self._merges or action != "say")

    def _not_offered(self, parsed: Reply | ParseError) -> str:
        """The first word of an action that a reply uses and no seat may; "" where there is none."""
        if isinstance(parsed, ParseError) or self.config.actions is None:
            return ""
        used = (WORDS[type(action)] for action in parsed.actions)
        return next((word for word in used if word not in self.config.actions), "")

    @property
    def _merges(self) -> bool:
        """Whether there is a partner, to talk to and to merge with."""
        return len(self.seats) > 1

    def _read(self, seat: Seat, phase: Phase, reply: str) -> Turn:
        if phase is not Phase.WORK:
            turn = super()._read(seat, phase, reply)
            sealed = expected_merge(reply) if self.config.acts and turn.parse_error is None else ()
            return replace(turn, acts=(*turn.acts, *sealed))
        desk, spent = self._desks[seat], message_tokens(reply)
        parsed: Reply | ParseError = parse_actions(reply, self.task.decisions, acts=self.config.acts)
        where = f' in the line "{broken_line(reply)[:100]}"' if parsed is ParseError.BAD_ACTION else ""
        if other := self._not_offered(parsed):
            parsed, where = ParseError.BAD_ACTION, f', as "{other}" is none of yours'
        if spent > desk.tokens_left:
            parsed, desk.submitted = ParseError.OVER_BUDGET, True
        desk.turns_left -= 1
        desk.tokens_left = max(0, desk.tokens_left - spent)
        if isinstance(parsed, ParseError):
            desk.news.append(f"Your reply was not read: {parsed}{where if parsed is ParseError.BAD_ACTION else ''}.")
            return self._turn(seat, phase, reply, ParsedReply(error=parsed))
        before, message = desk.files, desk.do(parsed.actions, test_timeout_s=self.config.test_timeout_s)
        work = added(self.task.files, desk.files) if desk.files != before else ""
        return self._turn(seat, phase, reply, ParsedReply(message=message, work=work, acts=parsed.acts))

    def resolve(self, turns: dict[Seat, Turn]) -> dict[Seat, Turn]:
        if self.phase is Phase.WORK:
            if self._merges:
                self._foresee()
            for turn in turns.values():
                self._tell_partners(turn)
            if not any(desk.working for desk in self._desks.values()):
                self._schedule = (*self._schedule[: self._step + 1], *self.config.AFTER)
        return turns

    def _foresee(self) -> None:
        """Add the forecast of this round; the last one still holds where no branch has changed since."""
        edits = sum(len(desk.states) for desk in self._desks.values())
        if self._forecasts and edits == self._foreseen:
            self._forecasts.append(replace(self._forecasts[-1], round=self._step))
        else:
            branches = (self._desks[seat].files for seat in self.seats)
            self._forecasts.append(forecast(self._step, self.task.files, *branches))
        self._foreseen = edits

    def _tell_partners(self, turn: Turn) -> None:
        """Put on the partner's desk what a turn of work said, and whether it was the last."""
        heard = [f"Partner: {turn.message}"] if turn.message else []
        heard += ["Your partner has submitted."] if self._desks[turn.agent].submitted else []
        for seat in self.seats:
            if seat != turn.agent:
                self._desks[seat].news += heard

    def _news(self, seat: Seat, turns: Mapping[Seat, Turn]) -> str:
        if seat not in self.acting:
            return ""
        brief = [] if any(turn.agent == seat for turn in self._turns) else [self.task.briefs[seat]]
        foreseen = [describe(self._forecasts[-1])] if self.config.forecast and self._forecasts else []
        desk = self._desks[seat]
        settling = self.phase is Phase.FINAL or desk.turns_left == self.config.rounds
        recalled = prompts.sources(self.view(seat), self.scaffold) if settling else []
        news = "\n".join([*desk.take_news(), *foreseen])
        return "\n".join([*brief, *([clipped(news)] if news else []), *recalled, self._ask(seat)])
