"""Python's syntax trees, of which one is made at a time."""

import ast
import threading
from typing import Literal, overload

_ONE_AT_A_TIME = threading.RLock()


@overload
def parse(source: str) -> ast.Module: ...
@overload
def parse(source: str, mode: Literal["eval"]) -> ast.Expression: ...
def parse(source: str, mode: Literal["exec", "eval"] = "exec") -> ast.AST:
    """The syntax tree of a source, as `ast.parse` makes it.

    Up to CPython 3.11.7 and 3.12.1 all threads count the depth of their trees in one place (python/cpython#106905): two
    that parse at once, as episodes do that are judged side by side, may end in a SystemError.

    Raises:
        SyntaxError, ValueError, RecursionError, MemoryError: the source is not Python.
    """
    with _ONE_AT_A_TIME:
        return ast.parse(source, mode=mode)
