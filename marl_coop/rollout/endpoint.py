"""A model behind an OpenAI-compatible endpoint (vLLM, llama.cpp, a provider) in a seat that does not learn."""

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any, NamedTuple

from envs.core.env import CoopEnv
from envs.core.episode import Phase
from envs.core.task import Seat
from envs.core.tokens import first_tokens, message_tokens, one_line
from marl_coop.credentials import masked, sent_key
from marl_coop.engines import FinishReason

KEY = "OPENAI_API_KEY"
TIMEOUT_S = 120.0  # without a byte of a reply
DENSEST = 2  # words and symbols in a token, over a whole reply: no tokenizer in use has more
RETRIES = 4  # of a reply, where there is no connection or the server is busy; the client waits longer each time
DEADLINE_S = 600.0  # for a reply, with all times that it is asked for; a server may send a byte now and then for ever


class EndpointError(RuntimeError):
    """The endpoint gave no reply."""


class Answer(NamedTuple):
    text: str
    finish_reason: FinishReason


class Endpoint:
    """Writes replies with `POST <url>/chat/completions`; `$OPENAI_API_KEY` is the key.

    Args:
        url: base address, such as `http://localhost:8000/v1`.
        model: name of the model there.
        system: system message of every chat.
        temperature: of the sampling.
        max_tokens: length limit of a reply in each phase, in the endpoint's tokens. A reply that by the endpoint's own
            count has more, because it knows no limit, is cut in proportion and counts as cut by its length. Where it
            gives no count, the reply has at least one token for every two words and symbols.
        retries: times that a reply is asked for again.

    Raises:
        EndpointError: the `openai` client is not installed.
    """

    def __init__(
        self,
        url: str,
        model: str,
        system: str,
        temperature: float,
        max_tokens: Mapping[Phase, int],
        retries: int = RETRIES,
    ):
        try:
            import openai
        except ImportError as error:
            raise EndpointError("an endpoint needs the openai client: pip install --editable '.[endpoint]'") from error
        self.url, self.model, self.name = url, model, model
        self.system, self.temperature, self.max_tokens = system, temperature, max_tokens
        try:
            key = sent_key(KEY) or "none"  # the client wants one, and local servers read none
        except ValueError as error:
            raise EndpointError(str(error)) from error
        self._client = openai.OpenAI(base_url=url, api_key=key, timeout=TIMEOUT_S, max_retries=retries)

    def reply(self, env: CoopEnv, seat: Seat) -> str:
        """The text of `answer`, by the seed of the task."""
        return self.answer(env, seat, env.task.seed).text

    def answer(self, env: CoopEnv, seat: Seat, seed: int) -> Answer:
        """The reply of `seat` in `env.phase`, from its whole chat; "" where the endpoint says nothing or refuses.

        Args:
            seed: of the sampling, 0 or more; an endpoint is told the last 31 bits of it.

        Raises:
            EndpointError: no connection, an error status, or an answer that is no chat completion.
        """
        import openai

        phase = env.phase
        assert phase is not None, "no episode is running"
        messages: list[Any] = [{"role": "system", "content": self.system}]
        for turn in env.turns:
            if turn.agent == seat:
                messages += [
                    {"role": "user", "content": turn.observation},
                    {"role": "assistant", "content": turn.reply},
                ]
        try:
            ask = partial(
                self._client.chat.completions.create,
                model=self.model,
                messages=[*messages, {"role": "user", "content": env.observe(seat)}],
                temperature=self.temperature,
                max_tokens=self.max_tokens[phase],
                seed=seed % 2**31,
            )
            completion = _in_time(ask, DEADLINE_S)
            choice = completion.choices[0]
            text, cut = masked(_text(choice.message.content), KEY), choice.finish_reason == "length"
            length, limit = message_tokens(text), self.max_tokens[phase]
            tokens: Any = getattr(completion.usage, "completion_tokens", None)
            if not tokens or not isinstance(tokens, int):
                tokens = length // DENSEST
            if tokens > limit:  # the server knows no limit; as many of its tokens as fit, were they all as long
                text, cut = first_tokens(text, length * limit // tokens), True
            return Answer(text, FinishReason.LENGTH if cut else FinishReason.STOP)
        except TimeoutError:
            said = f"no whole reply within {DEADLINE_S:g} s"
        except openai.APIStatusError as error:
            said = f"{error.status_code}: {masked(error.response.text, KEY)[:200]}"
        except openai.APIError as error:
            said = f"{type(error).__name__}: {error.message} {error.__cause__ or ''}".rstrip()
        except (AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
            said = f"no chat completion ({type(error).__name__}: {error})"
        raise EndpointError(
            f"{self.url}, asked for model {self.model!r}, gave {one_line(masked(said, KEY))}. "
            "Does it run, and serve that model?"
        )


def _in_time(call: Callable[[], Any], seconds: float) -> Any:
    """What a call gives. Raises TimeoutError where it takes longer; nobody waits for it then."""
    future: Future[Any] = Future()

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # of the call; it is raised where the result is asked for
            future.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return future.result(seconds)


def _text(content: Any) -> str:
    """The text of a message: some servers send a part, a list of parts or of texts, or null."""
    if content is None or isinstance(content, str):
        return content or ""
    if isinstance(content, Mapping):
        content = [content]
    return "".join(part if isinstance(part, str) else part.get("text") or "" for part in content)
