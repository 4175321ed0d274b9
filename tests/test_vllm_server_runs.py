"""Runs and processes that play with vLLM servers, against servers of our own that speak as vLLM does."""

import os
import subprocess
import sys

import pytest
import tiny
from processes import ROOT, TESTS, launch
from trained import Log
from transformers import TrainerCallback
from vllm_servers import A, B, StandIn, known

from marl_coop.engines import EngineError
from marl_coop.players import Mix
from marl_coop.policy.loading import load_base


@pytest.fixture
def folder(started):
    """The folder of the base that is served."""
    return started[0].folder


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


@pytest.mark.slow
def test_servers_forget_a_team_when_its_process_ends_though_one_of_them_is_gone(folder, servers, tmp_path):
    others = known(servers[1])
    gone = StandIn(folder)
    gone.wait()
    urls = [gone.url, servers[1].url.replace("127.0.0.1", "localhost")]
    script = KNOWN.replace("sys.exit", "import urllib.request; urllib.request.urlopen(GONE, b'{}'); sys.exit")
    script = script.replace("GONE", repr(gone.url.removesuffix("/v1") + "/end"))
    command = [sys.executable, "-c", script, str(folder), *urls]
    environment = os.environ | {"PYTHONPATH": f"{TESTS}:{ROOT}", "TMPDIR": str(tmp_path)}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)  # as Python ends
    gone.end()
    assert ended.returncode == 1 and ended.stderr.splitlines()[-1] == "ends by an error"
    assert known(servers[1]) == others
    assert list(tmp_path.iterdir()) == []


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
    time.sleep(3 * state.process_index)  # the first is done long before the second asks for more
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
