"""Whatever an environment is given wrongly is one error that names the value, the place and the remedy."""

import doctest
import pickle
from typing import Annotated

import numpy as np
import pytest
from pydantic import Field, ValidationError

import envs
from envs.cooperbench.env import CooperBench
from envs.core import config, fields, lookup, task
from envs.core.design import Cells
from envs.core.fields import ArgumentError
from envs.design_review import DesignReviewConfig


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("PairedFunctions", {"round": 3}, "PairedFunctions has no argument 'round'. Did you mean 'rounds'?"),
        (
            "PairedFunctions",
            {"colour": 3},
            "PairedFunctions has no argument 'colour'. Known: rounds, ",
        ),
        ("PairedFunctions", {"acts": "false"}, "acts is 'false'; it should be a valid boolean"),
        ("PairedFunctions", {"rounds": True}, "rounds is True; it should be a valid integer"),
        ("PairedFunctions", {"agents": 2.0}, "agents is 2.0; it should be a valid integer"),
        ("PairedFunctions", {"cue_reliability": None}, "cue_reliability is None; it should be a valid number"),
        ("PairedFunctions", {"families": 3}, "families is 3; it should be"),
        ("PairedFunctions", {"families": "trian"}, "families is 'trian'; it must be a list of at least one name"),
        (
            "PairedFunctions",
            {"families": "ofset"},
            "families is 'ofset'; it must be a list of at least one name, or one of train, held_out, all, "
            "held_out_contracts, held_out_copied. Did you mean [offset]?",
        ),
        ("PairedFunctions", {"cells": 5}, "cells is 5; it should be"),
        ("PairedFunctions", {"system_prompt": ""}, "system_prompt is ''; it should have at least 1 character"),
        ("MoonSurvival", {"expert_noise": "a"}, "expert_noise is 'a'; it should be a valid number"),
        ("PairedFeatures", {"rounds": 0}, "rounds is 0; it should be greater than or equal to 1"),
        ("PairedFeatures", {"tokens": "many"}, "tokens is 'many'; it should be a valid integer"),
        ("envs:CoopEnv", {}, "'envs:CoopEnv' is abstract: it has no finish, make_task. Use a subclass"),
        ("json:JSONDecoder", {}, "'json:JSONDecoder' is <class 'json.decoder.JSONDecoder'>, not a subclass of"),
    ],
)
def test_a_wrong_argument_is_one_clear_line(name, given, message):
    with pytest.raises(ValueError) as error:
        envs.make(name, **given)
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("task", "reset: options is 'task'; it must be a mapping of task and muted"),
        ({"mutd": ["agent_0"]}, "reset: there is no option 'mutd'. Did you mean 'muted'?"),
        ({"muted": ["agent_9"]}, r"reset: options['muted'] is ['agent_9']; it must be a list of seats, of agent_0, a"),
        ({"muted": "agent_0"}, "reset: options['muted'] is 'agent_0'; it must be a list of seats"),
        ({"muted": 5}, "reset: options['muted'] is 5; it must be a list of seats"),
        ({"muted": [["agent_0"]]}, "reset: options['muted'] is [['agent_0']]; it must be a list of seats"),
        ({"task": "offset-1"}, "reset: options['task'] is a str; it must be an envs.core.task.Task"),
    ],
)
def test_a_wrong_option_of_reset_is_one_clear_line(options, message):
    with pytest.raises(ValueError) as error:
        envs.make("PairedFunctions").reset(options=options)
    assert str(error.value).startswith(message)


def test_what_others_put_into_the_options_is_none_of_ours():
    envs.make("PairedFunctions").reset(seed=0, options={"options": 1})


def test_nobody_is_muted_by_none():
    env = envs.make("PairedFunctions")
    assert env.reset(seed=0, options={"muted": None}) == env.reset(seed=0)


def test_numbers_of_numpy_arrive_as_numbers_of_python():
    env = envs.make(
        "DesignReview", agents=np.int64(3), rounds=np.int32(2), acts=np.True_, cue_reliability=np.float32(1)
    )
    env.reset(seed=0)
    given = (env.config.rounds, env.config.acts, env.config.cue_reliability)
    assert given == (2, True, 1.0)
    assert [type(value) for value in given] == [int, bool, float]
    with pytest.raises(ValueError, match="agents is True; it should be a valid integer"):
        envs.make("DesignReview", agents=np.True_)


class GapConfig(DesignReviewConfig):
    gap: Annotated[int, Field(ge=0)] = 3
    """Lines between two claims."""


class Gap(envs.DesignReview):
    Config = GapConfig


class Before(envs.DesignReview):
    """An environment whose argument is in its constructor and in no configuration."""

    def __init__(self, *, gap: int = 3, **kwargs):
        super().__init__(**kwargs)
        self.gap = gap


def test_an_environment_of_ones_own_declares_its_arguments_in_its_config():
    env = Gap(gap=2, rounds=0)
    assert (env.config.gap, env.config.rounds, Gap().config.gap) == (2, 0, 3)
    with pytest.raises(ValueError, match="gap is -1; it should be greater than or equal to 0") as error:
        Gap(gap=-1)
    assert error.value.loc == ("gap",)


def test_an_argument_of_a_constructor_alone_works_in_python_and_says_what_to_do_in_a_file():
    env = Before(gap=5, rounds=2)
    assert (env.gap, env.config.rounds) == (5, 2)
    assert Before(config=Before.configure({"rounds": 2})).config == env.config
    with pytest.raises(ArgumentError) as error:
        Before.configure({"gap": 5})
    assert error.value.loc == ("gap",) and str(error.value) == (
        "Before takes 'gap' in its __init__ alone; declare it as a field of a subclass of DesignReviewConfig and name "
        "that in Before.Config."
    )


class Redeclared(envs.DesignReview):
    def __init__(self, rounds: int = 2, **fields):
        super().__init__(rounds=rounds, **fields)


class Fixed(envs.DesignReview):
    def __init__(self):
        super().__init__(rounds=2)


@pytest.mark.parametrize(
    ("cls", "section", "loc", "message"),
    [
        (Redeclared, {}, (), "Redeclared takes 'rounds' in its __init__ alone; declare it as a field of a subclass"),
        (Redeclared, {"rounds": 3}, ("rounds",), "Redeclared takes 'rounds' in its __init__ alone; declare it"),
        (Fixed, {}, (), "Fixed.__init__ takes no config; say what it sets in a subclass of DesignReviewConfig"),
    ],
)
def test_a_constructor_that_no_configuration_reaches_is_refused_before_it_is_called(cls, section, loc, message):
    assert cls().config.rounds == 2
    with pytest.raises(ArgumentError) as error:
        cls.configure(section)
    assert str(error.value).startswith(message) and error.value.loc == loc


def test_no_key_is_the_constructors_own_config():
    with pytest.raises(ValidationError, match="config\n  Extra inputs"):
        envs.DesignReview.configure({"config": {}})


def test_what_a_class_says_no_more_is_refused_where_it_is_written():
    with pytest.raises(TypeError, match="Old.TEAM_SIZES has no effect: say it in an EnvConfig named by Old.Config"):
        type("Old", (envs.DesignReview,), {"TEAM_SIZES": range(2, 5)})


def test_a_ready_configuration_is_taken_and_alone():
    config = envs.PairedFunctions.Config(rounds=3)
    assert envs.make("PairedFunctions", config=config).config is config
    for given, named in (({"rounds": 2}, "rounds beside it"), ({}, "a PairedFunctionsConfig")):
        cls = envs.PairedFunctions if given else envs.MoonSurvival
        with pytest.raises(ValueError, match=f"config: give a {cls.__name__}Config alone, .* this is {named}"):
            cls(config, **given)


def test_a_configuration_cannot_be_changed_and_knows_its_seats_and_phases():
    config = envs.Handover.Config(agents=3, facts=48)
    with pytest.raises(ValueError, match="frozen"):
        config.rounds = 5
    assert config.seats == ("agent_0", "agent_1", "agent_2") == envs.Handover(config).seats
    assert config.phases == envs.Handover(config).schedule == ("talk", "talk", "final")


@pytest.mark.parametrize(
    ("given", "loc"),
    [
        ({"cells": {"both_wrong": -1}}, ("cells", "both_wrong")),
        ({"cells": {"both_write": 1}}, ("cells", "both_write")),
        ({"cells": {"both_right": 0, "one_right": 0, "both_wrong": 0}}, ("cells",)),
        ({"families": ["offset", 3]}, ("families",)),
        ({"budget": 1}, ("budget",)),
        ({"colour": 3}, ("colour",)),
    ],
)
def test_an_error_knows_where_the_value_stands(given, loc):
    with pytest.raises(ArgumentError) as error:
        envs.PairedFunctions(**given)
    assert error.value.loc == loc and "\n" not in str(error.value)


def test_plain_data_are_read_as_json_has_them():
    config = CooperBench.configure({"dataset": "a/b", "pairs": ["x/1"]})
    assert (config.dataset, config.pairs) == ("a/b", ["x/1"])
    for section in ({"cue_reliability": float("nan")}, {"rounds": "3"}, {"rounds": 3.0}, {"acts": 1}):
        with pytest.raises(ValidationError):
            envs.PairedFunctions.configure(section)


def test_arguments_of_the_right_kind_are_taken_as_they_are():
    cells = Cells(both_right=1)
    env = envs.make("PairedFunctions", families=("offset",), cells=cells, cue_reliability=1, rounds=0)
    assert env.config.cells is cells and env.config.rounds == 0
    assert pickle.loads(pickle.dumps(env)).reset(seed=np.int64(1)) == env.reset(seed=1)


@pytest.mark.parametrize(("module", "examples"), [(config, 2), (fields, 1), (lookup, 3), (task, 1)])
def test_the_examples_in_the_docstrings_run(module, examples):
    assert doctest.testmod(module) == doctest.TestResults(failed=0, attempted=examples)
