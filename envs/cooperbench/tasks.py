"""A pair of features as a task that seats can play, and two branches as an outcome with the evaluator's verdict."""

import contextlib
import re
from collections.abc import Mapping, Sequence

from envs.cooperbench.dataset import BenchTask, Pair
from envs.cooperbench.evaluation import Evaluator
from envs.cooperbench.grading import FeatureVerdict, Workbench
from envs.cooperbench.runner import RunStatus
from envs.cooperbench.submission import counts, handed_in
from envs.core.episode import Forecast, Outcome, PartTests, StopReason
from envs.core.task import Seat, Task
from envs.core.tokens import first_tokens, message_tokens
from envs.repository import scoring
from envs.repository.merge import MergePolicy, MergeResult
from envs.repository.working_copy import Files, writable

_ADDED = re.compile(r"^\+(?!\+\+ )(.*)$", re.MULTILINE)
_BRIEF = """You and your partner add one feature each to {repo}. Both must work once your branches are merged.
Your feature:
{specs}
Files: {files}."""
_BRIEF_ALONE = """You add two features to {repo}. Both must work on your branch.
Your features:
{specs}
Files: {files}."""


def name_of(pair: Pair) -> str:
    """The name of a pair.

    >>> name_of(Pair(repo="pallets_click_task", number=2956, features=(1, 3)))
    'pallets_click_task/2956/1-3'
    """
    return f"{pair.repo}/{pair.number}/{'-'.join(map(str, pair.features))}"


def sources(bench: Workbench) -> Files:
    """The files that a submission may change, by path: Python in the task's packages, and no tests."""
    names = {
        path: name
        for path, (mode, name) in bench.repository.entries(bench.base).items()
        if counts(path, bench.packages) and writable(path) and mode in ("100644", "100755")
    }
    found = {}
    for path, content in zip(names, bench.repository.blobs(names.values()), strict=True):
        with contextlib.suppress(UnicodeDecodeError):  # no seat can write it
            found[path] = content.decode("utf-8")
    return found


def built_by(pair: Pair, seats: Sequence[Seat]) -> dict[Seat, tuple[int, ...]]:
    """The features that each of two seats builds; one alone builds both.

    >>> built_by(Pair(repo="pallets_click_task", number=2956, features=(1, 3)), ["agent_0"])
    {'agent_0': (1, 3)}
    """
    if len(seats) == 1:
        return {seats[0]: pair.features}
    return {seat: (feature,) for seat, feature in zip(seats, pair.features, strict=True)}


def make_task(
    task: BenchTask, pair: Pair, files: Files, seed: int, seats: Sequence[Seat], brief_tokens: int | None = None
) -> Task:
    """The pair as a task: there is nothing to agree on by choice, so it has no decisions. Briefs have so many words and
    symbols of each feature's text, or all of it."""
    features = [task.features[feature] for feature in pair.features]
    text = {"repo": task.repo.removesuffix("_task"), "files": ", ".join(sorted(files))}
    brief = _BRIEF if len(seats) > 1 else _BRIEF_ALONE
    return Task(
        id=f"{name_of(pair)}:{seed}",
        family=task.key,
        seed=seed,
        seats=tuple(seats),
        briefs={
            seat: brief.format(specs="\n".join(_text(task.features[i].spec, brief_tokens) for i in built), **text)
            for seat, built in built_by(pair, seats).items()
        },
        decisions=(),
        cell=dict.fromkeys(seats, False),
        reference_tokens=sum(message_tokens(line) for feature in features for line in _ADDED.findall(feature.gold)),
        files=files,
    )


def grade_branches(
    evaluator: Evaluator,
    bench_task: BenchTask,
    pair: Pair,
    task: Task,
    branches: Mapping[Seat, Files],
    authored: Mapping[Seat, int],
    forecasts: Sequence[Forecast],
    policy: MergePolicy,
    *,
    alone: bool = True,
) -> tuple[Outcome, StopReason]:
    """What comes of two branches, the first of which leads: graded as merged and, with `alone`, each of them alone. Of
    the one branch of a seat alone, which is graded as the benchmark's solo setting does, there is no merge to choose a
    policy for."""
    bench = evaluator.bench(bench_task)
    trees = [_tree(bench, task.files, branches[seat]) for seat in task.seats]
    patches = [handed_in(bench.repository.diff(bench.base, tree)) for tree in trees]
    if len(patches) == 1:
        verdict = evaluator.solo(bench_task, pair.features, patches[0])
    else:
        verdict = evaluator.evaluate(bench_task, pair.features, patches, policy)
    branch_verdicts = {
        seat: [evaluator.grade(bench_task, feature, tree) for feature in pair.features]
        for seat, tree in zip(task.seats, trees, strict=True)
        if alone
    }
    touched = [path for path, text in task.files.items() if any(side[path] != text for side in branches.values())]
    final = None
    if verdict.tree is not None:
        changed = {path: (bench.repository.read(verdict.tree, path) or b"").decode("utf-8") for path in touched}
        final = {**task.files, **changed}
    merged = MergeResult(policy=verdict.policy, strategy=verdict.strategy, final=final, conflicts=verdict.conflicts)
    parts = {}
    for seat, built in built_by(pair, task.seats).items() if alone else ():
        tests = {feature: sorted(evaluator.suite(bench_task, feature).new) for feature in built}
        passed = [
            tuple(test in side.proven for side in verdicts if side.feature in built for test in tests[side.feature])
            for verdicts in (branch_verdicts[seat], verdict.features)
        ]
        names = tuple(test for feature in built for test in tests[feature])
        parts[seat] = PartTests(alone=passed[0], merged=passed[1], names=names)
    outcome = Outcome(
        utility=worth(verdict.features),
        success=verdict.both_passed,
        committed={seat: {} for seat in task.seats},
        tests_passed=sum(feature.new[0] for feature in verdict.features),
        tests_total=sum(feature.new[1] for feature in verdict.features),
        detail=_detail(merged, verdict.merge_status, verdict.features, evaluator),
        provenance=scoring.ledger(task, branches, authored, final) if len(task.seats) > 1 else None,
        parts=parts,
        merge=scoring.record(
            task, branches, merged, {seat: worth(features) for seat, features in branch_verdicts.items()}
        ),
        forecasts=tuple(forecasts),
    )
    graded = (*verdict.features, *(feature for features in branch_verdicts.values() for feature in features))
    fault = any(feature.status is RunStatus.FAULT for feature in graded)
    return outcome, StopReason.SANDBOX_FAULT if fault else StopReason.FINISHED


def worth(features: Sequence[FeatureVerdict]) -> float:
    """U in [0, 1]: the share of the new tests that pass, times the share of those that passed before and still do."""
    return _share([feature.new for feature in features]) * _share([feature.kept for feature in features])


def _share(counted: Sequence[tuple[int, int]]) -> float:
    total = sum(count for _, count in counted)
    return sum(passed for passed, _ in counted) / total if total else 1.0


def _tree(bench: Workbench, base: Files, files: Files) -> str:
    changed = {path: text.encode("utf-8") for path, text in files.items() if text != base[path]}
    return bench.repository.with_files(bench.base, changed)


def _detail(merged: MergeResult[Files], status: str, features: Sequence[FeatureVerdict], evaluator: Evaluator) -> str:
    where = f" in {', '.join(merged.paths)}" if merged.conflicts else ""
    parts = [f"policy {merged.policy}, merge {status}{where}, by {merged.strategy}, isolation {evaluator.isolation}"]
    for feature in features:
        said = "passed" if feature.passed else "forged" if feature.forged else "failed"
        kept = f"{feature.kept[0]} of {feature.kept[1]} old tests"
        parts.append(f"feature {feature.feature} {said}: {feature.new[0]} of {feature.new[1]} new and {kept}")
        parts += [str(feature.status)] if feature.status is not RunStatus.OK else []
    return "; ".join(parts)


def _text(spec: str, tokens: int | None) -> str:
    """The text without bytes that are no text; its beginning of so many words and symbols, or all of it."""
    text = spec.encode("utf-8", "surrogateescape").decode("utf-8", "replace").strip()
    return text if tokens is None else first_tokens(text, tokens)
