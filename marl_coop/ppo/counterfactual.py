"""What would have been: episodes played once more with one thing changed, for credit and for comparison.

A replay meets the same task with the same random numbers, so what differs is the change's doing (a deterministic
replay, as in the difference rewards of Wolpert & Tumer 2001). Partners in it are frozen copies of the adapters
(`TeamPolicy.snapshot_reference`): a partner that learned could else make messages look useful by playing worse
without them.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from envs.core.episode import Episode, Phase
from envs.core.task import Seat, Task
from marl_coop.players import Player
from marl_coop.ppo import losses
from marl_coop.rollout.runner import RolloutRunner
from marl_coop.rollout.trajectory import ReplaySpec, Rollout
from rewards import RewardBreakdown

NO_MESSAGE = "PASS"
OPEN = (Phase.TALK, Phase.WORK)  # phases in which a seat can speak


def replay_muted(
    players: RolloutRunner,
    rollouts: Sequence[Rollout],
    seat: Seat,
    frozen: Callable[[Player], Player],
    sampling_seed: int,
) -> list[Rollout]:
    """The same episodes in which nobody hears `seat`, and all that follows is played anew.

    In a phase of talk it says PASS; in a phase of work it acts, and its words are lost. What was written before anybody
    spoke stays as it was. Episodes in which it never could speak come back as they are. `frozen` gives who takes a
    partner's place.
    """
    silent = players.chat.reply_ids(NO_MESSAGE)
    played = list(rollouts)
    could_speak = [i for i, r in enumerate(rollouts) if any(turn.phase in OPEN for turn in r.episode.turns_of(seat))]
    specs = []
    for rollout in (rollouts[i] for i in could_speak):
        episode = rollout.episode
        first = min(turn.round for turn in episode.turns if turn.phase in OPEN)
        given = {
            (turn.agent, turn.index): _reply_ids(rollout, turn.agent, turn.index)
            for turn in episode.turns
            if turn.round < first
        }
        given |= {(seat, k): silent for k in _talk_turns(episode, seat)}
        seated = {s: t.player if s == seat else frozen(t.player) for s, t in rollout.traces.items()}
        specs.append(ReplaySpec(task=episode.task, policies=seated, given=given, muted=(seat,), play=rollout.play))
    for i, rollout in zip(could_speak, players.replay(specs, sampling_seed), strict=True):
        played[i] = rollout
    return played


def message_baselines(
    rollouts: Sequence[Rollout],
    silenced: Sequence[Rollout],
    seat: Seat,
    score: Callable[[Episode], RewardBreakdown],
    gamma: float,
) -> list[Tensor]:
    """For each episode (K,): what `seat` would have been paid from the round of each of its messages on, had nobody
    heard it.

    A replay that is over by that round counts with its last turn, which is paid for how it ended. nan for turns that
    are no messages, and for all turns where the replay met a sandbox fault or gave the seat no turn.
    """
    baselines = []
    for rollout, other in zip(rollouts, silenced, strict=True):
        turns, rounds = rollout.episode.turns_of(seat), [turn.round for turn in other.episode.turns_of(seat)]
        baseline_K = torch.full((len(turns),), torch.nan)
        if rounds and not other.fault:
            rewards_K = torch.tensor(score(other.episode).per_turn(seat), dtype=torch.float32)
            to_go_K = losses.returns_to_go(rewards_K[None], gamma)[0]
            for k, turn in enumerate(turns):
                if turn.phase is Phase.TALK or (turn.phase is Phase.WORK and turn.message):
                    baseline_K[k] = to_go_K[min(bisect_left(rounds, turn.round), len(rounds) - 1)]
        baselines.append(baseline_K)
    return baselines


def with_solo(
    players: RolloutRunner, rollouts: Sequence[Rollout], adapters: Sequence[str | None], sampling_seed: int
) -> list[Rollout]:
    """The rollouts with `Outcome.solo_utility`: the best that one of the adapters gets done without a partner.

    A soloist reads all briefs, writes all parts and has nobody to talk to, so it spends at most as many tokens as the
    team may. None where the sandbox failed.
    """
    silent = players.chat.reply_ids(NO_MESSAGE)
    best: list[float | None] = [None] * len(rollouts)
    for adapter in dict.fromkeys(adapters):
        specs = [
            ReplaySpec(
                task=with_all_briefs(rollout.episode.task),
                policies=dict.fromkeys(rollout.episode.seats, adapter),
                given={(s, k): silent for s in rollout.episode.seats for k in _talk_turns(rollout.episode, s)},
                play=rollout.play,
            )
            for rollout in rollouts
        ]
        for i, solo in enumerate(players.replay(specs, sampling_seed)):
            if not solo.fault:
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
