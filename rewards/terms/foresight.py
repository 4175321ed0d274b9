"""Foresight: pay for knowing before the merge whether it will conflict."""

from envs.core.episode import MERGE, Episode, Phase
from envs.core.task import Seat
from rewards.base import RewardTerm
from rewards.readings import expected
from rewards.schedules import Weight
from rewards.terms.scores import quadratic_score


class Foresight(RewardTerm):
    """r = S(q_t, c) / T on each of the seat's T turns of work. q_t is the seat's standing sealed EXPECT of the merge at
    turn t, c whether the merge met a conflict, S the score of `deference`.

    Range: [0, 1] per episode; a turn without a standing prediction scores 0, and so does an episode without a merge.
    Source: a proper score (Brier 1950) of what git says in the end. Early predictions count in more turns, so foresight
    is worth more than hindsight, and waiting until one is sure gains nothing.

    Gaming: honest reports are best as long as the seat does not choose the merge for their sake. It can: a conflict
    that is made is easily foreseen, and so is a merge to which nobody brings anything. Both cost U, so keep the
    weight <= 0.1. Predictions are sealed, so the partner cannot play to them.

    Example: three turns of work, `Expect merge: conflict (60%)` in the second, and the merge is clean: 0, then
    1 - (0.6^2 + 0.6^2) / 2 = 0.64 in both others; r = 0, 0.64 / 3, 0.64 / 3.
    """

    weight: Weight = 0.0  # measured: U counts what a conflict costs

    def applies(self, episode: Episode) -> bool:
        return episode.outcome.merge is not None

    def __call__(self, episode: Episode, agent: Seat) -> list[float]:
        turns = episode.turns_of(agent)
        work = sum(turn.phase is Phase.WORK for turn in turns)
        if episode.outcome.merge is None or not work:
            return [0.0] * len(turns)
        came = MERGE.options[not episode.outcome.merge.conflict]
        scores = [quadratic_score(expected(episode, agent, MERGE, turn.round), MERGE, came) for turn in turns]
        return [s / work if turn.phase is Phase.WORK else 0.0 for turn, s in zip(turns, scores, strict=True)]
