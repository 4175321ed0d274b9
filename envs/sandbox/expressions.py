"""What a test asks of submitted code, and what it expects: taken apart, so that the expected value stays here.

`same(decode(54), 17)` becomes the leaf `decode(54)`, whose value a child process computes, and a comparison with 17,
which the parent makes. The child never learns what it is compared with, and no object of its own takes part in a
comparison. A leaf on two parts is computed step by step, as each child has one part only: of `decode(encode(5))` one
child computes `encode(5)`, say 42, and another one `decode(42)`.
"""

import ast
import contextlib
import copy
import functools
import operator
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from envs.core.syntax import parse

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


class NoValue:
    """In the place of a value: a child raised an exception, or made something that is no plain data."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """A sub-expression whose value only children can tell."""

    node: ast.expr
    text: str
    names: frozenset[str]  # that stand in it
    compared: frozenset[str]  # those of them inside of a comparison


@dataclass(frozen=True, slots=True)
class Question:
    """An expression taken apart: `leaves` are asked, everything else is trusted."""

    tree: ast.expr
    leaves: Mapping[ast.expr, Leaf]

    def asked(self, parts: Collection[str], values: Mapping[str, Any]) -> dict[str, str | None]:
        """What to ask next: the text of an expression -> the part that it uses, None where it uses none.

        Args:
            parts: the names of all parts.
            values: what was asked so far, by text; `NoValue` where there was none. One that is nested too deeply to be
                written down is asked no further.

        Raises:
            ValueError: a comparison of something that submitted code made stands inside of a leaf, where the code
                could answer it itself, with an `==` of its own; or no values can carry what one part does to another.
        """
        for leaf in self.leaves.values():
            if "same" in leaf.names or leaf.compared & set(parts):
                raise ValueError(
                    f"{leaf.text!r} compares inside of a call or a container, where submitted code can fake the "
                    "answer; compare outside, as same([f(n) for n in (1, 2)], [3, 4]) does."
                )
        wanted: dict[str, str | None] = {}
        for leaf in self.leaves.values():
            with contextlib.suppress(RecursionError):
                steps = _next_steps(leaf, frozenset(parts), values)
                wanted |= {text: next(iter(used), None) for text, used in steps.items() if text not in values}
        return wanted

    def answer(self, parts: Collection[str], values: Mapping[str, Any]) -> Any:
        """The expression's value, given all that was asked.

        LookupError where a leaf has none; TypeError where Python has no such comparison.

        >>> take_apart("same(f(1), 2) and g(f(2)) < 9").answer({"f", "g"}, {"f(1)": 2, "f(2)": 3, "g(3)": 8})
        True
        """
        return self._value(self.tree, frozenset(parts), values)

    def _value(self, node: ast.expr, parts: frozenset[str], values: Mapping[str, Any]) -> Any:
        if node in self.leaves:
            found = [values[text] for text in _next_steps(self.leaves[node], parts, values)]
            if NoValue in found:
                raise LookupError(self.leaves[node].text)
            return found[0]
        operands = _operands(node)
        if operands is None:
            return ast.literal_eval(node)
        if isinstance(node, ast.BoolOp):
            value: Any = None
            for operand in operands:
                value = self._value(operand, parts, values)
                if bool(value) is isinstance(node.op, ast.Or):
                    break
            return value
        sides = [self._value(operand, parts, values) for operand in operands]
        if isinstance(node, ast.Compare):
            return all(_COMPARISONS[type(op)](x, y) for op, x, y in zip(node.ops, sides, sides[1:], strict=False))
        if isinstance(node, ast.Tuple | ast.List):
            return tuple(sides) if isinstance(node, ast.Tuple) else sides
        return same(*sides) if isinstance(node, ast.Call) else not sides[0]


@functools.lru_cache(maxsize=1024)
def take_apart(expression: str) -> Question:
    """Raises ValueError if it is no Python expression."""
    try:
        tree = parse(expression, mode="eval").body
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"{expression!r} is no Python expression: {error}") from None
    plain = expression.isascii() and "\n" not in expression  # then columns are indices
    leaves, open_nodes = {}, [(tree, True)]
    while open_nodes:
        node, comparable = open_nodes.pop(0)
        operands = _operands(node) if comparable or isinstance(node, ast.Tuple | ast.List) else None
        if operands is not None:
            comparable = comparable and not isinstance(node, ast.Tuple | ast.List)
            open_nodes = [(operand, comparable) for operand in operands] + open_nodes
        elif not _is_literal(node):
            compared = [_names(inner) for inner in ast.walk(node) if isinstance(inner, ast.Compare)]
            text = expression[node.col_offset : node.end_col_offset] if plain else ast.unparse(node)
            leaves[node] = Leaf(node, text, _names(node), frozenset().union(*compared))
    return Question(tree, leaves)


def _operands(node: ast.expr) -> list[ast.expr] | None:
    """What the parent combines: `and`, `or`, `not`, comparisons, same(x, y), tuples, lists. None for all else, a leaf.

    Inside of a tuple or a list it compares nothing: a value there is one that a child computed.
    """
    if isinstance(node, ast.BoolOp):
        return node.values
    if isinstance(node, ast.Compare):
        return [node.left, *node.comparators]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return [node.operand]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "same":
        return node.args if len(node.args) == 2 and not node.keywords else None
    if isinstance(node, ast.Tuple | ast.List) and not any(isinstance(item, ast.Starred) for item in node.elts):
        return node.elts
    return None


def _is_literal(node: ast.expr) -> bool:
    try:
        ast.literal_eval(node)
    except (ValueError, TypeError):
        return False
    return True


def _names(node: ast.AST) -> frozenset[str]:
    return frozenset(inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name))


# a leaf on several parts


_BINDING = (ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.NamedExpr)


def _next_steps(leaf: Leaf, parts: frozenset[str], values: Mapping[str, Any]) -> dict[str, frozenset[str]]:
    """The expressions on at most one part, with that part, that the leaf waits for; its own rest once it has them all.

    Values that are known stand in their places: with encode(5) = 42 there is `decode(42)` in `decode(encode(5))`.
    """
    if len(leaf.names & parts) <= 1:
        return {leaf.text: leaf.names & parts}
    rest = ast.Expression(copy.deepcopy(leaf.node))
    while len(used := _names(rest) & parts) > 1:
        steps = {inner: ast.unparse(inner) for inner in _on_one_part(rest, parts)}
        if not steps:
            raise ValueError(
                f"{leaf.text!r} hands a part itself to another part; only plain values can be handed over."
            )
        if any(values.get(text, NoValue) is NoValue for text in steps.values()):
            return {text: _names(inner) & parts for inner, text in steps.items()}
        rest = _Replace({inner: _literal(values[text]) for inner, text in steps.items()}).visit(rest)
    return {ast.unparse(rest): used}


def _on_one_part(node: ast.AST, parts: frozenset[str]) -> Iterator[ast.expr]:
    """The largest sub-expressions with a value that use exactly one part, in a node that uses several."""
    if isinstance(node, _BINDING):
        raise ValueError(f"{ast.unparse(node)!r} uses several parts where names are bound; write the cases one by one.")
    for child in ast.iter_child_nodes(node):
        used = len(_names(child) & parts)
        called = isinstance(node, ast.Call) and child is node.func
        if used > 1 or used and isinstance(child, ast.Starred | ast.Slice | ast.keyword):
            yield from _on_one_part(child, parts)
        elif used and not called and isinstance(child, ast.expr) and not isinstance(child, ast.Name):
            yield child


class _Replace(ast.NodeTransformer):
    def __init__(self, new: Mapping[ast.AST, ast.expr]):
        self.new = new

    def visit(self, node: ast.AST) -> ast.AST:
        return self.new[node] if node in self.new else self.generic_visit(node)


def _literal(value: Any) -> ast.expr:
    """An expression of plain data; `ast.unparse` knows how to write infinities and what is not a number."""
    if type(value) is tuple:
        return ast.Tuple([_literal(item) for item in value], ast.Load())
    if type(value) is list:
        return ast.List([_literal(item) for item in value], ast.Load())
    if type(value) is dict:
        return ast.Dict([_literal(key) for key in value], [_literal(item) for item in value.values()])
    if type(value) in (set, frozenset):
        items = ast.List([_literal(item) for item in sorted(value, key=repr)], ast.Load())
        return ast.Call(ast.Name(type(value).__name__, ast.Load()), [items], [])
    if type(value) in (int, float) and repr(value).startswith("-"):
        return ast.UnaryOp(ast.USub(), ast.Constant(-value))
    return ast.Constant(value)
