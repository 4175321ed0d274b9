"""How an expression is taken apart, and what may come back from a process that nobody trusts."""

import contextlib
import doctest
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.sandbox import Part, expressions, run_expressions, same, tiers, verdicts, wire
from envs.sandbox.expressions import take_apart

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text() | st.integers() | st.booleans(), inner)
    ),
    max_leaves=20,
)


def passes(source: str, *expressions: str) -> tuple[bool, ...]:
    return run_expressions((Part("f", source),), expressions).passed


def test_the_child_is_asked_for_calls_and_never_told_what_is_expected():
    question = take_apart("same(f(1), 'hidden') and not g(f(2)) < 7 or f(1) is True and 5 != -3")
    assert question.asked({"f", "g"}, {}) == {"f(1)": "f", "f(2)": "f"}
    assert question.asked({"f", "g"}, {"f(1)": 0, "f(2)": [-5, "a"]}) == {"g([-5, 'a'])": "g"}


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("f(3) == 3 and f(4) == 4", True),
        ("f(3) == 3 and f(4) == 5", False),
        ("f(3) == 5 or f(4) == 4", True),
        ("not f(3) == 4", True),
        ("1 < f(3) <= 3 != 4", True),
        ("1 < f(3) <= 2", False),
        ("f(3) in (1, 3)", True),
        ("f(3) not in [1, 3]", False),
        ("f(None) is None", True),
        ("f(True)", True),
        ("f(1)", False),
        ("f(1) == True", True),
        ("same(f(1), True)", False),
        ("f('a') < 1", False),
        ("f(3) == 3 or missing(1) == 1", True),
        ("missing(1) == 1 or f(3) == 3", False),
        ("not missing(1) == 1", False),
        ("same([f(n) for n in (1, 2)], [1, 2])", True),
        ("same(f('é\\n'), 'é\\n')", True),
        ("same(f(\n 1), 'ab' * 2) or (f(2)\n + 1) == 3", True),
    ],
)
def test_an_expression_means_what_it_means_in_python(expression, value):
    assert passes("def f(x): return x", expression) == (value,)
    space = {"f": lambda x: x, "same": same}
    try:
        assert (eval(expression, space) is True) is value
    except (NameError, TypeError):
        assert not value


@pytest.mark.parametrize(
    "expression", ["all(f(n) == n for n in (1, 2))", "any([same(f(1), 1)])", "(f(1) == 1, True)", "same(f(1))"]
)
def test_a_comparison_that_only_the_child_could_make_is_refused(expression):
    with pytest.raises(ValueError, match="compares inside of a call or a container"):
        passes("def f(x): return x", expression)


def test_text_that_is_no_expression_is_named():
    with pytest.raises(ValueError, match="'f\\(' is no Python expression"):
        passes("", "f(")


@settings(max_examples=50, deadline=None)
@given(PLAIN)
def test_plain_data_comes_back_equal_in_value_and_type(value):
    try:
        text = wire.encode(value)
    except ValueError:
        assert len(repr(value)) > 1000
        return
    assert same(wire.decode(text), value)
    assert text.isascii() and "\n" not in text


def test_numbers_that_json_does_not_know_come_back():
    assert wire.decode(wire.encode(-math.inf)) == -math.inf and math.isnan(wire.decode(wire.encode(math.nan)))
    assert wire.decode(wire.encode((frozenset({1}), {2: {"a"}}))) == (frozenset({1}), {2: {"a"}})


@pytest.mark.parametrize("value", [object(), 1j, int, range(3), type("Sub", (int,), {})(3), {"a": object()}, [len]])
def test_what_is_no_plain_data_cannot_leave(value):
    with pytest.raises(ValueError, match="is not plain data"):
        wire.encode(value)


def test_large_and_deep_and_endless_values_cannot_leave():
    endless = []
    endless.append(endless)
    for value in ("a" * 20_000, endless, 10**5000):
        with pytest.raises(ValueError):
            wire.encode(value)


@settings(max_examples=50, deadline=None)
@given(st.text() | st.recursive(st.none() | st.text(), st.lists).map(lambda tree: wire.json.dumps(tree)))
def test_any_text_is_a_value_or_a_value_error(text):
    with contextlib.suppress(ValueError):
        wire.encode(wire.decode(text))


def test_nan_and_deep_answers_pass_nothing():
    assert passes("def f(): return float('nan')", "f() == f()", "f() != 1") == (False, True)
    deep = "def f():\n  x = []\n  for _ in range(3000): x = [x]\n  return x"
    assert passes(deep, "f() == []", "f() != []") == (False, False)


@pytest.mark.parametrize(("module", "examples"), [(expressions, 2), (tiers, 1), (verdicts, 3), (wire, 1)])
def test_the_examples_in_the_docstrings_hold(module, examples):
    assert doctest.testmod(module) == doctest.TestResults(failed=0, attempted=examples)
