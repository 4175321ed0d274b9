"""Where small tests run: on this machine (`envs.sandbox.forks`) or on another one.

With MARL_COOP_SANDBOX_URL they run where a server of SWE-ReX answers (github.com/SWE-agent/SWE-ReX): on a machine of
one's own, or in a container of Docker, Modal, Fargate or Daytona. This library is installed there and does what it does
here, so verdicts are the same. Sources and the expressions on them leave this machine, values come back, and what a
value should be stays here.
"""

import json
import os
import secrets
from collections.abc import Sequence
from typing import Any

from envs.sandbox import forks, tiers, wire
from envs.sandbox.forks import Body, ForkReply, Lost

URL = "MARL_COOP_SANDBOX_URL"
TOKEN = "MARL_COOP_SANDBOX_TOKEN"  # the server's --auth-token


def ask(processes: Sequence[Body], *, timeout_s: float, memory_mb: int) -> list[ForkReply]:
    """Run each body in a fresh process, all at the same time, every one within these limits.

    Raises:
        Lost: there is no answer, because nothing could start, did not survive, or is out of reach.
        SandboxError: a layer that is demanded does not hold there.
    """
    if not (url := os.environ.get(URL)):
        return forks.ask(processes, timeout_s=timeout_s, memory_mb=memory_mb)
    order = {"processes": processes, "timeout_s": timeout_s, "memory_mb": memory_mb}
    answer = _remote(url, order, 2 * wire.START_S * (len(processes) + 1) + timeout_s)
    replies = [ForkReply(ended, written.encode("latin-1")) for ended, written in answer["replies"]]
    if len(replies) != len(processes):
        raise Lost(f"{url} answered {len(replies)} of {len(processes)} processes", started=False)
    return replies


def tier() -> tiers.Tier:
    """What holds for small tests where they run. SandboxError where nothing can be run, or less than is demanded."""
    if not (url := os.environ.get(URL)):
        return forks.tier()
    try:
        found = _remote(url, {}, 2 * wire.START_S)["tier"]
    except Lost as lost:
        raise tiers.SandboxError(f"no code can be run ({URL}): {lost}") from lost
    return tiers.Tier(kind=f"{url} {found['kind']}", layers=tuple(found["layers"]), missing=found["missing"])


def _remote(url: str, order: dict[str, Any], timeout_s: float) -> dict[str, Any]:
    """What `envs.sandbox.answer` says there to an order, which it removes before it runs anything."""
    import httpx  # takes longer to load than all of the sandbox

    path = f"/tmp/marl-coop-{secrets.token_hex(16)}.json"
    order |= {"demand": os.environ.get(tiers.DEMAND, "")}
    command = {"command": ["python", "-m", "envs.sandbox.answer", path], "timeout": timeout_s}
    headers = {"X-API-Key": os.environ.get(TOKEN, "")}
    try:
        with httpx.Client(base_url=url, headers=headers, timeout=timeout_s + wire.START_S) as client:
            client.post("/write_file", json={"path": path, "content": json.dumps(order)}).raise_for_status()
            response = client.post("/execute", json=command).raise_for_status()
            said = response.json()
        if said["exit_code"]:
            raise Lost(f"{url}: {said['stderr'].strip()[-200:]}", started=False)
        answer = json.loads(said["stdout"])
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, LookupError, TypeError, AttributeError) as error:
        raise Lost(f"{url}: {type(error).__name__}: {error}", started=False) from error
    if "refused" in answer:
        raise tiers.SandboxError(f"{url}: {answer['refused']}")
    if "lost" in answer:
        raise Lost(f"{url}: {answer['lost']}", started=answer["started"])
    return answer
