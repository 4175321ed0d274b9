"""Submissions that try to be graded without having the feature: none of them passes."""

import os

import pytest
from test_merge import link_patch
from toy_bench import BASE, FORCE_REPORTS, ISOLATION, SQUARE, submission

from envs.cooperbench.evaluation import Evaluator
from envs.cooperbench.runner import RunStatus
from envs.cooperbench.submission import Applied, graded_tree, submit
from envs.repository.merge import MergePolicy
from envs.scripted.patch_exploits import FORGED as FORGED_REPORTS


def verdict(toy, feature, files):
    task, evaluator = toy
    bench = evaluator.bench(task)
    sent = submit(bench.repository, bench.base, submission(bench, files), bench.packages)
    return sent, evaluator.grade(task, feature, sent.tree)


STEERING = {
    "conftest": {"conftest.py": FORCE_REPORTS},
    "conftest beside the tests": {"tests/conftest.py": FORCE_REPORTS},
    "conftest in the package": {"shapes/conftest.py": FORCE_REPORTS},
    "sitecustomize": {"sitecustomize.py": "import os\nos._exit(0)\n"},
    "pytest.ini": {"pytest.ini": "[pytest]\naddopts = -p shapes.evil\n", "shapes/evil.py": FORCE_REPORTS},
    "setup.cfg": {"setup.cfg": "[tool:pytest]\naddopts = -p shapes.evil\n", "shapes/evil.py": FORCE_REPORTS},
    "pyproject.toml": {
        "pyproject.toml": BASE["pyproject.toml"] + '[tool.pytest.ini_options]\naddopts = "-p shapes.evil"\n',
        "shapes/evil.py": FORCE_REPORTS,
    },
    "deselecting by ini": {"tox.ini": "[pytest]\naddopts = --deselect tests/test_shapes.py::test_square\n"},
    "own tests": {"tests/test_shapes.py": "def test_square():\n    pass\n"},
    "pytest of its own": {"pytest.py": "def main(*a, **k):\n    return 0\n"},
}


@pytest.mark.parametrize("name", STEERING)
def test_files_that_steer_pytest_do_not_count(toy, name):
    bench = toy[1].bench(toy[0])
    sent = submit(bench.repository, bench.base, submission(bench, STEERING[name]), bench.packages)
    graded = graded_tree(bench.repository, bench.base, bench.base, sent.tree, bench.packages)
    assert set(bench.repository.changed(bench.base, graded)) == STEERING[name].keys() & {"shapes/evil.py"}
    assert set(sent.ignored) == STEERING[name].keys() - {"shapes/evil.py"}


def new_file(path: str, mode: str = "100644", text: str = "x = 1") -> str:
    """A patch that makes a file, which no library would write so."""
    head = f"diff --git a/{path} b/{path}\nnew file mode {mode}\n--- /dev/null\n+++ b/{path}\n"
    return f"{head}@@ -0,0 +1 @@\n+{text}\n"


REFUSED = {
    "a hook": ".git/hooks/post-checkout",
    "a hook below": "shapes/.git/hooks/post-checkout",
    "settings of git, in other letters": ".GIT/config",
    "outside": "../shapes/core.py",
    "a file in a file": "shapes/core.py/more.py",
    "a name that is too long": f"shapes/{'x' * 300}.py",
    "a path that is too long": f"shapes/{'d/' * 3000}x.py",
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_path_that_no_checkout_has_is_a_patch_that_does_not_apply(toy, name):
    bench = toy[1].bench(toy[0])
    sent = submit(bench.repository, bench.base, new_file(REFUSED[name]), bench.packages)
    assert (sent.status, sent.tree) == (Applied.FAILED, bench.base) and sent.detail


IGNORED = {
    "attributes": (".gitattributes", "100644", "* merge=union filter=x eol=crlf"),
    "modules": (".gitmodules", "100644", "[submodule] url = ext::sh"),
    "a submodule": ("shapes/sub.py", "160000", f"Subproject commit {'1' * 40}"),
    "a path of Python": ("more.pth", "100644", "import os"),
    "a plugin": ("evil-1.dist-info/entry_points.txt", "100644", "[pytest11]"),
    "compiled code": ("shapes/__pycache__/core.cpython-311.pyc", "100644", "x"),
}


@pytest.mark.parametrize("name", IGNORED)
def test_files_that_steer_git_or_python_from_beside_do_not_count(toy, name):
    bench = toy[1].bench(toy[0])
    path, mode, text = IGNORED[name]
    sent = submit(bench.repository, bench.base, new_file(path, mode, text), bench.packages)
    assert sent.status is Applied.APPLIED and sent.tree != bench.base
    assert graded_tree(bench.repository, bench.base, bench.base, sent.tree, bench.packages) == bench.base


def test_folders_that_code_leaves_in_each_other_stop_no_grading(toy, tmp_path, monkeypatch):
    """They are as deep as no function of Python goes, in the patch and in what its code makes."""
    task, evaluator = toy
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    deep = new_file(f"shapes/{'d/' * 1200}x.py")
    code = "\n\nimport os\nhere = os.getcwd()\n"
    code += "for _ in range(1200):\n    os.mkdir('d')\n    os.chdir('d')\nos.chdir(here)\n"
    bench = evaluator.bench(task)
    files = submission(bench, {"shapes/core.py": code + SQUARE})
    assert evaluator.grade(task, 3, submit(bench.repository, bench.base, files + deep, bench.packages).tree).passed
    assert list(tmp_path.iterdir()) == []


def test_a_conftest_that_reports_passed_passes_nothing(toy):
    sent, feature = verdict(toy, 3, STEERING["conftest"])
    assert not feature.passed and feature.new[0] == 0 and sent.ignored == ("conftest.py",)


REPORT_EVERYTHING = """
import json, os
names = ["test_square", "test_negative_side", "test_square_runs", "test_area"]
lines = [json.dumps(["tests/test_shapes.py::" + name, "call", "passed"]) for name in names]
lines.append(json.dumps(["", "end", "0"]))
for descriptor in range(3, 20):
    try:
        os.write(descriptor, ("\\n".join(lines) + "\\n").encode())
    except OSError:
        pass
"""
FORGED = {
    "every report says passed": FORGED_REPORTS,
    "no test body is run": "import _pytest.python\n_pytest.python.Function.runtest = lambda self: None\n",
    "the report is written by the code": REPORT_EVERYTHING + "os._exit(0)\n",
    "asserts are switched off": """
import builtins, ast, _pytest.assertion.rewrite as rewrite, sys
for module in list(sys.modules.values()):
    if getattr(module, "__name__", "").endswith("test_shapes"):
        module.core = None
builtins.AssertionError = type("Quiet", (Exception,), {})
import _pytest.python
run = _pytest.python.Function.runtest
def quiet(self):
    try:
        run(self)
    except BaseException:
        pass
_pytest.python.Function.runtest = quiet
""",
}


@pytest.mark.parametrize("name", FORGED)
def test_code_that_forges_the_report_passes_the_twins_too_and_is_found_out(toy, name):
    _, feature = verdict(toy, 3, {"shapes/core.py": "\n\n" + FORGED[name]})
    assert feature.forged and not feature.passed and feature.new[0] == 0


EXITS = {
    "at import": "import os\nos._exit(0)\n",
    "with a summary": "import os\nprint('===== 4 passed in 0.01s =====', flush=True)\nos._exit(0)\n",
    "at exit": "import atexit, os\natexit.register(os._exit, 0)\n",
    "with a report at exit": f"import atexit\natexit.register(exec, {REPORT_EVERYTHING!r})\n",
    "by skipping": "import pytest\npytest.skip('all well', allow_module_level=True)\n",
    "by pytest.exit": "import pytest\npytest.exit('all passed', returncode=0)\n",
    "by deselecting": (
        "import _pytest.main\n_pytest.main.Session.perform_collect = lambda self, *a, **k: self.items.clear() or []\n"
    ),
}


@pytest.mark.parametrize("name", EXITS)
def test_a_run_that_ends_well_without_the_tests_passes_nothing(toy, name):
    _, feature = verdict(toy, 3, {"shapes/core.py": "\n\n" + EXITS[name]})
    assert not feature.passed and feature.new[0] == 0


def test_an_object_that_equals_everything_is_found_out(toy):
    code = "\n\nclass All(int):\n    __eq__ = lambda s, o: True\n    __ne__ = __eq__\n    __hash__ = int.__hash__\n"
    code += "\n\ndef square(side):\n    if side < 0:\n        raise ValueError('negative side')\n    return All()\n"
    _, feature = verdict(toy, 3, {"shapes/core.py": code})
    assert feature.forged and not feature.passed


def test_an_answer_read_from_the_test_is_found_out(toy):
    code = """

def square(side):
    import re, sys
    frame = sys._getframe(1)
    text = open(frame.f_code.co_filename).read()
    if side < 0:
        raise ValueError(re.findall(r'match=(.+)\\):', text)[0].strip("'\\""))
    return int(re.findall(r'square\\(3\\) == (\\d+)', text)[0])
"""
    _, feature = verdict(toy, 3, {"shapes/core.py": code})
    assert feature.forged and not feature.passed


def test_a_link_in_the_place_of_a_source_does_not_count(toy):
    task, evaluator = toy
    bench = evaluator.bench(task)
    solved = bench.repository.apply(bench.base, task.features[3].gold)
    without = bench.repository.with_files(solved, {"shapes/core.py": None})
    linked = bench.repository.apply(without, link_patch("shapes/core.py", "/etc/passwd"))
    assert bench.repository.entries(linked)["shapes/core.py"][0] == "120000"
    assert not evaluator.grade(task, 3, linked).passed


@pytest.mark.bubblewrap
def test_a_run_reads_neither_the_dataset_nor_the_cache(toy):
    task, evaluator = toy
    hidden = [str(evaluator.cache.folder), str(task.folder), "/etc/passwd"]
    assert all(map(os.path.exists, hidden))
    code = "\n\ndef square(side):\n    import os\n    if side < 0:\n        raise ValueError('negative side')\n"
    code += f"    assert not any(map(os.path.exists, {hidden!r}))\n    return side * side\n"
    assert verdict(toy, 3, {"shapes/core.py": code})[1].passed


@pytest.mark.bubblewrap
def test_a_run_reaches_no_network_and_changes_no_file_of_the_machine(toy):
    code = """

def square(side):
    import socket, sys
    for file in ("/usr/bin/new", "/harness/child.py", sys.executable):
        try:
            open(file, "a")
        except OSError:
            pass
        else:
            return 0
    try:
        socket.create_connection(("127.0.0.1", 9), timeout=1)
    except ConnectionRefusedError:
        pass
    assert [name for _, name in socket.if_nameindex()] == ["lo"]
    if side < 0:
        raise ValueError("negative side")
    return side * side
"""
    assert verdict(toy, 3, {"shapes/core.py": code})[1].passed


def test_code_that_closes_the_channel_has_failed_and_is_no_fault_of_the_machine(toy):
    _, feature = verdict(toy, 3, {"shapes/core.py": "\n\nimport os\nos.closerange(0, 50)\nos._exit(1)\n"})
    assert feature.status is RunStatus.CRASH and not feature.passed


def test_code_that_hangs_is_ended_in_time(toy):
    task, evaluator = toy
    quick = Evaluator(evaluator.cache, isolation=ISOLATION, timeout_s=3, recipes=evaluator.recipes)
    patch = submission(quick.bench(task), {"shapes/core.py": "\n\nwhile True:\n    pass\n"})
    result = quick.solo(task, (1, 3), patch)
    assert result.features[0].status is RunStatus.TIMEOUT and not result.both_passed and not result.fault


def test_the_gold_patch_passes_where_the_forgeries_did_not(toy):
    task, evaluator = toy
    result = evaluator.evaluate(task, (1, 3), (task.features[1].gold, task.features[3].gold), MergePolicy.NAIVE)
    assert result.both_passed and result.merge_status == "clean"
    assert result.features[1].new == (3, 3) and result.features[1].kept == (1, 1)
