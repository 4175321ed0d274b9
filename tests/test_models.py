"""What is sampled and learned is the distribution of the model's own forward, whatever the architecture."""

import numpy as np
import pytest
import tiny
import torch
import transformers
from peft import LoraConfig, PeftModel
from transformers import LlamaConfig

from marl_coop.config.schema import load_config
from marl_coop.engines import EngineError, Request, embedded
from marl_coop.engines.embedded import EmbeddedEngine
from marl_coop.engines.selftest import check_model, score_chats
from marl_coop.experiment.checks import check_model as check_plan
from marl_coop.experiment.setup import lora_config
from marl_coop.policy import attention, compat
from marl_coop.policy.team import TeamPolicy

VOCABULARY, EOS, WINDOW, TURNS = 48, 1, 8, 3
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": EOS,
}
ATTENTION = ["q_proj", "v_proj"]
LLAMA_LIKE = [*ATTENTION, "k_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
MIXED = ["sliding_attention", "full_attention", "sliding_attention"]
SLIDING = {"sliding_window": WINDOW, "layer_types": MIXED}
CAPS = {"final_logit_softcapping": 3.0, "attn_logit_softcapping": 5.0}
SCALES = {"logits_scaling": 4.0, "embedding_multiplier": 3.0, "residual_multiplier": 0.5}
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
GPT2 = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 128, "vocab_size": VOCABULARY, "initializer_range": 0.3}
FAMILIES = {  # name: (class of its configuration, what differs from SMALL, modules that carry adapters)
    "llama": ("LlamaConfig", {}, LLAMA_LIKE),
    "qwen2": ("Qwen2Config", {}, LLAMA_LIKE),
    "qwen2-sliding": ("Qwen2Config", SLIDING | {"use_sliding_window": True}, ATTENTION),
    "qwen3": ("Qwen3Config", {}, LLAMA_LIKE),
    "mistral": ("MistralConfig", {"sliding_window": None}, LLAMA_LIKE),
    "mistral-sliding": ("MistralConfig", {"sliding_window": WINDOW}, LLAMA_LIKE),
    "gemma": ("GemmaConfig", {}, LLAMA_LIKE),
    "gemma2": ("Gemma2Config", {"sliding_window": WINDOW} | CAPS, LLAMA_LIKE),
    "gemma3": ("Gemma3TextConfig", SLIDING, LLAMA_LIKE),
    "phi3": ("Phi3Config", {"sliding_window": None}, ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]),
    "phi3-sliding": ("Phi3Config", {"sliding_window": WINDOW}, ["qkv_proj", "down_proj"]),
    "smollm3": ("SmolLM3Config", {"no_rope_layers": [1, 1, 0]}, LLAMA_LIKE),
    "olmo2": ("Olmo2Config", {}, LLAMA_LIKE),
    "olmo3": ("Olmo3Config", SLIDING, LLAMA_LIKE),
    "granite": ("GraniteConfig", SCALES, LLAMA_LIKE),
    "cohere": ("CohereConfig", {"logit_scale": 0.25}, LLAMA_LIKE),
    "cohere2": ("Cohere2Config", {"logit_scale": 0.25} | SLIDING, LLAMA_LIKE),
    "gpt2": ("GPT2Config", {}, ["c_attn", "c_proj", "c_fc"]),
    "qwen3-moe": ("Qwen3MoeConfig", MOE, ATTENTION),
}  # fmt: skip


def model_of(family):
    """A random model of a family, in float32, whose chats are longer than its sliding window."""
    name, changes, targets = FAMILIES[family]
    torch.manual_seed(0)
    sizes = GPT2 | {key: SMALL[key] for key in ("pad_token_id", "bos_token_id", "eos_token_id")}
    config = getattr(transformers, name)(**((sizes if family == "gpt2" else SMALL) | changes))
    return transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval(), targets


def team_of(family):
    base, targets = model_of(family)
    lora = LoraConfig(r=4, lora_alpha=8, target_modules=targets, task_type="CAUSAL_LM", fan_in_fan_out=family == "gpt2")
    policy = TeamPolicy(base, lora, tiny.SEATS, critic_seats=1)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in policy.lm.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    return policy


def played(policy, temperature=0.8):
    """Chats of both adapters and of the base over several turns, each of another length: (adapter, ids, sampled)."""
    engine, rng = EmbeddedEngine(policy), np.random.default_rng(0)
    adapters = [*tiny.SEATS, None] * 2
    chats = {i: rng.integers(2, VOCABULARY, size=2 + 3 * i).tolist() for i in range(len(adapters))}
    sampled = {i: [] for i in chats}  # (place, log-probability) of each sampled token
    for turn in range(TURNS):
        for i, ids in chats.items():
            request = {"max_tokens": 2 + (i + turn) % 4, "temperature": temperature, "seed": 10 * turn + i}
            engine.submit(Request(chat=i, ids=ids, adapter=adapters[i], stop_ids=frozenset({EOS}), **request))
        for reply in engine.collect():
            ids = chats[reply.chat]
            sampled[reply.chat] += [(len(ids) + k, logprob) for k, logprob in enumerate(reply.logprobs)]
            chats[reply.chat] = [
                *ids,
                *reply.ids,
                *rng.integers(2, VOCABULARY, size=1 + (reply.chat + turn) % 4).tolist(),
            ]
    return [(adapters[i], chats[i], sampled[i]) for i in chats]


def by_the_models_own_forward(family, policy, folder, chats, temperature=0.8):
    """Log-probabilities of the sampled tokens by transformers and PEFT alone: each chat by itself, without a cache."""
    policy.save(folder)
    found = []
    for adapter, ids, sampled in chats:
        model, _ = model_of(family)
        if adapter is not None:
            model = PeftModel.from_pretrained(model, folder / adapter).eval()
        with torch.no_grad():
            logprobs_TV = (model(torch.tensor([ids])).logits[0] / temperature).log_softmax(-1)
        found += [float(logprobs_TV[place - 1, ids[place]]) for place, _ in sampled]
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_engine_and_learner_say_what_plain_transformers_and_peft_say(family, tmp_path):
    policy = team_of(family)
    chats = sorted(played(policy), key=lambda chat: str(chat[0]))
    expected = by_the_models_own_forward(family, policy, tmp_path, chats)
    engine = [logprob for *_, sampled in chats for _, logprob in sampled]
    assert np.allclose(engine, expected, atol=2e-4)

    with torch.no_grad():
        for padding_free in (False, True):
            assert np.allclose(score_chats(policy, chats, 0.8, padding_free), expected, atol=2e-4)
    bare = by_the_models_own_forward(family, policy, tmp_path, [(None, *rest) for _, *rest in chats])
    adapters = [adapter for adapter, _, sampled in chats for _ in sampled]
    for seat in tiny.SEATS:
        assert max(abs(a - b) for a, b, adapter in zip(expected, bare, adapters, strict=True) if adapter == seat) > 0.1


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_supported_model_passes_the_self_test_and_comes_back_as_it_was(family, dtype):
    base, targets = model_of(family)
    base.to(dtype)
    before, modules = {n: p.clone() for n, p in base.named_parameters()}, [type(m) for m in base.modules()]
    check_model(base, LoraConfig(r=2, target_modules=targets, task_type="CAUSAL_LM"), tiny.SEATS, 64)
    assert [type(m) for m in base.modules()] == modules
    assert all(torch.equal(before[name], p) for name, p in base.named_parameters())


def test_a_model_that_sees_is_adapted_in_its_language_model_alone(tmp_path):
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
    text = transformers.Gemma3TextConfig(**SMALL | SLIDING | {"vocab_size": 300})
    sees = {"vision_config": vision | {"image_size": 16, "patch_size": 8}, "mm_tokens_per_image": 4}
    config = transformers.Gemma3Config(text_config=text.to_dict(), **sees, image_token_index=299)

    def model():
        torch.manual_seed(0)
        return transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()

    base, settings = model(), load_config([], ["lora.r=2"])
    check_plan(settings, base, torch.device("cpu"), longest=64)
    policy = TeamPolicy(base, lora_config(settings, base), tiny.SEATS, critic_seats=1)
    adapted = {n for n, m in policy.base.named_modules() if isinstance(m, compat.LoraLayer)}
    assert adapted and all(name.startswith("model.language_model.layers.") for name in adapted)
    for weight in policy.adapter_parameters("agent_0", "B"):
        torch.nn.init.normal_(weight, std=0.3)
    policy.save(tmp_path)
    chat, ids = [("agent_0", [*range(2, 30)], [(i, 0.0) for i in range(1, 28)])], torch.arange(2, 30)
    with torch.no_grad():
        logprobs_TV = PeftModel.from_pretrained(model(), tmp_path / "agent_0")(ids[None]).logits[0].log_softmax(-1)
        found = score_chats(policy, chat, temperature=1.0)
    assert torch.allclose(found, logprobs_TV[:-1].gather(-1, ids[1:, None])[:, 0], atol=1e-4)


def test_nothing_of_a_team_that_is_unloaded_stays_on_the_base():
    base = tiny.base_model(VOCABULARY)
    check_model(base, tiny.lora_config(layers=[1]), tiny.SEATS, 64)  # which keeps what goes into layer 1
    assert not any(module._forward_pre_hooks for module in base.modules())


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "gemma2"])
def test_grouped_attention_is_eager_attention_in_every_family(family):
    attention.register()
    model, _ = model_of(family)
    ids = torch.randint(2, VOCABULARY, (2, 30), generator=torch.Generator().manual_seed(0))
    found = []
    for name in ("eager", "grouped"):
        model.set_attn_implementation(name)
        with torch.no_grad():
            found.append(model(ids, use_cache=False).logits)
    assert torch.allclose(*found, atol=1e-4)


GPT_OSS = {"num_local_experts": 4, "num_experts_per_tok": 2, "layer_types": MIXED, "sliding_window": WINDOW}


@pytest.mark.parametrize(
    "name, changes, more",
    [("Gemma2Config", CAPS, "softcap"), ("GptOssConfig", GPT_OSS, "s_aux")],
    ids=["caps", "sinks"],
)
def test_grouped_attention_is_refused_where_a_models_own_does_more(name, changes, more):
    """Sampling, learning and the forward with it would leave out the same."""
    attention.register()
    config = getattr(transformers, name)(**SMALL | changes)
    base = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="grouped")
    lora = LoraConfig(r=2, target_modules=ATTENTION, task_type="CAUSAL_LM")
    with pytest.raises(ValueError, match=f"'grouped' does not compute {more}, which this model has: use 'eager'"):
        check_model(base.eval(), lora, tiny.SEATS, longest=64)
    base.set_attn_implementation("eager")
    check_model(base, lora, tiny.SEATS, longest=64)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_chat_that_may_outgrow_the_models_positions_is_refused_and_one_that_fills_them_is_right(family, tmp_path):
    policy = team_of(family)
    engine = EmbeddedEngine(policy)
    ids = {
        chat: np.random.default_rng(chat).integers(2, VOCABULARY, size=n).tolist() for chat, n in enumerate((125, 9))
    }
    request = {"adapter": "agent_0", "temperature": 0.8, "stop_ids": frozenset(), "seed": 1}
    with pytest.raises(EngineError, match="may come to 129 tokens, and the model has 128 positions"):
        engine.submit(Request(chat=0, ids=ids[0], max_tokens=4, **request))
    for chat in ids:
        engine.submit(Request(chat=chat, ids=ids[chat], max_tokens=3, **request))
    chats = []
    for reply in sorted(engine.collect(), key=lambda reply: reply.chat):
        places = range(len(ids[reply.chat]), len(ids[reply.chat]) + 3)
        chats.append(("agent_0", ids[reply.chat] + reply.ids, list(zip(places, reply.logprobs, strict=True))))
    expected = by_the_models_own_forward(family, policy, tmp_path, chats)
    assert np.allclose([logprob for *_, sampled in chats for _, logprob in sampled], expected, atol=2e-4)


def test_a_model_whose_masks_see_too_much_is_refused_with_what_differs(monkeypatch):
    """As the engine of before was: it took a sliding window for none."""
    base, targets = model_of("mistral-sliding")
    lora = LoraConfig(r=2, target_modules=targets, task_type="CAUSAL_LM")
    monkeypatch.setattr(embedded, "attention_mask", lambda _, *rest: compat.attention_mask(LlamaConfig(), *rest))
    with pytest.raises(ValueError, match=r"mistral: the engine samples from a distribution that is \d\S* nats off"):
        check_model(base, lora, tiny.SEATS, longest=64)


@pytest.mark.parametrize(
    "config, targets, problem",
    [
        (
            transformers.MambaConfig(vocab_size=48, hidden_size=16, state_size=4, num_hidden_layers=2),
            ["in_proj"],
            "fails",
        ),
        (
            transformers.Qwen3MoeConfig(**SMALL, **MOE),
            ["gate_proj", "up_proj", "down_proj"],
            "cannot carry these adapters|fails",
        ),
    ],
    ids=["state-space", "experts"],
)
def test_an_architecture_that_cannot_be_routed_is_refused_in_one_line(config, targets, problem):
    torch.manual_seed(0)
    base = transformers.AutoModelForCausalLM.from_config(config)
    with pytest.raises(ValueError, match=problem) as refusal:
        check_model(base, LoraConfig(r=2, target_modules=targets, task_type="CAUSAL_LM"), tiny.SEATS, longest=64)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "name, changes, targets",
    [
        ("DogeConfig", {"keep_window_size": 32}, ATTENTION),  # attends to the 32 places that it finds most important
        ("LlamaConfig", {"sliding_window": 40}, ATTENTION),  # a key that this architecture does not read
        (
            "Phi3Config",
            {
                "sliding_window": None,
                "original_max_position_embeddings": 48,
                "rope_parameters": {
                    "rope_type": "longrope",
                    "rope_theta": 10000.0,
                    "original_max_position_embeddings": 48,
                    "short_factor": [1.0] * 4,
                    "long_factor": [4.0, 3.0, 2.0, 1.5],
                },
            },
            ["qkv_proj"],
        ),
    ],
    ids=["sparse", "window-not-read", "positions-scaled-by-length"],
)
def test_what_only_a_long_chat_shows_is_refused_where_chats_are_long(name, changes, targets):
    torch.manual_seed(0)
    config = getattr(transformers, name)(**SMALL | changes)
    base = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    lora = LoraConfig(r=2, target_modules=targets, task_type="CAUSAL_LM")
    check_model(base, lora, tiny.SEATS, longest=32)
    with pytest.raises(ValueError, match=r"off the model's own forward \(allowed: 0.001\) in a chat of \d+ tokens"):
        check_model(base, lora, tiny.SEATS, longest=120)


@pytest.mark.parametrize("family", ["biogpt", "seed_oss"])
def test_learning_sees_the_distribution_that_was_sampled_where_a_model_drops_out_without_a_module_for_it(family):
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(family, **SMALL | {"attention_dropout": 0.5})
    base = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    policy = TeamPolicy(base, LoraConfig(r=2, target_modules=ATTENTION), tiny.SEATS, critic_seats=1).train()
    chat = [("agent_0", list(range(2, 20)), [(place, 0.0) for place in range(5, 18)])]
    with torch.no_grad():
        sampled = score_chats(policy.eval(), chat, temperature=1.0)
        learned = score_chats(policy.train(), chat, temperature=1.0)
    assert torch.equal(sampled, learned)


def test_a_model_that_computes_otherwise_while_it_is_trained_is_refused():
    torch.manual_seed(0)
    config = transformers.MixtralConfig(**SMALL, num_local_experts=4, num_experts_per_tok=2, router_jitter_noise=0.5)
    base = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with pytest.raises(ValueError, match=r"mixtral: the learner scores a distribution that is \d\S* nats off"):
        check_model(base, LoraConfig(r=2, target_modules=ATTENTION), tiny.SEATS, longest=64)
