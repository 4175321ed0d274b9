"""The 2x2 design: cells, expert seat and cue are balanced and tunable."""

from collections import Counter

import numpy as np
import pytest

from envs.core.design import Cells
from envs.core.env import SEATS
from envs.design_review import DesignReview
from envs.paired_functions import PairedFunctions

ENVIRONMENTS = [PairedFunctions, DesignReview]


@pytest.mark.parametrize("env_class", ENVIRONMENTS)
@pytest.mark.parametrize("start", [0, 123_457])
def test_each_cell_has_a_quarter_of_2000_consecutive_seeds(env_class, start):
    env = env_class()
    cells = Counter(tuple(env.make_task(seed).cell.values()) for seed in range(start, start + 2000))
    assert len(cells) == 4 and all(abs(count / 2000 - 0.25) <= 0.02 for count in cells.values()), cells


@pytest.mark.parametrize("env_class", ENVIRONMENTS)
def test_the_cell_says_whose_brief_is_right(env_class):
    env = env_class()
    for seed in range(300):
        task = env.make_task(seed)
        for seat in SEATS:
            assert task.cell[seat] == all(d.is_right(d.belief[seat]) for d in task.decisions)


def test_even_a_short_run_of_seeds_is_nearly_balanced():
    cells = Counter(Cells().at(seed) for seed in range(40))
    assert all(8 <= count <= 12 for count in cells.values()), cells


@pytest.mark.parametrize("env_class", ENVIRONMENTS)
def test_each_seat_is_the_expert_half_of_the_time(env_class):
    env = env_class()
    share = np.mean([env.make_task(seed).decisions[0].expert == "agent_0" for seed in range(2000)])
    assert abs(share - 0.5) < 0.035


@pytest.mark.parametrize("reliability", [0.95, 0.6, 0.0, 1.0])
def test_the_cue_points_to_the_right_seat_as_often_as_asked(reliability):
    env = PairedFunctions(cue_reliability=reliability)
    points = []
    for seed in range(3000):
        task = env.make_task(seed)
        if sum(task.cell.values()) == 1:
            points.append(task.cell[task.decisions[0].expert])
    assert abs(np.mean(points) - reliability) < 0.03


def test_exactly_one_seat_has_the_strong_cue_and_it_is_the_expert():
    for seed in range(100):
        for decision in DesignReview(decisions=3).make_task(seed).decisions:
            assert [seat for seat in SEATS if decision.cue[seat] == "strong"] == [decision.expert]


def test_the_expert_changes_from_decision_to_decision():
    tasks = [DesignReview(decisions=3).make_task(seed) for seed in range(100)]
    assert sum(len({d.expert for d in task.decisions}) == 2 for task in tasks) > 50


def test_each_decision_of_a_review_is_balanced_too():
    env = DesignReview(decisions=3)
    rights = Counter(
        tuple(d.is_right(d.belief[seat]) for seat in SEATS)
        for seed in range(700)
        for d in env.make_task(seed).decisions
    )
    assert all(abs(count / 2100 - 0.25) <= 0.02 for count in rights.values()), rights


def test_wrong_pairs_claim_the_same_thing_half_of_the_time_and_never_of_an_estimate():
    env = PairedFunctions(families="all", cells={"both_right": 0, "one_right": 0, "both_wrong": 1})
    same = {True: [], False: []}
    for seed in range(1500):
        decision = env.make_task(seed).decisions[0]
        same[decision.is_estimate].append(len(set(decision.belief.values())) == 1)
    assert abs(np.mean(same[False]) - 0.5) < 0.05 and not any(same[True])


FAMILIES = [*PairedFunctions.Config.FAMILIES, *DesignReview.Config.FAMILIES]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_each_family_has_all_cells_equally_often_and_either_seat_as_the_expert(family):
    env = (PairedFunctions if family in PairedFunctions.Config.FAMILIES else DesignReview)(families=[family.name])
    tasks = [env.make_task(seed) for seed in range(400)]
    cells = Counter(tuple(task.cell.values()) for task in tasks)
    assert len(cells) == 4 and all(abs(count - 100) <= 4 for count in cells.values()), cells
    assert abs(np.mean([task.decisions[0].expert == "agent_0" for task in tasks]) - 0.5) < 0.1


def test_cell_weights_can_be_tuned():
    env = PairedFunctions(cells={"both_right": 3, "one_right": 1, "both_wrong": 0})
    cells = Counter(tuple(env.make_task(seed).cell.values()) for seed in range(800))
    assert (False, False) not in cells
    assert abs(cells[True, True] / 800 - 0.75) < 0.02 and abs(cells[True, False] / 800 - 0.125) < 0.02


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"one_right": -1}, "cells.one_right is -1"),
        ({"both_right": 0, "one_right": 0, "both_wrong": 0}, "all weights are 0"),
        ({"one_rigt": 1}, "Did you mean 'one_right'"),
        ({"one_right": float("nan")}, "cells.one_right is nan"),
    ],
)
def test_bad_cell_weights_are_named(weights, message):
    with pytest.raises(ValueError, match=message):
        PairedFunctions(cells=weights)
