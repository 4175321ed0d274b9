"""What a new run is judged by before anything is loaded, from the command line and from Python. Loads no torch."""

from marl_coop.config.checks import check_config
from marl_coop.config.schema import Config
from marl_coop.runs import rundir


def check_start(config: Config) -> None:
    """Refuse a new run that cannot be.

    Raises:
        ConfigError: `check_config` refuses it, or it cannot have the folder `output_dir`.
    """
    check_config(config)
    try:
        rundir.check_free(config.output_dir)
    except rundir.RunError as error:
        raise config.error(("output_dir",), str(error)) from error
