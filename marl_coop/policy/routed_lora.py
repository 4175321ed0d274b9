"""Routed LoRA: the rows of one batch, each through its own adapter.

The rows are sorted by adapter (where all chats stand in one row, its positions are), and every adapted layer adds
`B_a(A_a(x)) * scale_a` of the row's own adapter a to the frozen layer's output (LoRA, arXiv 2106.09685, equation 3;
scale_a is alpha / r, or alpha / sqrt(r) for rsLoRA). So the rows of all agents go through one forward and one backward,
and nothing is switched in between. PEFT can mix adapters in a batch too, but only without gradients.

Which rows are whose stands in a context variable while a forward runs. Gradient checkpointing runs layers once more
in the backward, when other batches may have been routed since: `checkpoint_contexts` brings the routing back.

Axes in names: R rows, T positions, I and O what a layer takes and gives.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar, Token
from typing import Any, NamedTuple, cast

import torch
from peft import LoraConfig
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from marl_coop.policy.compat import LoraLinear, writable


class Span(NamedTuple):
    """Rows `start` to `stop` of a batch, or positions of its only row, go through `adapter` (None: through the base
    alone)."""

    adapter: str | None
    start: int
    stop: int


Spans = tuple[Span, ...]
_SPANS: ContextVar[Spans] = ContextVar("spans")


def spans_of(adapters: Sequence[str | None]) -> Spans:
    """Spans of a batch, given each row's adapter.

    >>> spans_of(["a", "a", "b"])
    (Span(adapter='a', start=0, stop=2), Span(adapter='b', start=2, stop=3))

    Raises:
        ValueError: the rows of an adapter are not contiguous.
    """
    spans: list[Span] = []
    for row, adapter in enumerate(adapters):
        if spans and spans[-1].adapter == adapter:
            spans[-1] = spans[-1]._replace(stop=row + 1)
        elif any(span.adapter == adapter for span in spans):
            raise ValueError(f"the rows of adapter {adapter!r} are not contiguous: sort the batch by adapter")
        else:
            spans.append(Span(adapter, row, row + 1))
    return tuple(spans)


class Routing(AbstractContextManager):
    """Context in which adapted layers send the rows of a batch through the adapters of `spans`.

    It can be entered again, as a backward over a graph that is kept does.
    """

    def __init__(self, spans: Spans):
        self.spans = spans
        self._before: list[Token[Spans]] = []

    def __enter__(self) -> "Routing":
        self._before.append(_SPANS.set(self.spans))
        return self

    def __exit__(self, *_exception) -> None:
        _SPANS.reset(self._before.pop())


def checkpoint_contexts() -> tuple[AbstractContextManager, AbstractContextManager]:
    """Contexts of the two runs of a checkpointed function: the second finds the routing of the first.

    A `context_fn` of `torch.utils.checkpoint.checkpoint`.
    """
    return nullcontext(), Routing(_SPANS.get())


class LoraFactor(nn.Linear):
    """A or B of one adapter. A call gives its weight as a layer computes with it: scaled, in a dtype.

    The weight itself and its gradient stay float32. It is called, and not read, so that what gathers the parameters of
    modules that run (FSDP) gathers it.
    """

    def __init__(self, weight: nn.Parameter, scale: float = 1.0):
        super().__init__(weight.shape[1], weight.shape[0], bias=False, device="meta")
        self.weight, self.scale = weight, scale
        self.kept: dict[torch.dtype, Tensor] | None = None  # the weight by dtype, within `unchanging_adapters`

    def forward(self, dtype: torch.dtype) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        if self.kept is None or torch.is_grad_enabled():
            return self._weight_as(dtype)
        if dtype not in self.kept:
            self.kept[dtype] = self._weight_as(dtype)
        return self.kept[dtype]

    def _weight_as(self, dtype: torch.dtype) -> Tensor:
        return (self.weight * self.scale).to(dtype)


@contextmanager
def unchanging_adapters(model: nn.Module) -> Iterator[None]:
    """Within it no adapter of a model changes, so what computes without gradients scales and casts each factor once,
    and not at every call."""
    factors = [module for module in model.modules() if isinstance(module, LoraFactor)]
    for factor in factors:
        factor.kept = {}
    try:
        yield
    finally:
        for factor in factors:
            factor.kept = None


class RoutedLinear(LoraLinear):
    """A frozen linear layer with several adapters, each for its own rows.

    PEFT makes, saves and loads it as one of its own layers; which adapter PEFT calls active says nothing here.
    """

    def update_layer(self, adapter_name: str, *args, **kwargs) -> None:
        """Add an adapter as PEFT does, its factors as modules that give their weight in the base's dtype, and without
        dropout: sampling has none."""
        super().update_layer(adapter_name, *args, **kwargs)
        self.lora_dropout[adapter_name] = nn.Identity()
        for factors, scale in ((self.lora_A, 1.0), (self.lora_B, self.scaling[adapter_name])):
            factors[adapter_name] = LoraFactor(cast(nn.Parameter, factors[adapter_name].weight), scale)

    def forward(self, x_RTI: Tensor) -> Tensor:
        """Output (R, T, O).

        Raises:
            LookupError: it runs outside a `Routing`.
            ValueError: neither the rows nor the positions of one row are those of the routing.
        """
        spans = _SPANS.get(None)
        if spans is None:
            raise LookupError("an adapted layer runs outside a Routing: call TeamPolicy.hidden or TeamPolicy.score")
        if spans[-1].stop != len(x_RTI) and (1, spans[-1].stop) != x_RTI.shape[:-1]:
            raise ValueError(
                f"an adapted layer got {len(x_RTI)} rows for a routing of {spans[-1].stop}: layers that flatten or mix "
                "rows cannot carry routed adapters; leave them out of lora.target_modules"
            )
        output_RTO = writable(self.base_layer(x_RTI))
        factors = [factor for adapter, *_ in spans for factor in self._factors(adapter, output_RTO.dtype)]
        return cast(Tensor, _AddAdapters.apply(output_RTO, x_RTI, spans, *factors))

    def _factors(self, adapter: str | None, dtype: torch.dtype) -> tuple[Tensor | None, Tensor | None]:
        """A (r, I) and B (O, r); None where an adapter has none here, as one from disk with other layers."""
        if adapter is None or adapter not in self.lora_A:
            return None, None
        return self.lora_A[adapter](dtype), self.lora_B[adapter](dtype)


class _AddAdapters(torch.autograd.Function):
    """`output + (x A^T) B^T`, span by span, in the place of the output.

    The sum is made by the matrix product itself, and what reaches x comes back in one piece: written out, each would be
    another pass over memory, which on a CPU costs more than the products.
    """

    @staticmethod
    def forward(ctx: Any, output_RTO: Tensor, x_RTI: Tensor, spans: Spans, *factors: Tensor | None) -> Tensor:
        x_NI, output_NO = _flat(x_RTI), output_RTO.view(-1, output_RTO.shape[-1])
        parts = _parts(spans, len(x_NI))
        inner: list[Tensor | None] = []  # x A^T, (positions, r) of each span
        for part, (a, b) in zip(parts, _pairs(factors), strict=True):
            if a is None or b is None:
                inner.append(None)
                continue
            inner_Nr = x_NI[part].to(a.dtype) @ a.T
            output_NO[part].addmm_(inner_Nr, b.T)
            inner.append(inner_Nr)
        ctx.spans = spans
        ctx.save_for_backward(x_RTI, *factors, *inner)
        ctx.mark_dirty(output_RTO)
        return output_RTO

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_RTO: Tensor) -> tuple[Tensor | None, ...]:
        x_RTI, *saved = ctx.saved_tensors
        pairs, inner = _pairs(saved[: 2 * len(ctx.spans)]), saved[2 * len(ctx.spans) :]
        _, x_needs, _, *factors_need = ctx.needs_input_grad
        x_NI, gradient_NO = _flat(x_RTI), _flat(gradient_RTO)
        to_x_NI = torch.empty(x_NI.shape, dtype=gradient_NO.dtype, device=x_NI.device) if x_needs else None
        to_factors: list[Tensor | None] = []
        parts = _parts(ctx.spans, len(x_NI))
        for part, (a, b), inner_Nr, needs in zip(parts, pairs, inner, factors_need[::2], strict=True):
            found: tuple[Tensor | None, Tensor | None] = None, None
            if a is not None and b is not None:
                to_inner_Nr = gradient_NO[part] @ b
                if to_x_NI is not None:
                    torch.mm(to_inner_Nr, a, out=to_x_NI[part])
                if needs:  # not of a frozen adapter
                    found = to_inner_Nr.T @ x_NI[part].to(a.dtype), gradient_NO[part].T @ inner_Nr
            elif to_x_NI is not None:
                to_x_NI[part] = 0
            to_factors += found
        to_x_RTI = None if to_x_NI is None else to_x_NI.view(x_RTI.shape).to(x_RTI.dtype)
        return gradient_RTO, to_x_RTI, None, *to_factors


def _parts(spans: Spans, positions: int) -> list[slice]:
    """Positions of each span in a batch that is laid flat: all those of its rows, or those that it names itself."""
    each = positions // spans[-1].stop
    return [slice(start * each, stop * each) for _, start, stop in spans]


def _pairs(factors: Sequence[Tensor | None]) -> list[tuple[Tensor | None, Tensor | None]]:
    """A and B of each span."""
    return list(zip(factors[::2], factors[1::2], strict=True))


def _flat(rows_RTI: Tensor) -> Tensor:
    return rows_RTI.reshape(-1, rows_RTI.shape[-1])


PLAIN_FIELDS = frozenset(
    "task_type peft_type auto_mapping peft_version base_model_name_or_path revision inference_mode r lora_alpha "
    "lora_dropout fan_in_fan_out use_rslora target_modules exclude_modules layers_to_transform layers_pattern "
    "rank_pattern alpha_pattern init_lora_weights".split()
)
PLAIN_STARTS = (True, False, "gaussian", "orthogonal")  # the others change the base, which all adapters share


def check_plain(lora: LoraConfig) -> None:
    """Check that an adapter is `B(A(x)) * scale` on a base as it is.

    Raises:
        ValueError: a variant of LoRA is asked for.
    """
    for field in dataclasses.fields(lora):
        value = getattr(lora, field.name)
        factory = field.default_factory
        default = field.default if factory is dataclasses.MISSING else factory()
        if field.name == "task_type" and value not in (None, "CAUSAL_LM"):  # PEFT trains a head of its own with others
            raise ValueError(f"LoraConfig: task_type={value!r} must be 'CAUSAL_LM'")
        if field.name not in PLAIN_FIELDS and value != default:
            raise ValueError(f"LoraConfig: {field.name}={value!r} is a variant that routed adapters do not compute")
    if lora.init_lora_weights not in PLAIN_STARTS:
        raise ValueError(f"LoraConfig: init_lora_weights={lora.init_lora_weights!r} must be one of {PLAIN_STARTS}")
