"""Finding a thing by its name, with the nearest match in the error."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from difflib import SequenceMatcher
from importlib import import_module
from types import MappingProxyType
from typing import Any

from envs.core.moved import MOVED, RENAMED


def find(name: str, known: Mapping[str, Any], *, kind: str, example: str = "package.module:Name") -> Any:
    """The value of `name` in `known`, or the attribute that a dotted path such as `my_lab.tasks:Rounding` leads to.

    Args:
        name: a key of `known`, or `package.module:attribute`.
        known: what comes with the library, by name.
        kind: what is looked for, in words, for the message ("environment", "family").
        example: a dotted path, for the message.

    Raises:
        ValueError: there is no such name; the message gives the nearest one, or why the path leads nowhere.
    """
    if name in known:
        return known[name]
    module, colon, attribute = name.partition(":")
    if not colon:
        near = alike(name, known, least=0.5)
        hint = "" if near is None else f" Did you mean {near!r}?"
        raise ValueError(
            f"There is no {kind} {name!r}.{hint} Known: {', '.join(known)}; or a dotted path such as {example!r}."
        )
    try:
        return _attribute(module, attribute)
    except (ImportError, AttributeError, ValueError) as error:
        old = getattr(error, "name", None)
        remedy = "Check the path, or add the folder of the module to PYTHONPATH."
        missing = re.search(r"(?:cannot import name|has no attribute) '(\w+)'", str(error))
        if missing and missing[1] in RENAMED:  # what a module of the user imports, or the path itself
            remedy = f"What was {missing[1]} is now {RENAMED[missing[1]]}."
        elif old in MOVED:
            remedy = f"What was {old} is now {' and '.join(MOVED[old])}."
        raise ValueError(f"The {kind} {name!r} cannot be imported: {error}. {remedy}") from error


def _attribute(module: str, attribute: str) -> Any:
    """The attribute of a module, or of those that took its place."""
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError):
        for place in MOVED.get(module, ()):
            if hasattr(import_module(place), attribute):
                return getattr(import_module(place), attribute)
        raise


def choose(
    choice: Sequence[str] | str,
    known: Sequence[Any],
    held_out: Sequence[str],
    *,
    argument: str,
    kind: str,
    further: Mapping[str, Sequence[Any]] = MappingProxyType({}),
) -> tuple[Any, ...]:
    """Those of the `known`, each with a `name`, that an argument chooses.

    Args:
        choice: "train" (those that are not held out), "held_out", "all", a word of `further`, or names or dotted paths.
        held_out: names of those that are only for evaluation.
        argument, kind: what the argument and one of the things are called, for the message.
        further: lists of things that are in no split, by the word that chooses them; a name that is `known` is not one
            of these, any other of theirs can be named.

    Raises:
        ValueError: nothing is chosen, or a name that does not exist.
    """
    named = {thing.name: thing for thing in known}
    splits = {"train": [name for name in named if name not in held_out], "held_out": held_out, "all": list(named)}
    if isinstance(choice, str) and choice in further:
        return tuple(further[choice])
    names = splits.get(choice, ()) if isinstance(choice, str) else choice
    if not names and named:
        words = [*splits, *further]
        near = alike(choice, [*words, *named]) if isinstance(choice, str) and choice not in splits else None
        hint = "" if near is None else f" Did you mean {near if near in words else f'[{near}]'}?"
        raise ValueError(
            f"{argument} is {choice!r}; it must be a list of at least one name, or one of {', '.join(words)}.{hint} "
            f"Held out here: {', '.join(held_out) or 'none'}."
        )
    every = {thing.name: thing for things in further.values() for thing in things} | named
    return tuple(find(name, every, kind=kind) for name in names)


def did_you_mean(name: object, known: Sequence[str]) -> str:
    """The end of an error message: the nearest of the known names, or all of them.

    >>> did_you_mean("round", ["rounds", "agents"])
    " Did you mean 'rounds'?"
    >>> did_you_mean("colour", ["rounds", "agents"])
    ' Known: rounds, agents.'
    """
    near = alike(name, known)
    return f" Known: {', '.join(known)}." if near is None else f" Did you mean {near!r}?"


def nearest(name: object, known: Iterable[str]) -> str:
    """The one of the known names, of which there is one or more, that is spelled most like `name`, in any case.

    >>> nearest("learning_rat", ["learning_rate", "max_steps"])
    'learning_rate'
    """
    return max(known, key=lambda one: _likeness(name, one))


def alike(name: object, known: Collection[str], least: float = 0.6) -> str | None:
    """The nearest of the known names; None where even that one is less like `name` than `least`, a share in [0, 1]."""
    near = nearest(name, known) if known else None
    return near if near is not None and _likeness(name, near) >= least else None


def _likeness(name: object, known: str) -> float:
    return SequenceMatcher(None, known.casefold(), str(name).casefold()).ratio()
