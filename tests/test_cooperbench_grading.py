"""Verdicts on honest patches of the toy dataset, and what is refused."""

import subprocess
import sys

import pytest
from toy_bench import AREA, ISOLATION, LABEL, Here, patch, submission

from envs.cooperbench import runner, venvs
from envs.cooperbench.evaluation import Evaluator, gradeable
from envs.cooperbench.grading import Workbench, load, save
from envs.cooperbench.recipes import Recipe, Refused
from envs.cooperbench.runner import Isolation, IsolationError, Place, RunStatus
from envs.cooperbench.venvs import Cache, PreparationError
from envs.repository.merge import MergePolicy, Strategy


def gold(task, *features):
    return tuple(task.features[feature].gold for feature in features)


def test_features_that_can_be_paid_for_are_told_from_those_that_cannot(toy):
    task, evaluator = toy
    suites, refused = gradeable(evaluator, task)
    assert set(suites) == {1, 2, 3}
    assert refused == {4: f"{task.key} feature 4: its hidden tests tell nothing, they pass on the untouched base."}
    assert suites[3].new == {
        f"tests/test_shapes.py::test_{name}" for name in ("square", "negative_side", "square_runs")
    }
    assert suites[3].kept == {"tests/test_shapes.py::test_area"}
    assert suites[3].guard == {"floor": 1, "literal": 2}
    assert suites[1].guard == {"flip": 2, "literal": 1}


def test_gold_patches_far_apart_pass_together(toy):
    task, evaluator = toy
    verdict = evaluator.evaluate(task, (1, 3), gold(task, 1, 3), MergePolicy.NAIVE)
    assert verdict.both_passed and (verdict.merge_status, verdict.strategy) == ("clean", Strategy.NAIVE)
    assert [feature.fraction for feature in verdict.features] == [1.0, 1.0]
    assert verdict.isolation is ISOLATION


def test_gold_patches_of_one_signature_conflict_and_nothing_is_paid(toy):
    task, evaluator = toy
    verdict = evaluator.evaluate(task, (1, 2), gold(task, 1, 2), MergePolicy.NAIVE)
    assert verdict.merge_status == "conflicts" and verdict.tree is None and not verdict.both_passed
    assert [feature.fraction for feature in verdict.features] == [0.0, 0.0]


def test_unfinished_code_that_a_flip_agrees_with_is_no_forgery(toy):
    task, evaluator = toy
    bench = evaluator.bench(task)
    half = patch(bench.repository, bench.base, {AREA: "def area(width, height, *, unit=1):\n    return width * height"})
    verdict = evaluator.grade(task, 1, bench.repository.apply(bench.base, half))  # 6 != 6 * unit
    assert not verdict.forged and not verdict.passed
    assert verdict.new == (1, 3) and verdict.kept == (1, 1)


def test_a_lead_that_did_all_of_it_passes_only_where_the_policy_falls_back_to_it(toy):
    task, evaluator = toy
    bench = evaluator.bench(task)
    both = {AREA: "def area(width, height=None, *, unit=1):\n    return width * (height or width) * unit"}
    patches = (patch(bench.repository, bench.base, both), task.features[2].gold)
    results = {
        policy: evaluator.evaluate(task, (1, 2), patches, policy)
        for policy in (MergePolicy.NAIVE, MergePolicy.LEAD_FALLBACK)
    }
    assert {policy: result.both_passed for policy, result in results.items()} == {
        MergePolicy.NAIVE: False,
        MergePolicy.LEAD_FALLBACK: True,
    }
    assert results[MergePolicy.LEAD_FALLBACK].strategy is Strategy.LEAD


def test_a_part_of_the_feature_is_a_part_of_the_fraction(toy):
    task, evaluator = toy
    bench = evaluator.bench(task)
    half = patch(bench.repository, bench.base, {LABEL: LABEL + "\n\ndef square(side):\n    return side * side\n"})
    verdict = evaluator.solo(task, (1, 3), half)
    assert [feature.passed for feature in verdict.features] == [False, False]
    assert verdict.features[1].new == (2, 3) and not verdict.features[1].forged


def test_breaking_what_worked_fails_a_feature_whose_own_tests_pass(toy):
    task, evaluator = toy
    change = {AREA: "def area(width, height):\n    return 0", LABEL: LABEL + "\n\n" + SQUARE}
    bench = evaluator.bench(task)
    feature = evaluator.solo(task, (1, 3), patch(bench.repository, bench.base, change)).features[1]
    assert not feature.passed and feature.new == (3, 3) and feature.kept == (0, 1)


def test_a_tree_that_comes_to_no_test_is_run_once_and_earns_nothing(toy, monkeypatch):
    task, evaluator = toy
    bench, runs = evaluator.bench(task), []
    run = Workbench.run
    monkeypatch.setattr(Workbench, "run", lambda self, *args: runs.append(run(self, *args)) or runs[-1])
    broken = patch(bench.repository, bench.base, {AREA: "import nowhere", LABEL: LABEL + "\n\n" + SQUARE})
    verdict = evaluator.grade(task, 3, bench.repository.apply(bench.base, broken))
    assert len(runs) == 1 and verdict.new == (0, 3) and verdict.kept == (0, 1) and not verdict.passed
    unfinished = patch(bench.repository, bench.base, {LABEL: LABEL + "\n\ndef square(side):\n    return 9\n"})
    assert evaluator.grade(task, 3, bench.repository.apply(bench.base, unfinished)).new == (2, 3)
    assert len(runs) == 3


SQUARE = "def square(side):\n    if side < 0:\n        raise ValueError('negative side')\n    return side**2\n"


@pytest.mark.parametrize("text", ["", "\n\n"])
def test_an_empty_patch_is_skipped_and_earns_nothing(toy, text):
    task, evaluator = toy
    verdict = evaluator.evaluate(task, (1, 3), (text, task.features[3].gold), MergePolicy.NAIVE)
    assert [a.value for a in verdict.applied] == ["skipped", "applied"] and verdict.merge_status == "clean"
    assert [feature.passed for feature in verdict.features] == [False, True]


def test_a_patch_that_does_not_apply_is_missing_input(toy):
    task, evaluator = toy
    broken = task.features[1].gold.replace("return width * height\n", "return nothing\n")
    verdict = evaluator.evaluate(task, (1, 3), (broken, task.features[3].gold), MergePolicy.NAIVE)
    assert verdict.merge_status == "missing_input" and [a.value for a in verdict.applied] == ["failed", "applied"]
    assert not any(feature.passed for feature in verdict.features)


def test_half_of_a_surrogate_pair_is_a_patch_that_does_not_apply(toy):
    task, evaluator = toy
    verdict = evaluator.evaluate(task, (1, 3), (task.features[1].gold + "\ud800", ""), MergePolicy.NAIVE)
    assert verdict.merge_status == "missing_input" and [a.value for a in verdict.applied] == ["failed", "skipped"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"policy": "typo"}, "policy is 'typo'; it must be one of naive, union, lead_fallback, identical"),
        ({"features": (1, 9)}, "shapes_task/7 has no feature 9. It has 1, 2, 3, 4"),
        ({"features": (1, 1)}, r"features is \(1, 1\); a pair has two different ones"),
        ({"features": None}, "features is None; it must be two ids"),
        ({"patches": None}, "patches is None; it must be two patches as text"),
        ({"patches": ("",)}, r"patches is \('',\); it must be two patches"),
        ({"patches": "ab"}, "patches is 'ab'; it must be two patches"),
        ({"patches": ("", None)}, r"patches is \('', None\); it must be two patches"),
    ],
)
def test_a_call_that_cannot_be_meant_is_one_clear_error(toy, changed, message):
    arguments = {"features": (1, 3), "patches": ("", ""), "policy": "naive"} | changed
    with pytest.raises(ValueError, match=message):
        toy[1].evaluate(toy[0], **arguments)


def test_a_policy_may_be_given_by_name(toy):
    task, evaluator = toy
    verdict = evaluator.evaluate(task, [1, 2], list(gold(task, 1, 2)), "lead_fallback")
    assert verdict.policy is MergePolicy.LEAD_FALLBACK and verdict.strategy is Strategy.LEAD
    assert verdict.pair.features == (1, 2) and not verdict.both_passed


def test_a_new_file_of_the_package_counts(toy):
    task, evaluator = toy
    core = "\n\nfrom shapes.squares import square\n"
    files = {"shapes/core.py": core, "shapes/squares.py": SQUARE}
    verdict = evaluator.solo(task, (1, 3), submission(evaluator.bench(task), files))
    assert verdict.features[1].passed and verdict.ignored == ((), ())


def test_the_same_tree_is_graded_once(toy, monkeypatch):
    task, evaluator = toy
    patches = gold(task, 1, 3)
    first = evaluator.evaluate(task, (1, 3), patches, MergePolicy.NAIVE)
    monkeypatch.setattr("envs.cooperbench.grading.run_tests", None)
    assert evaluator.evaluate(task, (1, 3), patches, MergePolicy.UNION).features == first.features


def test_a_suite_that_was_written_is_read_again(toy, tmp_path):
    task, evaluator = toy
    suite = evaluator.suite(task, 3)
    save(suite, tmp_path / "suite.json")
    assert load(tmp_path / "suite.json") == suite


@pytest.mark.bubblewrap  # a plain process that does not start is an error of the caller
def test_a_machine_that_cannot_start_a_run_is_a_fault_and_nobodys_failure(toy, tmp_path):
    class Broken(Here):
        def environment(self, task, recipe):
            return Place(python=tmp_path / "no-python")

    task, evaluator = toy
    suite = evaluator.suite(task, 3)
    broken = Evaluator(Broken(evaluator.cache.folder), isolation=ISOLATION, recipes=evaluator.recipes)
    broken.suites[task.key, 3] = suite
    verdict = broken.grade(task, 3, broken.bench(task).base)
    assert verdict.status is RunStatus.FAULT and not verdict.passed
    with pytest.raises(PreparationError, match="a run of its tests did not start"):
        broken.suite(task, 1)


def test_isolation_that_does_not_work_here_is_refused_with_the_remedy(toy, monkeypatch):
    monkeypatch.setattr(runner, "_lacks", lambda isolation: "not today")
    with pytest.raises(IsolationError, match="not today.*apt-get install bubblewrap"):
        runner.best_isolation()
    task, evaluator = toy
    with pytest.raises(IsolationError, match="does not work here: not today"):
        evaluator.bench(task).run(evaluator.bench(task).base, ("tests/test_shapes.py",))


def test_an_install_that_fails_says_what_pip_said(toy, tmp_path):
    task, evaluator = toy
    cache = Cache(tmp_path, sources=evaluator.cache.sources, pip_options=("--no-index",))
    with pytest.raises(PreparationError, match="(?s)pip install.*No matching distribution found for pytest"):
        cache.environment(task, Recipe(tier=1))


def test_a_lazy_module_is_loaded_where_something_of_it_is_first_used(tmp_path):
    (tmp_path / "heavy.py").write_text("print('loaded')\nvalue = 3\n")
    venvs._make_lazy(tmp_path, ("heavy",))
    program = f"import site; site.addsitedir({str(tmp_path)!r}); import heavy; print('imported'); print(heavy.value)"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["imported", "loaded", "3"]


def test_an_environment_has_the_package_and_is_made_once(toy, tmp_path, monkeypatch):
    task, evaluator = toy
    monkeypatch.setattr(venvs, "_PYTEST", ("pip",))  # there already: no registry is asked
    cache, recipe = Cache(tmp_path, sources=evaluator.cache.sources), Recipe(tier=1, environ={"SITE": "{site}"})
    place = cache.environment(task, recipe)
    command = [place.python, "-c", "import shapes; print(shapes.__file__)"]
    shown = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert shown.stdout.startswith(place.environ["SITE"]) and place.roots == ("",)
    assert [str(file.relative_to(place.built)) for file in place.built.rglob("*.*")] == ["shapes/built.txt"]
    made = place.python.lstat().st_ctime_ns
    assert cache.environment(task, recipe).python.lstat().st_ctime_ns == made


def test_a_docker_evaluator_needs_no_virtual_environment(toy):
    task, evaluator = toy
    docker = Evaluator(Cache(evaluator.cache.folder), isolation=Isolation.DOCKER)
    assert docker.bench(task).place.image == "akhatua/cooperbench-shapes:task7"


def test_a_suite_that_no_gold_patch_passes_is_refused(toy):
    task, evaluator = toy
    bench = evaluator.bench(task)
    assert evaluator.suite(task, 1).new and not evaluator.grade(task, 1, bench.base).passed
    with pytest.raises(Refused, match="they pass on the untouched base"):
        evaluator.suite(task, 4)
