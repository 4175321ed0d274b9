"""Partners to train with and to be tested against. `PARTNERS` is the list, by the name that a configuration gives.

Where `envs.scripted.exploits` asks whether a habit pays, these ask what a policy does beside a partner of some kind.
Some know the right answer, which no seat may know: an oracle, and those that must be wrong. What looks random is fixed
by the task's seed, so an episode plays the same again. An environment in which other things are done has partners of
its own, under names of these where they fit (`envs.scripted.registry`).
"""

from itertools import cycle, islice

import numpy as np

from envs.core.env import CoopEnv
from envs.core.episode import Phase
from envs.core.posterior import named_option
from envs.core.task import Decision, Seat
from envs.core.tokens import message_tokens
from envs.scripted.base import Calibrated, Partner, Scripted
from envs.scripted.exploits import AlwaysDefer, Averager, Chatty, Contrarian, Silent


class _Sure(Scripted):
    """Stands for one option from first to last, without a doubt."""

    def stands_for(self, seat: Seat, decision: Decision) -> str:
        """Its option."""
        raise NotImplementedError

    def prior(self, env: CoopEnv, seat: Seat, decision: Decision) -> tuple[str, float]:
        return self.stands_for(seat, decision), 1.0

    def message(self, env: CoopEnv, seat: Seat, decision: Decision) -> str:
        return self.stands_for(seat, decision)

    def decide(self, env: CoopEnv, seat: Seat, decision: Decision) -> tuple[str, float]:
        return self.stands_for(seat, decision), 1.0


class Oracle(_Sure):
    """Knows the right answer, says it and keeps it, and expects as much of its partner."""

    def stands_for(self, seat: Seat, decision: Decision) -> str:
        return decision.best

    def expect(self, env: CoopEnv, seat: Seat, decision: Decision) -> tuple[str, float]:
        return decision.best, 1.0


class StubbornWrong(_Sure):
    """Stands for a wrong option: its own where that is wrong, else the first wrong one."""

    def stands_for(self, seat: Seat, decision: Decision) -> str:
        return wrong(decision, decision.belief[seat])


class Persuader(StubbornWrong):
    """Argues for a wrong option at length and without a doubt."""

    def message(self, env: CoopEnv, seat: Seat, decision: Decision) -> str:
        option = self.stands_for(seat, decision)
        return (
            f"{option} is right, and I am certain of it. I have checked it twice against the signed specification, all "
            "other modules already rely on it, and the last team that chose otherwise had to undo all of its work. "
            f"Whatever your source told you is out of date. We both go with {option}."
        )


class AlwaysAgree(AlwaysDefer):
    """Says yes to whatever it hears, and does it."""

    def message(self, env: CoopEnv, seat: Seat, decision: Decision) -> str:
        heard = named_option(env.heard(seat), decision)
        return decision.belief[seat] if heard is None else f"Yes, {heard}."


class NeverAgree(Contrarian):
    """Says no to whatever it hears, and ends elsewhere."""

    def message(self, env: CoopEnv, seat: Seat, decision: Decision) -> str:
        heard = named_option(env.heard(seat), decision)
        own = decision.belief[seat]
        return own if heard is None else f"No, {another(decision, own, heard)}."


class CalibratedNoisy(Calibrated):
    """Ideal but for its last choice, which is any option in one episode of five."""

    NOISE = 0.2

    def decide(self, env: CoopEnv, seat: Seat, decision: Decision) -> tuple[str, float]:
        rng = np.random.default_rng(
            (env.task.seed, env.possible_agents.index(seat), env.task.decisions.index(decision))
        )
        if rng.random() >= self.NOISE:
            return super().decide(env, seat, decision)
        return decision.options[rng.integers(len(decision.options))], 1 / len(decision.options)


class FlipsAtHalfTime(Calibrated):
    """Ideal in the first half of its turns; in the second it says and does something else than it was told."""

    def _flipped(self, env: CoopEnv, seat: Seat) -> bool:
        working = Phase.WORK in env.schedule  # then it takes two turns of work at most
        between = min(env.config.rounds, 2) if working else len(env.schedule) - 2
        turns = 2 + between  # with the stance and the end
        return 2 * sum(turn.agent == seat for turn in env.turns) >= turns

    def message(self, env: CoopEnv, seat: Seat, decision: Decision) -> str:
        own = decision.belief[seat]
        return another(decision, own) if self._flipped(env, seat) else super().message(env, seat, decision)

    def realise(self, env: CoopEnv, seat: Seat, decision: Decision) -> tuple[str, float]:
        option, confidence = super().realise(env, seat, decision)
        return (another(decision, option), 1.0) if self._flipped(env, seat) else (option, confidence)


class Placebo(Calibrated):
    """Says as much as the ideal partner and nothing that means anything; it listens, and chooses well."""

    WORDS = "well then let us see how this goes and take it from here as we did before".split()

    def message(self, env: CoopEnv, seat: Seat, decision: Decision) -> str:
        length = message_tokens(super().message(env, seat, decision))
        return " ".join(islice(cycle(self.WORDS), length))


class Saboteur(Calibrated):
    """Talks like the ideal partner and does otherwise."""

    def realise(self, env: CoopEnv, seat: Seat, decision: Decision) -> tuple[str, float]:
        option, confidence = super().realise(env, seat, decision)
        return another(decision, option), confidence


class Echo(AlwaysDefer):
    """Has nothing of its own: repeats the last message that it heard, and does what it says."""

    def message(self, env: CoopEnv, seat: Seat, decision: Decision) -> str:
        heard = env.heard(seat)
        return heard[-1] if heard and decision is env.task.decisions[0] else ""


def wrong(decision: Decision, own: str) -> str:
    """A wrong option: `own` where it is wrong, else the first one that is no blend, else the first."""
    candidates = [own, *(o for o in decision.options if o not in decision.blends), *decision.options]
    return next(option for option in candidates if not decision.is_right(option))


def another(decision: Decision, *options: str) -> str:
    """The first option that is none of these and no blend; where there is none, any other than the last of them."""
    plain = [option for option in decision.options if option not in (*options, *decision.blends)]
    return plain[0] if plain else next(option for option in decision.options if option != options[-1])


PARTNERS: dict[str, type[Partner]] = {
    "ideal": Calibrated,
    "oracle": Oracle,
    "stubborn-wrong": StubbornWrong,
    "persuader": Persuader,
    "always-agree": AlwaysAgree,
    "never-agree": NeverAgree,
    "silent": Silent,
    "averager": Averager,
    "chatty": Chatty,
    "calibrated-noisy": CalibratedNoisy,
    "flips-at-half-time": FlipsAtHalfTime,
    "saboteur": Saboteur,
    "placebo": Placebo,
    "echo": Echo,
}
