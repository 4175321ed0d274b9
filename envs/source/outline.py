"""What a module defines, down to the methods of its classes, and what each definition uses."""

import ast
import functools
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import NamedTuple

from envs.source.provenance import names_of, statements

Parts = tuple[str, ...]  # of a dotted name: p.core.Cart is ("p", "core", "Cart")
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_LONGEST = 16  # parts of a dotted name; a longer one means nothing that can be told
ANY = ""  # the first part of what is called on an object whose class cannot be told


class Definition(NamedTuple):
    """What a name is: its lines with decorators (of a class its head), what it uses, its parameters if a function."""

    text: str
    uses: frozenset[Parts]
    parameters: tuple[ast.arguments, ...] = ()

    @property
    def signature(self) -> str:
        """The parameters as text, of all definitions of the name; "" for what is no function."""
        try:
            return "; ".join(map(ast.unparse, self.parameters))
        except RecursionError:  # a default of a thousand brackets
            return "..."


@functools.lru_cache(maxsize=4096)
def outline(path: str, source: str) -> Mapping[str, Definition]:
    """Name -> what is defined at the top level of a module or in a class there, imports left out; {} for no Python.

    A method is `Class.method`, a class in a class `Outer.Inner`. Uses are the module's own names, imported ones by what
    they stand for, methods of `self`, and of other objects the methods that are called. Calling a class, or making a
    subclass of it, uses its `__init__` too.

    >>> found = outline("p/a.py", "from p.b import f as g\\nclass Cart:\\n    def add(self, x=1): return g(x)")
    >>> list(found), found["Cart.add"].signature, sorted(found["Cart.add"].uses)
    (['Cart', 'Cart.add'], 'self, x=1', [('p', 'b', 'f'), ('p', 'b', 'f', '__init__')])
    """
    body, lines = statements(source), source.split("\n")
    found: dict[str, list[_Defined]] = {}
    for name, defined in _defined(body, ""):
        found.setdefault(name, []).append(defined)
    once = {id(defined): (defined, name.rpartition(".")[0]) for name, same in found.items() for defined in same}
    others = (node for node in body if not isinstance(node, _SCOPES))
    inner = chain(*map(ast.walk, others), *(defined.inner for defined, _ in once.values()))
    module = _Module(module_parts(path), found, _imported(inner))
    # once for each statement, which may define thousands of names
    texts = {span: "\n".join(lines[slice(*span)]) for span in {defined.span for defined, _ in once.values()}}
    uses = {key: frozenset(module.uses(*placed)) for key, placed in once.items()}
    return {
        name: Definition(
            "\n".join(texts[span] for span in dict.fromkeys(defined.span for defined in same)),
            uses[id(same[0])].union(*(uses[id(defined)] for defined in same[1:])) if same[1:] else uses[id(same[0])],
            tuple(one.node.args for one in same if isinstance(one.node, ast.FunctionDef | ast.AsyncFunctionDef)),
        )
        for name, same in found.items()
    }


def names(use: Parts, path: str, name: str) -> bool:
    """Whether a use may mean what a module defines under a name.

    A dotted use may leave out parts of the module's path, as an import from a package does that takes the name from one
    of its modules. What is called on an unknown object may be any method of that name.

    >>> names(("p", "Cart", "add"), "src/p/core.py", "Cart.add"), names(("p", "add"), "src/p/core.py", "Cart.add")
    (True, False)
    """
    parts = tuple(name.split("."))
    if use[0] == ANY:
        return len(parts) > 1 and use[-1] == parts[-1]
    where = iter(module_parts(path))
    return use[-len(parts) :] == parts and all(part in where for part in use[: -len(parts)])


def certain(uses: Iterable[Parts]) -> Iterator[Parts]:
    """The uses that say what they mean: not those of an object whose class cannot be told."""
    return (use for use in uses if use[0] != ANY)


def module_parts(path: str) -> Parts:
    """The dotted name of a module: `src/p/__init__.py` is ("src", "p")."""
    parts = tuple(path.removesuffix(".py").split("/"))
    return parts[:-1] if parts[-1] == "__init__" else parts


class _Defined(NamedTuple):
    """A statement that defines a name: the nodes in it, of a class those in its head, and its lines [first, last)."""

    node: ast.stmt
    inner: list[ast.AST]
    span: tuple[int, int]


def _defined(body: Iterable[ast.stmt], scope: str) -> Iterator[tuple[str, _Defined]]:
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom) or not (own := names_of(node)):
            continue
        first, last, heads = _first(node), node.end_lineno or node.lineno, [node]
        if isinstance(node, ast.ClassDef):
            last, heads = max(node.lineno, _first(node.body[0])), [*node.decorator_list, *node.bases, *node.keywords]
        defined = _Defined(node, list(chain(*map(ast.walk, heads))), (first, last))
        yield from ((scope + name, defined) for name in own)
        if isinstance(node, ast.ClassDef):
            yield from _defined(node.body, f"{scope}{node.name}.")


def _first(node: ast.stmt) -> int:
    """The index of a statement's first line, decorators included."""
    return min([node.lineno, *(mark.lineno for mark in getattr(node, "decorator_list", ()))]) - 1


def _imported(nodes: Iterable[ast.AST]) -> dict[str, Parts]:
    """What imported names stand for; the dots of a relative import are left out."""
    found: dict[str, Parts] = {}
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                dotted = alias.name if alias.asname else alias.name.partition(".")[0]
                found[alias.asname or dotted] = tuple(dotted.split("."))
        elif isinstance(node, ast.ImportFrom):
            origin = tuple(node.module.split(".")) if node.module else ()
            found |= {alias.asname or alias.name: (*origin, alias.name) for alias in node.names}
    return found


class _Module(NamedTuple):
    """What the names in a module stand for."""

    parts: Parts
    defined: Mapping[str, list[_Defined]]
    imported: Mapping[str, Parts]

    def uses(self, defined: _Defined, scope: str) -> Iterator[Parts]:
        """What a definition in a class (`scope`; "" for none) uses."""
        for base in getattr(defined.node, "bases", ()):
            yield from self._made(base, scope)
        for node in defined.inner:
            if isinstance(node, ast.Attribute | ast.Name):
                meant = self._meant(node, scope)
                yield from [meant] if meant else ()
            elif isinstance(node, ast.Call):
                yield from self._made(node.func, scope)

    def _made(self, node: ast.expr, scope: str) -> Iterator[Parts]:
        """What calling something uses beyond its name."""
        if meant := self._meant(node, scope):
            yield (*meant, "__init__")
        elif isinstance(node, ast.Attribute) and not node.attr.startswith("__"):  # that is some super().__init__()
            yield (ANY, node.attr)

    def _meant(self, node: ast.expr, scope: str) -> Parts | None:
        """What a dotted name stands for, where the module says so."""
        attributes, root = [], node
        while isinstance(root, ast.Attribute) and len(attributes) < _LONGEST:
            attributes.append(root.attr)
            root = root.value
        attributes.reverse()
        if not isinstance(root, ast.Name) or not isinstance(root.ctx, ast.Load):
            return None
        if root.id in self.imported:
            return (*self.imported[root.id], *attributes)
        known = self.defined.get(root.id, ())
        if known and not attributes or any(isinstance(defined.node, ast.ClassDef) for defined in known):
            return (*self.parts, root.id, *attributes)
        if root.id in ("self", "cls") and len(attributes) == 1 and f"{scope}.{attributes[0]}" in self.defined:
            return (*self.parts, *scope.split("."), *attributes)
        return None
