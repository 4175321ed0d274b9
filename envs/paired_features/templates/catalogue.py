"""Generated Python packages with two features that depend on each other. One file per way of getting in the way."""

from envs.paired_features.templates.append import Append
from envs.paired_features.templates.base import RepoFamily
from envs.paired_features.templates.defaults import Defaults
from envs.paired_features.templates.dispatch import Dispatch
from envs.paired_features.templates.keywords import Keywords
from envs.paired_features.templates.registry import Registry
from envs.paired_features.templates.returns import Returns

FAMILIES: tuple[RepoFamily, ...] = (Append(), Registry(), Dispatch(), Keywords(), Defaults(), Returns())
