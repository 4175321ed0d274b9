"""Where the time of a run goes: phases, and what `--profile` says of them."""

import itertools
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import tiny

from marl_coop.experiment.phases import PhaseReport
from marl_coop.ppo.engine_weights import Ahead
from marl_coop.profiling import PhaseTotal, Profile, phase, profiling


def test_a_phase_that_has_a_thread_of_its_own_is_not_counted():
    def step():
        with phase("step"):
            pass

    with profiling() as profile, phase("play"), ThreadPoolExecutor(1) as pool:
        pool.submit(step).result()
    assert set(profile.take()) == {"other", "play"}


def test_a_phase_taken_whole_is_told_apart_from_no_phase_within_it():
    with profiling(itertools.count().__next__) as profile:
        with phase("evaluation", whole=True):
            for _ in range(3):
                with phase("decode", tokens=5), phase("head"):
                    pass
        with phase("decode", tokens=2):
            pass
    totals = profile.take()
    assert totals["evaluation"].calls == 1 and totals["evaluation"].tokens == 0
    assert totals["decode"] == PhaseTotal(seconds=1, calls=1, tokens=2) and "head" not in totals


def test_an_error_ends_the_phases_that_it_leaves():
    with profiling(itertools.count().__next__) as profile:
        with pytest.raises(ZeroDivisionError), phase("play"), phase("decode"):
            _ = 1 / 0
        profile.take()
        with phase("forward"):
            pass
    assert set(profile.take()) == {"other", "forward"}


def test_without_a_profile_a_phase_is_nothing():
    before = Profile()
    with profiling() as inner:
        pass
    with phase("play"):
        pass
    assert set(before.take()) == set(inner.take()) == {"other"}


def test_an_update_is_told_apart_into_phases_that_add_up_and_have_their_tokens(tmp_path):
    trainer = tiny.cue_trainer(tmp_path, num_mini_batches=2, kl_coef=0.1)
    clock = itertools.count()
    with profiling(clock.__next__) as profile:
        trainer.train()
        totals = profile.take()
    names = "environments sampling prefill decode rewards reference forward backward optimiser other"
    assert set(names.split()) <= set(totals)
    assert sum(total.seconds for total in totals.values()) == next(clock) - 1
    rows = [row for rows in trainer.rows for row in rows.values()]
    chats = sum(len(row.trace.ids) for row in rows)
    assert [totals[name].tokens for name in ("reference", "forward", "backward")] == [chats] * 3
    read = totals["prefill"].tokens + totals["decode"].tokens  # nobody reads the last token of a chat; some twice
    assert chats - len(rows) <= read < 2 * chats


def test_the_wait_for_what_was_played_ahead_is_sampling(tmp_path):
    trainer, played = tiny.cue_trainer(tmp_path), Future()
    played.set_result(trainer.players.play(range(8), 0))
    trainer.collector.engine_weights.ahead = Ahead(0, 0, played)
    with profiling() as profile:
        trainer.play(0)
    assert profile.take()["sampling"].calls == 1


def test_the_report_of_an_update_has_its_shares_and_the_time_that_is_left(tmp_path):
    clock, said = itertools.count(step=10), []
    with profiling(clock.__next__) as profile:
        with phase("evaluation", whole=True):
            pass
        report = PhaseReport(profile, steps_per_update=1, say=said.append)
        trainer = tiny.cue_trainer(tmp_path, callbacks=[report], num_updates=2)
        trainer.train()
    first, second = said
    seconds = float(first.split()[2])
    assert first.startswith("update 1, ") and "forward" in first and first.endswith(" left")
    assert second.endswith("; 10 s left")  # the evaluation alone
    assert seconds > 100
    report.print_whole()
    table = said[-1]
    assert [column.header for column in table.columns] == ["phase", "seconds", "share", "times", "tokens/s"]
    shares = [float(share.split()[0]) for share in table.columns[2].cells]
    assert sum(shares) == pytest.approx(100, abs=0.5) and shares == sorted(shares, reverse=True)


def test_an_update_that_is_cut_short_is_left_too():
    said = []
    report = PhaseReport(Profile(itertools.count(step=10).__next__), steps_per_update=2, say=said.append)
    for done in (2, 3):
        report.on_log(None, SimpleNamespace(max_steps=3, global_step=done), None, {"update": 1})
    assert said == [
        "update 1, 10.0 s: other 100 %; 10 s and an evaluation left",
        "update 1, 10.0 s: other 100 %; 0 s and an evaluation left",
    ]


def test_a_resumed_run_which_has_not_evaluated_says_that_an_evaluation_is_left(tmp_path):
    said = []
    with profiling() as profile:
        report = PhaseReport(profile, steps_per_update=1, say=said.append)
        tiny.cue_trainer(tmp_path, callbacks=[report]).train()
    assert said[0].endswith("; 0 s and an evaluation left")
