"""The whole path at once: two agents of a random transformer learn whom to believe, from chance to the optimum."""

import pytest
import tiny
import torch

from marl_coop.ppo.counterfactual import replay_muted
from rewards.metrics import rates
from rewards.terms.task_success import TaskSuccess

UNSEEN = range(2**41, 2**41 + 200)


def learned(folder, seed: int, **training) -> tuple[dict, dict, float]:
    """Rates on unseen tasks before and after training, for a base and adapters of their own per seed, and how much
    of U the messages of the first seat are worth in the end."""
    words = len(tiny.word_tokenizer(tiny.WORDS))
    policy = tiny.team(tiny.base_model(words, seed=seed, hidden=64), r=16, trained=False, seed=seed + 1)
    trainer = tiny.cue_trainer(
        folder,
        policy=policy,
        rewards=[TaskSuccess(weight=1.0), tiny.Candour(weight=0.5)],
        num_updates=100,
        episodes_per_update=64,
        num_ppo_epochs=2,
        learning_rate=3e-3,
        lr_scheduler_type="linear",
        entropy_coef=0.2,
        max_stance_tokens=1,
        max_message_tokens=1,
        max_final_tokens=1,
        save_updates=1000,
        seed=seed,
        **training,
    )

    def played():
        return trainer.players.play(UNSEEN, sampling_seed=0)

    def measured(rollouts):
        return rates([rollout.episode for rollout in rollouts])

    before = measured(played())
    trainer.train()
    spoken = played()
    silenced = replay_muted(trainer.players, spoken, tiny.SEATS[0], lambda player: player, sampling_seed=0)
    after = measured(spoken)
    return before, after, after["utility"] - measured(silenced)["utility"]


@pytest.mark.slow
@pytest.mark.timeout(900)  # three minutes of computing on two slow cores
def test_two_agents_learn_to_follow_the_reliable_source(tmp_path):
    """A seat with a weak source is right only if its partner told it the truth and it believed it; one with a strong
    source only if it held. Nothing but the reward says so: the base is random and the adapters start at 0."""
    torch.set_num_threads(1)
    before, after, worth_of_messages = learned(tmp_path, seed=1)  # seed 0 ends at 0.81 or 0.99: rounding decides
    assert before["success"] < 0.05
    assert before["parse_rate"] < 0.6
    assert after["success"] >= 0.95
    assert after["j"] >= 0.95
    assert after["cr"] <= 0.03
    assert after["parse_rate"] >= 0.98
    # in half of the tasks its partner has a weak source; silence costs that seat, half of U, half of the time or more
    assert 1 / 8 - 0.03 <= worth_of_messages <= 1 / 4 + 0.03
