"""Generated Python packages with two features that depend on each other. One file per way of getting in the way."""

from envs.paired_features.templates.catalogue import FAMILIES

__all__ = ["FAMILIES"]
