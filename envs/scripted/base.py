"""The frame of a scripted partner, and the honest one that others are made of.

A partner reads its own beliefs and cues, the options and the messages that it heard; what follows from them by the way
that instances are made (`Calibrated`) is the posterior of `envs.core.posterior`.
"""

from collections.abc import Iterable
from typing import Any, Protocol

from envs.core.config import DesignConfig
from envs.core.env import CoopEnv
from envs.core.episode import ActKind, Phase, Turn
from envs.core.grammar import parse_acts
from envs.core.posterior import expected_choice, named_option
from envs.core.task import Decision, Seat
from envs.repository.branch_env import BranchEnv

TALK_ACTS = tuple(kind for kind in ActKind if kind is not ActKind.EXPECT)


class Partner(Protocol):
    """Anything that writes a seat's next reply in the environments that it plays.

    A class may say by a method `plays(env)` which these are; one without it is taken to play all.
    """

    def reply(self, env: Any, seat: Seat) -> str:
        """The reply of `seat` in `env.phase`."""
        ...


def promised(turns: Iterable[Turn], decision: Decision) -> str | None:
    """The option that the turns of a seat commit it to in the end; None where they do not."""
    option = None
    for turn in turns:
        for act in turn.acts:
            if act.decision == decision.id and act.kind in (ActKind.COMMIT, ActKind.RETRACT):
                option = act.option
    return option


def line(env: CoopEnv, word: str, decision: Decision, option: str = "", confidence: float | None = None) -> str:
    """An answer or an act as the grammar has it: `Answer: 17 (80%)`, `Commit offset: 17`, `Ask:`."""
    head = word if len(env.task.decisions) == 1 else f"{word} {decision.id}"
    certainty = f" ({round(100 * confidence)}%)" if env.config.confidences and confidence is not None else ""
    return f"{head}: {option}{certainty}".rstrip()


class Scripted:
    """The frame of a scripted partner: subclasses say what to answer, how sure they are and what to say."""

    @classmethod
    def plays(cls, env: CoopEnv) -> bool:
        """Whether it can play an environment: one that knows how likely its options are right."""
        return env.has_posterior

    def reply(self, env: CoopEnv, seat: Seat) -> str:
        decisions = env.task.decisions
        if isinstance(env, BranchEnv) and env.phase is Phase.WORK:
            return self.act(env, seat)
        if env.phase is Phase.TALK:
            said = [self._on(env, decision, self.message(env, seat, decision)) for decision in decisions]
            return ("\n" if env.config.acts else " ").join(filter(None, said)) or "PASS"
        if env.phase is Phase.STANCE:
            return "\n".join(line(env, "Answer", d, *self.prior(env, seat, d)) for d in decisions)
        asked = env.config.acts and len(env.seats) > 1
        expected = [(d, self.expect(env, seat, d)) for d in decisions if asked]
        lines, work = [line(env, "Expect", d, *guess) for d, guess in expected if guess], []
        for decision in decisions:
            option, confidence = self.realise(env, seat, decision)
            lines.append(line(env, "Answer", decision, option, confidence))
            work += [] if Phase.WORK in env.schedule else [self.work(env, seat, option)]
        return "\n".join([*lines, *filter(None, work)])

    def _on(self, env: CoopEnv, decision: Decision, text: str) -> str:
        """A message after the decision that it is on, where there are several; an act names its decision itself."""
        first_line = text.partition("\n")[0]
        plain = text and len(env.task.decisions) > 1 and not parse_acts(first_line, env.task.decisions)
        return f"{decision.id}: {text}" if plain else text

    def act(self, env: BranchEnv, seat: Seat) -> str:
        """A turn of work: what it has to say in the first, its part and `Submit` in the next."""
        (decision,) = env.task.decisions
        if len(env.seats) == 1:
            return f"{self.work(env, seat, self.realise(env, seat, decision)[0])}\nSubmit"
        words = self.message(env, seat, decision).splitlines()
        said = "\n".join(w if env.config.acts and parse_acts(w, [decision]) else f"Say: {w}" for w in words) or "Pass"
        first, last = env.turns_left(seat) == env.config.rounds, env.turns_left(seat) == 1
        work = "" if first and not last else f"{self.work(env, seat, self.realise(env, seat, decision)[0])}\nSubmit"
        return "\n".join(([said] if first else []) + ([work] if work else []))

    def prior(self, env: CoopEnv, seat: Seat, decision: Decision) -> tuple[str, float]:
        """The option of the sealed stance, which is the seat's own belief, and the confidence in it, in [0, 1]."""
        return decision.belief[seat], 0.8

    def message(self, env: CoopEnv, seat: Seat, decision: Decision) -> str:
        """What to tell the partner about a decision; "" for nothing."""
        return decision.told(seat)

    def decide(self, env: CoopEnv, seat: Seat, decision: Decision) -> tuple[str, float]:
        """The option that it chooses by what it knows now and the confidence in it, in [0, 1]."""
        raise NotImplementedError

    def realise(self, env: CoopEnv, seat: Seat, decision: Decision) -> tuple[str, float]:
        """The option that it works by and ends on, and the confidence: what it decides, unless it plays false."""
        return self.decide(env, seat, decision)

    def expect(self, env: CoopEnv, seat: Seat, decision: Decision) -> tuple[str, float] | None:
        """The option that the partner's part will realise and how likely, said where acts are on; None: no word."""
        return None

    def work(self, env: CoopEnv, seat: Seat, option: str) -> str:
        """The seat's code under an option; "" where the task has none."""
        return env.reference_work(seat, option)


class Calibrated(Scripted):
    """The ideal partner: says what it was told, follows the cue, pools estimates by their standard errors, and is as
    sure as the odds of the design allow.

    Where acts are on it commits as soon as it knows what it will choose, and says what it expects a partner like itself
    to choose. It says nothing twice, and nothing that the partner can tell by itself.
    """

    def prior(self, env: CoopEnv, seat: Seat, decision: Decision) -> tuple[str, float]:
        option = decision.belief[seat]
        return option, env.posterior(seat, decision)[option]

    def decide(self, env: CoopEnv, seat: Seat, decision: Decision) -> tuple[str, float]:
        return next(iter(env.posterior(seat, decision).items()))

    def claim(self, env: CoopEnv, seat: Seat, decision: Decision) -> str:
        """The option that it says its source says."""
        return decision.belief[seat]

    def promise(self, env: CoopEnv, seat: Seat, decision: Decision) -> str | None:
        """What it can commit to; None while a partner's word may change it, and where the partners know it anyway."""
        claims = env.claims(seat, decision)
        open_yet = decision.cue[seat] != "strong" and len(claims) < len(env.seats) - 1
        agreed = bool(claims) and {claim.option for claim in claims.values()} == {self.claim(env, seat, decision)}
        return None if open_yet or agreed or env.pools(decision) else self.decide(env, seat, decision)[0]

    def message(self, env: CoopEnv, seat: Seat, decision: Decision) -> str:
        mine = [turn for turn in env.turns if turn.agent == seat]
        promise = self.promise(env, seat, decision) if env.config.acts else None
        commit = line(env, "Commit", decision, promise) if promise not in (None, promised(mine, decision)) else ""
        spoken, pair = mine[-1].phase is Phase.TALK, len(env.seats) == 2
        if spoken or (commit and pair):  # in a pair a promise at once says whose source is reliable
            return commit
        claim = self.claim(env, seat, decision)
        said = decision.told(seat) if claim == decision.belief[seat] else claim
        reliable = not pair and decision.cue[seat] == "strong"  # more than two cannot tell who has that source
        return "\n".join(filter(None, [f"{said} {decision.quality(seat)}" if reliable else said, commit]))

    def expect(self, env: CoopEnv, seat: Seat, decision: Decision) -> tuple[str, float]:
        """A promise is believed, and what all can pool; else a partner will choose as it would itself in its place."""
        promise = promised((turn for turn in env.turns if turn.agent != seat), decision)
        if known := promise or env.pooled(seat, decision):
            return known, 1.0
        if not isinstance(env.config, DesignConfig):
            return decision.belief[seat], 1 / len(decision.options)
        said = named_option([turn.message for turn in env.turns if turn.agent == seat], decision)
        return expected_choice(env.view(seat), decision, env.config, said)
