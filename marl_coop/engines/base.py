"""Engines turn chats into sampled replies: `Engine.generate(requests) -> generations`, in the order of the requests."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One reply to sample.

    `chat` names the chat (one seat of one episode); `ids` is all of it so far. `seed` fixes the sample, whatever else
    is in the batch.
    """

    chat: Hashable
    ids: list[int]
    adapter: str | None
    max_tokens: int
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """The sampled ids, the end-of-turn token included where it was sampled, and the log-probability of each.

    An engine that runs the training model itself may hand over `prefix_hidden_TH`, the hidden states below the lowest
    adapter of the chat's tokens so far (but for the last, which nobody has read yet): learning then spares them.
    """

    ids: list[int]
    logprobs: list[float]
    prefix_hidden_TH: Tensor | None = None


class Engine(Protocol):
    def generate(self, requests: Sequence[Request]) -> list[Generation]: ...

    def reset_cache(self) -> None:
        """Drop all caches: the chats have ended or the adapters have changed."""
        ...
