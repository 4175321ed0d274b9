"""`benchmarks/evidence.py`: what was written down before the runs is what is decided."""

import pytest
from test_benchmarks import run as script
from test_comparison import played, run

from marl_coop.runs.records import write_episodes

TASKS = range(24)


@pytest.fixture(scope="module")
def ideal():
    return played("ideal", TASKS)


@pytest.fixture(scope="module")
def silent():
    return played("silent", TASKS)


def arm(folder, name, before, after, seeds=range(5)):
    """Finished runs of an arm, which did the same with each seed."""
    for seed in seeds:
        place = folder / "runs" / name / f"seed-{seed}"
        run(place, name, seed, after)
        write_episodes(place / "before.jsonl", before)
        (place / "results.json").write_text("{}")


def says(folder) -> dict[str, str]:
    """The first cell of each row -> its last."""
    lines = script("evidence.py", folder, folder=folder).splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]
    return {row[0].partition(",")[0]: row[-1] for row in rows}


def test_a_claim_holds_where_its_whole_interval_is_above_0(tmp_path, ideal, silent):
    arm(tmp_path, "task_only", silent, silent)
    arm(tmp_path, "balanced", silent, ideal)
    found = says(tmp_path)
    assert found["1: J of `balanced` - `task_only`"] == "holds"
    assert found["2: utility (KAIROS) of `balanced` - `warm`"] == "holds"
    assert found["3: J of `balanced` - `warm`"].startswith("not decided")


def test_a_claim_fails_where_nothing_changed(tmp_path, ideal):
    arm(tmp_path, "task_only", ideal, ideal)
    arm(tmp_path, "balanced", ideal, ideal)
    found = says(tmp_path)
    assert found["1: J of `balanced` - `task_only`"] == found["2: resistance of `balanced` - `warm`"] == "fails"


def test_what_rests_on_a_missing_seed_is_not_decided(tmp_path, ideal, silent):
    arm(tmp_path, "task_only", silent, silent, seeds=range(4))
    arm(tmp_path, "balanced", silent, ideal)
    assert says(tmp_path)["1: J of `balanced` - `task_only`"] == "not decided: no seeds task_only 4"
