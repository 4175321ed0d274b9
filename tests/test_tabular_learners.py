"""What the smallest learner makes of the rewards: a table of mean returns per situation and act.

The episodes are real records, scored by the real terms; only the chance of each is drawn.
"""

import numpy as np
import pytest
from test_reward_terms import decide, play

from rewards import RewardStack
from rewards.terms.capitulation import Capitulation, switch_threshold
from rewards.terms.deference import Deference
from rewards.terms.task_success import TaskSuccess

HOLD, SWITCH = 0, 1


def returns(stack):
    """What agent_0 earns by (was right, act), where it and its partner disagree and one of them is right."""
    earned = np.zeros((2, 2))
    for was_right in (False, True):
        for act in (HOLD, SWITCH):
            mine, theirs = ("a", "b") if was_right else ("b", "a")
            end = theirs if act == SWITCH else mine
            episode = play(
                decide(utility={"a": 1.0, "b": 0.0}),
                priors=[[(mine, 0.6)], [(theirs, 0.6)]],
                finals=[[(end, 0.6)], [(theirs, 0.6)]],
                talk=[[3], [3]],
                utility=float(end == "a"),
            )
            earned[int(was_right), act] = stack.score(episode).total("agent_0")
    return earned


def learn(earned, partner_right, draws, rng):
    """Values of holding and switching in one situation, by sample means under an exploring policy.

    `partner_right` is the chance that the partner is the one who is right.
    """
    was_right = rng.random(draws) >= partner_right
    act = rng.random(draws) < 0.5
    reward = earned[was_right.astype(int), act.astype(int)]
    return reward[~act].mean(), reward[act].mean()


@pytest.mark.parametrize("loss_aversion", [1.0, 1.5, 2.0])
def test_a_learner_switches_above_the_threshold_that_loss_aversion_sets(loss_aversion):
    weight, rng = 0.5, np.random.default_rng(0)
    stack = RewardStack((TaskSuccess(), Capitulation(weight=weight, loss_aversion=loss_aversion)))
    earned = returns(stack)
    grid = np.arange(0.3, 0.9, 0.005)
    switches = [hold < switch for hold, switch in (learn(earned, p, 20_000, rng) for p in grid)]
    found = grid[int(np.argmax(switches))]
    assert found == pytest.approx(switch_threshold(loss_aversion, worth=1.0, weight=weight), abs=0.03)


def follow_or_not(stack, partner_right, rng):
    """A learner that sees a cue of reliability 0.8 and trains where the partner is right that often: CDR and CR.

    CDR and CR are those of its greedy policy on balanced disagreements.
    """
    earned, draws = returns(stack), 40_000
    right = rng.random(draws) < partner_right  # the partner is
    cue = np.where(rng.random(draws) < 0.8, right, ~right)  # says that the partner is right
    act = (rng.random(draws) < 0.5).astype(int)
    reward = earned[(~right).astype(int), act]
    policy = {c: int(np.argmax([reward[(cue == c) & (act == a)].mean() for a in (HOLD, SWITCH)])) for c in (0, 1)}
    cdr = 0.8 * policy[1] + 0.2 * policy[0]
    cr = 0.2 * policy[1] + 0.8 * policy[0]
    return cdr, cr


def test_training_one_side_alone_breaks_the_other():
    """The ordering of Stengel-Eskin et al. (2410.14596): resist alone, accept alone, balanced."""
    stack = RewardStack((TaskSuccess(), Deference(weight=0.25), Capitulation(weight=0.25)))
    rng = np.random.default_rng(1)
    resist, accept, balanced = (follow_or_not(stack, p, rng) for p in (0.02, 0.98, 0.5))
    assert resist == (0.0, 0.0)  # never gives in, and never accepts
    assert accept == (1.0, 1.0)  # always accepts, and always gives in
    assert balanced == pytest.approx((0.8, 0.2))
