"""vLLM as one or several servers: `training.engine: vllm_server`.

Each server has the base and gets the adapters while it runs; it must see the folder that they are published in. Chats
are spread over the servers evenly, and a chat stays where it began, so that its key-value cache is used again. All that
is asked is under way at the same time: an episode goes on as soon as its own replies are there. A server that fails
ends the run with one line; what is running elsewhere is cancelled.
"""

import asyncio
import secrets
import threading
import weakref
from collections import Counter
from collections.abc import Coroutine, Hashable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

import httpx
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from envs.core.tokens import one_line
from marl_coop.credentials import masked, sent_key
from marl_coop.engines.base import EngineError, FinishReason, Generation, Request
from marl_coop.engines.published import PublishedAdapters
from marl_coop.engines.served import ServedEngine, sampling_parameters
from marl_coop.policy.loading import vocabulary
from marl_coop.policy.team import TeamPolicy

CONNECT_S = 10.0
KEY = "VLLM_API_KEY"


class _Part(BaseModel):
    model_config = ConfigDict(strict=True)


class _Logprobs(_Part):
    token_logprobs: list[float]


class _Choice(_Part):
    token_ids: list[Annotated[int, Field(ge=0)]]
    logprobs: _Logprobs
    finish_reason: Literal["stop", "length"]


class _Completion(_Part):
    """What is read of a server's answer."""

    choices: Annotated[list[_Choice], Field(min_length=1, max_length=1)]


class VLLMServerEngine(ServedEngine):
    """Samples with vLLM servers that have the base of a team. `$VLLM_API_KEY` is their key.

    Args:
        policy: the team.
        urls: base addresses, such as `http://localhost:8000/v1`.
        adapter_folder: where adapters are published; every server must find it under the same path. None: the system's
            place for temporary files, for servers on this machine.
        timeout_s: seconds that a server may be silent over one reply.

    Raises:
        EngineError: a server does not answer, or the folder cannot be used.
    """

    def __init__(
        self, policy: TeamPolicy, urls: Sequence[str], adapter_folder: str | None = None, timeout_s: float = 600.0
    ):
        # all processes of a run know an adapter by one name, and no other run does
        (run,) = broadcast_object_list([secrets.token_hex(4)])
        try:
            parent = None if adapter_folder is None else Path(adapter_folder).expanduser()
        except RuntimeError as error:  # of a user who is not there
            raise EngineError(f"adapters cannot be published in {adapter_folder!r}: {one_line(error)}") from error
        super().__init__(policy, PublishedAdapters(policy, parent, prefix=f"{run}-"))
        self._servers = Servers(urls, timeout_s)
        if PartialState().is_main_process:  # the others may still be at play when one of them fails
            weakref.finalize(self, _forget, self._servers, self._published)
        self._positions = self._servers.positions()
        self._homes: dict[Hashable, str] = {}  # chat -> the server that has its cache
        self._replies: dict[Future[dict[str, Any]], tuple[Hashable, str, int]] = {}  # -> chat, server and version

    @property
    def max_positions(self) -> int:
        return min(self._positions.values())

    @property
    def _copies(self) -> Sequence[str]:
        return [f"the vLLM server {url}" for url in self._positions]

    def _start(self, request: Request, name: str, version: int) -> None:
        url = self._home(request.chat)
        body = {"model": name, "prompt": request.ids, "return_token_ids": True, **sampling_parameters(request)}
        self._replies[self._servers.post(url, "completions", body)] = request.chat, url, version

    def _home(self, chat: Hashable) -> str:
        """The server of a chat: a new one goes where the fewest are."""
        chats = Counter(self._homes.values())
        return self._homes.setdefault(chat, min(self._positions, key=lambda url: chats[url]))

    def _wait(self) -> list[Generation]:
        done, _ = wait(self._replies, return_when=FIRST_COMPLETED)
        return [self._generation(future.result(), *self._replies.pop(future)) for future in done]

    def _generation(self, answer: dict[str, Any], chat: Hashable, url: str, version: int) -> Generation:
        try:
            (choice,) = _Completion.model_validate(answer).choices
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            problem = f"no completion with token ids and log-probabilities ({place}: {one_line(first['msg'])})"
            raise EngineError(f"the vLLM server {url} gave {problem}. Is it vLLM, of a tested release?") from error
        known = vocabulary(self.policy.base)
        if (token := max(choice.token_ids, default=0)) >= known:
            raise EngineError(f"the vLLM server {url} sampled token {token}, and the base has {known}: it has another")
        return Generation(
            chat=chat,
            ids=choice.token_ids,
            logprobs=choice.logprobs.token_logprobs,
            finish_reason=FinishReason(choice.finish_reason),
            version=version,
        )

    def _drop(self) -> None:
        for reply in self._replies:
            reply.cancel()  # closes its connection, which ends it on the server
        self._replies = {}

    def _load(self, new: Mapping[str, Path], old: Mapping[str, Path]) -> None:
        self._servers.load(new)
        self._servers.unload(old)

    def reset_cache(self) -> None:
        super().reset_cache()
        self._homes = {}


class Servers:
    """Some vLLM servers, asked from one thread in the background, so that any number of replies may be under way.

    Args:
        urls: base addresses.
        timeout_s: seconds that a server may be silent over one answer.

    Raises:
        EngineError: their key is none.
    """

    def __init__(self, urls: Sequence[str], timeout_s: float):
        self.urls = [url.rstrip("/") for url in urls]
        try:
            key = sent_key(KEY)
        except ValueError as error:
            raise EngineError(str(error)) from error
        self.headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._timeout_s = timeout_s
        self._client = httpx.AsyncClient(
            headers=self.headers,
            timeout=httpx.Timeout(timeout_s, connect=CONNECT_S),
            limits=httpx.Limits(max_connections=None),
        )
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=_run, args=[self._loop], daemon=True).start()
        weakref.finalize(self, self._loop.call_soon_threadsafe, _stop, self._loop, self._client)

    def post(self, url: str, path: str, body: Mapping[str, Any]) -> Future[dict[str, Any]]:
        """Begin to ask a server; the result is its JSON, or an EngineError."""
        return self._run(self._json(self._client.post(f"{url}/{path}", json=body), url))

    def positions(self) -> dict[str, int]:
        """The tokens that a chat may have, of each server.

        Raises:
            EngineError: one does not answer, or does not say so.
        """
        found = {}
        for url, models in self._all({url: self._models(url) for url in self.urls}).items():
            lengths = [model["max_model_len"] for model in models if isinstance(model.get("max_model_len"), int)]
            if not lengths:
                raise EngineError(f"{url}/models names no model with a max_model_len: is that a vLLM server?")
            found[url] = lengths[0]
        return found

    def load(self, adapters: Mapping[str, Path]) -> None:
        """Make adapters known to every server, by their names.

        Raises:
            EngineError: one does not answer, cannot load adapters, or does not find a folder.
        """
        self._all({(url, name): self._load(url, name, adapters[name]) for name in adapters for url in self.urls})

    def unload(self, names: Mapping[str, Path]) -> None:
        """Let every server forget adapters; another process of the run may have said so before.

        Raises:
            EngineError: one does not answer.
        """
        path = "unload_lora_adapter"
        self._all({(url, name): self._request(url, path, {"lora_name": name}) for name in names for url in self.urls})

    async def _models(self, url: str) -> list[dict[str, Any]]:
        answer = await self._json(self._client.get(f"{url}/models"), url)
        found = answer.get("data")
        return [model for model in found if isinstance(model, dict)] if isinstance(found, list) else []

    async def _load(self, url: str, name: str, folder: Path) -> None:
        response = await self._request(url, "load_lora_adapter", {"lora_name": name, "lora_path": str(folder)})
        if response.is_success or name in [model.get("id") for model in await self._models(url)]:
            return  # or another process of the run was first
        raise EngineError(
            f"the vLLM server {url} does not load adapters ({_said(response)}). Is it started with --enable-lora and "
            f"VLLM_ALLOW_RUNTIME_LORA_UPDATING=1, with a --max-lora-rank that is high enough, and does it see {folder}?"
        )

    async def _request(self, url: str, path: str, body: Mapping[str, Any]) -> httpx.Response:
        return await self._answered(self._client.post(f"{url}/{path}", json=body), url)

    async def _json(self, sent: Coroutine[Any, Any, httpx.Response], url: str) -> dict[str, Any]:
        response = await self._answered(sent, url)
        if not response.is_success:
            raise EngineError(f"the vLLM server {url} gave {_said(response)}. {_remedy(response)}")
        try:
            answer = response.json()
        except ValueError as error:
            raise EngineError(f"the vLLM server {url} gave no JSON: {_said(response)}") from error
        return answer if isinstance(answer, dict) else {}

    async def _answered(self, sent: Coroutine[Any, Any, httpx.Response], url: str) -> httpx.Response:
        try:
            return await sent
        except httpx.ReadTimeout as error:
            silent = f"the vLLM server {url} was silent for {self._timeout_s:g} s"
            raise EngineError(f"{silent}. Does it run, or must training.engine_options.timeout_s be more?") from error
        except httpx.HTTPError as error:
            said = masked(f"{type(error).__name__}: {one_line(error)}".removesuffix(": "), KEY)
            raise EngineError(f"the vLLM server {url} does not answer ({said}). Does it run?") from error

    def _run(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _all(self, work: Mapping[Any, Coroutine[Any, Any, Any]]) -> dict[Any, Any]:
        """The results of some work that runs at the same time."""
        running = {key: self._run(one) for key, one in work.items()}
        return {key: future.result() for key, future in running.items()}


def _forget(servers: Servers, published: PublishedAdapters) -> None:
    """Let servers forget a team, at the end of its engine or of the process, when no thread can be begun. One that does
    not answer at once is left with the names."""
    for url in servers.urls:
        with suppress(httpx.HTTPError), httpx.Client(headers=servers.headers, timeout=CONNECT_S) as client:
            for name in sorted(published.names):
                client.post(f"{url}/unload_lora_adapter", json={"lora_name": name})


def _run(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_forever()
    loop.close()


def _stop(loop: asyncio.AbstractEventLoop, client: httpx.AsyncClient) -> None:
    """Close the connections and then the loop that they belong to."""
    loop.create_task(client.aclose()).add_done_callback(lambda _: loop.stop())


def _remedy(response: httpx.Response) -> str:
    match response.status_code:
        case 401 | 403:
            return f"Its key is to be in the environment: ${KEY}"
        case 404 if "does not exist" in response.text:
            return "Was it started again, or has another process of this run ended?"
        case 404 | 405:
            return "Is that its address, up to /v1?"
        case _:
            return "Its own log says more"


def _said(response: httpx.Response) -> str:
    return f"{response.status_code}: {one_line(masked(response.text, KEY))[:200]}"
