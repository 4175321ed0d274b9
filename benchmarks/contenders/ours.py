"""Ours: one update of `MultiAgentPPOTrainer`, as `marl-coop train` runs it."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import PrinterCallback

from contenders.common import Job, Played, Result, Stopwatch, load_experiment, peak_gib
from marl_coop.engines import Generation, Request
from marl_coop.engines.embedded import EmbeddedEngine
from marl_coop.experiment.experiment import Experiment
from marl_coop.ppo.trainer import MultiAgentPPOTrainer
from marl_coop.profiling import PhaseTotal, profiling


class RecordingEngine(EmbeddedEngine):
    """The embedded engine, and what it was asked and answered."""

    def __init__(self, policy, max_chats: int):
        super().__init__(policy, max_chats)
        self.played = Played()
        self._asked: dict[Any, list[int]] = {}

    def submit(self, request: Request) -> None:
        self._asked[request.chat] = list(request.ids)
        super().submit(request)

    def collect(self) -> list[Generation]:
        done = super().collect()
        for one in done:
            prompt = self._asked.pop(one.chat)
            self.played.replies[one.chat, len(prompt)] = prompt, list(one.ids), list(one.logprobs)
        return done


def one_update(job: Job, clock: Callable[[], float]) -> tuple[Experiment, MultiAgentPPOTrainer, Result, Played]:
    """An update, its phases by `clock`, and what was played."""
    experiment = load_experiment(job)
    experiment.args.max_steps = experiment.args.steps_per_update
    experiment.args.output_dir = str(job.folder / "run")
    experiment.warm_up()
    engine = RecordingEngine(experiment.policy, experiment.args.max_rows)
    engine.load_adapters(0)
    if not job.played.exists():
        for adapter in experiment.policy.adapters:
            experiment.policy.save_adapter(adapter, job.folder / adapter)
    trainer = experiment.make_trainer(engine)
    trainer.remove_callback(PrinterCallback)
    play, whole = Stopwatch(), Stopwatch()
    trainer.players.play = play.around(trainer.players.play)
    with profiling(clock) as profile, whole:
        trainer.train()
    engine.played.rows = [row for rows in trainer.rows for row in rows.values()]
    phases = {name: _plain(total) for name, total in profile.take().items()}
    played = engine.played
    result = Result(play.seconds, whole.minus(play), played.sampled, played.chat_tokens, peak_gib(), phases)
    return experiment, trainer, result, played


def _plain(total: PhaseTotal) -> tuple[float, int, int]:
    return total.seconds, total.calls, total.tokens


def run(job: Job) -> Result:
    """Raises RuntimeError where another process of ours played other tokens."""
    _, _, result, played = one_update(job, time.process_time)
    if not job.played.exists():
        played.save(job.played)
    elif (first := Played.load(job.played).replies) != played.replies:
        same = sum(first.get(key) == reply for key, reply in played.replies.items())
        raise RuntimeError(f"ours played other tokens than the first time: {same} of {len(first)} replies are the same")
    return result


def count(job: Job) -> dict[str, float]:
    """Floating-point operations of the matrix products of an update by phase, padding and recomputation included."""
    aten = torch.ops.aten
    of_attention = {
        aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops(products=2),
        aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_flops(products=5),
    }
    with FlopCounterMode(display=False, custom_mapping=of_attention) as counter:
        _, _, result, _ = one_update(job, counter.get_total_flops)
    return {name: flops for name, (flops, _, _) in result.phases.items()}


def _attention_flops(products: int):
    """Of a kernel that does so many products of (queries, size) with (size, keys); the backward one makes the scores
    once more."""

    def flops(*shapes: Any, out_shape: Any = None, **_: Any) -> int:
        query, key = shapes[0:2] if products == 2 else shapes[1:3]
        rows, heads, queries, size = query
        return products * 2 * rows * heads * queries * key[2] * size

    return flops
