"""Episodes as a Hugging Face dataset: parquet files, one for each part of a run, with a card. A row is an episode."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from datasets import Dataset, DatasetDict, Features, List, Value, disable_progress_bars
from huggingface_hub import DatasetCard, DatasetCardData, metadata_load

from marl_coop.export.episode import remove_earlier, row
from marl_coop.runs.played import PlayedEpisode

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
        "id": Value("string"),  # file and line: `marl-coop show RUN after:3`
        "update": Value("int64"),  # from 1; null before and after training
        "task": Value("string"),
        "family": Value("string"),
        "seed": Value("string"),  # a number that may have more than 64 bits
        "success": Value("bool"),
        "utility": Value("float64"),
        "detail": Value("string"),  # how that came about: the merge, tests of each feature
        "stop_reason": Value("string"),
        "turns": List(TURN),
        "record": Value("string"),
    }
)
TAGS = ["multi-agent", "marl-coop"]  # of a card, by which an earlier dataset is known
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
`before` and `after` are the same unseen instances before and after training, `evaluation` others that were played while
it trained; `training` is what was learned from, with the reward of each turn.
"""


def write_dataset(parts: Mapping[str, Sequence[PlayedEpisode]], name: str, folder: Path) -> None:
    """Write `folder/data/<part>.parquet` and the card, `folder/README.md`.

    Args:
        parts: episodes by the part of the run, which becomes a split.
        name: the run's.
        folder: is made; `datasets.load_dataset(folder)` reads it back. It takes the place of an earlier one.

    Raises:
        ValueError: the folder has a README.md that is no card of such a dataset.
    """
    card_file = folder / "README.md"
    if card_file.exists() and (metadata_load(card_file) or {}).get("tags") != TAGS:
        raise ValueError("it has a README.md of something else; name another folder")
    disable_progress_bars()  # a bar for each part, which is a second's work
    splits = DatasetDict(
        {part: Dataset.from_list([*map(row, played)], features=FEATURES) for part, played in parts.items()}
    )
    (folder / "data").mkdir(parents=True, exist_ok=True)
    remove_earlier(folder / "data", ".parquet", parts)
    for part, split in splits.items():
        split.to_parquet(folder / "data" / f"{part}.parquet")
    files = [{"split": part, "path": f"data/{part}.parquet"} for part in splits]
    data = DatasetCardData(tags=TAGS, configs=[{"config_name": "default", "data_files": files}])
    counts = [{"name": part, "episodes": len(split), "solved": sum(split["success"])} for part, split in splits.items()]
    card = DatasetCard.from_template(data, template_str=CARD, name=name, splits=counts)
    card_file.write_text(str(card), encoding="utf-8")
