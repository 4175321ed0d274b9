"""Scripted partners: they play on text, know only what their seat may know, and never miss the grammar.

For tests, baselines and format demonstrations. A partner reads its own beliefs and cues, the options and the messages
that it heard; where it needs to know how instances are made (`Calibrated`), that is public: the environment's
constructor arguments.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Protocol

import numpy as np

from envs.base import CoopEnv
from envs.episode import Decision, Episode, Phase, Seat
from envs.prompts import QUALITY


class Partner(Protocol):
    """Anything that writes a seat's next reply."""

    def reply(self, env: CoopEnv, seat: Seat) -> str:
        """The reply of `seat` in `env.phase`."""
        ...


def play(env: CoopEnv, partners: Mapping[Seat, Partner], seed: int | None = None) -> Episode:
    """Play one episode with a partner in every seat; `seed` as in `reset`."""
    env.reset(seed=seed)
    while env.agents:
        env.step({seat: partners[seat].reply(env, seat) for seat in env.acting})
    return env.episode


def replay(env: CoopEnv, episode: Episode) -> Episode:
    """Play the task of a record once more with its replies: an equal environment comes to an equal record.

    Raises:
        ValueError: the record has fewer turns than this environment plays, or other seats.
    """
    env.reset(options={"task": episode.task})
    for _, turns in groupby(episode.turns, key=lambda turn: turn.round):
        env.step({turn.agent: turn.reply for turn in turns})
    if env.agents:
        raise ValueError(
            f"replay: the record of {episode.task.id} ends in phase {env.phase}. Use an equal environment."
        )
    return env.episode


def named_option(messages: Sequence[str], decision: Decision) -> str | None:
    """The option that the messages name first, newest message first; None where they name none.

    A message that names the decision is read from there on, so `oxygen 1 water 2` names 2 for `water`. Longer options
    are tried first, so a blend is not mistaken for its first half.
    """
    options = sorted(decision.options, key=len, reverse=True)
    edge = {True: r"(?!\w)", False: ""}, {True: r"(?<!\w)", False: ""}
    patterns = [edge[1][o[0].isalnum()] + re.escape(o) + edge[0][o[-1].isalnum()] for o in options]
    named = re.compile(rf"\b{re.escape(decision.id)}\b", re.IGNORECASE)
    for message in reversed(messages):
        on_it = named.split(message, maxsplit=1)[-1]
        match = re.search("|".join(f"({pattern})" for pattern in patterns), on_it, re.IGNORECASE)
        if match:
            return options[match.lastindex - 1]
    return None


class Scripted:
    """The frame of a scripted partner: subclasses say what to answer, how sure they are and what to say."""

    def reply(self, env: CoopEnv, seat: Seat) -> str:
        if env.phase is Phase.WORK:
            return self.act(env, seat)
        several = len(env.task.decisions) > 1
        if env.phase is Phase.TALK:
            said = [(decision.id, self.message(env, seat, decision)) for decision in env.task.decisions]
            return " ".join(f"{id}: {text}" if several else text for id, text in said if text) or "PASS"
        lines, work = [], []
        for decision in env.task.decisions:
            if env.phase is Phase.STANCE:
                option, confidence = self.prior(env, seat, decision)
            else:
                option, confidence = self.decide(env, seat, decision)
                work += [] if Phase.WORK in env.schedule else [self.work(env, seat, option)]
            name = f"Answer {decision.id}" if several else "Answer"
            certainty = f" ({round(100 * confidence)}%)" if env.confidences else ""
            lines.append(f"{name}: {option}{certainty}")
        return "\n".join(lines + [code for code in work if code])

    def act(self, env: CoopEnv, seat: Seat) -> str:
        """A turn of work: what it has to say in the first, its part and `Submit` in the next."""
        (decision,) = env.task.decisions
        message = self.message(env, seat, decision)
        said = f"Say: {message}" if message else "Pass"
        first, last = env.turns_left(seat) == env.rounds, env.turns_left(seat) == 1
        work = "" if first and not last else f"{self.work(env, seat, self.decide(env, seat, decision)[0])}\nSubmit"
        return "\n".join(([said] if first else []) + ([work] if work else []))

    def prior(self, env: CoopEnv, seat: Seat, decision: Decision) -> tuple[str, float]:
        """The option of the sealed stance, which is the seat's own belief, and the confidence in it, in [0, 1]."""
        return decision.belief[seat], 0.8

    def message(self, env: CoopEnv, seat: Seat, decision: Decision) -> str:
        """What to tell the partner about a decision; "" for nothing."""
        return decision.belief[seat]

    def decide(self, env: CoopEnv, seat: Seat, decision: Decision) -> tuple[str, float]:
        """The final option and the confidence in it, in [0, 1]."""
        raise NotImplementedError

    def work(self, env: CoopEnv, seat: Seat, option: str) -> str:
        """The seat's code under an option; "" where the task has none."""
        return env.reference_work(seat, option)


class Calibrated(Scripted):
    """The ideal partner: says what it was told, follows the cue, and is as sure as the odds of the design allow."""

    def odds(self, env: CoopEnv, seat: Seat, decision: Decision) -> dict[str, float]:
        """How likely its own belief is right and, once it was told another option, how likely that one is.

        Raises ValueError where these are not the odds of the 2x2 design.
        """
        if env.cells is None or len(env.seats) > 2:
            problem = f"{type(env).__name__} with {len(env.seats)} seats"
            raise ValueError(f"{problem}: {type(self).__name__} plays pairs of the 2x2 design.")
        own, heard = decision.belief[seat], named_option(env.heard(seat), decision)
        both, one, none = (env.cells.probability(name) for name in ("both_right", "one_right", "both_wrong"))
        trust = env.cue_reliability if decision.cue[seat] == "strong" else 1 - env.cue_reliability
        if heard is None:
            return {own: both + trust * one}
        if heard == own:  # wrong pairs agree half of the time
            return {own: both / ((both + none / 2) or 1.0)}
        conflict = one / ((one + none / 2) or 1.0)
        return {own: trust * conflict, heard: (1 - trust) * conflict}

    def prior(self, env: CoopEnv, seat: Seat, decision: Decision) -> tuple[str, float]:
        option = decision.belief[seat]
        return option, self.odds(env, seat, decision)[option]

    def decide(self, env: CoopEnv, seat: Seat, decision: Decision) -> tuple[str, float]:
        odds = self.odds(env, seat, decision)
        own, *heard = odds
        # by the cue and not by the larger number: they are equal at reliability 1/2
        option = heard[0] if heard and decision.cue[seat] != "strong" else own
        return option, odds[option]


class AlwaysDefer(Scripted):
    """Takes whatever the partner names. Two of them swap their answers."""

    def decide(self, env: CoopEnv, seat: Seat, decision: Decision) -> tuple[str, float]:
        return named_option(env.heard(seat), decision) or decision.belief[seat], 0.8


class NeverDefer(Scripted):
    """Keeps its own belief, whatever it hears."""

    def decide(self, env: CoopEnv, seat: Seat, decision: Decision) -> tuple[str, float]:
        return decision.belief[seat], 0.8


class Averager(Scripted):
    """Settles for the blend as soon as the partner names something else."""

    def decide(self, env: CoopEnv, seat: Seat, decision: Decision) -> tuple[str, float]:
        own, heard = decision.belief[seat], named_option(env.heard(seat), decision)
        return own if heard in (None, own) else decision.blends[0], 0.8


class Silent(NeverDefer):
    """Says nothing and keeps its own belief."""

    def message(self, env: CoopEnv, seat: Seat, decision: Decision) -> str:
        return ""


class Demonstrator(Scripted):
    """Teaches the format and not the choice: what it settles on, how sure it is and how it words things are random.

    The prior stance is its own belief; the final option is its own, the partner's or the blend with equal chance, and
    its code realises that option. Before it answers for good it says how good its own source is: whoever is to weigh
    the sources must first bring them to mind.
    """

    TEMPLATES = (
        "{option}",
        "I have {option}.",
        "I got {option} from {source}.",
        "My source, {source}, says {option}.",
    )

    def __init__(self, rng: np.random.Generator):
        self.rng = rng

    def reply(self, env: CoopEnv, seat: Seat) -> str:
        shown = env.demonstration(seat, self.rng)
        if shown is not None:
            return shown
        reply = super().reply(env, seat)
        if env.phase is not Phase.FINAL:
            return reply
        return "\n".join([*(f"Mine is {QUALITY[d.cue[seat]]}." for d in env.task.decisions), reply])

    def prior(self, env: CoopEnv, seat: Seat, decision: Decision) -> tuple[str, float]:
        return decision.belief[seat], float(self.rng.integers(5, 11)) / 10

    def message(self, env: CoopEnv, seat: Seat, decision: Decision) -> str:
        option = decision.belief[seat]
        source = re.search(r"Your source, ([^,]+), says " + re.escape(option), env.task.briefs[seat])
        template = self.TEMPLATES[self.rng.integers(len(self.TEMPLATES))]
        return template.format(option=option, source=source[1] if source else "my source")

    def decide(self, env: CoopEnv, seat: Seat, decision: Decision) -> tuple[str, float]:
        own = decision.belief[seat]
        choices = (own, named_option(env.heard(seat), decision) or own, decision.blends[0])
        option = choices[self.rng.integers(3)]
        return option, self.prior(env, seat, decision)[1]
