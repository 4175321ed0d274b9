"""What a test asks of submitted code, and what it expects: taken apart, so that the expected value stays here.

`same(decode(encode(5)), 5)` becomes the leaf `decode(encode(5))`, whose value a child process computes, and a
comparison with 5, which the parent makes. The child never learns what it is compared with, and no object of its own
takes part in a comparison.
"""

import ast
import functools
import operator
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

_COMPARISONS = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda x, y: x in y,
    ast.NotIn: lambda x, y: x not in y,
}


def same(x: Any, y: Any) -> bool:
    """Equal value and type, inside containers too; int and float count as one type, keys of a dict have an order.

    >>> same((1, "a"), (1.0, "a")), same(1, True), same([1], (1,)), same({"a": 1, "b": 2}, {"b": 2, "a": 1})
    (True, False, False, False)
    """
    if type(y) in (int, float):
        return type(x) in (int, float) and x == y
    if type(x) is not type(y):
        return False
    if type(y) in (list, tuple):
        return len(x) == len(y) and all(same(a, b) for a, b in zip(x, y, strict=True))
    if type(y) is dict:
        return same(list(x.items()), list(y.items()))
    return type(y) in (str, bytes, bool, type(None)) and x == y


@dataclass(frozen=True, slots=True)
class Leaf:
    """A sub-expression whose value only a child can tell."""

    text: str
    names: frozenset[str]  # that stand in it
    compared: frozenset[str]  # those of them inside of a comparison


@dataclass(frozen=True, slots=True)
class Question:
    """An expression taken apart: `leaves` are asked, everything else is trusted."""

    tree: ast.expr
    leaves: Mapping[ast.expr, Leaf]

    def asked(self, parts: Collection[str]) -> dict[str, frozenset[str]]:
        """The text of each leaf -> which of the parts it uses.

        Raises:
            ValueError: a comparison of something that submitted code made stands inside of a leaf. There the code
                could answer it itself, with an `==` of its own.
        """
        for leaf in self.leaves.values():
            if "same" in leaf.names or leaf.compared & set(parts):
                raise ValueError(
                    f"{leaf.text!r} compares inside of a call or a container, where submitted code can fake the "
                    "answer; compare outside, as same([f(n) for n in (1, 2)], [3, 4]) does."
                )
        return {leaf.text: leaf.names & set(parts) for leaf in self.leaves.values()}

    def answer(self, values: Mapping[str, Any]) -> Any:
        """The expression's value, given those of its leaves by text.

        LookupError where a leaf has none; TypeError where Python has no such comparison.

        >>> take_apart("same(f(1), 2) and f(2) < 9").answer({"f(1)": 2, "f(2)": 3})
        True
        """
        return self._value(self.tree, values)

    def _value(self, node: ast.expr, values: Mapping[str, Any]) -> Any:
        if node in self.leaves:
            return values[self.leaves[node].text]
        operands = _operands(node)
        if operands is None:
            return ast.literal_eval(node)
        if isinstance(node, ast.BoolOp):
            for operand in operands:
                value = self._value(operand, values)
                if bool(value) is isinstance(node.op, ast.Or):
                    break
            return value
        sides = [self._value(operand, values) for operand in operands]
        if isinstance(node, ast.Compare):
            return all(_COMPARISONS[type(op)](x, y) for op, x, y in zip(node.ops, sides, sides[1:], strict=False))
        return same(*sides) if isinstance(node, ast.Call) else not sides[0]


@functools.lru_cache(maxsize=1024)
def take_apart(expression: str) -> Question:
    """Raises ValueError if it is no Python expression."""
    try:
        tree = ast.parse(expression, mode="eval").body
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"{expression!r} is no Python expression: {error}") from None
    plain = expression.isascii() and "\n" not in expression  # then columns are indices
    leaves, open_nodes = {}, [tree]
    while open_nodes:
        node = open_nodes.pop(0)
        operands = _operands(node)
        if operands is not None:
            open_nodes = operands + open_nodes
        elif not _is_literal(node):
            compared = [_names(inner) for inner in ast.walk(node) if isinstance(inner, ast.Compare)]
            text = expression[node.col_offset : node.end_col_offset] if plain else ast.unparse(node)
            leaves[node] = Leaf(text, _names(node), frozenset().union(*compared))
    return Question(tree, leaves)


def _operands(node: ast.expr) -> list[ast.expr] | None:
    """What the parent combines: `and`, `or`, `not`, comparisons, same(x, y). None for everything else, a leaf."""
    if isinstance(node, ast.BoolOp):
        return node.values
    if isinstance(node, ast.Compare):
        return [node.left, *node.comparators]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return [node.operand]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "same":
        return node.args if len(node.args) == 2 and not node.keywords else None
    return None


def _is_literal(node: ast.expr) -> bool:
    try:
        ast.literal_eval(node)
    except (ValueError, TypeError):
        return False
    return True


def _names(node: ast.AST) -> frozenset[str]:
    return frozenset(inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name))
