"""Every script of `benchmarks/`, asked what it does."""

import os
import re
import runpy
import sys
from pathlib import Path

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
