"""`marl-coop show`: an episode in the terminal, with all that the page says of it."""

import io
import json
import os
import re
import subprocess
import sys

import pytest
import viewed
from rich.console import Console

from marl_coop.cli import main
from marl_coop.viewer import terminal
from marl_coop.viewer.episodes import PHASES, detail, kinds, row
from marl_coop.viewer.page import twin
from marl_coop.viewer.source import read_run


@pytest.fixture(scope="module")
def after():
    return viewed.played(12, "ideal")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, after):
    """A finished run of two updates."""
    before, place = viewed.played(12, "always-agree"), tmp_path_factory.mktemp("runs") / "first"
    return viewed.run_folder(place, before=before, updates=[before[:6], after[:6]], after=after)


def test_show_prints_an_episode_with_what_was_said_and_paid(folder, after, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    assert main(["show", str(folder), "after:1"]) == 0
    out = capsys.readouterr().out
    assert all(turn.reply.splitlines()[0][:20] in out for turn in after[0].turns)
    assert "task_success +" in out and after[0].task.id in out and "…" not in out


def test_an_episode_in_which_nothing_is_decided_has_no_empty_table():
    (episode,) = viewed.played(1)
    data = detail(viewed.record_of(episode), None) | {"decisions": []}
    console = Console(file=io.StringIO(), width=80)
    console.print(terminal.episode(row(viewed.record_of(episode), None), data, 80))
    assert "was told" not in console.file.getvalue()


@pytest.mark.parametrize("width", [60, 120])
def test_a_word_that_is_longer_than_a_lane_is_broken_and_not_cut(width):
    (episode,) = viewed.played(1, says="w" * 300)
    console = Console(file=io.StringIO(), width=width)
    console.print(
        terminal.episode(row(viewed.record_of(episode), None), detail(viewed.record_of(episode), None), width)
    )
    out = console.file.getvalue()
    assert "…" not in out and out.count("w") >= 6 * 300


@pytest.mark.parametrize("width", [60, 80, 120])
def test_what_a_seat_did_is_in_whole_words_at_every_width(width):
    (episode,) = [one for one in viewed.played(12, "always-agree") if "capitulated" in kinds(one)][:1]
    data = detail(viewed.record_of(episode), None)
    console = Console(file=io.StringIO(), width=width)
    console.print(terminal.episode(row(viewed.record_of(episode), None), data, width))
    told = console.file.getvalue().partition("right")[2].partition("options of")[0]
    assert "capitulated" in told and "(reliable," in told and "…" not in told
    (decision,) = episode.task.decisions
    (strong,) = [seat for seat, cue in decision.cue.items() if cue == "strong"]
    assert all(word in told for word in decision.source[strong].split())


def texts(data) -> list[str]:
    """All text of a twin's data, and its numbers as the terminal writes them."""
    if isinstance(data, dict) and "spans" in data:
        return [text for _, text in data["spans"]]
    if isinstance(data, dict):
        return [text for value in data.values() for text in texts(value)]
    if isinstance(data, list):
        return [text for value in data for text in texts(value)]
    return [data] if isinstance(data, str) else [f"{data:.2f}"] if isinstance(data, float) else []


@pytest.mark.parametrize("env", ["PairedFunctions", "PairedFeatures", "MoonSurvival", "Handover"])
def test_show_says_all_that_the_page_says_of_an_episode(env, tmp_path):
    place = viewed.run_folder(tmp_path / "run", updates=[viewed.played(1, env=env)])
    (told,) = twin([read_run(place)])["runs"][0]["episodes"]
    data = told["detail"]
    console = Console(file=io.StringIO(), width=60)
    console.print(terminal.episode(told, data, 60, everything=True))
    plain = lambda text: re.sub(r"[\s│+]", "", text)  # noqa: E731
    out = plain(console.file.getvalue())
    turns = [
        turn | {"phase": PHASES[turn["phase"]], "error": None, "terms": list(turn["terms"]), "work": []}
        for turn in data["turns"]
    ]
    confidences = [stance.pop("confidence") for turn in turns for stance in turn["stances"]]
    said = {name: data[name] for name in ("seats", "memory", "tests", "merge", "forecasts", "utility", "detail")}
    for seat in (seat for decision in data["decisions"] for seat in decision["seats"]):
        assert plain(seat["told"] or "") in out and plain(seat["acted"]) in out
    for decision in data["decisions"]:
        for text in texts([decision["id"], decision["options"], decision["best"], decision["truth"]]):
            assert all(plain(word) in out for word in text.split())
    for act in (act for turn in turns for act in turn.pop("acts")):
        assert plain(f"{act['kind']}{act['decision']}{act['option'] or ''}") in out
    for text in texts([turns, said]):
        assert plain(text) in out, text
    assert all(f"{confidence:.0%}" in out for confidence in confidences)


def test_show_says_no_confidence_that_was_not_asked_for(tmp_path):
    place = viewed.run_folder(tmp_path / "run", updates=[viewed.played(1, confidences=False)])
    (told,) = twin([read_run(place)])["runs"][0]["episodes"]
    console = Console(file=io.StringIO(), width=60)
    console.print(terminal.episode(told, told["detail"], 60, everything=False))
    assert told["detail"]["turns"][0]["stances"] and "%" not in console.file.getvalue()


def test_show_puts_the_same_task_beside_an_episode_and_says_what_there_is(folder, capsys):
    assert main(["show", str(folder), "update-0001.0:2"]) == 0
    out = capsys.readouterr().out
    others = re.findall(r"^--beside (\S+): ", out, re.MULTILINE)
    assert others == ["before:2", "update-0002.0:2", "after:2", "agent_0"]
    for other, title in {"after:2": "after:2", "agent_0": "update-0001.0:2, had nobody heard agent_0"}.items():
        assert main(["show", str(folder), "update-0001.0:2", "--beside", other]) == 0
        assert f"\n{title}  " in capsys.readouterr().out


def test_a_terminal_without_the_marks_gets_their_escapes(folder):
    words = [sys.executable, "-m", "marl_coop", "show", str(folder), "after:1"]
    found = subprocess.run(words, env=os.environ | {"PYTHONIOENCODING": "ascii"}, capture_output=True, text=True)
    assert found.returncode == 0 and found.stderr == "" and "\\u2713 solved" in found.stdout


@pytest.mark.parametrize("width", [60, 120])
def test_a_terminal_gets_no_control_character_and_no_markup_from_a_reply(width):
    (episode,) = viewed.played(1, says=viewed.HOSTILE[2])
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(
        terminal.episode(row(viewed.record_of(episode), None), detail(viewed.record_of(episode), None), width)
    )
    out = console.file.getvalue()
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202e\ud800-\udfff]", out)
    assert "\\x1b[2J" in out and "[red]markup[/red]" in "".join(out.split("\n")).replace("│", "").replace("  ", "")


def test_teams_of_any_size_and_games_of_any_kind_are_shown(tmp_path):
    for env, options in {
        "DesignReview": {"agents": 8},
        "MoonSurvival": {},
        "Handover": {},
        "PairedFeatures": {},
    }.items():
        place = viewed.run_folder(tmp_path / env, before=viewed.played(2, env=env, **options))
        (data,) = twin([read_run(place)])["runs"]
        for told in data["episodes"]:
            Console(file=io.StringIO()).print(terminal.episode(told, told["detail"], 80))
        assert len(data["episodes"]) == 2 and json.dumps(data)
