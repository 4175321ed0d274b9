"""Episodes as traces of trackio, in a folder of their own: `TRACKIO_DIR=FOLDER trackio show` opens them.

A project has the run's name, and a run in it each part of the run. A trace is an episode: the messages of all seats in
the order of play, and a span for each turn.
"""

import contextlib
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from marl_coop.export.episode import Row, row
from marl_coop.runs.played import PHASES, PlayedEpisode


def write_traces(parts: Mapping[str, Sequence[PlayedEpisode]], name: str, folder: Path) -> None:
    """Write the traces; those of an earlier export under the same name are removed.

    Args:
        parts: episodes by the part of the run.
        name: the run's.
        folder: is made; it becomes trackio's own (`TRACKIO_DIR`).

    Raises:
        ValueError: trackio does not take the name, has been imported with another folder, or has not kept all of it.
    """
    for elsewhere in ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL"):
        os.environ.pop(elsewhere, None)  # an export into a folder goes nowhere else
    os.environ["TRACKIO_DIR"] = str(folder.resolve())  # is read when trackio is imported
    import trackio
    from trackio.sqlite_storage import SQLiteStorage
    from trackio.utils import TRACKIO_DIR

    if folder.resolve() != TRACKIO_DIR:
        raise ValueError(f"trackio writes to {str(TRACKIO_DIR)!r} in this process; export in another one")
    with contextlib.redirect_stdout(io.StringIO()):  # it says how to open what it writes, without the folder
        written = []
        for part, played in parts.items():
            run = trackio.init(name, name=part, embed=False, auto_log_gpu=False, auto_log_cpu=False)
            updates: dict[int, list[Any]] = {}
            for one in played:
                updates.setdefault(one.update or 0, []).append(_trace(trackio, one))
            for update, traces in updates.items():
                trackio.log({"episode": traces}, step=update)
            trackio.finish()
            written.append(run.id)
            kept = SQLiteStorage.get_trace_steps(name, run_id=run.id)["total"]
            if kept != len(played):
                raise ValueError(f"trackio has kept {kept} of {len(played)} episodes of {part!r}")
        for run in trackio.Api().runs(name):
            if run.name in PHASES and run.id not in written:
                run.delete()


def _trace(trackio: Any, played: PlayedEpisode) -> Any:
    content = row(played)
    rewards = played.record.rewards
    names = ("id", "task", "family", "seed", "success", "utility", "detail", "stop_reason")
    about = {name: content[name] for name in names}
    return trackio.Trace(
        messages=[message for turn in content["turns"] for message in _messages(turn)],
        metadata=about | {"rewards": rewards.by_term() if rewards else {}},
        spans=[_span(number, turn) for number, turn in enumerate(content["turns"])],
    )


def _messages(turn: Row) -> list[dict[str, str]]:
    return [
        {"role": "user", "name": turn["seat"], "content": turn["observation"]},
        {"role": "assistant", "name": turn["seat"], "content": turn["reply"]},
    ]


def _span(number: int, turn: Row) -> Row:
    return {
        "id": str(number),
        "name": f"{turn['seat']} {turn['phase']}",
        "kind": "generation",
        "model": turn["player"],
        "input": turn["observation"],
        "output": turn["reply"],
        "metadata": {name: turn[name] for name in ("round", "message", "message_tokens", "parse_error", "reward")},
    }
