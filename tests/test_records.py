"""What a line of a run's episodes holds, as it is written in training and read back."""

import json

import pytest
import tiny

from marl_coop.runs.records import EpisodeRecord, read_episodes, write_episodes
from marl_coop.runs.rundir import RunError


def recorded(folder, **training):
    """A tiny trainer after it has played an update, and the lines that were written of it."""
    file = folder / "played" / "update.jsonl"
    trainer = tiny.cue_trainer(folder, on_rollouts=lambda _, *played: write_episodes(file, *played), **training)
    trainer.play(0)
    return trainer, file


def test_a_record_has_the_credit_that_is_learned_from_each_turn_and_the_tokens_with_their_log_probabilities(tmp_path):
    trainer, file = recorded(tmp_path)
    records = [EpisodeRecord.from_json(line) for line in file.read_text().splitlines()]
    assert [record.episode for record in records] == read_episodes(file)
    for record, rows in zip(records, trainer.rows, strict=True):
        assert set(record.credit.turns) == set(rows)
        for seat, row in rows.items():
            turns = record.credit.turns[seat]
            assert [turn.advantage for turn in turns] == pytest.approx(row.advantages_K.tolist(), abs=1e-4)
            assert [turn.value for turn in turns] == pytest.approx(row.values_K.tolist(), abs=1e-4)
            assert [turn.target for turn in turns] == pytest.approx(row.returns_K.tolist(), abs=1e-4)
            for turn, sampled, said in zip(turns, row.trace.turns, record.episode.turns_of(seat), strict=True):
                assert turn.logprobs == pytest.approx(sampled.logprobs, abs=0.006)
                assert [token for token in turn.tokens if token not in tiny.MARKS.values()] == said.reply.split()
        assert record.rewards.per_turn("agent_0") == pytest.approx(rows["agent_0"].rewards_K.tolist())


def test_who_does_not_learn_has_no_credit(tmp_path):
    _, file = recorded(tmp_path, policies={"agent_0": "agent_0", "agent_1": None})
    for line in file.read_text().splitlines():
        assert set(EpisodeRecord.from_json(line).credit.turns) == {"agent_0"}


def test_a_record_keeps_the_replays_in_which_nobody_hears_a_seat(tmp_path):
    _, file = recorded(tmp_path, advantage="counterfactual")
    for line in file.read_text().splitlines():
        record = EpisodeRecord.from_json(line)
        assert set(record.credit.muted) == {"agent_0", "agent_1"}
        for seat, replay in record.credit.muted.items():
            assert replay.task == record.episode.task
            assert not any(turn.message for turn in replay.turns_of(seat))


def test_a_record_without_rewards_or_credit_is_read(tmp_path):
    _, file = recorded(tmp_path)
    line = json.loads(file.read_text().splitlines()[0])
    record = EpisodeRecord.from_json(json.dumps({"episode": line["episode"]}))
    assert record.rewards is None and record.credit is None


@pytest.mark.parametrize("line", ['{"episode": {"task"', "[]", "{}", '{"episode": {}}', "\x00" * 9, "[" * 10**5])
def test_a_file_of_episodes_that_is_damaged_is_named_in_one_line(tmp_path, line):
    _, file = recorded(tmp_path)
    whole = file.read_text()
    file.write_text(whole + line)
    with pytest.raises(RunError, match=f"{file.name}' cannot be read as episodes: line {whole.count(chr(10)) + 1} is"):
        read_episodes(file)


@pytest.mark.parametrize("line", ["", '{"episode": {"task"', "[]", "{}", '{"episode": {}}', "[" * 10**5])
def test_a_line_that_is_cut_off_or_of_another_kind_is_an_error_in_one_line(line):
    with pytest.raises(ValueError) as error:
        EpisodeRecord.from_json(line)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda rewards: rewards["values"].clear(),
        lambda rewards: rewards["values"]["agent_0"]["length"].pop(),
        lambda rewards: rewards["weights"].update(other=1.0),
    ],
)
def test_rewards_that_are_not_one_for_each_turn_and_term_are_refused(tmp_path, change):
    _, file = recorded(tmp_path)
    line = json.loads(file.read_text().splitlines()[0])
    change(line["rewards"])
    with pytest.raises(ValueError, match="rewards.values: not one for each turn of 'agent_0'"):
        EpisodeRecord.from_json(json.dumps(line))
