"""From values of a configuration to the objects that they name, and what is wrong with those that name none."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import to_jsonable_python

import rewards
from envs import CoopEnv, find_environment
from envs.core.config import EnvConfig, FamilyConfig
from envs.core.curriculum import Curriculum
from envs.core.fields import ArgumentError
from marl_coop.config.errors import ConfigError, Keys, explain


def make_term(name: str, fields: dict[str, Any]) -> rewards.RewardTerm:
    """The reward term of a name and its fields."""
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


@dataclass(frozen=True, slots=True)
class EnvMaker:
    """An environment that can be made any number of times: its class, and its configuration, which has been judged.

    Calling it makes one.
    """

    cls: type[CoopEnv]
    config: EnvConfig

    def __call__(self) -> CoopEnv:
        return self.cls(config=self.config)


def env_maker(section: Mapping[str, Any], keys: Keys) -> EnvMaker:
    """The environment of a section, `name` and fields; none is made.

    Args:
        keys: where the section stands, for errors.
    """
    cls = _env_class(section.get("name"), keys)
    fields = {key: value for key, value in section.items() if key != "name"}
    try:
        return EnvMaker(cls, cls.configure(fields))
    except ValidationError as error:
        raise explain(error, cls.Config, fields, keys) from error
    except ArgumentError as error:
        raise ConfigError(str(error), (*keys, *error.loc)) from error


def laid_over(section: Mapping[str, Any], changes: Mapping[str, Any], keys: Keys = ("env",)) -> dict[str, Any]:
    """A section `env` with changes. Where these name another environment, it starts from the defaults of that one; what
    the section says beside the defaults of its own goes on to hold if all environments have it. Families and the levels
    of a curriculum belong to one environment.

    Args:
        keys: where the changes stand, for errors.
    """
    if changes.get("name", section.get("name")) == section.get("name"):
        return {**section, **changes}
    shared = shared_keys(section["name"], changes["name"], keys)
    before = _env_class(section["name"]).Config.model_fields
    defaults = {key: to_jsonable_python(before[key].get_default(call_default_factory=True)) for key in shared}
    kept = {key: value for key, value in section.items() if key in shared and value != defaults[key]}
    if "curriculum" in section and "levels" not in (section["curriculum"] or {}):
        kept["curriculum"] = section["curriculum"]
    return {"name": changes["name"], **kept, **changes}


def shared_keys(before: str, after: str, keys: Keys = ("env",)) -> set[str]:
    """The keys of `env` that mean the same in two environments, by their names."""
    fields = (_env_class(before).Config.model_fields, _env_class(after, keys).Config.model_fields)
    return (FamilyConfig.model_fields.keys() & fields[0].keys() & fields[1].keys()) - {"families"}


def make_curriculum(section: Mapping[str, Any]) -> Curriculum | None:
    """The curriculum of a section `env`, on its first level; None where it has none."""
    keys, fields = ("env", "curriculum"), section.get("curriculum")
    if not isinstance(fields, dict | None):
        raise ConfigError(f"{fields!r} is refused: input should be null or keys", keys)
    if fields is None:
        return None
    ladder = _env_class(section["name"]).LADDER
    if not ladder and "levels" not in fields:
        raise ConfigError(f"{section['name']} has no ladder of its own; give levels", keys)
    fields = {"levels": ladder} | fields
    try:
        return Curriculum.model_validate(fields)
    except ValidationError as error:
        raise explain(error, Curriculum, fields, keys) from error


def _env_class(name: object, keys: Keys = ("env",)) -> type[CoopEnv]:
    if not isinstance(name, str):
        raise ConfigError(f"{name!r} is refused: input should be the name of an environment", (*keys, "name"))
    try:
        return find_environment(name)
    except ValueError as error:
        raise ConfigError(str(error), (*keys, "name")) from error
