"""Adapters with their cards, to the Hugging Face Hub."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError
from huggingface_hub.utils import validate_repo_id

from envs.core.tokens import one_line

_CLIENT_ERROR = cast(type[Exception], HfHubHTTPError.__mro__[1])  # of httpx or httpx2, as the Hub's release has it


def push(adapters: Sequence[Path], repo: str, api: HfApi | None = None) -> list[str]:
    """Upload adapters, each to a repository of its own, because PEFT, vLLM and the Hub look for one at a root.

    Args:
        adapters: their folders.
        repo: owner/name; of several adapters, each has `-<name of its folder>` after it.
        api: what talks to the Hub; None: by the environment's token and endpoint.

    Returns:
        The names of the repositories.

    Raises:
        ValueError: a name is none of a repository, and nothing is pushed, or the Hub does not take them; the message is
            one line that says why and what to do.
    """
    api = api or HfApi()
    names = [repo if len(adapters) == 1 else f"{repo}-{adapter.name}" for adapter in adapters]
    for name in names:
        try:
            validate_repo_id(name)
        except HFValidationError as error:
            raise ValueError(f"{name!r} is no name of a repository: {one_line(error)}; give OWNER/NAME") from error
    for adapter, name in zip(adapters, names, strict=True):
        try:
            api.create_repo(name, exist_ok=True)
            api.upload_folder(repo_id=name, folder_path=adapter, commit_message=f"Upload {adapter.name}")
        except (HfHubHTTPError, LocalTokenNotFoundError, _CLIENT_ERROR, ConnectionError) as error:
            raise ValueError(f"{name!r} is not taken by the Hub: {one_line(error)}; see `hf auth login`") from error
    return names
