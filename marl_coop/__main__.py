"""`python -m marl_coop COMMAND` is `marl-coop COMMAND`."""

import sys

from marl_coop.cli import main

sys.exit(main())
