"""Every family: the right contract passes, everything else fails, and the instances give nothing away."""

import itertools
from collections import Counter

import numpy as np
import pytest

from envs.base import SEATS
from envs.cells import Cells
from envs.design_review import DesignReview
from envs.paired_functions import PairedFunctions
from envs.sandbox import Part, run_expressions, same

FAMILIES = [family.name for family in PairedFunctions.FAMILIES]
ALL_FAMILIES = [(PairedFunctions, name) for name in FAMILIES]
ALL_FAMILIES += [(DesignReview, family.name) for family in DesignReview.FAMILIES]


def holds(expression: str, space: dict) -> bool:
    """The sandbox's rule, in this process: our own reference code needs no sandbox, and 1,400 instances need speed."""
    try:
        return eval(expression, dict(space)) is True
    except Exception:
        return False


def merged(env: PairedFunctions, options: tuple[str, str]) -> dict:
    space = {"same": same}
    for seat, option in zip(SEATS, options, strict=True):
        exec(env.reference_work(seat, option), space)
    return space


@pytest.mark.parametrize("name", FAMILIES)
def test_only_the_right_contract_on_both_sides_passes_all_hidden_tests(name):
    env = PairedFunctions(families=[name])
    for seed in range(200):
        env.reset(seed=seed)
        decision = env.task.decisions[0]
        for options in itertools.product(decision.options, repeat=2):
            space = merged(env, options)
            passed = all(holds(test.expression, space) for test in env.task.hidden_tests)
            assert passed == (options == (decision.best, decision.best)), (seed, options)


@pytest.mark.parametrize("name", FAMILIES)
def test_probes_name_exactly_the_option_that_a_part_realises(name):
    env = PairedFunctions(families=[name])
    for seed in range(200):
        env.reset(seed=seed)
        decision = env.task.decisions[0]
        for option in decision.options:
            space = merged(env, (option, option))
            for seat in SEATS:
                probes = env.task.probes[seat][decision.id]
                assert [o for o in probes if holds(probes[o], space)] == [option], (seed, seat)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_round_trip_fails_on_every_mismatch(name):
    env = PairedFunctions(families=[name])
    for seed in range(50):
        env.reset(seed=seed)
        whole = next(test.expression for test in env.task.hidden_tests if test.part == "")
        for options in itertools.product(env.task.decisions[0].options, repeat=2):
            assert holds(whole, merged(env, options)) == (options[0] == options[1]), (seed, options)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_sandbox_agrees_with_the_reference_rule(name):
    env = PairedFunctions(families=[name])
    env.reset(seed=3)
    task, decision = env.task, env.task.decisions[0]
    parts = tuple(Part(task.stubs[seat], env.reference_work(seat, decision.best)) for seat in SEATS)
    assert all(run_expressions(parts, tuple(test.expression for test in task.hidden_tests)).passed)


@pytest.mark.parametrize(("env_class", "name"), ALL_FAMILIES)
def test_options_are_four_different_ones_that_an_answer_line_can_name(env_class, name):
    env = env_class(families=[name])
    for seed in range(200):
        env.reset(seed=seed)
        decision = env.task.decisions[0]
        assert len({option.casefold() for option in decision.options}) == 4
        assert not any(set(option) & set(",()'\"`\n") or option != option.strip() for option in decision.options)
        assert set(decision.belief.values()) <= set(decision.options) - set(decision.blends)
        assert decision.best not in decision.blends


@pytest.mark.parametrize(("env_class", "name"), ALL_FAMILIES)
def test_the_right_option_stands_in_every_place_equally_often(env_class, name):
    env = env_class(families=[name])
    decisions = [env.make_task(seed).decisions[0] for seed in range(2000)]
    places = Counter(decision.options.index(decision.best) for decision in decisions)
    assert all(abs(places[place] / 2000 - 0.25) < 0.045 for place in range(4)), places


@pytest.mark.parametrize(("env_class", "name"), ALL_FAMILIES)
def test_the_right_claim_is_neither_the_greater_nor_the_longer_one(env_class, name):
    env = env_class(families=[name], cells=Cells(both_right=0, both_wrong=0))
    order, longer = [], []
    for seed in range(1500):
        decision = env.make_task(seed).decisions[0]
        wrong = next(belief for belief in decision.belief.values() if belief != decision.best)
        order.append(float(decision.best > wrong))
        longer.append(np.sign(len(decision.best) - len(wrong)))
    assert abs(np.mean(order) - 0.5) < 0.045 and abs(np.mean(longer)) < 0.08


@pytest.mark.parametrize("env_class", [PairedFunctions, DesignReview])
def test_a_brief_alone_does_not_settle_who_is_right(env_class):
    env = env_class()
    right = {"strong": [], "weak": []}
    for seed in range(3000):
        decision = env.make_task(seed).decisions[0]
        for seat in SEATS:
            right[decision.cue[seat]].append(decision.is_right(decision.belief[seat]))
    assert abs(np.mean(right["strong"]) - 0.725) < 0.03 and abs(np.mean(right["weak"]) - 0.275) < 0.03


@pytest.mark.parametrize("env_class", [PairedFunctions, DesignReview])
def test_nothing_but_the_source_in_a_brief_tells_right_from_wrong(env_class):
    """Half of all claims are right, whatever the claim's place, its rank, its length, the seat and its function."""
    env = env_class()
    right = {}
    for seed in range(4000):
        task = env.make_task(seed)
        decision = task.decisions[0]
        for seat in SEATS:
            claim = decision.belief[seat]
            features = {
                "place": decision.options.index(claim),
                "rank": sorted(decision.options).index(claim),
                "length": sorted(decision.options, key=len).index(claim),
                "seat": seat,
                "stub": task.stubs.get(seat, task.family),
            }
            for feature in features.items():
                right.setdefault(feature, []).append(decision.is_right(claim))
    assert len(right) >= 15
    for feature, values in right.items():
        assert abs(np.mean(values) - 0.5) < 0.03 + 1 / len(values) ** 0.5, (feature, np.mean(values), len(values))


@pytest.mark.parametrize("name", ["offset", "scale", "index_base", "timeout", "padding"])
def test_numeric_tolerance_accepts_the_truth_alone_and_the_pool_but_not_the_mean(name):
    env = PairedFunctions(families=[name], cells=Cells(both_right=0, both_wrong=0), cue_reliability=1.0)
    for seed in range(100):
        decision = env.make_task(seed).decisions[0]
        numeric = decision.numeric
        accepted = [o for o in decision.options if abs(float(o) - numeric.truth) <= numeric.tolerance]
        assert accepted == [decision.best]
        weights = {seat: numeric.sigma[seat] ** -2 for seat in SEATS}
        pool = sum(weights[s] * float(decision.belief[s]) for s in SEATS) / sum(weights.values())
        assert abs(pool - numeric.truth) <= numeric.tolerance
        assert abs(np.mean([float(decision.belief[s]) for s in SEATS]) - numeric.truth) > numeric.tolerance


def test_every_family_is_drawn_and_one_can_be_chosen():
    env = PairedFunctions()
    assert {env.make_task(seed).family for seed in range(200)} == set(FAMILIES)
    assert {PairedFunctions(families=["key"]).make_task(seed).family for seed in range(20)} == {"key"}


def test_instances_of_a_family_differ():
    env = PairedFunctions(families=["offset"])
    assert len({env.make_task(seed).decisions[0].options for seed in range(200)}) > 190


def test_the_rs256_jwt_against_session_token_review_is_one_of_the_instances():
    env = DesignReview(families=["auth_scheme"], cells=Cells(both_right=0, both_wrong=0), cue_reliability=1.0)
    for seed in range(500):
        decision = env.make_task(seed).decisions[0]
        if decision.best == "RS256 JWT" and "session token" in decision.belief.values():
            brief = env.make_task(seed).briefs[decision.expert]
            assert "says RS256 JWT: other services verify it offline." in brief
            assert "inside" in decision.blends[0]
            return
    raise AssertionError("no such instance in 500 seeds")
