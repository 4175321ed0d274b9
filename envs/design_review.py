"""A design review: a team of one to eight settles design decisions by talk alone, without code."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from envs.core import prompts
from envs.core.config import EnvConfig, FamilyConfig
from envs.core.env import SEATS, CoopEnv
from envs.core.episode import Outcome, StopReason, Turn
from envs.core.fields import ArgumentError
from envs.core.task import Decision, Seat, Task
from envs.families.auth_scheme import AUTH_SCHEME
from envs.families.base import ReviewFamily, alone, claim, pointer, shown, topics
from envs.families.date_format import DATE_FORMAT
from envs.families.error_style import ERROR_STYLE
from envs.families.pagination import PAGINATION
from envs.families.schema_version import SCHEMA_VERSION
from envs.families.sources import SOURCES, draw_source

MAX_DECISIONS = 3
_SERVICES = ("orders", "billing", "search", "mail", "login", "stock", "media", "audit", "maps", "chat")


class DesignReviewConfig(FamilyConfig, frozen=True):
    FAMILIES: ClassVar[tuple[ReviewFamily, ...]] = (AUTH_SCHEME, PAGINATION, ERROR_STYLE, DATE_FORMAT, SCHEMA_VERSION)

    agents: Annotated[int, Field(ge=1, le=8)] = 2
    """Number of seats; one alone is the solo baseline."""
    decisions: Annotated[int, Field(ge=1, le=MAX_DECISIONS)] = 1
    """Decisions of a task, each of another family. The cells hold for each; `Task.cell` says who is right on all."""
    settle: Literal["agreement", "vote"] = "agreement"
    """What becomes of a decision on which final stances differ: with "agreement" nothing, with "vote" it ends with what
    most seats hold, one of several by lot."""

    @model_validator(mode="after")
    def _a_family_for_each_decision(self) -> Self:
        families = len(self.choose_families(self.families))
        if self.decisions > families:
            raise ArgumentError(
                f"decisions is {self.decisions}; it must be at most {families}, one for each of the families.",
                ("decisions",),
            )
        return self


class DesignReview(CoopEnv[DesignReviewConfig]):
    """All seats review one change and must end with the same answer to every decision.

    ## Description
    Each decision has three plain options, of which sources claim two, and a blend of each pair. Each brief privately
    gives one source's claim with a requirement that speaks for it; every plain option has one, so only the source tells
    whom to trust. Who has the reliable source is drawn anew for each decision: one seat, however many there are.

    A single seat (`agents=1`) is the solo baseline: it plays the tasks of a pair and reads both briefs, so that with an
    equal `budget` the two differ in nothing but the need to coordinate.

    ## Action space, observation space, phases, episode end, state, infos
    As in `CoopEnv`. With several decisions a stance has one line for each: `Answer <decision>: <option> (80%)`.

    ## Rewards
    0.0 until the end; then U = sum of w_d * u_d(A_d) / sum of w_d for every seat, where A_d is the option that all
    final stances agree on. A decision on which they differ blocks the change and counts 0, unless `settle` says that it
    is voted on. Success: every decision ends with a right answer. A seat is committed to its final stance.

    ## Arguments
    The fields of `DesignReviewConfig`.

    ## Families
    auth_scheme, pagination, error_style, date_format, schema_version; none is held out.

    ## Example
    >>> env = DesignReview()
    >>> observations, infos = env.reset(seed=0)
    >>> while env.agents:  # here each seat would reply to its observation
    ...     replies = {seat: f"Answer: {env.task.decisions[0].best} (80%)" for seat in env.agents}
    ...     observations, rewards, *_ = env.step(replies)
    >>> rewards
    {'agent_0': 1.0, 'agent_1': 1.0}

    ## Version history
    v0: first version.
    """

    metadata: ClassVar[dict[str, Any]] = {**CoopEnv.metadata, "name": "design_review_v0"}
    Config: ClassVar[type[EnvConfig]] = DesignReviewConfig
    WORK: ClassVar[str] = "review one change"

    def make_task(self, seed: int) -> Task:
        rng = np.random.default_rng(seed)
        families = [self.families[i] for i in rng.permutation(len(self.families))[: self.config.decisions]]
        readers = self.seats if len(self.seats) > 1 else SEATS  # one seat alone reads what a pair would
        count, cells = self.config.decisions, self.config.cells
        rights = [cells.at(seed * count + j, len(readers)) for j in range(count)]
        knobs = {"cue_reliability": self.config.cue_reliability, "distractors": self.config.distractors}
        decisions = tuple(
            shown(family.decide(right, readers, rng, **knobs), self.config.expert)
            for family, right in zip(families, rights, strict=True)
        )
        change = f"{prompts.team(len(self.seats))} review change {rng.integers(100, 1000)} of {rng.choice(_SERVICES)}."
        reads = {seat: (seat,) for seat in self.seats} if len(self.seats) > 1 else dict.fromkeys(self.seats, readers)
        names = SOURCES[self.config.sources]
        drawn = {(s, d.id): draw_source(d, s, rng, names) for told in reads.values() for d in decisions for s in told}
        decisions = tuple(replace(d, source={s: drawn[s, d.id] for s in readers}) for d in decisions)
        briefs = {
            seat: "\n".join([change, *(self._lines_on(f, d, told) for f, d in zip(families, decisions, strict=True))])
            for seat, told in reads.items()
        }
        if len(self.seats) == 1:
            decisions = tuple(alone(decision, *self.seats) for decision in decisions)
        name = "+".join(family.name for family in families)
        return Task(
            id=f"{name}-{seed}",
            family=name,
            seed=seed,
            seats=self.seats,
            briefs=briefs,
            decisions=decisions,
            topics=topics(decisions),
            cell={seat: all(d.is_right(d.belief[seat]) for d in decisions) for seat in self.seats},
        )

    def _lines_on(self, family: ReviewFamily, decision: Decision, told: Sequence[Seat]) -> str:
        """The lines of a brief on one decision, with what the seats `told` are told of it."""
        title = f"{decision.id}: " if self.config.decisions > 1 else ""
        question = f"{title}{family.question} Options: {', '.join(decision.options)}."
        claims = (f"{claim(decision, seat)}: {family.reasons[decision.belief[seat]]}." for seat in told)
        return "\n".join([question, *claims]) + "".join(pointer(decision, seat) for seat in told)

    def finish(self, turns: Mapping[Seat, Turn]) -> tuple[Outcome, StopReason]:
        held = {seat: {stance.decision: stance.option for stance in turns[seat].stances} for seat in self.seats}
        committed = {seat: {d.id: held[seat].get(d.id) for d in self.task.decisions} for seat in self.seats}
        total, right = 0.0, []
        for decision in self.task.decisions:
            agreed = self._settled([committed[seat][decision.id] for seat in self.seats])
            total += decision.weight * decision.utility_of(agreed)
            right.append(decision.is_right(agreed))
        utility = total / sum(decision.weight for decision in self.task.decisions)
        return Outcome(utility=utility, success=all(right), committed=committed), StopReason.FINISHED

    def _settled(self, answers: Sequence[str | None]) -> str | None:
        """What a decision ends with where the seats end on these; None where that is nothing."""
        if self.config.settle == "agreement":
            return answers[0] if len(set(answers)) == 1 else None
        votes = Counter(answer for answer in answers if answer is not None)
        tied = sorted(option for option in votes if votes[option] == max(votes.values()))
        return tied[np.random.default_rng((self.task.seed, len(tied))).integers(len(tied))] if tied else None
