"""Routed LoRA against PEFT's own, one adapter at a time, and what is trained and saved."""

import copy
import hashlib

import pytest
import tiny
import torch
from peft import LoraConfig, PeftModel
from peft.tuners.lora import LoraLayer
from transformers import GPT2Config, GPT2LMHeadModel

from marl_coop.players import BASE
from marl_coop.policy import attention
from marl_coop.policy.routed_lora import Span, spans_of
from marl_coop.policy.team import TeamPolicy, reference_name
from marl_coop.policy.token_scores import token_scores

VOCABULARY = 40
BOTH = (Span("agent_0", 0, 2), Span("agent_1", 2, 5))


@pytest.fixture
def policy():
    return tiny.team(tiny.base_model(VOCABULARY))


def some_ids(rows=5, length=12, seed=3):
    return torch.randint(VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(seed))


def hidden(policy, adapters, ids):
    return policy.hidden(spans_of(adapters), ids, use_cache=False)


def inputs_of(ids, seed=4):
    """Arguments of `score` for some tokens of every row, right-padded rows of different lengths."""
    lengths = [ids.shape[1] - i for i in range(len(ids))]
    mask = torch.tensor([[int(t < n) for t in range(ids.shape[1])] for n in lengths])
    places = [(row, column) for row, n in enumerate(lengths) for column in (1, 4, n - 1)]
    rows, columns = (torch.tensor(axis) for axis in zip(*places, strict=True))
    return {"input_ids_RT": ids, "told": {"attention_mask": mask}, "rows_N": rows, "columns_N": columns}


def test_routed_rows_are_what_peft_computes_for_one_adapter(policy, tmp_path):
    policy.save(tmp_path)
    ids = some_ids()
    routed = policy.logits(hidden(policy, ["agent_0", "agent_0", BASE, "agent_1", "agent_1"], ids))
    plain = tiny.base_model(VOCABULARY)(ids).logits
    assert torch.allclose(routed[2], plain[2], atol=1e-5)
    for adapter, rows in [("agent_0", slice(0, 2)), ("agent_1", slice(3, 5))]:
        alone = PeftModel.from_pretrained(tiny.base_model(VOCABULARY), tmp_path / adapter).eval()(ids[rows]).logits
        assert torch.allclose(routed[rows], alone, atol=1e-5)
        assert not torch.allclose(routed[rows], plain[rows], atol=1e-2)  # the adapter does something


def test_one_forward_for_both_is_two_forwards(policy):
    ids = some_ids()
    together = hidden(policy, ["agent_0"] * 2 + ["agent_1"] * 3, ids)
    assert torch.allclose(together[:2], hidden(policy, ["agent_0"] * 2, ids[:2]), atol=1e-5)
    assert torch.allclose(together[2:], hidden(policy, ["agent_1"] * 3, ids[2:]), atol=1e-5)


def test_fresh_adapters_change_nothing():
    policy = tiny.team(tiny.base_model(VOCABULARY), trained=False)
    ids = some_ids()
    assert torch.allclose(hidden(policy, ["agent_0"] * 5, ids), hidden(policy, [BASE] * 5, ids), atol=1e-6)


def test_a_loss_on_one_agents_rows_moves_that_agent_alone(policy):
    hidden(policy, ["agent_0"] * 2 + ["agent_1"] * 3, some_ids())[:2].square().sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in policy.adapter_parameters("agent_1"))
    assert all(p.grad.any() for p in policy.adapter_parameters("agent_0"))


def gradients(policy, train=True):
    policy.train(train)
    policy.zero_grad()
    scores, _ = policy.score(BOTH, **inputs_of(some_ids()), temperature=0.7)
    (scores.logprobs_N.sum() + scores.entropy_N.square().sum()).backward()
    return {name: p.grad.clone() for name, p in policy.lm.named_parameters() if p.grad is not None}


def test_gradient_checkpointing_gives_the_same_gradients(policy):
    plain = gradients(policy)
    policy.activation_checkpointing_enable()
    counts = []
    for layer in policy.lm.get_base_model().get_decoder().layers:
        layer.mlp.register_forward_pre_hook(lambda *_: counts.append(1))
    checkpointed = gradients(policy)
    assert len(counts) == 2 * policy.config.num_hidden_layers  # each layer ran once more
    assert plain.keys() == checkpointed.keys()
    assert len(plain) == sum(len(policy.adapter_parameters(a)) for a in policy.adapters)
    for name in plain:
        assert torch.allclose(plain[name], checkpointed[name], rtol=1e-4, atol=1e-6), name


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_scores_are_a_full_log_softmax(policy, temperature, monkeypatch):
    monkeypatch.setattr("marl_coop.policy.team.LOGIT_ROWS", 4)  # several pieces, the last one smaller
    arguments = inputs_of(some_ids())
    scores, _ = policy.score(BOTH, **arguments, temperature=temperature)
    states = policy.hidden(BOTH, arguments["input_ids_RT"], **arguments["told"])
    logprobs = (policy.logits(states) / temperature).log_softmax(-1)
    for n, (row, column) in enumerate(zip(arguments["rows_N"], arguments["columns_N"], strict=True)):
        at = logprobs[row, column - 1]
        token = arguments["input_ids_RT"][row, column]
        assert torch.allclose(scores.logprobs_N[n], at[token], atol=1e-5)
        assert torch.allclose(scores.entropy_N[n], -(at.exp() * at).sum(), atol=1e-5)


def test_a_copy_of_a_team_shares_nothing_with_it(policy):
    states = hidden(policy, ["agent_0"] * 5, some_ids())
    before, other = policy.logits(states), copy.deepcopy(policy)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)
    assert torch.equal(policy.logits(states), before)
    assert not torch.allclose(other.logits(states), before, atol=1e-2)


def test_padding_does_not_reach_a_score(policy):
    arguments = inputs_of(some_ids())
    scores, _ = policy.score(BOTH, **arguments, temperature=1.0)
    padded = arguments["input_ids_RT"].where(arguments["told"]["attention_mask"] == 1, torch.tensor(7))
    assert not torch.equal(padded, arguments["input_ids_RT"])
    again, _ = policy.score(BOTH, **(arguments | {"input_ids_RT": padded}), temperature=1.0)
    assert torch.equal(scores.logprobs_N, again.logprobs_N)


def test_rows_of_an_adapter_must_stand_together():
    with pytest.raises(ValueError, match="rows of adapter 'a' are not contiguous"):
        spans_of(["a", "b", "a"])


def test_what_is_trained_is_lora_and_critics(policy):
    trained = {name for name, p in policy.named_parameters() if p.requires_grad}
    assert trained == {name for name, _ in policy.named_parameters() if "lora_" in name or name.startswith("critics.")}
    layers = [module for module in policy.lm.modules() if isinstance(module, LoraLayer)]
    assert len(layers) == 7 * policy.config.num_hidden_layers
    of_each = [{id(p) for p in policy.adapter_parameters(adapter)} for adapter in policy.adapters]
    assert [len(ids) for ids in of_each] == [2 * len(layers)] * 2
    assert not of_each[0] & of_each[1]
    assert len(of_each[0] | of_each[1]) + 4 * len(policy.adapters) == len(trained)


def upper(adapted=(2,)):
    """A team with adapters on some of three layers."""
    return tiny.team(tiny.base_model(VOCABULARY, layers=3), layers=list(adapted))


def test_layers_without_an_adapter_stay_bare():
    names = [name for name, p in upper().lm.named_parameters() if p.requires_grad]
    assert names
    assert all(".layers.2." in name for name in names)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_from_the_trunk_upwards_is_the_whole_forward(checkpointing):
    policy = upper((1, 2)).train()
    if checkpointing:
        policy.activation_checkpointing_enable()
    arguments, runs = inputs_of(some_ids()), []
    for i, layer in enumerate(policy.lm.get_base_model().get_decoder().layers):
        layer.mlp.register_forward_pre_hook(lambda *_, i=i: runs.append(i))
    with torch.no_grad():
        policy.score((Span(BASE, 0, 5),), **arguments, temperature=1.0)
    prefix_RTH = policy.prefix_hidden_RTH
    found = []
    for kept in ({}, {"prefix_hidden_RTH": prefix_RTH}):
        runs.clear()
        policy.zero_grad()
        scores, states = policy.score(BOTH, **arguments, temperature=1.0, **kept)
        (scores.logprobs_N.sum() + scores.entropy_N.square().sum()).backward()
        real = arguments["told"]["attention_mask"].bool()
        gradients = [p.grad.clone() for adapter in policy.adapters for p in policy.adapter_parameters(adapter)]
        found.append([scores.logprobs_N.detach(), states[real].detach(), *gradients])
    assert set(runs) == {1, 2}
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in zip(*found, strict=True))
    assert len(policy.lm.get_base_model().get_decoder().layers) == 3


def test_a_base_whose_layers_have_another_name(tmp_path):
    """GPT-2 calls its layers `h` and keeps weights the other way round."""
    torch.manual_seed(0)
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=64)).eval()
    lora = LoraConfig(r=4, target_modules=["c_attn", "c_fc"], task_type="CAUSAL_LM", fan_in_fan_out=True)
    policy = TeamPolicy(copy.deepcopy(gpt2), lora, tiny.SEATS, critic_seats=1).eval()
    nudged = [p for name, p in policy.lm.named_parameters() if "lora_B" in name]
    with torch.no_grad():
        for parameter in nudged:
            parameter.normal_(std=0.1)
    policy.save(tmp_path)
    ids = some_ids()
    routed = policy.logits(hidden(policy, ["agent_0"] * 2 + ["agent_1"] * 3, ids))
    for adapter, rows in [("agent_0", slice(0, 2)), ("agent_1", slice(2, 5))]:
        alone = PeftModel.from_pretrained(copy.deepcopy(gpt2), tmp_path / adapter).eval()(ids[rows]).logits
        assert torch.allclose(routed[rows], alone, atol=1e-5)


def digests(folder):
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.suffix in (".safetensors", ".pt")
    }


def test_saved_is_loaded_is_saved_byte_for_byte(policy, tmp_path):
    with torch.no_grad():
        for parameter in policy.critics.parameters():
            parameter.normal_()
    policy.save(tmp_path / "first")
    other = tiny.team(tiny.base_model(VOCABULARY), seed=9)
    other.save(tmp_path / "other")
    other.load(tmp_path / "first")
    other.save(tmp_path / "second")
    first = digests(tmp_path / "first")
    assert set(first) == {
        "agent_0/adapter_model.safetensors",
        "agent_1/adapter_model.safetensors",
        "critics.safetensors",
    }
    assert first == digests(tmp_path / "second")
    assert not set(first.values()) & set(digests(tmp_path / "other").values())
    restored = tiny.weights(other)
    assert all(torch.equal(p, restored[name]) for name, p in tiny.weights(policy).items())


def test_one_adapter_on_disk_can_start_both(policy, tmp_path):
    policy.save(tmp_path)
    policy.load_adapter("agent_1", tmp_path / "agent_0")
    ids = some_ids()
    twice = hidden(policy, ["agent_0"] * 2 + ["agent_1"] * 2, torch.cat([ids[:2], ids[:2]]))
    assert torch.allclose(twice[:2], twice[2:], atol=1e-6)
    assert {p.data_ptr() for p in policy.adapter_parameters("agent_0")}.isdisjoint(
        p.data_ptr() for p in policy.adapter_parameters("agent_1")
    )


def test_the_start_stays_what_it_was_and_is_not_trained(policy):
    ids = some_ids(rows=2)
    before = hidden(policy, ["agent_0", "agent_1"], ids)
    policy.snapshot_reference()
    assert torch.equal(hidden(policy, ["agent_0", "agent_1"], ids), before)
    trained = {id(p) for p in policy.parameters() if p.requires_grad}
    for adapter in policy.adapters:
        parameters = policy.adapter_parameters(adapter)
        assert all(id(p) in trained for p in parameters)
        assert not any(id(p) in trained for p in policy.adapter_parameters(reference_name(adapter)))
        for parameter in parameters:
            parameter.data.add_(0.1)
    assert not torch.allclose(hidden(policy, ["agent_0", "agent_1"], ids), before, atol=1e-2)
    assert torch.equal(hidden(policy, ["agent_0_start", "agent_1_start"], ids), before)


def test_critics_start_at_0_and_are_one_per_agent(policy):
    features = {adapter: torch.randn(3, 2 * policy.config.hidden_size) for adapter in policy.adapters}
    values = policy.values(features)
    assert all((values[adapter] == 0).all() and values[adapter].shape == (3,) for adapter in policy.adapters)
    values["agent_0"].sum().backward()
    assert all(p.grad is None for p in policy.critics["agent_1"].parameters())


@pytest.mark.parametrize("name", ["default", "mlp"])
def test_an_adapter_may_have_any_name_that_the_configuration_takes(tmp_path, name):
    policy = tiny.team(tiny.base_model(VOCABULARY), adapters=(name, "other"))
    assert len(policy.adapter_parameters(name)) == len(policy.adapter_parameters("other"))
    policy.save(tmp_path)
    policy.load(tmp_path)


def test_grouped_attention_is_eager_attention():
    attention.register()
    eager, grouped = (tiny.base_model(VOCABULARY, attn_implementation=name) for name in ("eager", "grouped"))
    arguments = inputs_of(some_ids())
    ids, mask = arguments["input_ids_RT"], arguments["told"]["attention_mask"]
    real = mask.bool()
    states = [model.model(input_ids=ids, attention_mask=mask).last_hidden_state[real] for model in (eager, grouped)]
    assert torch.allclose(*states, atol=1e-5)
    gradients = [
        torch.autograd.grad(state.square().sum(), model.model.layers[0].self_attn.k_proj.weight)[0]
        for state, model in zip(states, (eager, grouped), strict=True)
    ]
    assert torch.allclose(*gradients, rtol=1e-3, atol=1e-3)


def test_gradients_of_token_scores_are_those_of_the_whole_log_softmax():
    generator = torch.Generator().manual_seed(4)
    weight_VH, start_NH = torch.randn(30, 8, generator=generator), torch.randn(5, 8, generator=generator)
    ids_N, weights_N = torch.tensor([0, 3, 29, 3, 7]), torch.randn(5, generator=generator)
    heads = []

    def head(hidden_NH):
        heads.append(len(hidden_NH))
        return hidden_NH @ weight_VH.T

    def gradient(of, score):
        hidden_NH = start_NH.clone().requires_grad_()
        (of(*score(hidden_NH)) * weights_N).sum().backward()
        return hidden_NH.grad

    def whole(hidden_NH):
        logprobs_NV = (hidden_NH @ weight_VH.T / 0.7).log_softmax(-1)
        return logprobs_NV[torch.arange(5), ids_N], -(logprobs_NV.exp() * logprobs_NV).sum(-1)

    for of in (
        lambda logprob, _: logprob,
        lambda _, entropy: entropy,
        lambda logprob, entropy: logprob + 0.1 * entropy,
    ):
        found = gradient(of, lambda hidden_NH: token_scores(hidden_NH, ids_N, head, 0.7))
        assert torch.allclose(found, gradient(of, whole), atol=1e-5)
    assert len(heads) == 1 + 2 + 2  # logits are made again for the entropy alone
