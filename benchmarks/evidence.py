"""The claims of docs/results/registration.md, decided by the runs of the ablation and by evaluations of `balanced`.

    marl-coop ablate configs/studies/evidence.yaml --output ablations/evidence
    marl-coop eval ablations/evidence/runs/balanced/seed-0 --battery configs/studies/evidence/battery.yaml \\
        --output evals/evidence-0
    python benchmarks/evidence.py ablations/evidence evals/evidence-*

Prints Markdown: each claim with its number, its 95 % interval and what is to be said, then all arms before and after
training, which claims nothing. Seeds that are missing are named, and what rests on them is not decided.
"""

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from envs.core.episode import Episode
from marl_coop.cli import run_script
from marl_coop.cli.arguments import existing
from marl_coop.evaluation.evaluated import read_evaluated
from marl_coop.runs.records import read_episodes
from rewards.metrics import METRICS, Estimate, Metric, across_seeds, compare, of_players, rates

Played = Mapping[str, Episode]  # by the id of the task

SEEDS, LEAST_RISE = range(5), 0.3
SHOWN = {
    "j": "J",
    "cdr": "CDR",
    "cr": "CR",
    "kairos_utility": "utility (KAIROS)",
    "resistance": "resistance",
    "success": "success",
    "generated_tokens_per_solved": "tokens per solved task",
}


class Run:
    """A finished run: its arm and seed, and what it played before and after training."""

    def __init__(self, folder: Path):
        (trained,) = read_evaluated(folder)
        self.arm, self.seed, self.learners = trained.method, trained.seed, trained.learners
        self.after = trained.episodes
        self.before = {episode.task.id: episode for episode in read_episodes(folder / "before.jsonl")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ablation", type=existing, help="folder of the ablation")
    parser.add_argument("evaluations", type=existing, nargs="*", help="folders of `marl-coop eval`, one per seed")
    args = parser.parse_args()
    runs = [Run(file.parent) for file in sorted(args.ablation.glob("runs/*/seed-*/results.json"))]
    arms = {arm: [run for run in runs if run.arm == arm] for arm in dict.fromkeys(run.arm for run in runs)}
    print("| claim | number | 95 % interval | says |\n|---|---|---|---|")
    for row in (*_primary(arms), *_bar_of_the_field(arms), *_learned(args.evaluations)):
        print(f"| {' | '.join(row)} |")
    print(f"\n| arm | seeds | {' | '.join(SHOWN.values())} |\n|---|---|{'---|' * len(SHOWN)}")
    for arm, of_arm in arms.items():
        print(f"| {arm} | {', '.join(str(run.seed) for run in of_arm)} | {' | '.join(_before_and_after(of_arm))} |")


def _primary(arms: dict[str, list[Run]]) -> Iterable[Sequence[str]]:
    claim = "1: J of `balanced` - `task_only`, held-out families"
    if missing := _missing({arm: [run.seed for run in arms.get(arm, [])] for arm in ("balanced", "task_only")}):
        yield claim, "", "", missing
        return
    runs = {arm: [run.after for run in arms[arm]] for arm in ("balanced", "task_only")}
    found = across_seeds(runs, "task_only", {"j": METRICS["j"]})["j"]["balanced"].difference
    assert found is not None
    yield _decided(claim, found)


def _bar_of_the_field(arms: dict[str, list[Run]]) -> Iterable[Sequence[str]]:
    runs = arms.get("balanced", [])
    missing = _missing({"balanced": [run.seed for run in runs]})
    for name in ("kairos_utility", "resistance"):
        claim = f"2: {SHOWN[name]} of `balanced` - `warm`, held-out families"
        if missing:
            yield claim, "", "", missing
            continue
        found = compare(_all(run.before for run in runs), _all(run.after for run in runs), {name: METRICS[name]})[name]
        yield _decided(claim, found)


def _learned(folders: Sequence[Path]) -> Iterable[Sequence[str]]:
    claim = "3: J of `balanced` - `warm`, unseen instances of the families of training, mean over seeds"
    rises = dict(sorted(map(_rise, folders)))
    if missing := _missing({"evaluations of `balanced`": rises}):
        yield claim, "", "", missing
        return
    rise = sum(rises.values()) / len(rises)
    each = ", ".join(f"{one:+.2f}" for one in rises.values())
    yield claim, f"{rise:+.2f}", f"seeds: {each}", "holds" if rise >= LEAST_RISE else "fails"


def _rise(folder: Path) -> tuple[int, float]:
    """The seed of an evaluation of `balanced`, and how far its J is above that of its warm-up."""
    unseen = {one.method: one for one in read_evaluated(folder) if one.condition == "unseen"}
    trained, warm = unseen["balanced"], unseen["warm"]
    assert trained.seed is not None
    return trained.seed, _value("j", trained.episodes) - _value("j", warm.episodes)


def _before_and_after(runs: Sequence[Run]) -> Iterable[str]:
    """Means over the seeds, of the seats that learn."""
    for name in SHOWN:
        before = [_value(name, run.before, run.learners) for run in runs]
        after = [_value(name, run.after, run.learners) for run in runs]
        yield f"{sum(before) / len(runs):.2f} → {sum(after) / len(runs):.2f}"


def _value(name: str, played: Played, learners: Sequence[str] = ()) -> float:
    """A metric of some episodes; nan where it is not defined."""
    value = rates(list(played.values()), {name: of_players(learners)[name]})[name]
    return float("nan") if value is None else value


def _all(played: Iterable[Played]) -> list[Episode]:
    return [episode for episodes in played for episode in episodes.values()]


def _missing(seeds: dict[str, Iterable[int | None]]) -> str:
    """What is not there, or nothing."""
    gone = {arm: sorted(set(SEEDS) - set(found)) for arm, found in seeds.items()}
    named = [f"{arm} {', '.join(map(str, numbers))}" for arm, numbers in gone.items() if numbers]
    return f"not decided: no seeds {'; '.join(named)}" if named else ""


def _decided(claim: str, found: Estimate | Metric) -> Sequence[str]:
    """The row of a claim that a difference is above 0."""
    holds = found.low is not None and found.low > 0
    return claim, f"{found.value:+.2f}", f"[{found.low:+.2f}, {found.high:+.2f}]", "holds" if holds else "fails"


if __name__ == "__main__":
    sys.exit(run_script(main))
