"""What `accelerate launch` makes of its files and options, and what becomes of that here."""

import os
from pathlib import Path

import pytest
import tiny
import yaml
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

FILES = sorted(Path("configs/accelerate").glob("*.yaml"))


def asked(monkeypatch, *words: str) -> None:
    """Set what a process would find in its environment after `accelerate launch *words`."""
    args, *_ = _validate_launch_command(launch_command_parser().parse_args([*words, "train.py"]))
    if args.use_deepspeed:
        args.deepspeed_fields_from_accelerate_config = ""  # as `launch_command` sets it
        _, variables = prepare_deepspeed_cmd_env(args)
    else:
        variables = prepare_multi_gpu_env(args)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_launch_file_asks_for_processes_and_shares_out_the_base_where_it_says_so(tmp_path, monkeypatch, file):
    asked(monkeypatch, "--config_file", str(file))
    assert tiny.arguments(tmp_path).shard_base is (yaml.safe_load(file.read_text())["distributed_type"] == "FSDP")
    assert "ACCELERATE_USE_FSDP" not in os.environ
    assert not tiny.arguments(tmp_path).shard_base


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("--use_fsdp", "the launch file sets fsdp_version: 1, which must be 2"),
        (
            "--use_fsdp --fsdp_version 2 --fsdp_offload_params true",
            "sets fsdp_offload_params: true",
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


def test_torch_xla_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("marl_coop.ppo.launch.is_torch_xla_available", lambda: True)
    with pytest.raises(ValueError, match="torch_xla is installed"):
        tiny.arguments(tmp_path)
