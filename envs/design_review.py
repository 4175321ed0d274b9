"""A design review: two seats settle design decisions by talk alone, without code."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from envs.base import SEATS, CoopEnv
from envs.episode import Decision, Outcome, Seat, StopReason, Task, Turn
from envs.families.auth_scheme import AUTH_SCHEME
from envs.families.base import ReviewFamily, claim
from envs.families.date_format import DATE_FORMAT
from envs.families.error_style import ERROR_STYLE
from envs.families.pagination import PAGINATION
from envs.families.schema_version import SCHEMA_VERSION

MAX_DECISIONS = 3
_SERVICES = ("orders", "billing", "search", "mail", "login", "stock", "media", "audit", "maps", "chat")


class DesignReview(CoopEnv):
    """Both seats review one change and must end with the same answer to every decision.

    ## Description
    Each decision has four options: two that sources claim, a blend of them, and another. Each brief privately gives
    one source's claim with a requirement that speaks for it; every option has one, so only the source tells whom to
    trust. Who has the reliable source is drawn anew for each decision.

    ## Action space, observation space, phases, episode end, state, infos
    As in `CoopEnv`. With several decisions a stance has one line for each: `Answer <decision>: <option> (80%)`.

    ## Rewards
    0.0 until the end; then U = sum of w_d * u_d(A_d) / sum of w_d for both seats, where A_d is the option that both
    final stances agree on. A decision on which they differ blocks the change and counts 0. Success: every decision
    ends with a right answer. A seat is committed to its final stance.

    ## Arguments
    As in `CoopEnv`, and decisions: number of decisions of a task, 1 to 3 and at most the number of families. The
    cells hold for each decision; `Task.cell` says who is right on all of them.

    ## Families
    auth_scheme, pagination, error_style, date_format, schema_version; none is held out.

    ## Version history
    v0: first version.
    """

    metadata: ClassVar[dict[str, Any]] = {**CoopEnv.metadata, "name": "design_review_v0"}
    FAMILIES: ClassVar[tuple[ReviewFamily, ...]] = (AUTH_SCHEME, PAGINATION, ERROR_STYLE, DATE_FORMAT, SCHEMA_VERSION)

    def __init__(self, *, decisions: int = 1, **kwargs: Any):
        super().__init__(**kwargs)
        most = min(MAX_DECISIONS, len(self.families))
        if not isinstance(decisions, int) or not 1 <= decisions <= most:
            raise ValueError(
                f"decisions is {decisions!r}; it must be a whole number from 1 to {most} "
                f"(at most {MAX_DECISIONS}, and one family each)."
            )
        self.decisions = decisions

    def make_task(self, seed: int) -> Task:
        rng = np.random.default_rng(seed)
        families = [self.families[i] for i in rng.permutation(len(self.families))[: self.decisions]]
        rights = [self.cells.at(seed * self.decisions + j) for j in range(self.decisions)]
        decisions = tuple(
            family.decide(right, SEATS, rng, cue_reliability=self.cue_reliability, distractors=self.distractors)
            for family, right in zip(families, rights, strict=True)
        )
        change = f"You and your partner review change {rng.integers(100, 1000)} of {rng.choice(_SERVICES)}."
        briefs = {
            seat: "\n".join([change, *(self._ask(f, d, seat, rng) for f, d in zip(families, decisions, strict=True))])
            for seat in SEATS
        }
        name = "+".join(family.name for family in families)
        return Task(
            id=f"{name}-{seed}",
            family=name,
            seed=seed,
            seats=SEATS,
            briefs=briefs,
            decisions=decisions,
            cell={seat: all(right[i] for right in rights) for i, seat in enumerate(SEATS)},
        )

    def _ask(self, family: ReviewFamily, decision: Decision, seat: Seat, rng: np.random.Generator) -> str:
        """The lines of a brief on one decision."""
        title = f"{decision.id}: " if self.decisions > 1 else ""
        reason = family.reasons[decision.belief[seat]]
        return (
            f"{title}{family.question} Options: {', '.join(decision.options)}.\n{claim(decision, seat, rng)}: {reason}."
        )

    def finish(self, turns: Mapping[Seat, Turn]) -> tuple[Outcome, StopReason]:
        held = {seat: {stance.decision: stance.option for stance in turns[seat].stances} for seat in SEATS}
        committed = {seat: {d.id: held[seat].get(d.id) for d in self.task.decisions} for seat in SEATS}
        total, right = 0.0, []
        for decision in self.task.decisions:
            answers = {committed[seat][decision.id] for seat in SEATS}
            agreed = answers.pop() if len(answers) == 1 else None
            total += decision.weight * decision.utility_of(agreed)
            right.append(decision.is_right(agreed))
        utility = total / sum(decision.weight for decision in self.task.decisions)
        return Outcome(utility=utility, success=all(right), committed=committed), StopReason.FINISHED
