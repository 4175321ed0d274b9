"""The records of a run as JSON lines: episodes with their rewards, and one line of metrics per update."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from envs.core.episode import Episode
from rewards import RewardBreakdown


def write_episodes(file: Path, episodes: Sequence[Episode], breakdowns: Sequence[RewardBreakdown] = ()) -> None:
    """One line per episode, with its reward breakdown where there are any; there are as many or none."""
    file.parent.mkdir(exist_ok=True)
    unfinished = file.with_name(f"{file.name}.part")
    with unfinished.open("w", encoding="utf-8") as out:
        for i, episode in enumerate(episodes):
            line = {"episode": json.loads(episode.to_json())}
            if breakdowns:
                line["rewards"] = breakdowns[i].to_dict()
            out.write(json.dumps(line) + "\n")
    unfinished.replace(file)  # a run that is killed leaves no half of a file


def read_episodes(file: Path) -> list[Episode]:
    """The episodes that `write_episodes` wrote."""
    with file.open(encoding="utf-8") as lines:
        return [Episode.from_json(json.dumps(json.loads(line)["episode"])) for line in lines]


def append_metrics(file: Path, record: dict) -> None:
    """One more line of metrics."""
    with file.open("a", encoding="utf-8") as out:
        out.write(json.dumps(record) + "\n")
        out.flush()
        os.fsync(out.fileno())  # before the checkpoint that comes after it


def read_metrics(file: Path) -> list[dict]:
    """The records of the updates, in order; what else the trainer logged is left out."""
    records = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return [record for record in records if "update" in record]


def forget_metrics_after(file: Path, step: int) -> None:
    """Drop the records of later optimisation steps, and a line that was cut off: a resumed run makes them anew."""
    kept = []
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:  # the machine went down while it was written
            break
        if record["step"] <= step:
            kept.append(line + "\n")
    if kept or file.exists():
        unfinished = file.with_name(f"{file.name}.part")
        unfinished.write_text("".join(kept), encoding="utf-8")
        unfinished.replace(file)
