"""A self-test of a base model: what is sampled and what is learned must be the distribution of its own forward.

Architectures differ in what their attention sees, where they put positions and what their heads do to logits, and an
error there shows in no loss and no ratio. So before a run random tokens go through the real model in all three ways, in
ragged chats over two turns, with every adapter and without one, and in one chat that is as long as any of the run:
windows, sparse attention and positions that are scaled by length do nothing in a short one. What learns is asked as it
is while it trains, when dropout and noise of routers would show.

Axes in names: R rows, T positions, N sampled tokens.
"""

from collections.abc import Sequence

import numpy as np
import torch
from peft import LoraConfig
from torch import Tensor
from transformers import PreTrainedModel

from envs.core.fields import ArgumentError
from envs.core.tokens import one_line
from marl_coop.engines import Request
from marl_coop.engines.embedded import EmbeddedEngine
from marl_coop.players import BASE
from marl_coop.policy.layout import lay_out
from marl_coop.policy.routed_lora import Routing, spans_of
from marl_coop.policy.team import TeamPolicy

FINE = 1e-3  # nats, of any token
COARSE = 0.2  # nats, in the mean, of half precision and of 4 bits: another shape of the same product rounds otherwise
TURNS, TOKENS, NOISE = 2, 4, 0.05


def check_model(
    base: PreTrainedModel, lora: LoraConfig, adapters: Sequence[str], longest: int, padding_free: bool = False
) -> None:
    """See that a model can be sampled from and trained; it comes back as it was.

    Args:
        base: a causal language model.
        lora: shape of the adapters.
        adapters: their names.
        longest: tokens that a chat of the run may come to.
        padding_free: whether learning lays chats in one row.

    Raises:
        ArgumentError: it cannot; the message is one line that says what differs, and `loc` the argument that is to be
            another, or "attn_implementation" of the base.
    """
    name = base.config.name_or_path or base.config.model_type
    try:
        policy = TeamPolicy(base, lora, adapters, critic_seats=1)
    except (ValueError, TypeError, AttributeError, KeyError, StopIteration) as error:
        loc = error.loc if isinstance(error, ArgumentError) else ("lora",)
        raise ArgumentError(f"{name} cannot carry these adapters: {_described(error)}", loc) from error
    try:
        _check(policy.eval(), longest, padding_free, np.random.default_rng(0))
    except ValueError as error:
        loc = error.loc if isinstance(error, ArgumentError) else ("base",)
        raise ArgumentError(f"{name}: {error}", loc) from error
    finally:
        policy.unload()


@torch.no_grad()
def _check(policy: TeamPolicy, longest: int, padding_free: bool, rng: np.random.Generator) -> None:
    for adapter in policy.adapters:  # a fresh adapter does nothing, and what does nothing cannot be told from nothing
        for weight in policy.adapter_parameters(adapter, "B"):
            weight.copy_(torch.from_numpy(rng.normal(scale=NOISE, size=tuple(weight.shape))))
    adapters = [*policy.adapters, BASE, *policy.adapters]
    chats, own_N = _compared(policy, adapters, [1 + 2 * i for i in range(len(adapters))], padding_free, rng)
    bare_N = _own(policy, [(BASE, ids, sampled) for _, ids, sampled in chats])
    for adapter in policy.adapters:
        own = torch.tensor([a == adapter for a, _, sampled in chats for _ in sampled])
        if torch.equal(own_N[own], bare_N[own]):
            raise ArgumentError(f"adapter {adapter!r} changes nothing: see lora.target_modules", ("lora",))
    _compared(policy, adapters[:1], [max(1, longest // (TURNS + 1) - TOKENS)], padding_free, rng)


Chat = tuple[str | None, list[int], list[tuple[int, float]]]  # adapter, ids, places and log-probs of what was sampled


def _compared(
    policy: TeamPolicy,
    adapters: Sequence[str | None],
    told: Sequence[int],
    padding_free: bool,
    rng: np.random.Generator,
) -> tuple[list[Chat], Tensor]:
    """Chats that are played, and the log-probabilities (N,) of what was sampled in them.

    Raises:
        ValueError: engine, learner and the model's own forward do not agree on these.
    """
    chats = _try(lambda: _play(policy, adapters, told, rng), "sampling from it fails")
    own_N = _try(lambda: _own(policy, chats), "its own forward fails")
    fine = policy.dtype in (torch.float32, torch.float64) and not policy.quantized
    engine_N = torch.tensor([logprob for *_, sampled in chats for _, logprob in sampled])
    learner_N = _try(lambda: score_chats(policy.train(), chats, 1.0, padding_free), "learning from it fails")
    policy.eval()
    for what, found_N in (("the engine samples from", engine_N), ("the learner scores", learner_N)):
        off_N = (found_N - own_N).abs()
        off, tolerance = (float(off_N.max()), FINE) if fine else (float(off_N.mean()), COARSE)
        if not off <= tolerance:
            length = max(len(ids) for _, ids, _ in chats)
            raise ValueError(
                f"{what} a distribution that is {off:.2g} nats off the model's own forward (allowed: {tolerance:g}) in "
                f"a chat of {length} tokens; this architecture is not supported"
            )
    return chats, own_N


def _play(
    policy: TeamPolicy, adapters: Sequence[str | None], told: Sequence[int], rng: np.random.Generator
) -> list[Chat]:
    """Chats of random tokens, sorted by adapter; each is told as many before and after every turn as `told` says."""
    engine, vocabulary = EmbeddedEngine(policy), policy.config.get_text_config().vocab_size
    ids = [rng.integers(vocabulary, size=tokens).tolist() for tokens in told]
    sampled: list[list[tuple[int, float]]] = [[] for _ in adapters]
    names: list[object] = [*range(len(adapters))]
    for turn in range(TURNS):
        for i, adapter in enumerate(adapters):
            request = {"stop_ids": frozenset(), "temperature": 1.0, "max_tokens": TOKENS - (i + turn) % 2, "seed": i}
            engine.submit(Request(chat=i, ids=ids[i], adapter=adapter, **request))
        for reply in engine.collect():
            i = names.index(reply.chat)
            places = range(len(ids[i]), len(ids[i]) + len(reply.ids))
            sampled[i] += zip(places, reply.logprobs, strict=True)
            ids[i] = [*ids[i], *reply.ids, *rng.integers(vocabulary, size=told[i]).tolist()]
    return sorted(zip(adapters, ids, sampled, strict=True), key=lambda chat: str(chat[0]))


def _own(policy: TeamPolicy, chats: Sequence[Chat]) -> Tensor:
    """Log-probabilities (N,) of the sampled tokens by the model's own forward, each chat alone and without a cache."""
    found = []
    for adapter, ids, sampled in chats:
        with Routing(spans_of([adapter])):
            ids_1T = torch.tensor([ids], device=policy.device)
            logits_TV = policy.lm.get_base_model()(input_ids=ids_1T, use_cache=False).logits[0]
        places = [place for place, _ in sampled]
        logprobs_NV = logits_TV[[place - 1 for place in places]].float().log_softmax(-1)
        found += [float(logprob_V[ids[place]]) for logprob_V, place in zip(logprobs_NV, places, strict=True)]
    return torch.tensor(found)


def score_chats(policy: TeamPolicy, chats: Sequence[Chat], temperature: float, padding_free: bool = False) -> Tensor:
    """Log-probabilities (N,) of the sampled tokens as learning scores them: all chats, sorted by adapter, in one
    batch."""
    laid = lay_out([ids for _, ids, _ in chats], 0, policy.device, padding_free)
    places = [
        (row, column + place)
        for (row, column), (*_, sampled) in zip(laid.places, chats, strict=True)
        for place, _ in sampled
    ]
    rows_N, columns_N = torch.tensor(places, device=policy.device).T
    spans = laid.spans([adapter for adapter, *_ in chats])
    scores, _ = policy.score(spans, laid.input_ids_RT, laid.told, rows_N, columns_N, temperature)
    return scores.logprobs_N.cpu()


def _try(step, what: str):
    """The step's result. A model of another kind can fail in any way, so whatever it raises is told in one line."""
    try:
        return step()
    except Exception as error:
        loc = error.loc if isinstance(error, ArgumentError) else ("base",)
        raise ArgumentError(f"{what}: {_described(error)}; this architecture is not supported", loc) from error


def _described(error: BaseException) -> str:
    return one_line(f"{type(error).__name__}: {error}")[:300]
