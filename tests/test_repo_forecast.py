"""What a forecast says of two branches: lines that meet, names on which both rely, signatures that disagree."""

import pytest

from envs.repository.forecast import describe, forecast
from envs.source.outline import outline

CODE = {"m.py": "def f(x, size=2):\n    return x\n\n\ndef g(x):\n    return x\n\n\nLIMIT = 3\n"}


def told(first, second):
    return forecast(0, CODE, {"m.py": first}, {"m.py": second})


def test_a_forecast_names_the_lines_of_the_base_on_which_changes_meet():
    base = CODE["m.py"]
    met = told(base.replace("return x", "return 1", 1), base.replace("return x", "return 2", 1))
    assert met.conflict and met.ranges == {"m.py": ((2, 2),)} and met.symbols == ("m.py:f",)
    assert describe(met) == "Merge forecast: conflict in m.py lines 2-2; both rely on m.py:f."
    apart = told(base.replace("size=2", "size=3"), base.replace("LIMIT = 3", "LIMIT = 4"))
    assert not apart.conflict and describe(apart) == "Merge forecast: clean."


def test_two_insertions_at_one_place_meet_there():
    base = CODE["m.py"]
    met = told(base + "a = 1\n", base + "b = 1\n")
    assert met.conflict and list(met.ranges["m.py"]) == [(10, 10)]


def test_a_forecast_tells_of_a_clean_merge_what_one_side_changes_and_the_other_builds_on():
    base = CODE["m.py"]
    changes = base.replace("size=2", "size=3")
    builds = base.replace("LIMIT = 3", "LIMIT = f(3)")
    told_of = told(changes, builds)
    assert not told_of.conflict and told_of.symbols == told_of.signatures == ("m.py:f",)
    assert told(builds, changes).symbols == ("m.py:f",)
    body = base.replace("return x", "return -x", 1)
    assert told(body, builds).symbols == ("m.py:f",) and told(body, builds).signatures == ()
    assert "signatures disagree: m.py:f" in describe(told_of)


def test_a_signature_that_both_change_alike_does_not_disagree():
    both = CODE["m.py"].replace("size=2", "size=2, mode=1")
    assert told(both, both).signatures == () and told(both, both).symbols == ("m.py:f",)


@pytest.mark.parametrize("text", ["def f(:", "\ufeff", "x" * 50_000, "(" * 500, "f(" * 90 + ")" * 90, ""])
def test_a_forecast_takes_any_text_for_a_file(text):
    assert told(text, CODE["m.py"] + "y = 1\n").round == 0
    assert told(CODE["m.py"] + "y = 1\n", text).round == 0


# methods, imports, callers

CART = """class Cart(Base):
    limit = 3

    def add(self, item, count=1):
        self.items.append(item)

    def drop(self, item):
        self.items.remove(item)

    def total(self):
        return self.summed(self.items)

    class Line:
        def price(self):
            return 1
"""
TREE = {"p/cart.py": CART, "p/use.py": "from p.cart import Cart\n\n\ndef free(x):\n    return x\n"}


def edit(old, new, path="p/cart.py", tree=TREE):
    """A branch of a tree: one text in the place of another."""
    assert tree[path].count(old) == 1
    return tree | {path: tree[path].replace(old, new)}


def use(code, head="from p.cart import Cart"):
    """A branch that adds code to a module of its own."""
    return TREE | {"p/use.py": f"{head}\n\n\ndef free(x):\n    {code}\n"}


def shared(first, second, tree=TREE):
    told_of, other_way = forecast(0, tree, first, second), forecast(0, tree, second, first)
    assert (told_of.symbols, told_of.signatures) == (other_way.symbols, other_way.signatures)
    return told_of.symbols, told_of.signatures


def test_a_method_that_both_change_is_named_and_so_are_two_signatures_of_it():
    one, other = edit("count=1", "count=1, gift=False"), edit("count=1", "count=1, tax=0")
    assert shared(one, other) == (("p/cart.py:Cart.add",),) * 2
    assert shared(edit(".append(item)", ".insert(0, item)"), edit(".append(item)", ".add(item)")) == (
        ("p/cart.py:Cart.add",),
        (),
    )
    assert shared(edit("price(self)", "price(self, a)"), edit("price(self)", "price(self, b)"))[1] == (
        "p/cart.py:Cart.Line.price",
    )


def test_changes_of_two_methods_of_one_class_have_nothing_in_common():
    assert shared(edit("count=1", "count=2"), edit(".remove(item)", ".discard(item)")) == ((), ())
    assert shared(edit("limit = 3", "limit = 4"), edit("(Base)", "(Base, Other)")) == ((), ())


@pytest.mark.parametrize(
    ("second", "relied_on"),
    [
        (use("Cart.add(x, 1)"), True),
        (use("x.add(1)"), True),  # any object may be a cart
        (use("C.add(x, 1)", "from p.cart import Cart as C"), True),
        (use("c.Cart.add(x, 1)", "import p.cart as c"), True),
        (use("p.cart.Cart.add(x, 1)", "import p.cart"), True),
        (use("Cart.add(x, 1)", "from p import Cart"), True),  # by way of the package
        (use("cart.Cart.add(x, 1)", "from . import cart"), True),
        (edit(".remove(item)", ".remove(item) or self.add(item)"), True),
        (use("Cart.drop(x, 1)"), False),
        (use("x.add = x.add or 1"), False),  # a value of some object, and not called
        (use("add(x, 1)"), False),  # a name of nobody's
        (use("np.add(x, 1)", "import numpy as np"), False),
        (use("cart.add(x, 1)", "from p import cart"), False),  # a function of the module, which has none
    ],
)
def test_a_changed_method_is_relied_on_by_who_may_call_it(second, relied_on):
    assert shared(edit(", count=1", ""), second)[0] == (("p/cart.py:Cart.add",) if relied_on else ())


def test_a_function_is_relied_on_under_the_name_it_is_imported_by():
    base = {"p/a.py": "def f(x):\n    return x\n", "p/b.py": "y = 1\n"}
    changes = edit("(x)", "(x, z)", "p/a.py", base)
    for line in ("from p.a import f as ff\ny = ff(1)\n", "def g():\n    from p.a import f as ff\n    return ff(1)\n"):
        assert shared(changes, base | {"p/b.py": line}, base) == (("p/a.py:f",),) * 2
    assert shared(changes, base | {"p/b.py": "from q.a import f\ny = f(1)\n"}, base) == ((), ())
    assert shared(changes, base | {"p/b.py": "def f(x): return x\ny = f(1)\n"}, base) == ((), ())


def test_a_call_on_some_object_is_of_a_method_and_one_on_self_of_the_own_class():
    base = {
        "a.py": "def f():\n    return 1\n\n\nclass A:\n    def g(self):\n        return 1\n",
        "b.py": "class B:\n    def g(self):\n        return 2\n",
    }
    assert shared(edit("def f()", "def f(z)", "a.py", base), base | {"b.py": "y = x.f()\n"}, base) == ((), ())
    calls = base | {"b.py": f"{base['b.py']}\n    def h(self):\n        return self.g()\n"}
    assert shared(edit("g(self)", "g(self, z)", "a.py", base), calls, base) == ((), ())


def test_who_calls_a_class_relies_on_how_it_is_made():
    base = {"a.py": "class A:\n    def __init__(self, x):\n        self.x = x\n", "b.py": "y = 1\n"}
    changes = edit("(self, x)", "(self, x, z)", "a.py", base)
    for line in ("y = A(1)\n", "class B(A):\n    pass\n"):
        assert shared(changes, base | {"b.py": f"from a import A\n{line}"}, base) == (("a.py:A.__init__",),) * 2
    assert shared(changes, base | {"b.py": "from a import A\ny: A\nz = super().__init__(1)\n"}, base) == ((), ())


def test_an_untouched_caller_hands_on_what_it_relies_on():
    base = {
        "a.py": "def f(x):\n    return x\n",
        "b.py": "from a import f as ff\n\n\nclass B:\n    def g(self):\n        return ff(1)\n",
        "c.py": "z = 1\n",
    }
    changes = edit("return x", "return -x", "a.py", base)
    calls = base | {"c.py": "def h(b):\n    return b.g()\n"}
    assert shared(changes, calls, base) == (("a.py:f",), ())
    assert shared(changes, base | {"c.py": "def h(b):\n    return b.k()\n"}, base) == ((), ())
    assert shared(changes, edit("ff(1)", "2", "b.py", calls), base) == ((), ())  # the caller calls it no more
    unknown = edit("ff(1)", "x.f(1)", "b.py", base)  # of two guesses nothing is made
    method = unknown | {"a.py": "class A:\n    def f(self, x):\n        return x\n"}
    assert shared(edit("return x", "return -x", "a.py", method), method | {"c.py": calls["c.py"]}, method) == ((), ())


def test_a_decorator_and_every_definition_of_a_name_count_as_the_definition():
    getter = "class C:\n    @property\n    def x(self):\n        return 1\n\n"
    base = {"a.py": f"{getter}    @x.setter\n    def x(self, y):\n        pass\n"}
    assert shared(edit("@property", "@cached", "a.py", base), edit("pass", "print(y)", "a.py", base), base) == (
        ("a.py:C.x",),
        (),
    )


def test_a_name_that_one_side_alone_has_made_is_told_to_nobody():
    """Not even where the other side has guessed it: a forecast repeats no word of one seat."""
    base = {"a.py": "def f(x):\n    return x\n", "b.py": "def g():\n    return 1\n"}
    first = base | {"a.py": "def says_17(x):\n    return x\n\n\ndef f(x, y):\n    return says_17(x)\n"}
    second = base | {"b.py": "from a import f, says_17\n\n\ndef g():\n    return f(says_17)\n"}
    assert shared(first, second, base) == (("a.py:f",), ("a.py:f",))
    assert "says_17" not in describe(forecast(0, base, first, second))


def test_imports_that_both_add_are_no_symbols():
    base = {"a.py": "x = 1\n\n\ny = 2\n"}
    assert shared(
        base | {"a.py": f"import os\n{base['a.py']}"}, base | {"a.py": f"{base['a.py']}import os\n"}, base
    ) == (
        (),
        (),
    )


@pytest.mark.parametrize(
    "text", ["class A: pass", "class A: x = y = 1; z: int", "(a, b), *c = d", "def f(x=(" + "(" * 80]
)
def test_an_outline_takes_any_text(text):
    assert all(found.text in text for found in outline("a.py", text).values())
