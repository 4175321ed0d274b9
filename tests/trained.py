"""Tiny trainers that have trained, what they logged, and the rows that they learned from."""

import json

import tiny
import torch
from transformers import TrainerCallback

SGD = {"optim": "sgd", "learning_rate": 1.0, "critic_learning_rate": 1.0}


class Log(TrainerCallback):
    """Keeps what callbacks are told."""

    def __init__(self):
        self.records = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.records.append(dict(logs))

    @property
    def updates(self):
        return [record for record in self.records if "update" in record]


def trained(folder, **options):
    """A trainer after training, and the records of its updates."""
    trainer = tiny.cue_trainer(folder, callbacks=[log := Log()], **options)
    trainer.train()
    return trainer, log.updates


def same(first, second, tolerance=0.0):
    assert first.keys() == second.keys()
    return all(torch.allclose(first[name], second[name], rtol=0, atol=tolerance) for name in first)


def rows_of(trainer, update=0):
    """The one minibatch of an update: all its episodes."""
    assert trainer.args.num_mini_batches == 1
    trainer.play(update)
    return trainer.minibatch(update, 0, 0)[1]


def nudge(policy, size=0.02, seed=7):
    """A small step of the adapters, so that ratios are not 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for adapter in policy.adapters:
            for parameter in policy.adapter_parameters(adapter):
                parameter.add_(size * torch.randn(parameter.shape, generator=generator))
        for parameter in policy.critics.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))


def repeatable(records):
    """Records without what depends on the machine."""
    return [{k: v for k, v in r.items() if not k.startswith(("seconds/", "memory"))} for r in records]


def record_rank(folder, trainer, log):
    """Write what one of some processes ended with where `processes.launch` reads it."""
    weights = {name: weight.tolist() for name, weight in tiny.weights(trainer.model).items()}
    record = {"weights": weights, "updates": repeatable(log.updates)}
    (folder / f"rank-{trainer.args.process_index}.json").write_text(json.dumps(record))
