"""Confirm what played episodes of CooperBench came to by the official evaluator, and count what led to it.

    python benchmarks/cooperbench_run.py --dataset DATASET --cache CACHE --official PYTHON runs/mine/before.jsonl ...

Each file of episodes is exported as the official package's logs and graded by its `evaluate()`, without docker (PYTHON
is an interpreter that has it). A line of the table for each file: episodes, successes by us and by it, on how many
episodes both agree (each feature and both), features whose builder's branch defines the names of the gold patch, and
metrics with their intervals: success, tests that pass (U), replies that are read, conflicts. `--against` is a file of
episodes on the same tasks, to which every file's paired difference is given.
"""

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from envs.cooperbench import official, write_episodes
from envs.cooperbench.dataset import BenchTask, Dataset, Pair
from envs.cooperbench.evaluation import Evaluator
from envs.cooperbench.tasks import built_by, name_of
from envs.cooperbench.venvs import Cache
from envs.core.episode import Episode
from marl_coop.cli import run_script
from marl_coop.cli.arguments import existing
from marl_coop.runs.records import read_episodes
from rewards.metrics import compare, measure

SHOWN = ("success", "utility", "parse_rate", "textual_conflict_rate")
_DEFINED = re.compile(r"^\+(\w+) *=", re.MULTILINE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=existing, nargs="+", help="files of episodes")
    parser.add_argument("--dataset", required=True, help="folder of the official dataset")
    parser.add_argument("--cache", type=Path, required=True, help="folder of what is made once")
    parser.add_argument("--repositories", type=Path, help="folder of upstream repositories (default: cloned)")
    parser.add_argument("--official", type=Path, help="an interpreter that has the cooperbench package")
    parser.add_argument("--against", type=existing, help="a file of episodes on the same tasks")
    args = parser.parse_args()
    dataset = Dataset(args.dataset)
    sources = (
        {folder.name: folder.resolve() for folder in args.repositories.glob("*_task")} if args.repositories else {}
    )
    evaluator = Evaluator(Cache(args.cache, sources=sources))
    reference = read_episodes(args.against) if args.against else []
    print("| episodes | n | passed | official | agree | named | " + " | ".join(SHOWN) + " |")
    print("|---" * (6 + len(SHOWN)) + "|")
    for file in args.files:
        episodes = read_episodes(file)
        theirs = official_verdicts(dataset, evaluator, episodes, args.official) if args.official else []
        passed = sum(verdict["both_passed"] for verdict in theirs)
        agree = sum(same(dataset, *both) for both in zip(episodes, theirs, strict=True)) if theirs else 0
        counted = (len(episodes), sum(e.outcome.success for e in episodes), passed, agree, named(dataset, episodes))
        row(file.stem, *counted, *(measure(episodes)[name] for name in SHOWN))
        if reference:
            differences = compare(reference, episodes)
            row(f"{file.stem} - {args.against.stem}", *"     ", *(differences[name] for name in SHOWN))


def official_verdicts(dataset: Dataset, evaluator: Evaluator, episodes: Sequence[Episode], python: Path) -> list[dict]:
    """What `evaluate()` writes into eval.json for each episode."""
    with tempfile.TemporaryDirectory() as folder:
        runs = write_episodes(folder, "run", episodes)
        tasks = {task.key: task for task in (task_of(dataset, episode) for episode in episodes)}
        images = {task.image: official.image_entry(evaluator.bench(task)) for task in tasks.values()}
        official.evaluate_logs(python, dataset.path.absolute(), Path(folder), runs, images)
        seeds = {}
        for file in Path(folder).rglob("eval.json"):
            log = json.loads((file.parent / "result.json").read_text())
            seeds[log["seed"]] = json.loads(file.read_text())
        return [seeds[episode.task.seed] for episode in episodes]


def same(dataset: Dataset, episode: Episode, verdict: dict) -> bool:
    """Whether both say the same of each feature and of both."""
    features = pair_of(dataset, episode).features
    ours = [f"feature {feature} passed" in episode.outcome.detail for feature in features]
    theirs = [verdict[place]["passed"] for place in ("feature1", "feature2")]
    return (ours, episode.outcome.success) == (theirs, verdict["both_passed"])


def named(dataset: Dataset, episodes: Sequence[Episode]) -> str:
    """Features whose builder's branch defines all names that the gold patch defines, of all features."""
    found = []
    for episode in episodes:
        merge, task = episode.outcome.merge, task_of(dataset, episode)
        assert merge is not None, "every episode on a repository ends with a merge"
        for seat, features in built_by(pair_of(dataset, episode), episode.seats).items():
            branch = "\n".join(merge.proposals[seat].values())
            for feature in features:
                names = _DEFINED.findall(task.features[feature].gold)
                found.append(all(re.search(rf"^{name} *=", branch, re.MULTILINE) for name in names))
    return f"{sum(found)} of {len(found)}"


def pair_of(dataset: Dataset, episode: Episode) -> Pair:
    return next(pair for pair in dataset.pairs() if episode.task.id.startswith(f"{name_of(pair)}:"))


def task_of(dataset: Dataset, episode: Episode) -> BenchTask:
    return dataset.tasks[episode.task.family]


def row(*cells: object) -> None:
    print("| " + " | ".join(str(cell).strip() for cell in cells) + " |", flush=True)


if __name__ == "__main__":
    sys.exit(run_script(main))
