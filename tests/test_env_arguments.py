"""Whatever an environment is given wrongly is one error that names the value, the place and the remedy."""

import doctest
import pickle
from typing import Any, Protocol

import numpy as np
import pytest

import envs
from envs.core import arguments


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("PairedFunctions", {"round": 3}, "PairedFunctions has no argument 'round'. Did you mean 'rounds'?"),
        (
            "PairedFunctions",
            {"colour": 3},
            "PairedFunctions has no argument 'colour'. Known: test_timeout_s, ",
        ),
        ("PairedFunctions", {"acts": "false"}, "acts is 'false'; it should be a valid boolean"),
        ("PairedFunctions", {"rounds": True}, "rounds is True; it should be a valid integer"),
        ("PairedFunctions", {"agents": 2.0}, "agents is 2.0; it should be a valid integer"),
        ("PairedFunctions", {"cue_reliability": None}, "cue_reliability is None; it should be a valid number"),
        ("PairedFunctions", {"families": 3}, "families is 3; it should be"),
        ("PairedFunctions", {"families": "trian"}, "families is 'trian'; it must be a list of at least one name"),
        ("PairedFunctions", {"cells": 5}, "cells is 5; it should be"),
        ("MoonSurvival", {"expert_noise": "a"}, "expert_noise is 'a'; it should be a valid number"),
        ("PairedFeatures", {"rounds": 0}, "rounds is 0; it must be a whole number of at least 1"),
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
    assert (env.rounds, env.acts, env.cue_reliability) == (2, True, 1.0)
    assert [type(value) for value in (env.rounds, env.acts, env.cue_reliability)] == [int, bool, float]
    with pytest.raises(ValueError, match="agents is True; it should be a valid integer"):
        envs.make("DesignReview", agents=np.True_)


class Speaks(Protocol):
    def speak(self) -> str: ...


class Odd(envs.DesignReview):
    def __init__(self, *, lab: "nowhere.Lab", who: Speaks, n: int = 1, _seen: int, model_config: int, **kwargs: Any):  # noqa: F821
        super().__init__(**kwargs)
        self.given = (lab, who, n, _seen, model_config)


class Sink(envs.DesignReview):
    def __init__(self, **extra: Any):
        super().__init__(rounds=2)
        self.extra = extra


def test_what_cannot_be_checked_is_passed_on():
    assert Odd(lab=1, who=2, _seen=3, model_config=4, rounds=0).given == (1, 2, 1, 3, 4)
    assert Sink(colour="red", _size=3).extra == {"colour": "red", "_size": 3}


def test_what_can_be_checked_is_checked_beside_it():
    odd = {"lab": 1, "who": 2, "_seen": 3, "model_config": 4}
    with pytest.raises(ValueError, match="n is 'x'; it should be a valid integer"):
        Odd(**odd, n="x")
    with pytest.raises(ValueError, match="Odd has no argument 'round'. Did you mean 'rounds'"):
        Odd(**odd, round=1)


def test_arguments_of_the_right_kind_are_taken_as_they_are():
    cells = envs.core.env.Cells(both_right=1)
    env = envs.make("PairedFunctions", families=("offset",), cells=cells, cue_reliability=1, rounds=0)
    assert env.cells is cells and env.rounds == 0
    assert pickle.loads(pickle.dumps(env)).reset(seed=np.int64(1)) == env.reset(seed=1)


def test_the_examples_in_the_docstrings_run():
    assert doctest.testmod(arguments) == doctest.TestResults(failed=0, attempted=2)
