"""Generated Python packages with two features that depend on each other. One file per way of getting in the way."""

from envs.repo_tasks.append import Append
from envs.repo_tasks.base import RepoFamily
from envs.repo_tasks.defaults import Defaults
from envs.repo_tasks.dispatch import Dispatch
from envs.repo_tasks.keywords import Keywords
from envs.repo_tasks.registry import Registry
from envs.repo_tasks.returns import Returns

FAMILIES: tuple[RepoFamily, ...] = (Append(), Registry(), Dispatch(), Keywords(), Defaults(), Returns())
