"""A base in 4 bits (QLoRA): sampled and learned as it computes, its adapters plain ones."""

import pytest
import tiny
import torch
from trained import same

from marl_coop.engines import Request
from marl_coop.engines.embedded import EmbeddedEngine
from marl_coop.engines.selftest import check_model
from marl_coop.engines.vllm_server import VLLMServerEngine
from marl_coop.policy import loading, sharding
from marl_coop.policy.loading import load_base

WIDTH = 64  # of the tiny model: a block of NF4 is 64 weights


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    tokenizer = tiny.word_tokenizer(tiny.WORDS)
    tiny.base_model(len(tokenizer), hidden=WIDTH).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def quantized(folder):
    pytest.importorskip("bitsandbytes")
    return lambda: load_base(str(folder), "float32", load_in_4bit=True)[0]


def test_linear_layers_are_rounded_to_4_bits_and_the_head_is_not(folder, quantized):
    base, plain = quantized(), load_base(str(folder), "float32")[0]
    assert base.model.layers[0].mlp.up_proj.weight.numel() == plain.model.layers[0].mlp.up_proj.weight.numel() / 2
    assert torch.equal(base.lm_head.weight, plain.lm_head.weight)
    ids = torch.tensor([[5, 6, 7, 8]])
    gap = (base(ids).logits.log_softmax(-1) - plain(ids).logits.log_softmax(-1)).abs().max().item()
    assert 1e-3 < gap < 3.0
    assert not any(parameter.requires_grad for parameter in base.parameters())


def test_what_a_rounded_base_samples_is_what_it_learns_from(quantized):
    base = quantized()
    check_model(base, tiny.lora_config(), tiny.SEATS, longest=64)
    policy = tiny.team(base)
    engine = EmbeddedEngine(policy)
    requests = [
        Request(
            chat=(seat, i), ids=[5 + i, 6, 7 + i][: i + 1], adapter=seat, max_tokens=6, temperature=0.7,
            stop_ids=frozenset({1}), seed=i,
        )
        for i in range(3)
        for seat in tiny.SEATS
    ]  # fmt: skip
    for request, reply in zip(requests, tiny.sample(engine, requests), strict=True):
        assert tiny.trainer_logprobs(policy, request, reply) == pytest.approx(reply.logprobs, abs=0.05)


def test_adapters_learn_on_a_rounded_base_and_go_on_no_plain_one(tmp_path, folder, quantized):
    policy = tiny.team(quantized())
    before = tiny.weights(policy)
    trainer = tiny.cue_trainer(tmp_path / "run", policy=policy, num_updates=2)
    trainer.train()
    after = tiny.weights(policy)
    assert not same(before, after, 1e-4)
    policy.save(tmp_path / "saved")
    again, plain = tiny.team(quantized()), tiny.team(load_base(str(folder), "float32")[0])
    again.load(tmp_path / "saved")
    assert same(after, tiny.weights(again))
    with pytest.raises(ValueError, match="of another base, .* in 4 bits if it was that"):
        plain.load(tmp_path / "saved")


def test_without_the_library_that_rounds_it_is_one_line(folder, monkeypatch):
    monkeypatch.setattr(loading.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"bitsandbytes is not installed; pip install 'marl-coop\[qlora\]'"):
        load_base(str(folder), "float32", load_in_4bit=True)


def test_a_rounded_base_is_not_shared_out_nor_served_from_a_plain_one(quantized):
    policy = tiny.team(quantized())
    with pytest.raises(ValueError, match="shard_base shares out plain weights"):
        sharding.shard(policy, torch.device("cpu"))
    with pytest.raises(ValueError, match="vLLM would sample from the plain base"):
        VLLMServerEngine(policy, urls=["http://localhost:1/v1"])
