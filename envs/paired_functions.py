"""Two halves of one module: each seat writes one of two functions that must share a contract."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from envs.core.config import EnvConfig
from envs.core.env import SEATS, CoopEnv
from envs.core.episode import Outcome, PartTests, StopReason, Turn
from envs.core.lookup import find
from envs.core.task import HiddenTest, Seat, Task
from envs.core.tokens import message_tokens
from envs.families import HELD_OUT, TRAINING
from envs.families.base import FunctionFamily, claim
from envs.sandbox import ExpressionVerdict, Part, Status, run_expressions
from envs.source.provenance import provenance


class PairedFunctionsConfig(EnvConfig):
    FAMILIES: ClassVar[tuple[FunctionFamily, ...]] = (*TRAINING, *HELD_OUT)
    HELD_OUT: ClassVar[tuple[str, ...]] = tuple(family.name for family in HELD_OUT)

    test_timeout_s: Annotated[float, Field(gt=0)] = 2.0
    """Wall time in seconds for the hidden tests of an episode."""


class PairedFunctions(CoopEnv):
    """Each seat writes one of two small functions; hidden tests run on the merged module.

    ## Description
    The two functions share one contract (an offset, a separator, an error type ...). Each brief privately claims one of
    three plain readings of it; the list has a blend of each pair too. One reading is right and no blend is, but of an
    estimate: there both sources measured the same number and say how exactly, and what is nearest to the
    precision-weighted pool is right. Which function a seat writes, which seat has the better
    source, names and the order of options are random.

    ## Action space, observation space, phases, episode end, state, infos
    As in `CoopEnv`. The final reply is the stance, then the code of the seat's own function (`envs.core.grammar`).

    ## Rewards
    0.0 until the end; then U = hidden tests passed / all five (two on each part against the right reading, one round
    trip through both) for both seats. Success: all pass. Each part hands over its own function only, so nobody can
    write the partner's half. A seat is committed to the option whose probe its function satisfies (None if not
    exactly one).

    ## Arguments
    The fields of `PairedFunctionsConfig`.

    ## Families
    For training: offset, separator, scale, index_base, timeout, padding, key, day_format, error_type, schema, unit,
    decimals, signature, attribute, capacity, drift. Held out: signing, page_size, return_type, row_size. Estimates are
    capacity, drift and row_size. `docs/families.md` has a table.

    ## Example
    >>> env = PairedFunctions(families=["offset"])
    >>> observations, infos = env.reset(seed=0)
    >>> while env.agents:  # here each seat would reply to its observation
    ...     best = env.task.decisions[0].best
    ...     replies = {seat: f"Answer: {best}\\n{env.reference_work(seat, best)}" for seat in env.agents}
    ...     observations, rewards, *_ = env.step(replies)
    >>> rewards
    {'agent_0': 1.0, 'agent_1': 1.0}

    ## Version history
    v0: first version.
    """

    metadata: ClassVar[dict[str, Any]] = {**CoopEnv.metadata, "name": "paired_functions_v0"}
    Config: ClassVar[type[EnvConfig]] = PairedFunctionsConfig

    config: PairedFunctionsConfig

    def make_task(self, seed: int) -> Task:
        rng = np.random.default_rng(seed)
        family = self.families[rng.integers(len(self.families))]
        right = self.config.cells.at(seed)
        knobs = {"cue_reliability": self.config.cue_reliability, "distractors": self.config.distractors}
        decision = family.decide(right, SEATS, rng, **knobs)
        part_of = dict(zip(SEATS, (int(part) for part in rng.permutation(2)), strict=True))
        first, second, third = (int(n) for n in 1 + rng.permutation(9)[:3])
        truth = decision.best
        tests = [
            HiddenTest(part=seat, expression=family.check(part, truth, n))
            for seat, part in part_of.items()
            for n in (first, second)
        ]
        probes = {
            seat: {
                decision.id: {
                    option: f"{family.check(part, option, first)} and {family.check(part, option, third)}"
                    for option in decision.options
                }
            }
            for seat, part in part_of.items()
        }
        briefs = {}
        for seat, part in part_of.items():
            briefs[seat] = (
                f"You write {family.signatures[part]}: {family.glosses[part]}. "
                f"Your partner writes {family.signatures[1 - part]}. Both must use one {family.contract}.\n"
                f"Options: {', '.join(decision.options)}. {claim(decision, seat, rng)}."
            )
        return Task(
            id=f"{family.name}-{seed}",
            family=family.name,
            seed=seed,
            seats=SEATS,
            briefs=briefs,
            decisions=(decision,),
            cell=dict(zip(SEATS, right, strict=True)),
            stubs={seat: family.function(part) for seat, part in part_of.items()},
            probes=probes,
            hidden_tests=(*tests, HiddenTest(part="", expression=family.round_trip(third))),
            reference_tokens=sum(message_tokens(family.source(part, truth)) for part in part_of.values()),
        )

    def finish(self, turns: Mapping[Seat, Turn]) -> tuple[Outcome, StopReason]:
        task = self.task
        tests = [test.expression for test in task.hidden_tests]
        probes = [
            (seat, id, option, expression)
            for seat, decisions in task.probes.items()
            for id, options in decisions.items()
            for option, expression in options.items()
        ]
        verdict = run_expressions(
            tuple(Part(name=task.stubs[seat], source=turns[seat].work) for seat in task.seats),
            (*tests, *(expression for *_, expression in probes)),
            timeout_s=self.config.test_timeout_s,
        )
        true_probes = [probe for probe, passed in zip(probes, verdict.passed[len(tests) :], strict=True) if passed]
        committed: dict[Seat, dict[str, str | None]] = {}
        for seat in task.seats:
            committed[seat] = {}
            for decision in task.decisions:
                realised = [option for s, id, option, _ in true_probes if (s, id) == (seat, decision.id)]
                committed[seat][decision.id] = realised[0] if len(realised) == 1 else None
        passed = sum(verdict.passed[: len(tests)])
        outcome = Outcome(
            utility=passed / len(tests),
            success=passed == len(tests),
            committed=committed,
            tests_passed=passed,
            tests_total=len(tests),
            detail="" if verdict.status is Status.OK else f"{verdict.status}: {verdict.detail}",
            provenance=provenance(task.stubs, {seat: turns[seat].work for seat in task.seats}),
            parts=self._parts(turns, verdict),
        )
        fault = verdict.status is Status.FAULT
        return outcome, StopReason.SANDBOX_FAULT if fault else StopReason.FINISHED

    def _parts(self, turns: Mapping[Seat, Turn], verdict: ExpressionVerdict) -> dict[Seat, PartTests]:
        """Each seat's own tests after the merge and alone.

        Parts share a process and nothing else, so what a part does alone differs only where the process ended early.
        """
        parts = {}
        for seat in self.task.seats:
            own = [i for i, test in enumerate(self.task.hidden_tests) if test.part == seat]
            merged = alone = tuple(verdict.passed[i] for i in own)
            if verdict.status not in (Status.OK, Status.FAULT):
                part = Part(name=self.task.stubs[seat], source=turns[seat].work)
                expressions = tuple(self.task.hidden_tests[i].expression for i in own)
                alone = run_expressions((part,), expressions, timeout_s=self.config.test_timeout_s).passed
            parts[seat] = PartTests(alone=alone, merged=merged)
        return parts

    def reference_work(self, seat: Seat, option: str) -> str:
        family = find(self.task.family, {f.name: f for f in self.families}, kind="family")
        part = [family.function(0), family.function(1)].index(self.task.stubs[seat])
        return family.source(part, option)
