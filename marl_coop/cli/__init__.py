"""The command line: `marl-coop COMMAND`. Loads torch only once a configuration has passed."""

from marl_coop.cli.entry import main

__all__ = ["main"]
