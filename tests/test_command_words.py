"""Words on the command line that cannot be meant: one line before anything is played, scored or loaded."""

import pytest
import viewed

from marl_coop import cli
from marl_coop.cli import arguments


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    viewed.run_folder(folder)
    return folder


FILES = [["rescore", "RUN", "rewards.consensus.weight=0"], ["ledger", "RUN"]]  # commands that write one file
FOLDERS = [["compare", "RUN"], ["eval", "RUN", "--quick"], ["ablate", "configs/studies/small.yaml"]]
NOWHERE = [(words, place) for words in FILES for place in ("file/below", "folder")]
NOWHERE += [(words, place) for words in FOLDERS for place in ("file/below", "file")]


@pytest.mark.parametrize(("words", "place"), NOWHERE, ids=[f"{words[0]}-{place}" for words, place in NOWHERE])
def test_where_nothing_can_be_written_is_said_before_anything_is_done(run, words, place, tmp_path, capsys):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    there = str(tmp_path / place)
    assert cli.main([str(run) if word == "RUN" else word for word in words] + ["--output", there]) == 2
    captured = capsys.readouterr()
    why = "is a folder" if place == "folder" else "is no folder"
    assert captured.out == ""
    assert captured.err.startswith(f"error: command line: --output {there} cannot be written: '")
    assert captured.err.endswith(f"' {why}; name another\n")


def test_folders_above_a_written_file_are_made(tmp_path):
    arguments.write_output(tmp_path / "new" / "deep" / "numbers.json", "[]\n")
    assert (tmp_path / "new" / "deep" / "numbers.json").read_text() == "[]\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--gpus", "two"], "'two' is no number of them: give 1 or more"),
        (["--gpus", "0"], "'0' is no number of them: give 1 or more"),
        (["--gpu-memory", "24G"], "'24G' is no size: give GiB, such as 24"),
        (["--gpu-memory", "nan"], "'nan' is no size: give GiB, such as 24"),
    ],
)
def test_numbers_that_doctor_cannot_take_are_told_what_would_do(words, said, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["doctor", *words])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.endswith(f"error: argument {words[0]}: {said}\n")


def test_overrides_are_not_asked_for(capsys):
    with pytest.raises(SystemExit):
        cli.main(["rescore"])
    assert capsys.readouterr().err.endswith("the following arguments are required: RUN\n")


def test_a_file_like_no_other_in_its_folder_is_told_what_there_is(tmp_path, capsys):
    (tmp_path / "mine.yaml").touch()
    assert cli.main(["train", "--config", str(tmp_path / "quickstart.yaml")]) == 2
    assert f"no such file; {str(tmp_path)!r} has mine.yaml" in capsys.readouterr().err
    assert cli.main(["train", "--config", str(tmp_path / "mien.yaml")]) == 2
    assert f"no such file; did you mean {str(tmp_path / 'mine.yaml')!r}?" in capsys.readouterr().err


def test_an_empty_folder_is_shown_as_often_as_one_likes(tmp_path):
    assert [cli.main(["view", str(tmp_path)]) for _ in range(2)] == [0, 0]
