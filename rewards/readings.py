"""What is read off an episode: who held what before the talk, and whether an answer is a compromise of it."""

from collections.abc import Callable, Iterable

from envs.core.episode import Episode
from envs.core.task import Decision, Seat


def mean_over_decisions(episode: Episode, value: Callable[[Decision], float]) -> float:
    """Mean of `value` over the task's decisions, by decision weight; 0 for a task that has no decision to settle."""
    total = sum(decision.weight for decision in episode.task.decisions)
    return sum(d.weight * value(d) for d in episode.task.decisions) / total if total else 0.0


def prior_option(episode: Episode, agent: Seat, decision: Decision) -> str | None:
    """The option that the seat's sealed prior finds likeliest; None without a readable prior, or when none leads.

    It goes by probability and not by name: confidence 0.1 in one of two options is a prior for the other one, and
    confidence below 1/K in one of three or more leaves the others tied. Naming an option and doubting it therefore
    hides nothing.
    """
    stance = episode.prior(agent, decision.id)
    if stance is None:
        return None
    probability = {option: stance.probability(decision, option) for option in decision.options}
    likeliest = [option for option, p in probability.items() if p == max(probability.values())]
    return likeliest[0] if len(likeliest) == 1 else None


def prior_options(episode: Episode, decision: Decision) -> dict[Seat, str]:
    """The prior option of each seat that has one."""
    held = {seat: prior_option(episode, seat, decision) for seat in episode.seats}
    return {seat: option for seat, option in held.items() if option is not None}


def is_compromise(decision: Decision, answer: str, priors: Iterable[str]) -> bool:
    """Whether an answer lies between the priors: a declared blend or, for numbers, one strictly between them."""
    if decision.numeric is None:
        return answer in decision.blends
    numbers = [float(prior) for prior in priors]
    return float(answer) not in numbers and min(numbers) < float(answer) < max(numbers)
