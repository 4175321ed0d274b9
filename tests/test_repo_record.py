"""What becomes of play on a repository: the record, partners, PettingZoo's contract, code that hangs or cheats."""

import json
import pickle
import warnings

import pytest
from hypothesis import HealthCheck, given, settings
from pettingzoo.test import parallel_api_test, parallel_seed_test
from pettingzoo.utils import parallel_to_aec
from test_repo import source_of, started
from test_repo_actions import REPLIES
from test_repo_tasks import build

from envs.core.env import SEATS
from envs.core.episode import Episode, StopReason
from envs.core.tokens import message_tokens
from envs.paired_features.env import PairedFeatures
from envs.repository import workspace
from envs.repository.tree_tests import TreeVerdict
from envs.sandbox import Status
from envs.scripted.base import Calibrated
from envs.scripted.exploits import EXPLOITS, AlwaysDefer, NeverDefer, Silent
from envs.scripted.play import play, replay
from rewards import TERMS, RewardStack


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


def test_padding_goes_into_the_branch_and_does_not_survive():
    for other in ("ideal", "code-padder"):
        lean, padded = (
            play(PairedFeatures(), {"agent_0": EXPLOITS[who], "agent_1": EXPLOITS[partner]}, 5)
            for who, partner in (("ideal", "ideal"), ("code-padder", other))
        )
        ledgers = [episode.outcome.provenance for episode in (lean, padded)]
        assert ledgers[1].authored["agent_0"] == ledgers[0].authored["agent_0"] + 20 * message_tokens("_unused_0 = 0")
        assert ledgers[1].surviving == ledgers[0].surviving
        assert padded.outcome.utility == lean.outcome.utility == 1


@pytest.mark.parametrize("scaffold", [True, "named", "gap"])
def test_the_scaffold_gives_the_work_with_a_gap_and_repeats_the_source_as_far_as_it_is_to(scaffold):
    env, seen = started(families=["append"], contracts=["offset"], scaffold=scaffold)
    (decision,) = env.task.decisions
    for seat in SEATS:
        text = seen[seat].partition("Your work with a gap:\n")[2].rpartition("\n")[0]
        assert text.replace("___", "17") == env.reference_work(seat, "17")
        own = decision.belief[seat]
        recalled = {True: f"Your {decision.quality(seat)} source: {own}", "named": f", {decision.source[seat]}: {own}"}
        assert [repeated in seen[seat] for repeated in recalled.values()] == [scaffold == kind for kind in recalled]


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


def test_a_record_under_another_merge_policy_is_not_replayed_in_silence():
    env = PairedFeatures(families=["append"], policy="union")
    env.reset(seed=3)
    while env.agents:
        env.step({seat: env.reference_work(seat, env.task.decisions[0].best, coordinated=False) for seat in env.acting})
    assert env.episode.outcome.success
    with pytest.raises(ValueError, match="has utility 1.0 and not 0.0. Use an environment with the same arguments"):
        replay(PairedFeatures(families=["append"]), env.episode)


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
    with pytest.raises(ValueError, match="bare.git is there already and not empty; give a new folder"):
        env.export(tmp_path / "bare.git")


def test_a_machine_fault_is_a_stop_reason(monkeypatch):
    def broken(files, expressions, parts=(), *, timeout_s):
        return TreeVerdict((False,) * len(expressions), Status.FAULT, "no interpreter")

    monkeypatch.setattr(workspace, "judge", broken)
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
