"""Trains teams of LoRA policies: environments are in `envs`, reward terms in `rewards`, everything with torch here.

Importing this package does not load torch; `marl_coop.ppo.trainer` and its neighbours do.
"""

__version__ = "0.1.0"
