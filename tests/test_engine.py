"""The embedded engine against fresh forwards of whole chats, and its samples against the distribution."""

import dataclasses

import numpy as np
import pytest
import tiny
import torch

from marl_coop.engines import Request
from marl_coop.engines.embedded import EmbeddedEngine, _sample
from marl_coop.players import BASE
from marl_coop.policy import attention
from marl_coop.policy.routed_lora import spans_of

VOCABULARY, EOS = 24, 1


@pytest.fixture(scope="module", params=["sdpa", "eager", "grouped"])
def policy(request):
    attention.register()
    return tiny.team(tiny.base_model(VOCABULARY, attn_implementation=request.param))


def engine_of(policy, temperature=1.0, max_rows=64):
    return EmbeddedEngine(policy, EOS, temperature, max_rows)


def prompts(seed=0, rows=6):
    """Chats of different lengths, of both agents and of the base, in no order."""
    rng = np.random.default_rng(seed)
    adapters = ["agent_1", "agent_0", BASE]
    return [
        Request(
            chat=("chat", i),
            ids=rng.integers(2, VOCABULARY, size=3 + 2 * i).tolist(),
            adapter=adapters[i % 3],
            max_tokens=2 + i % 4,
            seed=100 + i,
        )
        for i in range(rows)
    ]


def next_turn(requests, generations, turn):
    """The chats with what was sampled and then an observation, as `Chat.follow` makes them."""
    rng = np.random.default_rng(turn)
    return [
        Request(
            chat=r.chat,
            ids=[*r.ids, *g.ids, *rng.integers(2, VOCABULARY, size=1 + (i + turn) % 4).tolist()],
            adapter=r.adapter,
            max_tokens=2 + (i + turn) % 5,
            seed=1000 * turn + i,
        )
        for i, (r, g) in enumerate(zip(requests, generations, strict=True))
    ]


def play(engine, requests, turns=3):
    """All generations of some turns, and the requests."""
    asked, got = [], []
    for turn in range(1, turns + 1):
        asked.append(requests)
        got.append(engine.generate(requests))
        requests = next_turn(requests, got[-1], turn)
    return asked, got


@torch.no_grad()
def by_hand(policy, request, temperature):
    """One reply, token by token, each from a fresh forward of the whole chat, alone and without a cache."""
    ids, sampled, logprobs = list(request.ids), [], []
    uniforms = np.random.default_rng(request.seed).random(request.max_tokens)
    while len(sampled) < request.max_tokens and (not sampled or sampled[-1] != EOS):
        states = policy.hidden(spans_of([request.adapter]), torch.tensor([ids]), use_cache=False)
        probabilities = (policy.logits(states[0, -1]) / temperature).double().softmax(-1)
        token = int((probabilities.cumsum(-1) <= uniforms[len(sampled)]).sum())
        sampled.append(token)
        logprobs.append(float(probabilities[token].log()))
        ids.append(token)
    return sampled, logprobs


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_turns_from_the_cache_are_those_of_fresh_forwards(policy, temperature):
    asked, got = play(engine_of(policy, temperature), prompts())
    for request, generation in zip(sum(asked, []), sum(got, []), strict=True):
        ids, logprobs = by_hand(policy, request, temperature)
        assert generation.ids == ids
        assert generation.logprobs == pytest.approx(logprobs, abs=1e-4)


def test_the_trunk_is_what_a_forward_of_the_whole_chat_makes():
    policy = tiny.team(tiny.base_model(VOCABULARY, layers=3), layers=[2])
    asked, got = play(engine_of(policy, max_rows=4), prompts())
    for request, generation in zip(asked[-1], got[-1], strict=True):
        ids = [*request.ids, *generation.ids][:-1]
        policy.hidden(spans_of([request.adapter]), torch.tensor([ids]), use_cache=False)
        assert torch.allclose(generation.prefix_hidden_TH, policy.prefix_hidden_RTH[0], atol=1e-5)


def test_there_is_no_trunk_below_adapters_on_every_layer(policy):
    assert engine_of(policy).generate(prompts())[0].prefix_hidden_TH is None


def test_the_cache_is_used(policy):
    engine, widths = engine_of(policy), []
    decoder = policy.lm.get_base_model().get_decoder()
    hook = decoder.register_forward_pre_hook(
        lambda module, args, kwargs: widths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    requests = prompts()
    replies = engine.generate(requests)
    first, widths[:] = list(widths), []
    following = next_turn(requests, replies, 1)
    engine.generate(following)
    hook.remove()
    assert first[0] == max(len(r.ids) for r in requests)
    assert set(first[1:]) == {1}
    assert max(widths) < min(len(r.ids) for r in following)  # no chat was fed anew


def test_a_reply_does_not_depend_on_the_batch(policy):
    _, together = play(engine_of(policy), prompts())
    for max_rows in (1, 2, 4):
        _, split = play(engine_of(policy, max_rows=max_rows), prompts())
        assert [[g.ids for g in turn] for turn in split] == [[g.ids for g in turn] for turn in together]
    for i, request in enumerate(prompts()):
        alone = engine_of(policy).generate([request])[0]
        assert alone.ids == together[0][i].ids
        assert alone.logprobs == pytest.approx(together[0][i].logprobs, abs=1e-4)
    backwards = engine_of(policy).generate(prompts()[::-1])[::-1]
    assert [g.ids for g in backwards] == [g.ids for g in together[0]]


def test_the_seed_alone_fixes_a_reply(policy):
    request = prompts()[3]
    again = [
        Request(chat=i, ids=request.ids, adapter=request.adapter, max_tokens=8, seed=seed)
        for i, seed in enumerate([5, 5, 6, 7, 8])
    ]
    replies = [tuple(g.ids) for g in engine_of(policy).generate(again)]
    assert replies[0] == replies[1]
    assert len(set(replies)) > 2


def test_a_chat_that_left_or_changed_is_not_served_from_the_cache(policy):
    engine, requests = engine_of(policy), prompts()
    replies = engine.generate(requests)
    following = next_turn(requests, replies, 1)[2:]  # two chats have ended
    other = [
        Request(chat=r.chat, ids=[3, *r.ids], adapter=r.adapter, max_tokens=r.max_tokens, seed=r.seed)
        for r in following
    ]  # the same names for other chats
    for asked in (following, other):
        for request, generation in zip(asked, engine.generate(asked), strict=True):
            assert (generation.ids, generation.logprobs) == (
                by_hand(policy, request, 1.0)[0],
                pytest.approx(by_hand(policy, request, 1.0)[1], abs=1e-4),
            )


def test_a_cache_of_one_adapter_is_never_used_under_another(policy):
    engine, requests = engine_of(policy), prompts(rows=2)
    following = next_turn(requests, engine.generate(requests), 1)
    swapped = [dataclasses.replace(r, adapter=o.adapter) for r, o in zip(following, following[::-1], strict=True)]
    for request, generation in zip(swapped, engine.generate(swapped), strict=True):
        assert generation.logprobs == pytest.approx(by_hand(policy, request, 1.0)[1], abs=1e-4)


def test_after_forget_new_weights_are_used():
    policy = tiny.team(tiny.base_model(VOCABULARY))
    engine, requests = engine_of(policy), prompts()
    following = next_turn(requests, engine.generate(requests), 1)
    with torch.no_grad():
        for adapter in policy.adapters:
            for parameter in policy.adapter_parameters(adapter):
                parameter.mul_(-1.5)
    engine.reset_cache()
    for request, generation in zip(following, engine.generate(following), strict=True):
        assert generation.logprobs == pytest.approx(by_hand(policy, request, 1.0)[1], abs=1e-4)


def test_a_reply_ends_with_eos_or_at_its_limit(policy):
    requests = [Request(chat=i, ids=[2, 3, 4], adapter="agent_0", max_tokens=1 + i % 12, seed=i) for i in range(120)]
    ended = 0
    for request, generation in zip(requests, engine_of(policy).generate(requests), strict=True):
        assert EOS not in generation.ids[:-1]
        assert len(generation.ids) == len(generation.logprobs)
        assert generation.ids[-1] == EOS or len(generation.ids) == request.max_tokens
        ended += len(generation.ids) < request.max_tokens
    assert ended > 3


def test_the_mode_of_the_model_is_given_back(policy):
    for training in (True, False):
        policy.train(training)
        engine_of(policy).generate(prompts()[:1])
        assert policy.training is training


@pytest.mark.parametrize("temperature", [1.0, 0.4])
def test_samples_follow_the_distribution(policy, temperature):
    draws, prompt = 3000, [2, 5, 3]
    requests = [Request(chat=i, ids=prompt, adapter="agent_0", max_tokens=1, seed=i) for i in range(draws)]
    generations = engine_of(policy, temperature, max_rows=1000).generate(requests)
    counts = np.bincount([g.ids[0] for g in generations], minlength=VOCABULARY)
    with torch.no_grad():
        states = policy.hidden(spans_of(["agent_0"]), torch.tensor([prompt]))
        expected = (policy.logits(states[0, -1]) / temperature).double().softmax(-1).numpy()
    for generation in generations[:50]:
        assert generation.logprobs[0] == pytest.approx(np.log(expected[generation.ids[0]]), abs=1e-4)
    common = expected * draws >= 5
    observed = np.append(counts[common], counts[~common].sum())
    wanted = np.append(expected[common], expected[~common].sum()) * draws
    chi_square = ((observed - wanted) ** 2 / np.maximum(wanted, 1e-9)).sum()
    assert chi_square < len(observed) + 5 * np.sqrt(2 * len(observed))


def test_sampling_inverts_the_cumulative_distribution():
    logits = torch.tensor([0.2, 0.0, 0.5, 0.3]).log().repeat(6, 1)
    uniform = torch.tensor([0.0, 0.19, 0.21, 0.69, 0.71, 0.99999], dtype=torch.float64)
    tokens, logprobs = _sample(logits, uniform)
    assert tokens.tolist() == [0, 0, 2, 2, 3, 3]  # never the token of probability 0
    assert logprobs.exp().tolist() == pytest.approx([0.2, 0.2, 0.5, 0.5, 0.3, 0.3])


def test_a_token_of_probability_0_is_never_sampled():
    logits = torch.tensor([[0.5, 0.5, 0.0]]).log()
    highest = torch.tensor([np.nextafter(1.0, 0.0)])  # the largest number that a generator draws
    assert _sample(logits, highest)[0].item() == 1
