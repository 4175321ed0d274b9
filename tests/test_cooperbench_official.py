"""Our verdicts beside those of the official package, on the toy dataset.

The official package wants versions of its own, so it has an interpreter of its own: `make test` makes it.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from toy_bench import FORCE_REPORTS, ISOLATION, submission

from envs.cooperbench import official
from envs.cooperbench.logs import AgentLog, PairLog, official_verdict, write_log
from envs.cooperbench.running import Isolation
from envs.merge import Policy

PYTHON = Path(os.environ.get("COOPERBENCH_PYTHON") or Path(sys.prefix, "cooperbench/bin/python"))
pytestmark = [
    pytest.mark.skipif(not PYTHON.exists(), reason=f"no interpreter with the official package at {PYTHON}"),
    pytest.mark.skipif(ISOLATION is Isolation.NONE, reason="bubblewrap does not work on this machine"),
]


@pytest.fixture(scope="module")
def compared(toy, tmp_path_factory):
    """By name of a run: our verdict and the official package's."""
    folder = tmp_path_factory.mktemp("official")
    task, evaluator = toy
    bench = evaluator.bench(task)
    gold = {id: feature.gold for id, feature in task.features.items()}
    forged = submission(bench, {"conftest.py": FORCE_REPORTS})
    runs = {
        "gold": ((1, 3), gold[1], gold[3]),
        "conflict": ((1, 2), gold[1], gold[2]),
        "swapped": ((1, 3), gold[3], gold[1]),
        "half": ((1, 3), gold[1], ""),
        "broken": ((1, 3), gold[1].replace("return", "yield"), gold[3]),
        "forged": ((1, 3), forged, ""),
    }
    ours, written = {}, {}
    for name, (features, *patches) in runs.items():
        agents = tuple(
            AgentLog(agent=f"agent{seat}", features=(feature,), patch=patch)
            for seat, (feature, patch) in enumerate(zip(features, patches, strict=True), 1)
        )
        log = PairLog(repo=task.repo, number=task.number, features=features, setting="coop", agents=agents)
        written[name] = write_log(folder / "logs" / name, log)
        ours[name] = official_verdict(evaluator.evaluate(task, features, tuple(patches), Policy.LEAD_FALLBACK))
    config = {"dataset": str(task.folder.parent.parent), "logs": str(folder / "logs"), "runs": list(runs)}
    config["images"] = {task.image: official.image_entry(bench)}
    (folder / "config.json").write_text(json.dumps(config))
    result = subprocess.run([PYTHON, official.__file__, folder / "config.json"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return {name: (ours[name], json.loads((written[name] / "eval.json").read_text())) for name in runs}


@pytest.mark.parametrize("name", ["gold", "conflict", "swapped", "half", "broken"])
def test_our_verdict_is_that_of_the_official_evaluator(compared, name):
    ours, theirs = compared[name]
    assert theirs["error"] is None
    for key in ("repo", "task_id", "features", "setting", "apply_status", "both_passed"):
        assert ours[key] == theirs[key], key
    assert [ours["merge"][k] for k in ("status", "strategy")] == [theirs["merge"][k] for k in ("status", "strategy")]
    for place in ("feature1", "feature2"):
        assert ours[place]["passed"] == theirs[place]["passed"]


def test_a_conftest_fools_the_official_evaluator_and_not_ours(compared):
    ours, theirs = compared["forged"]
    assert theirs["both_passed"] and not ours["both_passed"]
