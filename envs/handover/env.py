"""Handover: what one seat is told early another needs late, and it does not all fit into anybody's context."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from envs.core import prompts
from envs.core.config import EnvConfig
from envs.core.env import CoopEnv
from envs.core.episode import Entry, Outcome, Phase, StopReason, Turn
from envs.core.fields import ArgumentError
from envs.core.grammar import MemoryAct, MemoryKind, parse_memory
from envs.core.prompts import Nouns
from envs.core.task import Decision, Seat, Task
from envs.core.tokens import first_tokens, message_tokens
from envs.handover.memory import Full, Memory, WriteConflict, extractive

_SERVICES = ("orders", "bills", "search", "mail", "login", "stock", "media", "audit", "maps", "chat")
_SETTINGS = ("port", "limit", "ttl", "tries", "pool", "quota", "batch", "depth", "slots", "delay")
KEYS = tuple(f"{service}_{setting}" for service in _SERVICES for setting in _SETTINGS)  # each of them one token
VALUES = tuple(map(str, range(10, 100)))
FACT_TOKENS = 2  # what telling a fact takes, its key and its value: mail_port 47
READ_TOKENS = 7  # a fact in the memory: #3 agent_0 mail_port: 47
MAX_ACTS = 128  # of one message on the memory: all facts and more


class HandoverConfig(EnvConfig, frozen=True):
    acts: Literal[False] = False
    """Lines of talk are acts on the memory."""

    agents: Annotated[int, Field(ge=2, le=8)] = 2
    """Number of seats."""
    facts: Annotated[int, Field(ge=1, le=len(KEYS))] = 48
    """Facts of all seats together, a multiple of agents."""
    probes: Annotated[int, Field(ge=1)] = 2
    """Facts of each seat that all others are asked for."""
    rounds: Annotated[int, Field(ge=2, le=100)] = 2
    """Messages of each seat: one to write and one to read, or more."""
    room: int | None = None
    """Tokens (`envs.core.tokens`) of what partners say and what is read that fit into a context; enough for the reads
    that are needed, too few for being told all in words. None is two sevenths more than these reads take: 18 by
    default. A code that seats agree on beforehand can be shorter than words; cross-play with another team shows it."""
    memory_budget: Annotated[int, Field(ge=0)] = 512
    """Live tokens that the memory may hold; 0 for no memory. A fact takes 7."""
    hits: Annotated[int, Field(ge=1)] = 2
    """Entries that a query gives at most."""
    summariser: Literal["extractive", "policy"] | Callable[[Sequence[Entry]], str] = "extractive"
    """`envs.handover.memory.extractive`, another function, or "policy": nothing is summarised unless a seat does it."""

    @property
    def phases(self) -> tuple[Phase, ...]:
        return (*[Phase.TALK] * self.rounds, Phase.FINAL)

    @property
    def rooms(self) -> range:
        """What `room` may be: as much as the reads that are needed, and less than being told all facts of others."""
        others = self.agents - 1
        return range(READ_TOKENS * self.probes * others, FACT_TOKENS * self.facts * others // self.agents)

    @property
    def tokens_heard(self) -> int:
        """`room`, or what it is by default."""
        return min(self.rooms[-1], self.rooms.start * 9 // 7) if self.room is None else self.room

    @model_validator(mode="after")
    def _the_memory_is_needed_and_enough(self) -> Self:
        agents, facts, probes = self.agents, self.facts, self.probes
        each, enough = facts // agents, READ_TOKENS * probes // FACT_TOKENS + 1
        least, all_told = self.rooms.start, self.rooms.stop
        if facts % agents:
            raise ArgumentError(f"facts is {facts}; it must be a multiple of agents ({agents}).", ("facts",))
        if probes > each:
            raise ArgumentError(f"probes is {probes}; it must be from 1 to {each}, the facts of a seat.", ("probes",))
        if not self.rooms:
            raise ArgumentError(
                f"facts is {facts}: with {agents} agents and {probes} probes reading what is asked takes {least} "
                f"tokens, being told all facts of the others only {all_told}; give each seat {enough} facts or more "
                f"(now {each}), or take fewer probes or agents.",
                ("facts",),
            )
        if self.tokens_heard not in self.rooms:
            raise ArgumentError(
                f"room is {self.room}; reading what is asked takes {least} tokens, and being told all facts of the "
                f"others {all_told}: choose one from {least} to {all_told - 1}, or more facts.",
                ("room",),
            )
        return self


class Handover(CoopEnv[HandoverConfig]):
    """Each seat is told facts that another will be asked for; a shared memory holds more than a context does.

    ## Description
    Every seat is told an equal part of the facts, each a key and its value (`mail_port 47`). Before the last round of
    talk, when it is too late to ask, every seat learns which facts of the others it must give. The context of a seat
    is its brief, the prompts and `room` tokens of what partners say and what it reads from the memory; the rest is cut.
    That is too little to be told everything and enough to read what is asked, so the facts must be in the store
    (`envs.handover.memory`) before anybody knows which of them matter.

    ## Action space, observation space, episode end, state, infos
    As in `CoopEnv`. A line of talk can be an act on the memory (`envs.core.grammar`): Write, Query, Expand, Summarise.
    In a step all write before anybody reads, seats in their order; what is read comes with the next observation, and so
    does a refusal: `Conflict: mail_port #7` lists versions to read first, `Full: mail_port` found no space. A message
    has 128 acts; `Not done: 2 of 130 acts` says that more were written, of which the last 2 count for nothing.

    ## Phases
    `talk` x `rounds` -> `final`. There is no sealed stance first: nothing has been asked.

    ## Rewards
    0.0 until the end; then U = the share of asked values that are given exactly, over all seats. Success: all of them.
    `Turn.memory_tokens` is what a turn wrote and read, refusals included, which the term `communication` charges: a
    refused write tells that a partner has written.

    ## Arguments
    The fields of `HandoverConfig`.

    ## Example
    >>> from envs.scripted.handover import NoteTaker
    >>> env = Handover()
    >>> observations, infos = env.reset(seed=0)
    >>> while env.agents:
    ...     replies = {seat: NoteTaker().reply(env, seat) for seat in env.agents}
    ...     observations, rewards, *_ = env.step(replies)
    >>> rewards
    {'agent_0': 1.0, 'agent_1': 1.0}

    ## Version history
    v0: first version.
    """

    metadata: ClassVar[dict[str, Any]] = {**CoopEnv.metadata, "name": "handover_v0"}
    LADDER: ClassVar[Sequence[Mapping[str, Any]]] = (  # of pairs
        {"facts": 16, "probes": 1, "room": 14, "memory_budget": 512},
        {"facts": 32, "probes": 1, "room": 14, "memory_budget": 512},
        {"facts": 48, "probes": 2, "room": 18, "memory_budget": 512},
        {"facts": 96, "probes": 4, "room": 30, "memory_budget": 768},
    )

    Config: ClassVar[type[EnvConfig]] = HandoverConfig
    WORK: ClassVar[str] = "set up one system"
    NOUNS: ClassVar[Nouns] = Nouns("key", "value")

    def __init__(self, config: HandoverConfig | None = None, **fields: Any):
        super().__init__(config, **fields)
        self.memory = self._empty_memory()
        self._room: dict[Seat, int] = {}
        self._delivered: dict[Seat, list[Entry]] = {}
        self._lines: dict[Seat, list[str]] = {}  # what the last step has to tell each seat

    def _empty_memory(self) -> Memory:
        chosen = self.config.summariser
        return Memory(self.config.memory_budget, summariser=extractive if chosen == "extractive" else chosen)

    def make_task(self, seed: int) -> Task:
        rng = np.random.default_rng(seed)
        keys = [KEYS[i] for i in rng.permutation(len(KEYS))[: self.config.facts]]
        values = [VALUES[i] for i in rng.integers(len(VALUES), size=self.config.facts)]
        facts = list(zip(keys, values, strict=True))
        each = self.config.facts // len(self.seats)
        briefs, decisions = {}, []
        for i, seat in enumerate(self.seats):
            told = facts[i * each : (i + 1) * each]
            known = ", ".join(f"{key} {value}" for key, value in told)
            team = prompts.team(len(self.seats))
            briefs[seat] = f"{team} set up one system. Only you know: {known}. Some of it will be asked of others."
            decisions += [self._probe(told[j], seat) for j in rng.permutation(each)[: self.config.probes]]
        return Task(
            id=f"handover-{seed}",
            family="handover",
            seed=seed,
            seats=self.seats,
            briefs=briefs,
            decisions=tuple(decisions),
            cell=dict.fromkeys(self.seats, False),
            topics=FACT_TOKENS * (each + self.config.probes * (len(self.seats) - 1)),  # of facts to write, and to read
        )

    def _probe(self, fact: tuple[str, str], owner: Seat) -> Decision:
        key, value = fact
        return Decision(
            id=key,
            options=VALUES,
            utility={option: float(option == value) for option in VALUES},
            belief={owner: value},
            expert=owner,
            cue={seat: "strong" if seat == owner else "weak" for seat in self.seats},
        )

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[Seat, str], dict[Seat, dict[str, Any]]]:
        self.memory = self._empty_memory()
        self._room = dict.fromkeys(self.seats, self.config.tokens_heard)
        self._delivered = {seat: [] for seat in self.seats}
        return super().reset(seed, options)

    def asked(self, seat: Seat) -> tuple[Decision, ...]:
        return tuple(decision for decision in self.task.decisions if decision.expert != seat)

    def delivered(self, seat: Seat) -> tuple[Entry, ...]:
        """What the seat has read from the memory so far, oldest reading first."""
        return tuple(self._delivered[seat])

    @property
    def first_talk(self) -> bool:
        return self._step == 0

    @property
    def last_talk(self) -> bool:
        """Whether the next message is the last one, and so what will be asked is known."""
        return self._step == self.config.rounds - 1

    def instruction(self, seat: Seat, phase: Phase) -> str:
        if phase is Phase.FINAL:
            return f"Reply with a line for each: {prompts.line(self.view(seat), self.NOUNS, 'Answer')}"
        if self.last_talk:
            asked = ", ".join(f"{decision.id} ({decision.expert})" for decision in self.asked(seat))
            return f"You will be asked for {asked}. Query what you need, or PASS."
        return (
            f"Of what you read and hear in all, {self.config.tokens_heard} words fit in. The team's memory holds more. "
            f"Lines for it: Write <key>: <value>, Query: <words>, Expand: #<number>, Summarise: <text>. "
            f"Other lines are a message to your {prompts.partners(len(self.seats))}; PASS says nothing."
        )

    # -- the memory

    def _read(self, seat: Seat, phase: Phase, reply: str) -> Turn:
        if phase is not Phase.TALK:
            return super()._read(seat, phase, reply)
        acts, message = parse_memory(reply)
        silent = acts and not message.strip()
        return replace(super()._read(seat, phase, "PASS" if silent else message), reply=reply)

    def resolve(self, turns: dict[Seat, Turn]) -> dict[Seat, Turn]:
        talk = {seat: turn for seat, turn in turns.items() if turn.phase is Phase.TALK}
        written = {seat: parse_memory(turn.reply)[0] for seat, turn in talk.items()}
        acts = [(seat, act) for seat, some in written.items() for act in some[:MAX_ACTS]]
        charged = self.memory.charged.copy()
        refused: dict[Seat, int] = {}  # tokens of the notices that each seat got
        conflicts: dict[Seat, list[int]] = {seat: [] for seat in self.seats}
        read: dict[Seat, list[Entry]] = {seat: [] for seat in self.seats}
        notices: dict[Seat, list[str]] = {seat: [] for seat in self.seats}
        for seat, some in written.items():
            if len(some) > MAX_ACTS:
                notices[seat].append(f"Not done: {len(some) - MAX_ACTS} of {len(some)} acts")
        for seat, act in acts:
            result = self._change(seat, act)
            if isinstance(result, WriteConflict):
                conflicts[seat] += result.unread
                notices[seat].append(" ".join([f"Conflict: {act.key}", *(f"#{id}" for id in result.unread)]))
            elif isinstance(result, Full):
                notices[seat].append(f"Full: {act.key or 'note'}")
        for seat, act in acts:
            if act.kind in (MemoryKind.QUERY, MemoryKind.EXPAND):
                entries = self._look_up(seat, act)
                read[seat] += entries
                self._room[seat] -= sum(entry.n_tok for entry in entries)
                notices[seat] += [] if entries else [f"{act.kind.capitalize()}: nothing."]
        self.memory.tick()
        for seat in self.seats:
            said = super()._told(seat, {s: turn for s, turn in talk.items() if turn.message})
            refused[seat] = message_tokens(first_tokens("\n".join(notices[seat]), self._room[seat]))
            text = first_tokens("\n".join(notices[seat] + said), self._room[seat])
            self._room[seat] -= message_tokens(text)
            self._lines[seat] = [*(entry.line for entry in read[seat]), *([text] if text else [])]
            self._delivered[seat] += read[seat]
        return {
            seat: replace(
                turn,
                reads=tuple(entry.id for entry in read[seat]),
                conflicts=tuple(conflicts[seat]),
                memory_tokens=self.memory.charged[seat] - charged[seat] + refused[seat],
            )
            for seat, turn in turns.items()
        }

    def _change(self, seat: Seat, act: MemoryAct) -> Entry | WriteConflict | Full | None:
        if act.kind is MemoryKind.WRITE:
            return self.memory.write(seat, act.text, act.key)
        return self.memory.summarise(seat, act.text) if act.kind is MemoryKind.SUMMARISE else None

    def _look_up(self, seat: Seat, act: MemoryAct) -> tuple[Entry, ...]:
        if act.kind is MemoryKind.QUERY:
            return self.memory.query(seat, act.text, self.config.hits, self._room[seat])
        if act.id is None or act.id >= len(self.memory.entries):
            return ()
        return self.memory.expand(seat, act.id, self._room[seat])

    def _told(self, seat: Seat, turns: Mapping[Seat, Turn]) -> list[str]:
        return self._lines[seat]

    # -- the end

    def finish(self, turns: Mapping[Seat, Turn]) -> tuple[Outcome, StopReason]:
        committed = {}
        for seat in self.seats:  # a seat's own facts are what it was told
            given = {stance.decision: stance.option for stance in turns[seat].stances}
            committed[seat] = {d.id: d.belief.get(seat, given.get(d.id)) for d in self.task.decisions}
        right = [d.is_right(committed[seat][d.id]) for seat in self.seats for d in self.asked(seat)]
        utility = sum(right) / len(right)
        memory = tuple(self.memory.entries)
        return Outcome(utility=utility, success=all(right), committed=committed, memory=memory), StopReason.FINISHED
