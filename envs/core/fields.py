"""Typed fields of what is configured, and the one line that says which of them cannot be used."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from envs.core.lookup import did_you_mean

Loc = tuple[str | int, ...]  # the keys that lead to a value: ("cells", "both_right")


class ArgumentError(ValueError):
    """An argument that cannot be used: the text says what is wrong and what to do, `loc` are the keys that lead to it.

    >>> ArgumentError("rounds is -1; it must be at least 0.", ("rounds",)).loc
    ('rounds',)
    """

    def __init__(self, problem: str, loc: Loc = ()):
        self.loc = loc
        super().__init__(problem)


class Fields(BaseModel, frozen=True):
    """Frozen, typed fields: no value of another type, no unknown name, no number that is not finite."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True)


def one_line(error: ValidationError, schema: type[BaseModel], given: Mapping[str, Any], owner: str) -> ArgumentError:
    """What pydantic found wrong with the given fields, in a line; a misspelt name before the one that it leaves out.

    Args:
        owner: the class that the fields are arguments of, for the message.
    """
    first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    keys, value = _lead(first["loc"], given)
    cause = first.get("ctx", {}).get("error")
    if first["type"] == "extra_forbidden":
        holder = ".".join(map(str, keys[:-1])) or owner
        near = did_you_mean(keys[-1], list(_schema_at(schema, keys[:-1]).model_fields))
        return ArgumentError(f"{holder} has no argument {keys[-1]!r}.{near}", keys)
    if first["type"] == "missing":
        return ArgumentError(f"{owner} needs {first['loc'][-1]!r}, which has no default.", first["loc"])
    if cause is not None:
        return ArgumentError(str(cause), (*keys, *getattr(cause, "loc", ())))
    problem = re.sub(r"^\w+ (?=should)", "", first["msg"])
    return ArgumentError(f"{'.'.join(map(str, keys))} is {value!r}; it {problem} ({owner}).", keys)


def _lead(loc: Loc, given: Any) -> tuple[Loc, Any]:
    """The keys of a pydantic location that are in the mappings given, and what they lead to."""
    keys: Loc = ()
    for key in loc:
        if isinstance(given, Mapping) and key in given:
            keys, given = (*keys, key), given[key]
    return keys, given


def _schema_at(schema: type[BaseModel], keys: Sequence[str | int]) -> type[BaseModel]:
    for key in keys:
        annotation = schema.model_fields[str(key)].annotation
        assert isinstance(annotation, type) and issubclass(annotation, BaseModel)  # else pydantic knows no such name
        schema = annotation
    return schema
