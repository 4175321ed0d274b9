"""The configuration: one strict schema, YAML layers, errors that name the place. Loads no torch."""

from marl_coop.config.errors import ConfigError
from marl_coop.config.schema import Config, load_config

__all__ = ["Config", "ConfigError", "load_config"]
