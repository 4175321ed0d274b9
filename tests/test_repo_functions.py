"""The edit `Function`: which definition it takes the place of, and what it keeps of the text that it puts there."""

import pytest

from envs.repository.actions import Function
from envs.repository.working_copy import edited

CLASS = "class C:\n    def size(self):\n        return 1\n"
TWICE = """\
class C:
    @property
    def x(self):
        return 1

    @x.setter
    def x(self, value):
        pass
"""


def test_a_name_that_is_defined_twice_is_replaced_where_its_decorators_tell_which():
    setter = Function("a.py", "C.x", "@x.setter\ndef x(self, value):\n    self.y = value")
    assert edited({"a.py": TWICE}, setter)["a.py"] == TWICE.replace("pass", "self.y = value")
    for text in ("def x(self):\n    return 2", "@cached\ndef x(self):\n    return 2", "@property\ndef x(self:"):
        refused = edited({"a.py": TWICE}, Function("a.py", "C.x", text))
        assert refused == "a.py has 2 definitions of C.x; use Replace."
    overloads = "@overload\ndef f(x: int): ...\n@overload\ndef f(x: str): ...\ndef f(x):\n    return x\n"
    assert edited({"a.py": overloads}, Function("a.py", "f", "def f(x):\n    return 2"))["a.py"] == overloads.replace(
        "return x", "return 2"
    )
    assert "3 definitions of f" in edited({"a.py": overloads}, Function("a.py", "f", "@overload\ndef f(x: float): ..."))


@pytest.mark.parametrize("depth", ["", "  ", "        "])
@pytest.mark.parametrize("quoted", ['"""a\n  b\n\nc\n      """', "'a\\\nb'", 'f"""a\n  {1}\n b"""'])
def test_what_is_in_a_string_of_several_lines_stays_when_its_function_moves(depth, quoted):
    text = f"{depth}def size(self):\n{depth}    text = {quoted}\n\n{depth}    return text"
    new = edited({"a.py": CLASS}, Function("a.py", "C.size", text))["a.py"]
    assert new == f"class C:\n    def size(self):\n        text = {quoted}\n\n        return text\n"
