"""Episodes as logs of Inspect, one for each part of a run: `inspect view --log-dir FOLDER` opens them.

A sample is an episode: what each seat was told, and in its transcript a span for each turn, as of an agent that has the
seat's name. Its scores are the team's result and, where training paid, the sum of each reward term.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from inspect_ai.event import Event, InfoEvent, ModelEvent, SpanBeginEvent, SpanEndEvent
from inspect_ai.log import (
    EvalConfig,
    EvalDataset,
    EvalError,
    EvalLog,
    EvalMetric,
    EvalResults,
    EvalSample,
    EvalScore,
    EvalSpec,
    EvalStats,
    write_eval_log,
)
from inspect_ai.model import ChatMessage, ChatMessageAssistant, ChatMessageUser, GenerateConfig, ModelOutput
from inspect_ai.scorer import Score
from inspect_ai.viewer import ViewerConfig

from envs.core.episode import Turn
from envs.core.tokens import written
from marl_coop.export.episode import Row, remove_earlier, row
from marl_coop.runs.played import PlayedEpisode
from rewards.metrics import measure, of_seats
from rewards.metrics.rate import faulted

TEAM, REWARDS = "team", "rewards"  # scorers


def write_logs(parts: Mapping[str, Sequence[PlayedEpisode]], name: str, folder: Path) -> None:
    """Write `folder/<part>.eval`.

    Args:
        parts: episodes by the part of the run; at least one of each.
        name: the run's.
        folder: is made, and logs of an earlier export there are removed; `inspect_ai.log.read_eval_log` reads each file
            back.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remove_earlier(folder, ".eval", parts)
    for part, played in parts.items():
        write_eval_log(_log(played, f"{name}: {part}"), folder / f"{part}.eval")


def _log(played: Sequence[PlayedEpisode], task: str) -> EvalLog:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    samples = [_sample(one) for one in played]
    return EvalLog(
        status="success",
        eval=EvalSpec(
            created=now,
            task=task,
            model="+".join(played[0].episode.players.values()) or TEAM,
            dataset=EvalDataset(samples=len(samples), sample_ids=[sample.id for sample in samples]),
            config=EvalConfig(epochs=1),
            viewer=ViewerConfig(trust_content=False),  # a reply is shown as the text that it is
        ),
        stats=EvalStats(started_at=now, completed_at=now),  # an episode has no times of its own
        results=_results(played),
        samples=samples,
    )


def _results(played: Sequence[PlayedEpisode]) -> EvalResults:
    """Every metric of the part that is defined, of the seats that are judged, with its interval and its number of
    cases."""
    judged = {id(one.episode): one.episode.seats if one.judged is None else one.judged for one in played}
    measured = measure([one.episode for one in played], of_seats(lambda episode: judged[id(episode)]))
    metrics = {
        name: EvalMetric(name=name, value=m.value, metadata={"low": m.low, "high": m.high, "n": m.n})
        for name, m in measured.items()
        if m.value is not None
    }
    sound = sum(not faulted(one.episode) for one in played)
    return EvalResults(
        total_samples=len(played),
        completed_samples=sound,
        scores=[EvalScore(name=TEAM, scorer=TEAM, scored_samples=sound, metrics=metrics)],
    )


def _sample(played: PlayedEpisode) -> EvalSample:
    episode, content = played.episode, row(played)
    value = {"success": episode.outcome.success, "utility": episode.outcome.utility}
    scores = {TEAM: Score(value=value, explanation=content["detail"] or None)}
    if played.record.rewards is not None:
        scores[REWARDS] = Score(value=dict(played.record.rewards.by_term()))
    chats: dict[str, list[ChatMessage]] = {seat: [] for seat in episode.seats}
    events = [
        event
        for number, (turn, said) in enumerate(zip(episode.turns, content["turns"], strict=True))
        for event in _turn(number, turn, said, chats[turn.agent])
    ]
    told = "\n\n".join(f"{seat} was told:\n{brief}" for seat, brief in episode.task.briefs.items())
    fault = "the sandbox failed, which is nobody's play"
    return EvalSample(
        id=played.id,
        epoch=1,
        input=written(told),
        target=[written(f"{d.id}: {d.best}") for d in episode.task.decisions if d.utility],
        messages=[message for event in events if isinstance(event, ModelEvent) for message in _beside(event)],
        scores=scores,
        metadata={name: content[name] for name in ("task", "family", "seed", "update", "stop_reason")},
        events=events,
        error=EvalError(message=fault, traceback="", traceback_ansi="") if faulted(episode) else None,
    )


def _turn(number: int, turn: Turn, said: Row, chat: list[ChatMessage]) -> list[Event]:
    """A turn as a span of its seat; its two messages are added to the seat's chat."""
    player, span = said["player"] or turn.agent, f"turn-{number}"
    output = ModelOutput.from_content(player, said["reply"], stop_reason="max_tokens" if turn.truncated else "stop")
    chat.append(ChatMessageUser(content=said["observation"], metadata={"seat": turn.agent}))
    asked = ModelEvent(
        model=player,
        role=turn.agent,
        input=list(chat),
        tools=[],
        tool_choice="none",
        config=GenerateConfig(),
        output=output,
        span_id=span,
    )
    chat.append(ChatMessageAssistant(content=said["reply"], model=player, metadata={"seat": turn.agent}))
    about = {name: said[name] for name in ("phase", "round", "message", "message_tokens", "parse_error", "reward")}
    about["stances"] = [
        {"decision": written(s.decision), "option": written(s.option), "confidence": s.confidence} for s in turn.stances
    ]
    return [
        SpanBeginEvent(id=span, span_id=span, name=turn.agent, type="agent"),
        asked,
        InfoEvent(source="turn", data=about, span_id=span),
        SpanEndEvent(id=span, span_id=span),
    ]


def _beside(event: ModelEvent) -> tuple[ChatMessage, ChatMessage]:
    """What a seat was told last, and what it replied."""
    return event.input[-1], event.output.choices[0].message
