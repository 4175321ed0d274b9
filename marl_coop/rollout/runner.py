"""Play episodes: text from the environments goes in, sampled tokens come out.

Each episode goes on as soon as all of its next replies are there. What comes back is an `Episode` (text, for rewards
and metrics) and, for each seat, a `Trajectory` (tokens, for training).
"""

import math
import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from itertools import count
from typing import Any

from envs.core.env import CoopEnv
from envs.core.episode import Phase, Turn
from envs.core.seeds import stable_seed
from envs.core.task import Seat
from envs.core.tokens import written
from marl_coop.engines import Engine, EngineError, FinishReason, Generation, Request
from marl_coop.engines.base import check_reply
from marl_coop.players import Mix, Player, Sampled, player_name
from marl_coop.profiling import phase
from marl_coop.rollout.chat import Chat
from marl_coop.rollout.endpoint import Answer, Endpoint
from marl_coop.rollout.trajectory import ReplaySpec, Rollout, Trajectory, Transition

ENVIRONMENT_THREADS, ENDPOINT_THREADS = 4, 32  # the ones compute, the others wait


class RolloutRunner:
    """Plays episodes: who sits where, how they sample, how long they may speak.

    Args:
        make_env: gives a fresh environment.
        policies: who sits in each seat, or a mix of them.
        engine: samples the replies.
        chat: puts text into token ids.
        max_tokens: length limit of a reply in each phase.
        temperature: of the sampling, > 0.

    `acts` is whether the environment asks for acts.

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
        temperature: float,
    ):
        self.make_env, self.policies, self.engine = make_env, policies, engine
        self.chat, self.max_tokens, self.temperature = chat, max_tokens, temperature
        env = make_env()
        seats = env.possible_agents
        self.acts = env.config.acts
        if set(seats) != set(policies):
            raise ValueError(f"policies are for {sorted(policies)}; name one for each of the seats {sorted(seats)}.")

    def play(self, task_seeds: Sequence[int], sampling_seed: int) -> list[Rollout]:
        """One episode per task seed. The same arguments and weights give the same episodes, in any order and, but for
        rounding, in any batch.

        A seed that comes again is another play of the task, with the same players and other random numbers.
        """
        return self._play(self._slots(task_seeds, sampling_seed))

    def replay(self, specs: Sequence[ReplaySpec], sampling_seed: int) -> list[Rollout]:
        """One episode per spec, with the random numbers that `play` gives to that play of its task's seed."""
        return self._play([_EpisodeSlot(self, i, s.task.seed, sampling_seed, s.play, s) for i, s in enumerate(specs)])

    def play_ahead(self, task_seeds: Sequence[int], sampling_seed: int) -> Future[list[Rollout]]:
        """As `play`, in a thread of its own from the first requests on: what these make an engine do with the model,
        such as comparing log-probabilities, is done when this returns. Nothing else may be played meanwhile."""
        first, *later = self._shares(self._slots(task_seeds, sampling_seed))
        session, played = self._begin(first), Future[list[Rollout]]()

        def run() -> None:
            try:
                played.set_result(self._end_all(session, later))
            except BaseException as error:
                played.set_exception(error)

        threading.Thread(target=run, daemon=True).start()  # an interrupted run does not wait for it
        return played

    def _slots(self, task_seeds: Sequence[int], sampling_seed: int) -> "list[_EpisodeSlot]":
        plays = {seed: count() for seed in task_seeds}
        return [_EpisodeSlot(self, i, seed, sampling_seed, next(plays[seed])) for i, seed in enumerate(task_seeds)]

    @phase("environments")
    def _play(self, slots: "list[_EpisodeSlot]") -> list[Rollout]:
        first, *later = self._shares(slots)
        return self._end_all(self._begin(first), later)

    def _shares(self, slots: "list[_EpisodeSlot]") -> "list[list[_EpisodeSlot]]":
        """What is played together: as many episodes as the engine has memory for the chats of, one at least."""
        shares, chats = [[]], 0
        for slot in slots:
            chats += slot.sampled
            if shares[-1] and chats > (self.engine.max_chats or math.inf):
                shares.append([])
                chats = slot.sampled
            shares[-1].append(slot)
        return shares

    def _begin(self, slots: "list[_EpisodeSlot]") -> "_Session":
        self.engine.reset_cache()
        session = _Session(self.engine, slots)
        try:
            session.begin()
        except BaseException:
            self._close(session)
            raise
        return session

    def _end_all(self, session: "_Session", later: "list[list[_EpisodeSlot]]") -> list[Rollout]:
        """What a session plays, and then those of later shares."""
        rollouts = self._end(session)
        for slots in later:
            rollouts += self._end(self._begin(slots))
        return rollouts

    def _end(self, session: "_Session") -> list[Rollout]:
        try:
            session.run()
        finally:
            self._close(session)
        return [slot.rollout() for slot in session.slots]

    def _close(self, session: "_Session") -> None:
        session.close()
        self.engine.reset_cache()


class _Session:
    """Some episodes while they are played, each as far as its replies have come.

    Before the engine is asked to go on, every step of an environment that can lead to another request is waited for:
    so batches are full, and a run repeats to the last digit. Not waited for are endpoints, and the steps that end an
    episode, with their tests.
    """

    def __init__(self, engine: Engine, slots: "Sequence[_EpisodeSlot]"):
        self.engine, self.slots = engine, slots
        self._environments = ThreadPoolExecutor(ENVIRONMENT_THREADS)
        self._endpoints = ThreadPoolExecutor(ENDPOINT_THREADS)
        self._asked: dict[Hashable, tuple[_EpisodeSlot, Seat, Request]] = {}
        self._answering: dict[Future[Answer], tuple[_EpisodeSlot, Seat]] = {}
        self._ending: dict[Future[None], _EpisodeSlot] = {}  # steps after which nothing more is asked
        self._stepping = {self._environments.submit(slot.prepare): slot for slot in slots}

    def begin(self) -> None:
        """Ask for the first replies."""
        wait(self._stepping)
        self._go_on()

    def run(self) -> None:
        """Play until all episodes have ended."""
        while self._stepping or self._asked or self._answering or self._ending:
            if self._stepping:
                wait(self._stepping)
            elif self._asked:
                for generation in self._collect():
                    slot, seat, _ = self._asked.pop(generation.chat)
                    slot.take_sample(seat, generation)
                    self._step_if_ready(slot)
            else:
                running: list[Future[Any]] = [*self._answering, *self._ending]
                wait(running, return_when=FIRST_COMPLETED)
            self._go_on()

    def _go_on(self) -> None:
        """Take up what endpoints and environments have done."""
        for answer in [future for future in self._answering if future.done()]:
            slot, seat = self._answering.pop(answer)
            slot.take_text(seat, *answer.result())
            self._step_if_ready(slot)
        for steps in (self._stepping, self._ending):
            for step in [future for future in steps if future.done()]:
                slot = steps.pop(step)
                step.result()
                self._ask(slot)

    def _collect(self) -> list[Generation]:
        """One or more replies. Raises EngineError where the engine breaks its contract."""
        place = f"collect() of {type(self.engine).__name__}"
        with phase("sampling"):
            done = self.engine.collect()
        if not done:
            raise EngineError(f"{place} gave nothing, and {len(self._asked)} replies are to come")
        chats = [generation.chat for generation in done]
        if strange := next((chat for chat in chats if chat not in self._asked or chats.count(chat) > 1), None):
            raise EngineError(f"{place} gave a reply of {strange!r} that nobody waits for; give each once")
        for one in done:
            *_, request = self._asked[one.chat]
            check_reply(request, one, place)
        return done

    def close(self) -> None:
        for pool in (self._environments, self._endpoints):
            pool.shutdown(wait=False, cancel_futures=True)

    def _ask(self, slot: "_EpisodeSlot") -> None:
        """Begin the next turn of each seat that acts: its reply is given, is written already, or is asked for."""
        for seat in slot.env.acting:
            slot.hear(seat)
            player = slot.traces[seat].player
            if (ids := slot.given_ids(seat)) is not None:
                slot.take(seat, ids, slot.runner.chat.reply_text(ids), FinishReason.STOP)
            elif seat in slot.scripted:
                slot.take_text(seat, slot.scripted[seat], FinishReason.STOP)
            elif isinstance(player, Endpoint):
                self._answering[self._endpoints.submit(player.answer, slot.env, seat, slot.seed(seat))] = slot, seat
            else:
                request = slot.request(seat)
                self._asked[request.chat] = slot, seat, request
                self.engine.submit(request)
        self._step_if_ready(slot)

    def _step_if_ready(self, slot: "_EpisodeSlot") -> None:
        """Let the environment step once all replies are there."""
        if slot.env.agents and slot.replies.keys() == set(slot.env.acting):
            steps = self._ending if slot.env.phase is Phase.FINAL else self._stepping
            steps[self._environments.submit(slot.step)] = slot


class _EpisodeSlot:
    """One running episode: an environment, the chats of those who sit at it, and the replies to its next step.

    `prepare` and `step` may run in any thread, so they touch no tokenizer; all else is for the thread that plays.
    """

    def __init__(
        self,
        runner: RolloutRunner,
        index: int,
        task_seed: int,
        sampling_seed: int,
        play: int,
        spec: ReplaySpec | None = None,
    ):
        self.runner, self.index, self.key, self.play = runner, index, (sampling_seed, task_seed), play
        self.env = runner.make_env()
        self.given = spec.given if spec else {}
        policies = spec.policies if spec else runner.policies
        options = {"task": spec.task, "muted": spec.muted} if spec else None
        self.observations, _ = self.env.reset(seed=task_seed, options=options)
        self.traces = {
            seat: Trajectory(seat=seat, player=Mix.of(policies[seat]).draw(stable_seed(*self.key, i)))
            for i, seat in enumerate(self.env.agents)
        }
        self.scripted: dict[Seat, str] = {}
        self.replies: dict[Seat, str] = {}
        self.round = 0

    @property
    def sampled(self) -> int:
        """Its chats that the engine samples."""
        return sum(isinstance(trace.player, Sampled) for trace in self.traces.values())

    def prepare(self) -> None:
        """Write the next replies of the scripted partners."""
        self.scripted = {}
        for seat in self.env.acting:
            player = self.traces[seat].player
            if not isinstance(player, Sampled | Endpoint) and self.given_ids(seat) is None:
                self.scripted[seat] = player.reply(self.env, seat)

    def step(self) -> None:
        self.observations, *_ = self.env.step(self.replies)
        self.round += 1
        self.replies = {}
        self.prepare()

    def given_ids(self, seat: Seat) -> list[int] | None:
        return self.given.get((seat, len(self.traces[seat].turns)))

    def hear(self, seat: Seat) -> None:
        """Put what the seat was told into its chat."""
        chat, trace, text = self.runner.chat, self.traces[seat], self.observations[seat]
        trace.ids = chat.follow(trace.ids, text) if trace.ids else chat.open(text)

    def seed(self, seat: Seat) -> int:
        """The seed by which the seat's next reply is sampled."""
        again = (self.play,) if self.play else ()  # the first play has the random numbers of an only one
        return stable_seed(*self.key, self.env.possible_agents.index(seat), len(self.traces[seat].turns), *again)

    def request(self, seat: Seat) -> Request:
        trace, runner, phase = self.traces[seat], self.runner, self.env.phase
        assert phase is not None, "a seat is asked only while the episode runs"
        return Request(
            chat=(self.index, seat),
            ids=trace.ids,
            adapter=trace.adapter,
            max_tokens=runner.max_tokens[phase],
            temperature=runner.temperature,
            stop_ids=runner.chat.stops,
            seed=self.seed(seat),
        )

    def take_sample(self, seat: Seat, sample: Generation) -> None:
        text = self.runner.chat.reply_text(sample.ids)
        self.take(seat, sample.ids, text, sample.finish_reason, sample.logprobs, sample.version)
        self.traces[seat].prefix_hidden_TH = sample.prefix_hidden_TH

    def take_text(self, seat: Seat, text: str, finish_reason: FinishReason) -> None:
        text = written(text)
        self.take(seat, self.runner.chat.reply_ids(text), text, finish_reason)

    def take(
        self,
        seat: Seat,
        ids: list[int],
        text: str,
        finish_reason: FinishReason,
        logprobs: Sequence[float] = (),
        version: int | None = None,
    ) -> None:
        """Add a reply to the seat's chat; what the environment reads of it ends where its action space does."""
        trace, limit = self.traces[seat], self.env.action_space(seat).max_length
        self.replies[seat] = text[:limit]
        start, stop = len(trace.ids), len(trace.ids) + len(ids)
        trace.ids = [*trace.ids, *ids]
        trace.turns.append(
            Transition(
                start=start,
                stop=stop,
                round=self.round,
                logprobs=list(logprobs),
                finish_reason=FinishReason.LENGTH if len(text) > limit else finish_reason,
                version=version,
            )
        )

    def rollout(self) -> Rollout:
        episode = self.env.episode
        turns = (replace(t, truncated=self._truncated(t)) for t in episode.turns)
        players = {seat: player_name(trace.player) for seat, trace in self.traces.items()}
        episode = replace(episode, turns=tuple(turns), players=players)
        return Rollout(episode=episode, traces=self.traces, play=self.play)

    def _truncated(self, turn: Turn) -> bool:
        return self.traces[turn.agent].turns[turn.index].finish_reason is FinishReason.LENGTH
