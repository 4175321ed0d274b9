"""`marl-coop doctor`: what it finds is what would stop a run, and its memory is what a run takes."""

from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
import transformers
from peft import LoraConfig
from safetensors.torch import load_file
from test_models import FAMILIES, GPT2, SMALL
from train_py import ROOT, make_place
from transformers import AutoConfig, AutoModelForCausalLM

from envs.core.episode import Phase
from envs.repository.git import need_git
from marl_coop import cli
from marl_coop.config.schema import load_config
from marl_coop.experiment import doctor, memory, setup
from marl_coop.experiment.machine import Check, State, _check_disk, check_versions
from marl_coop.policy.footprint import Footprint, LiveBytes, footprint
from marl_coop.policy.team import TeamPolicy
from marl_coop.rollout import limits

SIZES = Footprint(
    base=1000, layers=800, layer=100, trained=10, cache_row=5, prefix_row=1, feed=40, score_row=6, score=3,
    learn_row=20, learn=9, warm_row=30, warm=11,
)  # fmt: skip
WORK = memory.Work(
    chat=64, told=32, written=16, chats=8, batch=4, learned=6, warm=2, scored=4, micro=3, adapters=2, copies=2
)  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return make_place(tmp_path_factory.mktemp("doctor"))


def words(place, *more):
    names = [f"model.name_or_path={place / 'model'}", "model.dtype=float32", "training.report_to=none"]
    return ["doctor", "--config", str(ROOT / "configs/quickstart.yaml"), f"output_dir={place / 'run'}", *names, *more]


def test_the_doctor_names_every_check_and_leaves_nothing_behind(place, capsys):
    assert cli.main(words(place, "--gpus", "2", "--gpu-memory", "80")) == 0
    said = capsys.readouterr().out
    for name in ("sandbox, small tests", "git", "versions", "chat template", "longest chat", "own forward"):
        assert name in said
    for name in ("memory, warm-up", "memory, play", "memory, learning", "largest micro-batch", "ddp.yaml"):
        assert name in said
    assert not (place / "run").exists()


@pytest.fixture
def counted(monkeypatch):
    """The sizes are known without a run of fakes, which takes seconds."""
    monkeypatch.setattr(memory, "sizes_of", lambda *_, **__: SIZES)


def memory_of(*overrides, gpus=0, gpu_memory=None, refused=()):
    """What the doctor says of the memory of a tiny model, by name, after some checks have failed."""
    config = load_config([], ["training.report_to=none", "training.use_cpu=true", *overrides])
    failures = [Check(name, State.FAILURE, "") for name in refused]
    found = doctor.Examined(config, failures, args=setup.training_arguments(config), base=tiny.base_model(64))
    found.lengths = limits.Lengths(told=8, turns={Phase.FINAL: 1}, replies={}, heard=0)
    found.args.limit_replies(dict.fromkeys(Phase, 8))
    return {check.name: check for check in doctor.check_memory(found, gpus, gpu_memory)}


def test_a_run_that_keeps_to_the_cpu_has_main_memory_although_a_gpu_is_here(counted, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert memory_of()["memory, learning"].found.endswith("of main memory")


def test_a_budget_below_two_chats_is_kept_where_one_fits(counted, monkeypatch):
    monkeypatch.setattr(memory, "largest_micro_batch", lambda sizes, work, *_: work.chat)
    assert memory_of("training.micro_batch_tokens=40")["largest micro-batch"].state is State.OK  # of chats of 32
    assert memory_of("training.micro_batch_tokens=64")["largest micro-batch"].state is State.WARNING


def test_memory_is_counted_whatever_fails_beside_the_model(counted):
    assert "memory, learning" in memory_of(refused=["servers of the engine", "folder of the run"])
    assert memory_of(refused=["frozen adapters"]).keys() == {"memory"}


def test_a_size_of_a_gpu_alone_means_one_gpu(counted):
    found = memory_of(gpu_memory=80)
    assert "of 79.4 GiB of a GPU" in found["memory, learning"].found
    assert found["launch on one GPU"].state is State.OK


def test_no_launch_is_named_whose_processes_could_not_share_an_update(counted):
    sizes = ["training.episodes_per_update=64", "warmup.batch_size=12"]
    assert memory_of(*sizes, "warmup.micro_batch_size=1", gpus=4, gpu_memory=80)["launch on 4 GPUs"].state is State.OK
    refused = memory_of(*sizes, "warmup.micro_batch_size=1", gpus=3, gpu_memory=80)["launch on 3 GPUs"]
    assert refused.state is State.FAILURE and refused.found.startswith("64 cannot be shared by 3 processes")
    refused = memory_of(*sizes, "warmup.micro_batch_size=4", gpus=4, gpu_memory=80)["launch on 4 GPUs"]
    assert (refused.state, refused.remedy) == (State.FAILURE, "warmup.batch_size")


def test_what_no_estimate_has_is_said(counted):
    found = memory_of("training.engine=test_doctor:make_nothing", "training.padding_free=true")
    assert found["memory, play"].state is found["memory, pairs"].state is State.UNTRIED
    assert "memory, pairs" not in memory_of()


def make_nothing(policy, args):
    raise NotImplementedError


def test_a_model_whose_operations_have_no_shapes_is_not_tried(monkeypatch):
    def fails(*_):
        raise RuntimeError("Expected inputs of BF16 type")

    monkeypatch.setattr(memory, "sizes_of", fails)
    (check,) = memory_of().values()
    assert check.state is State.UNTRIED
    assert check.found.startswith("llama cannot be counted without running it: RuntimeError: Expected inputs of BF16")


def test_vllm_beside_the_trainer_has_its_share_of_the_device_and_room_for_the_base(counted, monkeypatch):
    monkeypatch.setattr("marl_coop.ppo.config.vllm.check_options", lambda options: None)
    vllm, key = "training.engine=vllm", "training.engine_options.gpu_memory_utilization"
    found = memory_of(vllm, gpu_memory=10)
    assert found["memory, vLLM"].found.startswith("3.00 GiB are its share") and "memory, play" not in found
    assert found["memory, play beside vLLM"].state is State.OK
    assert memory_of(vllm, f"{key}=0.99", gpu_memory=10)["memory, play beside vLLM"].state is State.WARNING
    assert memory_of(vllm, f"{key}=1.0e-8", gpu_memory=10)["memory, vLLM"].state is State.WARNING


def test_an_adapter_that_has_no_place_is_a_failure_and_exit_code_1(place, capsys):
    assert cli.main(words(place, "lora.target_modules=[v_prjo]")) == 1
    assert "v_prjo" in capsys.readouterr().out


def test_without_a_model_the_doctor_says_what_it_could_not_try(tmp_path, capsys):
    assert cli.main(words(tmp_path)) == 1
    said = capsys.readouterr().out
    assert "there is no folder" in said
    assert said.count("not tried") >= 3


def states(place, *more):
    """What the doctor finds of a configuration, by the name of each check."""
    return {check.name: check.state for check in doctor.examine(load_config([], words(place, *more)[3:])).checks}


def test_without_a_model_all_is_tried_that_needs_none(tmp_path):
    engine = ["training.engine=vllm_server", "training.engine_options.urls=[http://localhost:1/v1]"]
    found = states(tmp_path, "env.sources=matched", *engine)
    assert found["held-out tasks"] is State.WARNING
    assert found["servers of the engine"] is State.FAILURE
    assert found["optimiser, schedule, trackers"] is found["folder of the run"] is State.OK
    assert found["endpoints that play"] is State.UNTRIED


def test_a_check_that_cannot_be_made_keeps_its_line(tmp_path, monkeypatch):
    names = states(tmp_path).keys()
    monkeypatch.setattr(setup, "training_arguments", refuse)
    found = states(tmp_path)
    assert found.keys() == names and found["optimiser, schedule, trackers"] is State.UNTRIED


def refuse(config):
    raise config.error(("training",), "refused")


def test_what_train_refuses_of_a_new_run_the_doctor_does(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/notes.txt").touch()
    found = states(tmp_path / "nowhere", f"output_dir={tmp_path / 'run'}")
    assert found["folder of the run"] is State.FAILURE
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    values = "values that fit each other, reward terms"
    assert states(tmp_path)[values] is State.OK
    assert states(tmp_path, "evaluation.best=success")[values] is State.FAILURE


def test_a_game_that_merges_without_git_is_a_line(tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    need_git.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    found = states(tmp_path, "env.name=PairedFeatures")
    assert found["values that fit each other, reward terms"] is found["environments"] is State.FAILURE


def test_a_command_that_plays_a_game_that_merges_without_git_ends_in_one_line(tmp_path, monkeypatch, capsys):
    need_git.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    words = ["--config", str(ROOT / "configs/examples/paired_features.yaml"), "--episodes", "2"]
    assert cli.main(["audit", *words]) == 2
    assert capsys.readouterr().err.startswith("error: git was not found on PATH; this environment merges with git.")


def test_the_disk_of_a_folder_that_nobody_can_write_is_a_failure(monkeypatch):
    for place in ("~nobody-of-that-name/x", "/proc/x"):
        with monkeypatch.context() as patch:
            patch.chdir("/proc" if place.startswith("~") else "/")
            assert _check_disk("disk of the output", Path(place)).state is State.FAILURE


def test_a_release_outside_its_range_is_a_warning_and_one_that_is_missing_a_failure():
    found = check_versions(["numpy<1", "no-such-package>=1", "rich", "no-such-extra; extra == 'x'"])
    assert [(check.name, check.state) for check in found] == [
        ("numpy", State.WARNING),
        ("no-such-package", State.FAILURE),
    ]


def test_phases_add_up_what_is_alive_in_them():
    total = {phase.name: phase.total for phase in memory.phases(SIZES, WORK)}
    assert total["loading"] == 1000
    assert total["warm-up"] == 1000 + 5 * (1 + 1 + 2) + 11 + 2 * 30
    assert total["play"] == 1000 + 20 + 20 + 8 * 1 + 4 * 5 + max(40, 4 * 5)
    assert total["reference"] == 1000 + 20 + 20 + 6 + 3 + 4 * 6
    assert total["learning"] == 1000 + 20 + 30 + 6 + 9 + 3 * 20
    shared = {phase.name: phase.total for phase in memory.phases(SIZES, WORK, processes=4, shared=True)}
    assert total["learning"] - shared["learning"] == 800 - (800 / 4 + 2 * 100) + 6  # who shares keeps no prefix
    assert total["play"] - shared["play"] == 8


def test_what_another_engine_samples_leaves_no_prefix_and_vllm_beside_the_trainer_has_its_share():
    served = {phase.name: phase.total for phase in memory.phases(SIZES, replace(WORK, engine="vllm_server"))}
    assert served.keys() == {"loading", "warm-up", "reference", "learning"}
    assert served["learning"] == 1000 + 20 + 30 + 9 + 3 * 20
    beside = {p.name: p.total for p in memory.phases(SIZES, replace(WORK, engine="vllm", beside=5000.0))}
    assert beside["play beside vLLM"] == 1000 + 20 + 20 + 5000


def test_the_work_of_one_process_has_its_share_of_an_update_and_its_own_batch_of_an_evaluation(place):
    lengths = limits.Lengths(told=8, turns={}, replies={}, heard=0)
    base = ["training.report_to=none", "training.use_cpu=true", "training.max_message_tokens=8"]

    def work(processes, *words):
        config = load_config([], [*base, *words])
        return memory.work_of(config, setup.training_arguments(config), lengths, processes)

    sizes = ["training.episodes_per_update=64", "evaluation.episodes=240", "evaluation.batch_size=48"]
    assert [(of.learned, of.chats) for of in (work(1, *sizes), work(8, *sizes))] == [(128, 128), (16, 60)]
    few = ["training.episodes_per_update=8", "training.num_mini_batches=2", "training.micro_batch_tokens=1000000"]
    assert [(of.scored, of.micro) for of in (work(1, *few), work(2, *few))] == [(16, 8), (8, 4)]
    assert [work(1).copies, work(1, "rewards.solo_gain={weight: 0.5}").copies] == [0, 2]
    tiny.team(tiny.base_model(64), r=2).save(place / "saved")
    assert work(1, f"policies.agent_1=frozen:{place / 'saved' / 'agent_0'}").frozen == sum(
        tensor.numel() for tensor in load_file(place / "saved/agent_0/adapter_model.safetensors").values()
    )


def test_the_largest_micro_batch_is_the_largest_that_fits():
    learning = memory.phases(SIZES, WORK)[-1].total
    assert memory.largest_micro_batch(SIZES, WORK, learning) == 3 * 64
    assert memory.largest_micro_batch(SIZES, WORK, learning - 1) == 2 * 64
    assert memory.largest_micro_batch(SIZES, WORK, 1000) == 0


@pytest.mark.parametrize(
    ("gpus", "gib", "file", "keys"),
    [
        (1, 2000, None, ()),
        (4, 2000, "ddp.yaml", ()),
        (8, 1145, "fsdp2.yaml", ()),
        (1, 1145, None, ("model.load_in_4bit=true",)),
        (8, 1050, "fsdp2.yaml", ("training.engine=vllm_server", "warmup.steps=0")),
    ],
)
def test_the_simplest_launch_that_fits_is_chosen(gpus, gib, file, keys):
    sizes = Footprint(**{name: getattr(SIZES, name) for name in SIZES.__slots__} | {"learn_row": 50})
    small = Footprint(**{name: getattr(sizes, name) for name in SIZES.__slots__} | {"base": 900})
    launch = memory.choose_launch(sizes, small, WORK, gpus, gib)
    assert (launch.fits, launch.file, launch.keys) == (True, file, keys)
    assert not memory.choose_launch(sizes, small, WORK, gpus, 950).fits  # a run begins with the whole base


def test_four_bits_are_no_remedy_where_they_cannot_be():
    assert not memory.choose_launch(SIZES, None, WORK, 1, 1100).fits


def test_what_is_counted_without_doing_a_step_is_what_the_step_makes(place):
    vocabulary = AutoConfig.from_pretrained(place / "model").vocab_size
    policy = tiny.team(tiny.base_model(vocabulary))
    with LiveBytes() as live:
        ids_RT = torch.zeros(3, 64, dtype=torch.long)
        sampled = torch.arange(3 * 16)
        spans = tiny.spans_of(["agent_0", "agent_0", "agent_1"])
        mask_RT = torch.ones_like(ids_RT)
        mask_RT[0, 60:] = 0  # a batch without padding has no mask, and takes less
        scores, _ = policy.score(spans, ids_RT, {"attention_mask": mask_RT}, sampled // 16, sampled % 16 + 48, 1.0)
        scores.logprobs_N.sum().backward()
    with torch.device("meta"):
        shapes = tiny.team(tiny.base_model(vocabulary), trained=False)
    fake = footprint(shapes, rows=4, chat=64, told=32, written=16)
    gradients = sum(p.grad.nbytes for p in policy.parameters() if p.grad is not None)
    assert (fake.warm, fake.warm_row) == (fake.learn, fake.learn_row)
    assert fake.learn + 3 * fake.learn_row + gradients == pytest.approx(live.peak, rel=0.05)
    assert fake.learn_row > fake.score_row > 0


def test_activations_that_are_made_again_are_not_counted_as_kept_in_learning_and_are_in_the_warm_up():
    with torch.device("meta"):
        shapes = tiny.team(tiny.base_model(64, layers=3), trained=False)
    found = footprint(shapes, rows=4, chat=64, told=32, written=16, checkpointing={})
    assert 0 < found.learn_row < 0.6 * found.warm_row


@pytest.mark.parametrize("family", ["gpt2", "qwen3-moe"])
def test_a_model_of_another_build_is_counted_in_bfloat16(family):
    name, changes, targets = FAMILIES[family]
    config = getattr(transformers, name)(**(GPT2 if family == "gpt2" else SMALL | changes))
    lora = LoraConfig(r=2, target_modules=targets, task_type="CAUSAL_LM", fan_in_fan_out=family == "gpt2")
    with torch.device("meta"):
        base = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        shapes = TeamPolicy(base, lora, tiny.SEATS, critic_seats=2)
    assert footprint(shapes, rows=4, chat=64, told=32, written=16).learn_row > 0
