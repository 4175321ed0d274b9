"""`model.dtype: fastest` is settled by the device, once for a run."""

import pytest
import torch
from train_py import command

from marl_coop.config.schema import load_config
from marl_coop.experiment import setup
from marl_coop.experiment.experiment import Experiment
from marl_coop.experiment.machine import State, check_machine
from marl_coop.experiment.setup import dtype_of
from marl_coop.policy.loading import fastest_dtype

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("has", "dtype"),
    [
        ({"avx2": True, "avx512_f": False, "avx512_bf16": False, "amx_bf16": False}, "float32"),
        ({"avx2": True, "avx512_f": True, "avx512_bf16": True, "amx_bf16": False}, "bfloat16"),
        ({"avx512_bf16": False, "amx_bf16": True}, "bfloat16"),
        ({"neon": True}, "float32"),
    ],
)
def test_bfloat16_is_the_fastest_where_the_processor_has_instructions_for_it(monkeypatch, has, dtype):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    assert fastest_dtype(CPU) == dtype


def test_a_gpu_is_told_to_compute_in_bfloat16_and_its_cpu_in_what_suits_it():
    asked = load_config([])
    assert dtype_of(asked, on_gpu=True) == "bfloat16"
    assert dtype_of(load_config([], ["training.use_cpu=true"])) == fastest_dtype(CPU)


def test_a_dtype_that_is_named_is_taken():
    other = "float32" if fastest_dtype(CPU) == "bfloat16" else "bfloat16"
    named = load_config([], [f"model.dtype={other}"])
    assert dtype_of(named) == dtype_of(named, on_gpu=True) == other
    assert named.settled("float32").model.dtype == named.settled("bfloat16").model.dtype == other


def test_doctor_warns_of_bfloat16_where_it_is_emulated(monkeypatch):
    monkeypatch.setattr(setup, "fastest_dtype", lambda _: "float32")
    found = {
        dtype: next(
            check for check in check_machine(load_config([], [f"model.dtype={dtype}"])) if check.name == "dtype"
        )
        for dtype in ("fastest", "bfloat16", "float32")
    }
    assert [check.state for check in found.values()] == [State.OK, State.WARNING, State.OK]
    assert found["bfloat16"].remedy == "model.dtype=fastest"


def test_an_experiment_settles_the_dtype_and_records_it(place):
    _, _, _, file, *words = command(place, "unused")
    experiment = Experiment(load_config([file], [*words, "model.dtype=fastest"]))
    assert experiment.config.model.dtype == fastest_dtype(CPU)
    assert experiment.base.dtype == getattr(torch, fastest_dtype(CPU))
