"""Files of safetensors, whose own words and rights are not those of other files."""

import os
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from envs.core.tokens import one_line


def write_tensors(tensors: Mapping[str, Tensor], file: Path) -> None:
    """Write tensors for all who may read the folder.

    Raises:
        OSError: they cannot be written.
    """
    try:
        save_file(dict(tensors), file, metadata={"format": "pt"})
    except SafetensorError as error:  # what it says of a full disk
        raise OSError(f"{file} cannot be written: {one_line(error)}") from error
    share(file)


def share(file: Path) -> None:
    """Let all read a file who may read its folder: safetensors writes one that is its owner's alone."""
    file.chmod(file.parent.stat().st_mode & 0o666)


def check_readable(file: Path) -> None:
    """Check that this user may read a file, of which safetensors says otherwise that it is not there.

    Raises:
        OSError: it is there and may not be read, or is no file: a pipe would be waited for without an end.
    """
    if file.exists() and not file.is_file():
        raise OSError(f"{file.name} is no file")
    if file.exists() and not os.access(file, os.R_OK):
        raise PermissionError(f"this user may not read {file.name}: its owner lets all by chmod a+r")
