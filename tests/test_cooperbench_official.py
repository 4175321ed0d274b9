"""Our verdicts and what episodes paid, beside the verdicts of the official package, on the toy dataset.

The official package wants versions of its own, so it has an interpreter of its own: `make test` makes it.
"""

import os
import sys
from pathlib import Path

import pytest
from toy_bench import FORCE_REPORTS, submission

from envs.cooperbench import CooperBench, official, read_logs, write_episodes
from envs.cooperbench.logs import AgentLog, PairLog, official_verdict, write_log
from envs.core.env import SEATS
from envs.core.episode import Episode
from envs.scripted.cooperbench import Gold
from envs.scripted.play import play

PYTHON = Path(os.environ.get("COOPERBENCH_PYTHON") or Path(sys.prefix, "cooperbench/bin/python"))
pytestmark = [
    pytest.mark.skipif(not PYTHON.exists(), reason=f"no interpreter with the official package at {PYTHON}"),
    pytest.mark.bubblewrap,
]


class Idle:
    def reply(self, env, seat):
        return "Submit"


@pytest.fixture(scope="module")
def episodes(toy):
    """By name: played toy pairs, as a run's `after.jsonl` has them."""
    task, evaluator = toy
    kinds = {"gold": ((1, 3), Gold()), "conflict": ((1, 2), Gold()), "half": ((1, 3), Idle())}
    found = {}
    for name, ((i, j), partner) in kinds.items():
        pair = f"{task.key}/{i}-{j}"
        dataset = task.folder.parent.parent
        env = CooperBench(dataset=dataset, evaluator=evaluator, pairs=pair, policy="lead_fallback")
        episode = play(env, dict(zip(SEATS, (Gold(), partner), strict=True)), seed=0)
        found[name] = Episode.from_json(episode.to_json())
    return found


@pytest.fixture(scope="module")
def compared(toy, episodes, tmp_path_factory):
    """By name: our verdict on a log that was read again, and the official package's."""
    logs = tmp_path_factory.mktemp("official")
    task, evaluator = toy
    bench = evaluator.bench(task)
    assert write_episodes(logs, "played", episodes.values()) == ("played-1", "played-2")
    names = {("played-1", (1, 3)): "gold", ("played-1", (1, 2)): "conflict", ("played-2", (1, 3)): "half"}
    first, third = (task.features[feature].gold for feature in (1, 3))
    written = {
        "swapped": (third, first),
        "broken": (first.replace("return", "yield"), third),
        "forged": (submission(bench, {"conftest.py": FORCE_REPORTS}), ""),
    }
    for name, patches in written.items():
        agents = tuple(
            AgentLog(agent=f"agent{seat}", features=(feature,), patch=patch)
            for seat, feature, patch in zip((1, 2), (1, 3), patches, strict=True)
        )
        log = PairLog(repo=task.repo, number=task.number, features=(1, 3), setting="coop", agents=agents)
        write_log(logs / name, log)
        names[name, (1, 3)] = name
    runs = list(dict.fromkeys(run for run, _ in names))
    official.evaluate_logs(PYTHON, task.folder.parent.parent, logs, runs, {task.image: official.image_entry(bench)})
    verdicts = {}
    for run in runs:
        for log in read_logs(logs / run):
            ours = evaluator.evaluate(task, log.features, log.patches, "lead_fallback")
            verdicts[names[run, log.features]] = official_verdict(ours), log.evaluation
    return verdicts


@pytest.mark.parametrize("name", ["gold", "conflict", "half", "swapped", "broken"])
def test_our_verdict_is_that_of_the_official_evaluator(compared, name):
    ours, theirs = compared[name]
    assert theirs["error"] is None
    for key in ("repo", "task_id", "features", "setting", "apply_status", "both_passed"):
        assert ours[key] == theirs[key], key
    assert [ours["merge"][k] for k in ("status", "strategy")] == [theirs["merge"][k] for k in ("status", "strategy")]
    for place in ("feature1", "feature2"):
        assert ours[place]["passed"] == theirs[place]["passed"]


@pytest.mark.parametrize(
    ("name", "success", "passed"),
    [("gold", True, [True, True]), ("conflict", False, [False, False]), ("half", False, [True, False])],
)
def test_the_official_evaluator_confirms_what_a_played_episode_came_to(episodes, compared, name, success, passed):
    outcome, theirs = episodes[name].outcome, compared[name][1]
    assert outcome.success is theirs["both_passed"] is success
    assert [theirs[f"feature{place}"]["passed"] for place in (1, 2)] == passed
    assert [all(outcome.parts[seat].merged) for seat in SEATS] == passed
    assert outcome.merge.conflict is (theirs["merge"]["status"] == "conflicts")


def test_a_conftest_fools_the_official_evaluator_and_not_ours(compared):
    ours, theirs = compared["forged"]
    assert theirs["both_passed"] and not ours["both_passed"]
