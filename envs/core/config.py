"""How an environment is configured: a class of typed fields, which are its arguments in Python and its keys in YAML."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from envs.core.design import Cells
from envs.core.episode import Phase
from envs.core.fields import ArgumentError, Fields
from envs.core.lookup import choose
from envs.core.task import Seat, seats_of

MAX_DISTRACTORS = 2  # options

Share = Annotated[float, Field(ge=0, le=1)]


class EnvConfig(Fields, frozen=True):
    """What every environment can be told. A subclass adds fields, narrows them or gives them other defaults.

    >>> class QuietConfig(EnvConfig, frozen=True):
    ...     rounds: Annotated[int, Field(ge=0, le=3)] = 0
    ...     pause_s: Annotated[float, Field(gt=0)] = 1.0
    >>> QuietConfig(pause_s=0.5).seats
    ('agent_0', 'agent_1')

    Raises:
        pydantic.ValidationError: a field that does not exist, or is of another type or out of range.
    """

    rounds: Annotated[int, Field(ge=0, le=100)] = 1
    """Messages of each seat."""
    confidences: bool = True
    """Ask for a confidence with every stance. Where none is asked for, every stance and act is held for certain,
    whatever confidence it names."""
    acts: bool = False
    """Read structured lines in replies (PROPOSE, COMMIT, EXPECT ...; `envs.core.grammar`) and say so in the prompts. A
    seat need not write any."""
    agents: Annotated[int, Field(ge=2, le=2)] = 2
    """Number of seats."""
    budget: Annotated[int, Field(le=10**9)] | None = None
    """Words and symbols (`envs.core.tokens.message_tokens`) of all replies of all seats together; None: no limit. Every
    step divides what is left evenly by the replies to come, says so in the prompt, and cuts what is longer."""
    system_prompt: Annotated[str, Field(min_length=1)] | None = None
    """The system message of every seat; None: that of the environment and the team's size."""
    render_mode: Literal["human", "ansi"] | None = None
    """None, "human" (`render()` prints) or "ansi" (`render()` returns text)."""

    @property
    def seats(self) -> tuple[Seat, ...]:
        return seats_of(self.agents)

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The phases of an episode, one per step."""
        return (Phase.STANCE, *[Phase.TALK] * (self.rounds if self.agents > 1 else 0), Phase.FINAL)

    @property
    def kept_for_evaluation(self) -> tuple[str, ...]:
        """What is chosen here though it is for evaluation alone, such as `families: page_size`; empty where nothing."""
        return ()

    @model_validator(mode="after")
    def _a_word_for_each_reply(self) -> Self:
        replies = self.agents * len(self.phases)
        if self.budget is not None and self.budget < replies:
            raise ArgumentError(
                f"budget is {self.budget!r}; it must be at least {replies}, one word for each reply, or None.",
                ("budget",),
            )
        return self


class DesignConfig(EnvConfig, frozen=True):
    """Of an environment in which the 2x2 design says who is right (`envs.core.design`)."""

    cells: Cells = Cells()
    """Weights of `both_right`, `one_right` and `both_wrong`."""
    cue_reliability: Share = 0.95
    """Probability that the reliable source is the right one where exactly one seat is right."""
    scaffold: Literal[False, "gap", "named", True] = False
    """Help that makes a task easier for a small model, and does not tell which option is right.

    "gap" gives the seat's function with a gap for the option, for the final answer. "named" repeats besides what the
    seat's own source claims, by the name that the brief has for it, before the final answer and in a team of more than
    two before a message; the seat need not look back. True repeats it with how good the source is, in one word for all
    that a brief may call it; the seat need not read what a source is called."""


class ExpertConfig(EnvConfig, frozen=True):
    """Of an environment in which one seat has a source that sounds reliable."""

    expert: Literal["cued", "hidden", "revealed", "falsely_revealed"] = "cued"
    """How a seat learns who has the reliable source. "cued": by what its own source is called; "hidden": not at all;
    "revealed": cued, and every brief names the seat that has it; "falsely_revealed": cued, and every brief names a seat
    that has it not. Estimates tell their standard errors in any case, and name nobody."""

    @model_validator(mode="after")
    def _somebody_to_point_to(self) -> Self:
        if self.expert != "cued" and self.agents < 2:
            raise ArgumentError(f"expert is {self.expert!r}; a seat alone is cued, as there is no other.", ("expert",))
        return self


class FamilyConfig(DesignConfig, ExpertConfig, frozen=True):
    """Of an environment of the 2x2 design whose tasks are drawn from families (`envs.families`)."""

    FAMILIES: ClassVar[tuple[Any, ...]] = ()  # what `families` are chosen from, each with a `name`
    HELD_OUT: ClassVar[tuple[str, ...]] = ()  # names of those that are only for evaluation
    FURTHER: ClassVar[Mapping[str, Sequence[Any]]] = {}  # word -> families that it chooses and that no name does

    families: str | Sequence[str] = "train"
    """Task families to draw from: "train" (all that may be trained on), "held_out" (the others), "all", or a list of
    names or dotted paths (`package.module:object`)."""
    distractors: Annotated[int, Field(ge=0, le=MAX_DISTRACTORS)] = MAX_DISTRACTORS
    """Wrong options beside the four that an instance is made of: the blends that the third plain option has with the
    others. With both the list tells nothing of what the partner claims; with fewer it does."""
    sources: Literal["few", "wide", "held_out", "matched"] = "wide"
    """What briefs call sources. "few": eight names for reliable and eight for doubtful ones, which an article tells
    apart; "wide": 64 of each, these among them, which no article tells apart. For evaluation, with no word of the
    others: "held_out", eight of each, and "matched", 32 of each that look alike but for what they mean. Families that
    hold their names out have one of these two; estimates, and sources whose cue is hidden, have names of their own."""

    @classmethod
    def choose_families(cls, families: str | Sequence[str]) -> tuple[Any, ...]:
        """The families of a choice. Raises ValueError where there is no such family, or none at all."""
        return choose(families, cls.FAMILIES, cls.HELD_OUT, argument="families", kind="family", further=cls.FURTHER)

    @classmethod
    def never_trained(cls) -> frozenset[str]:
        """The names of all families that are for evaluation alone."""
        return frozenset((*cls.HELD_OUT, *(family.name for further in cls.FURTHER.values() for family in further)))

    @property
    def kept_for_evaluation(self) -> tuple[str, ...]:
        families = (family.name for family in self.choose_families(self.families))
        sources = [] if self.sources in ("few", "wide") else [f"sources: {self.sources}"]
        return (*(f"families: {name}" for name in families if name in self.never_trained()), *sources)

    @field_validator("families")
    @classmethod
    def _families_exist(cls, families: str | Sequence[str]) -> str | Sequence[str]:
        cls.choose_families(families)
        return families
