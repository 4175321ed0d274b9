"""The memory that a step of a model takes, counted without doing the step.

A model is made of shapes alone, on the meta device, and run as a fake (torch's `FakeTensorMode`): every operation says
which tensors it would make, and nothing is computed. What is alive is summed as it comes and goes, so a 70B model is
counted in seconds on a laptop, attention, checkpoints and all that autograd keeps included. What a kernel takes for
itself is not seen.

Axes in names: R rows, T positions, N sampled tokens.
"""

import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from marl_coop.policy.compat import (
    GROWTH,
    FakeTensorMode,
    SlotCache,
    TorchDispatchMode,
    attention_mask,
    layers_of,
    tree_leaves,
)
from marl_coop.policy.routed_lora import spans_of, unchanging_adapters
from marl_coop.policy.team import TeamPolicy


class LiveBytes(TorchDispatchMode):
    """Within it, the bytes of the tensors that operations make, for as long as they live.

    >>> with LiveBytes() as live:
    ...     kept = torch.zeros(250)
    ...     del kept
    ...     again = torch.zeros(100)
    >>> live.now, live.peak
    (400, 1000)

    Attributes:
        now: bytes of those that are alive.
        peak: the most at any time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: dict[int, int] = {}  # bytes of each storage, which keeps its identity while it is alive

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._count(leaf.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = id(storage)
        if key not in self._known:
            self._known[key] = storage.nbytes()
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.now -= self._known.pop(key)


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """Bytes of some tensors, each counted once."""
    return sum(tensor.numel() * tensor.element_size() for tensor in {id(t): t for t in tensors}.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """Bytes of a policy and of its steps.

    Attributes:
        base: the weights that are frozen; of these `layers` stand in the decoder's layers, and `layer` in the largest.
        trained: adapters and critics.
        cache_row: keys and values of a chat.
        prefix_row: of a chat, what is kept for learning of the frozen layers below the adapters; 0 where nothing is.
        feed: what reading all that is told, in a full batch, makes on top of the cache.
        score_row, score: a pass without gradients: what each chat of a micro-batch adds, and what does not depend on
            their number.
        learn_row, learn: the same of a pass with gradients, without the gradients of the weights.
        warm_row, warm: the same where all activations are kept, which learning may make again instead.
    """

    base: int
    layers: int
    layer: int
    trained: int
    cache_row: int
    prefix_row: int
    feed: int
    score_row: int
    score: int
    learn_row: int
    learn: int
    warm_row: int
    warm: int


def footprint(
    policy: TeamPolicy,
    *,
    rows: int,
    chat: int,
    told: int,
    written: int,
    checkpointing: Mapping[str, Any] | None = None,
) -> Footprint:
    """The footprint of a policy that was made on the meta device; afterwards its weights are fakes.

    Args:
        policy: made within `torch.device("meta")`.
        rows: chats in a batch while playing.
        chat: tokens of a chat.
        told: of these, what is read at once.
        written: of these, what was sampled.
        checkpointing: keywords by which learning checkpoints activations; None: it keeps them all.
    """
    frozen = [p for p in policy.parameters() if not p.requires_grad]
    trained = bytes_of(p for p in policy.parameters() if p.requires_grad)
    in_layers = [_frozen_bytes(layer) for layer in layers_of(policy.decoder)]
    base = bytes_of(frozen) + bytes_of(policy.buffers())
    with FakeTensorMode():
        _make_fake(policy)
        cache, feed, prefix = _played(policy, rows, chat, told)
        few = len(policy.adapters)  # each has a row, so that all have gradients

        def learned() -> list[int]:
            return [_peak(lambda n=n: _learn(policy, n, chat, written, prefix > 0)) for n in (few, 2 * few)]

        with torch.no_grad():
            score = [_peak(lambda n=n: _scored(policy, n, chat, written, prefix > 0)) for n in (few, 2 * few)]
        policy.train()  # else no activation is checkpointed
        warm = learn = learned()
        if checkpointing is not None:
            policy.activation_checkpointing_enable(dict(checkpointing))
            learn = learned()
        gradients = bytes_of(p.grad for p in policy.parameters() if p.grad is not None)
    score_row, learn_row, warm_row = ((more - less) // few for less, more in (score, learn, warm))
    return Footprint(
        base=base,
        layers=sum(in_layers),
        layer=max(in_layers),
        trained=trained,
        cache_row=cache // rows,
        prefix_row=prefix // rows,
        feed=feed,
        score_row=score_row,
        score=score[0] - few * score_row,
        learn_row=learn_row,
        learn=learn[0] - few * learn_row - gradients,
        warm_row=warm_row,
        warm=warm[0] - few * warm_row - gradients,
    )


def _make_fake(policy: TeamPolicy) -> None:
    """Put fakes in the place of what is on the meta device: where attention runs, not where nothing does."""
    made: dict[int, Tensor] = {}  # tied weights stay tied
    for module in policy.modules():
        for name, parameter in list(module.named_parameters(recurse=False, remove_duplicate=False)):
            fake = torch.nn.Parameter(_like(parameter), requires_grad=parameter.requires_grad)
            setattr(module, name, made.setdefault(id(parameter), fake))
        for name, buffer in list(module.named_buffers(recurse=False, remove_duplicate=False)):
            setattr(module, name, made.setdefault(id(buffer), _like(buffer)))


def _like(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype)


def _frozen_bytes(layer: torch.nn.Module) -> int:
    return bytes_of(p for p in layer.parameters() if not p.requires_grad)


def _peak(step: Callable[[], object]) -> int:
    with LiveBytes() as live:
        step()
    return live.peak


def _rows(policy: TeamPolicy, rows: int):
    return spans_of([policy.adapters[i * len(policy.adapters) // rows] for i in range(rows)])


@torch.no_grad()
def _played(policy: TeamPolicy, rows: int, chat: int, told: int) -> tuple[int, int, int]:
    """Bytes of the cache of full chats; of what else a full batch makes that reads `told` tokens and samples; of the
    prefixes of full chats."""
    policy.eval()
    cache, position_RT = SlotCache(), torch.arange(told).expand(rows, told)
    cache.reserve(position_RT, told)
    with unchanging_adapters(policy), LiveBytes() as live:
        hidden_RTH = policy.hidden(
            _rows(policy, rows),
            torch.zeros(rows, told, dtype=torch.long),
            position_ids=position_RT,
            attention_mask=attention_mask(policy.config, position_RT, cache.slots, policy.dtype),
            cache=cache,
            use_cache=True,
        )
        logits_RV = policy.logits(hidden_RTH[:, -1]) / torch.ones(rows, 1)
        logits_RV.log_softmax(-1).exp().cumsum(-1)
    prefix = 0 if policy.prefix_hidden_RTH is None else bytes_of([policy.prefix_hidden_RTH])
    policy.prefix_hidden_RTH = None
    slots = -(-chat // GROWTH) * GROWTH
    return cache.nbytes * slots // cache.slots, live.peak - cache.nbytes, prefix * chat // told


def _scored(policy: TeamPolicy, rows: int, chat: int, written: int, prefixed: bool):
    """The scores of full chats, as the reference pass and learning ask for them."""
    ids_RT = torch.zeros(rows, chat, dtype=torch.long)
    sampled = torch.arange(rows * written)
    prefix_hidden_RTH = None
    if prefixed:
        prefix_hidden_RTH = torch.zeros(rows, chat, policy.config.get_text_config().hidden_size, dtype=policy.dtype)
    rows_N, columns_N = sampled // written, sampled % written + (chat - written)
    told = {"attention_mask": torch.ones_like(ids_RT)}
    scores, _ = policy.score(_rows(policy, rows), ids_RT, told, rows_N, columns_N, 1.0, prefix_hidden_RTH)
    return scores


def _learn(policy: TeamPolicy, rows: int, chat: int, written: int, prefixed: bool) -> None:
    policy.zero_grad(set_to_none=True)
    _scored(policy, rows, chat, written, prefixed).logprobs_N.sum().backward()
