"""What every family gives: readings of one contract, and for code how two functions realise each of them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

import numpy as np

from envs.core.design import draw_expert
from envs.core.task import Decision, Numeric, Seat
from envs.core.tokens import message_tokens
from envs.families.sources import SOURCES, TRAINED_ON, Sources

SIGMA = {"strong": 0.3, "weak": 1.5}  # standard error of a source, as a share of the gap between the two claims
TOPIC_TOKENS = 4  # words and symbols in which a topic can be told
TOLERANCE = 0.1  # of that gap, so that the mean of the two claims is never right


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractOptions:
    """Three plain readings of a contract and their blends. Sources only ever claim one of the `claims`.

    Which of the two claims is right is drawn later, so nothing in a reading's wording or size can give it away. Nor can
    the list of all six: any two of the three plain readings might as well be the claims, and each pair has its blend.
    `blends` are those of the claims, of the second claim and `other`, and of `other` and the first claim.
    """

    claims: tuple[str, str]
    other: str
    blends: tuple[str, str, str]
    numeric: bool = False

    @classmethod
    def of(cls, plain: Sequence[str], blend: Callable[[str, str], str], *, numeric: bool = False) -> Self:
        """ContractOptions of three that come in any order, as likely; a blend may have one of its two first."""
        a, b, c = plain
        return cls(claims=(a, b), other=c, blends=(blend(a, b), blend(b, c), blend(c, a)), numeric=numeric)

    def options(self, distractors: int) -> tuple[str, ...]:
        """Both claims, their blend, the third reading, and as many of the other blends."""
        return (*self.claims, self.blends[0], self.other, *self.blends[1 : 1 + distractors])


class Family(ABC):
    """A source of decisions: `draw` gives the readings, `decide` says which is right and who claims what."""

    name: str  # the decision's id

    @abstractmethod
    def draw(self, rng: np.random.Generator) -> ContractOptions:
        """Different readings of the contract, any two of the plain ones as likely to be the claims."""

    def decide(
        self,
        right: tuple[bool, ...],
        seats: tuple[Seat, ...],
        rng: np.random.Generator,
        *,
        cue_reliability: float,
        distractors: int = 0,
    ) -> Decision:
        """A decision on which `right` says whose claim is right, with `distractors` blends of the third reading."""
        return draw_decision(self.name, self.draw(rng), right, cue_reliability, seats, rng, distractors)


class FunctionFamily(Family):
    """A contract between two small functions. Parts are numbered 0 and 1; a seat may write either."""

    kind: Literal["categorical", "numeric", "estimate", "structural"]
    contract: str  # what both must share, in words: "offset"
    signatures: tuple[str, str]  # "encode(n)", "decode(n)"
    glosses: tuple[str, str]  # what each does, in a few words

    def __init__(self, *, held_out: bool = False):
        """With `held_out` its sources and its numbers are none that training has."""
        self.held_out = held_out

    def sources(self, chosen: str) -> Sources:
        """Names for the sources of its instances, where a configuration chooses some (`envs.families.sources`)."""
        return SOURCES["held_out" if self.held_out and chosen in TRAINED_ON else chosen]

    def stream(self, seed: int, shared: np.random.Generator) -> np.random.Generator:
        """What the instance of a seed is drawn from: `shared`, or where it is held out a generator of its own, as
        families that draw alike from one generator have the same numbers."""
        return np.random.default_rng((seed, *self.name.encode())) if self.held_out else shared

    def function(self, part: int) -> str:
        """The bare name of a part's function."""
        return self.signatures[part].partition("(")[0]

    @abstractmethod
    def source(self, part: int, option: str) -> str:
        """Python, mostly one line: the part's function under a reading; `envs.core.prompts.GAP` makes a gap."""

    @abstractmethod
    def check(self, part: int, option: str, n: int) -> str:
        """An expression that is true iff the part's function follows a reading, on an input made from n (1..9).

        `same(x, y)` compares value and type (see envs.sandbox).
        """

    @abstractmethod
    def round_trip(self, n: int) -> str:
        """An expression on both functions that is true iff they follow the same reading, on an input made from n."""


def draw_numbers(rng: np.random.Generator, low: int, high: int) -> ContractOptions:
    """ContractOptions that are whole numbers in [low, high], at least 12 apart; blends are exact means.

    All are at least 2 apart, and claims at most 18, so no other reading lies within the tolerance of one.
    """
    while True:
        near, far = (2 * int(half) for half in rng.integers(2, 8, size=2))
        if abs(near - far) >= 4 and near + far <= min(18, high - low):
            break
    lowest = int(rng.integers(low, high - near - far + 1))
    plain = shuffled([str(lowest), str(lowest + near), str(lowest + near + far)], rng)
    return ContractOptions.of(plain, lambda a, b: str((int(a) + int(b)) // 2), numeric=True)


def draw_decision(
    id: str,
    readings: ContractOptions,
    right: tuple[bool, ...],
    cue_reliability: float,
    seats: tuple[Seat, ...],
    rng: np.random.Generator,
    distractors: int,
) -> Decision:
    """Decide which reading is right and who claims what, such that `right` says which seats claim the right one.

    Where all are wrong, they claim the same reading or different ones with equal chance. Every seat always claims
    one of `readings.claims`, whether it is right or not, so the options tell a seat nothing about its own claim.
    """
    first, second = (readings.claims[i] for i in rng.permutation(2))
    if not any(right):
        if rng.random() < 0.5:
            others = int(rng.integers(1, 2 ** (len(seats) - 1)))  # bit i: whether seat i + 1 claims the second
            beliefs: tuple[str, ...] = (first, *((first, second)[others >> i & 1] for i in range(len(seats) - 1)))
            truth = readings.other
        else:
            beliefs, truth = (first,) * len(seats), (second, readings.other)[rng.integers(2)]
    else:
        truth = first
        beliefs = tuple(truth if is_right else second for is_right in right)
    expert = draw_expert(right, cue_reliability, rng)
    cue = {seat: "strong" if i == expert else "weak" for i, seat in enumerate(seats)}
    options = shuffled(readings.options(distractors), rng)
    numeric = None
    if readings.numeric:
        gap = abs(float(first) - float(second))
        sigma = {seat: SIGMA[cue[seat]] * gap for seat in seats}
        numeric = Numeric(truth=float(truth), tolerance=TOLERANCE * gap, sigma=sigma)
    return Decision(
        id=id,
        options=options,
        utility={option: float(option == truth) for option in options},
        belief=dict(zip(seats, beliefs, strict=True)),
        expert=seats[expert],
        cue=cue,
        blends=readings.blends[:1],
        distractors=readings.blends[1 : 1 + distractors],
        numeric=numeric,
    )


def shuffled(options: Sequence[str], rng: np.random.Generator) -> tuple[str, ...]:
    return tuple(options[int(i)] for i in rng.permutation(len(options)))


def shown(decision: Decision, expert: str) -> Decision:
    """The decision as its briefs are to tell of the expert (`envs.core.config.FamilyConfig.expert`)."""
    if expert == "cued" or decision.is_estimate:
        return decision
    if expert == "hidden":
        return replace(decision, cue=dict.fromkeys(decision.cue, "unknown"))
    seats = list(decision.cue)
    after = seats[(seats.index(decision.expert) + 1) % len(seats)]  # the expert's place is random already
    return replace(decision, revealed=decision.expert if expert == "revealed" else after)


def pointer(decision: Decision, seat: Seat) -> str:
    """The sentence of a seat's brief on who has the reliable source, with a space before it; "" where it names none."""
    if decision.revealed is None:
        return ""
    if decision.revealed == seat:
        return " The reliable source is yours."
    return f" The reliable source is {'your partner' if len(decision.cue) == 2 else decision.revealed}'s."


def alone(decision: Decision, seat: Seat) -> Decision:
    """The decision of a pair for one seat that reads both sources: it believes the one that sounds reliable or, of an
    estimate, what both add up to."""
    belief, numeric = decision.belief[decision.expert], decision.numeric
    if numeric is not None:
        if numeric.estimate:
            weights = [numeric.sigma[other] ** -2 for other in decision.belief]
            pool = np.average([float(claimed) for claimed in decision.belief.values()], weights=weights)
            belief = min(decision.options, key=lambda option: abs(float(option) - pool))
        numeric = replace(numeric, sigma={seat: numeric.sigma[decision.expert]})
    read = tuple((claimed, decision.quality(other)) for other, claimed in decision.belief.items())
    cue = {seat: "strong"}
    return replace(decision, belief={seat: belief}, expert=seat, cue=cue, source={}, numeric=numeric, read=read)


def claim(decision: Decision, seat: Seat) -> str:
    """What the seat's own source says of a decision, without the full stop: `Your source, the signed spec, says 17` or,
    with the standard error of an estimate, `Your source, the night trace, measured 140 +- 8`."""
    verb = "measured" if decision.is_estimate else "says"
    return f"Your source, {decision.source[seat]}, {verb} {decision.told(seat)}"


def topics(decisions: Sequence[Decision]) -> int:
    """How many topics it is to tell the claims on some decisions: one for each 4 tokens (`TOPIC_TOKENS`) that the
    longest claim takes, with the name of its decision where there are several.

    >>> d = Decision(id="day", options=("ISO", "day of year"), utility={}, belief={}, expert="agent_0", cue={})
    >>> topics([d]), topics([d, d])  # "day of year" takes 3 tokens and "day: day of year" takes 5
    (1, 4)
    """
    counted = 0
    for decision in decisions:
        name = f"{decision.id}: " if len(decisions) > 1 else ""
        errors = [decision.quality(seat) if decision.is_estimate else "" for seat in decision.belief] or [""]
        told = (f"{name}{option} {error}" for option in decision.claimable for error in errors)
        counted += -(-max(map(message_tokens, told)) // TOPIC_TOKENS)
    return counted


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewFamily(Family):
    """A design decision with no code: options that can each be argued for, every one with its own reason.

    A reason belongs to the option and not to whether it is right, so an argument alone settles nothing.
    """

    name: str  # the decision's id
    question: str  # "How do callers sign in?"
    reasons: dict[str, str]  # option -> the requirement that a source gives for it
    blend: str  # a template of two options: "{} inside {}"

    def draw(self, rng: np.random.Generator) -> ContractOptions:
        return ContractOptions.of(shuffled(tuple(self.reasons), rng)[:3], self.blend.format)
