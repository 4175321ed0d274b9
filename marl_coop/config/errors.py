"""What a configuration error says: the value, the place, and what to do."""

import reprlib
from collections.abc import Iterable
from typing import Any, get_args, get_type_hints

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from typing_extensions import is_typeddict

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


class UnknownKey(ConfigError):
    """A key that its place does not have: `known` are those that it has, `places` where else one of its name is."""

    def __init__(self, keys: Keys, known: Iterable[str], source: str | None = None, places: Iterable[str] = ()):
        self.known = [*known]
        if places:
            hint = f"did you mean {' or '.join(map(repr, places))}?"
        else:
            listed = "" if alike(keys[-1], self.known) else f" Known: {', '.join(self.known)}."
            hint = f"did you mean {nearest(keys[-1], self.known)!r}?{listed}"
        super().__init__(f"unknown key; {hint}", keys, source)


def dotted(keys: Keys) -> str:
    """Keys as one writes them in an override; a key that has dots of its own goes in brackets.

    >>> dotted(("rewards", "my_lab.rewards:Humility", "weight"))
    'rewards[my_lab.rewards:Humility].weight'
    """
    return "".join(f"[{key}]" if "." in str(key) else f".{key}" for key in keys).removeprefix(".")


def check_folders(names: Iterable[str], keys: Keys) -> None:
    """Check that each of some names can have a folder of its own, where case does not tell folders apart too.

    Raises:
        ConfigError: two cannot.
    """
    first: dict[str, str] = {}
    for name in names:
        if (other := first.setdefault(name.casefold(), name)) != name:
            raise ConfigError(f"{other!r} and {name!r} would be one folder on a disk without case: rename one", keys)


def explain(error: ValidationError, schema: type[BaseModel], data: Any, prefix: Keys = ()) -> ConfigError:
    """What pydantic found wrong with `data`, in our words: a misspelt key before the one that it leaves out, and of a
    value that may be of several kinds, what is wrong deepest in it."""

    def order(found: ErrorDetails) -> tuple[bool, int]:
        return found["type"] != "extra_forbidden", -len(_keys_in(data, found["loc"]))

    first = min(error.errors(), key=order)
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, ConfigError):
        return cause
    keys = (*prefix, *_keys_in(data, first["loc"]))
    if first["type"] == "extra_forbidden":
        known: Any = _fields(schema)
        for key in first["loc"][:-1]:
            if not contains(data, (key,)):  # a name of a union's member
                continue
            data = data[key]
            if isinstance(key, int):  # of a list, whose members have the fields
                continue
            scheduled = key == "weight" and "schedule" in data  # of a reward term
            known = _fields(find_schedule(data["schedule"]) if scheduled else known[key])
        return UnknownKey(keys, known)
    if first["type"] == "missing":
        return ConfigError(f"{first['loc'][-1]!r} must be given", keys)
    if cause is not None:
        return ConfigError(str(cause), (*keys, *getattr(cause, "loc", ())))
    if first["type"] in ("dict_type", "model_type", "dataclass_type"):  # the message names a class that no user knows
        return not_keys(first["input"], keys)
    problem = first["msg"][0].lower() + first["msg"][1:]
    if first["type"] == "string_type" and isinstance(first["input"], bool | int | float | None):
        problem += "; YAML reads words such as on, no, null, 007 and 1e3 as something else: put it in quotes"
    return ConfigError(f"{reprlib.repr(first['input'])} is refused: {problem}", keys)


def not_keys(value: Any, keys: Keys, source: str | None = None) -> ConfigError:
    """What is wrong with a value in the place of keys; of a reward term its weight was meant."""
    weight = f"; the weight is {dotted((*keys, 'weight'))}" if keys[-2:-1] == ("rewards",) else ""
    return ConfigError(f"{reprlib.repr(value)} is refused: input should be keys{weight}", keys, source)


def _fields(schema: Any) -> dict[str, Any]:
    """The types of the keys of a model or a typed dict, or of the one that an optional value or a list is made of."""
    if isinstance(schema, type) and issubclass(schema, BaseModel):
        return {key: field.annotation for key, field in schema.model_fields.items()}
    if is_typeddict(schema):
        return get_type_hints(schema)
    (inner,) = (member for member in get_args(schema) if member is not type(None))
    return _fields(inner)


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
