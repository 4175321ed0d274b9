"""What a configuration error says: the value, the place, and what to do."""

import reprlib
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from envs.core.lookup import alike, nearest
from envs.core.tokens import one_line
from rewards.schedules import find_schedule

Keys = tuple[str | int, ...]  # the keys that lead to a value: ("lora", "r")


class ConfigError(ValueError):
    """A configuration that cannot be used.

    `problem` says what is wrong and what to do, `keys` lead to the value, `source` is the file that holds it or
    "command line". The text is one line: `configs/base.yaml: lora.r: 'eight' should be a valid integer`.
    """

    def __init__(self, problem: str, keys: Keys = (), source: str | None = None):
        self.problem, self.keys, self.source = one_line(problem), keys, source
        super().__init__(": ".join(part for part in (source, dotted(keys), self.problem) if part))


def dotted(keys: Keys) -> str:
    """Keys as one writes them in an override; a key that has dots of its own goes in brackets.

    >>> dotted(("rewards", "my_lab.rewards:Humility", "weight"))
    'rewards[my_lab.rewards:Humility].weight'
    """
    return "".join(f"[{key}]" if "." in str(key) else f".{key}" for key in keys).removeprefix(".")


def explain(error: ValidationError, schema: type[BaseModel], data: Any, prefix: Keys = ()) -> ConfigError:
    """What pydantic found wrong with `data`, in our words: a misspelt key before the one that it leaves out."""
    first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, ConfigError):
        return cause
    keys = (*prefix, *_keys_in(data, first["loc"]))
    if first["type"] == "extra_forbidden":
        for key in first["loc"][:-1]:
            data = data[key]
            if isinstance(key, int):  # of a list, whose members have the schema
                continue
            scheduled = key == "weight" and "schedule" in data  # of a reward term
            inner = find_schedule(data["schedule"]) if scheduled else schema.model_fields[key].annotation
            inner = next(iter(get_args(inner)), inner) if get_origin(inner) is list else inner
            assert isinstance(inner, type) and issubclass(inner, BaseModel)  # else pydantic knows no such key
            schema = inner
        known = schema.model_fields
        listed = "" if alike(keys[-1], known) else f" Known: {', '.join(known)}."
        return ConfigError(f"unknown key; did you mean {nearest(keys[-1], known)!r}?{listed}", keys)
    if first["type"] == "missing":
        return ConfigError(f"{first['loc'][-1]!r} must be given", keys)
    if cause is not None:
        return ConfigError(str(cause), (*keys, *getattr(cause, "loc", ())))
    problem = first["msg"][0].lower() + first["msg"][1:]
    return ConfigError(f"{reprlib.repr(first['input'])} is refused: {problem}", keys)


def _keys_in(data: Any, loc: Keys) -> Keys:
    """The keys of a pydantic location that are in the data; it also has the names of a union's members."""
    keys: Keys = ()
    for key in loc:
        if contains(data, (key,)):
            data, keys = data[key], (*keys, key)
    return keys


def contains(content: Any, keys: Keys) -> bool:
    """Whether the keys lead somewhere."""
    try:
        for key in keys:
            content = content[key]
    except (KeyError, IndexError, TypeError):
        return False
    return True
