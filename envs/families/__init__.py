"""Task families: each draws endless instances of one contract that two parts must share. One file per family."""

from envs.families.split import HELD_OUT, HELD_OUT_CONTRACTS, HELD_OUT_COPIED, TRAINING

__all__ = ["HELD_OUT", "HELD_OUT_CONTRACTS", "HELD_OUT_COPIED", "TRAINING"]
