"""CooperBench as an environment: each seat builds one feature of a real repository, the benchmark's tests decide."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import ConfigDict, Field, field_validator

from envs.cooperbench import tasks
from envs.cooperbench.dataset import BenchTask, Dataset, Pair
from envs.cooperbench.evaluation import Evaluator
from envs.cooperbench.recipes import Refused
from envs.cooperbench.venvs import Cache
from envs.core.config import EnvConfig
from envs.core.episode import Outcome, Phase, StopReason, Turn
from envs.core.syntax import parse
from envs.core.task import Seat, Task
from envs.repository.actions import Read, Reply, parse_actions
from envs.repository.branch_env import GRAMMAR, BranchConfig, BranchEnv
from envs.repository.merge import MergePolicy
from envs.repository.working_copy import Files

TIERS = ("tier1", "tier2", "tier3")
SHOWN = 6  # lines of a file that a demonstration reads


class CooperBenchConfig(BranchConfig, frozen=True):
    BEFORE: ClassVar[tuple[Phase, ...]] = ()
    AFTER: ClassVar[tuple[Phase, ...]] = ()

    dataset: str | Path
    """Path of the dataset folder."""
    cache: str | Path = "cooperbench_cache"
    """Where repositories, environments and studied tests are kept."""
    repositories: str | Path | None = None
    """Folder of upstream repositories named as in the dataset (`pallets_click_task`); others are cloned."""
    pairs: str | Sequence[str] = "all"
    """All pairs ("all"), those of a tier of `envs.cooperbench.recipes` ("tier1", "tier2", "tier3") or of a subset of
    the dataset such as "lite" or "flash", or the name of a pair such as "pallets_click_task/2956/1-3" or of a task such
    as "pallets_click_task/2956", or a list of such names."""
    files: Annotated[Sequence[str], Field(min_length=1)] | None = None
    """Paths of the sources that seats are told of, read and change, such as ["outlines/types/__init__.py"]; None: all
    of the packages that gold patches write. Every task that is played must have one of them."""
    brief_tokens: Annotated[int, Field(ge=1)] | None = None
    """Words and symbols of each feature's description that a seat reads, from its beginning; None: all of it, as in the
    benchmark."""
    branch_verdicts: bool = True
    """Grade each branch alone too. Without it an episode takes a third of the runs of pytest, and has no
    `outcome.parts` and no `outcome.merge.worth`."""
    agents: Annotated[int, Field(ge=1, le=2)] = 2
    """Number of seats; one alone builds both features on one branch."""
    rounds: Annotated[int, Field(ge=1, le=1000)] = 12
    """Turns of work of each seat; agent_0 has the lower feature and leads."""
    tokens: Annotated[int, Field(ge=1)] = 4000
    """Words and symbols that each seat of a pair may write in all of its turns of work; one alone has those of both."""
    acts: bool = False
    """Read sealed predictions of the merge, `Expect merge: conflict (70%)`."""
    test_timeout_s: Annotated[float, Field(gt=0, le=86_400)] = 120.0
    """Wall time in seconds of one run of pytest."""
    evaluator: Evaluator | None = Field(default=None, exclude=True)
    """One of your own, for docker or other recipes; then `cache`, `repositories` and `test_timeout_s` are not used."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    @field_validator("repositories")
    @classmethod
    def _repositories_are_there(cls, folder: str | Path | None) -> str | Path | None:
        if folder is not None and not Path(folder).is_dir():
            raise ValueError(f"repositories is {str(folder)!r}; it must be a folder, or None to clone them.")
        return folder


class CooperBench(BranchEnv[CooperBenchConfig]):
    """Each seat adds one of two features to a real repository, on a branch of its own; CooperBench's tests decide.

    ## Description
    The tasks are those of a dataset in CooperBench's layout, which does not come with this library, and the verdict is
    that of `envs.cooperbench.Evaluator`: no output of submitted code is believed. A pair that may not be paid for (no
    native environment, a known defect, hidden tests that tell nothing) is never dealt. The first reset on a task
    clones its repository, makes its environment and studies its tests, which takes minutes; the cache keeps all three.
    A single seat (`agents=1`) is the benchmark's solo setting: it reads both features and builds them on one branch.

    ## Action space, observation space, state, infos
    As in `PairedFeatures`; `Read: <path> 120-180` matters here, as a seat is shown 6,000 characters at once. The
    brief is the feature's description and the paths of the package's sources. Only these can be read, searched and
    changed, and no action makes or removes a file, so a feature that needs a new module cannot be built. There are no
    visible tests.

    ## Phases
    `work` only, until both have submitted or spent their turns. The benchmark gives no options to choose from, so there
    are no decisions and no sealed stances, and reward terms and metrics about them are 0 or not defined.
    `env.acting` are the seats whose turn it is. A seat that waits sees "", and what is new waits for it.

    ## Rewards
    0.0 until the end; then U = (new tests of both features that pass on the merged tree / all of them) x (old tests
    that still pass / all of them) for both seats. New tests fail on the base, so a clean merge alone pays nothing.
    Success: both features pass, as in the benchmark. Without a merged tree all fail.

    ## Episode end
    As in `PairedFeatures`. `outcome.merge.worth` is of each branch alone, so an episode is three trees to grade, each
    by two runs for each feature; equal trees are graded once.

    ## Arguments
    The fields of `CooperBenchConfig`.
    Raises ValueError where no pair is left, `DatasetError` for a bad dataset, `Refused` for a named pair that may not
    be paid for; `reset` raises `PreparationError` where the machine cannot make a task's environment.

    ## Example
    `CooperBench(dataset="dataset", cache="cache", pairs="tier1")`; docs/cooperbench.md plays one.

    ## Version history
    v0: first version.
    """

    metadata: ClassVar[dict[str, Any]] = {**BranchEnv.metadata, "name": "cooperbench_v0"}
    LADDER: ClassVar[Sequence[Mapping[str, Any]]] = ()  # how hard a pair is nobody has measured
    GRAMMAR: ClassVar[str] = GRAMMAR.replace("\nTest\n", "\n").replace("<path>\nSearch", "<path> <line>-<line>\nSearch")
    Config: ClassVar[type[EnvConfig]] = CooperBenchConfig
    WORK: ClassVar[str] = "build two features of one repository"

    def __init__(self, config: CooperBenchConfig | None = None, **fields: Any):
        super().__init__(config, **fields)
        self.dataset = Dataset(self.config.dataset)
        self.evaluator = self.config.evaluator or self._native_evaluator()
        self._known = {tasks.name_of(pair): pair for pair in self.dataset.pairs()}
        self.pairs = self._choose(self.config.pairs)
        self._files: dict[str, Files] = {}

    def _native_evaluator(self) -> Evaluator:
        folder = self.config.repositories
        sources = {} if folder is None else {f.name: f.resolve() for f in Path(folder).glob("*_task")}
        return Evaluator(Cache(self.config.cache, sources=sources), timeout_s=self.config.test_timeout_s)

    def make_task(self, seed: int) -> Task:
        why, count = "", len(self.pairs)
        # As many seeds in a row as there are pairs deal each once, so that a few episodes are of many pairs.
        dealt = np.random.default_rng(seed // count).permutation(count)
        for i in np.roll(dealt, -(seed % count)):
            pair, task = self.pairs[i], self._task_of(self.pairs[i])
            try:
                for feature in pair.features:
                    self.evaluator.suite(task, feature)
            except Refused as error:  # known only once its tests have been studied
                why = str(error)
                continue
            if task.key not in self._files:
                self._files[task.key] = self._offered(task)
            made = tasks.make_task(task, pair, self._files[task.key], seed, self.seats, self.config.brief_tokens)
            return replace(made, topics=self.config.rounds)  # nobody knows what must be said: a word in each turn
        raise Refused(f"None of the {len(self.pairs)} pairs can be paid for. The last: {why}")

    def finish(self, turns: Mapping[Seat, Turn]) -> tuple[Outcome, StopReason]:
        return tasks.grade_branches(
            self.evaluator,
            self._task_of(self.pair),
            self.pair,
            self.task,
            {seat: desk.files for seat, desk in self._desks.items()},
            {seat: desk.authored for seat, desk in self._desks.items()},
            self._forecasts,
            MergePolicy(self.config.policy),
            alone=self.config.branch_verdicts,
        )

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[Seat, str], dict[Seat, dict[str, Any]]]:
        result = super().reset(seed, options)
        name = self.task.id.rpartition(":")[0]
        if name not in self._known:
            raise ValueError(f"reset: the task {self.task.id!r} is of no pair of {self.dataset.path}.")
        self.pair = self._known[name]
        return result

    def demonstration(self, seat: Seat, rng: np.random.Generator) -> str:
        """A word to the partner and a look at some lines of a file and, in the last turn, one line and `Submit`. That
        gives a name the value that one has in the lines that were read last, and stands after one of these. The name
        is one that the brief quotes or one of these lines, with equal chance; lines, value and place are by chance."""
        if self.turns_left(seat) > 1:
            path = str(rng.choice(sorted(self.task.files)))
            text = self.task.files[path]
            around = int(rng.choice(sorted(_assigned(text)) or [1])) - int(rng.integers(SHOWN))
            lines = f"{max(1, around)}-{max(1, around) + SHOWN - 1}"
            shown = {"say": f"Say: I look at {path}, lines {lines}.", "read": f"Read: {path} {lines}"}
        else:
            shown = {"insert": self._demonstrated_line(seat, rng), "submit": "Submit"}
        return "\n".join(text for word, text in shown.items() if text and self._offers(word)) or "Pass"

    def _demonstrated_line(self, seat: Seat, rng: np.random.Generator) -> str:
        """`Insert` of one line after another, both by chance; "" where no line was read that has a name and a value."""
        replies = [parse_actions(turn.reply) for turn in self.turns if turn.agent == seat]
        actions = [action for reply in replies if isinstance(reply, Reply) for action in reply.actions]
        looks = [action for action in actions if isinstance(action, Read) and action.path in self.task.files]
        if not looks:
            return ""
        path, first, last = looks[-1].path, looks[-1].first, looks[-1].last
        every = [line.strip() for line in self.task.files[path].splitlines()]
        places = [line for line in every[first - 1 : last] if line and every.count(line) == 1]
        given = [pair for at, pair in _assigned(self.task.files[path]).items() if first <= at <= (last or at)]
        if not (places and given):
            return ""
        quoted = re.findall(r"`([A-Za-z_]\w*)`", self.task.briefs[seat])
        names = quoted if quoted and rng.integers(2) else [name for name, _ in given]
        name, value, anchor = (str(rng.choice(some)) for some in (names, [value for _, value in given], places))
        return f"Insert {path} after: {anchor}\n{name} = {value}\nEnd"

    def _offered(self, task: BenchTask) -> Files:
        """The sources of a task that seats are told of."""
        files, wanted = tasks.sources(self.evaluator.bench(task)), self.config.files
        if wanted is None:
            return files
        if not (found := {path: text for path, text in files.items() if path in wanted}):
            near = ", ".join(get_close_matches(wanted[0], files, n=3)) or ", ".join(sorted(files)[:3])
            raise ValueError(f"files is {list(wanted)}; {task.key} has none of them. Nearest: {near}.")
        return found

    def _task_of(self, pair: Pair) -> BenchTask:
        return self.dataset.task(pair.repo, pair.number)

    def _choose(self, pairs: str | Sequence[str]) -> tuple[Pair, ...]:
        """The pairs that are dealt: those that are asked for, without those that are known to be refused."""
        if isinstance(pairs, str) and "/" in pairs:
            pairs = [pairs]
        if isinstance(pairs, str):
            if pairs not in ("all", *TIERS) and pairs not in self.dataset.subsets:
                known = ", ".join(("all", *TIERS, *self.dataset.subsets))
                raise ValueError(f"pairs is {pairs!r}; it must be one of {known}, or names of pairs or tasks.")
            found = self.dataset.pairs(None if pairs in ("all", *TIERS) else pairs)
            if pairs in TIERS:
                found = [pair for pair in found if self._tier(pair) == pairs]
        else:
            found = [pair for name in pairs for pair in self._named(name)]
        refused: dict[Pair, str] = {}
        for pair in found:
            try:
                for feature in pair.features:
                    self.evaluator.check(self._task_of(pair), feature)
            except Refused as error:
                refused[pair] = str(error)
                if not isinstance(pairs, str) and tasks.name_of(pair) in pairs:
                    raise
        left = tuple(pair for pair in found if pair not in refused)
        if not left:
            first = next(iter(refused.values()), "no pair has it")
            raise ValueError(f"pairs is {pairs!r}; none of these {len(found)} pairs can be played: {first}")
        return left

    def _named(self, name: str) -> list[Pair]:
        """The pair of a name, or all pairs of a task's name."""
        found = [pair for known, pair in self._known.items() if name in (known, f"{pair.repo}/{pair.number}")]
        if not found:
            near = ", ".join(get_close_matches(name, self._known, n=3)) or "none"
            raise ValueError(f"pairs names {name!r}, which {self.dataset.path} lacks. Nearest: {near}.")
        return found

    def _tier(self, pair: Pair) -> str | None:
        recipe = self.evaluator.recipes.get(self._task_of(pair).key)
        return recipe and f"tier{recipe.tier}"


def _assigned(text: str) -> dict[int, tuple[str, str]]:
    """Name and value of the assignments of a module that are whole on one line, by the number of that."""
    found = {at: re.fullmatch(r"(\w+) = (.+)", line) for at, line in enumerate(text.splitlines(), 1)}
    return {at: (hit[1], hit[2]) for at, hit in found.items() if hit and _is_whole(hit[2])}


def _is_whole(value: str) -> bool:
    """Whether a text is an expression, and not the first line of one."""
    try:
        parse(value, mode="eval")
    except SyntaxError:
        return False
    return True
