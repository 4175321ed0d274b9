"""Where small tests run: on this machine (`envs.sandbox.forks`) or on another one.

With MARL_COOP_SANDBOX_URL they run where a server of SWE-ReX answers (github.com/SWE-agent/SWE-ReX): on a machine of
one's own, or in a container of Docker, Modal, Fargate or Daytona. This library is installed there and does what it does
here, so verdicts are the same. Sources and the expressions on them leave this machine, values come back, and what a
value should be stays here.
"""

import json
import os
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from envs.sandbox import forks, tiers, wire
from envs.sandbox.forks import Body, ForkReply, Lost

URL = "MARL_COOP_SANDBOX_URL"
TOKEN = "MARL_COOP_SANDBOX_TOKEN"  # the server's --auth-token
LARGEST = 2**26  # bytes of an answer
NONSENSE = ValueError, LookupError, TypeError, AttributeError, RecursionError  # what reading an answer can raise

Read = TypeVar("Read")


def ask(processes: Sequence[Body], *, timeout_s: float, memory_mb: int) -> list[ForkReply]:
    """Run each body in a fresh process, all at the same time, every one within these limits.

    Raises:
        Lost: there is no answer, because nothing could start, did not survive, or is out of reach.
        SandboxError: a layer that is demanded does not hold there, or another version of this library is there.
    """
    if not (url := _address()):
        return forks.ask(processes, timeout_s=timeout_s, memory_mb=memory_mb)
    order = {"processes": processes, "timeout_s": timeout_s, "memory_mb": memory_mb}
    replies = _remote(url, order, 2 * wire.START_S * (len(processes) + 1) + timeout_s, _replies)
    if len(replies) != len(processes):
        raise Lost(f"{url} answered {len(replies)} of {len(processes)} processes", started=False)
    return replies


def tier() -> tiers.Tier:
    """What holds for small tests where they run. SandboxError where nothing can be run, or less than is demanded."""
    if not (url := _address()):
        return forks.tier()
    try:
        found = _remote(url, {}, 2 * wire.START_S, lambda answer: tiers.Tier(**answer["tier"]))
    except Lost as lost:
        raise tiers.SandboxError(f"no code can be run ({URL}): {lost}") from lost
    return tiers.Tier(kind=f"{url} {found.kind}", layers=tuple(found.layers), missing=found.missing)


def _address() -> str | None:
    """The server's; None: code runs on this machine. SandboxError where the records of a run would show a secret."""
    url = os.environ.get(URL)
    if url and not {"@", "?"}.isdisjoint(url):
        raise tiers.SandboxError(
            f"{URL} has a user, a password or a query in it, which records would show: use {TOKEN}"
        )
    return url


def _replies(answer: dict[str, Any]) -> list[ForkReply]:
    ends = wire.ANSWERED, wire.OVER_TIME
    return [ForkReply(ends[ends.index(ended)], written.encode("latin-1")) for ended, written in answer["replies"]]


def _remote(url: str, order: dict[str, Any], timeout_s: float, read: Callable[[dict[str, Any]], Read]) -> Read:
    """What is read of the answer of `envs.sandbox.answer` there to an order, which it removes before it runs anything.

    Raises:
        Lost: none comes in time, or one that cannot be read.
        SandboxError: it is refused there, or what answers has another version, whose verdicts may be others.
    """
    import httpx  # takes longer to load than all of the sandbox

    path = f"/tmp/marl-coop-{secrets.token_hex(16)}.json"
    order |= {"demand": os.environ.get(tiers.DEMAND, "")}
    command = {"command": ["python", "-m", "envs.sandbox.answer", path], "timeout": timeout_s}
    headers = {"X-API-Key": os.environ.get(TOKEN, "").strip()}
    if not headers["X-API-Key"].isprintable():  # the client would quote it
        raise tiers.SandboxError(f"{TOKEN} has a character in it that no header may have")
    deadline = time.monotonic() + timeout_s + 2 * wire.START_S
    try:
        with httpx.Client(base_url=url, headers=headers, timeout=timeout_s + wire.START_S) as client:
            client.post("/write_file", json={"path": path, "content": json.dumps(order)}).raise_for_status()
            with client.stream("POST", "/execute", json=command) as response:
                text = b""
                for chunk in response.raise_for_status().iter_bytes():
                    text += chunk
                    if len(text) > LARGEST or time.monotonic() > deadline:
                        raise ValueError("an answer without an end")
        said = json.loads(text)
        if said["exit_code"]:
            raise Lost(f"{url}: {said['stderr'].strip()[-200:]}", started=False)
        answer = json.loads(said["stdout"])
        if (there := answer.get("version")) != tiers.version():
            problem = f"{there or 'an older version'} is there, and here is {tiers.version()}"
            raise tiers.SandboxError(f"{url}: {problem}. Install this version there, for the same Python.")
        if "refused" in answer:
            raise tiers.SandboxError(f"{url}: {answer['refused']}")
        if "lost" in answer:
            raise Lost(f"{url}: {answer['lost']}", started=bool(answer["started"]))
        return read(answer)
    except (httpx.HTTPError, httpx.InvalidURL, *NONSENSE) as error:
        raise Lost(f"{url}: {type(error).__name__}: {error}", started=False) from error
