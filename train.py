"""Train a team: the same as `marl-coop train`, as a file that `accelerate launch` can start."""

import sys

from marl_coop.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
