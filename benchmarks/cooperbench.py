"""Verify the environment on CooperBench's real dataset and the upstream repositories, neither of which is in here.

    python benchmarks/cooperbench.py --dataset DATASET --cache CACHE merges
    python benchmarks/cooperbench.py --dataset DATASET --cache CACHE features --tiers 1 2
    python benchmarks/cooperbench.py --dataset DATASET --cache CACHE pairs --official PYTHON --tiers 1 2
    python benchmarks/cooperbench.py --dataset DATASET --cache CACHE plays --tiers 1 --subset lite
    python benchmarks/cooperbench.py --dataset DATASET --cache CACHE report

`merges`: every gold pair merged by us, by `git merge` in a work tree and by `git merge-file`. `features`: every gold
feature studied, and its gold patch graded. `pairs`: every gold pair graded under lead_fallback, by us and by the
official package's `evaluate()` (PYTHON is an interpreter that has it). `plays`: the same pairs played in the
environment by partners that write the gold patches as actions. Each result is added to CACHE/verified.jsonl at once,
and what is there is not done again. `report` writes docs/cooperbench.md from that file.

`--repositories` is a folder of upstream repositories named as in the dataset (`pallets_click_task`, ...); those that
are missing are cloned. For merges alone a folder `<repo>_task/<number>` with the files that gold patches touch will do.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from envs.cooperbench import official
from envs.cooperbench.dataset import BenchTask, Dataset, Pair
from envs.cooperbench.env import CooperBench
from envs.cooperbench.evaluation import Evaluator
from envs.cooperbench.logs import AgentLog, PairLog, official_verdict, write_log
from envs.cooperbench.recipes import RECIPES, Refused
from envs.cooperbench.submission import submit
from envs.cooperbench.tasks import name_of
from envs.cooperbench.venvs import Cache
from envs.repository.git import Repository
from envs.repository.merge import MergePolicy, merge_trees
from envs.scripted.cooperbench import Gold
from envs.scripted.play import play
from marl_coop.cli import run_script

DOCS = Path("docs/cooperbench.md")
START, END = "<!-- figures -->\n", "<!-- end of figures -->"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, help="folder of the official dataset")
    parser.add_argument("--cache", type=Path, required=True, help="folder of what is made once")
    parser.add_argument(
        "--repositories", type=Path, default=Path("nowhere"), help="folder of upstream repositories (default: none)"
    )
    parser.add_argument("--python", default=sys.executable, help="the interpreter of the environments; best is 3.11")
    parser.add_argument("--constraint", help="a file of pip constraints, such as one that pins the CPU build of torch")
    parser.add_argument(
        "--tiers", type=int, nargs="+", default=[1, 2], help="1 to 3, from quick to slow suites (default: 1 2)"
    )
    parser.add_argument("--tasks", nargs="+", help="only these, such as pallets_click_task/2956")
    parser.add_argument("--subset", help="pairs, plays: only those of a subset")
    parser.add_argument("--official", type=Path, help="pairs: an interpreter that has the cooperbench package")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds for one run of tests")
    parser.add_argument("step", choices=["merges", "features", "pairs", "plays", "report"])
    args = parser.parse_args()
    args.cache.mkdir(parents=True, exist_ok=True)
    dataset, done = Dataset(args.dataset), Done(args.cache / "verified.jsonl")
    sources = {folder.name: folder.resolve() for folder in args.repositories.glob("*_task")}
    pip_options = ["--constraint", args.constraint] if args.constraint else []
    cache = Cache(args.cache, sources=sources, pip_options=pip_options, python=args.python)
    if args.step == "report":
        before, _, rest = DOCS.read_text().partition(START)
        DOCS.write_text(before + START + "\n".join(report(done)) + "\n" + END + rest.partition(END)[2])
        return
    keys = [key.rpartition("/") for key in args.tasks or dataset.tasks]
    tasks = [dataset.task(repo, int(number)) for repo, _, number in keys]
    if args.step == "merges":
        for task in tasks:
            merges(task, cache, done)
        return
    evaluator = Evaluator(cache, timeout_s=args.timeout)
    chosen = [task for task in tasks if task.key in RECIPES and RECIPES[task.key].tier in args.tiers]
    for task in chosen:
        if args.step == "features":
            features(task, evaluator, done)
            continue
        wanted = [p for p in dataset.pairs(args.subset) if (p.repo, p.number) == (task.repo, task.number)]
        if args.step == "pairs":
            pairs(task, [pair.features for pair in wanted], evaluator, args.official, done)
        else:
            plays(dataset, wanted, evaluator, done)


class Done:
    """Results in a file of JSON lines, by their key."""

    def __init__(self, file: Path):
        self.file = file
        lines = file.read_text().splitlines() if file.exists() else []
        self.results = {tuple(line["key"]): line for line in map(json.loads, lines)}

    def __contains__(self, key: tuple) -> bool:
        return key in self.results

    def add(self, key: tuple, **values: object) -> None:
        self.results[key] = {"key": key, **values}
        with self.file.open("a") as stream:
            stream.write(json.dumps(self.results[key]) + "\n")
        print(*key, values, flush=True)

    def of(self, step: str) -> dict[tuple, dict]:
        return {key[1:]: value for key, value in self.results.items() if key[0] == step}


def merges(task: BenchTask, cache: Cache, done: Done) -> None:
    """Gold pairs of a task merged in three ways."""
    if all(("merge", task.key, *pair) in done for pair in task.pairs):
        return
    files = Path(cache.sources.get(task.repo, "")) / str(task.number)
    if files.is_dir():
        repository = Repository.create(Path(tempfile.mkdtemp()) / "files.git")
        base = repository.write({str(f.relative_to(files)): f.read_bytes() for f in files.rglob("*") if f.is_file()})
    else:
        repository = cache.repository(task)
        base = repository.tree(task.commit)
    sides = {id: submit(repository, base, feature.gold, ()) for id, feature in task.features.items()}
    touched = sorted({path for side in sides.values() for path in repository.changed(base, side.tree)})
    # The work tree has the touched files only: the others are equal on both sides.
    small = repository.take("4b825dc642cb6eb9a060e54bf8d69288fbee4904", base, touched)
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder, "work")
        git(None, "clone", "-q", "--shared", "-n", repository.git_dir, tree)
        commits = {id: repository.take(small, side.tree, touched) for id, side in sides.items()}
        root = repository.commit(small)
        for first, second in task.pairs:
            ours = merge_trees(repository, base, sides[first].tree, sides[second].tree, MergePolicy.NAIVE)
            one, two = (repository.commit(commits[id], root) for id in (first, second))
            git(tree, "checkout", "-q", "-f", two)
            theirs = git(tree, "merge", "-q", "--no-edit", one, check=False).returncode == 0
            same = ours.clean == theirs
            if theirs and ours.final is not None:
                same &= (
                    repository.take(small, ours.final, touched) == git(tree, "rev-parse", "HEAD^{tree}").stdout.strip()
                )
            git(tree, "merge", "--abort", check=False)
            git(tree, "clean", "-qfdx")
            by_file = merge_files(repository, base, sides[first].tree, sides[second].tree, touched)
            done.add(
                ("merge", task.key, first, second),
                clean=ours.clean,
                git=same,
                merge_file=by_file == ours.clean,
                applied=[sides[first].status, sides[second].status],
                whole=not files.is_dir(),
            )


def merge_files(repository: Repository, base: str, first: str, second: str, paths: list[str]) -> bool:
    """Whether `git merge-file` merges every path without a conflict."""
    with tempfile.TemporaryDirectory() as folder:
        for path in paths:
            versions = [repository.read(tree, path) for tree in (second, base, first)]
            if versions[0] == versions[2] or versions[1] in (versions[0], versions[2]):
                continue
            names = [Path(folder, name) for name in ("second", "base", "first")]
            for name, content in zip(names, versions, strict=True):
                name.write_bytes(content or b"")
            if subprocess.run(["git", "merge-file", "-p", *names], capture_output=True).returncode:
                return False
    return True


def git(folder: Path | None, *words: object, check: bool = True) -> subprocess.CompletedProcess:
    where = ["-C", str(folder)] if folder else []
    who = ["-c", "user.name=nobody", "-c", "user.email=nobody@localhost"]
    return subprocess.run(["git", *where, *who, *map(str, words)], check=check, capture_output=True, text=True)


def features(task: BenchTask, evaluator: Evaluator, done: Done) -> None:
    """Each gold feature of a task: refused, or studied and its gold patch graded."""
    for id, feature in task.features.items():
        key = ("feature", task.key, id)
        if key in done:
            continue
        started = time.monotonic()
        try:
            suite = evaluator.suite(task, id)
        except Refused as error:
            done.add(key, refused=str(error).splitlines()[0][:200])
            continue
        studied, bench = time.monotonic(), evaluator.bench(task)
        verdict = evaluator.grade(task, id, bench.repository.apply(bench.base, feature.gold, ignore_space=True))
        graded = time.monotonic()
        other = evaluator.grade(task, id, combined(task, evaluator))
        done.add(
            key,
            passed=verdict.passed,
            forged=verdict.forged,
            new=len(suite.new),
            kept=len(suite.kept),
            guard=suite.guard,
            study_s=round(studied - started, 1),
            grade_s=round(graded - studied, 1),
            combined=other.passed,
            combined_forged=other.forged,
        )


def combined(task: BenchTask, evaluator: Evaluator) -> str:
    """The tree of the dataset's joint solution: other code that has the same features."""
    bench = evaluator.bench(task)
    patch = (task.folder / "combined.patch").read_text()
    return bench.repository.apply(bench.base, patch, ignore_space=True)


def pairs(
    task: BenchTask, wanted: list[tuple[int, int]], evaluator: Evaluator, python: Path | None, done: Done
) -> None:
    """Gold pairs of a task under lead_fallback, by us and by the official evaluator."""
    todo = [pair for pair in wanted if ("pair", task.key, *pair) not in done]
    ours = {}
    for pair in todo:
        try:
            ours[pair] = evaluator.evaluate(task, pair, gold(task, pair), MergePolicy.LEAD_FALLBACK)
        except Refused as error:
            done.add(("pair", task.key, *pair), refused=str(error).splitlines()[0][:200])
    theirs = official_verdicts(task, list(ours), evaluator, python) if python and ours else {}
    for pair, verdict in ours.items():
        official_one = short(theirs[pair]) if pair in theirs else None
        done.add(("pair", task.key, *pair), ours=short(official_verdict(verdict)), official=official_one)


def plays(dataset: Dataset, wanted: list[Pair], evaluator: Evaluator, done: Done) -> None:
    """Gold pairs of a task played in the environment under lead_fallback."""
    for pair in wanted:
        key = ("play", f"{pair.repo}/{pair.number}", *pair.features)
        if key in done:
            continue
        names, policy = [name_of(pair)], MergePolicy.LEAD_FALLBACK
        try:
            env = CooperBench(dataset=dataset.path, pairs=names, evaluator=evaluator, policy=policy)
            outcome = play(env, dict.fromkeys(env.possible_agents, Gold()), seed=0).outcome
        except Refused as error:
            done.add(key, refused=str(error).splitlines()[0][:200])
            continue
        assert outcome.merge is not None, "every episode on a repository ends with a merge"
        done.add(key, success=outcome.success, utility=outcome.utility, conflict=outcome.merge.conflict)


def gold(task: BenchTask, pair: tuple[int, int]) -> tuple[str, str]:
    return task.features[pair[0]].gold, task.features[pair[1]].gold


def official_verdicts(
    task: BenchTask, todo: list[tuple[int, int]], evaluator: Evaluator, python: Path
) -> dict[tuple[int, int], dict]:
    """What `evaluate()` writes into eval.json for gold pairs of one task."""
    with tempfile.TemporaryDirectory() as folder:
        written = {}
        for pair in todo:
            agents = tuple(
                AgentLog(agent=f"agent{seat}", features=(id,), patch=patch)
                for seat, (id, patch) in enumerate(zip(pair, gold(task, pair), strict=True), 1)
            )
            log = PairLog(repo=task.repo, number=task.number, features=pair, setting="coop", agents=agents)
            written[pair] = write_log(Path(folder, "gold"), log)
        images = {task.image: official.image_entry(evaluator.bench(task))}
        official.evaluate_logs(python, task.folder.parent.parent, Path(folder), ["gold"], images)
        return {pair: json.loads((place / "eval.json").read_text()) for pair, place in written.items()}


def short(verdict: dict) -> dict:
    return {
        "merge": verdict["merge"]["status"],
        "strategy": verdict["merge"]["strategy"],
        "passed": [verdict[place]["passed"] for place in ("feature1", "feature2")],
        "both": verdict["both_passed"],
        "error": verdict["error"],
    }


def report(done: Done) -> Iterator[str]:
    """The figures in docs/cooperbench.md."""
    merged, graded, paired = (done.of(step) for step in ("merge", "feature", "pair"))
    agree = sum(r["git"] and r["merge_file"] for r in merged.values())
    clean, part = (sum(bool(r[k]) for r in merged.values()) for k in ("clean", "whole"))
    yield f"Gold merges: **{agree} of {len(merged)}** are as `git merge` in a work tree and `git merge-file` have them;"
    yield f"{clean} are clean and {len(merged) - clean} conflict. {len(merged) - part} of them were made of the touched"
    yield "files alone, taken from a release with the same content."
    yield ""
    studied = [r for r in graded.values() if "refused" not in r]
    passed, forged = (sum(r[k] for r in studied) for k in ("passed", "forged"))
    yield f"Gold features: **{passed} of {len(studied)}** studied ones fail on the base and pass with the gold patch;"
    yield f"{len(graded) - len(studied)} are refused. Gold patches that were taken for a forgery: {forged}."
    joint = [r for r in studied if "combined" in r]
    yield f"The joint solution of all features, which is other code, passes {sum(r['combined'] for r in joint)} of"
    yield f"{len(joint)}, and was taken for a forgery in {sum(r['combined_forged'] for r in joint)}."
    yield ""
    yield "| task | features run | refused | gold passes | new tests | twins: literal / flip / floor / none |"
    yield "|---|---|---|---|---|---|"
    for task in dict.fromkeys(key[0] for key in graded):
        rows = [r for key, r in graded.items() if key[0] == task]
        good = [r for r in rows if "refused" not in r]
        kinds = " / ".join(str(sum(r["guard"].get(k, 0) for r in good)) for k in ("literal", "flip", "floor", "none"))
        new, ok = sum(r["new"] for r in good), sum(r["passed"] for r in good)
        yield f"| {task} | {len(rows)} | {len(rows) - len(good)} | {ok} of {len(good)} | {new} | {kinds} |"
    yield ""
    yield from (f"Refused: {r['refused']}\n" for r in graded.values() if "refused" in r)
    both = [r for r in paired.values() if r.get("official")]
    verdicts, passing = (
        sum(r["ours"]["both"] == r["official"]["both"] for r in both),
        sum(r["ours"]["both"] for r in both),
    )
    every = sum(r["ours"] == r["official"] for r in both)
    yield f"Gold pairs under `lead_fallback`, beside the official `evaluate()`: **{verdicts} of {len(both)}** joint"
    yield f"verdicts agree, {every} in every field (merge, strategy, each feature, error). {passing} of them pass."
    yield ""
    played = {key: r for key, r in done.of("play").items() if paired.get(key, {}).get("official")}
    same = sum(r["success"] == paired[key]["official"]["both"] for key, r in played.items())
    full = sum(r["utility"] == 1.0 for r in played.values())
    yield f"Gold pairs played in the environment, with the patches written as actions: **{same} of {len(played)}** end"
    yield f"as the official `evaluate()` has them; {full} are paid in full."


if __name__ == "__main__":
    sys.exit(run_script(main))
