"""Moon survival: a team ranks fifteen items, and whether to average or to defer depends on how noisy each seat is."""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from envs.core import posterior, prompts
from envs.core.config import EnvConfig, ExpertConfig, Share
from envs.core.design import draw_expert
from envs.core.env import SEATS, CoopEnv
from envs.core.episode import Outcome, StopReason, Turn
from envs.core.prompts import Nouns
from envs.core.task import QUALITY, Decision, Numeric, Seat, Task
from envs.families.base import pointer, shown

# From the most to the least useful, as NASA's crew equipment research section ranked them for the exercise of
# Hall & Watson, "The effects of a normative intervention on group decision-making performance", Human Relations 23 (4),
# 1970, 299-317. Names are shortened.
NASA_KEY = (
    "oxygen",
    "water",
    "star map",
    "food",
    "radio",
    "rope",
    "first-aid kit",
    "parachute silk",
    "life raft",
    "signal flares",
    "pistols",
    "milk powder",
    "heater",
    "compass",
    "matches",
)
TABLE_LISTS = 20_000
LETTERS = "ABCDEFGHIJKLMNO"
SOURCES = {  # no article tells which are reliable
    "strong": ("the flight manual", "a crew surgeon", "the rescue handbook", "a lunar geologist"),
    "weak": ("the comic", "an old film", "the pub quiz", "a passer-by"),
    "unknown": ("a crewmate", "a lecture", "a notebook", "an article"),
}


def ranks(values: Sequence[float] | np.ndarray) -> tuple[int, ...]:
    """The rank of each value, 1 for the smallest; of equal values the first has the better rank.

    >>> ranks([2.5, 0.1, 2.5])
    (2, 1, 3)
    """
    return tuple(int(rank) for rank in np.argsort(np.argsort(values, kind="stable")) + 1)


def _listed(source: str, names: Sequence[str], told: Sequence[int]) -> str:
    """What a brief says of a source's ranking."""
    return f"Your source, {source}, says {', '.join(f'{name} {rank}' for name, rank in zip(names, told, strict=True))}."


def score(ranking: Sequence[int], key: Sequence[int]) -> float:
    """1 - sum |r_i - k_i| / floor(n^2 / 2), in [0, 1]: 1 is the key, 0 the key upside down.

    The sum is the usual error of the exercise (Spearman's footrule); two random rankings of 15 items differ by
    (n^2 - 1) / 3 = 74.7 of at most 112, which scores 1/3.

    >>> score([1, 3, 2, 4], [1, 2, 3, 4])
    0.75
    """
    return 1 - sum(abs(r - k) for r, k in zip(ranking, key, strict=True)) / (len(key) ** 2 // 2)


@lru_cache(maxsize=32)
def rank_table(items: int, noise: float) -> np.ndarray:
    """[rank in the key, rank told]: how likely a list of that noise is to give an item a rank, from 20,000 lists.

    >>> rank_table(3, 0.01).round(2)[0]
    array([1., 0., 0.])
    """
    lists = np.arange(items) + noise * np.random.default_rng(0).standard_normal((TABLE_LISTS, items))
    told = lists.argsort(axis=1).argsort(axis=1)
    counts = np.ones((items, items))  # nothing is impossible
    np.add.at(counts, (np.broadcast_to(np.arange(items), told.shape), told), 1)
    return counts / counts.sum(axis=1, keepdims=True)


@lru_cache(maxsize=256)  # asked for each item
def rank_posterior(
    told: tuple[tuple[int | None, ...], ...],
    experts: tuple[int, ...],
    cue_reliability: float,
    expert_noise: float,
    novice_noise: float,
) -> np.ndarray:
    """[item, rank]: how likely each item has each rank in the key, by Bayes' rule over which list has less noise.

    Args:
        told: of each list, of which there are two or more, the rank of each item, from 1; None where it is not known.
        experts: the lists that may be the one that sounds reliable, each as likely.

    Items are taken as independent.

    >>> rank_posterior(((1, 2, 3), (3, 2, 1)), (1,), 1.0, 0.1, 9.0).argmax(axis=1) + 1
    array([3, 2, 1])
    """
    lists, items = len(told), len(told[0])
    unknown = np.ones(items)
    loud_LIR, quiet_LIR = (
        np.log([[table[:, rank - 1] if rank else unknown for rank in ranking] for ranking in told])
        for table in (rank_table(items, novice_noise), rank_table(items, expert_noise))
    )
    log_QIR = loud_LIR.sum(axis=0) + (quiet_LIR - loud_LIR)  # where list q is the quiet one
    peak_QIR = log_QIR.max(axis=2, keepdims=True)
    mass_QIR = np.exp(log_QIR - peak_QIR)
    total_QIR = mass_QIR.sum(axis=2, keepdims=True)
    pointed_at_QL = np.where(np.eye(lists, dtype=bool), cue_reliability, (1 - cue_reliability) / (lists - 1))
    with np.errstate(divide="ignore"):  # a list that cannot be the quiet one
        log_Q = np.log(pointed_at_QL[:, list(experts)].sum(axis=1)) + (np.log(total_QIR) + peak_QIR).sum(axis=(1, 2))
    mass_Q = np.exp(log_Q - log_Q.max())
    return np.tensordot(mass_Q / mass_Q.sum(), mass_QIR / total_QIR, axes=1)


class MoonSurvivalConfig(ExpertConfig, frozen=True):
    agents: Annotated[int, Field(ge=1, le=8)] = 2
    """Number of seats; one alone reads what a pair would."""
    cue_reliability: Share = 0.95
    """Probability that the reliable source is the one with less noise."""
    items: Annotated[int, Field(ge=3, le=len(NASA_KEY))] = 15
    """Number of items, drawn from the fifteen and ranked among themselves."""
    expert_noise: Annotated[float, Field(gt=0)] = 1.0
    """Standard deviation of the error, in ranks, of one seat."""
    novice_noise: Annotated[float, Field(gt=0)] = 4.0
    """Standard deviation of the error, in ranks, of all others."""
    renamed: bool = False
    """Call the items A, B, C ... in the order of the brief."""
    settle: Literal["each", "vote"] = "each"
    """Whose ranking counts: with "each" that of every seat, with "vote" one for all by the mean of the final ranks, as
    in Borda's count."""


class MoonSurvival(CoopEnv[MoonSurvivalConfig]):
    """Each seat ranks the items that are left after a crash on the moon; the closer to NASA's ranking the better.

    ## Description
    Every seat was told a ranking that is the key with noise: each rank is moved by a normal error, then all are ranked
    again. One seat has less noise than the others, by default. Mostly, but not always, it is also the one whose source
    sounds reliable. With equal noise the mean of all rankings is best, with one quiet seat it is best to follow that
    seat, and in between to weigh both: nobody can know by rule. A language model may know the key by heart: `renamed`
    calls the items by letters. A single seat (`agents=1`) reads what a pair would.

    ## Action space, observation space, phases, episode end, state, infos
    As in `CoopEnv`. Every item is a decision and its ranks, from "1", are the options, so a stance has one line for
    each item: `Answer oxygen: 1 (80%)`. Items that are given one rank stand in the order of the brief.

    ## Rewards
    0.0 until the end; then U = mean over seats of the `score` of the seat's final ranking, 0 for one that cannot be
    read, unless `settle` says that they vote. Success: no ranking that counts is further from the key than the best of
    those that the seats were told. A seat is committed to its own final ranking. An item's own utility falls evenly
    from 1 at its rank in the key to 0 at n - 1 ranks away.

    ## Arguments
    The fields of `MoonSurvivalConfig`.

    ## Example
    >>> env = MoonSurvival(items=3)
    >>> observations, infos = env.reset(seed=0)
    >>> while env.agents:  # here each seat would reply to its observation
    ...     ranks = "\\n".join(f"Answer {item.id}: {item.best}" for item in env.task.decisions)
    ...     observations, rewards, *_ = env.step(dict.fromkeys(env.agents, ranks))
    >>> rewards
    {'agent_0': 1.0, 'agent_1': 1.0}

    ## Version history
    v0: first version.
    """

    metadata: ClassVar[dict[str, Any]] = {**CoopEnv.metadata, "name": "moon_survival_v0"}
    LADDER: ClassVar[Sequence[Mapping[str, Any]]] = (
        {"items": 4, "cue_reliability": 1.0, "expert_noise": 0.5, "novice_noise": 4.0},
        {"items": 6, "cue_reliability": 1.0, "expert_noise": 1.0, "novice_noise": 4.0},
        {"items": 10, "cue_reliability": 0.95, "expert_noise": 1.0, "novice_noise": 4.0},
        {"items": 15, "cue_reliability": 0.95, "expert_noise": 1.0, "novice_noise": 4.0},
        {"items": 15, "cue_reliability": 0.8, "expert_noise": 1.0, "novice_noise": 2.0},
    )

    Config: ClassVar[type[EnvConfig]] = MoonSurvivalConfig
    WORK: ClassVar[str] = "rank what is left after a crash on the moon"
    NOUNS: ClassVar[Nouns] = Nouns("item", "rank")

    def make_task(self, seed: int) -> Task:
        rng = np.random.default_rng(seed)
        readers = self.seats if len(self.seats) > 1 else SEATS  # one seat alone reads what a pair would
        # places in the key, in the order of the brief
        listed = rng.permutation(len(NASA_KEY))[: self.config.items]
        names = LETTERS[: self.config.items] if self.config.renamed else [NASA_KEY[place] for place in listed]
        key = ranks(listed)
        quiet = int(rng.integers(len(readers)))
        noise = {s: self.config.expert_noise if i == quiet else self.config.novice_noise for i, s in enumerate(readers)}
        told = {s: ranks(np.array(key) + noise[s] * rng.standard_normal(self.config.items)) for s in readers}
        expert = readers[draw_expert(tuple(i == quiet for i in range(len(readers))), self.config.cue_reliability, rng)]
        cue = {seat: "strong" if seat == expert else "weak" for seat in readers}
        hidden = self.config.expert == "hidden"
        source = {s: str(rng.choice(SOURCES["unknown" if hidden else cue[s]])) for s in readers}
        lists = {s: _listed(source[s], names, told[s]) for s in readers}
        middle = [str(round(mean)) for mean in np.mean([told[s] for s in readers], axis=0)]
        read = []
        if len(self.seats) == 1:  # it believes the list that sounds reliable
            (alone,) = self.seats
            read = [(QUALITY[cue[s]], told[s]) for s in readers]
            told, noise, cue = {alone: told[expert]}, {alone: noise[expert]}, {alone: "strong"}
            lists, expert, source = {alone: " ".join(lists.values())}, alone, {}
        options = tuple(map(str, range(1, self.config.items + 1)))
        decisions = tuple(
            shown(
                Decision(
                    id=name,
                    options=options,
                    utility={option: 1 - abs(int(option) - key[i]) / (self.config.items - 1) for option in options},
                    belief={seat: str(told[seat][i]) for seat in self.seats},
                    expert=expert,
                    cue=cue,
                    source=source,
                    blends=(middle[i],),
                    numeric=Numeric(truth=float(key[i]), tolerance=0.5, sigma=noise),
                    read=tuple((str(order[i]), quality) for quality, order in read),
                ),
                self.config.expert,
            )
            for i, name in enumerate(names)
        )
        team = prompts.team(len(self.seats))
        crash = f"{team} crashed on the moon and must walk 320 km to the mother ship. Rank what is left, 1 first."
        return Task(
            id=f"moon-{seed}",
            family="moon",
            seed=seed,
            seats=self.seats,
            briefs={seat: f"{crash} {lists[seat]}{pointer(decisions[0], seat)}" for seat in self.seats},
            decisions=decisions,
            cell={seat: told[seat] == key for seat in self.seats},
            topics=self.config.items,
        )

    def pools(self, decision: Decision) -> bool:
        return True

    def pooled(self, seat: Seat, decision: Decision) -> str | None:
        return next(iter(self.posterior(seat, decision))) if self.claims(seat, decision) else None

    def posterior(self, seat: Seat, decision: Decision) -> dict[str, float]:
        """As in `CoopEnv`, by all rankings that the seat was told; the ranks to choose make a whole ranking."""
        told, experts = self._told_to(seat)
        c = self.config
        chance_IR = rank_posterior(told, experts, c.cue_reliability, c.expert_noise, c.novice_noise)
        # `score` counts distances, and the median is the answer from which they are least
        ranking = ranks([np.interp(0.5, chance_R.cumsum(), range(c.items)) for chance_R in chance_IR])
        i = self.task.decisions.index(decision)
        chances = dict(zip(decision.options, chance_IR[i].tolist(), strict=True))
        return {str(ranking[i]): chances.pop(str(ranking[i]))} | chances

    def _told_to(self, seat: Seat) -> tuple[tuple[tuple[int | None, ...], ...], tuple[int, ...]]:
        """The lists that the seat knows of, its own first, and the places of those that may sound reliable."""
        decisions = self.task.decisions
        if len(self.seats) == 1:  # its brief has both
            lists = re.findall(r"Your source, (.+?), says (.+?)\.", self.task.briefs[seat])
            told = tuple(tuple(map(int, re.findall(r" (\d+)(?:,|$)", listed))) for _, listed in lists)
            return told, tuple(i for i, (source, _) in enumerate(lists) if source in SOURCES["strong"])
        order = [seat, *(partner for partner in self.seats if partner != seat)]
        named = [{seat: d.belief[seat]} | {s: c.option for s, c in self.claims(seat, d).items()} for d in decisions]
        told = tuple(tuple(int(given[s]) if s in given else None for given in named) for s in order)
        return told, tuple(order.index(expert) for expert in posterior.experts(self.view(seat), decisions[0]))

    def finish(self, turns: Mapping[Seat, Turn]) -> tuple[Outcome, StopReason]:
        decisions = self.task.decisions
        key = [int(decision.best) for decision in decisions]
        committed: dict[Seat, dict[str, str | None]] = {}
        final = {seat: ranks([int(stance.option) for stance in turns[seat].stances]) for seat in self.seats}
        for seat, ranking in final.items():
            answers = map(str, ranking) if ranking else [None] * len(decisions)
            committed[seat] = {d.id: answer for d, answer in zip(decisions, answers, strict=True)}
        counted = list(final.values())
        if self.config.settle == "vote":
            votes = [ranking for ranking in counted if ranking]
            counted = [ranks(np.mean(votes, axis=0)) if votes else ()]
        scores = [score(ranking, key) if ranking else 0.0 for ranking in counted]
        best_told = max(score([int(d.belief[seat]) for d in decisions], key) for seat in self.seats)
        outcome = Outcome(utility=float(np.mean(scores)), success=min(scores) >= best_told, committed=committed)
        return outcome, StopReason.FINISHED
