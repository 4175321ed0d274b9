"""The configuration of a run, from its folder. Loads no torch."""

import sys
from pathlib import Path

from marl_coop.config.schema import Config, load_config
from marl_coop.runs import rundir


def recorded_config(folder: Path) -> Config:
    """The configuration of a run's last start. Modules that it names are found where they lay when the run began, from
    now on; Python looks there last.

    Raises:
        RunError: the folder is no run.
        ConfigError: its configuration can no longer be used.
    """
    places = map(str, rundir.module_folders(folder))
    sys.path += [place for place in places if place not in sys.path]
    return load_config([rundir.configuration_of(folder)])
