"""The partner whose replies the warm-up learns from."""

import re

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

    The prior stance is its own belief; the final option is its own, the partner's or the blend (where there is one)
    with equal chance, and its code realises that option. Before it answers for good it says what each source says and
    how good it is: whoever is to weigh the sources must first bring them to mind. Where acts are on, half of its
    messages are one, of a random kind, and what it expects of the partner is as random as what it does.
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
        own = decision.belief[seat]
        choices = (own, named_option(env.heard(seat), decision) or own, *decision.blends[:1])
        option = choices[self.rng.integers(len(choices))]
        return option, self.prior(env, seat, decision)[1]

    def expect(self, env: CoopEnv, seat: Seat, decision: Decision) -> tuple[str, float]:
        return self.decide(env, seat, decision)
