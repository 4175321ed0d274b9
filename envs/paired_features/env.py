"""Two features of one generated package: each seat builds one on a branch of its own, both suites decide."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field, field_validator

from envs.core.config import EnvConfig, FamilyConfig
from envs.core.env import SEATS
from envs.core.episode import Outcome, StopReason, Turn
from envs.core.lookup import choose, find
from envs.core.task import Seat, Task
from envs.families.base import FunctionFamily, shown
from envs.paired_features import generator
from envs.paired_features.templates import FAMILIES
from envs.paired_features.templates.base import RepoFamily
from envs.paired_functions import PairedFunctionsConfig
from envs.repository import scoring
from envs.repository.branch_env import BranchConfig, BranchEnv
from envs.repository.merge import MergePolicy


class PairedFeaturesConfig(BranchConfig, FamilyConfig, frozen=True):
    """`families` are kinds of packages here."""

    FAMILIES: ClassVar[tuple[RepoFamily, ...]] = FAMILIES
    CONTRACTS: ClassVar[tuple[FunctionFamily, ...]] = PairedFunctionsConfig.FAMILIES

    agents: Annotated[int, Field(ge=1, le=2)] = 2
    """Number of seats; one alone builds both features on one branch."""
    contracts: str | Sequence[str] = "train"
    """What `families` are to `PairedFunctions`: "train", "held_out", "held_out_contracts", "held_out_copied", "all", or
    names or dotted paths."""

    @classmethod
    def choose_contracts(cls, contracts: str | Sequence[str]) -> tuple[FunctionFamily, ...]:
        """The contracts of a choice. Raises ValueError where there is no such contract, or none at all."""
        functions = PairedFunctionsConfig
        held_out, further = functions.HELD_OUT, functions.FURTHER
        return choose(contracts, cls.CONTRACTS, held_out, argument="contracts", kind="contract", further=further)

    @property
    def kept_for_evaluation(self) -> tuple[str, ...]:
        contracts = (contract.name for contract in self.choose_contracts(self.contracts))
        kept = [f"contracts: {name}" for name in contracts if name in PairedFunctionsConfig.never_trained()]
        return (*super().kept_for_evaluation, *kept)

    @field_validator("contracts")
    @classmethod
    def _contracts_exist(cls, contracts: str | Sequence[str]) -> str | Sequence[str]:
        cls.choose_contracts(contracts)
        return contracts


class PairedFeatures(BranchEnv[PairedFeaturesConfig]):
    """Each seat adds one of two features to a package, on a branch of its own; the merged tree must pass both suites.

    ## Description
    The package is generated. Each feature needs a function that shares a contract with the partner's (an offset, a
    separator ...), of which each brief privately claims one reading, as in `PairedFunctions`; and it has a place in the
    package where the partner's feature is in the way. `append`, `registry` and `dispatch` conflict in space: the
    natural places of both are the same line. `keywords`, `defaults` and `returns` conflict in meaning. In `keywords`
    both extend one signature: git reports that too, as it is one line, but keeping both sides' lines mends nothing. In
    `defaults` and `returns` each relies on what the other changes: git merges the branches without a conflict, each
    passes its own tests alone, and some of those fail on the merged tree. A single seat (`agents=1`) is the solo
    baseline: it plays the tasks of a pair, reads both briefs and builds both features on one branch.

    ## Action space, observation space, state, infos
    As in `CoopEnv`. `envs.repository.actions` has the grammar of a phase of work; a reply that breaks it counts for
    nothing, and the seat is told where. Observations then are what its actions showed, what the partner said, the
    forecast, what is left.

    ## Phases
    `stance` (sealed) -> `work` until both have submitted or spent their turns -> `final` (sealed, without code).
    `env.acting` are the seats whose turn it is. A seat that waits sees "", and what is new waits for it.

    ## Rewards
    0.0 until the end; then U = (hidden tests of the merged tree that pass / all of them) x (visible tests that still
    pass / all of them) for both seats. Hidden tests fail on the base, visible ones pass, so a clean merge alone pays
    nothing. Success: all pass. Without a merged tree all fail. No tree holds a hidden test and tests/ cannot be
    changed. A seat is committed to the option that its feature follows on its own branch or, where it follows none
    there, on the merged tree: either seat may build both features. What it follows on the merged tree and on no branch
    it takes from the partner's code, which is ambiguous, as is following several (`envs.core.hidden_tests`).

    ## Episode end
    As in `CoopEnv`. `outcome.merge`, `outcome.forecasts`, `outcome.parts` and `outcome.provenance` say what became of
    the branches; `export(folder)` writes them as a git repository.

    ## Arguments
    The fields of `PairedFeaturesConfig`.
    With `scaffold` the first turn of work gives the seat's whole part, as one builds it who knows the partner's, with a
    gap for the option. Raises NoGitError where there is no git of 2.38 or newer.

    ## Example
    >>> env = PairedFeatures(forecast=True)
    >>> observations, infos = env.reset(seed=0)
    >>> while env.agents:  # here each seat would reply to its observation
    ...     observations, rewards, *_ = env.step(dict.fromkeys(env.agents, "Submit"))
    >>> rewards
    {'agent_0': 0.0, 'agent_1': 0.0}

    ## Families
    append, registry, dispatch, keywords, defaults, returns.

    ## Version history
    v0: first version.
    """

    metadata: ClassVar[dict[str, Any]] = {**BranchEnv.metadata, "name": "paired_features_v0"}
    Config: ClassVar[type[EnvConfig]] = PairedFeaturesConfig
    WORK: ClassVar[str] = "build two features of one package"
    RUNS_CODE: ClassVar[bool] = True
    VISIBLE_TESTS: ClassVar[bool] = True

    def __init__(self, config: PairedFeaturesConfig | None = None, **fields: Any):
        super().__init__(config, **fields)
        self.contracts = self.config.choose_contracts(self.config.contracts)

    def make_task(self, seed: int) -> Task:
        rng = np.random.default_rng(seed)
        place = self.families[rng.integers(len(self.families))]
        contract = self.contracts[rng.integers(len(self.contracts))]
        rng = contract.stream(seed, rng)
        right = self.config.cells.at(seed)
        knobs = {"cue_reliability": self.config.cue_reliability, "distractors": self.config.distractors}
        decision = shown(contract.decide(right, SEATS, rng, **knobs), self.config.expert)
        sources = contract.sources(self.config.sources)
        return generator.make(place, contract, decision, right, seed, self.seats, rng, sources)

    def finish(self, turns: Mapping[Seat, Turn]) -> tuple[Outcome, StopReason]:
        return scoring.score_branches(
            self.task,
            {seat: self.branch(seat) for seat in self.seats},
            {seat: desk.authored for seat, desk in self._desks.items()},
            self._forecasts,
            policy=MergePolicy(self.config.policy),
            timeout_s=self.config.test_timeout_s,
        )

    def reference_work(self, seat: Seat, option: str, *, coordinated: bool = True) -> str:
        """The actions that build the seat's feature under an option, as one who knows the partner's feature builds it;
        or, not `coordinated`, as one does who knows its own brief alone."""
        place, _, contract = self.task.family.partition("+")
        families = (
            find(place, {family.name: family for family in self.families}, kind="family"),
            find(contract, {family.name: family for family in self.contracts}, kind="contract"),
        )
        return generator.reference_work(*families, self.task, seat, option, coordinated=coordinated)
