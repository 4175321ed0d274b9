"""Several processes against one: the same episodes, steps, weights and numbers."""

from pathlib import Path

import pytest
import tiny
from processes import launch, launch_each, written

from marl_coop.runs.checkpoints import ASIDE, whole_checkpoints

SCRIPT = """
import json, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
import tiny
from accelerate import Accelerator
from transformers import TrainerCallback
from rewards import Communication
from rewards.schedules import DualAscent
from marl_coop.players import BASE, Mix

folder = Path(sys.argv[1])

class Log(TrainerCallback):
    def on_log(self, args, state, control, logs=None, **kwargs):
        records.append(logs)

records, backwards, played = [], [], []
price = DualAscent(rate=0.01, budget=9, every=1)
trainer = tiny.cue_trainer(
    folder / "run", callbacks=[Log()], rewards=[tiny.Length(), Communication(weight=price)],
    on_rollouts=lambda update, episodes, *_: played.append([e.to_json() for e in episodes]),
    num_updates=2, num_ppo_epochs=2, num_mini_batches=2, kl_coef=0.1, entropy_coef=0.01,
    optim="sgd", learning_rate=1.0, critic_learning_rate=1.0, gradient_accumulation_steps=2, env={"fault_every": 3},
    policies={"agent_0": "agent_0", "agent_1": Mix(("agent_1", BASE), (0.75, 0.25))},
)
through = Accelerator.backward
Accelerator.backward = lambda self, loss, **k: (backwards.append(1), through(self, loss, **k))[1]
rank = trainer.args.process_index
loss_of = trainer.loss

def loss(model, rows, counts):
    # not a number in one of the steps 4 and 5, for the row of one chat, which one process has
    found, share = loss_of(model, rows, counts), len(trainer.rows)
    spoilt = trainer.rows[3 % share]["agent_0"] if rank == 3 // share else None
    return found * float("nan") if trainer.state.global_step in (4, 5) and any(r is spoilt for r in rows) else found

trainer.loss = loss
trainer.train()
trainer.model.save(folder / f"rank-{rank}")
updates = [r for r in records if "update" in r]
record = {"backwards": len(backwards), "updates": updates, "played": played}
(folder / f"rank-{rank}.json").write_text(json.dumps(record))
"""


def saved(folder: Path) -> list[bytes]:
    return [(folder / seat / "adapter_model.safetensors").read_bytes() for seat in tiny.SEATS]


CHECKPOINTS = """
import json, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
import tiny
from trained import same

folder = Path(sys.argv[1])
options = {"num_updates": 2, "save_updates": 1, "optim": "adamw_torch", "learning_rate": 0.01, "episodes_per_update": 4}
straight = tiny.cue_trainer(folder / "run", **options)
straight.train()
first = folder / "run" / "checkpoint-1"
files = sorted(str(path.relative_to(first)) for path in first.rglob("*") if path.is_file())
manifest = sorted(json.loads((first / "manifest.json").read_text()))
torch.manual_seed(123)
policy = tiny.team(tiny.base_model(len(straight.processing_class)), seed=99)
resumed = tiny.cue_trainer(folder / "run", policy=policy, **options)
resumed.train(resume_from_checkpoint=str(first))
equal = same(tiny.weights(straight.model), tiny.weights(resumed.model))
rank = straight.args.process_index
(folder / f"rank-{rank}.json").write_text(json.dumps({"files": files, "manifest": manifest, "equal": equal}))
"""


SHARDED = """
import copy, json, sys
from pathlib import Path
import torch
from accelerate import PartialState
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
import tiny
from marl_coop.policy.routed_lora import LoraFactor, spans_of

torch.set_num_threads(1)
rank = PartialState(cpu=True).process_index
mesh = init_device_mesh("cpu", (2,))
ids = torch.randint(40, (3, 8), generator=torch.Generator().manual_seed(0))
tokens = {
    "spans": spans_of(["agent_0", "agent_1", "agent_1"]), "input_ids_RT": ids, "temperature": 1.0,
    "told": {"attention_mask": torch.ones_like(ids)},
    "rows_N": torch.tensor([0, 1, 2]), "columns_N": torch.tensor([3, 5, 7]),
}
whole = tiny.team(tiny.base_model(40).bfloat16()).train()
parts = copy.deepcopy(whole)
parts.activation_checkpointing_enable()
factors = [module for module in parts.modules() if isinstance(module, LoraFactor)]
for module in (*factors, *parts.critics.values(), *parts.decoder.layers, parts):
    fully_shard(module, mesh=mesh)
for policy in (whole, parts):
    policy({}, **tokens)[0].logprobs_N.sum().backward()
gradients = [[p.grad for name in policy.adapters for p in policy.adapter_parameters(name)] for policy in (whole, parts)]
found = {
    "share": sum(p.to_local().numel() for p in parts.parameters()) / sum(p.numel() for p in whole.parameters()),
    "equal": [torch.equal(a, b.full_tensor()) for a, b in zip(*gradients, strict=True)],
    "moved": [bool(a.any()) for a in gradients[0]],
}
(Path(sys.argv[1]) / f"rank-{rank}.json").write_text(json.dumps(found))
"""


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("alone") / "one"
    launch(SCRIPT, folder, 1)
    return folder


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Path:
    """What two processes wrote, by what was asked of them."""
    folder = tmp_path_factory.mktemp("two")
    scripts = {
        "adapters": SHARDED,
        "whole": SCRIPT,
        "shared": SCRIPT.replace("num_updates", "shard_base=True, num_updates", 1),
        "whole checkpoints": CHECKPOINTS,
        "shared checkpoints": CHECKPOINTS.replace('"num_updates"', '"shard_base": True, "num_updates"'),
    }
    launch_each(scripts, folder, 2)
    return folder


@pytest.mark.parametrize("base", ["whole", "shared"])
def test_two_processes_do_what_one_does(alone, two, base):
    do_what_one_does(two / base, 2, alone)


@pytest.mark.slow
def test_four_processes_do_what_one_does(tmp_path, alone):
    launch(SCRIPT, tmp_path / "four", 4)
    do_what_one_does(tmp_path / "four", 4, alone)


def do_what_one_does(folder, processes, alone):
    (one,), ranks = written(alone, 1), written(folder, processes)
    assert len({rank["backwards"] for rank in ranks}) == 1
    assert len({tuple(saved(folder / f"rank-{rank}")) for rank in range(processes)}) == 1
    for update in range(2):
        assert [episode for rank in ranks for episode in rank["played"][update]] == one["played"][update]
    before, after = loaded(alone / "rank-0"), loaded(folder / "rank-0")
    start = tiny.weights(tiny.team(tiny.base_model(len(tiny.word_tokenizer(tiny.WORDS)))))
    distance = max((before[name] - after[name]).abs().max().item() for name in before)
    moved = max((before[name] - start[name]).abs().max().item() for name in before)
    print(f"one process and {processes} differ by {distance:.1e}, training moved by {moved:.1e}")
    assert distance < 1e-4 < 1e-2 < moved
    for a, b in zip(one["updates"], ranks[0]["updates"], strict=True):
        a, b = ({k: v for k, v in run.items() if not k.startswith(("seconds/", "memory"))} for run in (a, b))
        assert a == pytest.approx(b, rel=1e-3, abs=1e-3)
        assert "with/base/success" in a
    assert [record["non_finite_losses"] for record in one["updates"]] == [0, 1]
    prices = [[record["weight/communication"] for record in run["updates"]] for run in (one, *ranks)]
    assert all(price == prices[0] for price in prices)  # of talk without the faults, of which some have more
    assert prices[0][0] != prices[0][1]


PAST = """
policy = tiny.team(tiny.base_model(len(tiny.word_tokenizer(tiny.WORDS))))
policy.keep_past("agent_1", 1, 2)
"""


@pytest.fixture(scope="module")
def more(tmp_path_factory) -> Path:
    """What one process and two wrote of what is slow."""
    folder = tmp_path_factory.mktemp("more")
    micro = SCRIPT.replace(
        "num_updates=2, num_ppo_epochs=2, num_mini_batches=2", "num_updates=1, micro_batch_tokens=96"
    )
    past = SCRIPT.replace("records, backwards", f"{PAST}records, backwards").replace(
        'policies={"agent_0": "agent_0", "agent_1": Mix(("agent_1", BASE), (0.75, 0.25))}',
        'policies={"agent_0": "agent_0", "agent_1": Mix(("agent_1", policy.past["agent_1"]), (0.5, 0.5))}, '
        'policy=policy, advantage="counterfactual", kl_reference="start", importance="recompute"',
    )
    shared = past.replace("num_updates", "shard_base=True, num_updates", 1)
    launch_each({"micro": micro, "past": past}, folder / "one", 1)
    launch_each({"micro": micro, "past": shared}, folder / "two", 2)
    return folder


@pytest.mark.slow
def test_processes_whose_micro_batches_are_not_equally_many_stay_in_step(more):
    (alone,), ranks = written(more / "one" / "micro", 1), written(more / "two" / "micro", 2)
    assert 2 < ranks[0]["backwards"] == ranks[1]["backwards"] < alone["backwards"]
    one, two = (loaded(more / name / "micro" / "rank-0") for name in ("one", "two"))
    assert saved(more / "two" / "micro" / "rank-0") == saved(more / "two" / "micro" / "rank-1")
    assert max((one[name] - two[name]).abs().max().item() for name in one) < 1e-4


@pytest.mark.slow
def test_past_selves_and_replays_are_the_same_by_two_processes_that_share_the_base_out(more):
    (one,), ranks = written(more / "one" / "past", 1), written(more / "two" / "past", 2)
    for update in range(2):
        assert [episode for rank in ranks for episode in rank["played"][update]] == one["played"][update]
    assert any("past:agent_1@1" in str(episode) for episode in one["played"][1])
    first, second = (loaded(more / name / "past" / "rank-0") for name in ("one", "two"))
    assert max((first[name] - second[name]).abs().max().item() for name in first) < 1e-4
    names = [name for name in one["updates"][0] if name.endswith(("message_credit", "/sampling_gap", "/entropy"))]
    assert len(names) == 6
    for a, b in zip(one["updates"], ranks[0]["updates"], strict=True):
        assert [a[name] for name in names] == pytest.approx([b[name] for name in names], rel=1e-3, abs=1e-3)


def loaded(folder):
    policy = tiny.team(tiny.base_model(len(tiny.word_tokenizer(tiny.WORDS))))
    policy.load(folder)
    return tiny.weights(policy)


@pytest.mark.parametrize("base", ["whole", "shared"])
def test_checkpoints_of_two_processes_are_whole_and_go_on_as_if_nothing_had_stopped(tmp_path, two, base):
    ranks = written(two / f"{base} checkpoints", 2)
    assert [rank["equal"] for rank in ranks] == [True, True]
    for rank in ranks:
        assert {*rank["files"]} == {*rank["manifest"], "manifest.json"}
        assert {"rng_state_0.pth", "rng_state_1.pth", "optimizer.pt", "scheduler.pt"} < {*rank["manifest"]}
    run = two / f"{base} checkpoints" / "run"
    assert [path.name for path in whole_checkpoints(run)] == ["checkpoint-1", "checkpoint-2"]
    assert not (run / ASIDE).exists()
    alone = tiny.cue_trainer(
        tmp_path / "one",
        policy=tiny.team(tiny.base_model(len(tiny.word_tokenizer(tiny.WORDS))), seed=99),
        num_updates=2,
        optim="adamw_torch",
        learning_rate=0.01,
        episodes_per_update=4,
    )
    alone.train(resume_from_checkpoint=str(run / "checkpoint-1"))  # which goes on as well
    first, both = loaded(run / "checkpoint-1"), loaded(run / "checkpoint-2")
    assert max((tiny.weights(alone.model)[name] - both[name]).abs().max().item() for name in both) < 1e-4
    assert max((first[name] - both[name]).abs().max().item() for name in both) > 1e-3


def test_what_shards_modules_shards_adapters(two):
    """FSDP2 on two processes, a float32 factor in a bfloat16 layer each by itself: the gradients of one process."""
    for found in written(two / "adapters", 2):
        assert 0.45 < found["share"] < 0.55
        assert len(found["equal"]) == 2 * 2 * 14
        assert all(found["equal"]) and all(found["moved"])
