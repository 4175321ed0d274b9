"""A probe of an engine that runs a model of its own: does it sample from the weights that are trained?

Every adapter, and the base without one, is asked for a few tokens. The engine says with which log-probabilities it
sampled them, and the trainer scores the same tokens under each adapter. Other kernels and another precision make small
differences; the base shows how small. An engine that serves another adapter, or none, is nearer to what that would have
said than to its own, which neither a loss nor a ratio would tell from an adapter that has learned little. One with
another base, at another temperature or with a distribution that is cut off is far from all.

Axes in names: N sampled tokens of one adapter.
"""

from collections.abc import Hashable, Sequence
from itertools import product

import numpy as np
import torch
from torch import Tensor

from marl_coop.engines.base import Engine, EngineError, Generation, Request, check_reply
from marl_coop.engines.selftest import score_chats
from marl_coop.players import BASE
from marl_coop.policy.team import TeamPolicy

PROMPTS, PROMPT_TOKENS, TOKENS = 2, 16, 8
TEMPERATURE = 0.5  # far from 1: log-probabilities from before the temperature are not those from after it
MAX_GAP = 0.3  # nats per token, mean; bfloat16 and other kernels make a tenth of that
NOISE = 4.0  # times the base's gap, and adapters that are nearer to each other cannot be told apart


@torch.no_grad()
def check_parity(engine: Engine, policy: TeamPolicy, adapters: Sequence[str], copies: Sequence[str]) -> None:
    """See that every copy of an engine samples from each adapter as the trainer has it, and from the base.

    Args:
        engine: has nothing else to do, and was told of the adapters.
        policy: the trainer's model.
        adapters: those that the engine was told of.
        copies: what messages call each copy; new chats go to them in this order.

    Raises:
        EngineError: one does not; the message says which adapter, and what it looks like instead.
    """
    for copy, replies in zip(copies, _ask(engine, policy, adapters, copies), strict=True):
        _judge(copy, replies, adapters)


def _judge(
    copy: str, replies: dict[str | None, tuple[Tensor, dict[str | None, Tensor]]], adapters: Sequence[str]
) -> None:
    noise = 0.0
    for sampler in (BASE, *adapters):  # the base first: it has nothing but noise
        logprobs_N, scored = replies[sampler]
        gaps = {scorer: _distance(logprobs_N, scored_N) for scorer, scored_N in scored.items()}
        who = f"{copy} does not sample from what is trained: its replies of {_name(sampler)}"
        if not gaps[sampler] <= MAX_GAP:
            raise EngineError(
                f"{who} are {gaps[sampler]:.2g} nats per token from the trainer's (at most {MAX_GAP}). It has another "
                "base, precision or temperature, cuts off tokens, or gives log-probabilities from before the "
                "temperature"
            )
        if sampler is BASE:
            noise = gaps[BASE]
        apart = {scorer: _distance(scored[sampler], scored_N) for scorer, scored_N in scored.items()}
        nearest = min(gaps, key=lambda scorer: gaps[scorer])
        if apart[nearest] > NOISE * noise + 1e-4:
            raise EngineError(f"{who} are those of {_name(nearest)}")


def _ask(
    engine: Engine, policy: TeamPolicy, adapters: Sequence[str], copies: Sequence[str]
) -> list[dict[str | None, tuple[Tensor, dict[str | None, Tensor]]]]:
    """Of each copy, for each adapter and the base, its log-probabilities (N,) and those of the trainer under each."""
    rng, everyone = np.random.default_rng(0), (BASE, *adapters)
    vocabulary = policy.config.get_text_config().vocab_size
    prompts = rng.integers(vocabulary, size=(PROMPTS, PROMPT_TOKENS)).tolist()
    asked: dict[Hashable, tuple[Request, str]] = {}
    for adapter, (i, ids), (copy, who) in product(everyone, enumerate(prompts), enumerate(copies)):
        sampling = {"max_tokens": TOKENS, "temperature": TEMPERATURE, "stop_ids": frozenset(), "seed": i}
        request = Request(chat=("probe", adapter, i, copy), ids=ids, adapter=adapter, **sampling)
        engine.submit(request)
        asked[request.chat] = request, who
    done: dict[Hashable, Generation] = {}
    while len(done) < len(asked):
        for reply in engine.collect():
            request, who = asked[reply.chat]
            check_reply(request, reply, who)
            done[reply.chat] = reply
    found: list[dict[str | None, tuple[Tensor, dict[str | None, Tensor]]]] = [{} for _ in copies]
    for adapter, copy in product(everyone, range(len(copies))):
        replies = [(ids, done["probe", adapter, i, copy]) for i, ids in enumerate(prompts)]
        chats = [([*ids, *g.ids], list(enumerate(g.logprobs, start=len(ids)))) for ids, g in replies]
        scored = {scorer: score_chats(policy, [(scorer, *chat) for chat in chats], TEMPERATURE) for scorer in everyone}
        found[copy][adapter] = torch.tensor([logprob for _, g in replies for logprob in g.logprobs]), scored
    return found


def _distance(first_N: Tensor, second_N: Tensor) -> float:
    return float((first_N - second_N).abs().mean())


def _name(adapter: str | None) -> str:
    return "the base" if adapter is BASE else repr(adapter)
