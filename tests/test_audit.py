"""The audit of rewards: who earns what, without a language model."""

import pytest

import envs
from envs.zoo import IDEAL, ZOO
from marl_coop.audit import Audited, audit, table, winners
from marl_coop.cli import main
from rewards import RewardStack


def rows_of(stack, episodes=120, make_env=envs.DesignReview, zoo=ZOO):
    rows = audit(RewardStack.from_config(stack), make_env, episodes, zoo)
    return {(row.policy, row.mode): row for row in rows}


def test_every_policy_is_played_alone_and_with_its_like():
    rows = rows_of({"task_success": {}}, episodes=4)
    assert rows.keys() == {(name, mode) for name in ZOO for mode in ("unilateral", "symmetric")}
    ideal = rows[IDEAL, "unilateral"]
    assert (ideal.edge, ideal.edge_low, ideal.edge_high) == (0, 0, 0)


def test_what_a_policy_earns_is_the_reward_of_the_seats_it_holds():
    rows = rows_of({"task_success": {"weight": 2.0}}, episodes=50)
    for row in rows.values():
        assert row.earned == pytest.approx(2 * row.utility)


def test_a_policy_that_plays_like_the_ideal_one_is_not_beaten():
    rows = rows_of({"task_success": {}}, episodes=20)
    assert rows["overconfident", "unilateral"] in winners(list(rows.values()))
    assert rows["never defers", "unilateral"] not in winners(list(rows.values()))


def test_the_table_has_a_line_for_every_row():
    row = Audited(
        policy="x", mode="unilateral", earned=1.0, edge=0.1, edge_low=-0.1, edge_high=0.3, utility=0.5, j=None
    )
    out = table([row], "title")
    assert out.row_count == 1 and [list(c.cells)[0] for c in out.columns][-1] == "not defined"


def test_too_few_episodes_for_an_interval():
    with pytest.raises(ValueError, match="episodes is 1"):
        audit(RewardStack.from_config({"task_success": {}}), envs.DesignReview, 1)


def test_the_command_prints_a_table_for_every_environment_and_says_who_is_not_beaten(capsys):
    code = main(["audit", "--config", "configs/base.yaml", "--episodes", "6", "rewards.deference.weight=0"])
    out = capsys.readouterr().out
    assert code == 1
    assert "PairedFunctions" in out and "DesignReview" in out and "not beaten for certain" in out
