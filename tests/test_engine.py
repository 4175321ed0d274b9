"""The embedded engine against fresh forwards of whole chats, and its samples against the distribution."""

import dataclasses

import numpy as np
import pytest
import tiny
import torch

from marl_coop.engines import FinishReason, Request
from marl_coop.engines.embedded import EmbeddedEngine, sample_by_inversion
from marl_coop.players import BASE
from marl_coop.policy import attention
from marl_coop.policy.routed_lora import spans_of

VOCABULARY, EOS = 24, 1


@pytest.fixture(scope="module", params=["sdpa", "eager", "grouped"])
def policy(request):
    attention.register()
    return tiny.team(tiny.base_model(VOCABULARY, attn_implementation=request.param))


def engine_of(policy):
    return EmbeddedEngine(policy)


def ask(**fields):
    return Request(**({"temperature": 1.0, "stop_ids": frozenset([EOS]), "adapter": "agent_0"} | fields))


def prompts(seed=0, rows=6, temperature=1.0):
    """Chats of different lengths, of both agents and of the base, in no order."""
    rng = np.random.default_rng(seed)
    adapters = ["agent_1", "agent_0", BASE]
    return [
        ask(
            chat=("chat", i),
            ids=rng.integers(2, VOCABULARY, size=3 + 2 * i).tolist(),
            adapter=adapters[i % 3],
            max_tokens=2 + i % 4,
            temperature=temperature,
            seed=100 + i,
        )
        for i in range(rows)
    ]


def next_turn(requests, generations, turn):
    """The chats with what was sampled and then an observation, as `Chat.follow` makes them."""
    rng = np.random.default_rng(turn)
    return [
        dataclasses.replace(
            r,
            ids=[*r.ids, *g.ids, *rng.integers(2, VOCABULARY, size=1 + (i + turn) % 4).tolist()],
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
        got.append(tiny.sample(engine, requests))
        requests = next_turn(requests, got[-1], turn)
    return asked, got


@torch.no_grad()
def by_hand(policy, request):
    """One reply, token by token, each from a fresh forward of the whole chat, alone and without a cache."""
    ids, sampled, logprobs = list(request.ids), [], []
    uniforms = np.random.default_rng(request.seed).random(request.max_tokens)
    while len(sampled) < request.max_tokens and (not sampled or sampled[-1] not in request.stop_ids):
        states = policy.hidden(spans_of([request.adapter]), torch.tensor([ids]), use_cache=False)
        probabilities = (policy.logits(states[0, -1]) / request.temperature).double().softmax(-1)
        token = int((probabilities.cumsum(-1) <= uniforms[len(sampled)]).sum())
        sampled.append(token)
        logprobs.append(float(probabilities[token].log()))
        ids.append(token)
    return sampled, logprobs


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_turns_from_the_cache_are_those_of_fresh_forwards(policy, temperature):
    asked, got = play(engine_of(policy), prompts(temperature=temperature))
    for request, generation in zip(sum(asked, []), sum(got, []), strict=True):
        ids, logprobs = by_hand(policy, request)
        assert generation.ids == ids
        assert generation.logprobs == pytest.approx(logprobs, abs=1e-4)


def test_the_trunk_is_what_a_forward_of_the_whole_chat_makes():
    policy = tiny.team(tiny.base_model(VOCABULARY, layers=3), layers=[2])
    asked, got = play(engine_of(policy), prompts())
    for request, generation in zip(asked[-1], got[-1], strict=True):
        ids = [*request.ids, *generation.ids][:-1]
        policy.hidden(spans_of([request.adapter]), torch.tensor([ids]), use_cache=False)
        assert torch.allclose(generation.prefix_hidden_TH, policy.prefix_hidden_RTH[0], atol=1e-5)


def test_there_is_no_trunk_below_adapters_on_every_layer(policy):
    assert tiny.sample(engine_of(policy), prompts())[0].prefix_hidden_TH is None


def test_the_cache_is_used(policy):
    engine, widths = engine_of(policy), []
    decoder = policy.lm.get_base_model().get_decoder()
    hook = decoder.register_forward_pre_hook(
        lambda module, args, kwargs: widths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    requests = prompts()
    replies = tiny.sample(engine, requests)
    first, widths[:] = list(widths), []
    following = next_turn(requests, replies, 1)
    tiny.sample(engine, following)
    hook.remove()
    assert first[0] == max(len(r.ids) for r in requests)
    assert set(first[1:]) == {1}
    assert max(widths) < min(len(r.ids) for r in following)  # no chat was fed anew


def test_a_reply_does_not_depend_on_the_batch(policy):
    _, together = play(engine_of(policy), prompts())
    for i, request in enumerate(prompts()):
        alone = tiny.sample(engine_of(policy), [request])[0]
        assert alone.ids == together[0][i].ids
        assert alone.logprobs == pytest.approx(together[0][i].logprobs, abs=1e-4)
    backwards = tiny.sample(engine_of(policy), prompts()[::-1])[::-1]
    assert [g.ids for g in backwards] == [g.ids for g in together[0]]


def test_the_seed_alone_fixes_a_reply(policy):
    one = prompts()[3]
    again = [dataclasses.replace(one, chat=i, max_tokens=8, seed=seed) for i, seed in enumerate([5, 5, 6, 7, 8])]
    replies = [tuple(g.ids) for g in tiny.sample(engine_of(policy), again)]
    assert replies[0] == replies[1]
    assert len(set(replies)) > 2


def test_a_chat_that_left_or_changed_is_not_served_from_the_cache(policy):
    engine, requests = engine_of(policy), prompts()
    replies = tiny.sample(engine, requests)
    following = next_turn(requests, replies, 1)[2:]  # two chats have ended
    other = [dataclasses.replace(r, ids=[3, *r.ids]) for r in following]  # the same names for other chats
    for asked in (following, other):
        for request, generation in zip(asked, tiny.sample(engine, asked), strict=True):
            assert (generation.ids, generation.logprobs) == (
                by_hand(policy, request)[0],
                pytest.approx(by_hand(policy, request)[1], abs=1e-4),
            )


def test_a_cache_of_one_adapter_is_never_used_under_another(policy):
    engine, requests = engine_of(policy), prompts(rows=2)
    following = next_turn(requests, tiny.sample(engine, requests), 1)
    swapped = [dataclasses.replace(r, adapter=o.adapter) for r, o in zip(following, following[::-1], strict=True)]
    for request, generation in zip(swapped, tiny.sample(engine, swapped), strict=True):
        assert generation.logprobs == pytest.approx(by_hand(policy, request)[1], abs=1e-4)


def test_after_forget_new_weights_are_used():
    policy = tiny.team(tiny.base_model(VOCABULARY))
    engine, requests = engine_of(policy), prompts()
    following = next_turn(requests, tiny.sample(engine, requests), 1)
    with torch.no_grad():
        for adapter in policy.adapters:
            for parameter in policy.adapter_parameters(adapter):
                parameter.mul_(-1.5)
    engine.reset_cache()
    for request, generation in zip(following, tiny.sample(engine, following), strict=True):
        assert generation.logprobs == pytest.approx(by_hand(policy, request)[1], abs=1e-4)


def test_after_new_adapters_are_loaded_they_are_used_and_named():
    policy = tiny.team(tiny.base_model(VOCABULARY))
    engine, requests = engine_of(policy), prompts()
    first = tiny.sample(engine, requests)
    with torch.no_grad():
        for parameter in policy.adapter_parameters("agent_0"):
            parameter.mul_(-1.5)
    engine.load_adapters(7)
    following = next_turn(requests, first, 1)
    second = tiny.sample(engine, following)
    assert {g.version for g in first} == {0} and {g.version for g in second} == {7}
    for request, generation in zip(following, second, strict=True):
        assert generation.logprobs == pytest.approx(by_hand(policy, request)[1], abs=1e-4)


def test_chats_may_go_on_in_any_company(policy):
    """Some chats at a time, some of them turns ahead, in batches that are made anew: the replies stay theirs."""
    asked, got = play(engine_of(policy), prompts(), turns=4)
    wanted = {(r.chat, len(r.ids)): (r, g) for r, g in zip(sum(asked, []), sum(got, []), strict=True)}
    rng, waiting = np.random.default_rng(3), [[turn[i] for turn in asked] for i in range(len(asked[0]))]
    engine, parts = engine_of(policy), 0
    while waiting := [turns for turns in waiting if turns]:
        some = [waiting[i] for i in rng.permutation(len(waiting))[: 1 + rng.integers(len(waiting))]]
        for request, generation in zip(now := [turns.pop(0) for turns in some], tiny.sample(engine, now), strict=True):
            _, expected = wanted[request.chat, len(request.ids)]
            assert generation.ids == expected.ids
            assert generation.logprobs == pytest.approx(expected.logprobs, abs=1e-4)
        parts += 1
    assert parts > 4


def test_a_chat_that_goes_on_in_other_company_is_not_fed_anew(policy):
    engine, requests = engine_of(policy), prompts()
    following = next_turn(requests, tiny.sample(engine, requests), 1)
    widths = []
    decoder = policy.lm.get_base_model().get_decoder()
    hook = decoder.register_forward_pre_hook(
        lambda module, args, kwargs: widths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    tiny.sample(engine, following[1:4])
    tiny.sample(engine, [following[0], *following[4:]])
    hook.remove()
    assert max(widths) < min(len(r.ids) for r in following)


def test_a_chat_may_be_asked_again_with_no_more_than_what_is_cached(policy):
    engine, requests = engine_of(policy), prompts()[:2]
    replies = tiny.sample(engine, requests)
    again = [dataclasses.replace(r, ids=[*r.ids, *g.ids[:-1]], seed=9) for r, g in zip(requests, replies, strict=True)]
    again[1] = next_turn(requests, replies, 1)[1]
    for request, generation in zip(again, tiny.sample(engine, again), strict=True):
        ids, logprobs = by_hand(policy, request)
        assert generation.ids == ids
        assert generation.logprobs == pytest.approx(logprobs, abs=1e-4)


def test_all_that_was_submitted_is_collected_once(policy):
    engine, requests = engine_of(policy), prompts()
    for request in requests:
        engine.submit(request)
    with pytest.raises(ValueError, match="was asked already"):
        engine.submit(requests[0])
    assert {g.chat for g in engine.collect()} == {r.chat for r in requests}
    assert engine.collect() == []
    engine.submit(requests[0])
    engine.reset_cache()
    assert engine.collect() == []


def test_temperatures_and_stop_tokens_are_each_request_s_own(policy):
    requests = [
        ask(chat=i, ids=[2, 3, 4], max_tokens=12, temperature=t, stop_ids=frozenset(stop), seed=i)
        for i, (t, stop) in enumerate([(1.0, (EOS,)), (0.3, (EOS,)), (1.0, (5, 6, 7, 8)), (2.0, ())] * 8)
    ]
    for request, generation in zip(requests, tiny.sample(engine_of(policy), requests), strict=True):
        ids, logprobs = by_hand(policy, request)
        assert generation.ids == ids
        assert generation.logprobs == pytest.approx(logprobs, abs=1e-4)
        assert (generation.finish_reason is FinishReason.STOP) == (ids[-1] in request.stop_ids)


def test_a_reply_ends_with_eos_or_at_its_limit(policy):
    requests = [ask(chat=i, ids=[2, 3, 4], max_tokens=1 + i % 12, seed=i) for i in range(120)]
    ended = 0
    for request, generation in zip(requests, tiny.sample(engine_of(policy), requests), strict=True):
        assert EOS not in generation.ids[:-1]
        assert len(generation.ids) == len(generation.logprobs)
        stopped = generation.ids[-1] == EOS
        assert stopped or len(generation.ids) == request.max_tokens
        assert generation.finish_reason == (FinishReason.STOP if stopped else FinishReason.LENGTH)
        ended += len(generation.ids) < request.max_tokens
    assert ended > 3


def test_the_mode_of_the_model_is_given_back(policy):
    for training in (True, False):
        policy.train(training)
        tiny.sample(engine_of(policy), prompts()[:1])
        assert policy.training is training


@pytest.mark.parametrize("temperature", [1.0, 0.4])
def test_samples_follow_the_distribution(policy, temperature):
    draws, prompt = 3000, [2, 5, 3]
    requests = [ask(chat=i, ids=prompt, max_tokens=1, temperature=temperature, seed=i) for i in range(draws)]
    generations = tiny.sample(engine_of(policy), requests)
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
    tokens, logprobs = sample_by_inversion(logits, uniform)
    assert tokens.tolist() == [0, 0, 2, 2, 3, 3]  # never the token of probability 0
    assert logprobs.exp().tolist() == pytest.approx([0.2, 0.2, 0.5, 0.5, 0.3, 0.3])


def test_a_token_of_probability_0_is_never_sampled():
    logits = torch.tensor([[0.5, 0.5, 0.0]]).log()
    highest = torch.tensor([np.nextafter(1.0, 0.0)])  # the largest number that a generator draws
    assert sample_by_inversion(logits, highest)[0].item() == 1
