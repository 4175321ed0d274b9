"""Replays with one thing changed, and the credit that comes of them."""

import numpy as np
import pytest
import tiny
import torch

from envs.core.episode import Phase
from envs.paired_features.env import PairedFeatures
from marl_coop.policy.team import reference_name
from marl_coop.ppo.counterfactual import message_baselines, replay_muted, with_all_briefs, with_solo
from rewards import RewardStack
from rewards.terms.solo_gain import SoloGain
from rewards.terms.task_success import TaskSuccess

TASKS = range(100, 106)
A, B = tiny.SEATS


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    return tiny.cue_trainer(tmp_path_factory.mktemp("run"), advantage="counterfactual", env={"rounds": 2})


@pytest.fixture(scope="module")
def played(trainer):
    return trainer.players.play(TASKS, sampling_seed=5)


def same(player):
    return player


def replies(episode, seat):
    return [turn.reply for turn in episode.turns_of(seat)]


def test_a_silenced_seat_says_nothing_and_its_partner_hears_nothing(trainer, played):
    for rollout in replay_muted(trainer.players, played, A, same, 5):
        assert [turn.message for turn in rollout.episode.turns_of(A)] == [""] * 4
        assert not rollout.episode.heard(B)
        assert [turn.observation for turn in rollout.episode.turns_of(B)][2].startswith("Partner said nothing.")


def test_what_came_before_the_talk_stays_and_so_does_what_the_partner_said_first(trainer, played):
    others = replay_muted(trainer.players, played, A, same, 5)
    for rollout, other in zip(played, others, strict=True):
        assert other.episode.task == rollout.episode.task
        assert replies(other.episode, A)[0] == replies(rollout.episode, A)[0]
        assert replies(other.episode, B)[:2] == replies(rollout.episode, B)[:2]  # the same random numbers
    assert [r.episode for r in others] != [r.episode for r in played]


def test_silencing_the_silent_changes_nothing(trainer, played):
    once = replay_muted(trainer.players, played, A, same, 5)
    twice = replay_muted(trainer.players, once, A, same, 5)
    assert [r.episode for r in twice] == [r.episode for r in once]


def test_without_talk_there_is_nothing_to_silence(tmp_path):
    trainer = tiny.cue_trainer(tmp_path, env={"rounds": 0}, advantage="counterfactual")
    played = trainer.players.play(TASKS, sampling_seed=5)
    assert replay_muted(trainer.players, played, A, same, 5) == played
    trainer.train()  # and every turn keeps GAE


def test_a_baseline_is_what_the_silent_seat_is_paid_from_that_message_on(trainer, played):
    silenced = replay_muted(trainer.players, played, A, same, 5)
    stack = RewardStack((tiny.Length(weight=2.0), TaskSuccess()))
    for other, baseline_K in zip(silenced, message_baselines(played, silenced, A, stack.score, 0.5), strict=True):
        paid = stack.score(other.episode).per_turn(A)
        first, second = paid[1] + 0.5 * paid[2] + 0.25 * paid[3], paid[2] + 0.5 * paid[3]
        assert baseline_K.tolist() == pytest.approx([np.nan, first, second, np.nan], nan_ok=True)


def test_a_replay_with_a_fault_gives_no_baseline(tmp_path):
    trainer = tiny.cue_trainer(tmp_path, env={"fault_every": 1})
    played = trainer.players.play(TASKS, sampling_seed=5)
    baselines = message_baselines(played, played, A, RewardStack((tiny.Length(),)).score, 1.0)
    assert all(baseline_K.isnan().all() for baseline_K in baselines)


def test_messages_are_paid_against_their_baseline_and_other_turns_by_gae(tmp_path):
    plain = tiny.cue_trainer(tmp_path / "gae", gamma=0.9)
    trainer = tiny.cue_trainer(tmp_path / "counterfactual", gamma=0.9, advantage="counterfactual")
    expected, rows = plain.collector.collect(0), trainer.collector.collect(0)
    for seat in tiny.SEATS:
        mine = [row[seat] for row in rows]
        raw = torch.stack([row[seat].returns_K - row[seat].values_K for row in expected])  # GAE
        for i, row in enumerate(mine):
            assert row.baseline_K.isnan().tolist() == [True, False, True]
            raw[i, 1] = row.rewards_K[1] + 0.9 * row.rewards_K[2] - row.baseline_K[1]
            assert torch.equal(row.returns_K, expected[i][seat].returns_K)  # the critic learns as ever
        raw -= raw.mean(0)
        assert torch.stack([row.advantages_K for row in mine]).numpy() == pytest.approx(
            (raw / raw.std(correction=0)).numpy(), abs=1e-3
        )


def test_partners_in_a_replay_are_frozen(tmp_path, monkeypatch):
    trainer = tiny.cue_trainer(tmp_path, advantage="counterfactual")
    seats = []
    replay = trainer.players.replay
    monkeypatch.setattr(
        trainer.players, "replay", lambda vs, seed: seats.extend(dict(v.policies) for v in vs) or replay(vs, seed)
    )
    trainer.collector.collect(0)
    assert {tuple(team.items()) for team in seats} == {
        ((A, A), (B, reference_name(B))),
        ((A, reference_name(A)), (B, B)),
    }


def test_a_soloist_knows_all_and_talks_to_nobody(trainer, played):
    task = played[0].episode.task
    told = with_all_briefs(task)
    assert told.briefs[A] == f"{task.briefs[A]}\nYour partner was told: {task.briefs[B]}"
    seen = []
    replay = trainer.players.replay
    trainer.players.replay = lambda vs, seed: seen.append(replay(vs, seed)) or seen[-1]
    rollouts = with_solo(trainer.players, played, [A, B], 5)
    del trainer.players.replay
    for i, rollout in enumerate(rollouts):
        alone = [solo[i].episode for solo in seen]
        assert rollout.episode.outcome.solo_utility == max(episode.outcome.utility for episode in alone)
        assert not any(turn.message for episode in alone for turn in episode.turns)
        assert rollout.episode.turns == played[i].episode.turns


def test_solo_gain_is_played_for_only_where_it_counts(tmp_path):
    for weight, played in ((0.0, False), (0.5, True)):
        kept = []
        trainer = tiny.cue_trainer(
            tmp_path / str(weight),
            rewards=[SoloGain(weight=weight)],
            on_rollouts=lambda _update, episodes, *_, kept=kept: kept.extend(episodes),
        )
        rows = trainer.collector.collect(0)
        assert all((episode.outcome.solo_utility is not None) == played for episode in kept)
        for row, episode in zip(rows, kept, strict=True):
            gain = episode.outcome.utility - episode.outcome.solo_utility if played else 0.0
            assert row[A].rewards_K.tolist() == [0.0, 0.0, weight * gain]


def test_the_worth_of_messages_is_reported(tmp_path):
    trainer = tiny.cue_trainer(tmp_path, advantage="counterfactual")
    trainer.train()
    assert f"{A}/message_credit" in trainer.state.log_history[0]


def test_in_a_phase_of_work_the_words_are_lost_and_the_deeds_stay(trainer):
    env = PairedFeatures(rounds=2)
    said = "Say: it is 17\nRead: README.md"
    for muted in ((), (A,)):
        env.reset(seed=3, options={"muted": muted})
        env.step(dict.fromkeys(env.agents, "Answer: none"))
        observations, *_ = env.step(dict.fromkeys(env.acting, said))
        assert ("Partner: it is 17" in observations[B]) == (not muted)
        assert "Partner: it is 17" in observations[A]
        (turn,) = (turn for turn in env.turns if turn.agent == A and turn.phase is Phase.WORK)
        assert (turn.message, turn.message_tokens) == (("", 0) if muted else ("it is 17", 3))
