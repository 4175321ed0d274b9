"""Play as one does it with PEFT and `generate`: an agent and a turn at a time, `set_adapter` between the agents.

What is sampled is what ours sampled: a logits processor leaves one token to choose from. So prompts are the same, and
so are the lengths of replies, which decide over the time.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import LogitsProcessor, StoppingCriteria

from contenders.common import Job, Played, Result, Stopwatch, load_experiment, peak_gib, play_first
from marl_coop.engines import Generation, Request
from marl_coop.experiment import setup
from marl_coop.rollout.runner import RolloutRunner


class Forced(LogitsProcessor):
    """Leaves each row the next token of its reply alone."""

    def __init__(self, replies: Sequence[list[int]], prompt: int, pad: int):
        self.replies, self.prompt, self.pad = replies, prompt, pad

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        step = input_ids.shape[1] - self.prompt
        tokens = [reply[step] if step < len(reply) else self.pad for reply in self.replies]
        only = torch.full_like(scores, -torch.inf)
        return only.scatter_(1, torch.tensor(tokens, device=scores.device)[:, None], 0.0)


class Ended(StoppingCriteria):
    """A row ends with its reply."""

    def __init__(self, replies: Sequence[list[int]], prompt: int):
        self.lengths, self.prompt = torch.tensor([len(reply) for reply in replies]), prompt

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: Any) -> Tensor:
        return (input_ids.shape[1] - self.prompt >= self.lengths).to(input_ids.device)


class GenerateEngine:
    """An engine that calls `generate` for the rows of each adapter.

    Args:
        model: whose adapters have the names that requests name; with one adapter alone, all rows go through that.
        played: what ours was asked and answered. Another prompt is an error.
        rows_at_once: of a call.
    """

    max_chats = None

    def __init__(self, model: Any, played: Played, rows_at_once: int, pad: int):
        self.model, self.played, self.rows_at_once, self.pad = model, played, rows_at_once, pad
        self._pending: list[Request] = []
        self.tokens = 0

    def submit(self, request: Request) -> None:
        self._pending.append(request)

    def collect(self) -> list[Generation]:
        requests, self._pending = self._pending, []
        several = len(self.model.peft_config) > 1 and any(r.adapter in self.model.peft_config for r in requests)
        adapters = sorted({request.adapter for request in requests if request.adapter}) if several else [None]
        done: list[Generation] = []
        for adapter in adapters:
            if adapter:
                self.model.set_adapter(adapter)
            mine = [request for request in requests if adapter in (None, request.adapter)]
            for start in range(0, len(mine), self.rows_at_once):
                done += self._generate(mine[start : start + self.rows_at_once])
        return done

    @torch.no_grad()
    def _generate(self, requests: list[Request]) -> list[Generation]:
        known = [self.played.reply(request.chat, request.ids) for request in requests]
        replies, width = [reply for reply, _ in known], max(len(request.ids) for request in requests)
        ids_RT = torch.tensor([[self.pad] * (width - len(r.ids)) + r.ids for r in requests])
        mask_RT = torch.tensor([[0] * (width - len(r.ids)) + [1] * len(r.ids) for r in requests])
        out_RT = self.model.generate(
            input_ids=ids_RT,
            attention_mask=mask_RT,
            do_sample=True,
            temperature=requests[0].temperature,
            top_k=0,
            max_new_tokens=max(map(len, replies)),
            eos_token_id=None,
            pad_token_id=self.pad,
            logits_processor=[Forced(replies, width, self.pad)],
            stopping_criteria=[Ended(replies, width)],
        )
        given = [row[width : width + len(reply)].tolist() for row, reply in zip(out_RT, replies, strict=True)]
        if given != replies:
            raise RuntimeError("generate gave other tokens than the ones that it had to choose from")
        self.tokens += sum(map(len, replies))
        return [
            Generation(chat=r.chat, ids=ids, logprobs=logprobs, finish_reason=r.ending(ids), version=0)
            for r, (ids, logprobs) in zip(requests, known, strict=True)
        ]

    def load_adapters(self, version: int) -> None:
        """The model's are the ones."""

    def reset_cache(self) -> None:
        self._pending = []

    def sleep(self) -> None:
        """`generate` keeps nothing."""


def load_peft(job: Job, adapters: Sequence[str], name: str | None = None):
    """The base with the adapters that ours began with; `name` renames a single one. Attention is the model's own
    default."""
    experiment = load_experiment(replace(job, overrides=(*job.overrides, "model.attn_implementation=null")))
    first, *others = adapters
    model: Any = experiment.base  # the only one, as ours has no other
    model = PeftModel.from_pretrained(model, str(job.folder / first), adapter_name=name or first, is_trainable=True)
    for adapter in others:
        model.load_adapter(str(job.folder / adapter), adapter, is_trainable=True)
    return experiment, model


def make_runner(experiment: Any, engine: GenerateEngine) -> RolloutRunner:
    """Plays the environment of the experiment."""
    args, config = experiment.args, experiment.config
    players = setup.make_players(config, experiment.env, args)
    return RolloutRunner(config.make_env, players, engine, experiment.chat, args.max_tokens, args.temperature)


def run(job: Job, episodes: int | None = None, rows_at_once: int = 1000) -> Result:
    """Args:
    episodes: the first so many; None: all of an update.
    rows_at_once: prompts of a call.
    """
    experiment, model = load_peft(job, ("agent_0", "agent_1"))
    model.eval()
    engine = GenerateEngine(model, Played.load(job.played), rows_at_once, experiment.chat.eos)
    runner = make_runner(experiment, engine)
    with Stopwatch() as watch:
        play_first(runner, experiment.config.seed, episodes or experiment.args.episodes_per_update)
    return Result(play=watch.seconds, play_tokens=engine.tokens, peak_gib=peak_gib())
