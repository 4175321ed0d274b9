"""One of several processes is killed while they train, ends before they have met, or says nothing."""

import socket
import time

import pytest
from processes import launch
from train_py import command, make_place, spawn, wait_for

from marl_coop.runs.checkpoints import flaw, whole_checkpoints


def test_the_other_stops_within_a_minute_in_one_line_that_says_how_to_go_on(tmp_path):
    place = make_place(tmp_path)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
    words = command(place, "run", "training.num_updates=40", "warmup.batch_size=8")
    first, second = (spawn(place, words, group | {"RANK": rank, "LOCAL_RANK": rank}) for rank in "01")
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
        time.sleep(6) if rank else PartialState().wait_for_everyone()
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
    with pytest.raises(AssertionError, match="this machine lacks something"):
        launch(EARLY, tmp_path / "two", 2)
    assert time.time() - (tmp_path / "two" / "ended").stat().st_mtime < 60
