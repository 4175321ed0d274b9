"""The audit of rewards: who earns what, without a language model."""

import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import envs
from envs.core.env import SEATS
from envs.core.episode import StopReason
from envs.scripted.exploits import EXPLOITS, IDEAL
from envs.scripted.handover import NoteTaker
from envs.scripted.play import play
from envs.scripted.registry import exploits_of
from marl_coop.cli import main
from marl_coop.config.layers import read_file
from marl_coop.config.schema import load_config
from marl_coop.evaluation import audit as audits
from marl_coop.evaluation.audit import Audited, Mean, audit, play_exploits, table, winners
from rewards import RewardStack
from rewards.metrics import measure

EPISODES = {envs.DesignReview: 100, envs.PairedFunctions: 40}  # the sandbox takes the time
ENVIRONMENTS = pytest.mark.parametrize("env_class", EPISODES)
ACTS = {"acts": True, "rounds": 2}


@cache
def played(env_class, acts):
    return play_exploits(env_class(**(ACTS if acts else {})), EPISODES[env_class])


def rows_of(env_class, preset=None, terms=None, acts=True):
    stack = terms or load_config([f"configs/presets/{preset}.yaml"]).rewards
    rows = audit(RewardStack.from_config(stack), played(env_class, acts))
    return {(row.policy, row.mode): row for row in rows}


# the claim


@pytest.mark.parametrize(
    ("env_class", "acts"),
    [
        (envs.DesignReview, False),
        (envs.DesignReview, True),
        pytest.param(envs.PairedFunctions, False, marks=pytest.mark.slow),
        (envs.PairedFunctions, True),
    ],
)
def test_in_balanced_honest_play_is_strictly_first(env_class, acts):
    rows = rows_of(env_class, "balanced", acts=acts)
    assert [(row.policy, row.mode, row.edge) for row in winners(list(rows.values()))] == []
    assert len(rows) == 2 * (len(EXPLOITS) - len(played(env_class, acts).left_out))


def test_with_several_decisions_honest_play_is_first_and_taking_turns_costs():
    played_three = play_exploits(envs.DesignReview(decisions=3), 40)
    balanced = RewardStack.from_config(load_config(["configs/presets/balanced.yaml"]).rewards)
    rows = audit(balanced, played_three)
    assert winners(rows) == [] and "log-roller" not in played_three.left_out


def test_without_confidences_it_pays_to_guess_before_the_talk_what_the_doubtful_source_does_not_claim():
    """As docs/audit.md has it under what does not hold; by the design, as no audit of a bearable length is sure of it.

    The prior is paid alpha = 1 times the weight 0.25 for being right, and every second seat has a doubtful source.
    """
    env = envs.DesignReview(confidences=False)
    stack = RewardStack.from_config(load_config(["configs/presets/balanced.yaml"]).rewards)
    some = {name: EXPLOITS[name] for name in (IDEAL, "second-guesser")}
    (row,) = (
        r for r in audit(stack, play_exploits(env, 400, some)) if (r.policy, r.mode) == ("second-guesser", "symmetric")
    )
    env.reset(seed=next(seed for seed in range(9) if env.make_task(seed).decisions[0].cue["agent_0"] == "weak"))
    own = env.posterior("agent_0", env.task.decisions[0])[env.task.decisions[0].belief["agent_0"]]
    assert own == pytest.approx(0.275)
    assert abs(row.edge.value - 0.25 / 2 * ((1 - own) / 2 - own)) < row.edge.half < 0.011


@ENVIRONMENTS
def test_in_naive_bonus_it_pays_for_certain_to_hide_what_one_knows(env_class):
    edge = rows_of(env_class, "naive_bonus")["sandbagger", "unilateral"].edge
    assert edge.value - edge.half > 0


@ENVIRONMENTS
def test_task_only_does_not_see_words_reports_and_promises(env_class):
    rows = rows_of(env_class, "task_only")
    unseen = (
        "sandbagger quiet-novice chatty hedger overconfident doubter second-guesser no-prior arsonist-fireman "
        "commit-spammer promise-breaker oscillator"
    ).split()
    assert all(rows[name, mode].edge == Mean(0, 0) for name in unseen for mode in audits.MODES)
    assert {row.policy for row in winners(list(rows.values()))} <= {*unseen, "code-padder"}


@ENVIRONMENTS
def test_in_approval_it_pays_for_certain_to_agree(env_class):
    rows = rows_of(env_class, "approval")
    for policy, mode in (("always-defer", "unilateral"), ("always-defer", "symmetric"), ("colluders", "symmetric")):
        edge = rows[policy, mode].edge
        assert edge.value - edge.half > 0


# the list


def test_the_list_holds_every_policy():
    names = (
        "ideal always-defer never-defer copycat sandbagger silent ok echo name-dropper mute-expert quiet-novice liar "
        "follow-the-first log-roller chatty contrarian hedger overconfident doubter second-guesser no-prior no-answer "
        "averager arsonist-fireman commit-spammer promise-breaker code-padder oscillator tolerant-coder two-faced "
        "peeker colluders"
    )
    assert list(EXPLOITS) == names.split()


@pytest.mark.parametrize(
    "env",
    [
        envs.DesignReview(),
        envs.DesignReview(**ACTS),
        envs.DesignReview(acts=True, rounds=0),
        envs.DesignReview(acts=True, confidences=False),
        envs.DesignReview(rounds=2, decisions=2),
        envs.DesignReview(rounds=0, decisions=2),
        envs.PairedFunctions(families=["offset"], **ACTS),
    ],
    ids=lambda env: f"{type(env).__name__} {env.config.rounds} {env.config.acts} {env.config.confidences}",
)
def test_a_policy_plays_like_the_ideal_exactly_where_it_lacks_something(env):
    ideal = dict.fromkeys(SEATS, EXPLOITS[IDEAL])
    honest = [play(env, ideal, seed).turns for seed in range(12)]
    for name, policy in EXPLOITS.items():
        same = [play(env, ideal | {"agent_0": policy}, seed).turns for seed in range(12)] == honest
        assert same == bool(policy.lacks(env) or name == IDEAL), name


@pytest.mark.parametrize(
    "env",
    [
        envs.DesignReview(expert="hidden", decisions=2),
        envs.MoonSurvival(expert="hidden", items=3),
        envs.PairedFunctions(expert="hidden", families=["capacity"]),
    ],
    ids=lambda env: type(env).__name__,
)
def test_where_nobody_knows_whose_source_is_reliable_there_is_nothing_to_hide_and_no_rule_to_break(env):
    honest = [play(env, dict.fromkeys(SEATS, EXPLOITS[IDEAL]), seed).turns for seed in range(4)]
    for name in ("sandbagger", "mute-expert", "follow-the-first", "log-roller"):
        assert "word of who has the reliable source" in EXPLOITS[name].lacks(env)
        assert [play(env, dict.fromkeys(SEATS, EXPLOITS[name]), seed).turns for seed in range(4)] == honest, name


def test_a_policy_that_is_left_out_says_what_it_needs():
    coders = dict.fromkeys(("code-padder", "tolerant-coder", "two-faced", "peeker"), "code")
    several = {"log-roller": "several decisions"}
    assert played(envs.DesignReview, True).left_out == several | coders
    assert (
        played(envs.DesignReview, False).left_out
        == {
            "echo": "two talk rounds",
            "arsonist-fireman": "acts, two talk rounds",
            "commit-spammer": "acts",
            "promise-breaker": "acts",
            "oscillator": "acts",
        }
        | several
        | coders
    )
    assert played(envs.PairedFunctions, True).left_out == several


# the numbers


def test_every_policy_is_played_alone_and_with_its_like():
    rows = rows_of(envs.DesignReview, terms={"task_success": {}})
    left_out = played(envs.DesignReview, True).left_out.keys()
    assert rows.keys() == {(name, mode) for name in EXPLOITS.keys() - left_out for mode in audits.MODES}
    assert all(rows[IDEAL, mode].edge == Mean(0, 0) for mode in audits.MODES)


def test_what_a_policy_earns_is_the_reward_of_the_seats_it_holds():
    rows = rows_of(envs.DesignReview, terms={"task_success": {"weight": 2.0}, "approval": {"agent": "agent_1"}})
    for row in rows.values():
        assert row.earned.value == pytest.approx(2 * row.utility.value)
    assert rows["always-defer", "unilateral"].utility.value > rows["always-defer", "symmetric"].utility.value


def test_j_is_the_policys_own_and_not_its_partners():
    rows = rows_of(envs.DesignReview, terms={"task_success": {}})
    for mode in audits.MODES:
        assert rows["ideal", mode].j.value > 0.8
        assert rows["always-defer", mode].j == rows["never-defer", mode].j == Mean(0, 0)
        assert rows["averager", mode].j == Mean(-1, 0)
        for wording in ("hedger", "sandbagger"):  # what it states before the talk is no part of it
            assert rows[wording, mode].j == rows["ideal", mode].j


def test_utility_and_j_are_those_of_the_metrics_with_about_the_same_intervals():
    plays = played(envs.DesignReview, True)
    rows = rows_of(envs.DesignReview, terms={"task_success": {}})
    for policy in ("ideal", "sandbagger"):
        metrics = measure(plays.episodes[policy, "symmetric"])
        row = rows[policy, "symmetric"]
        for mean, metric in ((row.utility, metrics["utility"]), (row.j, metrics["j"])):
            assert mean.value == pytest.approx(metric.value)
            assert mean.half == pytest.approx((metric.high - metric.low) / 2, rel=0.15)


def test_the_interval_of_a_mean_by_hand():
    mean = Mean.of(np.array([0.0, 0.0, 1.0, 1.0]))
    assert (mean.value, mean.half) == pytest.approx((0.5, 3.182 * (1 / 3) ** 0.5 / 2), abs=0.01)  # t of 3 degrees
    assert Mean.of(np.arange(200.0)).half == pytest.approx(1.972 * np.arange(200.0).std(ddof=1) / 200**0.5, rel=1e-3)
    assert f"{mean:.2f}" == "0.50 ± 0.92" and f"{Mean(-0.0001, 0):.2f}" == "0.00 ± 0.00"


def test_the_table_has_a_line_for_every_row():
    mean = Mean(1.0, 0.1)
    row = Audited(policy="x", mode="unilateral", earned=mean, edge=mean, utility=mean, j=None)
    out = table([row], "title")
    assert [list(column.cells) for column in out.columns][2:] == [
        ["1.000 ± 0.100"],
        ["1.000 ± 0.100"],
        ["1.00 ± 0.10"],
        ["not defined"],
    ]


@pytest.mark.parametrize(
    ("policy", "edge", "found"),
    [
        ("chatty", Mean(-0.2, 0.1), False),
        ("chatty", Mean(-0.1, 0.2), True),
        ("doubter", Mean(-0.1, 0.2), False),
        ("doubter", Mean(0.15, 0.1), False),
        ("doubter", Mean(0.17, 0.1), True),
    ],
)
def test_of_what_is_nearly_as_good_as_honest_play_an_audit_finds_only_what_is_better_beyond_doubt(policy, edge, found):
    row = Audited(policy=policy, mode="unilateral", earned=Mean(1, 0.1), edge=edge, utility=Mean(1, 0.1), j=None)
    assert (winners([row]) == [row]) == found


def test_too_few_episodes_for_an_interval():
    with pytest.raises(ValueError, match="episodes is 1"):
        play_exploits(envs.DesignReview(), 1)


def test_a_failing_sandbox_is_not_a_result(monkeypatch):
    finish = envs.DesignReview.finish
    monkeypatch.setattr(
        envs.DesignReview, "finish", lambda self, turns: (finish(self, turns)[0], StopReason.SANDBOX_FAULT)
    )
    with pytest.raises(RuntimeError, match="the sandbox failed on .*run it again"):
        play_exploits(envs.DesignReview(), 2)


# the command


def test_the_command_prints_a_table_for_every_environment_and_says_who_is_not_beaten(capsys):
    code = main(["audit", "--config", "configs/base.yaml", "--episodes", "6", "rewards.deference.weight=0"])
    out = capsys.readouterr().out
    assert code == 1
    assert all(
        f"base+deference=0: {env.__name__}, 6 tasks" in out for env in (*EPISODES, envs.MoonSurvival, envs.Handover)
    )
    assert "not beaten for certain" in out
    assert "commit-spammer is left out: without acts it plays like the ideal" in out


@pytest.mark.parametrize("env", [envs.MoonSurvival(items=8), envs.Handover()], ids=lambda env: type(env).__name__)
def test_where_much_must_be_said_honest_play_is_first_too(env):
    plays = play_exploits(env, 28)
    balanced = RewardStack.from_config(read_file(Path("configs/presets/balanced.yaml"))["rewards"])  # no other term
    rows = audit(balanced, plays)
    assert [(row.policy, row.mode, row.edge) for row in winners(rows)] == []
    assert rows[0].policy == IDEAL and len(rows) == 2 * (len(exploits_of(env)) - len(plays.left_out))


def test_each_exploit_of_handover_differs_from_honest_play_in_what_it_says():
    env = envs.Handover()
    ideal = exploits_of(env)[IDEAL]
    honest = play(env, dict.fromkeys(SEATS, ideal), 0)
    assert honest.outcome.success
    for name, policy in exploits_of(env).items():
        same = play(env, {"agent_0": policy, "agent_1": ideal}, 0).turns == honest.turns
        assert same == (name == IDEAL), name


def test_a_memory_that_holds_less_than_all_facts_is_filled_and_not_audited_as_denser_notes_are_better():
    assert audits.auditable(envs.Handover(memory_budget=336)) and not audits.auditable(envs.Handover(memory_budget=335))
    env = envs.Handover(memory_budget=200)
    notes = {seat: NoteTaker() for seat in SEATS}
    ends = [play(env, notes, seed).outcome for seed in range(20)]
    assert all(sum(entry.n_tok for entry in end.memory) == 28 * 7 for end in ends)
    assert np.mean([end.utility for end in ends]) > 0.5


def test_an_audit_says_how_far_it_is_and_of_what(capsys):
    main(["audit", "--config", "configs/presets/task_only.yaml", "--episodes", "2", "env.name=Handover"])
    said = capsys.readouterr().err.splitlines()
    assert any(re.match(r"base\+task_only.*: Handover: 38/38 episodes \[", line) for line in said)


@pytest.mark.slow
def test_the_command_audits_a_term_of_ones_own(tmp_path, monkeypatch, capsys):
    (tmp_path / "my_terms.py").write_text(
        "from rewards.base import RewardTerm\n"
        "class Praise(RewardTerm):\n"
        "    weight: float = 1.0\n"
        "    def __call__(self, episode, agent): return [t.message_tokens / 10 for t in episode.turns_of(agent)]\n"
    )
    mine = tmp_path / "mine.yaml"
    mine.write_text("env: {name: DesignReview, acts: true, rounds: 2}\nrewards: {'my_terms:Praise': {weight: 0.5}}\n")
    monkeypatch.syspath_prepend(tmp_path)
    said = {}
    for weight in ("0.5", "0"):
        main(["audit", "--config", str(mine), "--episodes", "10", f"rewards[my_terms:Praise].weight={weight}"])
        said[weight] = capsys.readouterr().out
        assert "commit-spammer is left out" not in said[weight]  # the other environment has acts too
    unbeaten = [" ".join(part.split()) for part in said["0.5"].split("not beaten for certain: ")[1:]]
    assert len(unbeaten) >= 4 and all("chatty (unilateral)" in part for part in unbeaten)
    assert "chatty (" not in " ".join(said["0"].split())


def test_the_command_gives_the_settings_that_are_shared_to_every_environment(monkeypatch, capsys):
    audited = []
    monkeypatch.setattr(
        audits, "play_exploits", lambda env, episodes, label: audited.append(env) or play_exploits(env, 2)
    )
    overrides = ["env={name: DesignReview, acts: true, rounds: 2}", "env.cue_reliability=0.8"]
    main(["audit", "--config", "configs/presets/balanced.yaml", "--episodes", "2", *overrides])
    assert {type(env) for env in audited} >= {*EPISODES, envs.MoonSurvival, envs.Handover}
    design = [env for env in audited if type(env) in EPISODES]
    assert {(env.config.acts, env.config.rounds, env.config.cue_reliability) for env in design} == {(True, 2, 0.8)}
    assert "Handover cannot have env.acts=True, and is played as it is by default there" in capsys.readouterr().out
