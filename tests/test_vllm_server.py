"""The engine of vLLM servers, against servers of our own that speak as vLLM does, each in a process of its own."""

import gc
import importlib.util
import json
import os
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import tiny
import torch
from processes import launch
from trained import Log
from transformers import TrainerCallback

from marl_coop.config.errors import ConfigError
from marl_coop.config.schema import load_config
from marl_coop.engines import EngineError, FinishReason, Request
from marl_coop.engines.vllm_server import VLLMServerEngine
from marl_coop.experiment import checks, setup
from marl_coop.players import BASE, Mix
from marl_coop.policy.loading import load_base
from marl_coop.training_rules import check_server_options

A, B = tiny.SEATS
VOCABULARY = len(tiny.word_tokenizer(tiny.WORDS))


class StandIn:
    """A server in a process of its own."""

    def __init__(self, folder: Path):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder, self.url = folder, f"http://127.0.0.1:{self.port}/v1"
        self.begin()

    def begin(self):
        tests = Path(__file__).parent
        environment = {**os.environ, "PYTHONPATH": f"{tests}:{tests.parent}", "OMP_NUM_THREADS": "1"}
        environment["TMPDIR"] = str(self.folder)  # it is killed
        command = [sys.executable, str(tests / "vllm_stand_in.py"), str(self.folder), str(self.port)]
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)

    def wait(self):
        assert self.process.stdout.readline().startswith("ready")

    def end(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def ask(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url.removesuffix('/v1')}/{path}", data)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def behave(self, **wrong):
        self.ask("behave", wrong)

    def seen(self, path, since=0):
        return [body for asked, body in self.ask("seen")[since:] if asked == f"/v1/{path}"]

    def now(self):
        return len(self.ask("seen"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    tiny.base_model(VOCABULARY).save_pretrained(folder)
    tiny.word_tokenizer(tiny.WORDS).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def started(folder):
    servers = [StandIn(folder), StandIn(folder)]
    for server in servers:
        server.wait()
    yield servers
    for server in servers:
        server.end()


@pytest.fixture
def servers(started):
    for server in started:
        server.behave()
    return started


@pytest.fixture
def policy(folder):
    return tiny.team(load_base(str(folder), "float32")[0])


def engine_of(policy, servers, version=0, **options):
    engine = VLLMServerEngine(policy, [server.url for server in servers], **options)
    engine.load_adapters(version)
    return engine


def ask(**fields):
    return Request(**({"temperature": 0.7, "stop_ids": frozenset([1]), "adapter": A, "max_tokens": 4} | fields))


def requests():
    return [ask(chat=i, ids=[3 + i, 4, 5], adapter=[A, B, BASE][i % 3], seed=2**62 + i) for i in range(6)]


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


KNOWN = """
import sys
import tiny
from marl_coop.engines.vllm_server import VLLMServerEngine
from marl_coop.policy.loading import load_base

policy = tiny.team(load_base(sys.argv[1], "float32")[0])
engine = VLLMServerEngine(policy, sys.argv[2:])
engine.load_adapters(0)
sys.exit("ends by an error")
"""


def known(server):
    return [model["id"] for model in server.ask("v1/models")["data"] if model["parent"]]


def test_servers_forget_a_team_with_its_engine_and_the_folder_goes(policy, servers):
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


@pytest.mark.slow
def test_servers_forget_a_team_when_its_process_ends_though_one_of_them_is_gone(folder, servers, tmp_path):
    others = known(servers[1])
    gone = StandIn(folder)
    gone.wait()
    urls = [gone.url, servers[1].url.replace("127.0.0.1", "localhost")]
    script = KNOWN.replace("sys.exit", "import urllib.request; urllib.request.urlopen(GONE, b'{}'); sys.exit")
    script = script.replace("GONE", repr(gone.url.removesuffix("/v1") + "/end"))
    command = [sys.executable, "-c", script, str(folder), *urls]
    tests = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": f"{tests}:{tests.parent}", "TMPDIR": str(tmp_path)}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    gone.end()
    assert ended.returncode == 1 and ended.stderr.splitlines()[-1] == "ends by an error"
    assert known(servers[1]) == others
    assert list(tmp_path.iterdir()) == []


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


SHARED_BASE = """
import json, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
import tiny
from accelerate import PartialState
from marl_coop.engines import Request
from marl_coop.engines.vllm_server import VLLMServerEngine
from marl_coop.policy import sharding
from marl_coop.policy.loading import load_base

folder, state = Path(sys.argv[1]), PartialState(cpu=True)
policy = tiny.team(load_base("BASE", "float32")[0])
sharding.shard(policy, state.device)
engine = VLLMServerEngine(policy, ["URL"], adapter_folder=str(folder))
engine.load_adapters(1)
request = Request(
    chat=0, ids=[3, 4], adapter="agent_0", max_tokens=4, temperature=0.7, stop_ids=frozenset(), seed=0
)
replies = tiny.sample(engine, [request] if state.is_main_process else [])
state.wait_for_everyone()
(folder / f"rank-{state.process_index}.json").write_text(json.dumps([reply.ids for reply in replies]))
"""


@pytest.mark.slow
def test_of_processes_that_share_out_a_base_one_may_ask_for_nothing(folder, tmp_path, servers):
    script = SHARED_BASE.replace("BASE", str(folder)).replace("URL", servers[0].url)
    first, second = launch(script, tmp_path / "two", 2)
    assert len(first) == 1 and second == []


AHEAD = """
import json, sys, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
import torch
torch.set_num_threads(1)
import tiny
from accelerate import PartialState
from marl_coop.engines import Request
from marl_coop.engines.vllm_server import VLLMServerEngine
from marl_coop.policy.loading import load_base
from marl_coop.ppo.engine_weights import Ahead, EngineWeights

folder, state = Path(sys.argv[1]), PartialState(cpu=True)
policy = tiny.team(load_base("BASE", "float32")[0])
weights = EngineWeights(VLLMServerEngine(policy, ["URL"], adapter_folder=str(folder)))
request = Request(
    chat=0, ids=[3, 4], adapter="agent_0", max_tokens=4, temperature=0.7, stop_ids=frozenset(), seed=0
)

def play():
    time.sleep(5 * state.process_index)  # the first is done long before the second asks for more
    return tiny.sample(weights.engine, [request])

weights.ahead = Ahead(1, 0, ThreadPoolExecutor().submit(play))
with torch.no_grad():
    for weight in policy.adapter_parameters("agent_0", "B"):
        weight.add_(0.1)
weights.on_train_end(None, SimpleNamespace(global_step=1), None)
(reply,) = weights.ahead.rollouts.result()
(folder / f"rank-{state.process_index}.json").write_text(json.dumps(reply.version))
"""


@pytest.mark.slow
def test_weights_stay_on_a_server_until_every_process_has_played_what_it_began_with_them(folder, tmp_path, servers):
    script = AHEAD.replace("BASE", str(folder)).replace("URL", servers[0].url)
    assert launch(script, tmp_path / "ahead", 2) == [0, 0]


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


@pytest.mark.slow
def test_a_run_whose_server_dies_ends_with_one_line_and_goes_on_later(folder, tmp_path, servers):
    server = servers[0]
    options = {"engine": "vllm_server", "engine_options": {"urls": [server.url]}, "save_updates": 1, "num_updates": 3}

    def trainer(**more):
        policy = tiny.team(load_base(str(folder), "float32")[0])
        return tiny.cue_trainer(tmp_path, policy=policy, callbacks=[log], **options, **more)

    def die(update, *_):
        if update == 1:
            server.end()

    log = Log()
    with pytest.raises(EngineError, match=f"the vLLM server {server.url} does not answer") as caught:
        trainer(on_rollouts=die).train()
    assert "\n" not in str(caught.value) and len(log.updates) == 1
    server.begin()
    server.wait()
    resumed = trainer()
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    assert resumed.state.global_step == 3 and resumed.players.engine._version == 3
    assert {turn.version for rows in resumed.rows for turn in rows[A].trace.turns} == {2}
    assert all(record[f"{A}/sampling_gap_max"] < 1e-4 for record in log.updates)


class Versions(TrainerCallback):
    """Keeps the versions of the weights that played what each update learned from."""

    def __init__(self):
        self.found = []

    def on_step_end(self, args, state, control, **kwargs):
        rows = [row for rows in self.trainer.rows for row in rows.values()]
        self.found.append({turn.version for row in rows for turn in row.trace.turns})


@pytest.mark.slow
def test_play_goes_on_one_update_ahead_with_weights_that_are_one_update_old(folder, tmp_path, servers):
    def run(**options):
        log, versions, played = Log(), Versions(), []
        versions.trainer = trainer = tiny.cue_trainer(
            tmp_path,
            policy=tiny.team(load_base(str(folder), "float32")[0]),
            callbacks=[log, versions],
            on_rollouts=lambda update, episodes, *_: played.append([episode.turns for episode in episodes]),
            engine="vllm_server",
            engine_options={"urls": [servers[0].url]},
            async_play=True,
            **options,
        )
        trainer.train()
        return log.updates, versions.found, played

    updates, versions, played = run(num_updates=4, learning_rate=0.1)
    assert versions == [{0}, {0}, {1}, {2}]
    assert updates[0][f"{A}/sampling_gap_max"] < 1e-4 < 1e-2 < updates[1][f"{A}/sampling_gap_max"]
    _, _, untaught = run(num_updates=4, learning_rate=1e-30)
    assert played[:2] == untaught[:2] and played[2:] != untaught[2:]


@pytest.mark.slow
def test_a_server_plays_past_selves_one_update_ahead_too(folder, tmp_path, servers):
    """A past self is what its name says: the adapter was asked for by the same weights when it played itself."""
    policy, played, before = tiny.team(load_base(str(folder), "float32")[0]), [], servers[0].now()
    policy.keep_past(B, every=1, limit=1)
    tiny.cue_trainer(
        tmp_path,
        policy=policy,
        policies={A: A, B: Mix((B, policy.past[B]), (0.5, 0.5))},
        on_rollouts=lambda update, episodes, *_: played.append({episode.players[B] for episode in episodes}),
        engine="vllm_server",
        engine_options={"urls": [servers[0].url]},
        async_play=True,
        num_updates=4,
    ).train()
    assert played == [{B, f"past:agent_1@{updates}"} for updates in (0, 0, 1, 2)]
    asked = {request["model"].rpartition("-")[::2] for request in servers[0].seen("completions", before)}
    contents = {name: {digest for of, digest in asked if of.endswith(name)} for name in (B, "agent_1_past_0")}
    assert len(contents["agent_1_past_0"]) > 2 and contents["agent_1_past_0"] <= contents[B]


@pytest.mark.parametrize("engine", ["embedded", "vllm"])
def test_an_engine_that_sleeps_while_adapters_learn_does_not_play_ahead(tmp_path, engine):
    with pytest.raises(ValueError, match=f"training.async_play: it must be false: '{engine}' sleeps"):
        tiny.arguments(tmp_path, engine=engine, async_play=True)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, r"urls must be a list of addresses such as \['http://localhost:8000/v1'\], got None"),
        ({"urls": "http://a/v1"}, "urls must be a list of addresses .* got 'http://a/v1'"),
        ({"urls": ["a:8000"]}, "urls must be a list of addresses"),
        ({"urls": ["http://a/v1", "http://a/v1/"]}, "urls names a server twice"),
        ({"urls": ["http://a/v1"], "timeout": 3}, "unknown key 'timeout'; did you mean 'timeout_s'"),
        (
            {"urls": ["http://a/v1"], "timeout_s": 0},
            "timeout_s must be a positive number .* a day at most, got 0",
        ),
        ({"urls": ["http://a/v1"], "adapter_folder": 3}, "adapter_folder must be a folder, got 3"),
    ],
)
def test_options_that_cannot_be_used_are_refused_by_name(tmp_path, options, told):
    with pytest.raises(ValueError, match=told):
        check_server_options(options)
    with pytest.raises(ValueError, match=f"training.engine_options: {told}"):
        tiny.arguments(tmp_path, engine="vllm_server", engine_options=options)


def test_only_an_engine_that_has_options_takes_some(tmp_path):
    with pytest.raises(ValueError, match=r"training.engine_options: the embedded engine has none, got \['urls'\]"):
        tiny.arguments(tmp_path, engine_options={"urls": ["http://a/v1"]})


def test_a_sampler_of_its_own_is_corrected_for_unless_told_otherwise(tmp_path):
    options = {"engine": "vllm_server", "engine_options": {"urls": ["http://a/v1"]}}
    assert tiny.arguments(tmp_path, **options).importance == "truncated"
    assert tiny.arguments(tmp_path, importance="recompute", **options).importance == "recompute"


def test_servers_that_do_not_answer_are_refused_before_the_run(tmp_path):
    config = load_config([], ["training.engine=vllm_server", "training.engine_options.urls=[http://127.0.0.1:9/v1]"])
    with pytest.raises(ConfigError, match=r"training.engine_options.*http://127.0.0.1:9/v1 does not answer") as caught:
        checks.check_engine(config, setup.training_arguments(config, str(tmp_path)))
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is here")
def test_vllm_that_is_not_installed_is_refused_with_the_remedy(tmp_path):
    config = load_config([], ["training.engine=vllm"])
    with pytest.raises(ConfigError, match=r"vLLM is not there \(.*\): pip install --editable '.\[vllm\]'") as caught:
        setup.training_arguments(config, str(tmp_path))
    assert "\n" not in str(caught.value)
