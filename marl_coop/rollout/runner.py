"""Play episodes: text from the environments goes in, sampled tokens come out.

All seats of all running episodes are one request to the engine per phase. What comes back is an `Episode` (text, for
rewards and metrics) and, for each seat, a `Trajectory` (tokens, for training).
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
from torch import Tensor

from envs.core.env import CoopEnv
from envs.core.episode import Episode, Phase, StopReason
from envs.core.task import Seat, Task
from marl_coop.engines import Engine, Generation, Request
from marl_coop.players import BASE, Mix, Player, player_name
from marl_coop.rollout.chat import Chat


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """One reply in its chat: ids[start:stop] were sampled in a round, with these log-probabilities."""

    start: int
    stop: int
    logprobs: list[float]
    round: int


@dataclass(slots=True, kw_only=True)
class Trajectory:
    """One seat's chat of one episode. `turns[k]` belongs to the seat's k-th turn in the episode.

    `player`: who sat there.
    `prefix_hidden_TH`: hidden states below the lowest adapter of all ids but the last, if the engine gives them.
    """

    seat: Seat
    player: Player
    ids: list[int] = field(default_factory=list)
    turns: list[Transition] = field(default_factory=list)
    prefix_hidden_TH: Tensor | None = None

    @property
    def adapter(self) -> str | None:
        """The adapter that the chat goes through; None for the base, and for a partner that writes text."""
        return self.player if isinstance(self.player, str) else None

    def latest(self, other: "Trajectory") -> list[int]:
        """For each turn of another seat, the number of this seat's last turn that is not of a later round; -1: none."""
        rounds = [turn.round for turn in self.turns]
        return [bisect_right(rounds, turn.round) - 1 for turn in other.turns]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    episode: Episode
    traces: Mapping[Seat, Trajectory]

    @property
    def fault(self) -> bool:
        """Whether the machine failed, which is nobody's play."""
        return self.episode.stop_reason is StopReason.SANDBOX_FAULT


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaySpec:
    """An episode to play with something changed: another task text, others in the seats, replies that are given.

    `given` maps (seat, index of its turn) to the ids of a reply that is not sampled; nobody hears the `muted` seats.
    """

    task: Task
    policies: Mapping[Seat, Player]
    given: Mapping[tuple[Seat, int], list[int]]
    muted: tuple[Seat, ...] = ()


def stable_seed(*key: int) -> int:
    """A 63-bit seed that depends on every number of the key and on nothing else.

    >>> stable_seed(1, 2) == stable_seed(1, 2), stable_seed(1, 2) == stable_seed(2, 1)
    (True, False)
    """
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1))


class RolloutRunner:
    """What is needed to play: who sits where, how they sample, how long they may speak.

    Args:
        make_env: gives a fresh environment.
        policies: who sits in each seat, or a mix of them.
        engine: samples the replies.
        chat: puts text into token ids.
        max_tokens: length limit of a reply in each phase.

    Raises:
        ValueError: the seats of the environment are not those of `policies`.
    """

    def __init__(
        self,
        make_env: Callable[[], CoopEnv],
        policies: Mapping[Seat, Player | Mix],
        engine: Engine,
        chat: Chat,
        max_tokens: Mapping[Phase, int],
    ):
        self.make_env, self.policies, self.engine = make_env, policies, engine
        self.chat, self.max_tokens = chat, max_tokens
        seats = make_env().possible_agents
        if set(seats) != set(policies):
            raise ValueError(f"policies are for {sorted(policies)}; name one for each of the seats {sorted(seats)}.")

    def play(self, task_seeds: Sequence[int], sampling_seed: int) -> list[Rollout]:
        """One episode per task seed. The same arguments and weights give the same episodes, in any batch."""
        return self._play([_EpisodeSlot(self, seed, sampling_seed) for seed in task_seeds])

    def replay(self, specs: Sequence[ReplaySpec], sampling_seed: int) -> list[Rollout]:
        """One episode per spec, with the random numbers that `play` gives to its task's seed."""
        return self._play([_EpisodeSlot(self, v.task.seed, sampling_seed, v) for v in specs])

    def _play(self, tables: "list[_EpisodeSlot]") -> list[Rollout]:
        self.engine.reset_cache()
        with ThreadPoolExecutor(max_workers=4) as pool:  # the last step of an episode waits for its tests
            while running := [table for table in tables if table.env.agents]:
                list(pool.map(_EpisodeSlot.prepare, running))
                requests = [request for table in running for request in table.requests()]
                generations = iter(self.engine.generate(requests))
                for table in running:
                    table.record(generations)
                list(pool.map(_EpisodeSlot.step, running))
        self.engine.reset_cache()
        return [table.rollout() for table in tables]


class _EpisodeSlot:
    """One running episode: an environment and the chats of those who sit at it."""

    def __init__(self, players: RolloutRunner, task_seed: int, sampling_seed: int, spec: ReplaySpec | None = None):
        self.players, self.key = players, (sampling_seed, task_seed)
        self.env = players.make_env()
        self.given = spec.given if spec else {}
        policies = spec.policies if spec else players.policies
        options = {"task": spec.task, "muted": spec.muted} if spec else None
        self.observations, _ = self.env.reset(seed=task_seed, options=options)
        self.traces = {
            seat: Trajectory(seat=seat, player=Mix.of(policies[seat]).draw(stable_seed(*self.key, i)))
            for i, seat in enumerate(self.env.agents)
        }
        self.replies: dict[Seat, str] = {}
        self.ready: dict[Seat, list[int]] = {}  # replies of this step that are not sampled
        self.round = 0

    def prepare(self) -> None:
        """Find the replies that nobody has to sample: those that are given, and those of partners that write text."""
        self.ready, self.replies = {}, {}
        for seat in self.env.acting:
            trace = self.traces[seat]
            if (ids := self.given.get((seat, len(trace.turns)))) is not None:
                self.ready[seat] = ids
            elif trace.player is not BASE and trace.adapter is None:
                self.replies[seat] = trace.player.reply(self.env, seat)
                self.ready[seat] = self.players.chat.reply_ids(self.replies[seat])

    def requests(self) -> list[Request]:
        """What is to be sampled next: a reply for each seat that has none ready."""
        chat, limit = self.players.chat, self.players.max_tokens[self.env.phase]
        for seat in self.env.acting:
            trace, text = self.traces[seat], self.observations[seat]
            trace.ids = chat.follow(trace.ids, text) if trace.ids else chat.open(text)
        return [
            Request(
                chat=(self.key, seat),
                ids=self.traces[seat].ids,
                adapter=self.traces[seat].adapter,
                max_tokens=limit,
                seed=stable_seed(*self.key, self.env.possible_agents.index(seat), len(self.traces[seat].turns)),
            )
            for seat in self.env.acting
            if seat not in self.ready
        ]

    def record(self, sampled: Iterator[Generation]) -> None:
        """Take the next replies of `sampled`, one for each of `requests`."""
        for seat in self.env.acting:
            trace, ready = self.traces[seat], self.ready.get(seat)
            generation = next(sampled) if ready is None else Generation(ids=ready, logprobs=[])
            start, stop = len(trace.ids), len(trace.ids) + len(generation.ids)
            trace.ids = [*trace.ids, *generation.ids]
            trace.turns.append(Transition(start=start, stop=stop, logprobs=generation.logprobs, round=self.round))
            trace.prefix_hidden_TH = generation.prefix_hidden_TH
            self.replies.setdefault(seat, self.players.chat.reply_text(generation.ids))

    def step(self) -> None:
        self.observations, *_ = self.env.step({seat: self.replies[seat] for seat in self.env.acting})
        self.round += 1

    def rollout(self) -> Rollout:
        players = {seat: player_name(trace.player) for seat, trace in self.traces.items()}
        return Rollout(episode=replace(self.env.episode, players=players), traces=self.traces)
