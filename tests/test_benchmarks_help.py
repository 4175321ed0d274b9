"""Every script of `benchmarks/`, asked what it does, or for what it cannot do."""

import os
import re
import runpy
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.parametrize("script", sorted(file.name for file in BENCHMARKS.glob("*.py")))
def test_help_says_how_to_start_it_and_starts_nothing(script, tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setattr(os, "environ", os.environ | {"MARL_COOP_CACHE": str(tmp_path)})
    monkeypatch.setattr(sys, "argv", [str(BENCHMARKS / script), "--help"])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(BENCHMARKS / script), run_name="__main__")
    said = capsys.readouterr().out
    assert ended.value.code == 0
    assert f"usage: {script}" in said and f"python benchmarks/{script}" in said
    assert list(tmp_path.iterdir()) == []
    unexplained = r"^  (-\S+)(?:(?!  ).)*\n(?! {10})"  # no help on its line, nor far indented below it
    assert re.findall(unexplained, said.partition("\noptions:\n")[2], re.MULTILINE) == []


@pytest.mark.parametrize(
    ("script", "words", "said"),
    [
        ("growth.py", "--axes adapters --values 2 5", "5 adapters are too many: there are 4 seats"),
        ("growth.py", "training.episodes_per_update=16", "training.episodes_per_update: it is 64 by --axes, --values"),
        ("growth.py", "--axes seats --values 2 9", "env.agents: 9 is refused"),
        ("growth.py", "--axes rounds --episodes 3", "3 cannot be shared by 1 processes and 2 minibatches"),
        ("async_play.py", "--updates 1", "argument --updates: give 2 or more, as the first does not count"),
        ("evidence.py", "/nowhere", "argument ablation: '/nowhere' is not there"),
        ("quotes.py", "/nowhere.jsonl", "argument places: '/nowhere.jsonl' is not there"),
        ("growth.py", "--threads 0", "argument --threads: '0' is no number of them: give 1 or more"),
        ("peers.py", "--repeats 0", "argument --repeats: '0' is no number of them: give 1 or more"),
        ("peers.py", "--single 9 training.episodes_per_update=8", "--single: 9 is more than the 8 episodes"),
        (
            "peers.py",
            "training.num_ppo_epochs=2",
            "training.num_ppo_epochs: 2 is refused: contenders are compared on 1",
        ),
        ("peers.py", "policies.agent_1=agent_0", "contenders are compared on two seats with an adapter each"),
        ("peers.py", "traning.kl_coef=0", "traning: unknown key; did you mean 'training'?"),
    ],
)
def test_what_cannot_be_measured_is_one_line_before_anything_is(script, words, said, monkeypatch, capsys):
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(sys, "argv", [script, *words.split()])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(BENCHMARKS / script), run_name="__main__")
    captured = capsys.readouterr()
    assert ended.value.code == 2 and captured.out == ""
    assert said in captured.err.splitlines()[-1]


def test_a_script_that_is_stopped_ends_at_once_and_leaves_no_process():
    code = "import sys, time\nfrom marl_coop.cli import run_script\nfrom support.fresh import in_fresh_process\n"
    code += "sys.exit(run_script(lambda: in_fresh_process(time.sleep, 100)))"
    environ = os.environ | {"PYTHONPATH": f"{BENCHMARKS.parent}:{BENCHMARKS}"}
    script = psutil.Popen([sys.executable, "-c", code], env=environ, stderr=subprocess.PIPE, text=True)
    while len(measuring := script.children()) < 2:  # one of them keeps count of what processes share
        time.sleep(0.1)
    time.sleep(1)
    script.terminate()
    assert script.communicate(timeout=60)[1] == "stopped\n"
    assert script.returncode == 130
    assert psutil.wait_procs(measuring, timeout=20)[1] == []
