"""What hidden tests and probes make of code: no input tells the answer, and reading everything is no contract."""

import ast
from dataclasses import replace

import numpy as np
import pytest

from envs.core.config import MAX_DISTRACTORS
from envs.core.env import SEATS
from envs.core.episode import AMBIGUOUS, Episode
from envs.core.hidden_tests import HiddenSuite
from envs.families import HELD_OUT, HELD_OUT_COPIED, TRAINING
from envs.families.base import FunctionFamily
from envs.paired_features import generator
from envs.paired_features.env import PairedFeatures
from envs.paired_functions import PairedFunctions
from envs.sandbox import same, verdicts
from envs.sandbox.expressions import take_apart

FAMILIES = {family.name: family for family in (*TRAINING, *HELD_OUT, *HELD_OUT_COPIED)}


def played(env: PairedFunctions, work: dict[str, str], held: dict[str, str] | None = None) -> Episode:
    """The end of an episode in which the seats write this code, after a reset."""
    while env.agents:
        answers = held or dict.fromkeys(SEATS, env.task.decisions[0].options[0])
        env.step({seat: f"Answer: {answers[seat]} (50%)\n{work[seat]}" for seat in SEATS})
    return env.episode


def part_of(env: PairedFunctions, seat: str) -> int:
    (family,) = env.families
    return [family.function(0), family.function(1)].index(env.task.stubs[seat])


def reader(env: PairedFunctions) -> str:
    """The seat that writes the second function, which reads what the first one makes."""
    return next(seat for seat in SEATS if part_of(env, seat) == 1)


# what is asked


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_asked_of_a_part_does_not_depend_on_which_option_is_right(name):
    """Its hidden tests ask nothing that its probes do not ask, and those ask the same of every option."""
    env = PairedFunctions(families=[name])
    for seed in range(20):
        env.reset(seed=seed)
        task, names = env.task, set(env.task.stubs.values())
        for seat in SEATS:
            probes = task.probes[seat][task.decisions[0].id]
            assert list(probes) == list(task.decisions[0].options) and {len(asked) for asked in probes.values()} == {3}
            asked = {text for texts in probes.values() for e in texts for text in take_apart(e).asked(names, {})}
            tests = [test.expression for test in task.hidden_tests if test.part == seat]
            assert {text for e in tests for text in take_apart(e).asked(names, {})} <= asked


@pytest.mark.parametrize("place", [family.name for family in PairedFeatures.Config.FAMILIES])
def test_what_is_asked_of_a_feature_is_the_same_whichever_option_is_right(place):
    """Of tasks that differ in nothing but that: the same calls, each once, for each part."""
    env = PairedFeatures(families=[place], contracts="all")
    for seed in range(60):
        contract, task = env.contracts[seed % len(env.contracts)], None
        decision = contract.decide((True, False), SEATS, np.random.default_rng(seed), cue_reliability=0.95)
        asked = set()
        for right in decision.options:
            other = replace(decision, utility={option: float(option == right) for option in decision.options})
            rng, sources = np.random.default_rng(seed), contract.sources("few")
            task = generator.make(env.families[0], contract, other, (True, False), seed, SEATS, rng, sources)
            assert task.decisions[0].best == right
            suite = HiddenSuite(task)
            calls = {
                (part, text)
                for part, expression in zip(suite.parts, suite.expressions, strict=True)
                for text in take_apart(expression).asked({"tree"}, {})
            }
            asked.add(frozenset(calls))
        assert len(asked) == 1 and {part for part, _ in calls} == {*SEATS, ""}


def test_no_process_gets_two_parts_and_the_reader_of_another_parts_value_gets_the_value_alone(monkeypatch):
    bodies = []
    ask = verdicts.ask
    monkeypatch.setattr(verdicts, "ask", lambda asked, **limits: bodies.append(asked) or ask(asked, **limits))
    env = PairedFunctions(families=["decimals"])
    env.reset(seed=1)
    option = env.task.decisions[0].best
    work = {seat: env.reference_work(seat, option) for seat in SEATS}
    assert played(env, work).outcome.success
    first, second = bodies
    assert [body.part[1] for body in first] == [work[SEATS[0]], work[SEATS[1]]]
    assert [body.part[1] for body in second] == [work[reader(env)]]
    assert all(text.startswith("exact('") for text in second[0].expressions)


def test_the_same_is_asked_in_the_same_order_whoever_is_right(monkeypatch):
    """Of two instances that differ in nothing but in which claim is right."""
    bodies = []
    ask = verdicts.ask
    monkeypatch.setattr(verdicts, "ask", lambda asked, **limits: bodies.append(asked) or ask(asked, **limits))
    env = PairedFunctions(families=["offset"])
    (family,) = env.families
    draw = family.decide
    for swapped in (False, True):

        def decide(right, *args, swapped=swapped, **knobs):
            decision = draw((True, False), *args, **knobs)
            if swapped:
                wrong = next(belief for belief in decision.belief.values() if belief != decision.best)
                object.__setattr__(decision, "utility", {o: float(o == wrong) for o in decision.options})
            return decision

        monkeypatch.setattr(family, "decide", decide)
        verdicts.verdict_of.cache_clear()
        env.reset(seed=5)
        played(env, {seat: env.reference_work(seat, env.task.decisions[0].belief[seat]) for seat in SEATS})
    half = len(bodies) // 2
    assert half and bodies[:half] == bodies[half:]


# tolerant code

TOLERANT = {  # families -> a second function that reads what the first one makes under any contract
    "key": "def load(d): return next(iter(d.values()))",
    "attribute": "def look(job): return next(v for k, v in vars(type(job)).items() if not k.startswith('_'))",
    "separator": "import re\ndef split(s): return re.split(r'[^a-z]+', s)",
    "signature": "def call(f, d): return f(*d.values())",
    "schema": "def load(m): return m['n']['n'] if type(m['n']) is dict else m['n']",
    "error_type": "def safe(f, k):\n  try: return f(k)\n  except Exception: return None",
    "signing": "def valid(s, h): return len(h) > 9",
    "return_type": (
        "import re\ndef width(r):\n  x = [int(n) for n in re.findall(r'\\d+', str(r))]\n"
        "  x = [x[0] // 1000, x[0] % 1000] if len(x) == 1 else x\n  return max(x) - min(x)"
    ),
    "unit": "def recv(w): return w * 3600000 if type(w) is int else sum(w.values()) * 3600000",
    "day_format": (
        "import re\nfrom datetime import datetime\ndef read(s):\n  a, b, c = re.split(r'\\D', s)\n"
        "  y, x, z = (a, b, c) if len(a) == 4 else (c, a, b)\n  return datetime(int(y), *sorted((int(x), int(z))))"
    ),
}


@pytest.mark.parametrize("name", TOLERANT)
def test_a_reader_of_everything_passes_none_of_its_tests(name):
    env = PairedFunctions(families=[name])
    for seed in range(3):
        env.reset(seed=seed)
        seat, right = reader(env), env.task.decisions[0].best
        other = next(s for s in SEATS if s != seat)
        work = {seat: TOLERANT[name], other: env.reference_work(other, right)}
        outcome = played(env, work).outcome
        assert not any(outcome.parts[seat].merged) and not outcome.success
        assert outcome.tests_passed == 2 and outcome.committed[other] == {name: right}


EVERY_OPTION = """
_made = []
{sources}
_like = {plausible!r}
def _try(one, *given):
    try: return one(*given)
    except Exception: return None
def _text(one): return str(getattr(one, "__dict__", one))  # no address, which would differ from run to run
def {function}(*given):
    results = [_try(one, *given) for one in _made]
    return {choice}
"""
CHOICES = {
    "the first that is not nothing": "next((r for r in results if r not in (None, False, [])), results[0])",
    "the last that is not nothing": "next((r for r in results[::-1] if r not in (None, False, [])), results[0])",
    "any": "any(results) if type(results[0]) is bool else max(results, key=lambda r: (r is not None, _text(r)))",
    "the most frequent": "max(results, key=lambda r: (r is not None, sum(_text(r) == _text(s) for s in results)))",
    "one that can be expected": "next((r for r in results if str(r) in _like), results[0])",
}


def every_option(env: PairedFunctions, seat: str, choice: str) -> str:
    """Code that knows the solution of every option and how values are made, and picks what seems to work."""
    family, part, options = env.families[0], part_of(env, seat), env.task.decisions[0].options
    sources = "\n".join(f"{family.source(part, o)}\n_made.append({family.function(part)})" for o in options)
    plausible = {str(side) for o in options for n in range(1, 10) for side in expected(family, part, o, n)}
    return EVERY_OPTION.format(
        sources=sources, function=family.function(part), choice=CHOICES[choice], plausible=plausible
    )


def expected(family: FunctionFamily, part: int, option: str, n: int) -> list[object]:
    """The literals that a check compares with, and what is in them."""
    call = ast.parse(family.check(part, option, n), mode="eval").body
    whole = eval(ast.unparse(call.args[1]))
    return [whole, *whole] if isinstance(whole, tuple) else [whole]


def judged(env: PairedFunctions, work: dict[str, str]):
    """What `HiddenSuite` makes of both parts in one namespace, without the sandbox."""
    space: dict = {"same": same}
    for source in work.values():
        exec(source, space)
    holds = []
    for expression in HiddenSuite(env.task).expressions:
        try:
            holds.append(eval(expression, dict(space)) is True)
        except Exception:
            holds.append(False)
    return HiddenSuite(env.task).judge(holds)


@pytest.mark.parametrize("name", FAMILIES)
def test_code_that_tries_every_option_passes_a_test_only_as_a_guess(name):
    """Whatever it picks, it is ambiguous and passes nothing, or it follows one option on an input and might have
    written down that one; so it is right no more often than a guess among the options."""
    env = PairedFunctions(families=[name], distractors=MAX_DISTRACTORS)
    passed, seeds = {choice: [] for choice in CHOICES}, 10
    for seed in range(seeds):
        env.reset(seed=seed)
        right = env.task.decisions[0].best
        for choice, results in passed.items():
            for seat in SEATS:
                other = next(s for s in SEATS if s != seat)
                work = {other: env.reference_work(other, right), seat: every_option(env, seat, choice)}
                judgement = judged(env, work)
                realised = judgement.realised[seat][name]
                assert realised in (right, None) or not all(judgement.of_part(seat))
                if realised == AMBIGUOUS:
                    assert not any(judgement.of_part(seat)) and not judgement.passed[-1]
                results.append(np.mean(judgement.of_part(seat)))
    assert max(np.mean(results) for results in passed.values()) < 0.5, passed


# what is made of the answers


def test_a_part_that_follows_two_options_on_one_input_is_ambiguous_and_fails():
    env = PairedFunctions(families=["offset"])
    env.reset(seed=0)
    suite, (decision,) = HiddenSuite(env.task), env.task.decisions
    right, other = decision.best, next(o for o in decision.options if o != decision.best)
    probes = [(seat, o, i) for seat in SEATS for o in decision.options for i in range(3)]

    def judge(*follows: tuple[str, str, int]):
        return suite.judge([True] * 5 + [probe in follows for probe in probes])

    def following(seat: str, option: str) -> list[tuple[str, str, int]]:
        return [(seat, option, i) for i in range(3)]

    both = following("agent_0", right) + following("agent_1", right)
    assert judge(*both).passed == (True,) * 5
    assert judge(*both, ("agent_1", other, 2)).realised == {
        "agent_0": {"offset": right},
        "agent_1": {"offset": AMBIGUOUS},
    }
    assert judge(*both, ("agent_1", other, 2)).passed == (True, True, False, False, False)
    assert judge(*both[:-1]).realised["agent_1"] == {"offset": None}
    assert judge(*both[:-1]).passed == (True, True, True, True, False)
    apart = judge(*following("agent_0", right), *following("agent_1", other))
    assert apart.passed == (True, True, True, True, False), "they do not agree, whatever the round trip says"


def test_an_ambiguous_end_is_on_the_record_and_counts_as_no_option():
    env = PairedFunctions(families=["key"])
    env.reset(seed=0)
    seat = reader(env)
    other = next(s for s in SEATS if s != seat)
    episode = played(env, {seat: TOLERANT["key"], other: env.reference_work(other, env.task.decisions[0].best)})
    assert episode.outcome.committed[seat] == {"key": AMBIGUOUS} and episode.committed(seat, "key") is None
    assert Episode.from_json(episode.to_json()) == episode


# a tree, in which parts can see each other

FOLLOWERS = {
    "calls the partner's part": "n - encode(0)",
    "has an option of its own to fall back on": "n - (encode(0) if 'encode' in globals() else {other})",
    "tries every option": "next((n - o for o in {options} if 0 < n - o < 10), n)",
}


@pytest.mark.parametrize("follower", FOLLOWERS)
def test_in_a_merged_tree_who_follows_the_partners_code_has_agreed_to_nothing(follower):
    env = PairedFeatures(families=["append"], contracts=["offset"])
    env.reset(seed=0)
    (decision,) = env.task.decisions
    seat = next(s for s in SEATS if env.task.stubs[s] == "decode")
    other = next(s for s in SEATS if s != seat)
    wrong = next(o for o in decision.options if o != decision.best)
    value = FOLLOWERS[follower].format(other=wrong, options=sorted(map(int, decision.options)))
    work = {s: env.reference_work(s, decision.best) for s in SEATS}
    work[seat] = work[seat].replace(f"n - {decision.best}", value)
    assert value in work[seat]
    while env.agents:
        if env.phase == "work":
            env.step({s: f"{work[s]}\nSubmit" for s in env.acting})
        else:
            env.step({s: f"Answer: {decision.best} (50%)" for s in SEATS})
    outcome = env.episode.outcome
    assert all(outcome.parts[other].merged) and not all(outcome.parts[seat].merged) and not outcome.success
    assert outcome.committed[other] == {"offset": decision.best} != outcome.committed[seat]
