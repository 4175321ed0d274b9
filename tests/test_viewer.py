"""What the viewer reads of a run's folder and makes of its episodes, and the commands; no browser."""

import io
import json
import re
from dataclasses import replace

import pytest
import viewed
from rich.console import Console

from envs import make
from envs.core.episode import Outcome, StopReason
from envs.scripted.play import play
from envs.scripted.registry import find_partner
from marl_coop.cli import main
from marl_coop.runs.records import write_episodes
from marl_coop.runs.rundir import RunError
from marl_coop.viewer import charts, terminal
from marl_coop.viewer.episodes import KINDS, detail, kind_of, kinds, row
from marl_coop.viewer.overview import overview
from marl_coop.viewer.page import page, twin
from marl_coop.viewer.source import read_run
from marl_coop.viewer.text import all_visible, diff, highlighted, visible
from rewards import RewardStack
from rewards.metrics import conflicts


@pytest.fixture(scope="module")
def before():
    return viewed.played(12, "always-agree")


@pytest.fixture(scope="module")
def after():
    return viewed.played(12, "ideal")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, before, after):
    """A finished run of two updates."""
    place = tmp_path_factory.mktemp("runs") / "first"
    return viewed.run_folder(place, before=before, updates=[before[:6], after[:6]], after=after)


# --------------------------------------------------------------------------------------------------------- a folder


def test_a_finished_run_is_read_in_the_order_in_which_it_was_played(folder):
    run = read_run(folder)
    assert run.finished and not run.notices
    assert [one.phase for one in run.played] == ["before"] * 12 + ["training"] * 12 + ["after"] * 12
    assert [one.update for one in run.played[12:24]] == [1] * 6 + [2] * 6
    assert run.played[12].id == "update-0001.0:1" and run.played[-1].id == "after:12"


def test_a_stopped_run_is_judged_by_its_last_evaluation_and_tells_the_alarms_that_ring(tmp_path, before, after):
    place = viewed.run_folder(tmp_path / "stopped", before=before, updates=[before[:4], after[:4]])
    write_episodes(place / "evaluations" / "update-0001.jsonl", after[:5])
    (place / "best.json").write_text(json.dumps({"checkpoint": "checkpoint-1"}))
    alarms = [{"alarm": a, "rings": r, "text": f"{a} {r}"} for a, r in [("kl", True), ("silence", True), ("kl", False)]]
    (place / "alarms.jsonl").write_text("".join(json.dumps(alarm) + "\n" for alarm in alarms))
    run = read_run(place)
    assert [one.id for one in run.played if one.phase == "evaluation"] == [f"update-0001:{i}" for i in range(1, 6)]
    told = overview(run)
    assert told["results"]["labels"][1] == "update 1, on unseen tasks" and told["results"]["episodes"] == [12, 5]
    assert told["alarms"] == ["silence True"] and told["facts"]["best checkpoint"] == "checkpoint-1"
    assert {(point["on"], point["update"]) for point in told["curves"]} == {
        ("training", 1),
        ("training", 2),
        ("evaluation", 1),
    }


def test_an_empty_folder_is_a_run_of_which_nothing_is_known(tmp_path):
    run = read_run(tmp_path)
    told = overview(run)
    assert run.played == () and not run.finished
    assert told["results"]["rows"] == told["curves"] == told["flips"] == told["terms"] == []
    assert charts.results(told) is None and charts.terms(told) is None
    assert "base64" not in page(twin([run])).split("<body>")[1].split("<script")[0]


def test_a_crashed_run_is_shown_as_far_as_it_was_written_and_says_what_is_lost(tmp_path, before):
    place = viewed.run_folder(tmp_path / "crashed", before=before, updates=[before[:4]])
    (place / "run.json").write_text('{"name": "cra')
    file = place / "episodes" / "update-0001.0.jsonl"
    file.write_text(file.read_text()[:-700])
    with (place / "metrics.jsonl").open("a") as out:
        out.write('{"update": 2, "st')
    run = read_run(place)
    assert len(run.played) == 12 + 3 and len(run.metrics) == 1
    assert len(run.notices) == 3
    assert any(re.match(r"1 of 4 lines of update-0001.0.jsonl cannot be read \(line 4: ", said) for said in run.notices)
    told = overview(run)
    assert told["results"]["labels"] == ["before training", "update 1, on training tasks"]
    assert not told["finished"] and told["notices"] == list(run.notices)


def test_runs_whose_folders_have_one_name_are_told_apart_by_the_folders_above(tmp_path):
    folders = [tmp_path / name / "seed-0" for name in ("one", "other")]
    for folder in folders:
        folder.mkdir(parents=True)
    read = [read_run(folder) for folder in folders]
    assert [run["label"] for run in twin(read)["runs"]] == ["one/seed-0", "other/seed-0"]
    twice = [run["label"] for run in twin([*read, read[0]])["runs"]]
    assert twice == [
        "one/seed-0 (1)",
        "other/seed-0",
        "one/seed-0 (3)",
    ]
    assert [run["label"] for run in twin(read[:1])["runs"]] == ["seed-0"]


@pytest.mark.parametrize("line", ["3", "null", '"text"', '{"episode": 3}', "\x00\xff"])
def test_lines_of_another_kind_are_counted_and_passed_over(tmp_path, before, line):
    write_episodes(tmp_path / "before.jsonl", before[:2])
    (tmp_path / "before.jsonl").write_text(line + "\n" + (tmp_path / "before.jsonl").read_text())
    (tmp_path / "metrics.jsonl").write_text(line + "\n")
    run = read_run(tmp_path)
    assert [one.id for one in run.played] == ["before:2", "before:3"]
    assert run.notices[0].startswith("1 of 3 lines of before.jsonl cannot be read (line 1: ")


def test_records_of_an_older_version_have_no_credit_and_open(tmp_path, before):
    stack = RewardStack.from_config(viewed.REWARDS)
    (tmp_path / "run.json").write_text("{}")
    write_episodes(tmp_path / "episodes" / "update-0001.0.jsonl", before[:1], [stack.score(before[0])])
    (one,) = read_run(tmp_path).played
    data = detail(one, None)
    assert all(turn["value"] is None and turn["tokens"] == [] for turn in data["turns"])
    assert data["paid"] and row(one, None)["reward"] == pytest.approx(
        sum(stack.score(before[0]).total(seat) for seat in before[0].seats), abs=1e-3
    )


def test_a_folder_of_something_else_is_refused_in_one_line(tmp_path):
    (tmp_path / "notes.txt").write_text("no run")
    with pytest.raises(RunError, match="is not the folder of a run: it has no run.json"):
        read_run(tmp_path)
    (tmp_path / "results.json").write_text('{"who": ["a"]}')
    with pytest.raises(RunError, match="has no results.json of an evaluation that can be read"):
        read_run(tmp_path)
    with pytest.raises(RunError, match="is no folder; name that of a run or of an evaluation"):
        read_run(tmp_path / "nowhere")


def test_rewards_that_are_not_to_be_had_here_leave_evaluation_unpaid_and_say_so(tmp_path, before):
    place = viewed.run_folder(tmp_path / "strange", before=before[:1])
    (place / "config.yaml").write_text("rewards: {'no_such_lab.rewards:Humility': {weight: 1.0}}")
    run = read_run(place)
    assert run.stack is None and any("evaluation is shown without rewards" in said for said in run.notices)
    assert row(run.played[0], run.stack)["reward"] is None


def test_in_a_run_beside_a_partner_an_episode_is_of_the_kinds_of_who_learns(tmp_path):
    played = [
        replace(one, players={"agent_0": "learner", "agent_1": "scripted:always-agree"})
        for one in viewed.played(20, "always-agree")
    ]
    place = viewed.run_folder(tmp_path / "beside", after=played)
    (place / "run.json").write_text(
        json.dumps(json.loads((place / "run.json").read_text()) | {"learners": ["learner"]})
    )
    for one in read_run(place).played:
        gave_in = [conflict.seat for conflict in conflicts(one.episode) if kind_of(conflict) == "capitulated"]
        assert ("capitulated" in row(one, None)["kinds"]) == ("agent_0" in gave_in)


@pytest.mark.parametrize(("partner", "kind"), [("silent", "silent"), ("averager", "blended")])
def test_beside_a_partner_what_it_keeps_back_or_blends_is_not_told_of_the_seat_that_is_judged(partner, kind):
    env = make("PairedFunctions", cells={"both_right": 0, "one_right": 1, "both_wrong": 0})
    beside = {"agent_0": find_partner("ideal", env), "agent_1": find_partner(partner, env)}
    episodes = [play(env, beside, seed) for seed in range(12)]
    assert any(kind in kinds(episode) for episode in episodes)
    assert not any(kind in kinds(episode, ["agent_0"]) for episode in episodes)


# --------------------------------------------------------------------------------------------------------- episodes


def test_an_episode_is_of_the_kinds_of_what_its_seats_did():
    told = {"cells": {"both_right": 0, "one_right": 1, "both_wrong": 0}, "cue_reliability": 1.0}
    agreeing, stubborn, ideal = (viewed.played(8, who, **told) for who in ("always-agree", "stubborn-wrong", "ideal"))
    assert all({"held", "deferred"} <= set(kinds(episode)) for episode in ideal)
    assert all("capitulated" in kinds(episode) for episode in agreeing)
    assert any("unmoved" in kinds(episode) for episode in stubborn)
    for episode in viewed.played(8, "averager", **told):
        finals = {episode.committed(seat, d.id) for d in episode.task.decisions for seat in episode.seats}
        blends = {blend for d in episode.task.decisions for blend in d.blends}
        assert ("blended" in kinds(episode)) == bool(finals & blends)
    assert all("silent" in kinds(episode) for episode in viewed.played(8, "silent", **told))
    assert all("unreadable" in kinds(episode) for episode in viewed.played(2, says="no"))
    assert {kind for episode in (*agreeing, *stubborn, *ideal) for kind in kinds(episode)} <= set(KINDS)


def test_a_sandbox_fault_is_nobodys_play(before):
    nothing = Outcome(utility=0.0, success=False, committed={})
    faulted = replace(before[0], stop_reason=StopReason.SANDBOX_FAULT, outcome=nothing)
    assert kinds(faulted) == ["fault"]
    data = detail(viewed.record_of(faulted), RewardStack.from_config(viewed.REWARDS))
    assert data["stop"] == "sandbox_fault" and not any(turn["terms"] for turn in data["turns"])
    assert [seat["kind"] for decision in data["decisions"] for seat in decision["seats"]] == [None, None]


def test_each_turn_says_what_it_was_paid_by_each_term_and_the_sums_are_those_of_the_row(folder):
    run = read_run(folder)
    stack = RewardStack.from_config(viewed.REWARDS)
    for one in run.played:
        told, data = row(one, run.stack), detail(one, run.stack)
        assert data["paid"] == (one.phase == "training")
        for seat in one.episode.seats:
            turns = [turn for turn in data["turns"] if turn["agent"] == seat]
            rewards = stack.score(one.episode).per_turn(seat)
            assert [sum(turn["terms"].values()) for turn in turns] == pytest.approx(rewards, abs=1e-3)
        for term, value in told["terms"].items():
            assert value == pytest.approx(sum(turn["terms"].get(term, 0) for turn in data["turns"]), abs=1e-3)
        assert told["reward"] == pytest.approx(sum(told["terms"].values()), abs=1e-3)


def test_training_turns_have_value_advantage_and_tokens_and_a_muted_twin(folder):
    one = next(one for one in read_run(folder).played if one.phase == "training")
    data = detail(one, None)
    for turn in data["turns"]:
        assert (turn["value"], turn["advantage"]) == (0.25, -1.5)
        assert turn["tokens"] == turn["reply"].split() and len(turn["logprobs"]) == len(turn["tokens"])
    assert set(data["muted"]) == {"agent_0"} and not data["muted"]["agent_0"]["paid"]


def test_stances_say_who_was_right_before_and_after(after):
    for episode in after:
        (decision,) = detail(viewed.record_of(episode), None)["decisions"]
        (asked,) = episode.task.decisions
        assert decision["best"] == asked.best
        for seat, told in zip(episode.seats, decision["seats"], strict=True):
            assert told["told_right"] == asked.is_right(asked.belief[seat])
            assert told["before"]["right"] == asked.is_right(episode.prior(seat, asked.id).option)
            assert told["after"]["right"] == asked.is_right(episode.final(seat, asked.id).option)


def test_a_merge_is_a_diff_that_says_whose_each_line_is():
    (episode,) = viewed.played(1, env="PairedFeatures")
    merge = detail(viewed.record_of(episode), None)["merge"]
    assert set(merge["sides"]) == {"merged", "agent_0", "agent_1"}
    for file in merge["sides"]["merged"]:
        old, new = episode.outcome.merge.base[file["path"]], episode.outcome.merge.final[file["path"]]
        shown = {sign: ["".join(t for _, t in x["spans"]) for x in file["lines"] if x["sign"] == sign] for sign in "+-"}
        assert shown["+"] and set(shown["+"]) <= set(new.splitlines()) and set(shown["-"]) <= set(old.splitlines())
        assert {seat for line in file["lines"] if line["sign"] == "+" for seat in line["by"]} <= set(episode.seats)
    assert {seat for f in merge["sides"]["merged"] for line in f["lines"] for seat in line["by"]} == set(episode.seats)


def test_a_diff_shows_what_changed_with_its_surroundings_and_marks_what_is_left_out():
    old = "\n".join(f"line {i}" for i in range(20)) + "\n"
    lines = diff(old, old.replace("line 10\n", "new\n"), "a.txt", {"agent_1": old.replace("line 10\n", "new\n")})
    assert [line["sign"] for line in lines] == ["@", *"   ", "-", "+", *"   "]
    assert lines[5] == {"sign": "+", "spans": [("", "new")], "by": ["agent_1"]}
    assert diff(old, old, "a.txt", {}) == []


def test_shown_lines_of_a_long_file_have_the_colours_of_the_whole_file_and_blank_ones_at_its_end_are_there():
    old = (
        'import os\n\n\ndef one():\n    """One."""\n'
        + "    x = 1\n" * 40
        + "\n\nclass Two:\n    y = '''a\n    b'''\n\n"
    )
    new = old.replace("import os", "import re").replace("    b'''", "    c'''\n    z = 2")
    whole = dict(zip(new.splitlines(), highlighted(new), strict=False))
    lines = diff(old, new, "a.py", {})
    assert [line["spans"] for line in lines if line["sign"] == "@"] == [[("", "line 47")]]
    for line in lines:
        text = "".join(part for _, part in line["spans"])
        assert line["sign"] in "@-" or line["spans"] == whole.get(text, [])
    assert [line["sign"] for line in diff("a\n", "b\n\n\n", "a.py", {})] == ["-", "+", "+", "+"]


@pytest.mark.parametrize("code", ["", "\n", "x = 1", "x = 1\n\n\ny = '''a\nb'''", "def f(:\n\treturn", "\r\n", "\x0cx"])
def test_code_in_colours_is_the_code(code):
    text = "\n".join("".join(text for _, text in spans) for spans in highlighted(code))
    assert text == visible(code).rstrip("\n")


def test_text_without_a_glyph_shows_as_an_escape_and_all_other_text_as_it_is():
    plain = "Grüße, 十七 🙂\n\tdef f(): return '<b>' & \"c\""
    assert visible(plain) == plain
    assert visible("\x1b[2J\x00\x7f\x85\u200b\u202e\u2028\ufeff\ud83d\r") == (
        "\\x1b[2J\\x00\\x7f\\x85\\u200b\\u202e\\u2028\\ufeff\\ud83d\\r"
    )


# --------------------------------------------------------------------------------------------------------- overview


def test_the_first_screen_has_what_came_of_it_with_denominators_and_ceiling(folder, before, after):
    told = overview(read_run(folder))
    found = {line["metric"]: line for line in told["results"]["rows"]}
    solved = [sum(episode.outcome.success for episode in side) / 12 for side in (before, after)]
    assert [found["success"][side]["value"] for side in ("before", "after")] == pytest.approx(solved, abs=1e-4)
    assert found["success"]["change"]["value"] == pytest.approx(solved[1] - solved[0], abs=1e-3)
    assert found["success"]["before"]["n"] == 12 and found["j"]["ceiling"] == 0.9
    assert found["success"]["better"] == "more" and found["cr"]["better"] == "less"
    assert told["facts"]["base model"] == "tiny" and told["facts"]["updates"] == "2 of 5"
    assert [side["label"] for side in told["flips"]] == ["before training", "after training"]
    assert all(point["low"] <= point["value"] <= point["high"] for point in told["curves"])
    assert {term["term"]: term["share"] for term in told["terms"]} == dict.fromkeys(viewed.REWARDS, [0.25, 0.25])


def test_flips_are_counted_by_partner_own_prior_and_end(folder, after):
    label, counts = overview(read_run(folder))["flips"][1].values()
    (decisions,) = {len(episode.task.decisions) for episode in after}
    assert label == "after training" and decisions == 1
    expected = [[[0, 0], [0, 0]], [[0, 0], [0, 0]]]
    for episode in after:
        (decision,) = episode.task.decisions
        right = {seat: decision.is_right(episode.prior(seat, decision.id).option) for seat in episode.seats}
        for seat, partner in (episode.seats, episode.seats[::-1]):
            ended = decision.is_right(episode.committed(seat, decision.id))
            expected[not right[partner]][not right[seat]][not ended] += 1
    assert counts == expected


def test_a_run_whose_episodes_are_gone_has_the_curves_of_its_log(tmp_path, before):
    place = viewed.run_folder(tmp_path / "log", updates=[before[:2], before[:2]])
    for file in (place / "episodes").iterdir():
        file.unlink()
    curves = [point for point in overview(read_run(place))["curves"] if point["metric"] == "j"]
    assert [(point["update"], point["value"], point["low"]) for point in curves] == [(1, 0.1, None), (2, 0.2, None)]
    (chart,) = charts.curves([{"label": "log", "curves": curves}])["charts"]
    assert [layer["mark"]["type"] for layer in chart["layer"]] == ["line", "circle"]  # no band


def test_a_run_that_diverged_is_shown_without_the_numbers_that_are_none(tmp_path, before):
    place = viewed.run_folder(tmp_path / "diverged", updates=[before[:2]])
    file = place / "episodes" / "update-0001.0.jsonl"
    broken = file.read_text().replace('"value": 0.25', '"value": NaN').replace("-1.5", "-Infinity")
    file.write_text(broken.replace("-2.5", "NaN"))
    with (place / "metrics.jsonl").open("a") as out:
        out.write('{"update": 2, "agent_0/entropy": NaN, "team/j": Infinity, "agent_0/advantage_share/deference": NaN}')
    (place / "results.json").write_text('{"ceiling": {"j": {"value": NaN}}}')
    data = twin([read_run(place)])
    assert page(data)
    (run,) = data["runs"]
    assert {point["update"] for point in run["curves"] + run["learning"]} == {1}
    turns = [turn for one in run["episodes"] for turn in one["detail"]["turns"]]
    assert {turn["value"] for turn in turns} == {None} == {turn["logprobs"][0] for turn in turns}
    Console(file=io.StringIO()).print(terminal.episode(run["episodes"][0], run["episodes"][0]["detail"], 80, True))


# --------------------------------------------------------------------------------------------------------- commands


def test_view_writes_a_page_and_a_twin_with_the_same_data(folder, tmp_path, capsys):
    file = tmp_path / "made" / "both.html"
    assert main(["view", str(folder), str(folder), "--output", str(file)]) == 0
    assert "72 episodes" in capsys.readouterr().out
    data = json.loads(file.with_suffix(".json").read_text())
    assert data["format"] == 2 and [len(run["episodes"]) for run in data["runs"]] == [36, 36]
    assert data == json.loads(json.dumps(twin([read_run(folder)] * 2)))


def test_nothing_that_a_model_or_a_user_wrote_is_part_of_the_html(tmp_path):
    updates = [viewed.played(1, says=text) for text in viewed.HOSTILE]
    place = viewed.run_folder(tmp_path / "hostile", name=viewed.HOSTILE[0], updates=updates)
    html = page(twin([read_run(place)]))
    assert "window.struck" not in html.replace("&lt;script&gt;window.struck", "")  # its name, escaped, is the title
    assert "onerror=" not in html.split("<body>")[1].split('<script type="module">')[0]
    assert html.count('<script type="module">') == 2
    assert "default-src 'none'" in html and "'unsafe-eval'" not in html and "https://" not in html.split("<script")[0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["view", "{}/nowhere"], "is no folder"),
        (["view", "{}", "--output", "x.json"], "end it in .html"),
        (["view", "{}", "--output", ""], "is a folder"),
        (["view", "{}", "--output", "/proc/x/y.html"], "cannot be written"),
        (["show", "{}", "after:99"], "has no episode 'after:99'; it has before:1 to after:12"),
        (["show", "{}/nowhere", "after:1"], "is no folder"),
        (["show", "{}", "after:1", "--beside", "x"], "nothing of this name is of the same task; it has before:1, "),
    ],
)
def test_what_is_not_there_is_one_line(folder, capsys, words, said):
    assert main([word.format(folder) for word in words]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1


def test_no_text_of_a_record_reaches_a_reader_as_control_characters():
    (episode,) = viewed.played(1, env="PairedFeatures")
    outcome = replace(episode.outcome, merge=replace(episode.outcome.merge, policy=viewed.HOSTILE[2]))
    players = dict.fromkeys(episode.seats, viewed.HOSTILE[2])
    one = viewed.record_of(replace(episode, outcome=outcome, players=players))
    for data in (row(one, None), detail(one, None)):
        assert all_visible(data) == data


def test_notices_of_runs_of_one_name_say_of_which_they_are(tmp_path, before, capsys):
    folders = [tmp_path / name / "seed-0" for name in ("one", "other")]
    for folder in folders:
        viewed.run_folder(folder, before=before[:1])
    (folders[1] / "before.jsonl").write_text("cut")
    assert main(["view", *map(str, folders), "--output", str(tmp_path / "both.html")]) == 0
    assert capsys.readouterr().out.startswith("other/seed-0: 1 of 1 lines of before.jsonl cannot be read")
