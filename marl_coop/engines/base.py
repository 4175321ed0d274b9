"""The contract of engines: requests go in one by one, each reply comes back once it has ended, in any order.

    engine.submit(request)           as often as there is something to ask; it may start at once
    done = engine.collect()          waits for at least one reply, and gives all that have ended
    engine.load_adapters(version)    the adapters have changed: later requests are sampled from the new ones
    engine.sleep()                   they learn: nothing is asked until they have changed

A chat is asked for one reply at a time and goes on whenever its next request is submitted, so a reply that takes long
holds back its own episode alone. An engine may batch what it was handed, step continuously, or ask a server. What it
samples depends on the requests and the weights, never on their order or on who else is asked.

Axes in names: T positions of a chat, H hidden size.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # the command line knows of finish reasons and must not wait for torch
    from torch import Tensor


class FinishReason(StrEnum):
    STOP = "stop"  # the reply ends with a stop token
    LENGTH = "length"  # it was cut at its limit of tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One reply to sample.

    `chat` names the chat (one seat of one episode); `ids` is all of it so far. `adapter` None is the base alone.
    A reply ends with one of `stop_ids` or after `max_tokens` tokens, > 0. The distribution is the softmax of the logits
    divided by `temperature`, > 0, with nothing cut off. `seed` fixes the sample, whatever else is in the batch.
    """

    chat: Hashable
    ids: list[int]
    adapter: str | None
    max_tokens: int
    temperature: float
    stop_ids: frozenset[int]
    seed: int

    def ending(self, ids: Sequence[int]) -> FinishReason:
        """Why a reply of these ids ends, one or more."""
        return FinishReason.STOP if ids[-1] in self.stop_ids else FinishReason.LENGTH


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """The reply to a request of `chat`: the sampled ids, the stop token included where it was sampled.

    `logprobs` has the log-probability of each id, in nats, under the distribution that sampled it, temperature
    included. `version` is that of the weights which sampled it.

    An engine that runs the training model itself may hand over `prefix_hidden_TH`, the hidden states below the lowest
    adapter of the chat's tokens so far (but for the last, which nobody has read yet): learning then spares them.
    """

    chat: Hashable
    ids: list[int]
    logprobs: list[float]
    finish_reason: FinishReason
    version: int
    prefix_hidden_TH: "Tensor | None" = None


class EngineError(RuntimeError):
    """An engine that fails, or samples from something else than what is trained; one line."""


def check_reply(request: Request, reply: Generation, who: str) -> None:
    """See that a reply is what its request asked for.

    Raises:
        EngineError: it is not; the message begins with `who` gave it.
    """
    ids, most = reply.ids, request.max_tokens
    stops = [i in request.stop_ids for i in ids]
    end = f"ids up to a stop token of the request, and {most} at most"
    if len(ids) != len(reply.logprobs) or not ids:
        wrong, want = f"{len(ids)} ids and {len(reply.logprobs)} logprobs", "one logprob for each id, and one id"
    elif not all(map(math.isfinite, reply.logprobs)):
        wrong, want = "a log-probability that is not finite", "numbers"
    elif len(ids) > most or any(stops[:-1]):
        wrong, want = f"{len(ids)} ids, beyond the end,", end
    elif len(ids) < most and not stops[-1]:
        wrong, want = f"{len(ids)} ids without an end", end
    elif reply.finish_reason is not request.ending(ids):
        wrong, want = f"the reason {str(reply.finish_reason)!r}", "'stop' if the last id is a stop token, else 'length'"
    else:
        return
    raise EngineError(f"{who} gave {wrong} for {request.chat!r}; give {want}")


class Engine(Protocol):
    @property
    def max_chats(self) -> int | None:
        """The chats that it has memory for at once; None: it takes all that is asked, and sees to it by itself."""
        ...

    def submit(self, request: Request) -> None:
        """Ask for a reply.

        Raises:
            ValueError: a reply of that chat is still to come.
            EngineError: it may become longer than the model's positions.
        """
        ...

    def collect(self) -> list[Generation]:
        """Wait for at least one of the replies that are to come, and return those that have ended; [] if none is."""
        ...

    def load_adapters(self, version: int) -> None:
        """Sample from the adapters as they are now, which are the weights number `version`, and not from older ones.

        All processes call it before the first request, and whenever the adapters have changed.
        """
        ...

    def reset_cache(self) -> None:
        """Forget all chats: they have ended, and what was asked and not collected is dropped."""
        ...

    def sleep(self) -> None:
        """Give back memory while the adapters learn; the next request wakes the engine. All chats have ended."""
        ...
