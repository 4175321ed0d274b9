"""A class whose arguments are the fields of a configuration."""

import inspect
import json
from abc import ABC
from collections.abc import Mapping
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from pydantic import ValidationError

from envs.core.config import DesignConfig, EnvConfig
from envs.core.fields import ArgumentError, one_line

RENAMED = dict.fromkeys(("FAMILIES", "HELD_OUT", "TEAM_SIZES"), "say it in an EnvConfig named by {}.Config") | {
    "DECISION": "say it in {}.NOUNS",
    "OPTION": "say it in {}.NOUNS",
    "odds": "it is {}.posterior",
    "settle": "it is {}.resolve",
}  # what a subclass said before in another way


C = TypeVar("C", bound=EnvConfig)


class Configured(ABC, Generic[C]):
    """What is made of a `Config`, or of its fields. `config` is the frozen object.

    Raises:
        ArgumentError: a field that does not exist, or is of another type or out of range; one clear line.
    """

    Config: ClassVar[type[EnvConfig]] = DesignConfig

    config: C

    def __init__(self, config: C | None = None, **fields: Any):
        self.config = self._configured(config, fields)

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        for name, now in RENAMED.items():
            if name in vars(cls):
                raise TypeError(f"{cls.__name__}.{name} has no effect: {now.format(cls.__name__)}.")

    @classmethod
    def configure(cls, section: Mapping[str, Any]) -> EnvConfig:
        """The configuration that plain data make, such as a section of YAML; nothing is built. What JSON has no type
        for is read from what it has, a path from a text and a tuple from a list.

        Raises:
            pydantic.ValidationError: a field that does not exist, or is of another type or out of range.
            ArgumentError: a subclass's own constructor has arguments that no configuration reaches.
        """
        parameters = inspect.signature(cls).parameters
        named = {name for name, one in parameters.items() if one.kind is not one.VAR_KEYWORD} - {"config"}
        declare = f"a subclass of {cls.Config.__name__} and name that in {cls.__name__}.Config."
        if lost := next((name for name in [*section, *cls.Config.model_fields] if name in named), None):
            problem = f"{cls.__name__} takes {lost!r} in its __init__ alone; declare it as a field of {declare}"
            raise ArgumentError(problem, (lost,) if lost in section else ())
        if "config" not in parameters and len(named) == len(parameters):
            raise ArgumentError(f"{cls.__name__}.__init__ takes no config; say what it sets in {declare}")
        return cls.Config.model_validate_json(json.dumps(section, default=str))

    @classmethod
    def _configured(cls, config: Any, fields: Mapping[str, Any]) -> Any:
        """The configuration that a constructor was given, or that its arguments make; numpy's scalars arrive as
        Python's."""
        if config is not None and (fields or not isinstance(config, cls.Config)):
            given = f"{', '.join(fields)} beside it" if fields else f"a {type(config).__name__}"
            raise ArgumentError(f"config: give a {cls.Config.__name__} alone, or its fields; this is {given}.")
        plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in fields.items()}
        try:
            return config or cls.Config(**plain)
        except ValidationError as error:
            raise one_line(error, cls.Config, plain, cls.__name__) from error
