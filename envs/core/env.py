"""The environment that all tasks share: private briefs, sealed stances, talk, a final act, and the record of it all."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from gymnasium.utils import seeding
from pettingzoo import ParallelEnv

from envs.core import posterior, prompts
from envs.core.config import DesignConfig, FamilyConfig
from envs.core.configured import C, Configured
from envs.core.curriculum import LADDER
from envs.core.episode import ActKind, Episode, Outcome, Phase, StopReason, Turn
from envs.core.grammar import ParsedReply, parse_reply
from envs.core.options import check_actions, reset_options
from envs.core.posterior import Claim
from envs.core.prompts import GAP, Nouns
from envs.core.spaces import UnicodeText
from envs.core.task import Decision, Seat, Task, seats_of
from envs.core.tokens import first_tokens, message_tokens, written
from envs.core.transcript import joint_view, transcript
from envs.core.view import View

MAX_REPLY = 65_536  # characters
SEATS = seats_of(2)  # of a pair


class CoopEnv(Configured[C], ParallelEnv[Seat, str, str]):
    """Seats with private, partly wrong knowledge settle a task by text; two of them, where a subclass allows no more.

    ## Description
    An abstract base: a subclass says what a task is (`make_task`) and what comes of the final replies (`finish`).
    Each seat's brief claims one option of each decision and names its source. One source sounds reliable and the
    other does not; mostly, but not always, the reliable one is right where exactly one of them is.

    ## Action space
    `UnicodeText(65536)`: a seat's whole reply. `envs.core.grammar` has its grammar. A reply that breaks it counts for
    nothing and the episode goes on.

    ## Observation space
    `UnicodeText`: only what is new to the seat, so its chat grows by appending. The brief with the options and the
    way to answer; later what the partner said in the last step (`Partner: ...`; with more than one of them by name,
    `agent_2: ...`) and what to do now; "" at the end.

    ## Phases
    `stance` (sealed) -> `talk` x `rounds` -> `final` (sealed, with the seat's part of the code where there is code).
    All seats act in every step. No stance ever reaches a partner. A seat that is alone plays no `talk`.

    ## Rewards
    0.0 until the last step, which gives the team's utility U in [0, 1] to both seats. `rewards/` makes richer ones.

    ## Episode end
    `terminations` are True after the final phase; `truncations` are always False.

    ## State
    `state()` is the joint view as one `str`: both briefs and all replies, without the right answer.

    ## Infos
    `phase`: the phase that the next action belongs to (None at the end). `parse_error`: what was wrong with the last
    reply (None where nothing). `episode`: the `Episode`, at the end only.

    ## Arguments
    The fields of the class's `Config` (`envs.core.config.EnvConfig`), or `config`: a ready one. `env.config` has them.

    `reset(seed=...)` fixes the instance; without a seed the next one is drawn. Options of `reset`: the `task`, and
    `muted` seats, whose words reach nobody. It raises ValueError for what is out of range, as the constructor does.
    """

    metadata: ClassVar[dict[str, Any]] = {
        "name": "coop_v0",
        "render_modes": ["human", "ansi"],
        "is_parallelizable": True,
    }
    LADDER: ClassVar[Sequence[Mapping[str, Any]]] = LADDER  # levels of a curriculum that names none of its own
    WORK: ClassVar[str] = "settle one task"  # what the system message says that the team does
    NOUNS: ClassVar[Nouns] = Nouns()
    RUNS_CODE: ClassVar[bool] = False  # whether code that seats write is run by `envs.sandbox.run_expressions`
    VISIBLE_TESTS: ClassVar[bool] = False  # whether outcomes tell of tests that the seats can read and run

    def __init__(self, config: C | None = None, **fields: Any):
        super().__init__(config, **fields)
        drawn = self.config if isinstance(self.config, FamilyConfig) else None
        self.families: tuple[Any, ...] = drawn.choose_families(drawn.families) if drawn else ()
        self.render_mode = self.config.render_mode
        self.seats = self.config.seats
        self.possible_agents: list[Seat] = list(self.seats)
        self.agents: list[Seat] = []
        self._action_spaces = {seat: UnicodeText(MAX_REPLY) for seat in self.seats}
        self._observation_spaces = {seat: UnicodeText(max(2, len(self.seats)) * MAX_REPLY) for seat in self.seats}
        self._schedule = self.config.phases
        self._np_random: np.random.Generator | None = None
        self._task: Task | None = None
        self._muted: frozenset[Seat] = frozenset()
        self._turns: list[Turn] = []
        self._observations: dict[Seat, str] = {}
        self._step = 0
        self._episode: Episode | None = None

    @abstractmethod
    def make_task(self, seed: int) -> Task:
        """The task of a seed (>= 0): the same seed always gives an equal task."""

    @abstractmethod
    def finish(self, turns: Mapping[Seat, Turn]) -> tuple[Outcome, StopReason]:
        """What comes of the final turns, one per seat. SANDBOX_FAULT only where the machine failed, not the seats."""

    def reference_work(self, seat: Seat, option: str) -> str:
        """Code for the seat's part that realises an option, for scripted partners; "" where the task has no code."""
        return ""

    def asked(self, seat: Seat) -> tuple[Decision, ...]:
        """The decisions that the seat must answer: all of the task's, unless a subclass asks for less."""
        return self.task.decisions

    def resolve(self, turns: dict[Seat, Turn]) -> dict[Seat, Turn]:
        """What comes of the turns of one step together, before anybody sees them: nothing, unless a subclass says."""
        return turns

    def instruction(self, seat: Seat, phase: Phase) -> str:
        """What the seat is told to do in a phase."""
        stub = self.task.stubs.get(seat, "")
        gap = self.reference_work(seat, GAP) if stub and self.scaffold and phase is Phase.FINAL else ""
        return prompts.instruction(self.view(seat), phase, self.NOUNS, stub=stub, gap=gap)

    def demonstration(self, seat: Seat, rng: np.random.Generator) -> str | None:
        """A reply that shows the format and not the choice; None where `envs.scripted.demonstrator` can write it."""
        return None

    # -- the PettingZoo interface

    def action_space(self, agent: Seat) -> UnicodeText:
        return self._action_spaces[agent]

    def observation_space(self, agent: Seat) -> UnicodeText:
        return self._observation_spaces[agent]

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[Seat, str], dict[Seat, dict[str, Any]]]:
        if seed is not None and (not isinstance(seed, int | np.integer) or seed < 0):
            raise ValueError(f"reset: seed is {seed!r}; it must be a whole number of at least 0, or None.")
        rng = self._np_random
        if seed is not None or rng is None:
            rng, _ = seeding.np_random(None if seed is None else int(seed))
            self._np_random = rng
        task, self._muted = reset_options(options, self.seats)
        if task is None:
            task = self.make_task(int(seed if seed is not None else rng.integers(2**31)))
        self._task = task
        self._turns, self._step, self._episode = [], 0, None
        self.agents = list(self.seats)
        self._observations = {seat: f"{task.briefs[seat]}\n{self._ask(seat)}" for seat in self.seats}
        return dict(self._observations), {seat: {"phase": self.phase, "parse_error": None} for seat in self.seats}

    def step(
        self, actions: Mapping[Seat, str]
    ) -> tuple[dict[Seat, str], dict[Seat, float], dict[Seat, bool], dict[Seat, bool], dict[Seat, dict[str, Any]]]:
        phase = self.phase
        if phase is None:
            raise RuntimeError("step: no episode is running. Call reset() first.")
        check_actions(actions, self.acting, self.seats, MAX_REPLY)
        replies = {seat: self._within_budget(written(actions[seat])) for seat in self.acting}
        turns = self.resolve({seat: self._taken(self._read(seat, phase, replies[seat])) for seat in self.acting})
        self._turns += turns.values()
        self._step += 1
        infos: dict[Seat, dict[str, Any]] = {
            seat: {"phase": self.phase, "parse_error": turns[seat].parse_error if seat in turns else None}
            for seat in self.seats
        }
        done, reward = self.phase is None, 0.0
        if done:
            outcome, stop_reason = self.finish(turns)
            self._episode = Episode(
                task=self.task,
                turns=tuple(self._turns),
                outcome=outcome,
                stop_reason=stop_reason,
                confidences=self.config.confidences,
            )
            reward = outcome.utility
            self.agents = []
            self._observations = dict.fromkeys(self.seats, "")
            for info in infos.values():
                info["episode"] = self._episode
        else:
            self._observations = {seat: self._news(seat, turns) for seat in self.seats}
        return (
            dict(self._observations),
            dict.fromkeys(self.seats, reward),
            dict.fromkeys(self.seats, done),
            dict.fromkeys(self.seats, False),
            infos,
        )

    def state(self) -> str:
        return joint_view(self.task, self._turns)

    def render(self) -> str | None:
        """The episode so far for a person, answer included; printed in "human" mode, returned in "ansi" mode.

        Raises:
            RuntimeError: the environment was made without a render mode.
        """
        if self.render_mode is None:
            raise RuntimeError('render: the environment was made without a render_mode. Pass "human" or "ansi".')
        text = transcript(self.task, self._turns, self._episode.outcome if self._episode else None)
        if self.render_mode == "ansi":
            return text
        print(text)
        return None

    # -- what is being played

    @property
    def task(self) -> Task:
        """The task being played. Raises RuntimeError before the first reset."""
        if self._task is None:
            raise RuntimeError("task: nothing is being played yet. Call reset() first.")
        return self._task

    @property
    def phase(self) -> Phase | None:
        """The phase that the next action belongs to; None before the first reset and after the end."""
        return self._schedule[self._step] if self._task is not None and self._step < len(self._schedule) else None

    @property
    def schedule(self) -> tuple[Phase, ...]:
        """The phases of an episode, one per step."""
        return self._schedule

    @property
    def acting(self) -> tuple[Seat, ...]:
        """The seats whose actions the next step reads. Others may act too; it counts for nothing and makes no turn."""
        return tuple(self.agents)

    @property
    def episode(self) -> Episode:
        """The record of the finished episode. Raises RuntimeError before the end."""
        if self._episode is None:
            raise RuntimeError(f"episode: not finished (phase {self.phase}). Step until all agents are terminated.")
        return self._episode

    @property
    def turns(self) -> tuple[Turn, ...]:
        """What was played so far, oldest first. Of its partner's turns a seat may read the messages and their acts."""
        return tuple(self._turns)

    def observe(self, seat: Seat) -> str:
        """What the seat was last told."""
        return self._observations[seat]

    # -- what a seat can know

    @property
    def system_prompt(self) -> str:
        """The system message of every seat."""
        return self.config.system_prompt or prompts.system(self.WORK, len(self.seats))

    @property
    def scaffold(self) -> bool | str:
        """How seats are helped (`envs.core.config.DesignConfig`); not at all where no 2x2 design says who is right."""
        return isinstance(self.config, DesignConfig) and self.config.scaffold

    def view(self, seat: Seat) -> View:
        """What the seat may see of the episode so far."""
        return View(
            seat=seat,
            seats=self.seats,
            phase=self.phase,
            config=self.config,
            decisions=self.task.decisions,
            heard=tuple((turn.agent, turn.message) for turn in self._turns if turn.agent != seat and turn.message),
        )

    def heard(self, seat: Seat) -> tuple[str, ...]:
        """What the partners have said to this seat so far, oldest first."""
        return tuple(message for _, message in self.view(seat).heard)

    def claims(self, seat: Seat, decision: Decision) -> dict[Seat, Claim]:
        """What each partner named first of a decision; without those that have named nothing."""
        return posterior.claims(self.view(seat), decision)

    def pools(self, decision: Decision) -> bool:
        """Whether the sources measure one thing, so that all who hear the same come to the same option."""
        return decision.is_estimate

    def pooled(self, seat: Seat, decision: Decision) -> str | None:
        """What the seat comes to by all that was measured, as far as it heard; None where it has nothing to pool."""
        return posterior.pooled(self.view(seat), decision)

    @property
    def has_posterior(self) -> bool:
        """Whether `posterior` has an answer."""
        return isinstance(self.config, DesignConfig) or type(self).posterior is not CoopEnv.posterior

    def posterior(self, seat: Seat, decision: Decision) -> dict[str, float]:
        """How likely it is for the seat, in [0, 1], that an option is right, the one to choose first: by the cells, so
        an environment that draws otherwise overrides it (`envs.core.posterior`).

        Raises:
            ValueError: the environment does not say how likely its options are right.
        """
        if not isinstance(self.config, DesignConfig):
            name = type(self).__name__
            raise ValueError(f"{name} does not say how likely its options are right; override `posterior`.")
        return posterior.posterior(self.view(seat), decision, self.config)

    # -- how a step works

    @property
    def allowance(self) -> int | None:
        """Words and symbols that each reply of the next step may have; None without a budget."""
        if self.config.budget is None:
            return None
        left = self.config.budget - sum(message_tokens(turn.reply) for turn in self._turns)
        return left // (len(self.seats) * (len(self._schedule) - self._step))

    def _ask(self, seat: Seat) -> str:
        """What to do now, and how long the reply may be."""
        phase = self.phase
        assert phase is not None  # nobody is asked at the end
        return prompts.limited(self.instruction(seat, phase), self.allowance)

    def _news(self, seat: Seat, turns: Mapping[Seat, Turn]) -> str:
        """The next observation: what the partners just said, where they could talk, and what to do now."""
        telling = self.phase is Phase.TALK and len(self.seats) > 2  # several partners cannot infer it
        sources = prompts.sources(self.view(seat), self.scaffold) if telling or self.phase is Phase.FINAL else []
        return "\n".join([*self._told(seat, turns), *sources, self._ask(seat)])

    def _told(self, seat: Seat, turns: Mapping[Seat, Turn]) -> list[str]:
        """The lines on what came to the seat in the last step."""
        said = [(t.agent, t.message) for t in turns.values() if t.agent != seat and t.phase is Phase.TALK]
        return prompts.told(said, len(self.seats))

    def _taken(self, turn: Turn) -> Turn:
        """The turn as it counts: without confidences where none is asked for, and, if its seat is muted, without what
        it says."""
        if not self.config.confidences:
            stances = tuple(replace(stance, confidence=1.0) for stance in turn.stances)
            turn = replace(turn, stances=stances, acts=tuple(replace(act, confidence=1.0) for act in turn.acts))
        sealed = tuple(act for act in turn.acts if act.kind is ActKind.EXPECT)
        return replace(turn, message="", message_tokens=0, acts=sealed) if turn.agent in self._muted else turn

    def _within_budget(self, reply: str) -> str:
        return reply if self.allowance is None else first_tokens(reply, self.allowance)

    def _read(self, seat: Seat, phase: Phase, reply: str) -> Turn:
        """The turn that a reply makes; a reply that breaks the grammar says, holds and writes nothing."""
        acts_on = self.task.decisions if self.config.acts else ()
        wants_code = seat in self.task.stubs and Phase.WORK not in self._schedule
        read = parse_reply(reply, phase, asked=self.asked(seat), acts_on=acts_on, wants_code=wants_code)
        return self._turn(seat, phase, reply, read)

    def _turn(self, seat: Seat, phase: Phase, reply: str, read: ParsedReply) -> Turn:
        return Turn(
            index=sum(turn.agent == seat for turn in self._turns),
            round=self._step,
            phase=phase,
            agent=seat,
            observation=self._observations[seat],
            reply=reply,
            message=read.message,
            acts=read.acts,
            stances=read.stances,
            work=read.work,
            message_tokens=message_tokens(read.message),
            parse_error=read.error,
        )
