"""How far a long piece of work is, as a terminal and a file get it."""

import os
import pty
import re
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from marl_coop.runs import progress

WORK = """
from marl_coop.runs.progress import Progress
with Progress(3, "playing", "episode") as progress:
    for played in range(3):
        progress.advance(1, {"success": "0.50", "J": "-0.12", "tokens": "11.2"})
"""


def shown(stderr) -> None:
    subprocess.run([sys.executable, "-c", WORK], stderr=stderr, cwd=Path(__file__).parents[1], check=True)


@pytest.mark.parametrize("size", [(24, 80), (0, 0)])  # a container may say no size
def test_a_terminal_of_any_size_gets_a_bar(size):
    terminal, side = pty.openpty()
    termios.tcsetwinsize(side, size)
    shown(side)
    text = os.read(terminal, 4096).decode()
    assert re.search(r"playing: 100%\|.*\| 3/3 \[\d\d:\d\d<\d\d:\d\d, success=0\.50, J=-0\.12, tokens=11\.2\]", text)


def test_a_file_gets_one_line_per_step_and_no_carriage_returns(tmp_path):
    with (tmp_path / "log").open("w") as log:
        shown(log)
    text = (tmp_path / "log").read_bytes().decode()
    numbers = r"success=0\.50, J=-0\.12, tokens=11\.2"
    assert re.fullmatch(rf"(playing: \d/3 episodes \[\d\d:\d\d<\d\d:\d\d, {numbers}\]\n){{3}}", text)


@pytest.mark.parametrize("terminal", [True, False])
def test_tqdms_own_switch_silences_bar_and_lines(terminal, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    said = {}
    for switch in ("", "1"):
        monkeypatch.setenv("TQDM_DISABLE", switch)
        with progress.Progress(2, "playing", "episode") as bar:
            bar.advance(2)
        said[switch] = capsys.readouterr().err
    assert said["1"] == "" and "2/2" in said[""]
