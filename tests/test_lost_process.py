"""One of several processes is killed while they train, ends before they have met, or says nothing."""

import os
import subprocess
import sys
import time

from processes import ROOT, TESTS, group, launch
from train_py import command, fork, make_place, wait_for

from marl_coop.runs.checkpoints import flaw, whole_checkpoints


def test_the_other_stops_within_a_minute_in_one_line_that_says_how_to_go_on(tmp_path):
    place = make_place(tmp_path)
    words = command(place, "run", "training.num_updates=40", "warmup.batch_size=8")
    first, second = (fork(place, words, told) for told in group(2))
    wait_for(place / "run" / "checkpoint-4", first)  # after the first update
    second.kill()
    killed = time.monotonic()
    _, errors = first.communicate(timeout=120)
    assert time.monotonic() - killed < 60
    assert first.returncode == 1
    line = errors.splitlines()[-1]
    last = whole_checkpoints(place / "run")[-1]
    assert line == (
        "error: another process of this run has ended, and its own output says why. "
        f"--resume {place / 'run'} goes on from {last.name}."
    )
    assert "Traceback" not in errors
    assert flaw(last) is None


SILENT = """
import json, sys, time
from pathlib import Path
import tiny
from accelerate import PartialState
from marl_coop.ppo.processes import naming_lost_processes
from marl_coop.runs.rundir import LostProcessError

folder, said = Path(sys.argv[1]), ""
rank = tiny.arguments(folder / "run", ddp_timeout=1).process_index
try:
    with naming_lost_processes():
        time.sleep(4) if rank else PartialState().wait_for_everyone()
except LostProcessError as error:
    said = str(error)
(folder / f"rank-{rank}.json").write_text(json.dumps(said))
"""


def test_one_that_is_silent_is_waited_for_as_long_as_the_configuration_says(tmp_path):
    said, _ = launch(SILENT, tmp_path / "two", 2)
    assert said == "another process of this run has said nothing for as long as training.ddp_timeout allows."


EARLY = """
import os, sys
from pathlib import Path
folder = Path(sys.argv[1])
if os.environ["RANK"] == "1":
    (folder / "ended").touch()
    sys.exit("this machine lacks something")
import tiny
tiny.arguments(folder / "run")
"""


def test_where_one_ends_before_they_have_met_the_launcher_ends_the_other_within_a_minute(tmp_path):
    (tmp_path / "script.py").write_text(EARLY)
    torchrun = [sys.executable, *"-m torch.distributed.run --standalone --nproc_per_node 2".split()]
    environment = os.environ | {"PYTHONPATH": f"{TESTS}:{ROOT}", "ACCELERATE_USE_CPU": "true", "TMPDIR": str(tmp_path)}
    words = [*torchrun, tmp_path / "script.py", tmp_path]
    launched = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=200)
    assert time.time() - (tmp_path / "ended").stat().st_mtime < 60
    assert launched.returncode == 1 and "this machine lacks something" in launched.stderr
