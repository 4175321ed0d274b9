"""What wandb wrote beside a run: its files are logs in LevelDB's format, of protocol buffers."""

import json
import struct
from pathlib import Path

import wandb
from wandb.proto import wandb_internal_pb2

HEADER, BLOCK = 7, 32768  # bytes: of the file, and of each record in it; of a block


def records(folder: Path) -> list:
    """The records of the one run under a folder."""
    wandb.teardown()  # which waits until all of it is on the disk
    (file,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    data, place, whole, found = file.read_bytes(), HEADER, b"", []
    assert data.startswith(b":W&B")
    while place + HEADER <= len(data):
        if BLOCK - place % BLOCK < HEADER:  # what is left of a block is padding
            place += BLOCK - place % BLOCK
            continue
        _, size, kind = struct.unpack("<IHB", data[place : place + HEADER])
        whole += data[place + HEADER : place + HEADER + size]
        place += HEADER + size
        if kind in (1, 4):  # a record in one piece, or its last piece
            found.append(wandb_internal_pb2.Record.FromString(whole))
            whole = b""
    return found


def values(items) -> dict:
    """Keys and values of a history, a summary or a configuration."""
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def history(found: list) -> list[dict]:
    return [values(record.history.item) for record in found if record.HasField("history")]


def summary(found: list) -> dict:
    parts = [values(record.summary.update) for record in found if record.HasField("summary")]
    return {key: value for part in parts for key, value in part.items()}


def run_of(found: list):
    return next(record.run for record in found if record.HasField("run"))


def config(found: list) -> dict:
    parts = [values(record.run.config.update) for record in found if record.HasField("run")]
    parts += [values(record.config.update) for record in found if record.HasField("config")]
    return {key: value for part in parts for key, value in part.items()}
