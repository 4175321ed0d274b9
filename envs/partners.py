"""Scripted partners: they play on text, know only what their seat may know, and never miss the grammar.

For tests, baselines and format demonstrations. A partner reads its own beliefs and cues, the options and the messages
that it heard; where it needs to know how instances are made (`Calibrated`), that is public: the environment's
constructor arguments.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from envs.base import CoopEnv
from envs.episode import Decision, Episode, Phase, Seat


class Partner(Protocol):
    """Anything that writes a seat's next reply."""

    def reply(self, env: CoopEnv, seat: Seat) -> str:
        """The reply of `seat` in `env.phase`."""
        ...


def play(env: CoopEnv, partners: Mapping[Seat, Partner], seed: int | None = None) -> Episode:
    """Play one episode with a partner in every seat; `seed` as in `reset`."""
    env.reset(seed=seed)
    while env.agents:
        env.step({seat: partners[seat].reply(env, seat) for seat in env.agents})
    return env.episode


def named_option(messages: Sequence[str], decision: Decision) -> str | None:
    """The option that the messages name first, newest message first; None where they name none.

    Longer options are tried first, so a blend is not mistaken for its first half.
    """
    options = sorted(decision.options, key=len, reverse=True)
    edge = {True: r"(?!\w)", False: ""}, {True: r"(?<!\w)", False: ""}
    patterns = [edge[1][o[0].isalnum()] + re.escape(o) + edge[0][o[-1].isalnum()] for o in options]
    for message in reversed(messages):
        match = re.search("|".join(f"({pattern})" for pattern in patterns), message, re.IGNORECASE)
        if match:
            return options[match.lastindex - 1]
    return None


class Scripted:
    """The frame of a scripted partner: subclasses say what to answer, how sure they are and what to say."""

    def reply(self, env: CoopEnv, seat: Seat) -> str:
        if env.phase is Phase.TALK:
            return " ".join(self.message(env, seat, decision) for decision in env.task.decisions).strip() or "PASS"
        several = len(env.task.decisions) > 1
        lines, work = [], []
        for decision in env.task.decisions:
            if env.phase is Phase.STANCE:
                option, confidence = self.prior(env, seat, decision)
            else:
                option, confidence = self.decide(env, seat, decision)
                work.append(self.work(env, seat, option))
            name = f"Answer {decision.id}" if several else "Answer"
            certainty = f" ({round(100 * confidence)}%)" if env.confidences else ""
            lines.append(f"{name}: {option}{certainty}")
        return "\n".join(lines + [code for code in work if code])

    def prior(self, env: CoopEnv, seat: Seat, decision: Decision) -> tuple[str, float]:
        """The option of the sealed stance, which is the seat's own belief, and the confidence in it, in [0, 1]."""
        return decision.belief[seat], 0.8

    def message(self, env: CoopEnv, seat: Seat, decision: Decision) -> str:
        """What to tell the partner about a decision; "" for nothing."""
        return decision.told(seat)

    def decide(self, env: CoopEnv, seat: Seat, decision: Decision) -> tuple[str, float]:
        """The final option and the confidence in it, in [0, 1]."""
        raise NotImplementedError

    def work(self, env: CoopEnv, seat: Seat, option: str) -> str:
        """The seat's code under an option; "" where the task has none."""
        return env.reference_work(seat, option)


def pooled_option(messages: Sequence[str], decision: Decision, seat: Seat) -> str | None:
    """The option nearest to the seat's own estimate and the partner's, weighted by 1 / error^2.

    None where the decision is no estimate, or where no message gives the partner's number and its standard error.
    """
    heard = named_option(messages, decision) if decision.is_estimate else None
    error = re.search(rf"(?<!\w){heard} \+- (\d+)", " ".join(messages))
    if heard is None or error is None:
        return None
    weights = decision.numeric.sigma[seat] ** -2, float(error[1]) ** -2
    pool = (weights[0] * float(decision.belief[seat]) + weights[1] * float(heard)) / sum(weights)
    return min(decision.options, key=lambda option: abs(float(option) - pool))


class Calibrated(Scripted):
    """The ideal partner: says what it was told, follows the cue, pools estimates by their standard errors, and is as
    sure as the odds of the design allow.
    """

    def odds(self, env: CoopEnv, seat: Seat, decision: Decision) -> dict[str, float]:
        """How likely its own belief is right and, once it was told another option, how likely that one is; a
        compromise of two estimates comes between them.
        """
        own, heard = decision.belief[seat], named_option(env.heard(seat), decision)
        pool = pooled_option(env.heard(seat), decision, seat)
        if pool is not None:
            if own == heard or pool not in (own, heard):
                return {option: float(option == pool) for option in (own, pool, heard)}
            trust = env.cue_reliability if pool == own else 1 - env.cue_reliability
            return {own: trust, heard: 1 - trust}
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
        option = pooled_option(env.heard(seat), decision, seat) or option
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
        reply = super().reply(env, seat)
        if env.phase is not Phase.FINAL:
            return reply
        return "\n".join([*(f"Mine is {d.quality(seat)}." for d in env.task.decisions), reply])

    def prior(self, env: CoopEnv, seat: Seat, decision: Decision) -> tuple[str, float]:
        return decision.belief[seat], float(self.rng.integers(5, 11)) / 10

    def message(self, env: CoopEnv, seat: Seat, decision: Decision) -> str:
        option = decision.told(seat)
        source = re.search(r"Your source, ([^,]+), \w+ " + re.escape(option), env.task.briefs[seat])
        template = self.TEMPLATES[self.rng.integers(len(self.TEMPLATES))]
        return template.format(option=option, source=source[1] if source else "my source")

    def decide(self, env: CoopEnv, seat: Seat, decision: Decision) -> tuple[str, float]:
        own = decision.belief[seat]
        choices = (own, named_option(env.heard(seat), decision) or own, decision.blends[0])
        option = choices[self.rng.integers(3)]
        return option, self.prior(env, seat, decision)[1]
