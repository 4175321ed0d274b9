"""The verdict on a pair of patches: applied, merged under a named policy, graded on both features' hidden tests."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from envs.cooperbench.dataset import BenchTask, Pair
from envs.cooperbench.grading import FeatureVerdict, Suite, Workbench, grade, load, save, study
from envs.cooperbench.recipes import RECIPES, Recipe, Refused, known_defect, recipe
from envs.cooperbench.runner import Isolation, RunStatus, best_isolation
from envs.cooperbench.submission import Applied, Submission, submit
from envs.cooperbench.venvs import Cache, image_place, package_folders
from envs.repository.git import PatchError, PathConflict
from envs.repository.merge import MergePolicy, MergeResult, Strategy, merge_trees

_SUITE_VERSION = 1  # part of a stored suite's key: raise it when `study` finds out something else


@dataclass(frozen=True, slots=True, kw_only=True)
class PairVerdict:
    """What came of two patches.

    `merge_status` is in the benchmark's words: clean, conflicts, missing_input (a patch did not apply) or identical.
    `tree` was graded; None where the policy found none, and then both features failed. `isolation` is that of the runs.
    """

    pair: Pair
    policy: MergePolicy
    strategy: Strategy
    merge_status: str
    applied: tuple[Applied, Applied]
    ignored: tuple[tuple[str, ...], tuple[str, ...]]
    conflicts: tuple[PathConflict, ...]
    tree: str | None
    features: tuple[FeatureVerdict, FeatureVerdict]
    isolation: Isolation

    @property
    def both_passed(self) -> bool:
        return all(feature.passed for feature in self.features)

    @property
    def fault(self) -> bool:
        """Whether the machine failed: such a verdict must be masked and never be scored."""
        return any(feature.status is RunStatus.FAULT for feature in self.features)


class Evaluator:
    """Grades submissions for tasks of a dataset.

    Args:
        cache: where repositories, environments and studied suites are kept.
        isolation: how submitted code is kept away from this machine; the best that works here where None.
        timeout_s: wall time of one run of tests, in seconds.
        recipes: what a task's environment needs, by `BenchTask.key`.

    A verdict on the same tree is remembered, except where a run timed out or the machine failed.

    Attributes:
        suites: the suites that are known, by `BenchTask.key` and feature.
    """

    def __init__(
        self,
        cache: Cache,
        *,
        isolation: Isolation | None = None,
        timeout_s: float = 120.0,
        recipes: Mapping[str, Recipe] = RECIPES,
    ):
        self.cache, self.recipes = cache, recipes
        self.isolation = best_isolation() if isolation is None else Isolation(isolation)
        self.timeout_s = timeout_s
        self._benches: dict[str, Workbench] = {}
        self.suites: dict[tuple[str, int], Suite] = {}
        self._refusals: dict[tuple[str, int], str] = {}
        self._verdicts: dict[tuple[str, int, str], FeatureVerdict] = {}

    def bench(self, task: BenchTask) -> Workbench:
        """The task's repository and environment; the first call prepares them.

        Raises:
            Refused: the task does not run without docker.
            PreparationError: it should, and does not.
        """
        if task.key not in self._benches:
            repository = self.cache.repository(task)
            packages = package_folders(repository, task)
            docker = self.isolation is Isolation.DOCKER
            place = image_place(task, packages) if docker else self.cache.environment(task, recipe(task, self.recipes))
            self._benches[task.key] = Workbench(
                task=task,
                repository=repository,
                base=repository.tree(task.commit),
                place=place,
                packages=packages,
                isolation=self.isolation,
                timeout_s=self.timeout_s,
            )
        return self._benches[task.key]

    def check(self, task: BenchTask, feature: int) -> None:
        """Look at what is known of a feature without a run.

        Raises:
            Refused: nothing may be paid for it; the message says why.
            ValueError: the task has no such feature.
        """
        if feature not in task.features:
            raise ValueError(f"{task.key} has no feature {feature!r}. It has {', '.join(map(str, task.features))}.")
        if defect := known_defect(task, feature):
            raise Refused(f"{task.key} feature {feature}: {defect}.")
        if self.isolation is not Isolation.DOCKER:
            recipe(task, self.recipes)

    def suite(self, task: BenchTask, feature: int) -> Suite:
        """The studied hidden tests of a feature; studied once and then kept in the cache.

        Raises:
            Refused: nothing may be paid for this feature; the message says why.
            ValueError: the task has no such feature.
            PreparationError: the machine failed, which says nothing of the feature.
        """
        self.check(task, feature)
        bench = self.bench(task)
        if (task.key, feature) in self._refusals:
            raise Refused(self._refusals[task.key, feature])
        if (task.key, feature) not in self.suites:
            patches = task.features[feature]
            inputs = [bench.base, patches.gold, patches.tests, str(bench.place.python), bench.packages, _SUITE_VERSION]
            key = hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:16]
            file = self.cache.folder / "suites" / f"{task.repo}-{task.number}-f{feature}-{key}.json"
            if not file.exists():
                file.parent.mkdir(parents=True, exist_ok=True)
                try:
                    suite = study(bench, feature)
                except (PatchError, Refused) as error:
                    why = str(error) if isinstance(error, Refused) else f"{task.key} feature {feature}: {error}"
                    self._refusals[task.key, feature] = why
                    raise Refused(why) from error
                save(suite, file)
            self.suites[task.key, feature] = _readable(bench, task, feature, load(file))
        return self.suites[task.key, feature]

    def grade(self, task: BenchTask, feature: int, tree: str) -> FeatureVerdict:
        """Whether a tree of the task's repository has the feature. Raises Refused as `suite` does."""
        suite, key = self.suite(task, feature), (task.key, feature, tree)
        if key not in self._verdicts:
            verdict = grade(self.bench(task), suite, tree)
            if verdict.status in (RunStatus.TIMEOUT, RunStatus.FAULT):
                return verdict
            self._verdicts[key] = verdict
        return self._verdicts[key]

    def evaluate(
        self, task: BenchTask, features: Sequence[int], patches: Sequence[str], policy: MergePolicy | str
    ) -> PairVerdict:
        """Merge two patches and grade the result on both features.

        Args:
            task: the task.
            features: two different ids; the first is that of agent 1, the lead.
            patches: two unified diffs against the task's commit, in the order of `features`; "" where there is none.
            policy: what becomes of conflicts, a `MergePolicy` or its name; comparable with published figures only under
                the same one.

        Raises:
            Refused: nothing may be paid for one of the features.
            ValueError: an argument is not as above; the message has its value.
        """
        policy, features = MergePolicy(policy), _two(features, int, "features", "ids of features")
        patches = _two(patches, str, "patches", "patches as text")
        if features[0] == features[1]:
            raise ValueError(f"features is {features!r}; a pair has two different ones.")
        for feature in features:
            self.check(task, feature)
        bench = self.bench(task)
        suites = [self.suite(task, feature) for feature in features]
        sides = [submit(bench.repository, bench.base, patch, bench.packages) for patch in patches]
        merged, status = self._merge(bench, sides, policy)
        if merged.final is None:
            verdicts = [_none(suite) for suite in suites]
        else:
            verdicts = [self.grade(task, feature, merged.final) for feature in features]
            if merged.strategy is Strategy.LEAD and not all(verdict.passed for verdict in verdicts):
                verdicts = [_none(suite) for suite in suites]  # as the benchmark: the lead's tree counts whole or not
        return PairVerdict(
            pair=Pair(repo=task.repo, number=task.number, features=features),
            policy=policy,
            strategy=merged.strategy,
            merge_status=status,
            applied=(sides[0].status, sides[1].status),
            ignored=(sides[0].ignored, sides[1].ignored),
            conflicts=merged.conflicts,
            tree=merged.final,
            features=(verdicts[0], verdicts[1]),
            isolation=self.isolation,
        )

    def solo(self, task: BenchTask, features: Sequence[int], patch: str) -> PairVerdict:
        """Grade one patch that holds both features, as the benchmark's solo setting does."""
        return self.evaluate(task, features, (patch, patch), MergePolicy.IDENTICAL)

    def _merge(self, bench: Workbench, sides: list[Submission], policy: MergePolicy) -> tuple[MergeResult[str], str]:
        first, second = sides
        if Applied.FAILED in (first.status, second.status):
            lead = policy is MergePolicy.LEAD_FALLBACK and first.status is Applied.APPLIED
            strategy = Strategy.LEAD if lead else Strategy.NAIVE
            return MergeResult(policy=policy, strategy=strategy, final=first.tree if lead else None), "missing_input"
        merged = merge_trees(bench.repository, bench.base, first.tree, second.tree, policy)
        if merged.strategy is Strategy.IDENTICAL and merged.clean:
            return merged, "identical"
        return merged, "clean" if merged.clean else "conflicts"


def gradeable(evaluator: Evaluator, task: BenchTask) -> tuple[dict[int, Suite], dict[int, str]]:
    """The features of a task that may be paid for, studied, and the reasons against the others."""
    suites, refused = {}, {}
    for feature in task.features:
        try:
            suites[feature] = evaluator.suite(task, feature)
        except Refused as error:
            refused[feature] = str(error)
    return suites, refused


def _two(values: Any, kind: type, name: str, what: str) -> tuple[Any, Any]:
    if not isinstance(values, list | tuple) or [isinstance(value, kind) for value in values] != [True, True]:
        raise ValueError(f"{name} is {values!r:.80}; it must be two {what}.")
    return values[0], values[1]


def _none(suite: Suite) -> FeatureVerdict:
    """The verdict where there is no tree to grade."""
    return FeatureVerdict(
        feature=suite.feature,
        passed=False,
        new=(0, len(suite.new)),
        kept=(0, len(suite.kept)),
        forged=False,
        status=RunStatus.OK,
        guard=suite.guard,
    )


def _readable(bench: Workbench, task: BenchTask, feature: int, suite: Suite) -> Suite:
    """Make sure that a stored suite's tree is in the repository, which may have been cloned anew since."""
    tree = bench.repository.apply(bench.base, task.features[feature].tests, ignore_space=True)
    if tree != suite.tree:
        raise Refused(f"{task.key} feature {feature}: the stored suite is of other tests; remove it from the cache.")
    return suite
