"""Scripted partners: they play on text, know only what their seat may know, and never miss the grammar.

For tests, baselines and format demonstrations. A partner reads its own beliefs and cues, the options and the messages
that it heard; where it needs to know how instances are made (`Calibrated`), that is public: the environment's
constructor arguments.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from itertools import groupby
from typing import Protocol

import numpy as np

from envs.base import CoopEnv
from envs.episode import ActKind, Episode, Outcome, Phase, StopReason, Turn
from envs.parsing import WITHOUT_OPTION, parse_acts
from envs.task import Decision, Seat

TALK_ACTS = tuple(kind for kind in ActKind if kind is not ActKind.EXPECT)


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
        ValueError: the record has more or fewer turns than this environment plays, other seats, or another end.
    """
    env.reset(options={"task": episode.task})
    for _, turns in groupby(episode.turns, key=lambda turn: turn.round):
        if not env.agents:
            raise _unequal(episode, f"goes on after {len(env.turns)} turns")
        env.step({turn.agent: turn.reply for turn in turns})
    if env.agents:
        raise _unequal(episode, f"ends in phase {env.phase}")
    ended = env.episode.outcome, episode.outcome
    if ended[0] != ended[1] and StopReason.SANDBOX_FAULT not in (env.episode.stop_reason, episode.stop_reason):
        name = next(field.name for field in fields(Outcome) if len({repr(getattr(o, field.name)) for o in ended}) > 1)
        raise _unequal(episode, f"has {name} {getattr(ended[1], name)!r} and not {getattr(ended[0], name)!r}")
    return replace(env.episode, players=episode.players)


def _unequal(episode: Episode, what: str) -> ValueError:
    return ValueError(f"replay: the record of {episode.task.id} {what}. Use an environment with the same arguments.")


def named_option(messages: Sequence[str], decision: Decision) -> str | None:
    """The option that the messages name first, oldest message first; None where they name none.

    The first word counts because it is the partner's own: what it says later may be an echo. A message that names the
    decision is read from there on, so `oxygen: 1 water: 2` names 2 for `water`. Longer options are tried first, so a
    blend is not mistaken for its first half.
    """
    options = sorted(decision.options, key=len, reverse=True)
    edge = {True: r"(?!\w)", False: ""}, {True: r"(?<!\w)", False: ""}
    patterns = [edge[1][o[0].isalnum()] + re.escape(o) + edge[0][o[-1].isalnum()] for o in options]
    named = re.compile(rf"\b{re.escape(decision.id)}\b", re.IGNORECASE)
    for message in messages:
        on_it = named.split(message, maxsplit=1)[-1]
        match = re.search("|".join(f"({pattern})" for pattern in patterns), on_it, re.IGNORECASE)
        if match:
            return options[match.lastindex - 1]
    return None


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
    certainty = f" ({round(100 * confidence)}%)" if env.confidences and confidence is not None else ""
    return f"{head}: {option}{certainty}".rstrip()


class Scripted:
    """The frame of a scripted partner: subclasses say what to answer, how sure they are and what to say."""

    def reply(self, env: CoopEnv, seat: Seat) -> str:
        decisions = env.task.decisions
        if env.phase is Phase.WORK:
            return self.act(env, seat)
        if env.phase is Phase.TALK:
            said = [self._on(env, decision, self.message(env, seat, decision)) for decision in decisions]
            return ("\n" if env.acts else " ").join(filter(None, said)) or "PASS"
        if env.phase is Phase.STANCE:
            return "\n".join(line(env, "Answer", d, *self.prior(env, seat, d)) for d in decisions)
        expected = [(d, self.expect(env, seat, d)) for d in decisions if env.acts]
        lines, work = [line(env, "Expect", d, *guess) for d, guess in expected if guess], []
        for decision in decisions:
            option, confidence = self.decide(env, seat, decision)
            lines.append(line(env, "Answer", decision, option, confidence))
            work += [] if Phase.WORK in env.schedule else [self.work(env, seat, option)]
        return "\n".join([*lines, *filter(None, work)])

    def _on(self, env: CoopEnv, decision: Decision, text: str) -> str:
        """A message after the decision that it is on, where there are several; an act names its decision itself."""
        first_line = text.partition("\n")[0]
        plain = text and len(env.task.decisions) > 1 and not parse_acts(first_line, env.task.decisions)
        return f"{decision.id}: {text}" if plain else text

    def act(self, env: CoopEnv, seat: Seat) -> str:
        """A turn of work: what it has to say in the first, its part and `Submit` in the next."""
        (decision,) = env.task.decisions
        words = self.message(env, seat, decision).splitlines()
        said = "\n".join(w if env.acts and parse_acts(w, [decision]) else f"Say: {w}" for w in words) or "Pass"
        first, last = env.turns_left(seat) == env.rounds, env.turns_left(seat) == 1
        work = "" if first and not last else f"{self.work(env, seat, self.decide(env, seat, decision)[0])}\nSubmit"
        return "\n".join(([said] if first else []) + ([work] if work else []))

    def prior(self, env: CoopEnv, seat: Seat, decision: Decision) -> tuple[str, float]:
        """The option of the sealed stance, which is the seat's own belief, and the confidence in it, in [0, 1]."""
        return decision.belief[seat], 0.8

    def message(self, env: CoopEnv, seat: Seat, decision: Decision) -> str:
        """What to tell the partner about a decision; "" for nothing."""
        return decision.told(seat)

    def decide(self, env: CoopEnv, seat: Seat, decision: Decision) -> tuple[str, float]:
        """The final option and the confidence in it, in [0, 1]."""
        raise NotImplementedError

    def expect(self, env: CoopEnv, seat: Seat, decision: Decision) -> tuple[str, float] | None:
        """The option that the partner's part will realise and how likely, said where acts are on; None: no word."""
        return None

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

    Where acts are on it commits as soon as it knows what it will choose, and tells how far it expects its partner to
    agree. It says nothing twice, and nothing that the partner can tell by itself.
    """

    def odds(self, env: CoopEnv, seat: Seat, decision: Decision) -> dict[str, float]:
        """How likely its own belief is right and, once it was told another option, how likely that one is; a
        compromise of two estimates comes between them.

        Raises ValueError where these are not the odds of the 2x2 design.
        """
        if env.cells is None or len(env.seats) > 2:
            problem = f"{type(env).__name__} with {len(env.seats)} seats"
            raise ValueError(f"{problem}: {type(self).__name__} plays pairs of the 2x2 design.")
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

    def claim(self, env: CoopEnv, seat: Seat, decision: Decision) -> str:
        """The option that it says its source says."""
        return decision.belief[seat]

    def promise(self, env: CoopEnv, seat: Seat, decision: Decision) -> str | None:
        """What it can commit to; None while the partner's word may change it, and where the partner knows it anyway."""
        heard = named_option(env.heard(seat), decision)
        open_yet = heard is None and decision.cue[seat] != "strong"
        known = heard == self.claim(env, seat, decision) or decision.is_estimate  # of estimates both know the pool
        return None if open_yet or known else self.decide(env, seat, decision)[0]

    def message(self, env: CoopEnv, seat: Seat, decision: Decision) -> str:
        mine = [turn for turn in env.turns if turn.agent == seat]
        promise = self.promise(env, seat, decision) if env.acts else None
        if promise not in (None, promised(mine, decision)):
            return line(env, "Commit", decision, promise)
        if mine[-1].phase is Phase.TALK:
            return ""
        claim = self.claim(env, seat, decision)
        return decision.told(seat) if claim == decision.belief[seat] else claim

    def expect(self, env: CoopEnv, seat: Seat, decision: Decision) -> tuple[str, float]:
        """A promise is believed, and so is a word that agrees with its own. Who named something else may hold or yield,
        with even odds, and who said nothing may do anything."""
        theirs = [turn for turn in env.turns if turn.agent != seat]
        own, heard = self.claim(env, seat, decision), named_option(env.heard(seat), decision)
        if known := promised(theirs, decision) or pooled_option(env.heard(seat), decision, seat):
            return known, 1.0
        if heard is None:
            return own, 1 / len(decision.options)
        return heard, 1.0 if heard == own else 0.5


class Demonstrator(Scripted):
    """Teaches the format and not the choice: what it settles on, how sure it is and how it words things are random.

    The prior stance is its own belief; the final option is its own, the partner's or the blend with equal chance, and
    its code realises that option. Before it answers for good it says what each source says and how good it is: whoever
    is to weigh the sources must first bring them to mind. Where acts are on, half of its messages are one, of a random
    kind, and what it expects of the partner is as random as what it does.
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
        return "\n".join([*(self._sources(env, seat, decision) for decision in env.task.decisions), reply])

    def _sources(self, env: CoopEnv, seat: Seat, decision: Decision) -> str:
        """`Mine is doubtful: 61. Theirs is reliable: 57.` Of two sources that are no estimates, one is the better."""
        heard, partners = named_option(env.heard(seat), decision), [other for other in env.seats if other != seat]
        said = [f"Mine is {decision.quality(seat)}: {decision.belief[seat]}."]
        if heard is not None and len(partners) == 1 and not decision.is_estimate:
            said.append(f"Theirs is {decision.quality(*partners)}: {heard}.")
        return " ".join(said)

    def prior(self, env: CoopEnv, seat: Seat, decision: Decision) -> tuple[str, float]:
        return decision.belief[seat], float(self.rng.integers(5, 11)) / 10

    def message(self, env: CoopEnv, seat: Seat, decision: Decision) -> str:
        option = decision.told(seat)
        source = re.search(r"Your source, ([^,]+), \w+ " + re.escape(option), env.task.briefs[seat])
        template = self.TEMPLATES[self.rng.integers(len(self.TEMPLATES))]
        text = template.format(option=option, source=source[1] if source else "my source")
        return self._act(env, seat, decision, text) if env.acts and self.rng.integers(2) else text

    def _act(self, env: CoopEnv, seat: Seat, decision: Decision, text: str) -> str:
        """A random act, on its own belief or, to concede, on what it heard; one without an option follows the text."""
        kind = TALK_ACTS[self.rng.integers(len(TALK_ACTS))]
        if kind in WITHOUT_OPTION:
            return f"{text}\n{line(env, kind.capitalize(), decision)}"
        own, heard = decision.belief[seat], named_option(env.heard(seat), decision)
        option = (heard or own) if kind is ActKind.CONCEDE else own
        return line(env, kind.capitalize(), decision, option)

    def decide(self, env: CoopEnv, seat: Seat, decision: Decision) -> tuple[str, float]:
        own = decision.belief[seat]
        choices = (own, named_option(env.heard(seat), decision) or own, decision.blends[0])
        option = choices[self.rng.integers(3)]
        return option, self.prior(env, seat, decision)[1]

    def expect(self, env: CoopEnv, seat: Seat, decision: Decision) -> tuple[str, float]:
        return self.decide(env, seat, decision)
