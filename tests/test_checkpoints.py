"""Checkpoints are whole or not there, whatever stops a run; a damaged one is found and never gone on from."""

import json
import shutil
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
from processes import run

from marl_coop.config.schema import Config
from marl_coop.experiment.experiment import Experiment
from marl_coop.runs import checkpoints, rundir

KILLED = """
import json, os, shutil, sys, tiny
from pathlib import Path
from processes import kill_at
from transformers import TrainerCallback
from marl_coop.runs import checkpoints

folder, report = Path(sys.argv[1]) / "run", []
class Kill(TrainerCallback):
    '''Before the second save, a process for each moment at which it touches the disk, which is killed there.'''

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.global_step < 2 or "update" not in logs:
            return
        shutil.copytree(folder, folder.with_name("kept"))
        while not report or report[-1][0]:
            shutil.rmtree(folder)
            shutil.copytree(folder.with_name("kept"), folder)
            child = os.fork()
            if not child:
                kill_at(len(report), folder)
                return
            _, status = os.waitpid(child, 0)
            found = [[p.name for p in f(folder)] for f in (checkpoints.all_checkpoints, checkpoints.whole_checkpoints)]
            report.append([os.WIFSIGNALED(status), *found])
        (folder.parent / "report.json").write_text(json.dumps(report))
        os._exit(0)

trainer = tiny.cue_trainer(folder, num_updates=2, save_updates=1, save_total_limit=1, callbacks=[Kill()],
                           episodes_per_update=2)
trainer.train()
os._exit(0)
"""


@pytest.mark.slow
def test_a_kill_at_any_moment_of_a_save_leaves_whole_checkpoints_alone(tmp_path):
    run(KILLED, tmp_path, 1)
    *killed, (stopped, *last) = json.loads((tmp_path / "report.json").read_text())
    assert len(killed) > 30 and not stopped and last == [["checkpoint-2"]] * 2
    assert all(found == whole for _, found, whole in killed)
    states = {tuple(whole) for _, _, whole in killed}
    assert states == {("checkpoint-1",), ("checkpoint-1", "checkpoint-2"), ("checkpoint-2",)}


REPLACED = """
import json, os, shutil, sys, tiny, torch
from pathlib import Path
from processes import kill_at
from trained import nudge, same
from marl_coop.runs import rundir

folder, report = Path(sys.argv[1]) / "run", []
trainer = tiny.cue_trainer(folder, episodes_per_update=2)
rundir.record_start(folder, "replaced", "", seed=0)
trainer.save_model()
before = tiny.weights(trainer.model)
before = {name: weight.clone() for name, weight in before.items()}
nudge(trainer.model)
trainer.train()
after = {name: weight.clone() for name, weight in tiny.weights(trainer.model).items()}
shutil.copytree(folder, folder.with_name("kept"))
while not report or report[-1][0]:
    shutil.rmtree(folder)
    shutil.copytree(folder.with_name("kept"), folder)
    child = os.fork()
    if not child:
        kill_at(len(report), folder)
        trainer.save_model()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    saved = rundir.saved_policy(folder)
    trainer.model.load(saved)
    found = tiny.weights(trainer.model)
    report.append([os.WIFSIGNALED(status), saved.name, same(found, before), same(found, after)])
    trainer.model.load(folder.with_name("kept") / "checkpoint-1")
(folder.parent / "report.json").write_text(json.dumps(report))
os._exit(0)
"""


@pytest.mark.slow
def test_a_kill_at_any_moment_of_the_last_save_leaves_one_whole_policy(tmp_path):
    """That of before in the run's folder, then that of the last checkpoint, then the new one: never a mixture."""
    run(REPLACED, tmp_path, 1)
    *killed, last = json.loads((tmp_path / "report.json").read_text())
    assert len(killed) > 20 and last == [False, "run", False, True]
    order = {("run", True, False): 0, ("checkpoint-1", False, True): 1, ("run", False, True): 2}
    states = [order[tuple(found)] for _, *found in killed]
    assert states == sorted(states) and set(states) == {0, 1, 2}
    assert not (tmp_path / "run" / checkpoints.ASIDE).exists()


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Path:
    """A run with checkpoints 1 and 2."""
    folder = tmp_path_factory.mktemp("two")
    tiny.cue_trainer(folder, num_updates=2, save_updates=1).train()
    rundir.record_start(folder, "two", "", seed=0)
    return folder


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def turn(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def nest(file: Path) -> None:
    file.write_text("[" * 10**5)


DAMAGES = [
    (cut, "optimizer.pt", r"optimizer.pt has \d+ bytes, not \d+"),
    (Path.unlink, "optimizer.pt", "optimizer.pt is missing"),
    (Path.unlink, "scheduler.pt", "scheduler.pt is missing"),
    (Path.unlink, "rng_state.pth", "rng_state.pth is missing"),
    (cut, "agent_1/adapter_model.safetensors", "agent_1/adapter_model.safetensors has"),
    (turn, "agent_1/adapter_model.safetensors", "agent_1/adapter_model.safetensors is not what was written"),
    (turn, "critics.safetensors", "critics.safetensors is not what was written"),
    (Path.unlink, "manifest.json", "manifest.json is missing"),
    (cut, "manifest.json", None),  # the newline at its end
    (turn, "manifest.json", ""),
    (nest, "manifest.json", "it cannot be read"),
]


@pytest.mark.parametrize(("damage", "name", "said"), DAMAGES)
def test_a_damaged_checkpoint_is_never_gone_on_from(two, tmp_path, damage, name, said):
    run = shutil.copytree(two, tmp_path / "run")
    damage(run / "checkpoint-2" / name)
    if said is None:
        assert rundir.locate(run) == (run, run / "checkpoint-2")
        return
    assert rundir.locate(run) == (run, run / "checkpoint-1")
    assert rundir.saved_policy(run, "checkpoint-1") == run / "checkpoint-1"
    with pytest.raises(rundir.RunError, match=f"checkpoint-2' is damaged: .*{said}"):
        rundir.locate(run / "checkpoint-2")
    with pytest.raises(ValueError, match=f"not a whole checkpoint: .*{said}"):
        tiny.cue_trainer(run, num_updates=3).train(resume_from_checkpoint=str(run / "checkpoint-2"))


def test_a_run_with_damaged_checkpoints_alone_does_not_begin_again_in_silence(two, tmp_path):
    run = shutil.copytree(two, tmp_path / "run")
    for checkpoint in checkpoints.all_checkpoints(run):
        (checkpoint / "scheduler.pt").unlink()
    with pytest.raises(rundir.RunError, match="no whole checkpoint: in checkpoint-2, scheduler.pt is missing"):
        rundir.locate(run)


@pytest.mark.parametrize(("steps", "goes_on"), [(3, True), (2, False)])
def test_what_a_run_came_to_is_set_aside_where_it_goes_on_and_kept_where_it_has_ended(two, tmp_path, steps, goes_on):
    run = shutil.copytree(two, tmp_path / "run")
    for name in checkpoints.END:
        (run / name).write_text("of two updates")
    resumed, said = Experiment.__new__(Experiment), []  # without the model
    args = SimpleNamespace(run_name=None, report_to=[], steps_per_update=1, max_steps=steps)
    config = Config()
    found = checkpoints.all_checkpoints(run)
    vars(resumed).update(folder=run, name="x", main=True, checkpoint=found[-1], _found=found, args=args, config=config)
    resumed.console = SimpleNamespace(print=said.append)
    with ExitStack() as stack:
        resumed._begin(stack)
    aside = ["after.superseded-1", "critics.superseded-1", "results.superseded-1"] if goes_on else []
    assert sorted(path.name for path in run.glob("*.superseded-*")) == aside
    assert rundir.saved_policy(run) == (run / "checkpoint-2" if goes_on else run)
    lines = [f"{name} is now {Path(name).stem}.superseded-1: " for name in checkpoints.END if goes_on]
    assert said[1:] == [f"{line}the run had ended, and goes on" for line in lines]


@pytest.mark.parametrize("content", ["", "{}", "[]", "null"])
def test_a_note_of_the_best_checkpoint_that_is_damaged_is_one_line(two, tmp_path, content):
    run = shutil.copytree(two, tmp_path / "run")
    (run / checkpoints.BEST).write_text(content)
    with pytest.raises(checkpoints.CheckpointError, match=r"best.json' cannot be read: remove it, and no checkpoint"):
        rundir.saved_policy(run, "best")


def test_the_newest_checkpoints_are_kept(tmp_path):
    tiny.cue_trainer(tmp_path, num_updates=11, save_updates=2, save_total_limit=3, episodes_per_update=2).train()
    names = ["checkpoint-8", "checkpoint-10", "checkpoint-11"]  # the last step is always saved
    assert [path.name for path in checkpoints.whole_checkpoints(tmp_path)] == names
    assert not (tmp_path / checkpoints.ASIDE).exists()
