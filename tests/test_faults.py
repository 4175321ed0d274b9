"""Faults in training are left out and counted; too many stop it, with a reason."""

from dataclasses import replace

import pytest
import tiny
import torch
from trained import Log, same

from marl_coop.engines import EngineError
from marl_coop.runs.rundir import TrainingError


def test_faults_up_to_the_rate_are_counted_and_training_goes_on(tmp_path):
    log = Log()
    tiny.cue_trainer(tmp_path, callbacks=[log], env={"fault_every": 3}, num_updates=3).train()
    rates = [record["team/sandbox_fault_rate"] for record in log.updates]
    assert len(rates) == 3 and 0 < max(rates) <= 0.5


@pytest.mark.parametrize(("every", "most"), [(1, 0.5), (3, 0.0)])
def test_an_update_with_more_faults_is_the_last_and_says_so(tmp_path, every, most):
    log = Log()
    trainer = tiny.cue_trainer(
        tmp_path, callbacks=[log], env={"fault_every": every}, max_fault_rate=most, num_updates=9
    )
    with pytest.raises(
        TrainingError, match=r"^\d+% of an update's episodes met a sandbox fault .*max_fault_rate: \d+%"
    ):
        trainer.train()
    assert log.updates[-1]["team/sandbox_fault_rate"] > most
    assert all(record["team/sandbox_fault_rate"] <= most for record in log.updates[:-1])


@pytest.mark.parametrize(("bad", "stops"), [({0, 1}, True), ({0}, False)])
def test_losses_that_are_not_finite_stop_training_where_they_are_most(tmp_path, bad, stops):
    log = Log()
    trainer = tiny.cue_trainer(tmp_path, callbacks=[log], num_updates=2, num_mini_batches=2)
    loss = trainer.loss
    trainer.loss = lambda *args: loss(*args) * (float("nan") if trainer.state.global_step in bad else 1.0)
    if stops:
        with pytest.raises(TrainingError, match="100% of an update's steps had a loss that is not finite"):
            trainer.train()
    else:
        trainer.train()
    assert [record["non_finite_losses"] for record in log.updates] == [len(bad)] + ([] if stops else [0])


def test_a_gradient_that_is_not_finite_changes_no_weight_and_is_counted(tmp_path):
    log = Log()
    trainer = tiny.cue_trainer(tmp_path, callbacks=[log], num_updates=2, num_mini_batches=2, episodes_per_update=4)
    before, seen = tiny.weights(trainer.model), []
    parameter = trainer.model.adapter_parameters("agent_0")[0]

    def spoil(gradient):
        seen.append(same(tiny.weights(trainer.model), before))
        return gradient * (float("nan") if trainer.state.global_step == 0 else 1.0)

    parameter.register_hook(spoil)
    trainer.train()
    assert seen[:3] == [True, True, False]  # nothing had changed after the first step
    assert [record["non_finite_losses"] for record in log.updates] == [1, 0]
    assert all(torch.isfinite(weight).all() for weight in tiny.weights(trainer.model).values())


def test_log_probabilities_of_the_engine_that_are_no_numbers_stop_training_with_the_reason(tmp_path):
    trainer = tiny.cue_trainer(tmp_path, num_updates=2)
    engine = trainer.players.engine
    collect = engine.collect
    engine.collect = lambda: [replace(reply, logprobs=[float("nan")] * len(reply.ids)) for reply in collect()]
    with pytest.raises(EngineError, match="gave a log-probability that is not finite for"):
        trainer.train()
