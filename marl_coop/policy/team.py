"""One frozen base model, a LoRA adapter per policy, a value head per policy: all that is trained, in one module.

*Routed LoRA*: the rows of a batch are sorted by adapter, and every adapted layer adds `B_a(A_a(x)) * scale_a` of the
row's own adapter a to the frozen layer's output. So the rows of both agents go through one forward and one backward;
nothing is switched in between, which keeps gradient checkpointing right and leaves no parameter unused under DDP.
On disk each adapter is an ordinary PEFT adapter.

Axes in names: R rows, T positions, N action tokens, K turns, S seats, H hidden size.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from peft import (
    LoraConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    load_peft_weights,
    set_peft_model_state_dict,
)
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from trl.trainer.utils import disable_dropout_in_model, selective_log_softmax_and_entropy

from marl_coop.players import BASE

LOGIT_ROWS = 256  # tokens whose logits are in memory at once: the vocabulary is large
PREFIX_MODELS = ("llama", "mistral", "qwen2", "qwen3")  # decoders that are their layers one after the other, all alike


class Span(NamedTuple):
    """Rows `start` to `stop` of a batch go through `adapter` (None: through the base alone)."""

    adapter: str | None
    start: int
    stop: int


def reference_name(adapter: str) -> str:
    """Name of the frozen copy of an adapter that `TeamPolicy.snapshot_reference` makes."""
    return f"{adapter}_start"


def spans_of(adapters: Sequence[str | None]) -> tuple[Span, ...]:
    """The spans of a batch, given each row's adapter.

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


class Scores(NamedTuple):
    """What one forward says of the sampled tokens, each (N,): log-probability and entropy, in nats."""

    logprobs_N: Tensor
    entropy_N: Tensor


class TeamPolicy(nn.Module):
    """The policies of a team on one frozen base.

    Args:
        base: a causal language model; it is frozen here.
        lora: shape of every adapter.
        adapters: names of the adapters, in the order of the rows of a batch.
        critic_seats: seats whose features the critic reads together (the team's size for a central critic, 1 for a
            local one).
    """

    def __init__(self, base: PreTrainedModel, lora: LoraConfig, adapters: Sequence[str], critic_seats: int):
        super().__init__()
        self.adapters = tuple(adapters)
        first, *others = self.adapters
        self.lm: PeftModel = get_peft_model(base, lora, adapter_name=first)
        for adapter in others:
            self.lm.add_adapter(adapter, lora)
        disable_dropout_in_model(self.lm)  # sampling has none, and learning must see the same distribution
        self._spans: tuple[Span, ...] = ()
        for layer in self._lora_layers():
            layer.get_base_layer().register_forward_hook(self._routed(layer))
        self._leave_adapters_to_the_hooks()
        self.prefix_hidden_RTH: Tensor | None = None  # of the last forward; stays None where it cannot be kept
        self._lowest_adapted = 0
        kinds = getattr(base.config, "layer_types", None) or [None]  # masks are chosen by a layer's index
        if base.config.model_type in PREFIX_MODELS and len(set(kinds)) == 1:
            names = [name for name, p in self.lm.named_parameters() if p.requires_grad]
            self._lowest_adapted = min(int(re.search(r"\.layers\.(\d+)\.", name)[1]) for name in names)
        if self._lowest_adapted > 0:
            base.get_decoder().layers[self._lowest_adapted].register_forward_pre_hook(self._keep_prefix)
        hidden = base.config.get_text_config().hidden_size
        self.critics = nn.ModuleDict({a: ValueHead(critic_seats * hidden) for a in self.adapters})

    def _lora_layers(self) -> list[LoraLayer]:
        return [module for module in self.lm.modules() if isinstance(module, LoraLayer)]

    def _leave_adapters_to_the_hooks(self) -> None:
        """PEFT makes an adapter that it adds the active one; here the hooks apply adapters, row by row."""
        for layer in self._lora_layers():
            layer.set_adapter([])
        self.lm.requires_grad_(False)
        for adapter in self.adapters:
            for parameter in self.adapter_parameters(adapter):
                parameter.requires_grad_(True)

    def _routed(self, layer: LoraLayer):
        def add_adapters(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            if all(span.adapter is BASE for span in self._spans):
                return output
            (x,) = inputs
            pieces = []
            for adapter, start, stop in self._spans:
                if adapter is BASE:
                    pieces.append(output[start:stop])
                    continue
                lora_a, lora_b = layer.lora_A[adapter], layer.lora_B[adapter]
                # in the base's dtype, as vLLM does; the weights themselves, and their gradients, stay float32
                a, b = lora_a.weight.to(x.dtype), (lora_b.weight * layer.scaling[adapter]).to(x.dtype)
                rows = layer.lora_dropout[adapter](x[start:stop])
                pieces.append(output[start:stop] + linear(linear(rows, a), b))
            return torch.cat(pieces) if len(pieces) > 1 else pieces[0]

        return add_adapters

    @property
    def config(self):
        return self.lm.config

    @property
    def device(self) -> torch.device:
        return next(self.lm.parameters()).device

    def activation_checkpointing_enable(self, **options) -> None:
        self.lm.get_base_model().activation_checkpointing_enable(**options)

    def hidden(
        self, spans: tuple[Span, ...], input_ids: Tensor, prefix_hidden_RTH: Tensor | None = None, **inputs
    ) -> Tensor:
        """Last hidden states (R, T, H).

        With `prefix_hidden_RTH`, which an earlier call on the same rows left in `self.prefix_hidden_RTH`, only layers
        from the lowest adapted one upwards are run: what is below is frozen, and the same for every adapter.

        The spans stay set until the next call: a backward with gradient checkpointing runs the layers once more and
        must find the same ones.
        """
        self._spans = spans
        decoder = self.lm.get_base_model().get_decoder()
        if prefix_hidden_RTH is None:
            output = decoder(input_ids=input_ids, **inputs)
        else:
            layers = decoder.layers
            decoder.layers = layers[self._lowest_adapted :]
            try:
                output = decoder(inputs_embeds=prefix_hidden_RTH, **inputs)
            finally:
                decoder.layers = layers
        return output.last_hidden_state

    def _keep_prefix(self, _layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.prefix_hidden_RTH = inputs[0].detach()

    def logits(self, hidden_NH: Tensor) -> Tensor:
        """Logits (N, vocabulary) in float32."""
        return self.lm.get_output_embeddings()(hidden_NH).float()

    def score(
        self,
        spans: tuple[Span, ...],
        input_ids_RT: Tensor,
        attention_mask_RT: Tensor,
        rows_N: Tensor,
        columns_N: Tensor,
        temperature: float,
        prefix_hidden_RTH: Tensor | None = None,
    ) -> tuple[Scores, Tensor]:
        """Score the tokens at (rows_N, columns_N) and return the hidden states (R, T, H) as well."""
        hidden_RTH = self.hidden(
            spans, input_ids_RT, prefix_hidden_RTH, attention_mask=attention_mask_RT, use_cache=False
        )

        def score_some(hidden_NH: Tensor, ids_N: Tensor) -> tuple[Tensor, Tensor]:
            # the leading axis of 1 is for TRL, which loops over it where there is no fused kernel
            logprobs_1N, entropy_1N = selective_log_softmax_and_entropy(
                self.logits(hidden_NH)[None], ids_N[None], temperature=temperature
            )
            return logprobs_1N[0], entropy_1N[0]

        # logits are made again in the backward pass instead of being kept
        pieces = [
            checkpoint(score_some, hidden_NH, ids_N, use_reentrant=False)
            for hidden_NH, ids_N in zip(
                hidden_RTH[rows_N, columns_N - 1].split(LOGIT_ROWS),
                input_ids_RT[rows_N, columns_N].split(LOGIT_ROWS),
                strict=True,
            )
        ]
        return Scores(*(torch.cat(column) for column in zip(*pieces, strict=True))), hidden_RTH

    def values(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Values (turns,) per adapter from detached features (turns, seats * H)."""
        return {adapter: self.critics[adapter](f) for adapter, f in features.items()}

    def forward(self, features: dict[str, Tensor], **tokens) -> tuple[Scores, dict[str, Tensor]]:
        """All that a gradient flows through: scores of the sampled tokens, values of the turns."""
        scores, _ = self.score(**tokens)
        return scores, self.values(features)

    def snapshot_reference(self) -> None:
        """Keep a frozen copy of every adapter as it is now, under the name that `reference_name` gives."""
        for adapter in self.adapters:
            start = reference_name(adapter)
            self.lm.add_adapter(start, self.lm.peft_config[adapter])
            weights = get_peft_model_state_dict(self.lm, adapter_name=adapter)
            set_peft_model_state_dict(self.lm, weights, adapter_name=start)
        self._leave_adapters_to_the_hooks()

    def add_frozen(self, adapter: str, folder: Path) -> None:
        """Add a frozen adapter from a PEFT adapter on disk, for a seat that does not learn.

        Raises:
            ValueError: it has not the shape of this team's adapters.
        """
        self.lm.add_adapter(adapter, self.lm.peft_config[self.adapters[0]])
        weights = load_peft_weights(str(folder), device="cpu")
        wanted = get_peft_model_state_dict(self.lm, adapter_name=adapter)
        if {name: w.shape for name, w in weights.items()} != {name: w.shape for name, w in wanted.items()}:
            raise ValueError(f"the adapter in {folder} has other layers or another rank than lora.* says")
        set_peft_model_state_dict(self.lm, weights, adapter_name=adapter)
        self._leave_adapters_to_the_hooks()

    def adapter_parameters(self, adapter: str, matrices: str = "AB") -> list[nn.Parameter]:
        marks = [f".lora_{matrix}.{adapter}." for matrix in matrices]
        return [p for name, p in self.lm.named_parameters() if any(mark in name for mark in marks)]

    def save(self, folder: Path) -> None:
        """Write `folder/<adapter>/` (plain PEFT adapters) and `folder/critics.pt`."""
        for adapter in self.adapters:
            self.lm.save_pretrained(folder, selected_adapters=[adapter])
        torch.save(self.critics.state_dict(), folder / "critics.pt")

    def load(self, folder: Path) -> None:
        """Read what `save` wrote."""
        for adapter in self.adapters:
            self.load_adapter(adapter, folder if adapter == "default" else folder / adapter)  # as PEFT saves them
        self.critics.load_state_dict(torch.load(folder / "critics.pt", weights_only=True))

    def load_adapter(self, adapter: str, folder: Path) -> None:
        """Start `adapter` from a PEFT adapter on disk."""
        set_peft_model_state_dict(self.lm, load_peft_weights(str(folder), device="cpu"), adapter_name=adapter)


class ValueHead(nn.Module):
    """A small critic: layer norm (hidden states are large and uneven), one hidden layer, a scalar that starts at 0."""

    def __init__(self, features: int, width: int = 128):
        super().__init__()
        self.norm = nn.LayerNorm(features, elementwise_affine=False)
        self.hidden = nn.Linear(features, width)
        self.value = nn.Linear(width, 1)
        nn.init.zeros_(self.value.weight)
        nn.init.zeros_(self.value.bias)

    def forward(self, features: Tensor) -> Tensor:
        return self.value(torch.tanh(self.hidden(self.norm(features)))).squeeze(-1)
