"""The partner whose replies the warm-up learns from."""

import numpy as np

from envs.core.env import CoopEnv
from envs.core.episode import ActKind, Phase
from envs.core.grammar import WITHOUT_OPTION
from envs.core.posterior import named_option
from envs.core.task import Decision, Seat
from envs.handover.env import Handover
from envs.scripted.base import TALK_ACTS, Scripted, line
from envs.scripted.handover import NoteTaker


class Demonstrator(Scripted):
    """Teaches the format and not the choice: what it settles on, how sure it is and how it words things are random.

    The prior stance is its own belief, of a seat alone either of the two that it read; the final option is its own,
    that of the partner whose source it brings to mind or the blend (where there is one) with equal chance, and its code
    realises that option. Before it answers for good it says what each source says and how good it is: whoever is to
    weigh the sources must first bring them to mind. In a pair one source is better, so the own one tells of the other;
    in a larger team each message tells how good the source is, in the word that the last reply has for it, and of the
    partners it brings to mind the first with a reliable source, else the first of all. Where acts are on, half of its
    messages are one, of a random kind, and what it expects of the partner is as random as what it does.
    """

    TEMPLATES = (
        "{option}",
        "I have {option}.",
        "I got {option} from {source}.",
        "My source, {source}, says {option}.",
    )
    IN_A_TEAM = ("{quality}: {option}", "My source is {quality}: {option}.")
    """Where there are several partners, who cannot tell how good the source is unless they are told."""

    def __init__(self, rng: np.random.Generator):
        self.rng = rng

    def reply(self, env: CoopEnv, seat: Seat) -> str:
        if isinstance(env, Handover):
            return NoteTaker(0.5, self.rng).reply(env, seat)
        shown = env.demonstration(seat, self.rng)
        if shown is not None:
            return shown
        reply = super().reply(env, seat)
        if env.phase is not Phase.FINAL:
            return reply
        return "\n".join([*(self._sources(env, seat, decision) for decision in env.task.decisions), reply])

    def _sources(self, env: CoopEnv, seat: Seat, decision: Decision) -> str:
        """`Mine is doubtful: 61. Theirs is reliable: 57.`, and of a seat alone `The first is doubtful: 61. ...`"""
        if decision.read:
            places = zip(("The first", "The second"), decision.read, strict=True)
            return " ".join(f"{place} is {quality}: {option}." for place, (option, quality) in places)
        said = f"Mine is {decision.quality(seat)}: {decision.belief[seat]}."
        partner = self._source_heard(env, seat, decision)
        if partner is None:
            return said
        claim = env.claims(seat, decision)[partner]
        return f"{said} Theirs is {decision.quality(partner)}: {claim.option}."

    def _source_heard(self, env: CoopEnv, seat: Seat, decision: Decision) -> Seat | None:
        """The partner whose source is brought to mind; None where nobody told of one."""
        claims = env.claims(seat, decision)
        if len(env.seats) == 2:
            return None if decision.is_estimate else next(iter(claims), None)
        told = [p for p, claim in claims.items() if claim.quality]
        return next((p for p in told if decision.cue[p] == "strong"), next(iter(told), None))

    def prior(self, env: CoopEnv, seat: Seat, decision: Decision) -> tuple[str, float]:
        read = decision.read
        option = read[self.rng.integers(len(read))][0] if read else decision.belief[seat]
        return option, float(self.rng.integers(5, 11)) / 10

    def message(self, env: CoopEnv, seat: Seat, decision: Decision) -> str:
        option = decision.told(seat)
        templates = self.TEMPLATES if len(env.seats) == 2 else self.IN_A_TEAM
        text = templates[self.rng.integers(len(templates))].format(
            option=option, source=decision.source.get(seat, "my source"), quality=decision.quality(seat)
        )
        return self._act(env, seat, decision, text) if env.config.acts and self.rng.integers(2) else text

    def _act(self, env: CoopEnv, seat: Seat, decision: Decision, text: str) -> str:
        """A random act, on its own belief or, to concede, on what it heard; one without an option follows the text."""
        kind = TALK_ACTS[self.rng.integers(len(TALK_ACTS))]
        if kind in WITHOUT_OPTION:
            return f"{text}\n{line(env, kind.capitalize(), decision)}"
        own, heard = decision.belief[seat], named_option(env.heard(seat), decision)
        option = (heard or own) if kind is ActKind.CONCEDE else own
        return line(env, kind.capitalize(), decision, option)

    def decide(self, env: CoopEnv, seat: Seat, decision: Decision) -> tuple[str, float]:
        claimed = [option for option, _ in decision.read] or self._claimed(env, seat, decision)
        choices = (*claimed, *decision.blends[:1])
        option = choices[self.rng.integers(len(choices))]
        return option, self.prior(env, seat, decision)[1]

    def _claimed(self, env: CoopEnv, seat: Seat, decision: Decision) -> list[str]:
        """The own option and that of the source which was heard, the own again where both are the same."""
        own, claims = decision.belief[seat], env.claims(seat, decision)
        told = self._source_heard(env, seat, decision)
        heard = [claims[told]] if told else claims.values()
        return [own, next((claim.option for claim in heard if claim.option != own), own)]

    def expect(self, env: CoopEnv, seat: Seat, decision: Decision) -> tuple[str, float]:
        return self.decide(env, seat, decision)
