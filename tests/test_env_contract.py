"""What every environment keeps, whatever it plays: PettingZoo's contract, seeds, pickles, any text, records."""

import doctest
import json
import math
import pickle
import re
import warnings
from functools import partial
from importlib import import_module

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pettingzoo.test import parallel_api_test, parallel_seed_test
from pettingzoo.utils.conversions import parallel_to_aec

import envs
from envs import ENVIRONMENTS, CoopEnv
from envs.cooperbench import CooperBench
from envs.core.episode import Episode, Phase
from envs.design_review import DesignReview
from envs.handover.env import Handover
from envs.moon_survival import MoonSurvival
from envs.paired_features.env import PairedFeatures
from envs.paired_functions import PairedFunctions
from envs.scripted.demonstrator import Demonstrator
from envs.scripted.play import play, replay
from rewards import TERMS, RewardStack
from rewards.metrics import measure

MAKERS = [
    *ENVIRONMENTS,
    partial(DesignReview, agents=1),
    partial(DesignReview, agents=8, budget=200, acts=True),
    partial(PairedFunctions, acts=True, scaffold=True),
    partial(MoonSurvival, agents=3, items=4, rounds=2),
    partial(Handover, agents=4, facts=32, probes=1, room=24, rounds=3, memory_budget=60, summariser="policy"),
]
EVERY = pytest.mark.parametrize("make", MAKERS, ids=lambda m: m.__name__ if isinstance(m, type) else str(m.keywords))

PIECES = (
    r"Answer Write Query: Expand: #0 #1 Summarise: Propose Expect Ask: : PASS mail_port 17 1 ( 80 % ) ` def".split()
)
REPLIES = st.one_of(
    st.text(max_size=60),
    st.lists(st.sampled_from([*PIECES, "\n", "\0", "\ud800", "é🙂", "Write:", "x" * 300]), max_size=30).map(" ".join),
)


@pytest.mark.parametrize(
    "env_class", [DesignReview, PairedFunctions, PairedFeatures, MoonSurvival, Handover, CooperBench]
)  # not ENVIRONMENTS, where a user's own may stand without a card
def test_every_environment_of_the_documentation_has_a_card_and_a_version(env_class):
    assert issubclass(env_class, CoopEnv) and re.search(r"_v\d+$", env_class.metadata["name"])
    for heading in ("Description", "Action space", "Rewards", "Arguments", "Example", "Version history"):
        assert f"## {heading}" in env_class.__doc__
    assert doctest.testmod(import_module(env_class.__module__)).failed == 0


def shown(env, seed):
    demonstrator = Demonstrator(np.random.default_rng(seed))
    return play(env, dict.fromkeys(env.possible_agents, demonstrator), seed)


@EVERY
def test_pettingzoos_api_test_passes_without_a_warning(make):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parallel_api_test(make(), num_cycles=10)


@EVERY
def test_pettingzoos_seed_test_passes(make):
    parallel_seed_test(make)


@EVERY
def test_converted_to_aec_it_is_the_same_game(make):
    env, aec = make(), parallel_to_aec(make())
    env.reset(seed=4)
    while env.agents:
        _, rewards, *_ = env.step(dict.fromkeys(env.agents, "Answer: none"))
    aec.reset(seed=4)
    paid = dict.fromkeys(env.seats, 0.0)
    for seat in aec.agent_iter():
        _, reward, done, *_ = aec.last()
        paid[seat] += reward
        aec.step(None if done else "Answer: none")
    assert aec.unwrapped.episode == env.episode and paid == rewards


@EVERY
def test_a_seed_fixes_the_instance(make):
    one, two = make(), make()
    assert one.reset(seed=11) == two.reset(seed=11) and one.task == two.task
    one.reset(seed=12)
    assert one.task != two.task


@EVERY
def test_resets_without_a_seed_go_through_a_reproducible_series_of_tasks(make):
    series = []
    for _ in range(2):
        env = make()
        env.reset(seed=5)
        ids = []
        for _ in range(3):
            env.reset()
            ids.append(env.task.id)
        series.append(ids)
    assert series[0] == series[1] and len(set(series[0])) == 3


@EVERY
def test_an_environment_survives_pickle_in_the_middle_of_an_episode(make):
    env = make()
    env.reset(seed=2)
    env.step(dict.fromkeys(env.agents, "Write a: 1\nQuery: a"))
    again = pickle.loads(pickle.dumps(env))
    while env.agents:
        replies = dict.fromkeys(env.agents, "Expand: #0\nhello")
        assert env.step(replies) == again.step(replies)
    assert again.episode == env.episode


@EVERY
def test_a_demonstration_is_read_without_error_and_its_record_survives_json_and_replays(make):
    for seed in range(3):
        episode = shown(make(), seed)
        if make is not MAKERS[-4]:  # whose budget cuts demonstrations short
            assert all(turn.parse_error is None for turn in episode.turns)
        assert Episode.from_json(episode.to_json()) == episode
        assert replay(make(), Episode.from_json(episode.to_json())) == episode


@EVERY
def test_every_term_and_every_metric_scores_its_record(make):
    stack = RewardStack(tuple(term() for term in TERMS))
    episodes = [shown(make(), seed) for seed in range(3)]
    for episode in episodes:
        assert all(math.isfinite(stack.score(episode).total(seat)) for seat in episode.seats)
    assert measure(episodes)["utility"].n == 3


@EVERY
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_text_reaches_the_end_and_gives_a_record(make, data):
    env = make()
    env.reset(seed=0)
    while env.agents:
        env.step({seat: data.draw(REPLIES) for seat in env.agents})
    assert Episode.from_json(env.episode.to_json()) == env.episode
    assert 0 <= env.episode.outcome.utility <= 1


@EVERY
def test_what_no_file_can_hold_is_replaced_once_for_all_readers(make, capsys):
    env = make(render_mode="human")
    env.reset(seed=0)
    while env.agents:
        env.step(dict.fromkeys(env.agents, "one\u2028two \ud83d"))
    assert all(turn.reply in ("one\u2028two ?", "one\u2028two") for turn in env.episode.turns)  # a budget may cut it
    env.episode.to_json().encode("ascii")
    env.render()
    capsys.readouterr().out.encode("utf-8")


@EVERY
def test_render_tells_a_person_of_every_turn(make):
    env = make(render_mode="ansi")
    episode = shown(env, 1)
    text = env.render()
    assert episode.task.id in text and "-- outcome" in text
    assert all(text.count(seat) >= len(episode.turns_of(seat)) for seat in episode.seats)


@EVERY
def test_what_no_seat_was_told_is_in_no_observation_and_in_no_joint_view(make):
    env = make()
    env.reset(seed=3)
    while env.agents:
        env.step(dict.fromkeys(env.agents, "alpha reply"))
    assert "utility" not in env.state() and "alpha reply" in env.state()
    assert all(brief in env.state() for brief in env.task.briefs.values())


@pytest.mark.parametrize("env_class", ENVIRONMENTS)
def test_a_record_is_plain_json(env_class):
    raw = json.loads(shown(env_class(), 0).to_json())
    assert [turn["phase"] for turn in raw["turns"]][-1] == Phase.FINAL and raw["task"]["id"]


def test_every_environment_can_be_made_by_name():
    for env_class in ENVIRONMENTS:
        assert type(envs.make(env_class.__name__)) is env_class
