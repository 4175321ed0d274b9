"""What was known of a merge before it was made: conflicts in the end, and the forecasts that spoke of them.

Where lines conflict, git says so, and its forecast for what a branch is now is exact. Where meaning does, the forecast
names symbols on which both sides rely, which is a warning: sides that know of each other rely on the same symbols and
are right. So it has a recall too. Harm is a test of a part that passes on the part's own branch and fails on the merged
tree; it is looked for where the merge is clean and some such test passes alone, so that there is something to harm.
"""

from collections.abc import Sequence

from envs.core.episode import Episode
from rewards.metrics.rate import Rate, share


def forecast_precision(episode: Episode) -> Rate:
    """P(the branches conflict in the end | they were forecast to after a round of work).

    Range: [0, 1]; what is missing to 1 are conflicts that the seats still avoided. Cases: rounds with such a forecast.
    Source: our own, after the early warnings of Brun et al. (2011).
    Example: forecasts of a conflict after rounds 2 and 3 of four, and a clean merge: 0 of 2.
    """
    rounds = [forecast.conflict for forecast in episode.outcome.forecasts]
    stays = bool(rounds) and rounds[-1]
    return share([stays] * sum(rounds))


def forecast_lead_rounds(episode: Episode) -> Rate:
    """Mean rounds of work that were left when a conflict that stayed was first forecast.

    Range: from 0, more is better. Cases: episodes that end in a conflict. Source: our own.
    Example: of four rounds, 1 and 3 and 4 forecast a conflict: the one that stayed came in round 3, so 1 was left.
    """
    return _lead([forecast.conflict for forecast in episode.outcome.forecasts])


def semantic_forecast_precision(episode: Episode) -> Rate:
    """P(harm after the clean merge | the forecast named a symbol or signature in common after a round of work).

    Range: [0, 1]; what is missing to 1 are symbols that both relied on rightly, and harm that the seats still avoided.
    Cases: rounds with such a forecast, of episodes that end in a clean merge and had a test to harm. Source: our own,
    after the higher-order conflicts of Brun et al. (2011).
    Example: both rely on a function after rounds 2 and 3 of three, in one episode that ends in harm, and in one that
    does not: 2 of 4.
    """
    harm = _harm(episode)
    return Rate() if harm is None else share([harm] * sum(_named(episode)))


def semantic_forecast_recall(episode: Episode) -> Rate:
    """P(the last forecast named a symbol or signature in common | harm after a clean merge).

    Range: [0, 1]. Cases: episodes with such harm. Source: our own.
    Example: three episodes with harm, and what both relied on was named at the end of two of them: 2 of 3.
    """
    return share([_named(episode)[-1:] == [True]]) if _harm(episode) else Rate()


def semantic_forecast_lead_rounds(episode: Episode) -> Rate:
    """Mean rounds of work that were left when the forecast began to name what both rely on, and kept on to the end.

    Range: from 0, more is better. Cases: episodes with harm after a clean merge that the last forecast warned of.
    Source: our own.
    Example: of four rounds, 1 and 3 and 4 named a symbol in common: the warning that stayed came in round 3, so 1 was
    left.
    """
    return _lead(_named(episode)) if _harm(episode) else Rate()


def _lead(rounds: Sequence[bool]) -> Rate:
    """The rounds after the first one of those at the end that all are true; no case where the last one is not."""
    if not rounds or not rounds[-1]:
        return Rate()
    stayed = next((i for i, told in enumerate(reversed(rounds)) if not told), len(rounds))
    return Rate(float(stayed - 1), 1)


def _named(episode: Episode) -> list[bool]:
    """For each round, whether the forecast named a symbol in common; signatures are among them."""
    return [bool(forecast.symbols) for forecast in episode.outcome.forecasts]


def _harm(episode: Episode) -> bool | None:
    """Whether a clean merge broke a test that passed alone; None without a clean merge or a test to break."""
    merge = episode.outcome.merge
    tests = [test for part in episode.outcome.parts.values() for test in zip(part.alone, part.merged, strict=True)]
    after = [merged for alone, merged in tests if alone]
    return None if merge is None or merge.conflict or not after else not all(after)
