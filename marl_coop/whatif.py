"""What would have been: episodes played once more with one thing changed, for credit and for comparison.

A replay meets the same task with the same random numbers, so what differs is the change's doing (a deterministic
replay, as in the difference rewards of Wolpert & Tumer 2001). Partners in it are frozen copies of the adapters
(`TeamPolicy.keep_start`): a partner that learned could else make messages look useful by playing worse without them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from envs.episode import Episode, Phase, Seat, StopReason, Task
from marl_coop import ppo
from marl_coop.rollout import Players, Rollout, Variation
from rewards import RewardBreakdown

NO_MESSAGE = "PASS"


def silence(
    players: Players, rollouts: Sequence[Rollout], seat: Seat, policies: Mapping[Seat, str | None], sampling_seed: int
) -> list[Rollout]:
    """The same episodes in which `seat` says nothing: its messages are PASS, and all that follows is played anew.

    What was written before anybody spoke stays as it was. Episodes without talk come back as they are.
    """
    silent = players.chat.reply_ids(NO_MESSAGE)
    played, talked = list(rollouts), [i for i, r in enumerate(rollouts) if _talk_turns(r.episode, seat)]
    variations = []
    for rollout in (rollouts[i] for i in talked):
        episode = rollout.episode
        talk = min(turn.round for turn in episode.turns if turn.phase is Phase.TALK)
        given = {
            (turn.agent, turn.index): _reply_ids(rollout, turn.agent, turn.index)
            for turn in episode.turns
            if turn.round < talk
        }
        given |= {(seat, k): silent for k in _talk_turns(episode, seat)}
        variations.append(Variation(task=episode.task, policies=policies, given=given))
    for i, rollout in zip(talked, players.vary(variations, sampling_seed), strict=True):
        played[i] = rollout
    return played


def message_baselines(
    rollouts: Sequence[Rollout],
    silenced: Sequence[Rollout],
    seat: Seat,
    score: Callable[[Episode], RewardBreakdown],
    gamma: float,
) -> list[Tensor]:
    """For each episode (K,): what `seat` would have been paid from each of its messages on, had it said nothing.

    nan for turns that are no messages, and for all turns where the replay met a sandbox fault.
    """
    baselines = []
    for rollout, other in zip(rollouts, silenced, strict=True):
        rewards_K = torch.tensor(score(other.episode).per_turn(seat), dtype=torch.float32)
        to_go_K = ppo.returns_to_go(rewards_K[None], gamma)[0]
        messages = _talk_turns(rollout.episode, seat)
        baseline_K = torch.full_like(to_go_K, torch.nan)
        if other.episode.stop_reason is not StopReason.SANDBOX_FAULT:
            baseline_K[messages] = to_go_K[messages]
        baselines.append(baseline_K)
    return baselines


def with_solo(
    players: Players, rollouts: Sequence[Rollout], adapters: Sequence[str | None], sampling_seed: int
) -> list[Rollout]:
    """The rollouts with `Outcome.solo_utility`: the best that one of the adapters gets done without a partner.

    A soloist reads all briefs, writes all parts and has nobody to talk to, so it spends at most as many tokens as the
    team may. None where the sandbox failed.
    """
    silent = players.chat.reply_ids(NO_MESSAGE)
    best: list[float | None] = [None] * len(rollouts)
    for adapter in dict.fromkeys(adapters):
        variations = [
            Variation(
                task=with_all_briefs(rollout.episode.task),
                policies=dict.fromkeys(rollout.episode.seats, adapter),
                given={(s, k): silent for s in rollout.episode.seats for k in _talk_turns(rollout.episode, s)},
            )
            for rollout in rollouts
        ]
        for i, solo in enumerate(players.vary(variations, sampling_seed)):
            if solo.episode.stop_reason is not StopReason.SANDBOX_FAULT:
                best[i] = max(best[i] or 0.0, solo.episode.outcome.utility)
    outcomes = (replace(r.episode.outcome, solo_utility=u) for r, u in zip(rollouts, best, strict=True))
    return [replace(r, episode=replace(r.episode, outcome=o)) for r, o in zip(rollouts, outcomes, strict=True)]


def with_all_briefs(task: Task) -> Task:
    """The task in which every seat knows what all were told."""
    told = {
        seat: [f"Your partner was told: {task.briefs[other]}" for other in task.seats if other != seat]
        for seat in task.seats
    }
    return replace(task, briefs={seat: "\n".join([task.briefs[seat], *told[seat]]) for seat in task.seats})


def _talk_turns(episode: Episode, seat: Seat) -> list[int]:
    return [turn.index for turn in episode.turns_of(seat) if turn.phase is Phase.TALK]


def _reply_ids(rollout: Rollout, seat: Seat, index: int) -> list[int]:
    trace = rollout.traces[seat]
    return trace.ids[trace.turns[index].start : trace.turns[index].stop]
