"""What is to be settled: a task, its decisions, its briefs and its hidden tests."""

from collections.abc import Mapping
from dataclasses import dataclass, field

Seat = str  # "agent_0", "agent_1", ...
BOTH = " and "  # between the names of what one seat writes
QUALITY = {"strong": "reliable", "weak": "doubtful", "unknown": "unrated"}  # a cue in one word


def seats_of(agents: int) -> tuple[Seat, ...]:
    """The names of a team's seats.

    >>> seats_of(3)
    ('agent_0', 'agent_1', 'agent_2')
    """
    return tuple(f"agent_{i}" for i in range(agents))


@dataclass(frozen=True, slots=True, kw_only=True)
class Numeric:
    """The domain of a decision whose answer is a number.

    An answer is right when it lies within `tolerance` of `truth`. `sigma` is the standard error of each seat's own
    number, from which the precision-weighted pool of both follows (weights 1 / sigma^2). `estimate` is whether the
    briefs give it: both numbers are then measurements of one quantity, and where they are equally good the right
    answer lies between them. Elsewhere a source claims a number and one of the claims is to be followed.
    """

    truth: float
    tolerance: float
    sigma: Mapping[Seat, float]
    estimate: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One contract that both seats must settle.

    `options` are what a seat may answer, `utility` their worth in [0, 1], `blends` the options that are a compromise
    between claims, `distractors` those that are one with an option which no source claims. `belief` is what each seat's
    brief says, `expert` the seat that the cues point to and `cue` what each seat was told of its own source ("strong",
    "weak" or, where that is hidden, "unknown"). `revealed` is the seat that every brief names as the one with the
    reliable source, which need not be so; None: they name none. Briefs are private, so no seat reads another's belief.
    `source` is what the brief of each seat calls its source, where that has a name.
    `read` is what each source of a brief claims that has those of a pair, and how good it is, in their order; its seat,
    which is alone, believes the one that sounds reliable.
    """

    id: str
    options: tuple[str, ...]
    utility: Mapping[str, float]
    belief: Mapping[Seat, str]
    expert: Seat
    cue: Mapping[Seat, str]
    blends: tuple[str, ...] = ()
    numeric: Numeric | None = None
    weight: float = 1.0
    revealed: Seat | None = None
    source: Mapping[Seat, str] = field(default_factory=dict)
    distractors: tuple[str, ...] = ()
    read: tuple[tuple[str, str], ...] = ()

    def utility_of(self, option: str | None) -> float:
        """Worth in [0, 1] of an answer; 0 for no answer and for an option that does not exist."""
        return 0.0 if option is None else self.utility.get(option, 0.0)

    @property
    def best(self) -> str:
        """The option with the highest utility (the first of them)."""
        return max(self.options, key=self.utility_of)

    @property
    def claimable(self) -> tuple[str, ...]:
        """The options that a source could name: no blend, unless of an estimate, which may lie between the claims."""
        unclaimed = () if self.is_estimate else (*self.blends, *self.distractors)
        return tuple(option for option in self.options if option not in unclaimed)

    @property
    def is_estimate(self) -> bool:
        return self.numeric is not None and self.numeric.estimate

    def quality(self, seat: Seat) -> str:
        """How good the seat's source is: "reliable", "doubtful" or, of an estimate, its standard error, "+- 8"."""
        if self.numeric is not None and self.numeric.estimate:
            return f"+- {self.numeric.sigma[seat]:g}"
        return QUALITY[self.cue[seat]]

    def told(self, seat: Seat) -> str:
        """What the seat's brief says: its belief, with the standard error where it is an estimate: "140 +- 8"."""
        return f"{self.belief[seat]} {self.quality(seat)}" if self.is_estimate else self.belief[seat]

    def is_right(self, option: str | None) -> bool:
        return option is not None and self.utility_of(option) == self.utility_of(self.best)


@dataclass(frozen=True, slots=True, kw_only=True)
class HiddenTest:
    """One test of the merged module: an expression that must be true. `part` is a seat, or "" for the whole."""

    part: Seat | str
    expression: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    id: str
    family: str
    seed: int
    seats: tuple[Seat, ...]
    briefs: Mapping[Seat, str]
    decisions: tuple[Decision, ...]
    cell: Mapping[Seat, bool]  # which seats' briefs are right on every decision: the 2x2 design
    stubs: Mapping[Seat, str] = field(default_factory=dict)  # what each seat writes, a function or "one and other"
    # seat -> decision -> option -> expressions, each true iff the seat's part follows the option on one input
    probes: Mapping[Seat, Mapping[str, Mapping[str, tuple[str, ...]]]] = field(default_factory=dict)
    hidden_tests: tuple[HiddenTest, ...] = ()
    reference_tokens: int = 0  # size of a solution of all parts, in `message_tokens`
    topics: int = 1  # things that a seat has to tell or to ask: talk is priced by their number
    files: Mapping[str, str] = field(default_factory=dict)  # path -> text of the repository that both seats start from

    def __post_init__(self) -> None:
        if self.topics < 1:
            raise ValueError(f"Task {self.id!r}: topics is {self.topics}; it must be at least 1.")

    def decision(self, id: str) -> Decision:
        return next(d for d in self.decisions if d.id == id)
