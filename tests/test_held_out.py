"""Evaluation while training: it changes nothing that is learned, and the best checkpoint stays."""

import json

import pytest
import tiny
import torch
from trained import Log, repeatable

from envs.core.seeds import Stream, task_seed
from marl_coop.experiment.callbacks import HeldOut
from marl_coop.runs import rundir
from marl_coop.runs.checkpoints import all_checkpoints, whole_checkpoints
from rewards.metrics import rates

OPTIONS = {"num_updates": 3, "num_mini_batches": 2, "save_updates": 1, "save_total_limit": 1}


def held_out(folder, values=None, every=1, say=print, **options):
    """A trainer that evaluates every so many updates; its J is given by `values`, and else what was played."""
    trainer = tiny.cue_trainer(folder, callbacks=[log := Log()], **(OPTIONS | options))
    seeds = [task_seed(Stream.VALIDATION, 0, i) for i in range(4)]

    def measure(update):
        state = torch.get_rng_state()
        found = rates([rollout.episode for rollout in trainer.players.play(seeds, sampling_seed=0)])
        assert torch.equal(torch.get_rng_state(), state)
        return {"success": found["success"], "j": values[update - 1]} if values else {"success": found["success"]}

    trainer.add_callback(HeldOut(trainer, measure, every=every, metric="j", say=say))
    return trainer, log


def names(folder):
    return [path.name for path in all_checkpoints(folder)]


def test_an_evaluation_changes_nothing_that_is_learned(tmp_path):
    plain = tiny.cue_trainer(tmp_path / "plain", callbacks=[expected := Log()], **OPTIONS)
    plain.train()
    trainer, log = held_out(tmp_path / "held")
    trainer.train()
    found = [{k: v for k, v in r.items() if not k.startswith("eval/")} for r in repeatable(log.updates)]
    assert found == repeatable(expected.updates)
    assert all("eval/success" in record and "seconds/eval" in record for record in log.updates)
    weights = tiny.weights(plain.model)
    assert all(torch.equal(weights[name], value) for name, value in tiny.weights(trainer.model).items())


def test_the_best_checkpoint_stays_however_old_it_gets(tmp_path):
    trainer, _ = held_out(tmp_path, [0.1, 0.5, 0.3, 0.5, 0.2], num_updates=5)
    trainer.train()
    assert names(tmp_path) == ["checkpoint-4", "checkpoint-10"]
    best = json.loads((tmp_path / "best.json").read_text())
    assert best == {"checkpoint": "checkpoint-4", "update": 2, "metric": "j", "value": 0.5}
    rundir.record_start(tmp_path, "held", "", seed=0)
    assert rundir.saved_policy(tmp_path, "best") == tmp_path / "checkpoint-4"


def test_the_best_is_saved_where_no_checkpoint_was_due(tmp_path):
    trainer, _ = held_out(tmp_path, [0.1, 0.5, 0.3], save_updates=3)
    trainer.train()
    assert names(tmp_path) == ["checkpoint-4", "checkpoint-6"]
    assert len(whole_checkpoints(tmp_path)) == 2


def test_a_resumed_run_knows_the_best(tmp_path):
    held_out(tmp_path, [0.1, 0.5, 0.3], num_updates=3)[0].train()
    trainer, _ = held_out(tmp_path, [0.0, 0.0, 0.0, 0.4, 0.2], num_updates=5)
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-6"))
    assert names(tmp_path) == ["checkpoint-4", "checkpoint-10"]
    assert json.loads((tmp_path / "best.json").read_text())["update"] == 2


def test_a_run_that_goes_on_without_evaluations_keeps_its_best_checkpoint(tmp_path):
    held_out(tmp_path, [0.1, 0.5, 0.3], num_updates=3)[0].train()
    trainer, log = held_out(tmp_path, every=0, num_updates=5)
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-6"))
    assert names(tmp_path) == ["checkpoint-4", "checkpoint-10"]
    assert not [name for record in log.records for name in record if name.startswith("eval/")]


def test_a_run_that_goes_on_from_before_its_best_forgets_that(tmp_path):
    held_out(tmp_path, [0.1, 0.5, 0.3], num_updates=3, save_total_limit=None)[0].train()
    trainer, _ = held_out(tmp_path, every=0, num_updates=3, save_total_limit=None)
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert json.loads((tmp_path / "best.json").read_text())["update"] == 1


def test_a_best_checkpoint_that_is_gone_is_said_once_and_another_takes_its_place(tmp_path):
    """The third was the best when the run went on from the second, beside which the first, the best then, had gone."""
    held_out(tmp_path, [0.5, 0.3, 0.9], num_updates=3, save_total_limit=2)[0].train()
    assert names(tmp_path) == ["checkpoint-4", "checkpoint-6"]
    trainer, _ = held_out(tmp_path, [0.0, 0.0, 0.1, 0.4], num_updates=4, say=(said := []).append)
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert said == ["the best checkpoint until here, checkpoint-2, is gone: the best of those to come stays"]
    assert json.loads((tmp_path / "best.json").read_text())["checkpoint"] == "checkpoint-8"
    rundir.record_start(tmp_path, "held", "", seed=0)
    assert rundir.saved_policy(tmp_path, "best") == tmp_path / "checkpoint-8"


def test_a_metric_that_is_never_defined_has_no_best(tmp_path):
    trainer, _ = held_out(tmp_path)
    trainer.train()
    assert names(tmp_path) == ["checkpoint-6"]
    rundir.record_start(tmp_path, "held", "", seed=0)
    with pytest.raises(rundir.RunError, match="has no best checkpoint: no evaluation while it trained gave a value"):
        rundir.saved_policy(tmp_path, "best")
