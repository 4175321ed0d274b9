"""An ablation: arms times seeds, as the strict schema of a YAML file. Loads no torch.

name: terms
config: [configs/quickstart.yaml]
seeds: [0, 1, 2, 3, 4]
reference: balanced
arms:
  balanced: {config: [configs/presets/balanced.yaml]}
  task_only: {config: [configs/presets/task_only.yaml]}
"""

from collections.abc import Iterator
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from envs.core.lookup import nearest
from marl_coop.config.errors import ConfigError, check_folders
from marl_coop.config.schema import Name, Section, Seed
from rewards.metrics import METRICS

Seeds = Annotated[list[Seed], Field(min_length=1)]


class Arm(Section):
    """What one arm lays over what all arms have: files, from left to right, and then overrides.

    `seeds`: of the ablation's, those that the arm is trained with; null: all."""

    config: list[str] = []
    set: list[str] = []
    seeds: Seeds | None = None


class Ablation(Section):
    """Arms times seeds; `config` and `set` lie below those of each arm. Files are sought as on the command line.

    Raises:
        pydantic.ValidationError: fewer than two arms, or two that differ in case alone, a seed twice, or a reference
            that is no arm.
    """

    name: Name
    config: Annotated[list[str], Field(min_length=1)]
    set: list[str] = []
    seeds: Seeds = [0, 1, 2, 3, 4]
    reference: str
    """The arm that all others are compared with."""
    metric: str = "j"
    """What the claim is about, said before anything is run."""
    equal_episodes: bool = True
    """Refuse arms that train on more or fewer episodes than the reference."""
    slurm: dict[str, Any] = {}
    """Parameters of submitit's executor, such as timeout_min, gpus_per_node and slurm_partition."""
    arms: Annotated[dict[Name, Arm], Field(min_length=2)]

    @model_validator(mode="after")
    def _names_lead_somewhere(self) -> Self:
        check_folders(self.arms, ("arms",))
        for keys, seeds in self._all_seeds():
            if len(set(seeds)) < len(seeds):
                raise ConfigError(f"{seeds} has a seed twice", keys)
            if others := [seed for seed in seeds if seed not in self.seeds]:
                raise ConfigError(f"{others[0]} is none of the ablation's seeds, {self.seeds}", keys)
        for key, name, known in (("reference", self.reference, self.arms), ("metric", self.metric, METRICS)):
            if name not in known:
                raise ConfigError(f"there is no {name!r}; did you mean {nearest(name, known)!r}?", (key,))
        return self

    def seeds_of(self, arm: str) -> list[int]:
        """The seeds that an arm is trained with."""
        return self.arms[arm].seeds or self.seeds

    def _all_seeds(self) -> Iterator[tuple[tuple[str, ...], list[int]]]:
        yield ("seeds",), self.seeds
        for name, arm in self.arms.items():
            if arm.seeds is not None:
                yield ("arms", name, "seeds"), arm.seeds
