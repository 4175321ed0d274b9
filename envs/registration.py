"""Environments by name. `ENVIRONMENTS` is the list; a new one is a file and an entry here."""

from typing import Any

import pettingzoo

from envs.core.env import CoopEnv
from envs.core.lookup import find
from envs.design_review import DesignReview
from envs.handover.env import Handover
from envs.moon_survival import MoonSurvival
from envs.paired_features.env import PairedFeatures
from envs.paired_functions import PairedFunctions

ENVIRONMENTS: tuple[type[CoopEnv], ...] = (
    DesignReview,
    PairedFunctions,
    PairedFeatures,
    MoonSurvival,
    Handover,
)


def make(name: str, **kwargs: Any) -> CoopEnv:
    """An environment by class name, or by dotted path such as `my_lab.envs:Refactoring`.

    Args:
        name: "DesignReview", "PairedFunctions", "PairedFeatures", "MoonSurvival", "Handover" or `package.module:Class`.
        kwargs: the constructor arguments of that class.

    Raises:
        ValueError: there is no such environment (the message has the nearest name), or an argument is of another type
            or out of range.
    """
    return find_environment(name)(**kwargs)


def find_environment(name: str) -> type[CoopEnv]:
    """The class of a name, as `make` takes it. Raises ValueError where it is none."""
    known = {cls.__name__: cls for cls in ENVIRONMENTS}
    found = find(name, known, kind="environment", example="envs.cooperbench:CooperBench")
    if not (isinstance(found, type) and issubclass(found, CoopEnv)):
        raise ValueError(f"{name!r} is {found!r}, not a subclass of envs.CoopEnv.")
    if missing := ", ".join(sorted(found.__abstractmethods__)):
        raise ValueError(f"{name!r} is abstract: it has no {missing}. Use a subclass that has.")
    return found


def _register() -> None:
    """Enter every environment in PettingZoo's own registry: `pettingzoo.make("parallel", "marl_coop/Handover-v0")`."""
    for cls in ENVIRONMENTS:
        version = cls.metadata["name"].rpartition("_v")[2]
        id = f"marl_coop/{cls.__name__}-v{version}"
        if id not in pettingzoo.parallel_registry:
            pettingzoo.register("parallel", id, f"{cls.__module__}:{cls.__name__}")


_register()
