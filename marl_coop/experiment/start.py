"""What a new run is judged by before anything is loaded, from the command line and from Python. Loads no torch."""

from marl_coop.config.checks import check_config
from marl_coop.config.schema import Config, Evaluation
from marl_coop.runs import rundir


def check_start(config: Config) -> None:
    """Refuse a new run that cannot be.

    Raises:
        ConfigError: `check_values` or `check_folder` refuses it.
    """
    check_values(config)
    check_folder(config)


def check_values(config: Config) -> None:
    """Refuse values that no new run can have.

    Raises:
        ConfigError: `check_config` refuses them, or it is to keep the best of evaluations that are never played.
    """
    check_config(config)
    section = config.evaluation
    if section.best != Evaluation().best and not section.every:
        problem = f"{section.best!r} has no effect: there is no evaluation while it trains; give evaluation.every too"
        raise config.error(("evaluation", "best"), problem)


def check_folder(config: Config) -> None:
    """Refuse an `output_dir` that a new run cannot have.

    Raises:
        ConfigError: it cannot.
    """
    try:
        rundir.check_free(config.output_dir)
    except rundir.RunError as error:
        raise config.error(("output_dir",), str(error)) from error
