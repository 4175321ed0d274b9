"""CooperBench's tree of logs: writes what `cooperbench eval` reads, reads what `cooperbench run` wrote.

    <logs>/<run>/<setting>/<repo>_task/<number>/f<i>_f<j>/result.json  conversation.json
                                                          agent<i>.patch  agent<i>_traj.json  agent<j>...
                                                          solo.patch  solo_traj.json          (setting solo)
                                                          eval.json                           (a verdict, if any)

The number in a file's name is the feature and not the agent: `agent1` has the lower feature id.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from envs.cooperbench.evaluation import PairVerdict
from envs.repository.merge import Strategy

SETTINGS = ("solo", "coop", "team")
STRATEGIES = {
    Strategy.NAIVE: "naive",
    Strategy.UNION: "union",
    Strategy.LEAD: "solo-agent1",
    Strategy.IDENTICAL: "skip-merge-identical",
}


class LogError(ValueError):
    """A folder of logs is not as CooperBench writes them; the message has the path and what is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message between agents. `seconds` is when it was sent, since 1970; None where nothing tells."""

    sender: str
    receiver: str
    text: str
    seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentLog:
    """What one agent did: its patch, and its chat as the benchmark stores it (role, content, tool calls, extra)."""

    agent: str
    features: tuple[int, ...]
    patch: str
    chat: tuple[Mapping[str, Any], ...] = ()
    status: str = "Submitted"
    model: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairLog:
    """One pair of features that was worked on: by two agents (setting coop or team) or one (setting solo).

    `result` is the content of result.json (where it is written, on top of what the other fields say), `evaluation` that
    of eval.json, the official verdict; None where nobody has evaluated the pair yet.
    """

    repo: str
    number: int
    features: tuple[int, int]
    setting: str
    agents: tuple[AgentLog, ...]
    messages: tuple[Message, ...] = ()
    result: Mapping[str, Any] = field(default_factory=dict)
    evaluation: Mapping[str, Any] | None = None

    @property
    def patches(self) -> tuple[str, str]:
        """The patch for each of the features, in their order, as `Evaluator.evaluate` takes them."""
        first, second = (agent.patch for i in self.features for agent in self.agents if i in agent.features)
        return first, second

    def folder(self, run: Path) -> Path:
        """Where the log of the pair lies inside the folder of a run."""
        low, high = sorted(self.features)
        return run / self.setting / self.repo / str(self.number) / f"f{low}_f{high}"


def write_log(run: Path, log: PairLog, verdict: PairVerdict | None = None) -> Path:
    """Write the log of a pair, and its verdict where there is one (`cooperbench eval` then skips the pair).

    Args:
        run: the folder of the run, `<logs>/<run>`.
        log: what to write.
        verdict: written as eval.json, in the benchmark's words; where None, `log.evaluation` if there is one.

    Returns the folder of the pair.

    Raises:
        LogError: the log is not one that `read_logs` would find and give back, or the run has one of this pair.
    """
    folder = log.folder(Path(run))
    if why := _refusal(log):
        raise LogError(f"{folder} cannot be written: {why}")
    if (folder / "result.json").exists():
        raise LogError(f"{folder} has a log already. A run has one of each pair; give another run, or remove it.")
    folder.mkdir(parents=True, exist_ok=True)
    for name, agent in zip(_names(log.setting, log.features), log.agents, strict=True):
        patch = agent.patch if not agent.patch or agent.patch.endswith("\n") else agent.patch + "\n"
        (folder / f"{name}.patch").write_bytes(patch.encode("utf-8", "surrogateescape"))
        chat = {"feature_id": agent.features[0], "agent_id": agent.agent, "model": agent.model, "status": agent.status}
        head = {"repo": log.repo, "task_id": log.number}
        _dump(folder / f"{name}_traj.json", head | chat | {"steps": _steps(agent), "messages": list(agent.chat)})
    by_agent = {agent.agent: agent.features[0] for agent in log.agents}
    sent = [
        {
            "from": m.sender,
            "to": m.receiver,
            "message": m.text,
            "timestamp": m.seconds,
            "feature_id": by_agent[m.sender],
        }
        for m in log.messages
    ]
    _dump(folder / "conversation.json", sent)
    agents = {
        agent.agent: {
            "feature_id": agent.features[0],
            "status": agent.status,
            "steps": _steps(agent),
            "patch_lines": len(agent.patch.splitlines()),
        }
        for agent in log.agents
    }
    result = {"repo": log.repo, "task_id": log.number, "features": list(log.features), "setting": log.setting}
    _dump(folder / "result.json", result | {"agents": agents, "messages_sent": len(sent)} | dict(log.result))
    evaluation = log.evaluation if verdict is None else official_verdict(verdict, log.setting)
    if evaluation is not None:
        _dump(folder / "eval.json", evaluation)
    return folder


def _names(setting: str, features: tuple[int, int]) -> dict[str, tuple[int, ...]]:
    """The names of the agents' files, and the features of each."""
    return {"solo": features} if setting == "solo" else {f"agent{i}": (i,) for i in features}


def _refusal(log: PairLog) -> str | None:
    """Why a log cannot be written, in words; None where it can."""
    if log.setting not in SETTINGS:
        return f"setting is {log.setting!r}; it must be one of {', '.join(SETTINGS)}."
    if not log.repo.endswith("_task"):
        return f"repo is {log.repo!r}; it must end in _task, as the dataset's folders do."
    wanted = list(_names(log.setting, log.features).values())
    if (found := [agent.features for agent in log.agents]) != wanted:
        return f"the agents have the features {found}; in the setting {log.setting} it must be {wanted}."
    known = [agent.agent for agent in log.agents]
    if strange := [message.sender for message in log.messages if message.sender not in known]:
        return f"conversation.json has a message from {strange[0]!r}; the agents are {', '.join(known)}."
    for agent in log.agents:
        try:
            agent.patch.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            return f"the patch of {agent.agent} is no text: {error}."
    return None


def official_verdict(verdict: PairVerdict, setting: str = "coop") -> dict[str, Any]:
    """A verdict in the words of the benchmark's eval.json."""
    lost = verdict.strategy is Strategy.LEAD and not verdict.both_passed  # the benchmark names it only where it won
    strategy = STRATEGIES[Strategy.NAIVE if lost else verdict.strategy]
    merge = {"status": verdict.merge_status, "strategy": strategy, "diff": ""}
    features = {
        f"feature{place}": {
            "feature_id": feature.feature,
            "passed": feature.passed,
            "tests_passed": feature.new[0] + feature.kept[0],
            "tests_failed": sum(total - passed for passed, total in (feature.new, feature.kept)),
        }
        for place, feature in enumerate(verdict.features, 1)
    }
    return {
        "repo": verdict.pair.repo,
        "task_id": verdict.pair.number,
        "features": list(verdict.pair.features),
        "setting": setting,
        "apply_status": {"agent1": verdict.applied[0].value, "agent2": verdict.applied[1].value},
        "merge": None if setting == "solo" else merge,
        **features,
        "both_passed": verdict.both_passed,
        "error": "the machine failed" if verdict.fault else None,
    }


def read_logs(run: str | Path) -> tuple[PairLog, ...]:
    """The logs of a run, `<logs>/<run>`, in the order of their paths.

    What one can do with them: grade `log.patches` with an `Evaluator`, beside the official verdict in
    `log.evaluation`; count what was said in `log.messages`; read each agent's `chat`, as its harness stored it. They
    are no `Episode`s, so reward terms and metrics do not score them. docs/cooperbench.md has an example.

    Messages are in the order in which they were sent, as far as the trajectories tell: some harnesses store messages
    without a time, and then list one agent's messages after the other's.

    Raises:
        LogError: there is no log, or one of them cannot be read.
    """
    run = Path(run)
    found = tuple(
        _read(file.parent, setting)
        for setting in SETTINGS
        for file in sorted(run.glob(f"{setting}/*_task/*/f*_f*/result.json"))
    )
    if not found:
        raise LogError(
            f"{run} has no <setting>/<repo>_task/<number>/f<i>_f<j>/result.json. Give the folder of one run."
        )
    return found


def _read(folder: Path, setting: str) -> PairLog:
    numbers = re.fullmatch(r"f(\d+)_f(\d+)", folder.name)
    if numbers is None or not folder.parent.name.isdigit():
        raise LogError(f"{folder} is not named <number>/f<i>_f<j>.")
    features = (int(numbers[1]), int(numbers[2]))
    names = _names(setting, features).items()
    agents = tuple(_agent(folder, name, ids, seat) for seat, (name, ids) in enumerate(names, 1))
    return PairLog(
        repo=folder.parent.parent.name,
        number=int(folder.parent.name),
        features=features,
        setting=setting,
        agents=agents,
        messages=_messages(folder, agents),
        result=_load(folder / "result.json", dict),
        evaluation=_load(folder / "eval.json", dict) or None,
    )


def _agent(folder: Path, name: str, features: tuple[int, ...], seat: int) -> AgentLog:
    patch, file = folder / f"{name}.patch", folder / f"{name}_traj.json"
    stored = _load(file, dict)
    return AgentLog(
        agent=stored.get("agent_id") or f"agent{seat}",
        features=features,
        patch=patch.read_text(encoding="utf-8", errors="surrogateescape") if patch.is_file() else "",
        chat=_messages_of(stored.get("messages") or (), file),
        status=stored.get("status") or "",
        model=stored.get("model") or "",
    )


def _messages(folder: Path, agents: tuple[AgentLog, ...]) -> tuple[Message, ...]:
    chats = {agent.agent: iter(list(_sayings(agent))) for agent in agents}
    found = []
    file = folder / "conversation.json"
    for entry in _messages_of(_load(file, list), file):
        sender, text = str(entry.get("from", "")), str(entry.get("message", ""))
        seconds = _number(entry.get("timestamp"))
        if seconds is None:  # the sender's next saying that has the text in it tells when
            seconds = next((when for said, when in chats.get(sender, ()) if text.strip() in said), None)
        found.append(Message(sender=sender, receiver=str(entry.get("to", "")), text=text, seconds=seconds))
    return tuple(sorted(found, key=lambda message: math.inf if message.seconds is None else message.seconds))


def _sayings(agent: AgentLog) -> Iterator[tuple[str, float | None]]:
    """What the agent wrote in each of its turns, commands included, and the first time that is stored from there on."""
    when = None
    later = []
    for entry in reversed(agent.chat):
        when = _number(_fields(entry.get("extra")).get("timestamp")) or when
        if entry.get("role") == "assistant":
            later.append((_said(entry), when))
    return iter(reversed(later))


def _said(entry: Mapping[str, Any]) -> str:
    words = [entry.get("content") or ""]
    calls = entry.get("tool_calls")
    for call in calls if isinstance(calls, list) else ():
        arguments = _fields(_fields(call).get("function")).get("arguments", "")
        try:
            words += map(str, json.loads(arguments).values())
        except (ValueError, AttributeError, TypeError):
            words.append(arguments)
    return "\n".join(map(str, words))


def _steps(agent: AgentLog) -> int:
    return sum(entry.get("role") == "assistant" for entry in agent.chat)


def _number(value: Any) -> float | None:
    """A time in seconds since 1970 from what harnesses store: a number, or a date and time in ISO 8601."""
    if isinstance(value, str):
        try:
            return datetime.fromisoformat(value).timestamp()
        except (ValueError, OverflowError):
            return None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _fields(value: Any) -> Mapping[str, Any]:
    """What a harness stored beside a message; nothing where that is no mapping, for harnesses differ in it."""
    return value if isinstance(value, Mapping) else {}


def _messages_of(entries: Any, file: Path) -> tuple[Mapping[str, Any], ...]:
    if not isinstance(entries, Sequence) or not all(isinstance(entry, dict) for entry in entries):
        raise LogError(f"{file} has {entries!r:.80} where a list of messages must be, each with fields such as 'role'.")
    return tuple(entries)


def _load(file: Path, kind: type) -> Any:
    """The JSON of a file, which must be of a kind; an empty one where there is no file."""
    if not file.is_file():
        return kind()
    try:
        value = json.loads(file.read_text(encoding="utf-8", errors="surrogateescape"))
    except ValueError as error:
        raise LogError(f"{file} is not JSON: {error}.") from error
    if not isinstance(value, kind):
        raise LogError(f"{file} holds a {type(value).__name__}; it must be a {kind.__name__}.")
    return value


def _dump(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
