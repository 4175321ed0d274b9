"""Twins of tests: honest code cannot pass both."""

import ast
import doctest
import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.cooperbench import grading, mutants, submission, tasks
from envs.cooperbench.mutants import Kind, rewrite, twins_of
from envs.scripted import cooperbench

CASES = {  # f gives its argument back, g raises ValueError of it
    "assert f(4) == 4": "literal flip floor",
    "assert [f(1), 'x'] == [1, 'x']": "literal literal flip floor",
    "assert f(-3) == -3": "literal flip floor",
    "assert f(2) != 5": "flip floor",
    "assert 3 in (f(3), 4)": "flip floor",
    "assert f(3) not in (4,)": "flip floor",
    "assert f(None) is None": "flip floor",
    "assert f(1) is not None": "flip floor",
    "assert 1 <= f(2) < 3": "flip floor",
    "assert f(1)": "flip floor",
    "assert not f(0)": "flip floor",
    "assert (f(1)\n        == 1), 'why'": "literal flip floor",
    "assert f('é') == 'é', f'{f(1)}'": "literal flip floor",
    "with raises(ValueError, match='b.d'):\n        g('bad')": "literal flip floor",
    "assert_same(f(1), 1)": "flip floor",
    "f(1)": "floor",
    "for n in range(3):\n        assert f(n) == n": "flip floor",
}


class raises:
    """As much of `pytest.raises` as a test needs."""

    def __init__(self, kind, call=None, match=""):
        self.kind, self.match = kind, match
        if call is not None:
            with self:
                call()

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        assert kind is not None and issubclass(kind, self.kind) and re.search(self.match, str(error))
        return True


def passes(source):
    def g(text):
        raise ValueError(text)

    def assert_same(x, y):
        assert x == y

    space = {"f": lambda n: n, "g": g, "raises": raises, "assert_same": assert_same}
    exec(compile(source, "test", "exec"), space)
    try:
        space["test_it"]()
    except (AssertionError, ValueError, pytest.fail.Exception):
        return False
    return True


@pytest.mark.parametrize("body", CASES)
def test_the_kinds_of_twins_of_an_assertion(body):
    source = f"def test_it():\n    {body}\n"
    found = twins_of(source, random.Random(0))["test_it"]
    assert [twin.kind.value for twin in found] == CASES[body].split()
    for twin in found:
        ast.parse(rewrite(source, {"test_it": twin.edits}))


@pytest.mark.parametrize("body", CASES)
def test_the_test_passes_and_each_twin_of_it_fails(body):
    source = f"def test_it():\n    {body}\n"
    assert passes(source)
    for twin in twins_of(source, random.Random(1))["test_it"]:
        changed = rewrite(source, {"test_it": twin.edits})
        assert not passes(changed), changed


def test_functions_of_one_name_are_changed_together_and_others_left_alone():
    method = "class {}:\n    def test_x(self):\n        assert 1 == 1\n"
    source = method.format("A") + method.format("B") + "def helper():\n    assert 1 == 1\n"
    found = twins_of(source, random.Random(0))
    assert list(found) == ["test_x"] and [twin.kind for twin in found["test_x"]] == [Kind.FLIP, Kind.FLOOR]
    assert rewrite(source, {"test_x": found["test_x"][0].edits}).count("!=") == 2


VALUES = st.one_of(st.integers(), st.floats(-1e9, 1e9), st.text(min_size=1), st.binary(min_size=1))


@given(VALUES, st.integers())
def test_another_value_is_of_the_same_type_and_differs(value, seed):
    other = mutants.other_value(value, random.Random(seed))
    assert type(other) is type(value) and other != value


@pytest.mark.parametrize("module", [cooperbench, mutants, grading, tasks, submission])
def test_examples_in_docstrings_are_true(module):
    result = doctest.testmod(module)
    assert result.failed == 0 and result.attempted
