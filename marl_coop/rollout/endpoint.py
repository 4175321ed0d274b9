"""A model behind an OpenAI-compatible endpoint (vLLM, llama.cpp, a provider) in a seat that does not learn."""

import os
import time
from collections.abc import Mapping

import httpx

from envs.core.env import CoopEnv
from envs.core.episode import Phase
from envs.core.task import Seat

TIMEOUT_S = 120.0  # for one reply
RETRIES = 3  # of a connection that fails
BUSY = (429, 500, 502, 503, 504)  # answers after which it asks again
PAUSES_S = (1.0, 4.0, 16.0)  # before each time


class EndpointError(RuntimeError):
    """The endpoint gave no reply."""


class Endpoint:
    """Writes replies with `POST <url>/chat/completions`; `$OPENAI_API_KEY` is sent where it is set.

    Args:
        url: base address, such as `http://localhost:8000/v1`.
        model: name of the model there.
        system: system message of every chat.
        temperature: of the sampling.
        max_tokens: length limit of a reply in each phase, in the endpoint's tokens.
    """

    def __init__(self, url: str, model: str, system: str, temperature: float, max_tokens: Mapping[Phase, int]):
        self.url, self.model, self.name = url.rstrip("/"), model, model
        self.system, self.temperature, self.max_tokens = system, temperature, max_tokens
        key = os.environ.get("OPENAI_API_KEY")
        self._client = httpx.Client(
            transport=httpx.HTTPTransport(retries=RETRIES),
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=TIMEOUT_S,
        )

    def reply(self, env: CoopEnv, seat: Seat) -> str:
        """The reply of `seat` in `env.phase`, from its whole chat.

        Raises:
            EndpointError: no connection, an error status (a busy server is asked four times), or an answer that is no
                chat completion.
        """
        messages = [{"role": "system", "content": self.system}]
        for turn in env.turns:
            if turn.agent == seat:
                messages += [
                    {"role": "user", "content": turn.observation},
                    {"role": "assistant", "content": turn.reply},
                ]
        request = {
            "model": self.model,
            "messages": [*messages, {"role": "user", "content": env.observe(seat)}],
            "temperature": self.temperature,
            "max_tokens": self.max_tokens[env.phase],
            "seed": env.task.seed % 2**31,
        }
        try:
            for pause in (0.0, *PAUSES_S):
                time.sleep(pause)
                answer = self._client.post(f"{self.url}/chat/completions", json=request)
                if answer.status_code not in BUSY:
                    break
            return answer.raise_for_status().json()["choices"][0]["message"]["content"] or ""
        except httpx.HTTPStatusError as error:
            said = f"{error.response.status_code}: {error.response.text[:200]}"
        except httpx.HTTPError as error:
            said = f"{type(error).__name__}: {error}"
        except (ValueError, LookupError, TypeError) as error:
            said = f"no chat completion ({type(error).__name__}: {error})"
        raise EndpointError(
            f"{self.url}, asked for model {self.model!r}, gave {said}. Does it run, and serve that model?"
        )
