"""The engine of vLLM servers, against servers of our own that speak as vLLM does."""

import gc
import socket

import pytest
import tiny
import torch
from vllm_servers import A, B, ask, engine_of, known, requests

from marl_coop.engines import EngineError, FinishReason
from marl_coop.engines.vllm_server import Servers, VLLMServerEngine
from marl_coop.policy.loading import load_base


@pytest.fixture
def policy(started):
    return tiny.team(load_base(str(started[0].folder), "float32")[0])


def test_replies_are_sampled_from_the_adapter_that_is_asked_for(policy, servers):
    asked = requests()
    replies = tiny.sample(engine_of(policy, servers, version=7), asked)
    for request, reply in zip(asked, replies, strict=True):
        assert reply.logprobs == pytest.approx(tiny.trainer_logprobs(policy, request, reply), abs=1e-4)
        ended = reply.ids[-1] == 1
        assert reply.finish_reason is (FinishReason.STOP if ended else FinishReason.LENGTH) and reply.version == 7


def test_an_adapter_that_has_changed_is_used_and_the_old_one_is_forgotten(policy, servers):
    engine = engine_of(policy, servers)
    before = tiny.sample(engine, requests())
    with torch.no_grad():
        for parameter in policy.adapter_parameters(A):
            parameter.add_(0.1)
    names = {adapter: folder.name for adapter, folder in engine._served.items()}
    engine.load_adapters(2)
    after = tiny.sample(engine, requests())
    changed = [old.logprobs != new.logprobs for old, new in zip(before, after, strict=True)]
    assert changed == [request.adapter == A for request in requests()]
    assert after[0].logprobs == pytest.approx(tiny.trainer_logprobs(policy, requests()[0], after[0]), abs=1e-4)
    for server in servers:
        known = [model["id"] for model in server.ask("v1/models")["data"]]
        assert names[A] not in known and names[B] in known


def test_servers_forget_a_team_with_its_engine_and_the_folder_goes(policy, servers):
    gc.collect()  # engines of other tests, which this would do below
    others = [known(server) for server in servers]
    engine = engine_of(policy, servers)
    with torch.no_grad():
        policy.adapter_parameters(A)[0].add_(0.1)
    engine.load_adapters(1)
    assert all(len(known(server)) == len(before) + 3 for server, before in zip(servers, others, strict=True))
    folder = engine._published.folder
    del engine
    gc.collect()
    assert [known(server) for server in servers] == others
    assert not folder.exists()


def test_an_adapter_that_a_server_has_lost_is_one_line_that_says_why(policy, servers):
    engine = engine_of(policy, servers[:1])
    for name in known(servers[0]):
        servers[0].ask("v1/unload_lora_adapter", {"lora_name": name})
    with pytest.raises(EngineError, match="does not exist.*Was it started again, or has another process of this run"):
        tiny.sample(engine, requests()[:1])


def test_chats_are_spread_evenly_and_stay_where_they_began(policy, servers):
    engine = engine_of(policy, servers)
    tiny.sample(engine, [ask(chat="probe is over", ids=[9], seed=0)])
    engine.reset_cache()
    starts = [server.now() for server in servers]
    for turn in range(3):
        tiny.sample(engine, [ask(chat=i, ids=[3 + i] * (turn + 1), seed=i) for i in range(6)])
    heard = [
        [body["prompt"][0] for body in server.seen("completions", since)]
        for server, since in zip(servers, starts, strict=True)
    ]
    assert [len(prompts) for prompts in heard] == [9, 9]
    assert not {*heard[0]} & {*heard[1]}


def test_a_reply_that_takes_long_does_not_hold_back_the_others(policy, servers):
    engine = engine_of(policy, servers)
    tiny.sample(engine, requests())
    for server in servers:
        server.behave(hold=10)
    engine.submit(ask(chat="slow", ids=[10, 3], seed=1))
    engine.submit(ask(chat="quick", ids=[3, 3], seed=1))
    assert [generation.chat for generation in engine.collect()] == ["quick"]
    assert [generation.chat for generation in engine.collect()] == ["slow"]
    assert engine.collect() == []


def test_what_was_asked_before_a_reset_never_arrives(policy, servers):
    engine = engine_of(policy, servers)
    tiny.sample(engine, requests())
    servers[0].behave(hold=10)
    engine.submit(ask(chat="slow", ids=[10, 3], seed=1))
    engine.reset_cache()
    assert engine.collect() == []
    (reply,) = tiny.sample(engine, [ask(chat="slow", ids=[3], seed=1)])
    assert reply.logprobs == pytest.approx(tiny.trainer_logprobs(policy, ask(chat=0, ids=[3], seed=1), reply), abs=1e-4)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"serves": {A: "base"}}, "its replies of 'agent_0' are "),
        ({"serves": {A: B, B: A}}, "its replies of 'agent_0' are "),
        ({"serves": {"base": B}}, "its replies of the base are "),
        ({"temperature": 1.0}, "its replies of the base are .* nats per token from the trainer's"),
    ],
)
def test_a_server_that_samples_from_something_else_is_refused(policy, servers, wrong, told):
    servers[1].behave(**wrong)
    said = f"^the vLLM server {servers[1].url} does not sample from what is trained: {told}"
    with pytest.raises(EngineError, match=said) as caught:
        engine_of(policy, servers[1:])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrong", [{"serves": {A: "base"}}, {"serves": {"base": B}}, {"temperature": 1.0}])
def test_one_of_many_servers_that_samples_from_something_else_is_refused_by_its_address(policy, servers, wrong):
    """However many others are right: every adapter, and the base, is asked of each."""
    right, last = servers
    last.behave(**wrong)
    names = [right.url.replace("127.0.0.1", host) for host in ("127.0.0.1", "127.0.1", "127.1")]  # of one machine
    engine = VLLMServerEngine(policy, [*names, last.url])
    with pytest.raises(EngineError, match=f"^the vLLM server {last.url} does not sample from what is trained"):
        engine.load_adapters(0)


def test_an_adapter_that_is_ignored_is_found_where_it_has_learned_little(policy, servers):
    with torch.no_grad():
        for adapter in policy.adapters:
            for parameter in policy.adapter_parameters(adapter, "B"):
                parameter.mul_(0.02)
    servers[0].behave(serves={A: "base"})
    with pytest.raises(EngineError, match="its replies of 'agent_0' are those of the base"):
        engine_of(policy, servers[:1])


def test_weights_are_probed_once_and_again_after_a_change(policy, servers):
    engine = VLLMServerEngine(policy, [server.url for server in servers])
    counts = []
    for version in (0, 1, 2):
        since = sum(server.now() for server in servers)
        engine.load_adapters(version)
        if version == 2:
            policy.adapter_parameters(A)[0].data.add_(0.1)
            engine.load_adapters(version)
        tiny.sample(engine, requests()[:1])
        counts.append(sum(server.now() for server in servers) - since)
    assert counts[1] == 1 < counts[0]  # the reply alone: nothing has changed
    assert counts[2] > 6


def test_a_chat_that_a_server_has_no_room_for_is_refused(policy, servers):
    servers[1].behave(positions=30)
    engine = engine_of(policy, servers)
    with pytest.raises(EngineError, match="the chat 0 may come to 31 tokens, and the engine has 30 positions"):
        engine.submit(ask(chat=0, ids=[3] * 27, seed=0))
    with pytest.raises(ValueError, match="the temperature is 0.001; vLLM has none below 0.01"):
        engine.submit(ask(chat=0, ids=[3], seed=0, temperature=0.001))
    engine.submit(ask(chat=0, ids=[3], seed=0))
    with pytest.raises(ValueError, match="the chat 0 was asked already"):
        engine.submit(ask(chat=0, ids=[3], seed=0))


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        ({"token_ids": None}, r"\(choices.0.token_ids: Input should be a valid list\)"),
        ({"token_ids": ["3"]}, r"\(choices.0.token_ids.0: Input should be a valid integer\)"),
        ({"token_ids": [-3]}, r"\(choices.0.token_ids.0: Input should be greater than or equal to 0\)"),
        ({"logprobs": None}, r"\(choices.0.logprobs: .*\)"),
        ({"logprobs": {"token_logprobs": [None]}}, r"\(choices.0.logprobs.token_logprobs.0: .* valid number\)"),
        ({"finish_reason": "abort"}, r"\(choices.0.finish_reason: Input should be 'stop' or 'length'\)"),
    ],
)
def test_an_answer_that_is_no_completion_is_one_line_that_says_what_is_wrong_with_it(policy, servers, choice, told):
    servers[0].behave(choice=choice)
    said = f"^the vLLM server {servers[0].url} gave no completion with token ids and log-probabilities {told}"
    with pytest.raises(EngineError, match=said) as caught:
        engine_of(policy, servers[:1])
    assert "\n" not in str(caught.value)


def test_a_token_that_the_base_does_not_have_is_one_line(policy, servers):
    servers[0].behave(choice={"token_ids": [3, 10**6]})
    with pytest.raises(EngineError, match=f"{servers[0].url} sampled token 1000000, and the base has [0-9]+: "):
        engine_of(policy, servers[:1])


def test_a_reply_of_another_length_than_asked_for_is_found_by_the_probe(policy, servers):
    servers[0].behave(choice={"token_ids": [3], "logprobs": {"token_logprobs": [-1.0]}})
    with pytest.raises(EngineError, match=f"^the vLLM server {servers[0].url} gave 1 ids without an end for"):
        engine_of(policy, servers[:1])


@pytest.mark.parametrize(
    ("status", "remedy"),
    [(401, r"Its key is to be in the environment: \$VLLM_API_KEY"), (503, "Its own log says more")],
)
def test_a_status_that_is_an_error_is_one_line_with_the_remedy(policy, servers, status, remedy):
    servers[0].behave(status=status)
    with pytest.raises(EngineError, match=f"{servers[0].url} gave {status}: .*{remedy}$") as caught:
        engine_of(policy, servers[:1])
    assert "\n" not in str(caught.value)


def test_a_server_that_is_silent_for_too_long_is_one_line_that_names_the_key():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        with pytest.raises(EngineError, match=rf"{url} was silent for 0.2 s. .* training.engine_options.timeout_s be"):
            Servers([url], 0.2).positions()


@pytest.mark.parametrize("place", ["file", "~nobody-of-that-name/adapters"])
def test_a_folder_for_adapters_that_cannot_be_one_is_one_line(policy, servers, tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(EngineError, match=f"^adapters cannot be published in '{place}': ") as caught:
        VLLMServerEngine(policy, [servers[0].url], adapter_folder=place)
    assert "\n" not in str(caught.value)


def test_a_server_that_does_not_answer_is_one_line(policy):
    with pytest.raises(EngineError, match=r"http://127.0.0.1:9/v1 does not answer \(ConnectError") as caught:
        VLLMServerEngine(policy, ["http://127.0.0.1:9/v1"])
    assert "\n" not in str(caught.value)


def test_an_address_that_is_no_vllm_server_is_one_line(policy, servers):
    with pytest.raises(EngineError, match="gave 404: .*Is that its address, up to /v1") as caught:
        VLLMServerEngine(policy, [servers[0].url.removesuffix("/v1")])
    assert "\n" not in str(caught.value)


def test_a_server_that_loads_no_adapters_is_one_line(policy, servers):
    servers[0].behave(fixed=True)
    with pytest.raises(EngineError, match="does not load adapters .404: .*VLLM_ALLOW_RUNTIME_LORA_UPDATING") as caught:
        engine_of(policy, servers)
    assert "\n" not in str(caught.value)
