"""What engines share that run a model of their own and read adapters from disk: vLLM, in process or as servers.

The trainer publishes its adapters as PEFT folders; a request names one by the name that says its content
(`marl_coop.engines.published`). When it is told of them after a change or a sleep, a few tokens show that it samples
from what is trained (`marl_coop.engines.parity`). All processes are told together, as those must be that share out a
base and score on it, and then some of them may ask for nothing.
"""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

from marl_coop.engines.base import EngineError, Generation, Request
from marl_coop.engines.parity import check_parity
from marl_coop.engines.published import PublishedAdapters
from marl_coop.hyperparameters import VLLM_MIN_TEMPERATURE
from marl_coop.policy.team import TeamPolicy


class ServedEngine(ABC):
    """An engine with its own copy of the base.

    Args:
        policy: the model that is trained.
        published: where its adapters are put for the engine to read.

    Raises:
        ValueError: the base is quantised.
    """

    max_chats = None  # vLLM queues what it has no memory for

    def __init__(self, policy: TeamPolicy, published: PublishedAdapters):
        if policy.quantized:
            raise ValueError("vLLM would sample from the plain base: it goes without model.load_in_4bit")
        self.policy, self._published = policy, published
        self._served: Mapping[str | None, Path] = {}  # adapter -> its folder, whose name is its own there
        self._version = 0
        self._asked: set[Hashable] = set()
        self._ready = False  # awake, with these adapters, and seen to sample from them

    @property
    @abstractmethod
    def max_positions(self) -> int:
        """Tokens that a chat may have there."""

    @property
    def _copies(self) -> Sequence[str]:
        """What messages call each copy of the base that it runs; new chats go to them in turn, in this order."""
        return [type(self).__name__]

    @abstractmethod
    def _start(self, request: Request, name: str, version: int) -> None:
        """Begin a reply, from the adapter of that name."""

    @abstractmethod
    def _wait(self) -> list[Generation]:
        """One or more replies that have ended, while there are some to come."""

    @abstractmethod
    def _drop(self) -> None:
        """Drop all that is running."""

    @abstractmethod
    def _load(self, new: Mapping[str, Path], old: Mapping[str, Path]) -> None:
        """Take up adapters, by their names, and give up those that nobody will ask for again."""

    def submit(self, request: Request) -> None:
        if request.chat in self._asked:
            raise ValueError(f"submit: the chat {request.chat!r} was asked already; collect its reply first")
        longest, most = len(request.ids) + request.max_tokens, min(self.max_positions, self.policy.max_positions)
        if longest > most:
            raise EngineError(
                f"submit: the chat {request.chat!r} may come to {longest} tokens, and the engine has {most} positions: "
                "fewer rounds, shorter replies, a model with more, or a larger max_model_len"
            )
        if request.temperature < VLLM_MIN_TEMPERATURE:
            said = f"submit: the temperature is {request.temperature}; vLLM has none below {VLLM_MIN_TEMPERATURE}"
            raise ValueError(said)
        self._start(request, self._served[request.adapter].name, self._version)
        self._asked.add(request.chat)

    def collect(self) -> list[Generation]:
        done = self._wait() if self._asked else []
        self._asked -= {generation.chat for generation in done}
        return done

    def load_adapters(self, version: int) -> None:
        self.reset_cache()
        before, self._served, self._version = self._served, self._published.publish(), version
        names, old = ({folder.name: folder for folder in served.values()} for served in (self._served, before))
        if names != old:
            self._ready = False
            self._load(
                {name: folder for name, folder in names.items() if name not in old},
                {name: folder for name, folder in old.items() if name not in names},
            )
        if not self._ready:
            check_parity(self, self.policy, [adapter for adapter in self._served if adapter], self._copies)
            self._ready = True

    def reset_cache(self) -> None:
        if self._asked:
            self._drop()
            self._asked.clear()

    def sleep(self) -> None:
        self.reset_cache()


def sampling_parameters(request: Request) -> dict[str, Any]:
    """What vLLM is told of a request's sampling: the softmax at its temperature with nothing cut off, and the
    log-probability of each sampled token."""
    return {
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "top_p": 1.0,
        "top_k": -1,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,  # as the other two penalties, that of a server's model where nothing is said
        "frequency_penalty": 0.0,
        "seed": request.seed,
        "stop_token_ids": sorted(request.stop_ids),
        "ignore_eos": True,  # what ends a reply is in the request
        "logprobs": 0,
    }
