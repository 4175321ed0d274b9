"""From values of a configuration to the objects that they name, and what is wrong with those that name none."""

import inspect
from typing import Any

from pydantic import ValidationError

import envs
import rewards
from envs.core.config import EnvConfig
from envs.core.curriculum import Curriculum
from envs.core.fields import ArgumentError
from marl_coop.config.errors import ConfigError, Keys, explain


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
    fields = {"levels": ladder} | fields
    try:
        return Curriculum.model_validate(fields)
    except ValidationError as error:
        raise explain(error, Curriculum, fields, keys) from error


def configure_env(section: dict[str, Any], keys: Keys) -> tuple[type[envs.CoopEnv], EnvConfig]:
    """The class of an environment and its configuration; no environment is built."""
    arguments = dict(section)
    name = arguments.pop("name", None)
    if not isinstance(name, str):
        raise ConfigError(f"{name!r} is refused: input should be the name of an environment", ("env", "name"))
    try:
        env_class = envs.find_environment(name)
    except ValueError as error:
        raise ConfigError(str(error), ("env", "name")) from error
    try:
        return env_class, env_class.configure(arguments)
    except ValidationError as error:
        raise explain(error, env_class.Config, arguments, keys) from error
    except ArgumentError as error:
        raise ConfigError(str(error), (*keys, *error.loc)) from error


def build_env(section: dict[str, Any], keys: Keys) -> envs.CoopEnv:
    """The environment of a section."""
    env_class, config = configure_env(section, keys)
    try:
        return env_class(config=config)
    except ValueError as error:  # known only once it is made: a data set that is not there
        raise ConfigError(str(error), keys) from error
