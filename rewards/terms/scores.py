"""Proper scores of a report, for the terms that pay for beliefs. Metrics have their own."""

from envs.core.episode import Stance
from envs.core.task import Decision


def quadratic_score(stance: Stance | None, decision: Decision, answer: str | None = None) -> float:
    """S(p, y) = 1 - 1/2 ||p - e_y||^2 in [0, 1]; 0 for a report that could not be read. y is the best option, unless
    another `answer` is what the report is about.

    Proper: a seat that believes q expects the most from reporting q (Brier 1950). Where two options are equally good
    y is the first of them, so families should have one best option.

    >>> d = Decision(id="d", options=("a", "b", "c"), utility={"a": 1.0}, belief={}, expert="agent_0", cue={})
    >>> stance = Stance(decision="d", option="b", confidence=0.6)
    >>> round(quadratic_score(stance, d), 4)  # 1 - (0.8^2 + 0.6^2 + 0.2^2) / 2
    0.48
    """
    if stance is None:
        return 0.0
    truth = decision.best if answer is None else answer
    errors = (stance.probability(decision, option) - (option == truth) for option in decision.options)
    return 1.0 - 0.5 * sum(error**2 for error in errors)
