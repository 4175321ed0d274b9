"""What a constructor and `reset` are given, checked before it is used."""

import inspect
import re
from abc import ABCMeta
from collections.abc import Callable, Collection, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from types import SimpleNamespace
from typing import Any, get_type_hints

import numpy as np
from pydantic import BaseModel, ConfigDict, PydanticUserError, ValidationError, create_model
from pydantic_core import SchemaError

from envs.core.task import Seat, Task

RESET_OPTIONS = ("task", "muted")


class UnknownArgument(ValueError):
    """An argument that a class does not take; `name` is its name."""

    def __init__(self, cls: type, name: str):
        self.name = name
        near = did_you_mean(name, arguments_of(cls).model_fields)
        super().__init__(f"{cls.__name__} has no argument {name!r}.{near}")


class Checked(ABCMeta):
    """A class whose keyword arguments are checked before they are used; numpy's scalars arrive as Python's.

    Raises:
        UnknownArgument: the class has no such argument (the message has the nearest).
        ValueError: an argument is of another type. What a value may be is for the class to say.
    """

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        given = {name: value.item() if isinstance(value, np.generic) else value for name, value in kwargs.items()}
        unknown = [name for name in given if name not in arguments_of(cls).model_fields]
        _check_types(cls, {name: value for name, value in given.items() if name not in unknown})
        try:
            return super().__call__(*args, **given)
        except TypeError as error:  # the class may take what is not in its schema: only Python knows
            found = re.search(r"unexpected keyword argument '(\w+)'", str(error))
            if found is None or found[1] not in unknown:
                raise
            raise UnknownArgument(cls, found[1]) from error


@cache
def arguments_of(cls: type) -> type[BaseModel]:
    """The constructor's keyword arguments as a schema: their names, annotations and defaults, as far up the base
    classes as `**kwargs` are handed on. An annotation that cannot be checked is Any; an argument whose name cannot be
    a field's is left out.
    """
    fields: dict[str, Any] = {}
    for base in cls.__mro__:
        if "__init__" in vars(base):
            _, *parameters = inspect.signature(base.__init__).parameters.values()
            for parameter in parameters:
                named = parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
                if named and not parameter.name.startswith("_") and not hasattr(BaseModel, parameter.name):
                    default = ... if parameter.default is parameter.empty else parameter.default
                    fields.setdefault(parameter.name, (_annotation(base.__init__, parameter.name), default))
            if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters):
                break
    return _schema(cls.__name__, fields)


def _schema(name: str, fields: Mapping[str, Any]) -> type[BaseModel]:
    config = ConfigDict(extra="forbid", arbitrary_types_allowed=True, protected_namespaces=())
    return create_model(name, __config__=config, **fields)


def _annotation(init: Callable, name: str) -> Any:
    """The annotation of a parameter; Any where there is none, or none that can be checked."""
    try:
        holder = SimpleNamespace(__annotations__={name: init.__annotations__[name]})
        hint = get_type_hints(holder, init.__globals__, include_extras=True)[name]
        _schema("argument", {"value": (hint, ...)}).model_validate({}, strict=True)
    except ValidationError:  # that nothing was given: so it can be checked
        return hint
    except (KeyError, NameError, TypeError, AttributeError, PydanticUserError, SchemaError):
        return Any
    return Any


def _check_types(cls: type, given: Mapping[str, Any]) -> None:
    try:
        arguments_of(cls).model_validate(given, strict=True)
    except ValidationError as error:
        words = {found["loc"][0] for found in error.errors() if found["type"] == "literal_error"}
        for found in error.errors():
            name = found["loc"][0]
            if name in given and not (name in words and isinstance(given[name], str)):
                problem = found["msg"].removeprefix("Input ")
                raise ValueError(f"{name} is {given[name]!r}; it {problem} ({cls.__name__}).") from error


def reset_options(options: Mapping[str, Any] | None, seats: Sequence[Seat]) -> tuple[Task | None, frozenset[Seat]]:
    """What the options of `reset` say: the task to play, None for the next one, and the seats whose words reach nobody.

    Options of other names are ignored, as PettingZoo wants it, but for what looks like a slip.

    Raises:
        ValueError: an option is misspelt, of another kind or for other seats.
    """
    if not isinstance(options, Mapping | None):
        raise ValueError(f"reset: options is {options!r}; it must be a mapping of {' and '.join(RESET_OPTIONS)}.")
    for name in options or {}:
        if name not in RESET_OPTIONS and get_close_matches(str(name), RESET_OPTIONS):
            raise ValueError(f"reset: there is no option {name!r}.{did_you_mean(name, RESET_OPTIONS)}")
    task, muted = (options or {}).get("task"), (options or {}).get("muted", ())
    if not isinstance(task, Task | None):
        raise ValueError(f"reset: options['task'] is a {type(task).__name__}; it must be an envs.core.task.Task.")
    if task is not None and tuple(task.seats) != tuple(seats):
        raise ValueError(f"reset: the task has the seats {task.seats}; this environment plays {tuple(seats)}.")
    muted = () if muted is None else muted
    if isinstance(muted, str) or not isinstance(muted, Collection) or not all(seat in seats for seat in muted):
        raise ValueError(f"reset: options['muted'] is {muted!r}; it must be a list of seats, of {', '.join(seats)}.")
    return task, frozenset(muted)


def did_you_mean(name: object, known: Sequence[str]) -> str:
    """The end of an error message: the nearest of the known names, or all of them.

    >>> did_you_mean("round", ["rounds", "agents"])
    " Did you mean 'rounds'?"
    >>> did_you_mean("colour", ["rounds", "agents"])
    ' Known: rounds, agents.'
    """
    near = get_close_matches(str(name), known, n=1)
    return f" Did you mean {near[0]!r}?" if near else f" Known: {', '.join(known)}."
