"""One frozen base model, a LoRA adapter per policy, a value head per policy: all that is trained, in one module.

The rows of all agents go through one forward and one backward (`marl_coop.policy.routed_lora`), which leaves no
parameter unused under DDP. On disk each adapter is an ordinary PEFT adapter.

Axes in names: R rows, T positions, N action tokens, S seats, H hidden size.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import Cache, PreTrainedModel

from envs.core.tokens import one_line
from marl_coop.players import PastSelves, past_folders
from marl_coop.policy import compat
from marl_coop.policy.adapters import (
    check_names,
    check_patterns,
    check_same,
    check_targets,
    identify,
    read_config,
    read_weights,
    reference_name,
    weights_of,
    write_adapter,
)
from marl_coop.policy.loading import max_positions
from marl_coop.policy.routed_lora import RoutedLinear, Routing, Spans, check_plain, checkpoint_contexts, spans_of
from marl_coop.policy.tensor_files import write_tensors
from marl_coop.policy.token_scores import token_scores
from marl_coop.policy.value_head import ValueHead

CRITICS = "critics.safetensors"
LOGIT_ROWS = 256  # tokens whose logits are in memory at once: the vocabulary is large
PREFIX_MODELS = ("llama", "mistral", "qwen2", "qwen3")  # decoders that are their layers one after the other, all alike


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
            local one); 0: there are no critics.
    """

    def __init__(self, base: PreTrainedModel, lora: LoraConfig, adapters: Sequence[str], critic_seats: int):
        super().__init__()
        self.adapters = tuple(adapters)
        first, *others = self.adapters
        check_plain(lora)
        check_names(self.adapters)
        check_targets(base, lora)
        self._base_identity = identify(base)
        self.lm: PeftModel = get_peft_model(base, compat.with_layer_class(lora, RoutedLinear), adapter_name=first)
        for adapter in others:
            self._add_adapter(adapter, lora)
        self._refuse_layers_that_cannot_be_routed()
        self._settle_adapters()
        self._cache_keyword = compat.cache_keyword(self.decoder)
        self.prefix_hidden_RTH: Tensor | None = None  # of the last forward; stays None where it cannot be kept
        self._keeping: RemovableHandle | None = None
        self._keep_the_prefix()
        hidden = base.config.get_text_config().hidden_size
        self.past: dict[str, PastSelves] = {}
        heads = {a: ValueHead(critic_seats * hidden) for a in self.adapters} if critic_seats else {}
        self.critics = nn.ModuleDict(heads)

    def _lora(self, adapter: str) -> LoraConfig:
        return cast(LoraConfig, self.lm.peft_config[adapter])

    def _add_adapter(self, adapter: str, lora: LoraConfig) -> None:
        self.lm.add_adapter(adapter, compat.with_layer_class(lora, RoutedLinear))

    def _keep_the_prefix(self) -> None:
        """Keep what goes into the lowest adapted layer at every forward, in models where that is all the rest needs."""
        self.keep_no_prefix()
        self._lowest_adapted = 0
        kinds = getattr(self.config, "layer_types", None) or [None]  # masks are chosen by a layer's index
        if self.config.model_type not in PREFIX_MODELS or len(set(kinds)) > 1:
            return
        layers = compat.layers_of(self.decoder)
        self._lowest_adapted = [any(isinstance(m, RoutedLinear) for m in x.modules()) for x in layers].index(True)
        if self._lowest_adapted > 0:
            self._keeping = layers[self._lowest_adapted].register_forward_pre_hook(self._keep_prefix)

    def keep_no_prefix(self) -> None:
        """Run all layers at every forward from now on, as processes do that share them out and must stay in step."""
        self.prefix_hidden_RTH = None
        if self._keeping is not None:
            self._keeping.remove()

    def unload(self) -> None:
        """Leave the base as it was before; the team is of no use from then on."""
        self.keep_no_prefix()
        self.lm.unload()

    def _refuse_layers_that_cannot_be_routed(self) -> None:
        routed = {id(module) for module in self.decoder.modules() if isinstance(module, RoutedLinear)}
        for name, module in self.base.named_modules():
            if isinstance(module, compat.LoraLayer) and id(module) not in routed:
                raise ValueError(f"{name} cannot carry routed adapters: name linear layers inside the decoder alone")

    def _settle_adapters(self) -> None:
        """PEFT leaves the adapter that it makes switched on or frozen; here the team's own are trained, no other is."""
        compat.disable_dropout(self.lm)  # sampling has none, and learning must see the same distribution
        self.lm.requires_grad_(False)
        for adapter in self.adapters:
            for parameter in self.adapter_parameters(adapter):
                parameter.requires_grad_(True)

    @property
    def all_adapters(self) -> tuple[str, ...]:
        """Names of the adapters that are trained and of the frozen ones."""
        return tuple(self.lm.peft_config)

    def rank(self, adapter: str) -> int:
        """The largest rank of an adapter's layers."""
        lora = self._lora(adapter)
        return max([lora.r, *(lora.rank_pattern or {}).values()])

    @property
    def base(self) -> PreTrainedModel:
        """The causal language model, its linear layers adapted."""
        return cast(PreTrainedModel, self.lm.get_base_model())

    @property
    def decoder(self) -> PreTrainedModel:
        """The base without its output head."""
        return self.base.get_decoder()

    @property
    def config(self):
        return self.base.config

    @property
    def dtype(self) -> torch.dtype:
        """Of what the base computes."""
        return self.lm.dtype

    @property
    def quantized(self) -> bool:
        """Whether the base's weights are rounded to a few bits."""
        return getattr(self.base, "is_quantized", False)

    @property
    def max_positions(self) -> int:
        """Tokens that a chat may have; without a bound where the base names none."""
        return max_positions(self.config)

    @property
    def device(self) -> torch.device:
        return next(self.lm.parameters()).device

    def activation_checkpointing_enable(
        self, activation_checkpointing_kwargs: dict[str, Any] | None = None, **options
    ) -> None:
        """Run layers again in the backward instead of keeping what they computed; the trainer calls it by this name.

        Raises:
            ValueError: the re-entrant kind is asked for.
        """
        keywords = {"use_reentrant": False, "context_fn": checkpoint_contexts} | (activation_checkpointing_kwargs or {})
        if keywords["use_reentrant"]:
            raise ValueError("gradient checkpointing with use_reentrant=True gives adapters no gradient: leave it out")
        compat.checkpoint_activations(self.base, keywords, **options)

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: dict[str, Any] | None = None) -> None:
        """`activation_checkpointing_enable` by the name that trainers of older transformers call."""
        self.activation_checkpointing_enable(gradient_checkpointing_kwargs)

    def hidden(
        self,
        spans: Spans,
        input_ids: Tensor,
        prefix_hidden_RTH: Tensor | None = None,
        cache: Cache | None = None,
        **inputs,
    ) -> Tensor:
        """Last hidden states (R, T, H).

        With `prefix_hidden_RTH`, which an earlier call on the same rows left in `self.prefix_hidden_RTH`, only layers
        from the lowest adapted one upwards are run: what is below is frozen, and the same for every adapter.
        `cache` holds the keys and values of earlier positions and takes those of these.
        """
        if cache is not None:
            inputs[self._cache_keyword] = cache
        with Routing(spans):
            if prefix_hidden_RTH is None:
                output = self.decoder(input_ids=input_ids, **inputs)
            else:
                with compat.from_layer(self.decoder, self._lowest_adapted):
                    output = self.decoder(inputs_embeds=prefix_hidden_RTH, **inputs)
        return output.last_hidden_state

    def _keep_prefix(self, _layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.prefix_hidden_RTH = inputs[0].detach()

    def logits(self, hidden_NH: Tensor) -> Tensor:
        """Logits (N, vocabulary) in float32."""
        return compat.head_of(self.base)(hidden_NH).float()

    def score(
        self,
        spans: Spans,
        input_ids_RT: Tensor,
        told: Mapping[str, Any],
        rows_N: Tensor,
        columns_N: Tensor,
        temperature: float,
        prefix_hidden_RTH: Tensor | None = None,
    ) -> tuple[Scores, Tensor]:
        """Score the tokens at (rows_N, columns_N) and return the hidden states (R, T, H) as well. `told` says which
        tokens belong together, as `marl_coop.policy.layout.Layout` does."""
        hidden_RTH = self.hidden(spans, input_ids_RT, prefix_hidden_RTH, use_cache=False, **told)

        pieces = [
            token_scores(hidden_NH, ids_N, self.logits, temperature)
            for hidden_NH, ids_N in zip(
                hidden_RTH[rows_N, columns_N - 1].split(LOGIT_ROWS),
                input_ids_RT[rows_N, columns_N].split(LOGIT_ROWS),
                strict=True,
            )
        ]
        return Scores(*(torch.cat(column) for column in zip(*pieces, strict=True))), hidden_RTH

    def idle(self) -> None:
        """A forward without a chat, in step with the other processes where they share the base out."""
        ids_RT = torch.zeros(1, 1, dtype=torch.long, device=self.device)
        self.hidden(spans_of([None]), ids_RT, use_cache=False)

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
            self._add_adapter(reference_name(adapter), self._lora(adapter))
            self._copy(adapter, reference_name(adapter))
        self._settle_adapters()

    def keep_past(self, adapter: str, every: int, limit: int) -> None:
        """Make room for the `limit` latest snapshots of an adapter, of which `snapshot_past` takes one after `every` so
        many updates.

        Raises:
            ValueError: no such adapter is trained, or another has the name of a snapshot.
        """
        copies = tuple(f"{adapter}_past_{i}" for i in range(limit))
        if adapter not in self.adapters:
            raise ValueError(f"there are no past selves of {adapter!r}; trained are {list(self.adapters)}")
        if taken := set(copies) & set(self.all_adapters):
            raise ValueError(f"{min(taken)!r} is the name of a snapshot of {adapter!r}; call the adapter otherwise")
        for copy in copies:
            self._add_adapter(copy, self._lora(adapter))
        self._settle_adapters()
        self.past[adapter] = PastSelves(adapter, copies, every)

    def snapshot_past(self, updates: int) -> None:
        """Keep frozen copies of adapters as they are after some updates, where these are due."""
        for adapter, past in self.past.items():
            if updates % past.every == 0:
                self._copy(adapter, past.take(updates).copy)

    @torch.no_grad()
    def _copy(self, adapter: str, to: str) -> None:
        copies, weights = (weights_of(self.lm, name) for name in (to, adapter))
        for name, weight in weights.items():
            copies[name].copy_(weight)

    def add_frozen(self, adapter: str, folder: Path) -> None:
        """Add a frozen adapter from a PEFT adapter on disk, with its own rank, scale and layers, for a seat that does
        not learn.

        Raises:
            ValueError: it is no LoRA adapter of this base.
        """
        lora = read_config(folder)
        check_names([adapter])
        check_patterns(lora, [name for name, _ in self.base.named_modules()], folder)
        try:
            self._add_adapter(adapter, lora)
        except (ValueError, TypeError, RuntimeError, re.error) as error:  # what PEFT and torch say of its numbers
            raise ValueError(f"the adapter in {folder} cannot be made: {one_line(error)}") from error
        self._refuse_layers_that_cannot_be_routed()
        read_weights(self.lm, adapter, self._base_identity, folder)
        self._keep_the_prefix()
        self._settle_adapters()

    def adapter_parameters(self, adapter: str, matrices: str = "AB") -> list[nn.Parameter]:
        """Weights of an adapter, layer by layer: of the A matrices, the B matrices or both."""
        layers = [module for module in self.lm.modules() if isinstance(module, RoutedLinear)]
        named = [getattr(layer, f"lora_{matrix}") for layer in layers for matrix in matrices]
        return [parameter for factors in named if adapter in factors for parameter in factors[adapter].parameters()]

    def trained_by(self, adapter: str) -> list[nn.Parameter]:
        """All that learning as an adapter changes: its weights, and those of its critic where it has one."""
        critic = self.critics[adapter].parameters() if adapter in self.critics else ()
        return [*self.adapter_parameters(adapter), *critic]

    def save(self, folder: Path) -> None:
        """Write `folder/<adapter>/` and `folder/past/<adapter>/update-<updates>/` (plain PEFT adapters), and
        `folder/critics.safetensors`, empty where there are none.

        Raises:
            OSError: they are not on disk as they are here.
        """
        for adapter in self.adapters:
            self.save_adapter(adapter, folder / adapter)
        for past in (past for selves in self.past.values() for past in selves.selves):
            self.save_adapter(past.copy, folder / "past" / past.adapter / f"update-{past.updates}")
        write_tensors(self.critics.state_dict(), folder / CRITICS)

    def save_adapter(self, adapter: str, folder: Path) -> None:
        """Write an adapter, trained or frozen, as a plain PEFT adapter.

        Raises:
            OSError: it is not on disk as it is here.
        """
        write_adapter(self.lm, adapter, self._lora(adapter), self._base_identity, folder)

    def load(self, folder: Path) -> None:
        """Read what `save` wrote.

        Raises:
            ValueError: it is of another base or of adapters or critics of another shape, or cannot be read.
        """
        for adapter in self.adapters:
            self.load_adapter(adapter, folder / adapter)
        for adapter, past in self.past.items():
            past.selves = ()
            for updates, place in past_folders(folder, adapter).items():
                read_weights(self.lm, past.take(updates).copy, self._base_identity, place)
        try:
            self.critics.load_state_dict(load_file(folder / CRITICS))
        except (OSError, SafetensorError, RuntimeError) as error:
            raise ValueError(f"the critics in {folder} cannot be read: {one_line(error)}") from error

    def load_adapter(self, adapter: str, folder: Path) -> None:
        """Start `adapter` from a PEFT adapter on disk.

        Raises:
            ValueError: it is of another base, or has another shape or scale.
        """
        check_same(self._lora(adapter), read_config(folder), folder)
        read_weights(self.lm, adapter, self._base_identity, folder)
