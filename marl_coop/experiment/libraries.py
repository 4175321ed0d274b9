"""What libraries say, made fit for a user."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import transformers

from marl_coop.runs.rundir import LostProcessError


@contextmanager
def naming_lost_processes() -> Iterator[None]:
    """Makes a LostProcessError of what a collective raises when another process is gone. Gloo has no type for it."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.distributed.DistError) or "gloo/transport" in str(error):
            said = "another process of this run has ended, and its own output says why"
            raise LostProcessError(said) from error
        raise


def quiet_libraries() -> None:
    """Silence what libraries say of their own next versions and Python of a model's code, and the bars of what takes a
    second.
    """
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers|trl|peft|accelerate")
    warnings.filterwarnings("ignore", message=".*pin_memory.*")
    warnings.filterwarnings("ignore", module="<unknown>")  # where `ast.parse` read what a model wrote
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
