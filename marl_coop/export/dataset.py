"""Episodes as a Hugging Face dataset: parquet files, one for each part of a run, with a card.

A row is an episode. `record` holds all of it: the line of `marl_coop.runs.records`, as JSON.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, Features, List, Value
from huggingface_hub import DatasetCard, DatasetCardData

from envs.core.tokens import written
from marl_coop.evaluation.rescore import Saved

TURN = {
    "seat": Value("string"),
    "player": Value("string"),
    "phase": Value("string"),
    "round": Value("int64"),
    "observation": Value("string"),
    "reply": Value("string"),
    "message": Value("string"),
    "message_tokens": Value("int64"),
    "parse_error": Value("string"),
    "reward": Value("float64"),  # weighted sum of all terms; null where nobody is paid
}
FEATURES = Features(
    {
        "update": Value("int64"),  # of training, from 1; null in an evaluation
        "task": Value("string"),
        "family": Value("string"),
        "seed": Value("int64"),
        "success": Value("bool"),
        "utility": Value("float64"),
        "stop_reason": Value("string"),
        "turns": List(TURN),
        "record": Value("string"),
    }
)
CARD = """---
{{ card_data }}
---

# Episodes of {{ name }}

Teams of coding agents who settle a task together, played and recorded by marl-coop. A row is an episode: its task, its
turns in the order of play, what came of it, and in `record` the whole of it as JSON.

| split | episodes | solved |
|---|---|---|
{% for split in splits %}| {{ split.name }} | {{ split.episodes }} | {{ split.solved }} |
{% endfor %}
`before` and `after` are the same unseen instances before and after training; `training` is what was learned from, with
the reward of each turn.
"""


def write_dataset(parts: Mapping[str, Sequence[Saved]], name: str, folder: Path) -> None:
    """Write `folder/data/<part>.parquet` and the card, `folder/README.md`.

    Args:
        parts: episodes by the part of the run, which becomes a split.
        name: the run's.
        folder: is made; `datasets.load_dataset(folder)` reads it back.
    """
    splits = DatasetDict(
        {part: Dataset.from_list([row(one) for one in saved], features=FEATURES) for part, saved in parts.items()}
    )
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for part, split in splits.items():
        split.to_parquet(folder / "data" / f"{part}.parquet")
    files = [{"split": part, "path": f"data/{part}.parquet"} for part in splits]
    data = DatasetCardData(tags=["multi-agent", "marl-coop"], configs=[{"config_name": "default", "data_files": files}])
    counts = [{"name": part, "episodes": len(split), "solved": sum(split["success"])} for part, split in splits.items()]
    card = DatasetCard.from_template(data, template_str=CARD, name=name, splits=counts)
    (folder / "README.md").write_text(str(card), encoding="utf-8")


def row(saved: Saved) -> dict[str, Any]:
    """An episode as a row; halves of surrogate pairs, which parquet has no form for, become question marks."""
    episode, rewards = saved.record.episode, saved.record.rewards
    paid = {} if rewards is None else {seat: rewards.per_turn(seat) for seat in episode.seats}
    content = {"episode": json.loads(episode.to_json())} | ({} if rewards is None else {"rewards": rewards.to_dict()})
    return {
        "update": None if math.isinf(saved.update) else int(saved.update) + 1,
        "task": episode.task.id,
        "family": episode.task.family,
        "seed": episode.task.seed,
        "success": episode.outcome.success,
        "utility": episode.outcome.utility,
        "stop_reason": str(episode.stop_reason),
        "turns": [
            {
                "seat": turn.agent,
                "player": episode.players.get(turn.agent),
                "phase": str(turn.phase),
                "round": turn.round,
                "observation": written(turn.observation),
                "reply": written(turn.reply),
                "message": written(turn.message),
                "message_tokens": turn.message_tokens,
                "parse_error": None if turn.parse_error is None else str(turn.parse_error),
                "reward": paid[turn.agent][turn.index] if paid else None,
            }
            for turn in episode.turns
        ],
        "record": json.dumps(content),
    }
