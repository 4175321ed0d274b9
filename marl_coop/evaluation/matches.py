"""A match is one team in one condition: which tasks it plays, who sits where, and where its episodes are kept."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from envs.core.env import CoopEnv
from envs.core.episode import Episode, StopReason
from envs.core.task import Seat
from envs.scripted import play as scripted
from envs.scripted.base import Partner
from marl_coop.evaluation.seating import Seating
from marl_coop.players import Mix, Player, player_name
from marl_coop.runs.records import read_episodes, write_episodes

AGAIN = 2**40  # between the sampling seeds of two attempts at a task


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A team in a condition.

    Attributes:
        who, condition: their names.
        make_env: gives a fresh environment.
        seating: who sits where.
        task_seeds: the tasks, in order.
        sampling_seed: of the replies that are sampled.
        best_of: attempts at each task, of which the one counts that passes most of the visible tests.
        file: where the episodes are kept; its name is made of all that they depend on.
    """

    who: str
    condition: str
    make_env: Callable[[], CoopEnv]
    seating: Seating[Player | Mix]
    task_seeds: Sequence[int]
    sampling_seed: int = 0
    best_of: int = 1
    file: Path

    def judged(self, episode: Episode) -> tuple[Seat, ...]:
        """The seats of an episode that the team had."""
        return self.seating.judged(episode.seats, episode.task.seed)


Play = Callable[[Sequence[tuple[Match, int]], int], list[Episode]]
"""Plays tasks of matches of one condition, each given by its seed, with a seed of the sampling; an episode for each, in
order."""


def play_scripted(tasks: Sequence[tuple[Match, int]], sampling_seed: int) -> list[Episode]:
    """Play where all players are scripted partners, which draw nothing by a seed of the sampling."""
    env, episodes = tasks[0][0].make_env(), []
    for match, seed in tasks:
        players = match.seating.at(env.seats, seed)
        names = {seat: player_name(cast(Player, player)) for seat, player in players.items()}
        episode = scripted.play(env, {seat: cast(Partner, player) for seat, player in players.items()}, seed)
        episodes.append(replace(episode, players=names))
    return episodes


def play_matches(
    matches: Sequence[Match], play: Play, batch_size: int, advance: Callable[[int], None]
) -> dict[Path, list[Episode]]:
    """The episodes of matches of one condition by the files that keep them, in the order of their tasks: those that
    are kept, and whatever is missing to them.

    Args:
        matches: one at least, each with a file of its own; they differ in who plays.
        play: plays what is missing.
        batch_size: episodes that are played together, whoever plays, and then kept.
        advance: is told how many more episodes are there.
    """
    kept = {match.file: _kept(match) for match in matches}
    advance(sum(map(len, kept.values())))
    missing = [(match, seed) for match in matches for seed in match.task_seeds[len(kept[match.file]) :]]
    for start in range(0, len(missing), batch_size):
        tasks = missing[start : start + batch_size]
        first = tasks[0][0]
        attempts = [play(tasks, first.sampling_seed + AGAIN * attempt) for attempt in range(first.best_of)]
        for (match, _), *tries in zip(tasks, *attempts, strict=True):
            kept[match.file].append(max(tries, key=_visible_share))
        for file in {match.file for match, _ in tasks}:
            write_episodes(file, kept[file])
        advance(len(tasks))
    return kept


def _kept(match: Match) -> list[Episode]:
    return read_episodes(match.file)[: len(match.task_seeds)] if match.file.exists() else []


def _visible_share(episode: Episode) -> float:
    """The share of the visible tests that pass, by which an attempt is chosen; a machine's failure is not chosen."""
    outcome = episode.outcome
    if episode.stop_reason is StopReason.SANDBOX_FAULT:
        return -1.0
    return outcome.visible_passed / outcome.visible_total if outcome.visible_total else 0.0
