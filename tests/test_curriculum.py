"""The curriculum: levels follow measured success, stay in their bounds, and survive a stop."""

import doctest
import json
from concurrent.futures import Future

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from transformers import TrainerCallback

import envs
from envs.core import curriculum as module
from envs.core.curriculum import LADDER, Curriculum
from envs.design_review import DesignReview
from envs.paired_functions import PairedFunctions
from envs.scripted.play import play
from envs.scripted.registry import find_partner
from marl_coop.config.checks import check_config
from marl_coop.config.errors import ConfigError
from marl_coop.config.schema import load_config
from marl_coop.engines.embedded import EmbeddedEngine
from marl_coop.experiment import setup
from marl_coop.experiment.callbacks import CurriculumLevel

THREE = ({"rounds": 1}, {"rounds": 2}, {"rounds": 3})


def test_a_level_changes_only_after_a_whole_window_and_by_one():
    curriculum = Curriculum(levels=THREE, window=10)
    seen = []
    for success in (1.0, 1.0, 1.0, 0.0, 0.0, 0.5, 0.5):
        curriculum.record(success, episodes=5)
        seen.append(curriculum.level)
    # windows of two: 1.0 climbs, 0.5 stays, 0.25 stays; the last 0.5 is half a window
    assert seen == [0, 1, 1, 1, 1, 1, 1]
    assert curriculum.arguments == {"rounds": 2}


def test_success_outside_the_bounds_moves_and_on_them_stays():
    for success, level in ((0.71, 2), (0.7, 1), (0.2, 1), (0.19, 0)):
        curriculum = Curriculum(levels=THREE, window=100)
        curriculum.restore({"level": 1, "episodes": 0, "successes": 0.0})
        curriculum.record(success, episodes=100)
        assert curriculum.level == level


def test_the_ends_of_the_ladder_hold():
    curriculum = Curriculum(levels=THREE, window=1)
    for success, level in ((0.0, 0), (1.0, 1), (1.0, 2), (1.0, 2)):
        curriculum.record(success, episodes=1)
        assert curriculum.level == level


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(1, 100)), max_size=30), st.integers(0, 30))
def test_going_on_from_a_state_is_not_having_stopped(history, stop):
    straight, first, second = (Curriculum(levels=THREE) for _ in range(3))
    for success, episodes in history:
        straight.record(success, episodes)
    for success, episodes in history[:stop]:
        first.record(success, episodes)
    second.restore(json.loads(json.dumps(first.state())))
    for success, episodes in history[stop:]:
        second.record(success, episodes)
    assert second.state() == straight.state()


def test_a_shorter_ladder_goes_on_from_its_last_level():
    curriculum = Curriculum(levels=THREE[:2])
    curriculum.restore({"level": 2, "episodes": 0, "successes": 0.0})
    assert curriculum.arguments == THREE[1]


def test_no_share_is_not_counted():
    with pytest.raises(ValueError, match="record: success is nan"):
        Curriculum(levels=THREE).record(float("nan"), episodes=8)


@pytest.mark.parametrize("rate", [0.002, 0.01, 0.05])
def test_a_learner_that_gets_better_is_kept_between_20_and_70_percent(rate):
    """A learner whose skill grows with every update succeeds in skill^(level + 1) of its episodes."""
    curriculum, rng = Curriculum(levels=[{}] * 30, window=128), np.random.default_rng(0)
    inside = []
    for update in range(400):
        success = min(0.95, 0.3 + rate * update) ** (curriculum.level + 1)
        inside.append(0.2 <= success <= 0.7)
        curriculum.record(rng.binomial(64, success) / 64, episodes=64)
    assert np.mean(inside[50:]) > 0.85


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"levels": []}, "levels\n.*at least 1 item"),
        ({"levels": ["easy"]}, "levels.0\n.*valid dictionary"),
        ({"window": 1.5}, "window\n.*valid integer"),
        ({"low": 0.7}, "low is 0.7 and high is 0.7"),
        ({"high": 1.1}, "high\n.*less than or equal to 1"),
        ({"window": 0}, "window\n.*greater than or equal to 1"),
    ],
)
def test_a_wrong_argument_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        Curriculum(**arguments)


def test_the_worked_example():
    assert doctest.testmod(module) == doctest.TestResults(failed=0, attempted=3)


@pytest.mark.parametrize("env_class", [PairedFunctions, DesignReview])
def test_no_level_of_the_ladder_is_easier_than_the_one_below(env_class):
    """For a pair that follows the cue and for one that never yields."""
    for rule in (lambda task, d: d.is_right(d.belief[d.expert]), lambda task, d: all(task.cell.values())):
        rates = []
        for level in LADDER:
            env = env_class(**level, **({"families": ["offset", "key"]} if env_class is PairedFunctions else {}))
            tasks = [env.make_task(seed) for seed in range(600)]
            rates.append(np.mean([rule(task, task.decisions[0]) for task in tasks]))
        assert all(above <= below + 0.02 for below, above in zip(rates, rates[1:], strict=False)), rates
        assert rates[-1] < rates[0] - 0.25


def test_every_level_says_the_same_keys():
    """A key that one level leaves out would fall back to the environment's own and not to the level below."""
    assert len({frozenset(level) for level in LADDER}) == 1


# -------------------------------------------------------------------------------------------------- in a configuration


def test_it_is_off_by_default_and_an_empty_section_turns_it_on():
    assert load_config(["configs/base.yaml"]).curriculum is None
    config = load_config(["configs/base.yaml"], ["env.curriculum={}"])
    assert config.curriculum.levels == LADDER
    assert config.make_env().config.scaffold is False and config.levels[0]().config.scaffold is True


def test_levels_of_ones_own(tmp_path):
    text = "env:\n  curriculum: {window: 8, levels: [{families: [key], rounds: 2}, {families: [offset]}]}\n"
    (file := tmp_path / "mine.yaml").write_text(text)
    config = load_config([file])
    curriculum = config.curriculum
    env = config.levels[curriculum.level]()
    assert ([family.name for family in env.families], env.config.rounds, curriculum.window) == (["key"], 2, 8)
    assert load_config([_written(tmp_path, config.to_yaml())]) == config


def _written(folder, text):
    (file := folder / "again.yaml").write_text(text)
    return file


def test_unseen_instances_may_be_of_held_out_families():
    config = load_config(["configs/quickstart.yaml"], ["evaluation.env.families=held_out"])
    unseen = config.make_evaluation_env()
    assert [family.name for family in unseen.families] == ["signing", "page_size", "return_type", "row_size"]
    assert [family.name for family in config.make_env().families] == ["offset", "scale", "timeout", "padding"]
    assert unseen.config.scaffold is True  # the rest is as in `env`


@pytest.mark.parametrize("environment", envs.ENVIRONMENTS)
def test_every_environment_has_a_ladder_whose_levels_can_be_played(environment):
    config = load_config([], [f"env.name={environment.__name__}", "env.curriculum={}"])
    curriculum = config.curriculum
    assert len(curriculum.levels) >= 4 and curriculum.levels == environment.LADDER
    for make_env in config.levels:
        env = make_env()
        play(env, dict.fromkeys(env.possible_agents, find_partner("ideal", env)), seed=0)
    assert curriculum.arguments == environment.LADDER[0]


class WithoutLadder(PairedFunctions):
    LADDER = ()


def test_an_environment_without_a_ladder_asks_for_levels():
    name = "test_curriculum:WithoutLadder"
    with pytest.raises(ConfigError, match=f"env.curriculum: {name} has no ladder of its own; give levels"):
        load_config([], [f"env.name={name}", "env.curriculum={}"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("env.curriculum=3", "env.curriculum: 3 is refused: input should be null or keys"),
        ("env.curriculum.windw=3", "env.curriculum.windw: unknown key; did you mean 'window'?"),
        ("env.curriculum.high=0.1", "env.curriculum: low is 0.2 and high is 0.1"),
        ("env.curriculum.levels=[{roundz: 2}]", "roundz: unknown key; did you mean 'rounds'?"),
        ("env.curriculum.levels=[{rounds: 2}, {rounds: -1}]", "env.curriculum.levels.1.rounds: -1 is refused"),
        ("evaluation.env.curriculum={}", "evaluation.env.curriculum: unknown key"),
        ("evaluation.env.families=[ofset]", "evaluation.env.families: There is no family 'ofset'"),
    ],
)
def test_a_wrong_section_is_one_clear_line(override, message):
    with pytest.raises(ConfigError) as caught:
        load_config(["configs/base.yaml"], [override])
    assert message in str(caught.value) and "\n" not in str(caught.value)


# --------------------------------------------------------------------------------------------------------- in training


class GivenConfig(tiny.CueConfig):
    succeeds: bool = True


class Given(tiny.CueTask):
    """Succeeds or fails as its argument says."""

    Config = GivenConfig

    def finish(self, turns):
        outcome, stop_reason = super().finish(turns)
        return type(outcome)(utility=0.0, success=self.config.succeeds, committed=outcome.committed), stop_reason


class Log(TrainerCallback):
    """Keeps the level of each update."""

    def __init__(self):
        self.levels = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "curriculum/level" in logs:
            self.levels.append(logs["curriculum/level"])


def levels_trained(folder, resume=None, **training):
    """The level of each update where the first level always succeeds and the second always fails."""
    curriculum = Curriculum(levels=[{"succeeds": True}, {"succeeds": False}], window=8)
    played = []
    trainer = tiny.cue_trainer(
        folder,
        callbacks=[log := Log()],
        on_rollouts=lambda update, episodes, *_: played.append([e.outcome.success for e in episodes]),
        **({"num_updates": 4, "save_updates": 1, "save_total_limit": None} | training),
    )
    trainer.players.make_env = lambda: Given(**curriculum.arguments)
    trainer.players.play_ahead = lambda *seeds: at_once(trainer.players.play, *seeds)
    trainer.add_callback(CurriculumLevel(curriculum, trainer.collector.metrics))
    trainer.train(resume_from_checkpoint=resume)
    assert played == [[level == 0] * 8 for level in log.levels]
    return log.levels


def make_engine(policy, args):
    """An engine that nobody knows to sleep while adapters learn."""
    return EmbeddedEngine(policy, args.max_rows)


def at_once(play, *seeds):
    """What is played ahead, played before learning: the test trains on no server."""
    played = Future()
    played.set_result(play(*seeds))
    return played


def test_an_update_that_was_played_ahead_counts_for_the_level_that_it_was_played_on(tmp_path):
    served = {"engine": "test_curriculum:make_engine", "async_play": True, "num_updates": 6}
    assert levels_trained(tmp_path, **served) == [0, 0, 1, 1, 0, 0]


MUTED, ALONE = "training.advantage=counterfactual", "rewards.solo_gain={weight: 0.5}"


@pytest.mark.parametrize(
    ("replays", "changing", "named"),
    [
        (MUTED, "env.curriculum={}", "env.curriculum"),
        (ALONE, "env.curriculum={}", "env.curriculum"),
        (MUTED, "policies.agent_1={agent_1: 0.5, past:agent_1: 0.5}", "past selves"),
    ],
)
def test_what_changes_between_updates_is_refused_where_episodes_begun_before_are_replayed(replays, changing, named):
    ahead = ["training.engine=test_curriculum:make_engine", "training.async_play=true"]
    check_config(load_config([], [*ahead, replays]))
    check_config(load_config([], [*ahead, changing]))
    with pytest.raises(ConfigError, match=f"training.async_play: it must be false: .* with {named}$"):
        check_config(load_config([], [*ahead, replays, changing]))


def test_training_climbs_and_falls_between_updates_and_goes_on_where_it_stopped(tmp_path):
    assert levels_trained(tmp_path) == [0, 1, 0, 1]
    assert levels_trained(tmp_path, resume=str(tmp_path / "checkpoint-1")) == [1, 0, 1]


def test_a_curriculum_can_be_turned_on_when_going_on(tmp_path):
    tiny.cue_trainer(tmp_path, num_updates=1, save_updates=1).train()
    assert levels_trained(tmp_path, resume=str(tmp_path / "checkpoint-1"), num_updates=3) == [0, 1]


def test_a_level_with_a_system_message_of_its_own_is_refused_as_a_chat_has_one():
    def config(level):
        return load_config(["configs/base.yaml"], [f"env.curriculum.levels=[{{rounds: 1}}, {level}]"])

    with pytest.raises(ConfigError, match="env.curriculum.levels.1: its system message is 'Be brief.', and in `env`"):
        setup.make_environments(config("{system_prompt: Be brief.}"))
    env, _ = setup.make_environments(config("{rounds: 2}"))
    setup.make_environments(config(f"{{system_prompt: {env.system_prompt!r}}}"))
