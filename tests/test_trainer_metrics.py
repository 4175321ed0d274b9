"""What is logged and watched while training: numbers with the right cases, and runs that go wrong in silence."""

import dataclasses
import logging

import pytest
import tiny
import torch
from trained import Log, trained
from transformers import TrainerCallback

from envs.core.episode import Phase
from envs.scripted.exploits import AlwaysDefer
from marl_coop.engines.embedded import EmbeddedEngine
from marl_coop.players import BASE

A, B = tiny.SEATS


def tiny_policy(**options):
    return tiny.team(tiny.base_model(len(tiny.word_tokenizer(tiny.WORDS))), **options)


class EndsWhenSilent(tiny.CueTask):
    """The talk is over once agent_0 has said nothing."""

    def resolve(self, turns):
        if self.phase is Phase.TALK and not turns[A].message:
            self._schedule = (*self._schedule[: self._step + 1], Phase.FINAL)
        return turns


def test_a_silent_replay_may_end_before_the_messages_that_it_is_compared_with(tmp_path, monkeypatch):
    monkeypatch.setattr(tiny, "CueTask", EndsWhenSilent)
    trainer = tiny.cue_trainer(tmp_path, env={"rounds": 3}, advantage="counterfactual", gamma=0.9)
    trainer.play(0)
    assert max(len(rows[A].trace.turns) for rows in trainer.rows) == 5  # a replay has three turns
    for rows in trainer.rows:
        baselines = rows[A].baseline_K[1:-1]  # of the messages
        assert not baselines.isnan().any()
        assert (baselines[1:] == baselines[-1]).all()  # from its last turn on, each is compared with the end
    trainer.train()


class Watches(tiny.CueTask):
    """agent_1 never has a turn."""

    @property
    def acting(self):
        return (A,) if self.agents else ()

    def finish(self, turns):
        return super().finish({A: turns[A], B: turns[A]})


@pytest.mark.parametrize("critic", ["central", "local"])
def test_a_seat_without_a_turn_is_played_beside_and_learns_nothing(tmp_path, monkeypatch, critic):
    monkeypatch.setattr(tiny, "CueTask", Watches)
    policy = tiny_policy(critic_seats=2 if critic == "central" else 1)
    before = tiny.weights(policy)
    _, records = trained(tmp_path, policy=policy, advantage="counterfactual", critic=critic, num_updates=2, kl_coef=0.1)
    moved = {name for name, weights in tiny.weights(policy).items() if not torch.equal(weights, before[name])}
    assert moved and not any(f".{B}." in name for name in moved)
    assert all(record[f"{A}/ratio"] == pytest.approx(1, abs=0.5) for record in records)


class Speaks(tiny.CueTask):
    """agent_0 has one turn of talk more than agent_1; every third task ends in a fault."""

    @property
    def acting(self):
        return (A,) if self.phase is Phase.TALK and len(self.turns) == 2 else super().acting


def test_the_credit_of_messages_is_the_mean_over_those_that_were_sent_and_count(tmp_path, monkeypatch):
    monkeypatch.setattr(tiny, "CueTask", Speaks)
    trainer = tiny.cue_trainer(tmp_path, env={"rounds": 2, "fault_every": 3}, advantage="counterfactual", gamma=0.9)
    trainer.play(0)
    found = trainer.metrics.take()
    for seat in tiny.SEATS:
        credits = []
        for rows in trainer.rows:
            row, later = rows[seat], 0.0
            for k in reversed(range(len(row.rewards_K))):
                later = float(row.rewards_K[k]) + 0.9 * later
                if row.trainable and not row.baseline_K[k].isnan():
                    credits.append(later - float(row.baseline_K[k]))
        assert found[f"{seat}/message_credit"] == pytest.approx(sum(credits) / len(credits), abs=1e-5)


def test_the_logged_reward_is_the_mean_over_the_episodes_without_a_fault(tmp_path):
    trainer = tiny.cue_trainer(tmp_path, env={"fault_every": 3})
    trainer.play(0)
    found = trainer.metrics.take()
    for seat in tiny.SEATS:
        paid = [float(rows[seat].rewards_K.sum()) for rows in trainer.rows if rows[seat].trainable]
        assert 0 < len(paid) < len(trainer.rows)
        assert found[f"{seat}/reward"] == pytest.approx(sum(paid) / len(paid))


def test_rates_of_seats_beside_a_partner_are_those_of_the_learner(tmp_path):
    """agent_1 always gives in, so over both seats its CDR and CR of 1 would be counted in."""
    played = []
    trainer = tiny.cue_trainer(
        tmp_path,
        policies={A: A, B: AlwaysDefer()},
        episodes_per_update=32,
        on_rollouts=lambda update, episodes, *_: played.extend(episodes),
    )
    trainer.play(0)
    found = trainer.metrics.take()
    told_right = [e for e in played if e.task.cell[A] and not e.task.cell[B]]
    gave_in = [e for e in told_right if e.committed(A, "colour") != e.task.decisions[0].best]
    assert found["team/cr"] == len(gave_in) / len(told_right)
    assert found["team/j_cases"] == min(len(told_right), sum(e.task.cell[B] and not e.task.cell[A] for e in played))


def test_of_several_adapters_each_has_rates_of_its_own_where_it_learns(tmp_path):
    played = []
    options = {"episodes_per_update": 32, "alternate_updates": 1}
    trainer = tiny.cue_trainer(tmp_path, on_rollouts=lambda update, episodes, *_: played.append(episodes), **options)
    for update, learner, other in ((0, A, B), (1, B, A)):
        trainer.play(update)
        found = trainer.metrics.take()
        told_right = [e for e in played[update] if e.task.cell[learner] and not e.task.cell[other]]
        gave_in = [e for e in told_right if e.committed(learner, "colour") != e.task.decisions[0].best]
        assert found[f"by/{learner}/cr"] == len(gave_in) / len(told_right)
        assert found[f"by/{learner}/j"] == pytest.approx(found[f"by/{learner}/cdr"] - found[f"by/{learner}/cr"])
        assert not {f"by/{other}/j", f"by/{other}/cdr", f"by/{other}/cr"} & found.keys()


def test_one_adapter_in_all_seats_has_the_rates_of_the_team(tmp_path):
    trainer = tiny.cue_trainer(tmp_path, policy=tiny_policy(adapters=[A]), policies={A: A, B: A})
    trainer.play(0)
    assert not any(name.startswith("by/") for name in trainer.metrics.take())


def test_a_metric_of_tokens_weighs_micro_batches_by_their_tokens(tmp_path):
    """Of four micro-batches one has faults alone: it is no 0."""
    options = {"env": {"fault_every": 4}, "episodes_per_update": 4, "kl_coef": 0.1}
    _, (whole,) = trained(tmp_path / "whole", **options)
    _, (parts,) = trained(tmp_path / "parts", **options, gradient_accumulation_steps=4)
    for seat in tiny.SEATS:
        assert parts[f"{seat}/ratio"] == pytest.approx(1, abs=1e-3)
        for name in ("entropy", "policy_loss", "value_loss", "kl_to_reference"):
            assert parts[f"{seat}/{name}"] == pytest.approx(whole[f"{seat}/{name}"], rel=1e-4, abs=1e-6)


class Steps(TrainerCallback):
    """Keeps the weights and the rate of each step."""

    def __init__(self):
        self.weights, self.rates = [], []

    def on_pre_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
        self.rates.append(optimizer.param_groups[0]["lr"])

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.weights.append(tiny.weights(model))


def test_an_adapter_that_nobody_used_in_an_update_does_not_move(tmp_path):
    """Adam's momentum of the first update, in which both learned, would move it in the second."""

    class BaseTakesOver(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            trainer.players.policies = {A: A, B: BASE}

    steps = Steps()
    trainer = tiny.cue_trainer(tmp_path, callbacks=[steps, BaseTakesOver()], num_updates=2, weight_decay=0.1)
    trainer.train()
    first, second = steps.weights
    start = tiny.weights(tiny_policy())
    same = {name for name in first if torch.equal(first[name], second[name])}
    assert all((name in same) == (f".{B}." in name) for name in first)
    assert any(not torch.equal(first[name], start[name]) for name in same)


def test_a_warm_up_of_the_rate_begins_above_0_and_ends_where_it_would(tmp_path):
    steps = Steps()
    options = {"lr_scheduler_type": "linear", "warmup_steps": 2, "learning_rate": 1e-2, "num_updates": 6}
    tiny.cue_trainer(tmp_path, callbacks=[steps], **options).train()
    assert steps.rates == pytest.approx([0.005, 0.01, 0.01, 0.0075, 0.005, 0.0025])


def test_an_engine_that_samples_from_another_distribution_ends_the_run(tmp_path):
    class Hot(EmbeddedEngine):
        def submit(self, request):
            super().submit(dataclasses.replace(request, temperature=5 * request.temperature))

    policy = tiny_policy()
    with pytest.raises(RuntimeError, match=r"agent_0's replies are \d\.\d\d nats from those of the engine .* Hot") as e:
        tiny.cue_trainer(tmp_path, policy=policy, engine=Hot(policy, 64)).train()
    assert "\n" not in str(e.value)


def test_the_gap_to_what_sampled_is_measured_before_the_adapters_move(tmp_path):
    _, records = trained(tmp_path, num_updates=2, num_ppo_epochs=3, learning_rate=0.05)
    for record in records:
        assert record[f"{A}/sampling_gap"] == pytest.approx(0, abs=1e-4)
        assert record[f"{A}/approx_kl"] > 1e-3


@pytest.mark.parametrize(("rate", "warned"), [(1e-30, True), (1e-2, False)])
def test_an_adapter_that_computes_what_the_base_does_is_told_of(tmp_path, caplog, rate, warned):
    with caplog.at_level(logging.WARNING, logger="marl_coop"):
        tiny.cue_trainer(tmp_path, policy=tiny_policy(trained=False), num_updates=3, learning_rate=rate).train()
    told = [record.message for record in caplog.records if "just what the base does" in record.message]
    assert [message.split()[0] for message in told] == ([A, B] if warned else [])


def test_cut_replies_are_counted(tmp_path):
    trainer = tiny.cue_trainer(tmp_path, callbacks=[log := Log()])
    trainer.train()
    turns = [turn for rows in trainer.rows for row in rows.values() for turn in row.trace.turns]
    cut = sum(turn.finish_reason == "length" for turn in turns) / len(turns)
    assert log.updates[0]["team/truncation_rate"] == pytest.approx(cut) and 0 < cut < 1
