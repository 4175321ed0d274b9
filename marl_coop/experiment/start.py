"""What a new run is judged by before anything is loaded, from the command line and from Python. Loads no torch."""

from marl_coop.config.checks import check_config
from marl_coop.config.schema import Config, Evaluation
from marl_coop.runs import rundir


def check_start(config: Config) -> None:
    """Refuse a new run that cannot be.

    Raises:
        ConfigError: `check_config` refuses it, it cannot have the folder `output_dir`, or it is to keep the best of
            evaluations that are never played.
    """
    check_config(config)
    section = config.evaluation
    if section.best != Evaluation().best and not section.every:
        problem = f"{section.best!r} has no effect: there is no evaluation while it trains; give evaluation.every too"
        raise config.error(("evaluation", "best"), problem)
    try:
        rundir.check_free(config.output_dir)
    except rundir.RunError as error:
        raise config.error(("output_dir",), str(error)) from error
