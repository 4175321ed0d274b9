"""The environment itself: PettingZoo's contract, what seats see, errors as values, the record at the end."""

import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import envs
from envs import ENVIRONMENTS, make, sandbox
from envs.core.env import SEATS
from envs.core.episode import Episode, ParseError, Phase, StopReason
from envs.core.spaces import UnicodeText
from envs.design_review import DesignReview
from envs.paired_functions import PairedFunctions
from envs.scripted.demonstrator import Demonstrator
from envs.scripted.exploits import NeverDefer
from envs.scripted.play import play

EVERY = pytest.mark.parametrize("env_class", ENVIRONMENTS)
BOTH = pytest.mark.parametrize("env_class", [DesignReview, PairedFunctions])  # stance, talk, final


def both(reply: str) -> dict[str, str]:
    return dict.fromkeys(SEATS, reply)


@BOTH
@pytest.mark.parametrize("rounds", [0, 1, 3])
def test_phases_are_stance_then_the_rounds_of_talk_then_final(env_class, rounds):
    env = env_class(rounds=rounds)
    _, infos = env.reset(seed=0)
    phases = [infos["agent_0"]["phase"]]
    while env.agents:
        assert infos["agent_1"]["phase"] is env.phase
        _, rewards, terminations, truncations, infos = env.step(both("PASS"))
        assert all(terminations.values()) == (env.phase is None) and not any(truncations.values())
        phases.append(infos["agent_0"]["phase"])
    assert phases == [Phase.STANCE, *[Phase.TALK] * rounds, Phase.FINAL, None]


@BOTH
def test_observations_are_only_what_is_new_to_the_seat(env_class):
    env = env_class(rounds=2)
    seen, _ = env.reset(seed=1)
    assert seen["agent_0"].startswith(env.task.briefs["agent_0"])
    seen, *_ = env.step(both("PASS"))
    assert seen["agent_0"] == "Write your partner one short message, or PASS."
    seen, *_ = env.step({"agent_0": "first from\nzero", "agent_1": "first from one"})
    assert seen["agent_0"] == "Partner: first from one\nWrite your partner one short message, or PASS."
    seen, *_ = env.step({"agent_0": "second from zero", "agent_1": "PASS"})
    assert seen["agent_0"].startswith("Partner said nothing.\nAnswer again")
    assert seen["agent_1"].startswith("Partner: second from zero\nAnswer again") and "first" not in seen["agent_1"]
    seen, *_ = env.step(both("x"))
    assert seen == {"agent_0": "", "agent_1": ""}


@BOTH
def test_sealed_stances_never_reach_the_partner(env_class):
    env = env_class(rounds=2)
    for seed in range(20):
        observations, _ = env.reset(seed=seed)
        names = {seat: [d.options[i] for d in env.task.decisions] for i, seat in enumerate(SEATS)}
        while env.agents:
            replies = both("hello there")
            if env.phase is not Phase.TALK:
                replies = {
                    seat: f"Answer: {names[seat][0]} (7{i}%)\nsecret_code_{i} = 1" for i, seat in enumerate(SEATS)
                }
            observations, *_ = env.step(replies)
            for i, seat in enumerate(SEATS):
                assert f"7{1 - i}%" not in observations[seat] and f"secret_code_{1 - i}" not in observations[seat]
                assert env.task.briefs[SEATS[1 - i]] not in observations[seat]
        assert all(turn.message == "" for turn in env.episode.turns if turn.phase is not Phase.TALK)
        assert env.episode.prior("agent_1", env.task.decisions[0].id).confidence == 0.71


def test_utility_is_paid_to_both_seats_at_the_end_and_nothing_before():
    env = PairedFunctions()
    for seed in (0, 1):  # both right; one right
        rewards, partner = [], NeverDefer()
        env.reset(seed=seed)
        while env.agents:
            _, reward, *_ = env.step({seat: partner.reply(env, seat) for seat in SEATS})
            rewards.append(reward)
        assert rewards[:-1] == [{"agent_0": 0.0, "agent_1": 0.0}] * 2
        assert rewards[-1] == dict.fromkeys(SEATS, env.episode.outcome.utility)
        assert env.episode.outcome.utility == (1.0 if all(env.task.cell.values()) else 0.4)


def test_a_seat_that_writes_both_functions_still_answers_for_its_own_only():
    env = PairedFunctions(families=["offset"], cells={"both_right": 0, "both_wrong": 0})
    env.reset(seed=2)
    decision = env.task.decisions[0]
    right = next(seat for seat in SEATS if env.task.cell[seat])
    wrong = env.task.seats[1 - SEATS.index(right)]
    everything = "\n".join(env.reference_work(seat, decision.best) for seat in SEATS)
    env.step(both("PASS"))
    env.step(both("PASS"))
    env.step(
        {
            right: f"Answer: {decision.best} (90%)\n{everything}",
            wrong: f"Answer: {decision.belief[wrong]} (90%)\n{env.reference_work(wrong, decision.belief[wrong])}",
        }
    )
    outcome = env.episode.outcome
    assert outcome.committed == {right: {"offset": decision.best}, wrong: {"offset": decision.belief[wrong]}}
    assert (outcome.tests_passed, outcome.tests_total, outcome.success) == (2, 5, False)


def test_code_counts_and_not_the_stance_that_came_with_it():
    env = PairedFunctions(families=["key"])
    env.reset(seed=4)
    decision = env.task.decisions[0]
    env.step(both("PASS"))
    env.step(both("PASS"))
    said = next(option for option in decision.options if option != decision.best)
    env.step({s: f"Answer: {said} (90%)\n{env.reference_work(s, decision.best)}" for s in SEATS})
    assert env.episode.outcome.success and env.episode.committed("agent_0", "key") == decision.best
    assert env.episode.final("agent_0", "key").option == said


def test_code_that_realises_no_option_commits_to_none():
    env = PairedFunctions(families=["offset"])
    env.reset(seed=0)
    for _ in range(2):
        env.step(both("PASS"))
    option = env.task.decisions[0].options[0]
    everything = "class E(int):\n  __eq__ = lambda s, o: True\n  __hash__ = None\n{} = lambda n: E(n)"
    env.step({s: f"Answer: {option} (9%)\n{everything.format(env.task.stubs[s])}" for s in SEATS})
    assert env.episode.outcome.committed == {s: {"offset": None} for s in SEATS}
    assert env.episode.outcome.tests_passed == 0


def test_code_that_satisfies_several_probes_commits_to_none():
    env = PairedFunctions(families=["offset"])
    task = env.make_task(0)
    everything = {s: {"offset": dict.fromkeys(task.decisions[0].options, "True")} for s in SEATS}
    env.reset(options={"task": replace(task, probes=everything)})
    while env.agents:
        env.step({seat: NeverDefer().reply(env, seat) for seat in SEATS})
    assert env.episode.outcome.committed == {s: {"offset": None} for s in SEATS}


def test_a_review_pays_the_weighted_share_of_decisions_that_both_answer_right():
    env = DesignReview(decisions=2)
    env.reset(seed=0)
    first, second = env.task.decisions
    other = next(option for option in second.options if option != second.best)
    for _ in range(2):
        env.step(both("PASS"))
    _, rewards, *_ = env.step(
        {
            "agent_0": f"Answer {first.id}: {first.best} (90%)\nAnswer {second.id}: {second.best} (90%)",
            "agent_1": f"Answer {first.id}: {first.best} (90%)\nAnswer {second.id}: {other} (90%)",
        }
    )
    assert rewards == {"agent_0": 0.5, "agent_1": 0.5} and not env.episode.outcome.success
    assert env.episode.outcome.committed["agent_1"] == {first.id: first.best, second.id: other}


def test_a_machine_fault_is_a_stop_reason_and_no_score(monkeypatch):
    sandbox.reset()
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    episode = play(PairedFunctions(), {seat: NeverDefer() for seat in SEATS}, seed=0)
    assert episode.stop_reason is StopReason.SANDBOX_FAULT
    assert (episode.outcome.utility, episode.outcome.success) == (0.0, False) and "fault" in episode.outcome.detail


@BOTH
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(replies=st.lists(st.text(max_size=80), min_size=6, max_size=6))
def test_any_text_reaches_the_end_and_gives_an_episode(env_class, replies):
    env = env_class()
    _, infos = env.reset(seed=0)
    for i in range(3):
        *_, infos = env.step({"agent_0": replies[2 * i], "agent_1": replies[2 * i + 1]})
    assert infos["agent_0"]["episode"] is env.episode and len(env.episode.turns) == 6
    assert Episode.from_json(env.episode.to_json()) == env.episode


@BOTH
def test_a_parse_error_is_a_value_in_the_info_and_in_the_turn(env_class):
    env = env_class()
    env.reset(seed=0)
    *_, infos = env.step({"agent_0": "", "agent_1": "Answer: nothing of the kind (80%)"})
    assert infos["agent_0"]["parse_error"] is ParseError.EMPTY
    assert infos["agent_1"]["parse_error"] is ParseError.UNKNOWN_OPTION
    env.step(both("hi"))
    env.step(both("hi"))
    errors = [turn.parse_error for turn in env.episode.turns_of("agent_1")]
    assert errors == [ParseError.UNKNOWN_OPTION, None, ParseError.NO_ANSWER]


@pytest.mark.parametrize("env", [PairedFunctions(rounds=2), DesignReview(decisions=3)], ids=str)
def test_an_episode_survives_json(env):
    demonstrator = Demonstrator(np.random.default_rng(0))
    for seed in range(10):
        episode = play(env, {seat: demonstrator for seat in SEATS}, seed)
        assert Episode.from_json(episode.to_json()) == episode


def test_a_task_can_be_handed_over_and_played_again():
    env = PairedFunctions(families=["offset"])
    task = env.make_task(77)
    env.reset(options={"task": task})
    assert env.task == task
    with pytest.raises(ValueError, match="is a str"):
        env.reset(options={"task": "offset-77"})


@EVERY
def test_state_is_the_joint_view_without_the_answer(env_class):
    env = env_class()
    env.reset(seed=3)
    env.step({"agent_0": "alpha reply", "agent_1": "beta reply"})
    state = env.state()
    assert all(part in state for part in (*env.task.briefs.values(), "alpha reply", "beta reply"))
    assert "right" not in state


def test_render_shows_who_is_right_the_cue_each_turn_the_commitment_and_the_outcome(capsys):
    env = PairedFunctions(render_mode="ansi", families=["offset"], cells={"both_right": 0, "both_wrong": 0})
    episode = play(env, {seat: NeverDefer() for seat in SEATS}, seed=1)
    text, decision = env.render(), episode.task.decisions[0]
    for seat in SEATS:
        verdict = "right" if episode.task.cell[seat] else "wrong"
        belief = decision.belief[seat]
        assert f"{seat} is told {belief} ({verdict}) by a {decision.cue[seat]} source" in text
        sure = episode.prior(seat, decision.id).confidence
        assert f"{seat} says: {belief}" in text and f"{seat} holds {belief} ({sure:.0%})" in text
        assert f"{seat} committed to offset = {belief} ({verdict})" in text
    assert "failure, utility 0.40, 2 of 5 tests" in text and "def encode(n)" in text
    assert re.search(rf"right is {decision.best}$", text, re.MULTILINE)
    env.render_mode = "human"
    assert env.render() is None and capsys.readouterr().out.strip() == text


@EVERY
def test_what_is_asked_too_early_says_what_to_do(env_class):
    env = env_class()
    with pytest.raises(RuntimeError, match=r"reset\(\)"):
        env.step(both("x"))
    with pytest.raises(RuntimeError, match=r"reset\(\)"):
        _ = env.task
    env.reset(seed=0)
    with pytest.raises(RuntimeError, match="not finished"):
        _ = env.episode
    with pytest.raises(RuntimeError, match="render_mode"):
        env.render()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rounds": -1}, "rounds is -1"),
        ({"cue_reliability": 1.5}, "cue_reliability is 1.5"),
        ({"families": ["ofset"]}, "Did you mean 'offset'"),
        ({"families": "offset"}, "must be a list"),
        ({"families": []}, "at least one name"),
        ({"render_mode": "rgb_array"}, "render_mode is 'rgb_array'"),
        ({"test_timeout_s": 0}, "test_timeout_s is 0"),
    ],
)
def test_a_bad_argument_is_named_with_its_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        PairedFunctions(**arguments)


def test_a_review_has_no_more_decisions_than_families():
    with pytest.raises(ValueError, match="decisions is 2; it must be at most 1"):
        DesignReview(families=["pagination"], decisions=2)


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        ({"agent_0": "x"}, "exactly one for each"),
        ({"agent_0": "x", "agent_1": 3}, "agent_1 is a int"),
        ({"agent_0": "x", "agent_1": "y" * 70_000}, "agent_1 is 70000 characters"),
    ],
)
def test_an_action_outside_the_action_space_is_refused(actions, message):
    env = DesignReview()
    env.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        env.step(actions)


def test_make_knows_every_environment_and_dotted_paths():
    assert isinstance(make("DesignReview", decisions=2), DesignReview)
    assert isinstance(make("envs.paired_functions:PairedFunctions"), PairedFunctions)
    with pytest.raises(ValueError, match="Did you mean 'PairedFunctions'"):
        make("paired_function")
    with pytest.raises(ValueError, match="No module named 'my_lab'"):
        make("my_lab.envs:Refactoring")


def test_the_text_space_takes_any_unicode_up_to_its_length():
    space = UnicodeText(5, seed=0)
    assert "é🙂\n" in space and "" in space and "123456" not in space and 3 not in space
    assert space == UnicodeText(5) and space != UnicodeText(6) and repr(space) == "UnicodeText(5)"
    again = UnicodeText(5, seed=0)
    samples = [space.sample() for _ in range(50)]
    assert samples == [again.sample() for _ in range(50)] and all(s in space for s in samples)


def test_importing_the_environments_does_not_load_torch():
    code = "import sys, envs, envs.scripted.play; print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    root = envs.__path__[0].removesuffix("envs")
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert result.stdout.strip() == "[]"


def test_a_subclass_that_speaks_as_before_is_told_the_new_name():
    for old, new in (
        ("odds", "it is Old.posterior"),
        ("settle", "it is Old.resolve"),
        ("OPTION", "say it in Old.NOUNS"),
    ):
        with pytest.raises(TypeError, match=f"Old.{old} has no effect: {new}"):
            type("Old", (envs.PairedFunctions,), {old: None})
