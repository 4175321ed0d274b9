"""A price list of tokens as a YAML file. Loads no torch."""

from pathlib import Path

from pydantic import ValidationError

from marl_coop.config.errors import ConfigError, explain
from marl_coop.config.layers import read_file
from rewards.metrics.ledger import PriceList


def load_prices(file: Path) -> PriceList:
    """The price list of a YAML file.

    Raises:
        ConfigError: the file is missing or not YAML, or a key or value does not fit `PriceList`.
    """
    content = read_file(file)
    try:
        return PriceList.model_validate(content)
    except ValidationError as error:
        found = explain(error, PriceList, content)
        raise ConfigError(found.problem, found.keys, str(file)) from error
