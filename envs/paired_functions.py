"""Two halves of one module: each seat writes one of two functions that must share a contract."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from envs.core.config import EnvConfig, FamilyConfig
from envs.core.env import SEATS, CoopEnv
from envs.core.episode import Outcome, PartTests, Provenance, StopReason, Turn
from envs.core.hidden_tests import HiddenSuite
from envs.core.lookup import find
from envs.core.task import BOTH, HiddenTest, Seat, Task
from envs.core.tokens import message_tokens
from envs.families import HELD_OUT, HELD_OUT_CONTRACTS, HELD_OUT_COPIED, TRAINING
from envs.families.base import FunctionFamily, alone, claim, pointer, shown, topics
from envs.families.sources import sourced
from envs.sandbox import Part, Status, run_expressions
from envs.source.provenance import provenance


class PairedFunctionsConfig(FamilyConfig, frozen=True):
    FAMILIES: ClassVar[tuple[FunctionFamily, ...]] = (*TRAINING, *HELD_OUT)
    HELD_OUT: ClassVar[tuple[str, ...]] = tuple(family.name for family in HELD_OUT)
    FURTHER: ClassVar[Mapping[str, tuple[FunctionFamily, ...]]] = {
        "held_out_contracts": HELD_OUT_CONTRACTS,
        "held_out_copied": HELD_OUT_COPIED,
    }

    agents: Annotated[int, Field(ge=1, le=2)] = 2
    """Number of seats; one alone writes both functions."""
    test_timeout_s: Annotated[float, Field(gt=0, le=86_400)] = 2.0
    """Wall time in seconds for the hidden tests of an episode."""


class PairedFunctions(CoopEnv[PairedFunctionsConfig]):
    """Each seat writes one of two small functions; hidden tests run on the merged module.

    ## Description
    The two functions share one contract (an offset, a separator, an error type ...). Each brief privately claims one of
    three plain readings of it; the list has a blend of each pair too. One reading is right and no blend is, but of an
    estimate: there both sources measured the same number and say how exactly, and what is nearest to the
    precision-weighted pool is right. Which function a seat writes, which seat has the better
    source, names and the order of options are random.

    A single seat (`agents=1`) is the solo baseline: it plays the tasks of a pair, reads both briefs and writes both
    functions, so that with an equal `budget` the two differ in nothing but the need to coordinate.

    ## Action space, observation space, phases, episode end, state, infos
    As in `CoopEnv`. The final reply is the stance, then the code of the seat's own function (`envs.core.grammar`).

    ## Rewards
    0.0 until the end; then U = hidden tests passed / all five (two on each part against the right reading, one round
    trip through both) for both seats. Success: all pass. Each part runs in a process of its own and hands over its own
    function only, so nobody can write the partner's half or read it. Each function is run on the inputs of every
    option, so that they tell nothing of the right one. A seat is committed to the option that its function follows on
    every input, None if there is none; one that follows several is ambiguous and passes no test
    (`envs.core.hidden_tests`).

    ## Arguments
    The fields of `PairedFunctionsConfig`.

    ## Families
    For training: offset, separator, scale, index_base, timeout, padding, key, day_format, error_type, schema, unit,
    decimals, signature, attribute, capacity, drift. Held out, with sources of their own: signing, page_size,
    return_type, row_size, and in no split but "held_out_copied" buckets. Estimates are capacity, drift and
    row_size. `docs/families.md` has a table.

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

    RUNS_CODE: ClassVar[bool] = True
    metadata: ClassVar[dict[str, Any]] = {**CoopEnv.metadata, "name": "paired_functions_v0"}
    Config: ClassVar[type[EnvConfig]] = PairedFunctionsConfig
    WORK: ClassVar[str] = "write one module"

    def make_task(self, seed: int) -> Task:
        rng = np.random.default_rng(seed)
        family = self.families[rng.integers(len(self.families))]
        rng = family.stream(seed, rng)
        right = self.config.cells.at(seed)
        knobs = {"cue_reliability": self.config.cue_reliability, "distractors": self.config.distractors}
        decision = shown(family.decide(right, SEATS, rng, **knobs), self.config.expert)
        part_of = dict(zip(SEATS, (int(part) for part in rng.permutation(2)), strict=True))
        writes = {seat: (part,) for seat, part in part_of.items()}
        if len(self.seats) == 1:
            writes = {self.seats[0]: (0, 1)}
        first, second, third = (int(n) for n in 1 + rng.permutation(9)[:3])
        truth = decision.best
        tests = [
            HiddenTest(part=seat, expression=family.check(part, truth, n))
            for seat, parts in writes.items()
            for part in parts
            for n in (first, second)
        ]
        inputs = (first, second, third)
        probes = {
            seat: {
                decision.id: {
                    o: tuple(family.check(part, o, n) for part in parts for n in inputs) for o in decision.options
                }
            }
            for seat, parts in writes.items()
        }
        decision = sourced(decision, rng, family.sources(self.config.sources))
        claims = {seat: f"{claim(decision, seat)}.{pointer(decision, seat)}" for seat in part_of}
        options = f"Options: {', '.join(decision.options)}."
        briefs = {
            seat: f"You write {family.signatures[part]}: {family.glosses[part]}. Your partner writes "
            f"{family.signatures[1 - part]}. Both must use one {family.contract}.\n{options} {claims[seat]}"
            for seat, part in part_of.items()
        }
        if len(self.seats) == 1:
            both = ", and ".join(map(": ".join, zip(family.signatures, family.glosses, strict=True)))
            told = f"You write {both}. Both must use one {family.contract}."
            briefs = {self.seats[0]: f"{told}\n{options} {' '.join(claims.values())}"}
            decision = alone(decision, *self.seats)
        return Task(
            id=f"{family.name}-{seed}",
            family=family.name,
            seed=seed,
            seats=self.seats,
            briefs=briefs,
            decisions=(decision,),
            cell={seat: decision.is_right(decision.belief[seat]) for seat in self.seats},
            stubs={seat: BOTH.join(map(family.function, parts)) for seat, parts in writes.items()},
            probes=probes,
            hidden_tests=(*tests, HiddenTest(part="", expression=family.round_trip(third))),
            topics=topics([decision]),
            reference_tokens=sum(message_tokens(family.source(part, truth)) for part in part_of.values()),
        )

    def finish(self, turns: Mapping[Seat, Turn]) -> tuple[Outcome, StopReason]:
        task, suite = self.task, HiddenSuite(self.task)
        sources = {
            seat: tuple(Part(name=name, source=turns[seat].work) for name in task.stubs[seat].split(BOTH))
            for seat in task.seats
        }
        everything = tuple(part for parts in sources.values() for part in parts)
        verdict = run_expressions(everything, suite.expressions, timeout_s=self.config.test_timeout_s)
        merged = suite.judge(verdict.passed)
        parts = {}
        for seat, own_parts in sources.items():
            by_itself = merged
            if verdict.status not in (Status.OK, Status.FAULT):  # a part fails whatever the other one did
                own = run_expressions(own_parts, suite.expressions, timeout_s=self.config.test_timeout_s)
                by_itself = suite.judge(own.passed)
            parts[seat] = PartTests(alone=by_itself.of_part(seat), merged=merged.of_part(seat))
        passed, total = sum(merged.passed), len(merged.passed)
        outcome = Outcome(
            utility=passed / total,
            success=passed == total,
            committed=merged.realised,
            tests_passed=passed,
            tests_total=total,
            detail="" if verdict.status is Status.OK else f"{verdict.status}: {verdict.detail}",
            provenance=self._ledger({seat: turns[seat].work for seat in task.seats}),
            parts=parts,
        )
        fault = verdict.status is Status.FAULT
        return outcome, StopReason.SANDBOX_FAULT if fault else StopReason.FINISHED

    def _ledger(self, work: Mapping[Seat, str]) -> Provenance | None:
        """Who wrote how much in vain; None for a seat alone, whose work is all its own."""
        return provenance(self.task.stubs, work) if len(work) > 1 else None

    def reference_work(self, seat: Seat, option: str) -> str:
        family = find(self.task.family, {f.name: f for f in self.families}, kind="family")
        functions = [family.function(0), family.function(1)]
        written = (functions.index(name) for name in self.task.stubs[seat].split(BOTH))
        return "\n".join(family.source(part, option) for part in written)
