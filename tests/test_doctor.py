"""`marl-coop doctor`: what it finds is what would stop a run, and its memory is what a run takes."""

import pytest
import tiny
import torch
from train_py import ROOT, make_place
from transformers import AutoConfig

from marl_coop import cli
from marl_coop.experiment import memory
from marl_coop.experiment.machine import State, check_versions
from marl_coop.policy.footprint import Footprint, LiveBytes, footprint

SIZES = Footprint(
    base=1000, layers=800, layer=100, trained=10, cache_row=5, prefix_row=1, feed=40, score_row=6, score=3,
    learn_row=20, learn=9,
)  # fmt: skip
WORK = memory.Work(chat=64, told=32, written=16, chats=8, batch=4, warm=2, micro=3, adapters=2, copies=2)


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


def test_an_adapter_that_has_no_place_is_a_failure_and_exit_code_1(place, capsys):
    assert cli.main(words(place, "lora.target_modules=[v_prjo]")) == 1
    assert "v_prjo" in capsys.readouterr().out


def test_without_a_model_the_doctor_says_what_it_could_not_try(tmp_path, capsys):
    assert cli.main(words(tmp_path)) == 1
    said = capsys.readouterr().out
    assert "there is no folder" in said
    assert said.count("not tried") >= 3


def test_a_release_outside_its_range_is_a_warning_and_one_that_is_missing_a_failure():
    found = check_versions(["numpy<1", "no-such-package>=1", "rich", "no-such-extra; extra == 'x'"])
    assert [(check.name, check.state) for check in found] == [
        ("numpy", State.WARNING),
        ("no-such-package", State.FAILURE),
    ]


def test_phases_add_up_what_is_alive_in_them():
    total = {phase.name: phase.total for phase in memory.phases(SIZES, WORK)}
    assert total["loading"] == 1000
    assert total["warm-up"] == 1000 + 5 * (1 + 1 + 2) + 9 + 2 * 20
    assert total["play"] == 1000 + 20 + 20 + 8 * 1 + 8 * 5 + max(40, 4 * 5)
    assert total["reference"] == 1000 + 20 + 20 + 8 + 3 + 3 * 6
    assert total["learning"] == 1000 + 20 + 30 + 8 + 9 + 3 * 20
    shared = {phase.name: phase.total for phase in memory.phases(SIZES, WORK, processes=4, shared=True)}
    assert total["learning"] - shared["learning"] == 800 - (800 / 4 + 2 * 100)
    assert shared["play"] == total["play"]


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
        (8, 850, "fsdp2.yaml", ("training.engine=vllm_server", "warmup.steps=0")),
    ],
)
def test_the_simplest_launch_that_fits_is_chosen(gpus, gib, file, keys):
    sizes = Footprint(**{name: getattr(SIZES, name) for name in SIZES.__slots__} | {"learn_row": 50})
    small = Footprint(**{name: getattr(sizes, name) for name in SIZES.__slots__} | {"base": 900})
    launch = memory.choose_launch(sizes, small, WORK, gpus, gib)
    assert (launch.fits, launch.file, launch.keys) == (True, file, keys)
    assert not memory.choose_launch(sizes, small, WORK, gpus, 10).fits


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
    assert fake.learn + 3 * fake.learn_row + gradients == pytest.approx(live.peak, rel=0.05)
    assert fake.learn_row > fake.score_row > 0
