"""Playing on a repository: turns, budgets, what each seat sees, the record, and PettingZoo's contract."""

import json
import pickle
import warnings

import pytest
from hypothesis import HealthCheck, given, settings
from pettingzoo.test import parallel_api_test, parallel_seed_test
from pettingzoo.utils import parallel_to_aec
from test_repo_actions import REPLIES
from test_repo_tasks import build

from envs import PairedFeatures, PairedFunctions
from envs.base import SEATS
from envs.episode import Episode, ParseError, Phase, StopReason, message_tokens
from envs.partners import AlwaysDefer, Calibrated, NeverDefer, Silent, play, replay
from envs.repository import desk
from envs.repository.verdict import Verdict
from envs.sandbox import Status
from envs.zoo import ZOO
from rewards import TERMS, RewardStack


def started(seed=3, **arguments):
    """An environment after the sealed stances, and what the seats see then."""
    env = PairedFeatures(**arguments)
    env.reset(seed=seed)
    seen, *_ = env.step(dict.fromkeys(SEATS, f"Answer: {env.task.decisions[0].options[0]} (60%)"))
    return env, seen


def source_of(env):
    """A file that the seats may change, and its first line."""
    path = next(path for path in sorted(env.task.files) if not path.startswith("tests/"))
    return path, env.task.files[path].split("\n")[0]


def test_work_ends_when_both_have_submitted_and_a_seat_that_has_waits():
    env, _ = started(rounds=5)
    assert env.acting == SEATS and env.phase is Phase.WORK
    seen, *_ = env.step({"agent_0": "Submit", "agent_1": "Pass"})
    assert env.acting == ("agent_1",) and seen["agent_0"] == ""
    env.step({"agent_0": "Say: too late", "agent_1": "Pass"})  # what a waiting seat does counts for nothing
    env.step({"agent_1": "Submit"})
    assert env.phase is Phase.FINAL and env.acting == SEATS
    env.step(dict.fromkeys(SEATS, "Answer: x"))
    assert [len(env.episode.turns_of(seat)) for seat in SEATS] == [3, 5]
    assert [turn.index for turn in env.episode.turns_of("agent_1")] == [0, 1, 2, 3, 4]
    assert all(turn.message == "" for turn in env.episode.turns)


def test_nothing_after_a_submission_is_done():
    env, _ = started()
    path, line = source_of(env)
    seen, *_ = env.step({"agent_0": f"Submit\nSay: wait\nInsert {path} after: {line}\nx = 1\nEnd", "agent_1": "Pass"})
    assert "wait" not in seen["agent_1"] and "Your partner has submitted." in seen["agent_1"]
    assert env._desks["agent_0"].files == env.task.files


def test_work_ends_when_the_turns_are_spent():
    env, _ = started(rounds=2)
    for _ in range(2):
        assert env.phase is Phase.WORK
        env.step(dict.fromkeys(SEATS, "Pass"))
    assert env.phase is Phase.FINAL


def test_one_seat_at_a_time_hears_the_other_before_it_acts_and_misses_nothing():
    env, seen = started(order="alternating", rounds=2)
    order, first = [], env.acting[0]
    other = next(seat for seat in SEATS if seat != first)
    assert "Work on your branch" in seen[first] and seen[other] == ""
    path, _ = source_of(env)
    while env.phase is Phase.WORK:
        (seat,) = env.acting
        order.append(seat)
        seen, *_ = env.step({seat: f"Say: turn {len(order)}\nRead: {path}"})
    assert order == [first, other, first, other]
    turns = [turn for turn in env._turns if turn.phase is Phase.WORK]
    assert "Partner: turn 1" in turns[1].observation and "Work on your branch" in turns[1].observation
    assert turns[2].observation.startswith(f"{path}:\n  1 ") and "Partner: turn 2" in turns[2].observation
    assert "Partner: turn 3" in turns[3].observation and "Partner: turn 1" not in turns[3].observation
    assert "Partner: turn 4" in seen[first]


def test_who_begins_is_as_often_the_one_as_the_other():
    first = [started(seed, order="alternating")[0].acting for seed in range(10)]
    assert first.count(("agent_0",)) == first.count(("agent_1",)) == 5


def test_a_seat_that_goes_on_alone_keeps_its_own_number_of_turns():
    env, _ = started(order="alternating", rounds=3)
    (first,) = env.acting
    env.step({first: "Submit"})
    (other,) = env.acting
    for left in (3, 2, 1):
        assert env.turns_left(other) == left and env.acting == (other,)
        env.step({other: "Pass"})
    assert env.phase is Phase.FINAL


def test_a_reply_beyond_the_tokens_counts_for_nothing_and_submits():
    env, _ = started(tokens=12, rounds=3)
    path, line = source_of(env)
    words = "Say: one two three"
    assert message_tokens(words) == 5
    seen, *_ = env.step({"agent_0": words, "agent_1": "Pass"})
    assert "2 turns and 7 tokens left." in seen["agent_0"] and "2 turns and 11 tokens left." in seen["agent_1"]
    *_, infos = env.step({"agent_0": f"Say: this is too long for what is left to say\nRead: {path}", "agent_1": "Pass"})
    assert infos["agent_0"]["parse_error"] is ParseError.OVER_BUDGET and env.acting == ("agent_1",)


def test_a_reply_that_breaks_the_grammar_costs_a_turn_and_does_nothing():
    env, _ = started(rounds=2)
    path, line = source_of(env)
    half = f"Say: I start\nInsert {path} after: {line}\nx = 1"
    seen, _, _, _, infos = env.step({"agent_0": half, "agent_1": "Pass"})
    assert infos["agent_0"]["parse_error"] is ParseError.BAD_ACTION and env.turns_left("agent_0") == 1
    assert "Your reply was not read: bad_action." in seen["agent_0"] and "I start" not in seen["agent_1"]
    assert env._desks["agent_0"].files == env.task.files


def test_the_visible_tests_tell_of_the_own_branch_only():
    env, _ = started(families=["append"])
    path, _ = source_of(env)
    broken = next(line for line in env.task.files[path].split("\n") if line.startswith("    return"))
    edit = f"Replace {path}:\n{broken}\nWith:\n    return None\nEnd\nTest\nTest"
    seen, *_ = env.step({"agent_0": edit, "agent_1": "Test"})
    assert "Visible tests: 2 of 3 pass. Failed: test_" in seen["agent_0"]
    assert seen["agent_0"].count("Visible tests") == 1 and "once in a turn" in seen["agent_0"]
    assert "Visible tests: 3 of 3 pass." in seen["agent_1"]


def test_branches_are_private_until_they_are_merged():
    env, _ = started(families=["append"])
    path, line = source_of(env)
    env.step({"agent_0": f"Insert {path} after: {line}\nsecret = 1\nEnd", "agent_1": "Pass"})
    seen, *_ = env.step({"agent_0": "Search: secret", "agent_1": f"Search: secret\nRead: {path}"})
    assert "'secret' is on 1 lines" in seen["agent_0"]
    assert "'secret' is on 0 lines" in seen["agent_1"] and "secret = 1" not in seen["agent_1"]


def test_the_forecast_is_told_only_where_it_is_asked_for_and_recorded_in_any_case():
    for told in (False, True):
        env, seen = started(families=["append"], forecast=told)
        assert "forecast" not in seen["agent_0"]
        path, line = source_of(env)
        seen, *_ = env.step({seat: f"Insert {path} after: {line}\nx_{i} = 1\nEnd" for i, seat in enumerate(SEATS)})
        assert all((f"Merge forecast: conflict in {path} lines 2-2." in seen[seat]) == told for seat in SEATS)
        seen, *_ = env.step({"agent_0": f"Replace {path}:\nx_0 = 1\nWith:\nEnd", "agent_1": "Pass"})
        assert ("Merge forecast: clean." in seen["agent_1"]) == told
        while env.agents:
            env.step(dict.fromkeys(SEATS, "Submit"))
        forecasts = env.episode.outcome.forecasts
        assert [forecast.conflict for forecast in forecasts] == [True, False, False]
        assert [forecast.round for forecast in forecasts] == [1, 2, 3]


def test_the_last_forecast_is_what_the_merge_comes_to():
    for coordinated in (True, False):
        for family in PairedFeatures.FAMILIES:
            outcome = build(PairedFeatures(families=[family.name]), coordinated=coordinated, seed=2)
            assert outcome.forecasts[-1].conflict == outcome.merge.conflict


def test_what_a_seat_expects_of_the_merge_is_sealed_and_acts_are_not():
    env, seen = started(acts=True)
    assert "Expect merge" in seen["agent_0"] and "Propose" in seen["agent_0"]
    option = env.task.decisions[0].options[0]
    seen, *_ = env.step({"agent_0": f"Propose: {option}\nExpect merge: conflict (70%)", "agent_1": "Pass"})
    assert f"Partner: Propose: {option}\n" in seen["agent_1"] and "conflict (70%)" not in seen["agent_1"]
    env.step(dict.fromkeys(SEATS, "Submit"))
    env.step(dict.fromkeys(SEATS, f"Answer: {option} (90%)\nExpect merge: clean (80%)\nExpect: {option} (60%)"))
    acts = [[(act.kind, act.decision, act.option) for act in turn.acts] for turn in env.episode.turns_of("agent_0")]
    (decision,) = env.task.decisions
    assert acts[1] == [("propose", decision.id, option), ("expect", "merge", "conflict")]
    assert acts[3] == [("expect", decision.id, option), ("expect", "merge", "clean")]
    assert not [
        act for turn in play(PairedFeatures(), dict.fromkeys(SEATS, NeverDefer()), 3).turns for act in turn.acts
    ]


def test_who_wrote_what_is_on_the_record():
    env, _ = started(families=["append"])
    path, line = source_of(env)
    work = {seat: env.reference_work(seat, env.task.decisions[0].best) for seat in SEATS}
    draft = f"Insert {path} before: {line}\nimport os\nEnd"
    env.step({"agent_0": draft, "agent_1": work["agent_1"]})
    again = f"Replace {path}:\nimport os\n{line}\nWith:\n{line}\nEnd\n{work['agent_0']}\nSubmit"
    env.step({"agent_0": again, "agent_1": "Submit"})
    env.step(dict.fromkeys(SEATS, "Pass"))
    outcome, reference = env.episode.outcome, env.task.reference_tokens
    ledger = outcome.provenance
    assert outcome.success and sum(ledger.surviving.values()) == reference
    thrown_away = message_tokens("import os") + message_tokens(line)
    assert sum(ledger.authored.values()) == reference + thrown_away and ledger.duplicated == 0
    assert env.episode.turns_of("agent_0")[1].work == f"# {path}\nimport os"
    assert f"def {env.task.stubs['agent_0']}(" in env.episode.turns_of("agent_0")[2].work


def test_a_function_that_both_wrote_is_counted_as_written_twice():
    env, _ = started(families=["registry"])
    option = env.task.decisions[0].best
    mine = env.reference_work("agent_0", option)
    env.step({"agent_0": f"{mine}\nSubmit", "agent_1": f"{mine}\n{env.reference_work('agent_1', option)}\nSubmit"})
    env.step(dict.fromkeys(SEATS, "Pass"))
    assert env.episode.outcome.success and env.episode.outcome.provenance.duplicated > 0


@pytest.mark.parametrize("order", ["simultaneous", "alternating"])
def test_an_episode_survives_json_and_replays_to_an_equal_one(order):
    env = PairedFeatures(order=order, acts=True, forecast=True)
    for seed in range(4):
        episode = play(env, {"agent_0": Calibrated(), "agent_1": AlwaysDefer()}, seed)
        again = Episode.from_json(episode.to_json())
        assert again == episode and json.loads(episode.to_json())["task"]["files"]
        assert replay(PairedFeatures(order=order, acts=True, forecast=True), again) == episode


def test_partners_who_settle_the_contract_solve_the_task_and_others_do_not():
    env = PairedFeatures(cells={"both_right": 0, "both_wrong": 0}, cue_reliability=1.0)
    good = [play(env, dict.fromkeys(SEATS, Calibrated()), seed).outcome for seed in range(6)]
    bad = [play(env, dict.fromkeys(SEATS, Silent()), seed).outcome for seed in range(6)]
    assert all(outcome.success for outcome in good) and not any(outcome.success for outcome in bad)


def test_a_partner_with_one_turn_speaks_and_works_in_it():
    episode = play(PairedFeatures(rounds=1), dict.fromkeys(SEATS, NeverDefer()), seed=0)
    assert len(episode.turns) == 6 and all(turn.message and turn.work for turn in episode.turns[2:4])


def test_padding_goes_into_the_branch():
    lean, padded = (
        play(PairedFeatures(), {"agent_0": ZOO[who], "agent_1": ZOO["ideal"]}, 5) for who in ("ideal", "code padder")
    )
    tokens = [episode.outcome.provenance.authored["agent_0"] for episode in (lean, padded)]
    assert tokens[1] == tokens[0] + 60 and padded.outcome.utility == lean.outcome.utility


def test_the_scaffold_gives_the_work_with_a_gap():
    env, seen = started(families=["append"], contracts=["offset"], scaffold=True)
    for seat in SEATS:
        text = seen[seat].partition("Your work with a gap:\n")[2].rpartition("\n")[0]
        assert text.replace("___", "17") == env.reference_work(seat, "17")
        assert f"source: {env.task.decisions[0].belief[seat]}" in seen[seat]


def test_every_reward_term_scores_the_episode():
    stack = RewardStack(tuple(term() for term in TERMS))
    episode = play(PairedFeatures(acts=True), dict.fromkeys(SEATS, Calibrated()), seed=1)
    breakdown = stack.score(episode)
    assert all(len(breakdown.per_turn(seat)) == len(episode.turns_of(seat)) for seat in SEATS)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(replies=REPLIES.flatmap(lambda one: REPLIES.map(lambda two: (one, two))))
def test_any_text_reaches_the_end_and_gives_an_episode(replies):
    env = PairedFeatures(rounds=2, acts=True, forecast=True, families=["append"])
    env.reset(seed=3)
    path, line = source_of(env)
    named = [reply.replace("p/a.py", path).replace("import math", line) for reply in replies]
    while env.agents:
        seen, *_ = env.step(dict(zip(SEATS, named, strict=True)))
        assert all(env.observation_space(seat).contains(text) for seat, text in seen.items())
    assert env.episode.stop_reason is StopReason.FINISHED
    assert replay(env, env.episode) == env.episode


def test_a_flood_of_reading_stays_within_the_observation_space():
    env, _ = started(tokens=100_000)
    path, _ = source_of(env)
    seen, *_ = env.step({"agent_0": f"Read: {path}\n" * 3000, "agent_1": "x" * 60_000})
    assert env.observation_space("agent_0").contains(seen["agent_0"]) and len(seen["agent_0"]) < 10_000


@pytest.mark.parametrize(
    "arguments", [{"order": "alternating"}, {"acts": True, "forecast": True, "budget": 200}], ids=str
)
def test_every_way_to_play_passes_pettingzoos_tests(arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parallel_api_test(PairedFeatures(**arguments), num_cycles=20)
        parallel_seed_test(lambda: PairedFeatures(**arguments), num_cycles=20)


def test_it_can_be_pickled_at_any_moment():
    env, _ = started()
    for reply in ("Say: hello", "Submit", "Pass"):
        copy = pickle.loads(pickle.dumps(env))
        assert copy.step(dict.fromkeys(SEATS, reply))[0] == env.step(dict.fromkeys(SEATS, reply))[0]
    assert copy.episode == env.episode


def test_it_plays_as_an_aec_environment():
    env = parallel_to_aec(PairedFeatures(rounds=2))
    env.reset(seed=3)
    replies = []
    for _ in env.agent_iter():
        observation, _, terminated, truncated, info = env.last()
        if terminated or truncated:
            env.step(None)
            assert info["episode"].outcome.merge is not None
            continue
        replies.append(observation)
        env.step("Submit")
    assert len(replies) == 6 and "Work on your branch" in replies[2]


def test_render_shows_what_was_done_and_what_became_of_it():
    env = PairedFeatures(families=["append"], render_mode="ansi")
    build(env, coordinated=False, seed=3)
    text = env.render()
    assert "-- work\n  agent_0 does:\n    Insert " in text and "    Submit" in text
    assert "policy naive, merge conflicts in" in text and "failure, utility 0.00, 0 of 5 tests" in text


def test_the_branches_can_be_looked_at_with_git(tmp_path):
    env = PairedFeatures(families=["append"])
    outcome = build(env, seed=3)
    repository = env.export(tmp_path / "bare.git")
    (path,) = outcome.merge.base
    for seat in SEATS:
        assert repository.read(seat, path).decode() == outcome.merge.proposals[seat][path]
    assert repository.read("main", path).decode() == outcome.merge.base[path]


def test_a_machine_fault_is_a_stop_reason(monkeypatch):
    def broken(files, expressions, *, timeout_s):
        return Verdict((False,) * len(expressions), Status.FAULT, "no interpreter")

    monkeypatch.setattr(desk, "judge", broken)
    monkeypatch.setattr("envs.repository.scoring.judge", broken)
    env, _ = started(rounds=1)
    env.step(dict.fromkeys(SEATS, "Test"))
    env.step(dict.fromkeys(SEATS, "Pass"))
    assert env.episode.stop_reason is StopReason.SANDBOX_FAULT and "no interpreter" in env.episode.outcome.detail


def test_code_that_hangs_fails_its_tests_and_nothing_else(monkeypatch):
    env, _ = started(families=["registry"], test_timeout_s=0.5, rounds=2)
    option = env.task.decisions[0].best
    hang = f"{env.reference_work('agent_0', option)}".replace("\n\n\ndef", "\n\n\nwhile True: pass\ndef", 1)
    env.step({"agent_0": f"{hang}\nSubmit", "agent_1": f"{env.reference_work('agent_1', option)}\nSubmit"})
    env.step(dict.fromkeys(SEATS, "Pass"))
    outcome = env.episode.outcome
    assert outcome.utility == 0.0 and "timeout" in outcome.detail
    assert not any(outcome.parts["agent_0"].alone) and all(outcome.parts["agent_1"].alone)
    assert not any(outcome.parts["agent_1"].merged)


def test_code_that_ends_the_process_or_prints_cannot_pass():
    env, _ = started(families=["append"], rounds=1)
    path, line = source_of(env)
    forged = f"Insert {path} after: {line}\nimport os\nprint('passed')\nos._exit(0)\nEnd\nSubmit"
    env.step(dict.fromkeys(SEATS, forged))
    env.step(dict.fromkeys(SEATS, "Pass"))
    assert env.episode.outcome.utility == 0.0 and env.episode.outcome.tests_passed == 0


HOSTILE = {
    "equal to everything": "class E(int):\n    __eq__ = lambda s, o: True\ndef {name}(*x): return E()",
    "a test of its own": "import sys, types\nt = types.ModuleType('tests')\nt.__path__ = []\nsys.modules['tests'] = t",
    "a frame above": "import sys\nf = sys._getframe(1)\nwhile f:\n    f.f_globals['same'] = max\n    f = f.f_back",
    "a builtin": "import builtins\nbuiltins.same = lambda *x: True\nbuiltins.bool = lambda *x: True",
    "a written file": "open('tests/test_helpers.py', 'w').write('')",
}


@pytest.mark.parametrize("code", HOSTILE.values(), ids=HOSTILE)
def test_submitted_code_cannot_forge_its_verdict(code):
    env, _ = started(families=["append"], rounds=1)
    path, line = source_of(env)
    code = code.replace("{name}", env.task.stubs["agent_0"])
    env.step({"agent_0": f"Insert {path} after: {line}\n{code}\nEnd\nSubmit", "agent_1": "Submit"})
    env.step(dict.fromkeys(SEATS, "Pass"))
    assert env.episode.outcome.tests_passed == 0 and not any(env.episode.outcome.parts["agent_0"].alone)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rounds": 0}, "rounds is 0"),
        ({"tokens": 0}, "tokens is 0"),
        ({"order": "random"}, "order is 'random'; it must be one of simultaneous, alternating"),
        ({"policy": "octopus"}, "policy is 'octopus'; it must be one of naive, union, lead_fallback, identical"),
        ({"contracts": "offset"}, "must be a list"),
        ({"contracts": ["ofset"]}, "Did you mean 'offset'"),
        ({"families": ["apend"]}, "Did you mean 'append'"),
        ({"test_timeout_s": 0}, "test_timeout_s is 0"),
    ],
)
def test_a_bad_argument_is_named_with_its_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        PairedFeatures(**arguments)


def test_a_task_without_files_is_refused():
    with pytest.raises(ValueError, match="has no files"):
        PairedFeatures().reset(options={"task": PairedFunctions().make_task(0)})
