"""What a configuration is called: its name, and in short what was laid over the file that gives it."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from marl_coop.config.errors import Keys, dotted
from marl_coop.config.layers import COMMAND_LINE, Layer, leaves

LONGEST = 60  # characters of a title; what does not fit is counted
LONGEST_VALUE = 28
SHORT = {"env.name": "env", "model.name_or_path": "model"}
PLAIN = ("env", "lora", "model", "policies", "rewards", "training")  # sections whose keys are known without them


def make_title(name: str, layers: Sequence[Layer], unnamed: frozenset[str]) -> str:
    """The name, the stems of later files, and the overrides, shortened. Other overrides make another title: where
    shortening leaves something out, a digest of them ends it. A name that is an override is the whole title.

    Args:
        name: the configuration's.
        layers: files and overrides in merging order.
        unnamed: dotted keys of overrides that make no other experiment.
    """
    named = max((i for i, (_, content) in enumerate(layers) if "name" in content), default=-1)
    if named >= 0 and layers[named][0] == COMMAND_LINE:
        return name
    files = [_plain(Path(source).stem) for source, _ in layers[named + 1 :] if source != COMMAND_LINE]
    said: dict[Keys, Any] = {}
    for source, content in layers:
        said |= leaves(content) if source == COMMAND_LINE else {}
    said = {keys: value for keys, value in said.items() if dotted(keys) not in unnamed}
    words = [_word(keys, value) for keys, value in said.items()]
    parts = [name, *files, *(word for word, _ in words)]
    while len("+".join(parts)) > LONGEST and len(parts) > 1 + len(files):
        parts.pop()
    left_out = len(words) - (len(parts) - 1 - len(files))
    exact = [f"{dotted(keys)}={value!r}" for keys, value in sorted(said.items(), key=lambda item: dotted(item[0]))]
    digest = hashlib.sha256("\n".join(exact).encode()).hexdigest()[:6]
    if left_out:
        return "+".join([*parts, f"{left_out}_more-{digest}"])
    return "+".join(parts) + ("" if all(whole for _, whole in words) else f"-{digest}")


def _word(keys: Keys, value: Any) -> tuple[str, bool]:
    """A few letters for an override, and whether they are all of it.

    >>> _word(("rewards", "consensus", "weight"), 0)
    ('consensus=0', True)
    >>> _word(("policies", "agent_1"), "frozen:runs/first/agent_1")
    ('agent_1=agent_1', False)
    >>> _word(("rewards", "my_lab.rewards:Humility", "weight"), 0.5)
    ('Humility=0.5', False)
    >>> _word(("warmup", "learning_rate"), 1e-4)
    ('warmup.learning_rate=0.0001', True)
    """
    section, last = keys[0], keys[-1]
    shown = keys[1:] if section in PLAIN and len(keys) > 1 else keys
    if section == "rewards" and last == "weight":
        shown = shown[:-1]
    key = SHORT.get(dotted(keys), ".".join(str(part) for part in shown))
    exact = (key, _text(value))
    short = (_plain(key.rpartition(":")[2]), _plain(exact[1].rstrip("/").rpartition("/")[2])[:LONGEST_VALUE])
    return "=".join(filter(None, short)), short == exact


def _text(value: Any) -> str:
    if isinstance(value, bool | None):
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, list):
        return "-".join(map(_text, value))
    if isinstance(value, Mapping):
        return "-".join(f"{key}.{_text(one)}" for key, one in value.items())
    return str(value)


def _plain(text: str) -> str:
    """A text as a part of a folder's name."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text)
