"""From values of a configuration to the objects that they name, and what is wrong with those that name none."""

import inspect
from typing import Any

from pydantic import BaseModel, ValidationError

import envs
import rewards
from envs.core.arguments import Checked, UnknownArgument, arguments_of
from envs.core.curriculum import Curriculum
from marl_coop.config.errors import ConfigError, Keys, explain, nearest


def build_term(name: str, fields: dict[str, Any]) -> rewards.RewardTerm:
    try:
        term = rewards.find_term(name)
    except rewards.UnknownTerm as error:
        raise ConfigError(str(error), ("rewards", name)) from error
    if inspect.isabstract(term):
        raise ConfigError(f"{term.__name__} does not say how to score: it has no __call__", ("rewards", name))
    try:
        return term.model_validate(fields)
    except ValidationError as error:
        raise explain(error, term, fields, ("rewards", name)) from error


def build_curriculum(section: dict[str, Any]) -> Curriculum | None:
    """The curriculum of the section `env`; None where that has none."""
    keys = ("env", "curriculum")
    fields = section.get("curriculum")
    if not isinstance(fields, dict | None):
        raise ConfigError(f"{fields!r} is refused: input should be null or keys", keys)
    if fields is None:
        return None
    ladder = envs.find_environment(section["name"]).LADDER
    if not ladder and "levels" not in fields:
        raise ConfigError(f"{section['name']} has no ladder of its own; give levels", keys)
    return _construct(Curriculum, {"levels": ladder} | fields, keys)


def build_env(section: dict[str, Any], keys: Keys) -> envs.CoopEnv:
    arguments = dict(section)
    name = arguments.pop("name", None)
    if not isinstance(name, str):
        raise ConfigError(f"{name!r} is refused: input should be the name of an environment", ("env", "name"))
    try:
        env_class = envs.find_environment(name)
    except ValueError as error:
        raise ConfigError(str(error), ("env", "name")) from error
    return _construct(env_class, arguments, keys)


def _construct(cls: Checked, arguments: dict[str, Any], keys: Keys) -> Any:
    """An object of the values that the class's schema makes of YAML's: a path of a text, a tuple of a list."""
    schema = arguments_of(cls)
    known = {key: value for key, value in arguments.items() if key in schema.model_fields}
    try:
        read = schema.model_validate(known)
        return cls(**arguments | {key: getattr(read, key) for key in known})
    except ValidationError as error:
        misspelt = next((key for key in arguments if key not in known), None)
        raise explain(error, schema, known, keys) if misspelt is None else _unknown(misspelt, schema, keys) from error
    except UnknownArgument as error:
        raise _unknown(error.name, schema, keys) from error
    except ValueError as error:  # in range by type and not by meaning: the class says why
        raise ConfigError(str(error), keys) from error


def _unknown(key: str, schema: type[BaseModel], keys: Keys) -> ConfigError:
    return ConfigError(f"unknown key; did you mean {nearest(key, schema.model_fields)!r}?", (*keys, key))
