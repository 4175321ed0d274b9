"""What a constructor and `reset` are given, checked before it is used."""

import inspect
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from envs.task import Seat, Task

RESET_OPTIONS = ("task", "muted")


@cache
def arguments_of(cls: type) -> type[BaseModel]:
    """The constructor's keyword arguments as a schema: their names, annotations and defaults, as far up the base
    classes as `**kwargs` are handed on."""
    fields: dict[str, Any] = {}
    for base in cls.__mro__:
        if "__init__" in vars(base):
            hints = get_type_hints(base.__init__)
            _, *parameters = inspect.signature(base.__init__).parameters.values()
            for parameter in parameters:
                if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD):
                    default = ... if parameter.default is parameter.empty else parameter.default
                    fields.setdefault(parameter.name, (hints.get(parameter.name, Any), default))
            if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters):
                break
    return create_model(cls.__name__, __config__=ConfigDict(extra="forbid", arbitrary_types_allowed=True), **fields)


def check_arguments(cls: type, given: Mapping[str, Any]) -> None:
    """Checks names and types; what a value may be is for the class to say.

    Raises:
        ValueError: the class has no such argument (the message has the nearest), or one is of another type.
    """
    schema = arguments_of(cls)
    for name in given:
        if name not in schema.model_fields:
            raise ValueError(f"{cls.__name__} has no argument {name!r}.{did_you_mean(name, schema.model_fields)}")
    try:
        schema.model_validate(given, strict=True)
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
        raise ValueError(f"reset: options['task'] is a {type(task).__name__}; it must be an envs.task.Task.")
    if task is not None and tuple(task.seats) != tuple(seats):
        raise ValueError(f"reset: the task has the seats {task.seats}; this environment plays {tuple(seats)}.")
    if isinstance(muted, str) or not set(muted) <= set(seats):
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
