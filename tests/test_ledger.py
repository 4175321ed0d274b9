"""The token ledger: what episodes cost at a price list, and a month of many agents. No torch in here."""

import doctest
import json
from dataclasses import replace
from pathlib import Path

import pytest

import envs
from envs.core.tokens import message_tokens
from envs.scripted.base import Calibrated
from envs.scripted.exploits import NeverDefer
from envs.scripted.play import play
from marl_coop import cli
from marl_coop.config.layers import read_as
from marl_coop.evaluation import ledger as tables
from marl_coop.evaluation.ledger import measure_ledger
from marl_coop.runs import rundir
from marl_coop.runs.records import write_episodes
from rewards.metrics import ledger as module
from rewards.metrics import measure
from rewards.metrics.ledger import PriceList, ledger, read_tokens

ROOT = Path(__file__).parents[1]
PRICES = PriceList(input=3.0, output=15.0, provider_tokens=2.0, agents=10, tasks_per_day=4, days=5)


def episodes(partner, seeds):
    env = envs.make("DesignReview")
    return [play(env, dict.fromkeys(env.seats, partner), seed) for seed in seeds]


@pytest.fixture
def run(tmp_path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    rundir.record_start(folder, "priced", "env: {name: DesignReview}\n", seed=0)
    write_episodes(folder / "before.jsonl", episodes(NeverDefer(), range(8)))
    write_episodes(folder / "after.jsonl", episodes(Calibrated(), range(8)))
    return folder


@pytest.mark.parametrize("documented", [module, tables])
def test_the_worked_examples(documented):
    assert doctest.testmod(documented).failed == 0


def test_every_reply_reads_all_of_its_seats_chat_again():
    (episode,) = episodes(Calibrated(), [3])
    read = 0
    for seat in episode.seats:
        chat = ""
        for turn in episode.turns_of(seat):
            chat += f" {turn.observation}"
            read += message_tokens(chat)
            chat += f" {turn.reply}"
    assert read_tokens(episode) == read


def test_a_months_price_follows_from_tokens_prices_and_seats():
    played = episodes(Calibrated(), range(8))
    written = sum(message_tokens(turn.reply) for episode in played for turn in episode.turns)
    price = 2 * (3 * sum(map(read_tokens, played)) + 15 * written) / 1e6
    solved = sum(episode.outcome.success for episode in played)
    found = measure(played, ledger(PRICES))
    assert 0 < solved < 8
    assert found["price_per_task"].value == pytest.approx(price / 8)
    assert found["price_per_solved"].value == pytest.approx(price / solved)
    assert found["month"].value == pytest.approx(100 * price / 8)  # 10 agents in teams of 2, 4 tasks a day, 5 days
    assert found["month_all_solved"].value == pytest.approx(100 * price / solved)


def test_where_nothing_is_solved_no_month_solves_it():
    failed = [
        replace(episode, outcome=replace(episode.outcome, success=False)) for episode in episodes(Calibrated(), [0, 1])
    ]
    found = measure_ledger({"before": failed}, PRICES)["before"]
    assert "month" in found and not {"month_all_solved", "price_per_solved", "tokens_per_solved"} & found.keys()


def test_a_run_that_solves_nothing_is_told_that_the_price_of_a_solved_task_is_not_defined():
    failed = [replace(one, outcome=replace(one.outcome, success=False)) for one in episodes(NeverDefer(), range(3))]
    shown = tables.table(measure_ledger({"after": failed}, PRICES), PRICES, "failed")
    cells = dict(zip(*(list(column.cells) for column in shown.columns), strict=True))
    undefined = [line for line, cell in cells.items() if cell == "not defined"]
    assert undefined == [tables.LABELS[name] for name in tables.BY_SOLVED] and len(undefined) == 4
    assert str(shown.caption).endswith("Not defined: no task was solved.")
    solved = tables.table(measure_ledger({"after": episodes(Calibrated(), range(8))}, PRICES), PRICES, "solved")
    assert "Not defined" not in str(solved.caption)


def test_the_change_is_paired_by_task():
    parts = {"before": episodes(NeverDefer(), range(8)), "after": episodes(Calibrated(), range(8))}
    found = measure_ledger(parts, PRICES)
    for line in ("price_per_task", "month"):
        difference = found["after"][line].value - found["before"][line].value
        assert found["change"][line].value == pytest.approx(difference)
    with pytest.raises(ValueError, match="tasks"):
        measure_ledger(parts | {"after": episodes(Calibrated(), range(1, 9))}, PRICES)


def test_every_line_of_the_ledger_has_a_label_and_says_what_it_is():
    lines = ledger(PRICES)
    assert tables.LABELS.keys() == lines.keys()
    assert all("Range: " in line.doc and "Cases: " in line.doc for line in lines.values())


def test_the_command_prints_the_ledger_uncut_and_writes_it(run, tmp_path, capsys, monkeypatch):
    out = tmp_path / "ledger.json"
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main(["ledger", str(run), "--output", str(out)]) == 0
    said = capsys.readouterr().out
    assert "…" not in said
    assert all(word in said for word in ("before", "after", "change", "month, tried until solved", "100 agents"))
    content = json.loads(out.read_text())
    assert content["prices"] == read_as(ROOT / "configs/prices/example.yaml", PriceList).model_dump()
    assert content["ledger"]["after"]["month"]["n"] == 8


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("input: 1.0", "'output' must be given"),
        ("{input: 1.0, output: -5.0}", "output: -5.0"),
        ("{input: 1.0, output: 5.0, ouptut: 1.0}", "did you mean 'output'"),
        ("{input: 1.0, output: .inf}", "output: "),
        ("{input: 1.0, output: 1.0e+308}", "output: "),
        (f"{{input: 1.0, output: 1.0, agents: 1{'0' * 400}}}", "agents: "),
    ],
)
def test_a_price_list_that_is_none_is_one_line(run, tmp_path, capsys, text, said):
    (file := tmp_path / "prices.yaml").write_text(text)
    assert cli.main(["ledger", str(run), "--prices", str(file)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {file}: ") and said in line


def test_a_task_that_can_be_read_of_one_side_alone_is_told_and_counts_in_neither(run, tmp_path, capsys):
    lines = (run / "before.jsonl").read_text().splitlines(keepends=True)
    (run / "before.jsonl").write_text("".join(["{}\n", *lines[1:]]))
    assert cli.main(["ledger", str(run), "--output", str(tmp_path / "out.json")]) == 0
    damaged, alone = capsys.readouterr().err.splitlines()
    assert "before.jsonl, line 1: " in damaged and "left out: 1 tasks that are in one of before and after" in alone
    content = json.loads((tmp_path / "out.json").read_text())["ledger"]
    assert {content[part]["price_per_task"]["n"] for part in ("before", "after", "change")} == {len(lines) - 1}


def test_a_run_without_episodes_is_one_line(run, capsys):
    (run / "before.jsonl").unlink(), (run / "after.jsonl").unlink()
    assert cli.main(["ledger", str(run)]) == 2
    assert "has no episodes yet" in capsys.readouterr().err
