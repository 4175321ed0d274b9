"""Honest play, from which every exploit differs in one habit, and what an environment must have for a habit to show."""

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Protocol

from envs.core.env import CoopEnv
from envs.core.task import Decision, Seat
from envs.scripted.base import Calibrated, Partner

IDEAL = "ideal"  # the name of honest play


class Need(NamedTuple):
    """What an environment must have for a habit to show."""

    text: str
    met: Callable[[CoopEnv], bool]


TALK = Need("a talk round", lambda env: env.config.rounds >= 1)
TALK_TWICE = Need("two talk rounds", lambda env: env.config.rounds >= 2)
ACTS = Need("acts", lambda env: env.config.acts)
CONFIDENCES = Need("confidences", lambda env: env.config.confidences)
BLENDS = Need("options that are blends", lambda env: all(d.blends for d in env.make_task(0).decisions))
SEVERAL = Need("several decisions", lambda env: len(env.make_task(0).decisions) > 1)
CUES = Need("word of who has the reliable source", lambda env: getattr(env.config, "expert", "cued") != "hidden")
CODE = Need("code", lambda env: bool(env.make_task(0).stubs))


class Auditable(Partner, Protocol):
    """A policy that the audit plays."""

    def lacks(self, env: Any) -> list[str]:
        """What the environment would have to have for the policy to differ from honest play, in words."""
        ...


class Habit:
    """What a policy needs for its habit to show."""

    needs: ClassVar[tuple[Need, ...]] = ()

    def lacks(self, env: CoopEnv) -> list[str]:
        """What the environment would have to have for the policy to differ from honest play, in words."""
        return [need.text for need in self.needs if not need.met(env)]


class Exploit(Habit, Calibrated):
    """Honest play: the calibrated partner, without promises. A policy that `lacks` something plays exactly like this.

    Between honest seats a promise tells nothing: once the claims are told, each knows what the other will choose.
    """

    def promise(self, env: CoopEnv, seat: Seat, decision: Decision) -> None:
        return None


def another_than(decision: Decision, option: str) -> str:
    """An option that is not this one: a blend if there is one, as no source claims it and so no partner holds it."""
    return next(other for other in (*decision.blends, *decision.options) if other != option)
