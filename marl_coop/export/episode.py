"""An episode as plain data that any library can hold: the row that every kind of export begins with."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from envs.core.episode import Episode, Turn
from envs.core.tokens import written
from marl_coop.runs.played import PHASES, PlayedEpisode

Row = dict[str, Any]


def remove_earlier(folder: Path, ending: str, parts: Collection[str]) -> None:
    """Remove the files of an earlier export whose part of the run is not among these."""
    for part in PHASES:
        if part not in parts:
            (folder / f"{part}{ending}").unlink(missing_ok=True)


def row(played: PlayedEpisode) -> Row:
    """The row of an episode; halves of surrogate pairs, for which no file has a form, become question marks.
    The seed of a task is text, as of a run with a large seed it has more than 64 bits.

    `id` is what `marl-coop show` calls it, a turn's `reward` what training paid for it, None where nobody is paid.
    `record` holds all of the episode: the line of `marl_coop.runs.records`, as JSON.
    """
    episode, rewards = played.episode, played.record.rewards
    paid = {} if rewards is None else {seat: rewards.per_turn(seat) for seat in episode.seats}
    content = {"episode": json.loads(episode.to_json())} | ({} if rewards is None else {"rewards": rewards.to_dict()})
    return {
        "id": played.id,
        "update": played.update,
        "task": written(episode.task.id),
        "family": written(episode.task.family),
        "seed": str(episode.task.seed),
        "success": episode.outcome.success,
        "utility": episode.outcome.utility,
        "detail": written(episode.outcome.detail),
        "stop_reason": str(episode.stop_reason),
        "turns": [_turn(episode, turn, paid) for turn in episode.turns],
        "record": json.dumps(content),
    }


def _turn(episode: Episode, turn: Turn, paid: Mapping[str, tuple[float, ...]]) -> Row:
    return {
        "seat": turn.agent,
        "player": written(episode.players.get(turn.agent, "")) or None,
        "phase": str(turn.phase),
        "round": turn.round,
        "observation": written(turn.observation),
        "reply": written(turn.reply),
        "message": written(turn.message),
        "message_tokens": turn.message_tokens,
        "parse_error": None if turn.parse_error is None else str(turn.parse_error),
        "reward": paid[turn.agent][turn.index] if paid else None,
    }
