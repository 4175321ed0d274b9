"""What submitted code can find out about the partner's part and the tests: nothing but the inputs it is given."""

import pytest

from envs.sandbox import Part, Status, forks, run_expressions

SEARCH = """
import gc, inspect, os, sys, traceback

def within(things, needle):
    held, seen = list(things), set()  # what is held keeps its id
    for one in held:
        if id(one) in seen or one is held:
            continue
        seen.add(id(one))
        if isinstance(one, (str, bytes)):
            if one is not needle and needle in (one if isinstance(one, str) else one.decode("latin-1")):
                return "found"
        elif isinstance(one, (dict, list, tuple, set, frozenset)):
            held += [*one, *(one.values() if isinstance(one, dict) else ())]
        elif inspect.isframe(one):
            held += [one.f_locals, one.f_globals, one.f_code, one.f_back]
        elif inspect.iscode(one):
            held += [one.co_consts, one.co_names]
        elif inspect.isfunction(one):
            held += [one.__code__, one.__globals__]
        elif isinstance(getattr(one, "__dict__", None), dict):
            held.append(one.__dict__)
        if len(held) > 300000:
            break
    return "nothing"

def raised():
    try:
        raise KeyError
    except KeyError as error:
        return error.__traceback__.tb_frame

def read(path):
    try:
        with open(path, "rb") as file:
            return file.read(10**6)
    except OSError:
        return b""

def received(descriptor):
    try:
        return os.read(descriptor, 10**6)
    except OSError:
        return b""

def f(backwards, *_):
    needle = backwards[::-1]
    return within(LOOK, needle)
"""
WAYS = {
    "frames": "[sys._getframe()]",
    "a traceback": "[raised()]",
    "inspect": "[inspect.currentframe()]",
    "the collector": "[*gc.get_objects(), *(o for one in gc.get_objects() for o in gc.get_referents(one))]",
    "the modules": "[*sys.modules.values()]",
    "the main module": "[sys.modules['__main__'], __import__('__main__')]",
    "descriptors": "[received(descriptor) for descriptor in range(64)]",
    "files of the process": "[read(f'/proc/{who}/{what}') for who in ('self', os.getppid(), 'thread-self') "
    "for what in ('cmdline', 'environ', 'mem', 'fd/0', 'fd/4', 'maps')]",
    "the main frame's own names": "[sys._getframe(i).f_locals for i in range(3)]",
}


def spy(way: str) -> Part:
    return Part("f", SEARCH.replace("LOOK", WAYS[way]))


@pytest.mark.parametrize("way", WAYS)
def test_nothing_of_the_partner_or_of_what_is_expected_is_in_reach(way):
    """Every text of the partner's source, tests and values, and every expected value, has the needle."""
    partner = Part("g", "# plugh-source\ndef g(x): return 'plugh-value'")
    tests = (
        "same(g('plugh-input'), 'plugh-value') and f('hgulp') != 'plugh-expected'",
        "same(f('hgulp'), 'nothing')",
        "same(g(f('hgulp')), 'plugh-value')",
    )
    for parts in ((spy(way), partner), (partner, spy(way))):
        verdict = run_expressions(parts, tests, timeout_s=20)
        assert verdict.status is Status.OK and verdict.passed == (True, True, True)


@pytest.mark.parametrize("way", WAYS)
def test_what_was_run_before_is_not_in_reach(way):
    earlier = Part("g", "def g(x): return 'plugh-answer'  # plugh-source")
    assert run_expressions((earlier,), (f"same(g('plugh-input {way[:3]}'), 'plugh-answer')",)).passed == (True,)
    assert run_expressions((spy(way),), (f"f('hgulp', {way!r}) == 'nothing'",), timeout_s=20).passed == (True,)


@pytest.mark.parametrize("way", ["frames", "a traceback", "inspect"])
def test_the_search_does_find_what_is_there(way):
    assert run_expressions((spy(way),), ("f('hgulp', 'plugh') == 'found'",), timeout_s=20).passed == (True,)
    own = Part("f", "# plugh\n" + spy(way).source)
    assert run_expressions((own,), ("f('hgulp') == 'found'",), timeout_s=20).passed == (True,)


def test_a_value_is_handed_over_without_what_made_it():
    """The second part may know what it is given, and gets it in a process in which the first one never was."""
    maker = Part("f", "import sys\nsys.made = 'here'\ndef f(n): return [n, {'a': (1.5, None, b'x', -2)}]")
    taker = Part("g", "import sys\ndef g(x): return x, hasattr(sys, 'made')")
    expected = "([7, {'a': (1.5, None, b'x', -2)}], False)"
    assert (
        run_expressions((maker, taker), (f"same(g(f(7)), {expected})", f"g(f(7)) == {expected}")).passed == (True,) * 2
    )


@pytest.mark.parametrize(
    "value",
    ["float('inf')", "-float('inf')", "-0.0", "{1, 2}", "set()", "frozenset()", "{}", "()", "(1,)", "'\\ud800'"],
)
def test_every_plain_value_is_handed_over_as_it_is(value):
    maker, taker = Part("f", f"def f(): return {value}"), Part("g", "def g(x): return type(x).__name__ + repr(x)")
    expected = eval(f"type({value}).__name__ + repr({value})")
    assert run_expressions((maker, taker), (f"g(f()) == {expected!r}",)).passed == (True,)


def test_what_is_no_plain_value_is_not_handed_over():
    deep = "def f():\n  x = []\n  for _ in range(400): x = [x]\n  return x"
    for source in ("def f(): return object()", "def f(): return f", "def f(): raise KeyError", deep):
        parts = Part("f", source), Part("g", "def g(x): return 1")
        assert run_expressions(parts, ("g(f()) == 1", "g(0) == 1")).passed == (False, True)


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("g(f) == 1", "hands a part itself to another part"),
        ("[g(f(n)) for n in (1, 2)] == [1, 2]", "uses several parts where names are bound"),
        ("(lambda x: g(f(x)))(1) == 1", "uses several parts where names are bound"),
    ],
)
def test_what_no_value_can_carry_from_part_to_part_is_refused(expression, why):
    with pytest.raises(ValueError, match=why):
        run_expressions((Part("f", ""), Part("g", "")), (expression,))


def test_long_chains_and_sums_of_several_parts_are_worked_out():
    parts = Part("f", "def f(x): return x + 1"), Part("g", "def g(x, y=0): return 10 * x + y")
    chains = ("f(g(f(g(1)))) == 111 + 1", "g(f(1), y=f(2)) == 23", "f(1) + g(1) == 12", "g(*[f(1), f(2)]) == 23")
    assert run_expressions(parts, chains).passed == (False, True, True, True)
    assert run_expressions(parts, ("f(g(f(g(1)))) == 111",)).passed == (True,)


def test_no_child_holds_what_the_server_hears_of_another_however_many_there_are():
    look = "import os\ndef f():\n  found = []\n  for fd in range(999):\n    try: os.write(fd, b''); found.append(fd)\n"
    look += "    except OSError: pass\n  return found"
    replies = forks.ask([forks.Body(("f", look), ("f()",))] * 40, timeout_s=20, memory_mb=256)
    assert {reply.written for reply in replies} == {b'["list", 0, 1, 2, 3]\ndone'}
