"""Seats that do not learn: the base, frozen adapters, partners that write text, and mixes of them."""

from collections import Counter
from pathlib import Path

import pytest
import tiny
import torch

from envs.design_review import DesignReview
from envs.handover.env import Handover
from envs.scripted.exploits import AlwaysDefer
from envs.scripted.handover import Poisoner
from envs.scripted.partners import PARTNERS
from marl_coop.config.errors import ConfigError
from marl_coop.config.policies import build_players, frozen, learners
from marl_coop.config.schema import load_config
from marl_coop.players import BASE, Mix, player_name

A, B = tiny.SEATS
TASKS = range(100, 140)


class Says:
    """A partner that gives the same reply to everything."""

    name = "says"

    def __init__(self, text: str):
        self.text = text

    def reply(self, env, seat) -> str:
        return self.text


GREEN = Says(tiny.CLAIMS["green"])


def test_a_mix_is_drawn_by_weight():
    mix = Mix(("a", BASE, GREEN), (6.0, 3.0, 1.0))
    counts = Counter(player_name(mix.draw(seed)) for seed in range(5000))
    assert counts["a"] / 5000 == pytest.approx(0.6, abs=0.03)
    assert counts["base"] / 5000 == pytest.approx(0.3, abs=0.03)
    assert counts["says"] / 5000 == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize("players, weights", [((), ()), (("a",), (1.0, 2.0)), (("a",), (0.0,)), (("a",), (-1.0,))])
def test_a_mix_that_cannot_be_drawn_from(players, weights):
    with pytest.raises(ValueError, match="weights"):
        Mix(players, weights)


def test_what_a_configuration_says_of_seats():
    entries = {A: "x", B: {"y": 1.0, "base": 2.0, "frozen:runs/a.b/x": 3.0, "scripted:echo": 4.0, "http://h/v1#m": 5.0}}
    seats = build_players(entries, DesignReview(), lambda url, model: Says(f"{url} {model}"))
    first, base, frozen_adapter, scripted, endpoint = seats[B].players
    assert (seats[A], first, base, frozen_adapter) == ("x", "y", BASE, "frozen_runs_a_b_x")
    assert isinstance(scripted, PARTNERS["echo"]) and endpoint.text == "http://h/v1 m"
    assert seats[B].weights == (1.0, 2.0, 3.0, 4.0, 5.0)
    assert learners(entries) == ("x", "y")
    assert frozen(entries) == {"frozen_runs_a_b_x": Path("runs/a.b/x")}


def test_two_frozen_adapters_never_share_a_name():
    entries = {A: "frozen:runs/seed-1/a", B: {"frozen:runs/seed_1/a": 1.0, "frozen_runs_seed_1_a": 1.0}}
    seats = build_players(entries, DesignReview(), lambda url, model: None)
    names = [seats[A], *seats[B].players]
    assert names == ["frozen_runs_seed_1_a_2", "frozen_runs_seed_1_a_3", "frozen_runs_seed_1_a"]
    assert frozen(entries) == {names[0]: Path("runs/seed-1/a"), names[1]: Path("runs/seed_1/a")}


def test_an_environment_is_seated_with_the_partner_of_its_own_cast():
    seats = build_players({B: "scripted:saboteur"}, Handover(), lambda url, model: None)
    assert isinstance(seats[B], Poisoner)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["policies.agent_1=oracle"],
            "policies.agent_1: 'oracle' is no name for an adapter. Did you mean 'scripted:oracle'?",
        ),
        (
            ["policies.agent_1=episodes"],
            "policies.agent_1: 'episodes' is no name for an adapter: something else has it",
        ),
        (["policies.agent_1=checkpoint-4"], "policies.agent_1: 'checkpoint-4' is no name for an adapter: something"),
        (["policies.agent_1=Agent_0"], "policies: 'agent_0' and 'Agent_0' would be one folder on a disk without case"),
        (["policies.agent_1=Base"], "policies.agent_1: 'Base' is no name for an adapter. Did you mean 'base'?"),
        (
            ["env.name=Handover", "policies.agent_1=scripted:persuader"],
            "policies.agent_1: 'scripted:persuader' cannot play Handover; ideal, oracle, silent, saboteur can.",
        ),
        (
            ["env.name=Handover", "policies.agent_1={agent_1: 1, 'scripted:envs.scripted.exploits:Hedger': 1}"],
            "policies.agent_1: 'scripted:envs.scripted.exploits:Hedger' cannot play Handover; ideal, oracle",
        ),
        (
            ["evaluation.env.name=Handover", "policies.agent_1=scripted:ideal"],
            "policies.agent_1: 'scripted:ideal' cannot play Handover; ideal",
        ),
        (
            ["policies.agent_1=scripted:envs.scripted.handover:NoteTaker"],
            "policies.agent_1: 'scripted:envs.scripted.handover:NoteTaker' cannot play PairedFunctions; ideal, oracle,",
        ),
        (
            ["policies.agent_1=scripted:envs.scripted.demonstrator:Demonstrator"],
            "policies.agent_1: 'scripted:envs.scripted.demonstrator:Demonstrator' cannot be made: ",
        ),
    ],
)
def test_a_partner_that_cannot_play_is_refused_when_the_configuration_is_read(overrides, message):
    with pytest.raises(ConfigError) as caught:
        load_config([], overrides)
    assert message in str(caught.value)


@pytest.mark.parametrize("env", ["MoonSurvival", "Handover", "DesignReview"])
def test_a_partner_that_can_play_is_taken(env):
    assert load_config([], [f"env.name={env}", "policies.agent_1=scripted:oracle"]).policies[B] == "scripted:oracle"


def test_a_partner_in_a_seat_writes_its_replies_and_hears_the_other(tmp_path):
    trainer = tiny.cue_trainer(tmp_path, policies={A: A, B: AlwaysDefer()})
    for rollout in trainer.players.play(TASKS, sampling_seed=1):
        episode, trace = rollout.episode, rollout.traces[B]
        task, (said,) = episode.task.decisions[0], [t.message for t in episode.turns_of(A) if t.phase == "talk"]
        named = next((option for option in tiny.OPTIONS if option in said), task.belief[B])
        assert episode.final(B, task.id).option == named
        assert episode.players == {A: A, B: "AlwaysDefer"}
        replies = [trace.ids[turn.start : turn.stop] for turn in trace.turns]
        assert replies == [trainer.players.chat.reply_ids(turn.reply) for turn in episode.turns_of(B)]


@pytest.mark.parametrize("critic", ["central", "local"])
@pytest.mark.parametrize("advantage", ["gae", "counterfactual"])
def test_only_the_learner_learns(tmp_path, critic, advantage):
    trainer = tiny.cue_trainer(tmp_path, policies={A: A, B: GREEN}, critic=critic, advantage=advantage, kl_coef=0.1)
    before = tiny.weights(trainer.model)
    trainer.train()
    moved = {name for name, weight in tiny.weights(trainer.model).items() if not torch.equal(weight, before[name])}
    assert moved and all(f".{A}." in name for name in moved)
    record = trainer.state.log_history[0]
    assert f"{A}/entropy" in record and f"{B}/entropy" not in record
    assert "with/says/success" in record


def test_the_rows_of_a_mixed_seat_are_learned_from_where_the_adapter_sat(tmp_path):
    mix = Mix((B, GREEN), (1.0, 1.0))
    trainer = tiny.cue_trainer(tmp_path, policies={A: A, B: mix}, episodes_per_update=16)
    trainer.play(0)
    played = [rows[B].trace.player for rows in trainer.rows]
    assert {player_name(player) for player in played} == {B, "says"}
    rows, _ = trainer.minibatch(0, 0, 0)
    assert Counter(row.trace.adapter for row in rows) == {A: 16, B: sum(player == B for player in played)}
    advantages = torch.cat([row.advantages_K for row in rows if row.seat == B])
    assert advantages.mean().item() == pytest.approx(0, abs=1e-5)
    trainer.train()


def test_an_update_in_which_nobody_learns_changes_nothing(tmp_path):
    trainer = tiny.cue_trainer(tmp_path, policies={A: GREEN, B: BASE})
    before = tiny.weights(trainer.model)
    trainer.train()
    assert all(torch.equal(weight, before[name]) for name, weight in tiny.weights(trainer.model).items())


def test_a_frozen_adapter_plays_as_it_was_saved(tmp_path):
    first = tiny.cue_trainer(tmp_path / "first")
    first.model.save(tmp_path / "saved")
    second = tiny.team(tiny.base_model(len(tiny.word_tokenizer(tiny.WORDS))), adapters=(A,), seed=7)
    second.add_frozen("old", tmp_path / "saved" / B)
    trainer = tiny.cue_trainer(tmp_path / "second", policy=second, policies={A: BASE, B: "old"})
    expected = tiny.cue_trainer(tmp_path / "third", policy=first.model, policies={A: BASE, B: B})
    replies = [
        [r.episode.turns for r in players.play(TASKS, sampling_seed=3)]
        for players in (trainer.players, expected.players)
    ]
    assert replies[0] == replies[1]
    assert not any("old" in name for name in tiny.weights(second))
