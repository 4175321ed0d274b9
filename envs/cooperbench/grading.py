"""Whether a tree has a feature: claims of test runs, made into evidence by twins.

A feature's hidden tests are looked at once, with trusted code only: which fail on the base and pass with the gold
patch (`new`), which pass on both (`kept`), and which twins of them fail with the gold patch. A tree is then graded by
two runs. A coin per test function, thrown anew each time, says in which of them it is replaced by its twin. A test
counts as passed where the real one passed and its twin failed. A twin that passes is a forgery, and then nothing
counts.

What that rests on: a run sees one of the two files and no trace of the other run (`running`), the files that steer
pytest are the base's (`submission`), and honest code gives the same result twice. What it does not cover: code that
knows the right answers without computing them, such as a table of a public benchmark's tests; and code that reads the
test and guesses by style, where the twin is a flip or a floor and not a literal. `FeatureVerdict.guard` says how many
tests have which kind of twin.
"""

import json
import random
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from secrets import SystemRandom

from envs.cooperbench.dataset import BenchTask
from envs.cooperbench.mutants import Kind, TestEdit, Twin, rewrite, twins_of
from envs.cooperbench.recipes import Refused
from envs.cooperbench.runner import Isolation, Place, Report, RunStatus, run_tests
from envs.cooperbench.submission import graded_tree
from envs.cooperbench.venvs import PreparationError
from envs.repository.git import Repository
from envs.sandbox.scratch import scratch

_RANK = {kind: rank for rank, kind in enumerate(Kind)}
Function = tuple[str, str]  # path of the test file, name of the function


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """A twin, and the ids of tests that it makes fail with the gold patch."""

    twin: Twin
    ids: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """What is known of the hidden tests of one feature. `tree` is the base with these tests."""

    feature: int
    tree: str
    targets: tuple[str, ...]
    new: frozenset[str]
    kept: frozenset[str]
    guards: Mapping[Function, tuple[Guard, ...]] = field(repr=False)

    @property
    def guard(self) -> dict[str, int]:
        """How many of the new tests have which kind of twin; "none" for those without one."""
        best = {
            id: min((_RANK[g.twin.kind] for g in self.guards.get(function_of(id), ()) if id in g.ids), default=None)
            for id in self.new
        }
        names = {rank: kind.value for kind, rank in _RANK.items()} | {None: "none"}
        return dict(sorted(Counter(names[rank] for rank in best.values()).items()))


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureVerdict:
    """Whether a tree has a feature.

    `new` and `kept` are (passed, total); all must pass. `forged`: a twin passed that honest code fails. `status` is the
    worse of the two runs'; FAULT is the machine's failure and not the code's. `proven` are the ids of all tests that
    passed.
    """

    feature: int
    passed: bool
    new: tuple[int, int]
    kept: tuple[int, int]
    forged: bool
    status: RunStatus
    proven: frozenset[str] = field(default=frozenset(), repr=False)
    guard: Mapping[str, int] = field(default_factory=dict)
    detail: str = field(default="", repr=False)

    @property
    def fraction(self) -> float:
        """Share of the new tests that passed, in [0, 1]: the dense part of a reward."""
        return self.new[0] / self.new[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workbench:
    """A task on disk: its repository and the tree of its commit, its environment, what a submission may write."""

    task: BenchTask
    repository: Repository
    base: str
    place: Place
    packages: tuple[str, ...]
    isolation: Isolation
    timeout_s: float = 120.0

    def run(self, tree: str, targets: tuple[str, ...]) -> Report:
        """One run of the targets on a tree, from a fresh copy of its files; a FAULT where there is no room for it."""
        try:
            with scratch() as folder:
                self.repository.export(tree, folder)
                if self.place.built is not None:
                    shutil.copytree(self.place.built, folder, dirs_exist_ok=True)
                return run_tests(folder, targets, self.place, isolation=self.isolation, timeout_s=self.timeout_s)
        except OSError as error:
            return Report(status=RunStatus.FAULT, isolation=self.isolation, detail=f"it could not be run: {error}")


def study(bench: Workbench, feature: int, *, seed: int = 0) -> Suite:
    """Look at a feature's hidden tests with trusted code: a handful of runs on the base and on the gold patch.

    Raises:
        Refused: the patches do not apply, the gold patch passes no test, or no test tells it from the base.
        PatchError: the hidden tests or the gold patch do not apply.
        PreparationError: the machine does not start a run.
    """
    patches = bench.task.features[feature]
    repository, base = bench.repository, bench.base
    trusted = repository.apply(base, patches.tests, ignore_space=True)
    gold = repository.apply(base, patches.gold, ignore_space=True)
    solved = graded_tree(repository, base, trusted, gold, bench.packages)
    targets = bench.task.targets_of(feature)
    before, after, again = (bench.run(tree, targets) for tree in (trusted, solved, solved))
    where = f"{bench.task.key} feature {feature}"
    if any(report.status is RunStatus.FAULT for report in (before, after, again)):
        raise PreparationError(f"{where}: a run of its tests did not start: {after.detail[-500:]}")
    if after.status is not RunStatus.OK:
        raise Refused(f"{where}: the gold patch's tests ended with {after.status.value}: {after.detail[-500:]}")
    if not after.passed:
        raise Refused(f"{where}: no test passes with the gold patch: {after.detail[-500:]}")
    stable = after.passed & again.passed  # without what is flaky, and ids that have something random in them
    new = stable - before.passed
    if not new:
        still = sorted(after.failed & again.failed)
        why = f"these fail even with the gold patch: {', '.join(still)}" if still else "they pass on the untouched base"
        raise Refused(f"{where}: its hidden tests tell nothing, {why}.")
    return Suite(
        feature=feature,
        tree=trusted,
        targets=targets,
        new=new,
        kept=stable & before.passed,
        guards=_guards(bench, solved, targets, stable, random.Random(seed)),
    )


def function_of(id: str) -> Function:
    """The test file and function of a test id; what follows the first bracket is a parameter.

    >>> function_of("tests/test_a.py::TestA::test_b[x::y]")
    ('tests/test_a.py', 'test_b')
    """
    path, *names = id.split("[", 1)[0].split("::")
    return path, names[-1] if names else ""


def _guards(
    bench: Workbench, solved: str, targets: tuple[str, ...], ids: frozenset[str], rng: random.Random
) -> dict[Function, tuple[Guard, ...]]:
    """The twins that fail with the gold patch: for each function those of the best kind that guard the most tests."""
    wanted: dict[Function, set[str]] = {}
    for id in sorted(ids):
        wanted.setdefault(function_of(id), set()).add(id)
    queue: dict[Function, list[Twin]] = {}
    sources = {path: _source(bench.repository, solved, path) for path in sorted({path for path, _ in wanted})}
    for path, source in sources.items():
        for name, twins in twins_of(source, rng).items():
            if (path, name) in wanted:
                queue[path, name] = list(twins)
    found: dict[Function, list[Guard]] = {function: [] for function in queue}
    while any(queue.values()):
        now = {function: twins.pop(0) for function, twins in queue.items() if twins}
        report = bench.run(_with_twins(bench.repository, solved, sources, now), targets)
        for function, twin in now.items():
            failing = frozenset(wanted[function] & report.failed)
            if failing:
                found[function].append(Guard(twin=twin, ids=failing))
            if any(guard.ids == wanted[function] for guard in found[function]):
                queue[function] = [t for t in queue[function] if t.kind is twin.kind]
    best = {}
    for function, guards in found.items():
        if guards:
            most = max(len(guard.ids) for guard in guards)
            kind = min((guard.twin.kind for guard in guards if len(guard.ids) == most), key=_RANK.__getitem__)
            best[function] = tuple(g for g in guards if len(g.ids) == most and g.twin.kind is kind)
    return best


def _with_twins(repository: Repository, tree: str, sources: Mapping[str, str], twins: Mapping[Function, Twin]) -> str:
    edits: dict[str, dict[str, tuple[TestEdit, ...]]] = {}
    for (path, name), twin in twins.items():
        edits.setdefault(path, {})[name] = twin.edits
    files = {path: rewrite(sources[path], some).encode("utf-8", "surrogateescape") for path, some in edits.items()}
    return repository.with_files(tree, files)


def _source(repository: Repository, tree: str, path: str) -> str:
    return (repository.read(tree, path) or b"").decode("utf-8", "surrogateescape")


def grade(bench: Workbench, suite: Suite, tree: str, *, rng: random.Random | None = None) -> FeatureVerdict:
    """Whether a tree has the feature of a suite: two runs of its tests, or one that comes to no test.

    Args:
        bench: the task.
        suite: from `study`.
        tree: what was submitted or merged, over the task's base. Only the changes that count are taken.
        rng: throws the coins; the system's own randomness where None, which no submission can foresee.
    """
    rng = rng or SystemRandom()
    final = graded_tree(bench.repository, bench.base, suite.tree, tree, bench.packages)
    chosen = {function: rng.choice(guards) for function, guards in suite.guards.items()}
    sources = {path: _source(bench.repository, suite.tree, path) for path in {path for path, _ in chosen}}
    first = {function for function in chosen if rng.random() < 0.5}
    claims: Counter[str] = Counter()
    passed_twins: set[str] = set()
    reports, everything = [], suite.new | suite.kept
    for replaced in (first, chosen.keys() - first):
        twins = {function: chosen[function].twin for function in replaced}
        report = bench.run(_with_twins(bench.repository, final, sources, twins), suite.targets)
        reports.append(report)
        for id in everything:
            function = function_of(id)
            if function not in replaced:
                claims[id] += id in report.passed
            elif id in chosen[function].ids:
                claims[id] += id in report.failed
                passed_twins |= {id} & report.passed
            else:
                claims[id] += 1
        if not everything & (report.passed | report.failed):
            break  # no test was come to, as where an import fails: whatever the other run says, nothing is proven
    # What a flip expects is true of code that lacks the feature, and then the test itself fails.
    unfinished = {id for id in passed_twins if chosen[function_of(id)].twin.kind is Kind.FLIP and not claims[id]}
    forged = bool(passed_twins - unfinished)
    proven = {id for id, count in claims.items() if count == 2} if not forged else set()
    return FeatureVerdict(
        feature=suite.feature,
        passed=proven == everything,
        new=(len(proven & suite.new), len(suite.new)),
        kept=(len(proven & suite.kept), len(suite.kept)),
        forged=forged,
        status=max((report.status for report in reports), key=list(RunStatus).index),
        proven=frozenset(proven),
        guard=suite.guard,
        detail="\n".join(report.detail for report in reports),
    )


def save(suite: Suite, file: Path) -> None:
    """Write a suite as JSON."""
    guards = [
        [*function, [[g.twin.kind, [[e.start, e.end, e.text] for e in g.twin.edits], sorted(g.ids)] for g in some]]
        for function, some in sorted(suite.guards.items())
    ]
    data = {"feature": suite.feature, "tree": suite.tree, "targets": suite.targets, "guards": guards}
    file.write_text(json.dumps(data | {"new": sorted(suite.new), "kept": sorted(suite.kept)}))


def load(file: Path) -> Suite:
    """Read what `save` wrote."""
    data = json.loads(file.read_text())
    guards = {
        (path, name): tuple(
            Guard(twin=Twin(kind=Kind(kind), edits=tuple(TestEdit(*e) for e in edits)), ids=frozenset(ids))
            for kind, edits, ids in some
        )
        for path, name, some in data["guards"]
    }
    return Suite(
        feature=data["feature"],
        tree=data["tree"],
        targets=tuple(data["targets"]),
        new=frozenset(data["new"]),
        kept=frozenset(data["kept"]),
        guards=guards,
    )
