"""Every family: the right contract passes, everything else fails, and the instances give nothing away."""

import functools
import hashlib
import itertools
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from envs.core.config import MAX_DISTRACTORS
from envs.core.design import Cells
from envs.core.env import SEATS
from envs.core.episode import Phase
from envs.core.prompts import GAP
from envs.core.task import Task
from envs.design_review import DesignReview
from envs.families import HELD_OUT_COPIED
from envs.paired_functions import PairedFunctions
from envs.sandbox import Part, run_expressions, same
from marl_coop.config.schema import load_config

ROOT = Path(__file__).parent.parent
EVERY = (*PairedFunctions.Config.FAMILIES, *HELD_OUT_COPIED)
FAMILIES = [family.name for family in EVERY]
ESTIMATES = [family.name for family in EVERY if family.kind == "estimate"]
NUMBERS = [family.name for family in EVERY if family.kind == "numeric"]
ALL_FAMILIES = [(PairedFunctions, name) for name in FAMILIES]
ALL_FAMILIES += [(DesignReview, family.name) for family in DesignReview.Config.FAMILIES]


@functools.cache
def tasks(env_class, name: str) -> list[Task]:
    """1,000 instances of a family whose cue is worth nothing, so no brief has anything that tells right from wrong."""
    env = env_class(families=[name], cue_reliability=0.5)
    return [env.make_task(seed) for seed in range(1000)]


compiled = functools.cache(compile)


def holds(expression: str, space: dict) -> bool:
    """The sandbox's rule, in this process: our own code needs no sandbox, and thousands of runs need speed."""
    try:
        return eval(compiled(expression, "test", "eval"), dict(space)) is True
    except Exception:
        return False


def merged(env: PairedFunctions, options: tuple[str, str]) -> dict:
    space = {"same": same}
    for seat, option in zip(SEATS, options, strict=True):
        exec(compiled(env.reference_work(seat, option), "part", "exec"), space)
    return space


@pytest.mark.parametrize("distractors", [0, MAX_DISTRACTORS])
@pytest.mark.parametrize("name", FAMILIES)
def test_only_the_right_contract_on_both_sides_passes_all_hidden_tests(name, distractors):
    """Every wrong one fails: the blend where it is wrong, each claim where the blend is right. The round trip alone,
    which knows no answer, fails on every mismatch.
    """
    env = PairedFunctions(families=[name], distractors=distractors)
    for seed in range(10 if distractors else 40):
        env.reset(seed=seed)
        decision = env.task.decisions[0]
        (whole,) = (test.expression for test in env.task.hidden_tests if test.part == "")
        for options in itertools.product(decision.options, repeat=2):
            space = merged(env, options)
            passed = all(holds(test.expression, space) for test in env.task.hidden_tests)
            assert passed == (options == (decision.best, decision.best)), (seed, options)
            assert holds(whole, space) == (options[0] == options[1]), (seed, options)


@pytest.mark.parametrize("name", FAMILIES)
def test_on_every_input_the_probes_name_exactly_the_option_that_a_part_realises(name):
    env = PairedFunctions(families=[name], distractors=MAX_DISTRACTORS)
    for seed in range(25):
        env.reset(seed=seed)
        decision = env.task.decisions[0]
        for option in decision.options:
            space = merged(env, (option, option))
            for seat in SEATS:
                probes = env.task.probes[seat][decision.id]
                for asked in zip(*probes.values(), strict=True):  # of one input, for each option
                    follows = [o for o, expression in zip(probes, asked, strict=True) if holds(expression, space)]
                    assert follows == [option], (seed, seat)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_sandbox_agrees_with_the_reference_rule(name):
    env = PairedFunctions(families=[name])
    env.reset(seed=3)
    task, decision = env.task, env.task.decisions[0]
    expressions = tuple(test.expression for test in task.hidden_tests)
    for option in decision.options:
        options = (option, option)
        parts = tuple(Part(task.stubs[s], env.reference_work(s, o)) for s, o in zip(SEATS, options, strict=True))
        expected = tuple(holds(expression, merged(env, options)) for expression in expressions)
        assert run_expressions(parts, expressions).passed == expected


@pytest.mark.parametrize("name", FAMILIES)
def test_a_gap_can_stand_in_the_place_of_the_option(name):
    env = PairedFunctions(families=[name], scaffold=True)
    env.reset(seed=0)
    for seat in SEATS:
        code = env.reference_work(seat, GAP)
        assert GAP in code and env.task.stubs[seat] in code
        assert env.instruction(seat, Phase.FINAL).endswith(code)


@pytest.mark.parametrize(("env_class", "name"), ALL_FAMILIES)
def test_options_are_different_ones_that_an_answer_line_can_name(env_class, name):
    for distractors in range(MAX_DISTRACTORS + 1):
        env = env_class(families=[name], distractors=distractors)
        for seed in range(50):
            decision = env.make_task(seed).decisions[0]
            assert len({option.casefold() for option in decision.options}) == len(decision.options) == 4 + distractors
            assert not any(set(option) & set(",()'\"`\n") or option != option.strip() for option in decision.options)
            assert set(decision.belief.values()) <= set(decision.options) - set(decision.blends)


@pytest.mark.parametrize(("env_class", "name"), ALL_FAMILIES)
def test_a_blend_is_right_only_of_estimates_that_are_both_wrong(env_class, name):
    for task in tasks(env_class, name):
        decision = task.decisions[0]
        right = name in ESTIMATES and not any(task.cell.values())
        assert (decision.best in decision.blends) == right


@pytest.mark.parametrize(("env_class", "name"), ALL_FAMILIES)
def test_the_right_option_stands_in_every_place_equally_often(env_class, name):
    decisions = [task.decisions[0] for task in tasks(env_class, name)]
    places = Counter(decision.options.index(decision.best) for decision in decisions)
    assert all(abs(places[place] / 1000 - 1 / 6) < 0.045 for place in range(6)), places


@pytest.mark.parametrize(("env_class", "name"), ALL_FAMILIES)
def test_the_right_claim_is_neither_the_greater_nor_the_longer_one(env_class, name):
    order, longer = [], []
    for task in tasks(env_class, name):
        decision = task.decisions[0]
        if sum(task.cell.values()) == 1:
            wrong = next(belief for belief in decision.belief.values() if belief != decision.best)
            order.append(float(decision.best > wrong))
            longer.append(np.sign(len(decision.best) - len(wrong)))
    assert len(order) >= 490
    assert abs(np.mean(order) - 0.5) < 0.08 and abs(np.mean(longer)) < 0.16


def counted(texts: list[str]) -> np.ndarray:
    """How often each word or symbol is in each text: (texts, vocabulary)."""
    words = [Counter(re.findall(r"\w+|[^\w\s]", text)) for text in texts]
    column = {word: i for i, word in enumerate(sorted(set().union(*words)))}
    counts = np.zeros((len(texts), len(column)))
    for row, found in zip(counts, words, strict=True):
        row[[column[word] for word in found]] = list(found.values())
    return counts


def bag_of_words_accuracy(texts: list[str], labels: np.ndarray) -> float:
    """Of a naive Bayes classifier, each fifth of the texts judged by what the others taught it."""
    counts, classes, correct = counted(texts), np.unique(labels), []
    for fold in np.array_split(np.arange(len(texts)), 5):
        rest = np.setdiff1d(np.arange(len(texts)), fold)
        scores = []
        for label in classes:
            mine = rest[labels[rest] == label]
            frequency = 1.0 + counts[mine].sum(0)
            scores.append(np.log(len(mine)) + counts[fold] @ np.log(frequency / frequency.sum()))
        correct.extend(classes[np.argmax(scores, axis=0)] == labels[fold])
    return float(np.mean(correct))


@pytest.mark.parametrize(("env_class", "name"), ALL_FAMILIES)
def test_a_bag_of_words_over_2000_briefs_predicts_neither_place_nor_claim(env_class, name):
    """The words of a brief say neither whether its claim is right nor where the right option stands."""
    cases = [(task.briefs[seat], task.decisions[0], seat) for task in tasks(env_class, name) for seat in SEATS]
    texts = [text for text, _, _ in cases]
    claim_right = np.array([decision.is_right(decision.belief[seat]) for _, decision, seat in cases])
    place = np.array([decision.options.index(decision.best) for _, decision, _ in cases])
    assert abs(bag_of_words_accuracy(texts, claim_right) - 0.5) < 0.05
    assert bag_of_words_accuracy(texts, place) < 1 / 6 + 0.05


@pytest.mark.parametrize(("env_class", "name"), ALL_FAMILIES)
def test_the_options_do_not_tell_what_the_partner_claims(env_class, name):
    """Of the two plain options beside the own claim, the partner's cannot be told: not by order, size, distance or by
    the blends that the list has of it and the own claim."""
    (family,) = env_class(families=[name]).families
    favours = Counter()
    for seed in range(1000):
        readings = family.draw(np.random.default_rng(seed))
        blends = readings.options(MAX_DISTRACTORS)[2:3] + readings.options(MAX_DISTRACTORS)[4:]
        for own, partner in (readings.claims, readings.claims[::-1]):

            def looks(option, own=own, blends=blends, numeric=readings.numeric):
                near = {"near": abs(float(option) - float(own))} if numeric else {}
                shared = [blend.startswith(own) - blend.endswith(own) for blend in blends if option in blend]
                return {"order": option, "size": (len(option), option), "first": sum(shared)} | near

            mine, third = looks(partner), looks(readings.other)
            for feature in mine:
                favours[feature] += (mine[feature] > third[feature]) - (mine[feature] < third[feature])
    assert all(abs(count) / 2000 < 0.07 for count in favours.values()), favours


@pytest.mark.parametrize("name", ["key", "error_type", "offset", "capacity"])
def test_a_list_without_the_other_blends_does_give_it_away(name):
    """The only pair of options with a blend in the list are the claims."""
    (family,) = PairedFunctions(families=[name]).families
    for seed in range(50):
        readings = family.draw(np.random.default_rng(seed))
        assert len(readings.options(0)) == 4 and len(set(readings.options(MAX_DISTRACTORS))) == 6
        assert readings.blends[0] in readings.options(0) and not set(readings.blends[1:]) & set(readings.options(0))


@pytest.mark.parametrize("name", ["offset", "unit"])
def test_the_classifier_does_find_a_cue_that_is_worth_something(name):
    env = PairedFunctions(families=[name], cue_reliability=1.0)
    cases = [(task.briefs[seat], task, seat) for task in map(env.make_task, range(1000)) for seat in SEATS]
    right = np.array([task.cell[seat] for _, task, seat in cases])
    assert bag_of_words_accuracy([text for text, _, _ in cases], right) > 0.65


@pytest.mark.parametrize("env_class", [PairedFunctions, DesignReview])
def test_a_brief_alone_does_not_settle_who_is_right(env_class):
    env = env_class(families="all")
    right = {"strong": [], "weak": []}
    for seed in range(3000):
        decision = env.make_task(seed).decisions[0]
        for seat in SEATS:
            right[decision.cue[seat]].append(decision.is_right(decision.belief[seat]))
    assert abs(np.mean(right["strong"]) - 0.725) < 0.03 and abs(np.mean(right["weak"]) - 0.275) < 0.03


@pytest.mark.parametrize("name", FAMILIES)
def test_a_brief_holds_its_options_and_its_own_claim_and_nothing_else(name):
    """Two instances with the same options, claim and source have the same brief, whatever the answer is."""
    (family,) = PairedFunctions(families=[name]).families
    for task in tasks(PairedFunctions, name)[:200]:
        decision = task.decisions[0]
        for seat in SEATS:
            part = [family.function(0), family.function(1)].index(task.stubs[seat])
            says = "measured" if decision.is_estimate else "says"
            known = (
                f"You write {family.signatures[part]}: {family.glosses[part]}. Your partner writes "
                f"{family.signatures[1 - part]}. Both must use one {family.contract}.\n"
                f"Options: {', '.join(decision.options)}. Your source, SOURCE, {says} {decision.told(seat)}."
            )
            assert re.sub(r"(?<=Your source, )[^,]+", "SOURCE", task.briefs[seat]) == known


@pytest.mark.parametrize("env_class", [PairedFunctions, DesignReview])
def test_nothing_but_the_source_in_a_brief_tells_right_from_wrong(env_class):
    """Half of all claims are right, whatever the claim's place, its rank, its length, the seat and its function."""
    env = env_class(families="all")
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


@pytest.mark.parametrize("name", NUMBERS)
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
    env = PairedFunctions(families="all")
    assert {env.make_task(seed).family for seed in range(400)} == {family.name for family in env.families}
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


def digest(env, count: int) -> str:
    """Of all that an instance is made of, over the first `count` seeds."""
    sha = hashlib.sha256()
    for task in map(env.make_task, range(count)):
        (decision,) = task.decisions
        tests = [test.expression for test in task.hidden_tests]
        sha.update(repr((sorted(task.briefs.items()), decision.options, decision.best, tests)).encode())
    return sha.hexdigest()[:16]


def test_the_instances_of_the_quickstart_are_those_of_the_published_figures():
    assert digest(load_config([ROOT / "configs" / "quickstart.yaml"]).make_env(), 300) == "d97a13ace6bc5e91"


def test_a_seed_fixes_the_instance_in_every_process():
    code = "from test_env_families import PairedFunctions, digest; print(digest(PairedFunctions(families='all'), 100))"
    env = os.environ | {"PYTHONHASHSEED": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    seen = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    assert seen.strip() == digest(PairedFunctions(families="all"), 100)
