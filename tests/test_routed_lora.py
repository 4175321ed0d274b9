"""Routed adapters: the arithmetic to the last digit, PEFT's own numbers, and routing that no later forward disturbs."""

import copy
import json

import pytest
import tiny
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from torch.nn.functional import linear
from torch.utils.checkpoint import checkpoint

from marl_coop.players import BASE
from marl_coop.policy.routed_lora import (
    LoraFactor,
    RoutedLinear,
    Routing,
    Span,
    checkpoint_contexts,
    spans_of,
    unchanging_adapters,
)
from marl_coop.policy.team import TeamPolicy

VOCABULARY = 40
ROWS = ("agent_0", "agent_0", BASE, "agent_1", "agent_1")
SWAPPED = ("agent_1", "agent_1", "agent_0", "agent_0", "agent_0")


def lora(**options) -> LoraConfig:
    """Adapters whose scale, 7 / sqrt(3), rounds."""
    plain = {"r": 3, "lora_alpha": 7, "use_rslora": True, "task_type": "CAUSAL_LM"}
    return LoraConfig(**(plain | {"target_modules": ["q_proj", "v_proj", "down_proj"]} | options))


def team(base=None, **options) -> TeamPolicy:
    torch.manual_seed(1)
    policy = TeamPolicy(base or tiny.base_model(VOCABULARY), lora(**options), tiny.SEATS, critic_seats=1)
    with torch.no_grad():
        for adapter in policy.adapters:
            for b in policy.adapter_parameters(adapter, "B"):
                b.normal_(std=0.1)
    return policy


def layers_of(policy: TeamPolicy) -> dict[str, RoutedLinear]:
    return {name: module for name, module in policy.base.named_modules() if isinstance(module, RoutedLinear)}


def some_ids(rows=5, length=9, seed=3):
    return torch.randint(VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(seed))


def hidden(policy, adapters, ids):
    return policy.hidden(spans_of(adapters), ids, use_cache=False)


def gradients(policy, loss):
    """Gradients of all adapters by name; those that the loss does not reach are left out."""
    policy.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in policy.lm.named_parameters() if p.grad is not None}


def by_hand(base, policy, adapters, ids):
    """Hidden states of a bare base with the adapters' arithmetic written out, and the leaves that gradients reach."""
    leaves, layers = {}, dict(base.named_modules())

    def added(name, layer):
        def add(_module, inputs, output):
            (x,) = inputs
            bare = [row for row, adapter in enumerate(adapters) if adapter is BASE]
            pieces = [(bare, output[bare])]
            for adapter in tiny.SEATS:
                rows = [row for row, a in enumerate(adapters) if a == adapter]
                a, b = leaves[name, "A", adapter], leaves[name, "B", adapter]
                scaled = (b * layer.scaling[adapter]).to(x.dtype)
                inner = linear(x[rows], a.to(x.dtype)).flatten(0, 1)
                pieces.append((rows, torch.addmm(output[rows].flatten(0, 1), inner, scaled.T).view(output[rows].shape)))
            order = torch.tensor([row for rows, _ in pieces for row in rows]).argsort()
            return torch.cat([piece for _, piece in pieces])[order]

        return add

    for name, layer in layers_of(policy).items():
        for adapter in tiny.SEATS:
            leaves[name, "A", adapter] = layer.lora_A[adapter].weight.detach().clone().requires_grad_()
            leaves[name, "B", adapter] = layer.lora_B[adapter].weight.detach().clone().requires_grad_()
        layers[name].register_forward_hook(added(name, layer))
    return base.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state, leaves


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_outputs_and_gradients_are_the_formula_to_the_last_digit(dtype):
    base = tiny.base_model(VOCABULARY).to(dtype).requires_grad_(False)
    policy, ids = team(copy.deepcopy(base)), some_ids()
    routed = hidden(policy, ROWS, ids)
    expected, leaves = by_hand(base, policy, ROWS, ids)
    assert routed.dtype == dtype
    assert torch.equal(routed, expected)
    assert not torch.equal(routed, hidden(policy, [BASE] * 5, ids))
    gradients(policy, routed.float().square().sum())
    expected.float().square().sum().backward()
    for (name, matrix, adapter), leaf in leaves.items():
        (weight,) = getattr(layers_of(policy)[name], f"lora_{matrix}")[adapter].parameters()
        assert weight.dtype == weight.grad.dtype == torch.float32
        assert weight.grad.any()
        assert torch.equal(weight.grad, leaf.grad), (name, matrix, adapter)


def test_outputs_and_gradients_are_those_of_peft(tmp_path):
    """One adapter of PEFT at a time, from the files, with ranks and scales that differ by layer."""
    policy, ids = team(rank_pattern={"down_proj": 5}, alpha_pattern={"v_proj": 11}), some_ids()
    policy.save(tmp_path)
    rows = ["agent_0"] * 2 + ["agent_1"] * 3
    logits = policy.logits(hidden(policy, rows, ids))
    mine = gradients(policy, logits.square().sum())
    for adapter, part in [("agent_0", slice(0, 2)), ("agent_1", slice(2, 5))]:
        alone = PeftModel.from_pretrained(tiny.base_model(VOCABULARY), tmp_path / adapter, is_trainable=True)
        expected = alone(ids[part]).logits
        assert torch.allclose(logits[part], expected, atol=1e-5)
        expected.square().sum().backward()
        theirs = {n.replace(".default.", f".{adapter}."): p.grad for n, p in alone.named_parameters() if "lora_" in n}
        assert theirs.keys() == {name for name in mine if f".{adapter}." in name}
        for name, gradient in theirs.items():
            assert torch.allclose(mine[name], gradient, rtol=1e-3, atol=1e-4), name


def test_on_disk_an_adapter_is_what_peft_writes(tmp_path):
    team().save(tmp_path)
    get_peft_model(tiny.base_model(VOCABULARY), lora()).save_pretrained(tmp_path / "peft")
    ours, theirs = (json.loads((tmp_path / f / "adapter_config.json").read_text()) for f in ("agent_0", "peft"))
    assert {key: ours[key] for key in ("r", "lora_alpha", "use_rslora")} == {
        "r": 3,
        "lora_alpha": 7,
        "use_rslora": True,
    }
    ours["target_modules"].sort(), theirs["target_modules"].sort()
    del ours["base_model_name_or_path"], theirs["base_model_name_or_path"]  # a tiny model has none
    assert ours == theirs
    shapes = [
        {name: weight.shape for name, weight in load_file(tmp_path / f / "adapter_model.safetensors").items()}
        for f in ("agent_0", "agent_1", "peft")
    ]
    assert shapes[0] == shapes[1] == shapes[2]


@pytest.mark.parametrize("keywords", [None, {"use_reentrant": False}])
def test_the_first_backward_finds_its_own_routing_after_a_second_forward(keywords):
    policy, ids = team().train(), some_ids()
    expected = [gradients(policy, hidden(policy, rows, ids).square().sum()) for rows in (ROWS, SWAPPED)]
    assert any(not torch.equal(expected[0][name], expected[1][name]) for name in expected[0])
    policy.activation_checkpointing_enable(keywords)
    first, second = (hidden(policy, rows, ids).square().sum() for rows in (ROWS, SWAPPED))
    for loss, wanted in [(first, expected[0]), (second, expected[1])]:
        found = gradients(policy, loss)
        assert found.keys() == wanted.keys()
        assert all(torch.allclose(found[name], wanted[name], rtol=1e-4, atol=1e-5) for name in wanted)


def test_a_graph_that_is_kept_can_be_run_backward_twice():
    policy = team().train()
    policy.activation_checkpointing_enable()
    loss = hidden(policy, ROWS, some_ids()).square().sum()
    loss.backward(retain_graph=True)
    once = {name: p.grad.clone() for name, p in policy.lm.named_parameters() if p.grad is not None}
    loss.backward()
    assert once
    for name, parameter in policy.lm.named_parameters():
        if name in once:
            assert torch.allclose(parameter.grad, 2 * once[name], rtol=1e-4, atol=1e-6)


def test_checkpointing_that_does_not_bring_the_routing_back_is_an_error():
    policy = team().train()
    policy.base.gradient_checkpointing_enable({"use_reentrant": False})
    with pytest.raises(LookupError, match="outside a Routing"):
        hidden(policy, ROWS, some_ids()).sum().backward()
    with pytest.raises(ValueError, match="use_reentrant=True"):
        policy.activation_checkpointing_enable({"use_reentrant": True})


def test_a_forward_within_a_forward_leaves_the_outer_routing():
    policy, ids = team(), some_ids()
    expected, inner = [hidden(policy, rows, ids) for rows in (ROWS, SWAPPED)], []

    def run_once_more(*_):
        if not inner:
            inner.append(None)  # the forward that begins here comes by once more
            inner.append(hidden(policy, SWAPPED, ids))

    policy.decoder.layers[0].register_forward_pre_hook(run_once_more)
    assert torch.equal(hidden(policy, ROWS, ids), expected[0])
    assert torch.equal(inner[1], expected[1])


def test_only_the_adapters_of_the_rows_are_called_and_as_modules():
    policy, seen = team(), []
    for name, module in policy.base.named_modules():
        if isinstance(module, LoraFactor):
            module.register_forward_hook(lambda *_, name=name: seen.append(name))
    hidden(policy, ["agent_0", "agent_0", BASE], some_ids(rows=3))
    layers = layers_of(policy)
    assert sorted(seen) == sorted(f"{name}.lora_{matrix}.agent_0" for name in layers for matrix in "AB")
    assert len(layers) == 6


def test_while_adapters_do_not_change_a_forward_without_gradients_keeps_their_casts_and_no_other_does():
    policy, ids = team(tiny.base_model(VOCABULARY).bfloat16()), some_ids()
    factors = [module for module in policy.modules() if isinstance(module, LoraFactor)]
    with torch.no_grad():
        expected = hidden(policy, ROWS, ids)
        with unchanging_adapters(policy):
            first, casts = hidden(policy, ROWS, ids), [factor.kept[torch.bfloat16] for factor in factors]
            assert torch.equal(first, expected) and torch.equal(hidden(policy, ROWS, ids), expected)
            assert all(factor.kept[torch.bfloat16] is cast for factor, cast in zip(factors, casts, strict=True))
            with torch.enable_grad():
                assert any(g.any() for g in gradients(policy, hidden(policy, ROWS, ids).float().sum()).values())
        for factor in factors:
            factor.weight.mul_(-1.5)
        assert not torch.equal(hidden(policy, ROWS, ids), expected)


class Viewed(torch.nn.Linear):
    """Gives a view of a leaf, with its axes in another order in memory."""

    def forward(self, x):
        return super().forward(x).detach().transpose(0, 1).contiguous().requires_grad_().transpose(0, 1)


def test_a_layer_whose_output_is_a_view_is_added_to():
    layer, x = layers_of(team())["model.layers.0.self_attn.q_proj"], torch.randn(3, 4, 32)
    with Routing(spans_of(["agent_0"] * 3)):
        expected = layer(x)
        layer.base_layer.__class__ = Viewed
        found = layer(x)
    torch.testing.assert_close(found, expected)
    found.square().sum().backward()
    assert layer.lora_B["agent_0"].weight.grad.any()


def test_no_adapter_of_a_team_has_dropout():
    """Nor have those that are added later: learning scores what was sampled."""
    policy, ids = team(lora_dropout=0.5).train(), some_ids()
    policy.snapshot_reference()
    rows = ["agent_0", "agent_1", "agent_0_start", "agent_1_start"]
    once = hidden(policy, rows, ids[[0, 1, 0, 1]])
    assert torch.equal(once, hidden(policy, rows, ids[[0, 1, 0, 1]]))
    assert torch.allclose(once[:2], once[2:], atol=1e-6)


def test_rows_that_the_routing_does_not_know_are_an_error():
    policy = team()
    with pytest.raises(ValueError, match="got 3 rows for a routing of 2"):
        policy.hidden((Span("agent_0", 0, 2),), some_ids(rows=3))
    with pytest.raises(LookupError, match="outside a Routing"):
        policy.decoder(input_ids=some_ids())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_modules": ["q_proj", "lm_head"]}, "lm_head cannot carry routed adapters"),
        ({"target_modules": ["q_proj", "embed_tokens"]}, "embed_tokens cannot carry routed adapters"),
        ({"use_dora": True}, "use_dora=True is a variant"),
        ({"lora_bias": True}, "lora_bias=True is a variant"),
        ({"modules_to_save": ["norm"]}, r"modules_to_save=\['norm'\] is a variant"),
        ({"bias": "all"}, "bias='all' is a variant"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa' must be one of"),
    ],
)
def test_adapters_that_cannot_be_routed_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        team(**options)


def test_checkpointed_pieces_of_ones_own_are_routed_as_well():
    policy, ids = team(), some_ids()
    layer = layers_of(policy)["model.layers.0.mlp.down_proj"]
    x = torch.randn(2, 3, 64, requires_grad=True)
    with Routing(spans_of(["agent_0", "agent_1"])):
        layer(x).square().sum().backward()
        expected, x.grad = x.grad, None
        loss = checkpoint(layer, x, use_reentrant=False, context_fn=checkpoint_contexts).square().sum()
    hidden(policy, SWAPPED, ids)
    loss.backward()
    assert torch.equal(x.grad, expected)
