"""Consensus averaging: charge a compromise that is worse than what somebody had already argued for."""

from collections.abc import Mapping

from envs.core.episode import Episode
from envs.core.task import Decision, Numeric, Seat
from envs.source.edits import mixing, surviving
from rewards.base import RewardTerm, at_last_turn
from rewards.readings import differ, held_options, is_compromise, mean_over_decisions, settled_side
from rewards.schedules import Weight

MIXED = 0.2  # share of the minor side's edits above which code is a mix


class Consensus(RewardTerm):
    """Mean over decisions, by weight, of minus the harm of averaging. a_i0 is what seat i held before the talk: what
    its source claims, or its sealed prior where the task does not say. A decision counts where two of them differ and
    the seat's answer A falls short of the best one, by s = max_i u(a_i0) - u(A) > 0. It then costs

    - s, where A is a declared blend or an option that nobody held;
    - for a number strictly between what was held, its `excess_loss` over the precision-weighted pool instead;
    - s x `log_rolling`, where all seats settled on what one seat held.

    Code is a blend too: where the final code mixes what several seats made of one symbol (`mixing` > 0.2) and earns
    less than the best proposal alone would have, each of these seats is charged the difference. One loss may show in
    its options and in its edits, so the larger charge of both counts.

    Range: [-1, 0]; keep the weight <= 0.25.
    Source: our own; pooling by inverse variance is Cochran's (1937).

    A is the seat's own answer, so only the seat that blended pays; where the seats agree it is the team's. A seat that
    held nothing is not in the set. Agreement costs 0 even where the end is worse (nobody was averaged), and so does an
    answer that realises no option (U pays for that).

    Gaming: refusing every blend gains nothing, as a good blend costs 0. No wording of a prior makes or hides a
    disagreement, as what counts is what the seats were told. Writing the mix in words that are in no proposal hides it
    from the edits, and not from the options or from U.

    Example: told a (worth 1) and b (worth 0); the seat commits to their blend, worth 0.4: -0.6.
    """

    weight: Weight = 0.1

    def __call__(self, episode: Episode, agent: Seat) -> list[float]:
        def harm(decision: Decision) -> float:
            priors, answer = held_options(episode, decision), episode.committed(agent, decision.id)
            if answer is None or not differ(priors):
                return 0.0
            shortfall = max(map(decision.utility_of, priors.values())) - decision.utility_of(answer)
            if shortfall <= 0:
                return 0.0
            between = is_compromise(decision, answer, priors.values())
            if between and decision.numeric is not None:
                numbers = {seat: float(option) for seat, option in priors.items()}
                return -excess_loss(decision.numeric, numbers, decision.expert, float(answer))
            if between or (decision.numeric is None and answer not in priors.values()):
                return -shortfall
            return 0.0 if settled_side(episode, decision, priors) is None else -shortfall * log_rolling(episode)

        return at_last_turn(episode, agent, min(mean_over_decisions(episode, harm), -mixed_loss(episode, agent)))


def mixed_loss(episode: Episode, agent: Seat) -> float:
    """What a mix of proposals, one of them the seat's, fell short of the best proposal alone, in [0, 1]."""
    merge = episode.outcome.merge
    if merge is None or not merge.worth:
        return 0.0
    loss = max(merge.worth.values()) - episode.outcome.utility
    edits = surviving(merge) if loss > 0 else {}
    return loss if agent in edits and (mixing(edits) or 0.0) > MIXED else 0.0


def log_rolling(episode: Episode) -> float:
    """Taking turns across decisions: 1 - |s_e - s_n|, s_e and s_n the shares of settled disagreements that went to
    the expert's side and to another's. 0 for one side throughout, so also for fewer than two settled disagreements.
    """
    to_expert = []
    for decision in episode.task.decisions:
        priors = held_options(episode, decision)
        side = settled_side(episode, decision, priors) if differ(priors) else None
        if side is not None:
            to_expert.append(side == priors.get(decision.expert))
    if not to_expert:
        return 0.0
    share = sum(to_expert) / len(to_expert)
    return 1.0 - abs(share - (1.0 - share))


def pool(numeric: Numeric, priors: Mapping[Seat, float]) -> float:
    """The mean of the priors, weighted by 1 / sigma^2 of the seats that hold them."""
    precision = {seat: numeric.sigma[seat] ** -2 for seat in priors}
    return sum(precision[seat] * number for seat, number in priors.items()) / sum(precision.values())


def excess_loss(numeric: Numeric, priors: Mapping[Seat, float], expert: Seat, answer: float) -> float:
    """E = [L(A) - L(x_B)]+ / (L(x_n) - L(x_B) + tolerance^2), at most 1, with L the squared distance to the truth.

    x_B is the `pool` of the priors and x_n the worst prior of the seats that are not the expert. Averaging
    is often right, so the pool and whatever beats it cost 0. Where x_n is as good as the pool there is no scale left
    and an excess of tolerance^2 or more costs 1.

    Standard errors 0.3 and 1.5 give the expert 96 % of the pool. With truth 10, priors 10 and 13 the pool is 10.115,
    and meeting at 11.5 loses (1.5^2 - 0.115^2) / (3^2 - 0.115^2 + 0.5^2):

    >>> numeric = Numeric(truth=10.0, tolerance=0.5, sigma={"agent_0": 0.3, "agent_1": 1.5})
    >>> round(excess_loss(numeric, {"agent_0": 10.0, "agent_1": 13.0}, "agent_0", 11.5), 3)
    0.242
    """

    def loss(number: float) -> float:
        return (number - numeric.truth) ** 2

    best = loss(pool(numeric, priors))
    excess = max(0.0, loss(answer) - best)
    scale = max(loss(number) for seat, number in priors.items() if seat != expert) - best + numeric.tolerance**2
    return excess / scale if excess < scale else float(excess > 0)
