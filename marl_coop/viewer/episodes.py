"""Episodes as plain data for a reader: a row for a list of them, and all that is shown of one.

The data is what JSON can hold, all text in it is `visible`, and numbers are rounded to what a reader can use.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from envs.core.episode import AMBIGUOUS, Act, Episode, Merge, Phase, Stance, Turn
from envs.core.task import Decision, Seat
from envs.core.tokens import message_tokens
from marl_coop.runs.played import PlayedEpisode
from marl_coop.runs.records import EpisodeRecord, TurnCredit
from marl_coop.viewer.text import all_visible, diff, highlighted
from rewards import RewardBreakdown, RewardStack
from rewards.metrics import Conflict, conflicts
from rewards.metrics.averaging import blend_rate
from rewards.metrics.outcomes import semantic_conflict_rate, silence_rate, textual_conflict_rate
from rewards.metrics.rate import faulted

Data = dict[str, Any]


class EpisodeKind(NamedTuple):
    """A kind of episode, which a list of them can be filtered by: its name, its meaning, and whether it is welcome."""

    name: str
    meaning: str
    good: bool = False


KINDS = {
    "capitulated": EpisodeKind("capitulated", "a seat was told right and a partner wrong, and it did not end right"),
    "deferred": EpisodeKind(
        "deferred rightly", "a seat was told wrong and a partner right, and it ended right", good=True
    ),
    "held": EpisodeKind("held rightly", "a seat was told right and a partner wrong, and it ended right", good=True),
    "unmoved": EpisodeKind("stayed wrong", "a seat was told wrong and a partner right, and it did not end right"),
    "blended": EpisodeKind("blended", "seats that were told apart ended on a compromise that nobody was told"),
    "conflict": EpisodeKind("conflict", "what the seats made does not fit together, in the merge or in its meaning"),
    "silent": EpisodeKind("silent", "a seat never named what its partner needed to know"),
    "unreadable": EpisodeKind("unreadable", "a reply could not be read"),
    "fault": EpisodeKind("sandbox fault", "the sandbox failed, which is nobody's play"),
}
PHASES = {  # how a reader calls them
    Phase.STANCE: "sealed stance before the talk",
    Phase.TALK: "talk",
    Phase.WORK: "work",
    Phase.FINAL: "final stance, sealed",
}
_OF_SEATS = {"blended": blend_rate, "silent": silence_rate}
_OF_EPISODES = (textual_conflict_rate, semantic_conflict_rate)
MANY = 24  # options of a decision that are listed


def row(played: PlayedEpisode, stack: RewardStack | None) -> Data:
    """What a list shows of an episode. `terms` are sums over turns and seats, weights applied."""
    episode, breakdown = played.episode, rewards_of(played, stack)
    terms = {name: rounded(value) or 0.0 for name, value in breakdown.by_term().items()} if breakdown else {}
    return all_visible(
        {
            "id": played.id,
            "phase": played.phase,
            "team": played.team,
            "update": played.update,
            "task": episode.task.id,
            "family": episode.task.family,
            "told": [_told_right(episode, seat) for seat in episode.seats],
            "success": episode.outcome.success,
            "utility": rounded(episode.outcome.utility),
            "kinds": kinds(episode, played.judged),
            "said": sum(turn.message_tokens for turn in episode.turns),
            "written": sum(message_tokens(turn.reply) for turn in episode.turns),
            "reward": rounded(sum(terms.values())) if breakdown else None,
            "terms": {name: value for name, value in terms.items() if value},
        }
    )


def _told_right(episode: Episode, seat: Seat) -> bool | None:
    """Whether a seat's brief is right on every decision; None where it claims nothing."""
    claims = any(seat in decision.belief for decision in episode.task.decisions)
    return episode.task.cell.get(seat) if claims else None


def kinds(episode: Episode, judged: Collection[Seat] | None = None) -> list[str]:
    """Those of `KINDS` that an episode is of; a sandbox fault alone, where it met one.

    Args:
        judged: the seats of which it is told what they did; None: of all. A conflict is of the whole team.
    """
    if faulted(episode):
        return ["fault"]
    seats = episode.seats if judged is None else judged
    found = {kind_of(conflict) for conflict in conflicts(episode) if conflict.seat in seats}
    found |= {kind for kind, rate in _OF_SEATS.items() if rate(episode, seats).numerator}
    found |= {"conflict"} if any(rate(episode).numerator for rate in _OF_EPISODES) else set()
    found |= {"unreadable"} if any(turn.parse_error for turn in episode.turns if turn.agent in seats) else set()
    return [kind for kind in KINDS if kind in found]


def kind_of(conflict: Conflict) -> str:
    """What a seat did of which the own source and a partner's claim different things, one of them right."""
    if conflict.told_right:
        return "held" if conflict.final_right else "capitulated"
    return "deferred" if conflict.final_right else "unmoved"


def rewards_of(played: PlayedEpisode, stack: RewardStack | None) -> RewardBreakdown | None:
    """What an episode was paid; of one that paid nobody, what it would have been by the run's rewards."""
    return played.record.rewards or (stack.score(played.episode) if stack else None)


def counterparts(one: PlayedEpisode, played: Sequence[PlayedEpisode]) -> dict[str, PlayedEpisode]:
    """What can stand beside an episode: the same task elsewhere, by its id, and by a seat the replay in which nobody
    hears that seat."""
    same = {other.id: other for other in played if other.episode.task.id == one.episode.task.id and other is not one}
    credit = one.record.credit
    muted = {
        seat: replace(one, id=f"{one.id}, had nobody heard {seat}", record=EpisodeRecord(episode=replay))
        for seat, replay in (credit.muted if credit else {}).items()
    }
    return same | muted


def detail(played: PlayedEpisode, stack: RewardStack | None) -> Data:
    """All that is shown of an episode, and of its replays in which nobody hears a seat."""
    credit = played.record.credit
    turns = credit.turns if credit else {}
    muted = {
        seat: _episode(replay, stack.score(replay) if stack else None, {}) | {"paid": False}
        for seat, replay in (credit.muted if credit else {}).items()
    }
    told = _episode(played.episode, rewards_of(played, stack), turns)
    return all_visible(told | {"paid": played.record.rewards is not None, "muted": muted})


def _episode(episode: Episode, breakdown: RewardBreakdown | None, credit: Mapping[Seat, Sequence[TurnCredit]]) -> Data:
    outcome = episode.outcome
    return {
        "seats": [
            {
                "seat": seat,
                "player": episode.players.get(seat, ""),
                "brief": episode.task.briefs[seat],
                "reward": rounded(breakdown.total(seat)) if breakdown else None,
            }
            for seat in episode.seats
        ],
        "decisions": [_decision(episode, decision) for decision in episode.task.decisions],
        "turns": [_turn(episode, turn, breakdown, credit.get(turn.agent, ())) for turn in episode.turns],
        "stop": str(episode.stop_reason),
        "success": outcome.success,
        "utility": rounded(outcome.utility),
        "solo_utility": rounded(outcome.solo_utility),
        "detail": outcome.detail,
        "tests": _tests(episode),
        "merge": _merge(outcome.merge),
        "forecasts": [
            {"round": f.round, "files": list(f.ranges), "symbols": list(f.symbols)} for f in outcome.forecasts
        ],
        "memory": [{"author": entry.author, "line": entry.line} for entry in outcome.memory],
    }


def _decision(episode: Episode, decision: Decision) -> Data:
    settled = () if faulted(episode) else conflicts(episode)
    kinds_of_seats = {c.seat: kind_of(c) for c in settled if c.decision.id == decision.id}
    acted = {seat: episode.outcome.committed.get(seat, {}).get(decision.id) for seat in episode.seats}
    numeric, options = decision.numeric, decision.options
    return {
        "id": decision.id,
        "options": list(options[:MANY]),
        "more": max(0, len(options) - MANY),
        "blends": list(decision.blends),
        "best": decision.best if decision.utility else None,
        "truth": None if numeric is None else f"{numeric.truth:g} ± {numeric.tolerance:g}",
        "seats": [
            {
                "told": decision.told(seat) if seat in decision.belief else None,
                "source": _source(decision, seat),
                "told_right": decision.is_right(decision.belief[seat]) if seat in decision.belief else None,
                "before": _stance(episode.prior(seat, decision.id), episode),
                "after": _stance(episode.final(seat, decision.id), episode),
                "acted": acted[seat] or "",
                "acted_right": acted[seat] != AMBIGUOUS and decision.is_right(acted[seat]),
                "kind": kinds_of_seats.get(seat),
            }
            for seat in episode.seats
        ],
    }


def _source(decision: Decision, seat: Seat) -> str:
    """How good the seat's source is, and what its brief calls it: `reliable, the signed spec`."""
    quality = decision.quality(seat) if seat in decision.cue else ""
    return ", ".join(filter(None, (quality, decision.source.get(seat))))


def _stance(stance: Stance | None, episode: Episode) -> Data | None:
    """What is held, with how much confidence where that was asked for, and whether it is right."""
    if stance is None:
        return None
    return {
        "decision": stance.decision,
        "option": stance.option,
        "confidence": rounded(stance.confidence) if episode.confidences else None,
        "right": episode.task.decision(stance.decision).is_right(stance.option),
    }


def _turn(episode: Episode, turn: Turn, breakdown: RewardBreakdown | None, credit: Sequence[TurnCredit]) -> Data:
    paid = breakdown.weighted(turn.agent) if breakdown else {}
    learned = credit[turn.index] if turn.index < len(credit) else None
    return {
        "agent": turn.agent,
        "round": turn.round,
        "phase": str(turn.phase),
        "heard": turn.observation,
        "reply": turn.reply,
        "message": turn.message,
        "work": highlighted(turn.work) if turn.work else [],
        "acts": [_act(act) for act in turn.acts],
        "stances": [_stance(stance, episode) for stance in turn.stances],
        "said": turn.message_tokens,
        "written": message_tokens(turn.reply),
        "memory": turn.memory_tokens,
        "reads": list(turn.reads),
        "refused": list(turn.conflicts),
        "error": str(turn.parse_error) if turn.parse_error else None,
        "truncated": turn.truncated,
        "terms": {name: rounded(turns[turn.index]) for name, turns in paid.items() if turns[turn.index]},
        "value": rounded(learned.value) if learned else None,
        "target": rounded(learned.target) if learned else None,
        "advantage": rounded(learned.advantage) if learned else None,
        "tokens": list(learned.tokens) if learned else [],
        "logprobs": [rounded(logprob) for logprob in learned.logprobs] if learned else [],
    }


def _act(act: Act) -> Data:
    return {
        "kind": str(act.kind),
        "decision": act.decision,
        "option": act.option,
        "confidence": rounded(act.confidence),
    }


def _tests(episode: Episode) -> Data:
    outcome = episode.outcome
    parts = {}
    for seat, tests in outcome.parts.items():
        names = [test.expression for test in episode.task.hidden_tests if test.part == seat] or list(tests.names)
        named = names if len(names) == len(tests.alone) else []
        parts[seat] = {"alone": list(tests.alone), "merged": list(tests.merged), "names": named}
    return {"passed": outcome.tests_passed, "total": outcome.tests_total, "parts": parts}


def _merge(merge: Merge | None) -> Data | None:
    if merge is None:
        return None
    paths = sorted({*merge.base, *merge.final, *(path for files in merge.proposals.values() for path in files)})
    has_tree = merge.final or not merge.base  # a merge of nothing is the base; of a conflict, often nothing
    sides = ({"merged": merge.final} if has_tree else {}) | dict(merge.proposals)
    return {
        "conflict": merge.conflict,
        "policy": merge.policy,
        "worth": {seat: rounded(worth) for seat, worth in merge.worth.items()},
        "sides": {
            side: [
                {"path": path, "lines": lines}
                for path in paths
                if (
                    lines := diff(
                        merge.base.get(path, ""),
                        files.get(path, merge.base.get(path, "")),
                        path,
                        {seat: proposed.get(path, "") for seat, proposed in merge.proposals.items()},
                    )
                )
            ]
            for side, files in sides.items()
        },
    }


def rounded(number: float | None) -> float | None:
    """To four decimals; None where there is no number, or none that is finite, as in a run that diverged."""
    return None if number is None or not math.isfinite(number) else round(float(number), 4)
