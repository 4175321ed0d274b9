"""What `accelerate launch` makes of its files and options, and what becomes of that here."""

import os
import re
import shlex
import socket
from pathlib import Path

import pytest
import tiny
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import (
    prepare_deepspeed_cmd_env,
    prepare_multi_gpu_env,
    prepare_simple_launcher_cmd_env,
)

from marl_coop.ppo import launch

FILES = sorted(Path("configs/accelerate").glob("*.yaml"))
TEXTS = [Path("README.md"), *Path("docs").glob("*.md"), *FILES]
COMMANDS = sorted(
    {
        (path.name, " ".join(found.replace("#", " ").replace("\\\n", " ").split()))
        for path in TEXTS
        for found in re.findall(r"accelerate launch (--config_file .*?train\.py)", path.read_text(), re.DOTALL)
    }
)
WRITTEN = """
compute_environment: LOCAL_MACHINE
debug: false
distributed_type: FSDP
downcast_bf16: 'no'
enable_cpu_affinity: false
fsdp_config:
  fsdp_activation_checkpointing: false
  fsdp_auto_wrap_policy: TRANSFORMER_BASED_WRAP
  fsdp_cpu_ram_efficient_loading: true
  fsdp_offload_params: false
  fsdp_reshard_after_forward: true
  fsdp_state_dict_type: SHARDED_STATE_DICT
  fsdp_transformer_layer_cls_to_wrap: LlamaDecoderLayer
  fsdp_version: 2
machine_rank: 0
main_training_function: main
mixed_precision: 'no'
num_machines: 1
num_processes: 2
rdzv_backend: static
same_network: true
use_cpu: false
"""  # by `accelerate config`


def asked(monkeypatch, *words: str) -> None:
    """Set what a process would find in its environment after `accelerate launch *words`."""
    args, *_ = _validate_launch_command(launch_command_parser().parse_args([*words, "train.py"]))
    if args.use_deepspeed:
        args.deepspeed_fields_from_accelerate_config = ""  # as `launch_command` sets it
        _, variables = prepare_deepspeed_cmd_env(args)
    elif args.multi_gpu or args.use_fsdp or args.use_megatron_lm:
        variables = prepare_multi_gpu_env(args)
    else:
        _, variables = prepare_simple_launcher_cmd_env(args)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_launch_file_asks_for_processes_and_shares_out_the_base_where_it_says_so(tmp_path, monkeypatch, file):
    asked(monkeypatch, "--config_file", str(file))
    assert tiny.arguments(tmp_path).shard_base is (yaml.safe_load(file.read_text())["distributed_type"] == "FSDP")
    assert "ACCELERATE_USE_FSDP" not in os.environ
    assert not tiny.arguments(tmp_path).shard_base


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_accelerate_reads_every_key_of_a_launch_file(file):
    """It refuses those of the first level that it does not know, and passes over those within."""
    load_config_from_file(str(file))
    known = vars(launch_command_parser().parse_args(["train.py"]))
    for section, keys in yaml.safe_load(file.read_text()).items():
        assert set(keys if isinstance(keys, dict) else ()) <= known.keys(), section


@pytest.mark.parametrize(("file", "command"), COMMANDS)
def test_accelerate_takes_the_commands_that_are_written_down(tmp_path, monkeypatch, file, command):
    *words, script = shlex.split(command)
    assert script == "train.py"
    asked(monkeypatch, *words)
    tiny.arguments(tmp_path)


def test_every_key_of_fsdp_that_accelerate_hands_on_is_judged(monkeypatch):
    words = "--fsdp_auto_wrap_policy a --fsdp_transformer_layer_cls_to_wrap b --fsdp_backward_prefetch c"
    words += " --fsdp_state_dict_type d"  # those that it hands on where they are set
    asked(monkeypatch, "--use_fsdp", "--num_processes", "2", *words.split())
    handed_on = {name for name in os.environ if name.startswith("FSDP_")} | {"FSDP_IGNORED_MODULES"}
    assert handed_on == launch.FSDP_SETTINGS.keys() | launch.FSDP_WITHOUT_EFFECT.keys()


def test_what_has_no_effect_of_a_file_that_accelerate_wrote_is_said_in_one_line(tmp_path, monkeypatch, caplog):
    (tmp_path / "mine.yaml").write_text(WRITTEN)
    asked(monkeypatch, "--config_file", str(tmp_path / "mine.yaml"))
    assert tiny.arguments(tmp_path).shard_base
    (line,) = caplog.messages
    assert line.startswith(
        "the launch file sets fsdp_transformer_layer_cls_to_wrap: LlamaDecoderLayer, "
        "fsdp_state_dict_type: SHARDED_STATE_DICT, without effect: "
    )
    assert "\n" not in line


def test_a_file_that_leaves_out_what_has_no_effect_gets_no_line(tmp_path, monkeypatch, caplog):
    asked(monkeypatch, "--config_file", "configs/accelerate/fsdp2.yaml")
    assert tiny.arguments(tmp_path).shard_base
    assert caplog.messages == []


@pytest.mark.parametrize(("kind", "lines"), [("MULTI_CPU", 1), ("NO", 1), ("MULTI_GPU", 0)])
def test_a_launch_of_several_processes_that_starts_one_is_told_of(tmp_path, monkeypatch, caplog, kind, lines):
    text = f"compute_environment: LOCAL_MACHINE\ndistributed_type: {kind}\nuse_cpu: true\nnum_processes: 2\n"
    (tmp_path / "mine.yaml").write_text(text + "num_machines: 1\nmachine_rank: 0\nmain_process_port: 0\n")
    asked(monkeypatch, "--config_file", str(tmp_path / "mine.yaml"))
    tiny.arguments(tmp_path)
    assert [line.startswith("one process runs, whatever") for line in caplog.messages] == [True] * lines


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("--use_fsdp", "the launch file sets fsdp_version: 1, which must be 2"),
        (
            "--use_fsdp --fsdp_version 2 --fsdp_offload_params true",
            "sets fsdp_offload_params: true",
        ),
        (
            "--use_fsdp --fsdp_version 2 --fsdp_activation_checkpointing true",
            "sets fsdp_activation_checkpointing: true, which must be false",
        ),
        (
            "--use_fsdp --fsdp_version 2 --fsdp_reshard_after_forward false",
            "sets fsdp_reshard_after_forward: false, which must be true",
        ),
        (
            "--use_fsdp --fsdp_version 2 --fsdp_sharding_strategy HYBRID_SHARD",
            "sets fsdp_sharding_strategy: HYBRID_SHARD, which must be FULL_SHARD",
        ),
        (
            "--use_fsdp --fsdp_version 2 --fsdp_auto_wrap_policy SIZE_BASED_WRAP",
            "sets fsdp_auto_wrap_policy: SIZE_BASED_WRAP, which must be TRANSFORMER_BASED_WRAP",
        ),
        (
            "--use_deepspeed --zero_stage 2",
            "asks for DeepSpeed (ZeRO stage 2), whose engine clips all gradients",
        ),
        (
            "--use_deepspeed --zero_stage 3",
            "asks for DeepSpeed (ZeRO stage 3), whose engine clips all gradients",
        ),
        ("--multi_gpu --use_megatron_lm", "asks for Megatron-LM, whose own models carry no routed adapters"),
        (
            "--use_fsdp --fsdp_version 2 --use_parallelism_config --parallelism_config_tp_size 2",
            "asks for a parallelism_config",
        ),
        ("--multi_gpu --dynamo_backend inductor", "asks for torch.compile (INDUCTOR)"),
    ],
)
def test_a_launch_that_would_change_what_an_update_is_is_refused_in_one_line(tmp_path, monkeypatch, words, problem):
    asked(monkeypatch, "--num_processes", "2", *words.split())
    with pytest.raises(ValueError) as caught:
        tiny.arguments(tmp_path)
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("said", ["1", "yes", "True"])
@pytest.mark.parametrize(
    ("variable", "problem"),
    [("ACCELERATE_USE_DEEPSPEED", "DeepSpeed"), ("ACCELERATE_USE_FSDP", "fsdp_version: 1, which must be 2")],
)
def test_what_the_environment_asks_for_in_any_word_for_true_is_refused_too(
    tmp_path, monkeypatch, variable, said, problem
):
    """transformers takes them all."""
    monkeypatch.setenv(variable, said)
    monkeypatch.setenv("FSDP_VERSION", "1")
    with pytest.raises(ValueError, match=problem):
        tiny.arguments(tmp_path)


@pytest.mark.parametrize(
    "asked_for", [{"deepspeed": "zero2.json"}, {"deepspeed": {"zero_optimization": {}}}, {"fsdp": "full_shard"}]
)
def test_arguments_that_ask_for_it_are_refused_in_one_line(tmp_path, asked_for):
    (name,) = asked_for
    with pytest.raises(ValueError, match=f"^training.{name}: it is not supported: several processes run under DDP"):
        tiny.arguments(tmp_path, **asked_for)


def test_torch_xla_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("marl_coop.ppo.launch.is_torch_xla_available", lambda: True)
    with pytest.raises(ValueError, match="torch_xla is installed"):
        tiny.arguments(tmp_path)


def test_processes_that_do_not_meet_are_one_line_that_says_where(tmp_path, monkeypatch):
    with socket.create_server(("localhost", 0)) as taken:
        place = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(taken.getsockname()[1])}
        ranks = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "ACCELERATE_USE_CPU": "true"}
        for name, value in (place | ranks).items():
            monkeypatch.setenv(name, value)
        with pytest.raises(
            ValueError, match=f"do not meet at MASTER_ADDR=localhost, MASTER_PORT={place['MASTER_PORT']}"
        ):
            tiny.arguments(tmp_path)
