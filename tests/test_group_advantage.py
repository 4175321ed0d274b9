"""`advantage: group`: no critic, each return against its mean over the plays of one task, for one seat and turn."""

import json

import numpy as np
import pytest
import tiny
import torch
from processes import launch
from safetensors.torch import load_file
from trained import Log, repeatable, rows_of, same, trained

from marl_coop.config.errors import ConfigError
from marl_coop.config.schema import load_config
from marl_coop.players import Mix
from marl_coop.ppo import losses

A, B = tiny.SEATS
GROUP = {"advantage": "group", "num_generations": 4}


def by_hand(trainer, seat):
    """Return minus mean of each turn, by dictionaries; nan where there is nothing to compare."""
    plays, gamma = trainer.args.plays, trainer.args.gamma
    found = []
    for first in range(0, len(trainer.rows), plays):
        rows = [rows[seat] for rows in trainer.rows[first : first + plays]]
        returns = [
            [sum(gamma**i * float(r) for i, r in enumerate(row.rewards_K[k:])) for k in range(len(row.rewards_K))]
            for row in rows
        ]
        for row, own in zip(rows, returns, strict=True):
            others = [theirs for theirs, other in zip(returns, rows, strict=True) if other.trainable]
            means = [np.mean([theirs[k] for theirs in others if k < len(theirs)] or [0.0]) for k in range(len(own))]
            found.append([(x - mean) * row.trainable for x, mean in zip(own, means, strict=True)])
    return found


def test_an_advantage_is_the_return_minus_the_mean_over_the_plays_of_the_task(tmp_path):
    trainer = tiny.cue_trainer(tmp_path, **GROUP, gamma=0.9, env={"fault_every": 3})
    trainer.play(1)  # the tasks 2 and 3, of which the plays of 3 are all faults
    assert [len({r.trainable for r in rows.values()}) for rows in trainer.rows] == [1] * 8
    for seat in tiny.SEATS:
        for rows, expected in zip(trainer.rows, by_hand(trainer, seat), strict=True):
            assert rows[seat].advantages_K.tolist() == pytest.approx(expected, abs=1e-5)
            baseline = rows[seat].returns_K - rows[seat].advantages_K
            assert torch.allclose(rows[seat].values_K, baseline, atol=1e-5)
        assert all((rows[seat].advantages_K == 0).all() for rows in trainer.rows[4:])
        assert any((rows[seat].advantages_K != 0).any() for rows in trainer.rows[:4])
    assert trainer.metrics.take()["lost_groups"] == 0.5


def test_plays_of_a_task_differ_in_what_is_sampled_and_in_nothing_else(tmp_path):
    seen = []
    mix = Mix((B, None), (0.7, 0.3))
    trainer = tiny.cue_trainer(
        tmp_path, **GROUP, policies={A: A, B: mix}, on_rollouts=lambda update, episodes, *_: seen.append(episodes)
    )
    trainer.play(0), trainer.play(1)
    tasks = [[episode.task.seed for episode in episodes] for episodes in seen]
    assert tasks == [[0] * 4 + [1] * 4, [2] * 4 + [3] * 4]
    for episodes in (seen[0][:4], seen[0][4:], seen[1][:4], seen[1][4:]):
        assert len({str(e.task) for e in episodes}) == len({e.players[B] for e in episodes}) == 1
        assert len({tuple(turn.reply for turn in e.turns) for e in episodes}) > 1
    assert {e.players[B] for episodes in seen for e in episodes} == {B, "base"}


def test_a_task_that_is_played_once_is_played_as_before(tmp_path):
    players = tiny.cue_trainer(tmp_path).players
    first, again, other = players.play([5, 5, 6], sampling_seed=1)
    assert [r.play for r in (first, again, other)] == [0, 1, 0]
    assert [r.episode for r in players.play([5, 6], sampling_seed=1)] == [first.episode, other.episode]


def test_groups_of_unequal_length_compare_the_turns_that_they_have():
    returns = torch.tensor([[1.0, 6.0, 9.0], [3.0, 2.0, 0.0], [8.0, 0.0, 0.0], [7.0, 7.0, 0.0]])
    mask = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 0], [0, 0, 0]])
    expected = torch.tensor([[-3.0, 2.0, 0.0], [-1.0, -2.0, 0.0], [4.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    assert torch.allclose(losses.group_advantages(returns, mask, size=4), expected)
    scaled = losses.group_advantages(returns, mask, size=4, scale=True)
    assert torch.allclose(scaled[:3, 0], expected[:3, 0] / (torch.tensor([1.0, 3.0, 8.0]).std() + 1e-4))
    assert torch.allclose(scaled[:2, 1], expected[:2, 1] / (torch.tensor([6.0, 2.0]).std() + 1e-4))
    assert scaled[0, 2] == 0  # alone


@pytest.mark.parametrize("scale", [False, True])
def test_equal_returns_have_an_advantage_of_exactly_0(scale):
    returns = torch.full((6, 1), 0.1)
    assert (losses.group_advantages(returns, torch.ones(6, 1), size=3, scale=scale) == 0).all()


def test_the_scale_is_that_of_the_group_or_of_the_update(tmp_path):
    plain, group, batch = (
        rows_of(tiny.cue_trainer(tmp_path, **GROUP, scale_rewards=scale)) for scale in ("none", "group", "batch")
    )
    for seat in tiny.SEATS:
        raw, scaled, whole = (
            torch.stack([r.advantages_K for r in rows if r.seat == seat]) for rows in (plain, group, batch)
        )
        assert torch.allclose(whole, raw / raw.std(correction=0), atol=1e-3)
        # minibatches keep the groups whole, in an order of their own: both of them are one after the other
        for of_group, raw_of_group in zip(scaled.split(4), raw.split(4), strict=True):
            deviation = raw_of_group.std(0, keepdim=True)
            assert torch.allclose(of_group, raw_of_group / (deviation + 1e-4), atol=1e-4)


def test_minibatches_keep_groups_whole(tmp_path):
    trainer = tiny.cue_trainer(tmp_path, advantage="group", num_generations=2, num_mini_batches=2)
    trainer.play(0)
    place = {id(row): (i // 2, seat) for i, rows in enumerate(trainer.rows) for seat, row in rows.items()}
    parts = [[place[id(row)] for row in trainer.minibatch(0, step, 0)[0]] for step in range(2)]
    assert all(part.count(of) == 2 for part in parts for of in part)
    assert sorted(parts[0] + parts[1]) == sorted(place.values())


def test_without_a_critic_none_is_made_saved_trained_or_reported(tmp_path):
    options = GROUP | {"num_updates": 2, "save_updates": 1, "kl_coef": 0.1}
    trainer, records = trained(tmp_path, **options)
    names = {*tiny.weights(trainer.model)}
    assert names and all("lora_" in name for name in names)
    assert load_file(tmp_path / "checkpoint-1" / "critics.safetensors") == {}
    assert [group["lr"] for group in trainer.optimizer.param_groups] == [trainer.args.learning_rate] * 2
    logged = {key for record in records for key in record}
    assert not any("value" in key or "explained" in key for key in logged)
    assert {"lost_groups", f"{A}/frac_zero_std", f"{A}/advantage_share/length", f"{A}/kl_to_reference"} <= logged
    before = tiny.weights(tiny.team(tiny.base_model(len(trainer.processing_class)), critic_seats=0))
    assert not same(tiny.weights(trainer.model), before, 1e-3)

    other = tiny.team(tiny.base_model(len(trainer.processing_class)), critic_seats=0, seed=99)
    resumed = tiny.cue_trainer(tmp_path, policy=other, callbacks=[log := Log()], **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    assert same(tiny.weights(trainer.model), tiny.weights(resumed.model))
    assert repeatable(log.updates) == repeatable(records[1:])


def test_without_a_critic_and_a_kl_nothing_is_asked_of_the_reference(tmp_path):
    trainer = tiny.cue_trainer(tmp_path, **GROUP)
    trainer.play(0)
    assert "seconds/reference" not in trainer.metrics.take()
    assert all(row.features_KF is None for rows in trainer.rows for row in rows.values())


SCRIPT = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
import tiny
from trained import Log, record_rank

folder = Path(sys.argv[1])
trainer = tiny.cue_trainer(
    folder / "run", callbacks=[log := Log()], advantage="group", num_generations=2, num_mini_batches=2, num_updates=2,
    scale_rewards="batch", env={"fault_every": 3}, optim="sgd", learning_rate=1.0,
)
trainer.train()
record_rank(folder, trainer, log)
"""


@pytest.mark.slow
def test_two_processes_do_what_one_does(tmp_path):
    (one,), (first, second) = (launch(SCRIPT, tmp_path / str(n), n) for n in (1, 2))
    assert first["weights"] == second["weights"]
    distance = [
        (torch.tensor(one["weights"][name]) - torch.tensor(weight)).abs().max()
        for name, weight in first["weights"].items()
    ]
    assert max(distance) < 1e-4
    for alone, together in zip(one["updates"], first["updates"], strict=True):
        assert alone == pytest.approx(together, rel=1e-3, abs=1e-3)
        assert 0 < alone["lost_groups"] < 1
    assert json.dumps(one["updates"][0]) != json.dumps(one["updates"][1])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["advantage=group", "num_generations=1"],
            "training.num_generations: 1 is refused: advantage='group' compares",
        ),
        (["scale_rewards=group"], "training.scale_rewards: 'group' has no effect with advantage='gae'"),
        (["advantage=group", "episodes_per_update=12"], "12 is no multiple of the 8 plays of each task"),
        (["num_generations=0"], "training.num_generations: 0 is refused"),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_line(overrides, message):
    with pytest.raises(ConfigError) as caught:
        load_config([], [f"training.{override}" for override in overrides])
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_arguments_refuse_what_a_configuration_does(tmp_path):
    with pytest.raises(ValueError, match=r"training\.num_generations: 1 is refused"):
        tiny.arguments(tmp_path, advantage="group", num_generations=1)
    with pytest.raises(ValueError, match=r"with 4 plays of each task together: use a multiple of 16"):
        tiny.cue_trainer(tmp_path, **GROUP, num_mini_batches=4)
