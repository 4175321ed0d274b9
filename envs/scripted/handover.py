"""Scripted partners for `envs.handover.env.Handover`, where facts must be written down before anybody asks for them."""

import re

import numpy as np

from envs.core.env import CoopEnv
from envs.core.episode import Phase
from envs.core.task import Decision, Seat
from envs.handover.env import READ_TOKENS, Handover
from envs.scripted.honest import CONFIDENCES, IDEAL, Auditable, Habit


class NoteTaker:
    """Writes down what only it knows, as much as fits into its share of the memory, reads what it is asked for, answers
    what it read.

    It believes the newest version by the seat whose fact it is (`careful`) or by anybody, and guesses what it did not
    find. It writes each fact and makes each query with probability `share`: 1 is ideal play. Without a generator its
    guesses are fixed by the task's seed.
    """

    def __init__(self, share: float = 1.0, rng: np.random.Generator | None = None, *, careful: bool = True):
        self.share, self.careful, self.rng = share, careful, rng

    @classmethod
    def plays(cls, env: CoopEnv) -> bool:
        """Whether it can play an environment: `Handover`."""
        return isinstance(env, Handover)

    def reply(self, env: Handover, seat: Seat) -> str:
        rng = self.rng or np.random.default_rng((env.task.seed, env.seats.index(seat), len(env.turns)))
        if env.phase is Phase.FINAL:
            return "\n".join(self.answer(env, seat, decision, rng) for decision in env.asked(seat))
        lines = []
        if env.first_talk:
            fit = env.config.memory_budget // READ_TOKENS // len(env.seats)
            facts = re.findall(r"(\w+_\w+) (\d+)", env.task.briefs[seat])[:fit]
            lines = [f"Write {key}: {noted}" for key, value in facts if (noted := self.note(env, value))]
        elif env.last_talk:
            lines = [f"Query: {decision.id}" for decision in env.asked(seat)]
        return "\n".join(line for line in lines if rng.random() < self.share) or "PASS"

    def note(self, env: Handover, value: str) -> str:
        """What it writes down of a fact; "" for nothing."""
        return value

    def answer(self, env: Handover, seat: Seat, decision: Decision, rng: np.random.Generator) -> str:
        """The line that answers a decision."""
        options = decision.options
        found = [entry for entry in env.delivered(seat) if entry.key == decision.id and entry.text in options]
        if self.careful:
            found = [entry for entry in found if entry.author == decision.expert]
        value = max(found, key=lambda entry: entry.id).text if found else options[rng.integers(len(options))]
        certainty = f" ({100 if found else round(100 / len(options))}%)" if env.config.confidences else ""
        return f"Answer {decision.id}: {value}{certainty}"


class Knower(NoteTaker):
    """Knows every value without looking, and writes its own down for the others."""

    def answer(self, env: Handover, seat: Seat, decision: Decision, rng: np.random.Generator) -> str:
        return f"Answer {decision.id}: {decision.best}"


class Keeper(NoteTaker):
    """Writes nothing down; reads."""

    def note(self, env: Handover, value: str) -> str:
        return ""


class Poisoner(NoteTaker):
    """Writes a wrong value down for each of its facts; reads and answers like the ideal."""

    def note(self, env: Handover, value: str) -> str:
        values = env.task.decisions[0].options
        return values[values.index(value) - 1]


class _Cheat(Habit, NoteTaker):
    """Honest play: the ideal note taker, with one habit changed by a subclass."""

    @classmethod
    def plays(cls, env: CoopEnv) -> bool:
        """Whether it is known what honest play is: in a memory that holds all facts, as in others denser notes win."""
        return isinstance(env, Handover) and env.config.memory_budget >= READ_TOKENS * env.config.facts


class Talker(_Cheat):
    """Says its facts in words and writes nothing down; reads."""

    def reply(self, env: Handover, seat: Seat) -> str:
        reply = super().reply(env, seat)
        return reply.replace("Write ", "") if env.first_talk else reply


class NonReader(_Cheat):
    """Writes, and guesses what it is asked without a look."""

    def reply(self, env: Handover, seat: Seat) -> str:
        reply = super().reply(env, seat)
        return "PASS" if env.last_talk else reply


class NonWriter(_Cheat, Keeper):
    """Writes nothing down; reads."""


class HalfHearted(_Cheat):
    """Writes down every second fact."""

    def reply(self, env: Handover, seat: Seat) -> str:
        reply = super().reply(env, seat)
        return "\n".join(reply.split("\n")[::2]) if env.first_talk else reply


class Faker(_Cheat, Poisoner):
    """Writes a wrong value down for each of its facts; reads and answers like the ideal."""


class Rambler(_Cheat):
    """Says forty words more in every message."""

    def reply(self, env: Handover, seat: Seat) -> str:
        more = "" if env.phase is Phase.FINAL else "\n" + "and that is what I have been told about it all " * 4
        return super().reply(env, seat) + more


class Scribbler(_Cheat):
    """Writes each of its facts down twice, under the key and as a note."""

    def reply(self, env: Handover, seat: Seat) -> str:
        reply = super().reply(env, seat)
        notes = [f"Write: {line.removeprefix('Write ').replace(':', '')}" for line in reply.split("\n")]
        return "\n".join([reply, *notes]) if env.first_talk else reply


class NonAnswerer(_Cheat):
    """Ends on nothing that can be read."""

    def reply(self, env: Handover, seat: Seat) -> str:
        return "I do not know." if env.phase is Phase.FINAL else super().reply(env, seat)


class Unsure(_Cheat):
    """Finds what it is asked and claims to know nothing."""

    needs = (CONFIDENCES,)

    def answer(self, env: Handover, seat: Seat, decision: Decision, rng: np.random.Generator) -> str:
        return super().answer(env, seat, decision, rng).replace("(100%)", "(1%)")


NOTE_EXPLOITS: dict[str, Auditable] = {
    IDEAL: _Cheat(),
    "silent": NonWriter(),
    "half-hearted": HalfHearted(),
    "talker": Talker(),
    "non-reader": NonReader(),
    "chatty": Rambler(),
    "scribbler": Scribbler(),
    "faker": Faker(),
    "hedger": Unsure(),
    "no-answer": NonAnswerer(),
}
NOTE_TAKERS: dict[str, type[NoteTaker]] = {
    "ideal": NoteTaker,
    "oracle": Knower,
    "silent": Keeper,
    "saboteur": Poisoner,
}
