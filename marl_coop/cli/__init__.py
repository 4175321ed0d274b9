"""The command line: `marl-coop COMMAND`, one file a command. Loads torch only once a configuration has passed."""

from marl_coop.cli.start import main, run_script

__all__ = ["main", "run_script"]
