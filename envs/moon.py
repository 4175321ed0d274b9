"""Moon survival: a team ranks fifteen items, and whether to average or to defer depends on how noisy each seat is."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from envs.base import SEATS, CoopEnv
from envs.cells import draw_expert
from envs.episode import Outcome, StopReason, Turn
from envs.task import Decision, Numeric, Seat, Task

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
LETTERS = "ABCDEFGHIJKLMNO"
SOURCES = {
    "strong": ("the flight manual", "a crew surgeon", "the rescue handbook", "a lunar geologist"),
    "weak": ("a comic", "an old film", "a pub quiz", "a passer-by"),
}


def ranks(values: Sequence[float]) -> tuple[int, ...]:
    """The rank of each value, 1 for the smallest; of equal values the first has the better rank.

    >>> ranks([2.5, 0.1, 2.5])
    (2, 1, 3)
    """
    return tuple(int(rank) for rank in np.argsort(np.argsort(values, kind="stable")) + 1)


def score(ranking: Sequence[int], key: Sequence[int]) -> float:
    """1 - sum |r_i - k_i| / floor(n^2 / 2), in [0, 1]: 1 is the key, 0 the key upside down.

    The sum is the usual error of the exercise (Spearman's footrule); two random rankings of 15 items differ by
    (n^2 - 1) / 3 = 74.7 of at most 112, which scores 1/3.

    >>> score([1, 3, 2, 4], [1, 2, 3, 4])
    0.75
    """
    return 1 - sum(abs(r - k) for r, k in zip(ranking, key, strict=True)) / (len(key) ** 2 // 2)


class MoonSurvival(CoopEnv):
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
    read. Success: no seat ends further from the key than the best of the rankings that they were told. An item's own
    utility falls evenly from 1 at its rank in the key to 0 at n - 1 ranks away.

    ## Arguments
    As in `CoopEnv`, without families, cells and scaffold, with agents from 1 to 8, and
    cue_reliability: in [0, 1]; probability that the reliable source is the one with less noise.
    items: number of items, 3 to 15, drawn from the fifteen and ranked among themselves.
    expert_noise, novice_noise: standard deviation of the error, in ranks, of one seat and of all others; above 0.
    renamed: call the items A, B, C ... in the order of the brief.

    ## Version history
    v0: first version.
    """

    metadata: ClassVar[dict[str, Any]] = {**CoopEnv.metadata, "name": "moon_survival_v0"}
    TEAM_SIZES: ClassVar[range] = range(1, 9)
    DECISION, OPTION = "item", "rank"

    def __init__(
        self,
        *,
        items: int = 15,
        expert_noise: float = 1.0,
        novice_noise: float = 4.0,
        renamed: bool = False,
        cue_reliability: float = 0.95,
        rounds: int = 1,
        confidences: bool = True,
        acts: bool = False,
        agents: int = 2,
        budget: int | None = None,
        render_mode: str | None = None,
    ):
        super().__init__(
            cue_reliability=cue_reliability,
            rounds=rounds,
            confidences=confidences,
            acts=acts,
            agents=agents,
            budget=budget,
            render_mode=render_mode,
        )
        if not isinstance(items, int) or not 3 <= items <= len(NASA_KEY):
            raise ValueError(f"items is {items!r}; it must be a whole number from 3 to {len(NASA_KEY)}.")
        for name, noise in (("expert_noise", expert_noise), ("novice_noise", novice_noise)):
            if not 0 < noise < float("inf"):
                raise ValueError(f"{name} is {noise!r}; it must be a number above 0.")
        self.items, self.renamed = items, renamed
        self.expert_noise, self.novice_noise = expert_noise, novice_noise
        self.cells = None

    def make_task(self, seed: int) -> Task:
        rng = np.random.default_rng(seed)
        readers = self.seats if len(self.seats) > 1 else SEATS  # one seat alone reads what a pair would
        listed = rng.permutation(len(NASA_KEY))[: self.items]  # their places in the key, in the order of the brief
        names = LETTERS[: self.items] if self.renamed else [NASA_KEY[place] for place in listed]
        key = ranks(listed)
        quiet = int(rng.integers(len(readers)))
        noise = {s: self.expert_noise if i == quiet else self.novice_noise for i, s in enumerate(readers)}
        told = {s: ranks(np.array(key) + noise[s] * rng.standard_normal(self.items)) for s in readers}
        expert = readers[draw_expert(tuple(i == quiet for i in range(len(readers))), self.cue_reliability, rng)]
        cue = {seat: "strong" if seat == expert else "weak" for seat in readers}
        lists = {s: self._list(cue[s], names, told[s], rng) for s in readers}
        if len(self.seats) == 1:  # it believes the list that sounds reliable
            (alone,) = self.seats
            told, noise, cue = {alone: told[expert]}, {alone: noise[expert]}, {alone: "strong"}
            lists, expert = {alone: " ".join(lists.values())}, alone
        options = tuple(map(str, range(1, self.items + 1)))
        decisions = tuple(
            Decision(
                id=name,
                options=options,
                utility={option: 1 - abs(int(option) - key[i]) / (self.items - 1) for option in options},
                belief={seat: str(told[seat][i]) for seat in self.seats},
                expert=expert,
                cue=cue,
                blends=(str(round(np.mean([told[seat][i] for seat in self.seats]))),),
                numeric=Numeric(truth=float(key[i]), tolerance=0.5, sigma=noise),
            )
            for i, name in enumerate(names)
        )
        crash = f"{self._team} crashed on the moon and must walk 320 km to the mother ship. Rank what is left, 1 first."
        return Task(
            id=f"moon-{seed}",
            family="moon",
            seed=seed,
            seats=self.seats,
            briefs={seat: f"{crash} {lists[seat]}" for seat in self.seats},
            decisions=decisions,
            cell={seat: told[seat] == key for seat in self.seats},
        )

    def _list(self, cue: str, names: Sequence[str], told: Sequence[int], rng: np.random.Generator) -> str:
        ranked = ", ".join(f"{name} {rank}" for name, rank in zip(names, told, strict=True))
        return f"Your source, {rng.choice(SOURCES[cue])}, says {ranked}."

    def finish(self, turns: Mapping[Seat, Turn]) -> tuple[Outcome, StopReason]:
        decisions = self.task.decisions
        key = [int(decision.best) for decision in decisions]
        committed: dict[Seat, dict[str, str | None]] = {}
        scores = []
        for seat in self.seats:
            ranking = ranks([int(stance.option) for stance in turns[seat].stances])
            scores.append(score(ranking, key) if ranking else 0.0)
            answers = map(str, ranking) if ranking else [None] * len(decisions)
            committed[seat] = {d.id: answer for d, answer in zip(decisions, answers, strict=True)}
        best_told = max(score([int(d.belief[seat]) for d in decisions], key) for seat in self.seats)
        outcome = Outcome(utility=float(np.mean(scores)), success=min(scores) >= best_told, committed=committed)
        return outcome, StopReason.FINISHED
