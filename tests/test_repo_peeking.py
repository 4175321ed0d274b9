"""What code in a tree can find out about the tests of the tree, and what it gains by breaking them: nothing."""

import pytest
from test_sandbox_peeking import SEARCH, WAYS

from envs.core.env import SEATS
from envs.paired_features.env import PairedFeatures
from envs.repository.tree_tests import judge
from envs.sandbox import Status

A, B = SEATS
OTHERS = 'tree("p.b").g("plugh-input")'


def spied(way):
    """A tree in which the code of one feature searches its process, wherever the other's is imported too."""
    return {
        "p/a.py": SEARCH.replace("LOOK", WAYS[way]),
        "p/b.py": "from p import a\ndef g(x): return x[:5] + '-value'",
    }


@pytest.mark.parametrize("way", WAYS)
def test_nothing_of_the_tests_but_the_own_inputs_is_in_reach_of_a_feature(way):
    """Every input, value and expected value of the other feature's tests has the needle, and so do the visible ones."""
    tests = {
        'same(tree("p.a").f("hgulp"), "nothing")': A,
        'tree("p.a").f("hgulp") != "plugh-expected"': A,
        f'same({OTHERS}, "plugh-value")': B,
        f'{OTHERS} != "plugh"': "",
    }
    verdict = judge(spied(way), tuple(tests), tuple(tests.values()), timeout_s=20)
    assert verdict.status is Status.OK and verdict.passed == (True,) * 4


def test_what_is_asked_of_one_part_is_in_reach_of_its_tests_so_the_search_does_find():
    tests = ('same(tree("p.a").f("hgulp"), "found")', f'same({OTHERS}, "plugh-value")')
    assert judge(spied("frames"), tests, (A, A), timeout_s=20).passed == (True, True)
    assert judge(spied("frames"), tests, (A, B), timeout_s=20).passed == (False, True)


def test_a_feature_that_was_called_leaves_nothing_to_the_tests_of_the_other():
    left = {"p/a.py": "import sys\ndef f(x): sys.left = x; return x\ndef g(): return getattr(sys, 'left', None)"}
    tests = ('same(tree("p.a").f(7), 7)', 'same(tree("p.a").g(), None)')
    assert judge(left, tests, (A, B), timeout_s=20).passed == (True, True)
    assert judge(left, tests, timeout_s=20).passed == (True, False)


STEERING = ("sitecustomize.py", "usercustomize.py", "conftest.py", "json.py", "wire.py", "builtins.py", "__main__.py")


@pytest.mark.parametrize("path", STEERING)
def test_a_file_that_elsewhere_steers_python_steers_nothing(path):
    files = {path: "raise SystemExit\ndef dumps(*_): return 'true'\nencode = dumps", "a.py": "def f(x): return x"}
    assert judge(files, ('same(tree("a").f(1), 1)', 'same(tree("a").f(1), 2)'), timeout_s=20).passed == (True, False)


WRONG = "class Any(int):\n  __eq__ = __le__ = __ge__ = lambda *_: True\n  __ne__ = lambda *_: False\n"
HOSTILE = {  # code before a function that gives back what it is given, which is right under no option
    "a value that equals everything": f"{WRONG}  __hash__ = int.__hash__\ndef _give(x): return Any(0)",
    "leaving": "import os\ndef _give(x): os._exit(0)",
    "leaving at once": "import os; os._exit(0)\ndef _give(x): return x",
    "raising SystemExit": "def _give(x): raise SystemExit(0)",
    "a handler at exit": (
        "import atexit, os\natexit.register(lambda: os.write(3, b'true\\ndone'))\ndef _give(x): raise SystemExit"
    ),
    "writing the answers": "import os\nos.write(3, b'true\\n' * 99 + b'done'); os._exit(0)\ndef _give(x): return x",
    "the comparison of the process": (
        "import builtins, operator\nbuiltins.same = operator.eq = lambda *_: True\ndef _give(x): return x"
    ),
    "the encoder of the process": (
        "import __main__\n__main__.wire.encode = lambda value: 'true'\n__main__.run = print\ndef _give(x): return x"
    ),
    "the import system": (
        "import sys\nclass Hook:\n  def find_spec(self, *_): raise SystemExit\nsys.meta_path.insert(0, Hook())\n"
        "def _give(x): return x"
    ),
    "frames": (
        "import sys\ndef _give(x):\n  frame = sys._getframe()\n  while frame:\n"
        "    found = [t for v in frame.f_locals.values() if isinstance(v, (tuple, list, str)) for t in [str(v)]]\n"
        "    for text in found:\n      if 'same(' in text: return eval(text.split(', ')[1].split(')')[0])\n"
        "    frame = frame.f_back\n  return x"
    ),
    "the caller's results": (
        "import gc\ndef _give(x):\n  for one in gc.get_objects():\n    if type(one) is list: one.append(b'true')\n"
        "  return x"
    ),
    "files of the process": (
        "def _give(x):\n  try: return open('/proc/self/environ').read()\n  except OSError: return x"
    ),
    "the environment": "import os\ndef _give(x): return os.environ.get('MARL_COOP_SECRET', x)",
}


@pytest.mark.parametrize("code", HOSTILE)
def test_a_hostile_feature_passes_none_of_its_tests_and_takes_none_of_the_partners(code, monkeypatch):
    monkeypatch.setenv("MARL_COOP_SECRET", "17")
    env = PairedFeatures(families=["registry"], contracts=["offset"], rounds=1)
    env.reset(seed=4)
    (decision,) = env.task.decisions
    env.step(dict.fromkeys(SEATS, f"Answer: {decision.best}"))
    name = env.task.stubs[A]
    honest = {seat: env.reference_work(seat, decision.best) for seat in SEATS}
    head = f"def {name}(n):"
    assert head in honest[A]
    body = honest[A].split(head)[1].split("\n")[0]
    hostile = honest[A].replace(head + body, f"{HOSTILE[code]}\n{head} return _give(n)")
    env.step({A: f"{hostile}\nSubmit", B: f"{honest[B]}\nSubmit"})
    assert env.branch(A) != env.task.files and env.branch(B) != env.task.files
    env.step(dict.fromkeys(SEATS, f"Answer: {decision.best}"))
    outcome = env.episode.outcome
    assert not outcome.success and outcome.committed[A][decision.id] != decision.best
    assert not any(outcome.parts[A].merged[:2]) and not any(outcome.parts[A].alone[:2])
    assert all(outcome.parts[B].alone[:2])


@pytest.mark.parametrize("path", STEERING)
def test_a_seat_adds_no_file(path):
    env = PairedFeatures(rounds=1)
    env.reset(seed=4)
    env.step(dict.fromkeys(SEATS, "Pass"))
    env.step({A: f"Insert {path} after: x\nraise SystemExit\nEnd", B: "Submit"})
    assert env.branch(A) == env.task.files
