"""What was known of a merge before it was made: conflicts in the end, and the forecasts that spoke of them."""

from envs.episode import Episode
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
    rounds = [forecast.conflict for forecast in episode.outcome.forecasts]
    if not rounds or not rounds[-1]:
        return Rate()
    stayed = next((i for i, conflict in enumerate(reversed(rounds)) if not conflict), len(rounds))
    return Rate(float(stayed - 1), 1)
