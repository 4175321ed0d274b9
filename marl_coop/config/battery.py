"""A battery: the conditions under which a team is evaluated, as the strict schema of a YAML file. Loads no torch.

    episodes: 200
    conditions:
      - {name: unseen}
      - {name: persuader, partner: scripted:persuader, against: placebo}
      - {name: placebo, partner: scripted:placebo}

A condition changes the environment, who sits where, or what the team is told; everything else is as in the experiment.
All play the same instances, as far as these do not depend on what is changed.
"""

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from envs.core.lookup import nearest
from marl_coop.config.errors import ConfigError
from marl_coop.config.schema import Count, Name, Section, TaskSeed

OTHERS = "others"  # in the place of a partner: each other team that is evaluated, in turn

Who = Annotated[str, Field(min_length=1)]


class Condition(Section):
    """What differs from the experiment's own evaluation, which is the condition with a name alone.

    A team is named as on the command line: a run's folder or one of its checkpoints, `base`, `warm` (the base once it
    has learned the format of replies and nothing else), `scripted:NAME`, `frozen:FOLDER` or `URL#MODEL`.
    """

    name: Name
    env: dict[str, Any] = {}
    """Arguments of the environment that differ from those of the experiment's evaluation."""
    team: Who | None = None
    """Who plays in place of the teams that are evaluated, as a bar for all of them."""
    partner: Who | None = None
    """Who sits beside one seat of the team, which is each seat in turn; "others": every other team that is evaluated.
    Null: the team sits in all seats. Rates of seats are then those of the team's own."""
    swapped: bool = False
    """Every policy of the team moves on by one seat, so that what one was told before is told to the next."""
    advice: str | None = None
    """What the system message says in addition."""
    best_of: Count = 1
    """Attempts at each task, of which the one counts that passes most of the tests that the seats can run."""
    episodes: Count | None = None
    seed: TaskSeed | None = None
    against: Name | None = None
    """The condition that each team's difference is taken to, paired by task."""

    @model_validator(mode="after")
    def _what_has_an_effect(self) -> Self:
        if self.swapped and self.partner is not None:
            raise ValueError("swapped has no effect beside a partner: the team sits in each seat in turn anyway")
        return self


class Battery(Section):
    """Conditions, and what stands beside every team in each of them.

    Raises:
        pydantic.ValidationError: no condition, two of one name, or one that is compared with none that there is.
    """

    episodes: Count = 200
    """Tasks of a condition that does not say how many."""
    seed: TaskSeed = 0
    """Chooses the instances, and how replies are sampled."""
    batch_size: Count = 48
    """Episodes that are played at a time, those of all teams of a condition together."""
    floor: Who | None = "base"
    """The team that is to be bettered; null: none."""
    start: Who | None = None
    """A second floor: what reinforcement began with, such as `warm`, which is left out where there is no warm-up."""
    ceiling: Who | None = "scripted:ideal"
    """The team that no other can be expected to better by what seats are told; null: none."""
    conditions: Annotated[list[Condition], Field(min_length=1)]

    @model_validator(mode="after")
    def _names_lead_somewhere(self) -> Self:
        names = [condition.name for condition in self.conditions]
        for index, condition in enumerate(self.conditions):
            if condition.name in names[:index]:
                raise ConfigError(f"{condition.name!r} is the name of another condition", ("conditions", index, "name"))
            if condition.against == condition.name:
                raise ConfigError(f"{condition.name!r} is the condition itself", ("conditions", index, "against"))
            if condition.against is not None and condition.against not in names:
                problem = f"there is no condition {condition.against!r}; did you mean"
                near = nearest(condition.against, names)
                raise ConfigError(f"{problem} {near!r}?", ("conditions", index, "against"))
        return self
