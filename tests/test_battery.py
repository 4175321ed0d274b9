"""A battery on scripted partners: what is refused, and what each condition does. No torch in here."""

import json
from dataclasses import replace

import pytest
from batteries import CONFIG, IDEAL, MIXED, ROOT, battery, planned, played
from test_metrics import ends

from envs.core.seeds import Stream, task_seed
from envs.core.tokens import message_tokens
from marl_coop import cli
from marl_coop.config.battery import Battery
from marl_coop.config.layers import read_as
from marl_coop.config.schema import load_config
from marl_coop.evaluation.comparison import BESIDE_PARTNERS
from marl_coop.evaluation.matches import Match, play_matches
from marl_coop.evaluation.seating import Seating
from marl_coop.experiment import plan as plans
from marl_coop.experiment.plan import make_plan
from marl_coop.experiment.teams import find_team
from rewards.metrics import measure

FILES = sorted((ROOT / "configs/batteries").glob("*.yaml"))


# --------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("conditions:\n  - {name: a}\n  - {nmae: b}", "conditions.1.nmae: unknown key; did you mean 'name'?"),
        ("condition:\n  - {name: a}", "condition: unknown key; did you mean 'conditions'?"),
        ("conditions: []", "conditions: [] is refused"),
        (f"seed: {2**70}\nconditions:\n  - {{name: a}}", "seed: 1180591620717411303424 is refused"),
        ("conditions:\n  - {name: a, against: a}", "conditions.0.against: 'a' is the condition itself"),
        ("floor: scripted:nobdy\nconditions:\n  - {name: a}", "floor: There is no scripted partner"),
        ("conditions:\n  - {name: a, team: ''}", "conditions.0.team: '' is refused"),
        ("conditions:\n  - {name: a}\n  - {name: a}", "conditions.1.name: 'a' is the name of another condition"),
        ("conditions:\n  - {name: a, against: b}", "conditions.0.against: there is no condition 'b'"),
        ("conditions:\n  - {name: a, partner: base, swapped: true}", "conditions.0: swapped has no effect beside"),
        (
            "conditions:\n  - {name: a, env: {rouns: 0}}",
            "conditions.0.env.rouns: no environment has this argument; did",
        ),
        ("conditions:\n  - {name: a, env: {sources: wyde}}", "conditions.0.env.sources: 'wyde' is refused"),
        ("conditions:\n  - {name: a, env: {agents: 9}}", "conditions.0.env.agents: 9 is refused"),
        (
            "conditions:\n  - {name: a, partner: 'scripted:persuadr'}",
            "conditions.0.partner: There is no scripted partn",
        ),
    ],
)
def test_a_slip_in_a_battery_is_one_line_that_names_the_place(tmp_path, capsys, text, said):
    file = tmp_path / "slip.yaml"
    file.write_text(text)
    assert cli.main(["eval", "scripted:ideal", "--battery", str(file), "--config", str(CONFIG)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {file}: {said}")


@pytest.mark.parametrize(
    ("who", "said"),
    [
        ("runs/none", "'runs/none' is neither a run's folder nor one of its checkpoints, nor base, warm"),
        ("frozen:nowhere", "'frozen:nowhere' cannot be evaluated: 'frozen:nowhere': 'nowhere' is not the folder of a"),
        ("scripted:idael", "'scripted:idael' cannot be evaluated: There is no scripted partner 'idael'. Did you mean"),
        ("https://host/v1", "'https://host/v1' cannot be evaluated: 'https://host/v1' must end with # and the name"),
    ],
)
def test_who_is_nobody_is_one_line(capsys, who, said):
    assert cli.main(["eval", who, "--quick", "--config", str(CONFIG)]) == 2
    assert capsys.readouterr().err.startswith(f"error: {said}")


def test_without_a_run_or_a_configuration_nobody_knows_what_to_play(capsys):
    assert cli.main(["eval", "scripted:ideal", "--quick"]) == 2
    assert "give their environment by --config FILE" in capsys.readouterr().err


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
@pytest.mark.parametrize("config", ["quickstart", "examples/design_review", "examples/paired_features"])
def test_every_battery_is_planned_for_every_kind_of_environment_and_leaves_nothing_out_unsaid(file, config):
    found = read_as(file, Battery)
    plan = make_plan(found, [IDEAL], load_config([ROOT / f"configs/{config}.yaml"]), str(file))
    told = {match.condition.partition(":")[0] for match in plan.matches} | {one.condition for one in plan.unplayed}
    assert {setting.name for setting in found.conditions} == told
    assert all(one.reason for one in plan.unplayed)
    assert ("scripted:ideal", "unseen") in {(match.who, match.condition) for match in plan.matches}


@pytest.mark.parametrize(
    ("battery", "common"),
    [
        ("evidence/battery", ["studies/evidence/common"]),
        ("numeric/battery", []),
        ("numeric/questions", []),
        ("teams/battery", ["studies/teams/run"]),
    ],
)
def test_the_batteries_of_the_evidence_can_be_played_whole_by_two_of_their_runs(battery, common):
    file = ROOT / f"configs/studies/{battery}.yaml"
    study = [ROOT / f"configs/{name}.yaml" for name in ("quickstart", "presets/balanced", *common)]
    teams = [find_team("base"), find_team("scripted:oracle")]  # of two, each has the other to play with
    plan = make_plan(read_as(file, Battery), teams, load_config(study), str(file))
    assert not plan.unplayed


def test_what_an_environment_cannot_play_is_told_with_the_reason(tmp_path):
    conditions = [
        {"name": "crowd", "env": {"name": "PairedFunctions", "agents": 3}},
        {"name": "held_out", "env": {"families": "held_out"}},
        {"name": "merge", "env": {"policy": "union"}},
        {"name": "best", "best_of": 2},
        {"name": "alone", "env": {"agents": 1}, "partner": "scripted:silent"},
    ]
    _, results = played(tmp_path, {"name": "unseen"}, *conditions)
    reasons = {one.condition: one.reason for one in results.unplayed}
    assert reasons.keys() == {"crowd", "held_out", "merge", "best", "alone"}
    assert "env.agents: 3 is refused" in reasons["crowd"]
    assert "held_out" in reasons["held_out"]
    assert reasons["merge"] == "DesignReview: it has no 'policy'"
    assert reasons["best"].startswith("DesignReview has no tests that the seats can run")
    assert reasons["alone"].startswith("one seat alone has no partner")
    assert json.loads((tmp_path / "results.json").read_text())["unplayed"][0]["reason"]


def test_a_budget_that_would_cut_ideal_play_is_refused_with_the_least_that_is_enough(tmp_path):
    config = load_config([ROOT / "configs/examples/moon_survival.yaml"])
    (one,) = planned({"name": "crowd", "env": {"agents": 8, "budget": 256}}, config=config).unplayed
    assert (one.condition, one.reason) == ("crowd", "env.budget: 256 cuts replies of ideal play; give 624 or more")
    crowd = {"name": "crowd", "env": {"agents": 8, "budget": 624}}
    found, results = played(tmp_path, crowd, config=config, floor=None, episodes=4)
    assert not results.unplayed
    turns = [turn for episode in found["scripted:ideal", "crowd"].episodes for turn in episode.turns]
    assert {turn.parse_error for turn in turns} == {None}


def test_a_budget_that_nobody_can_judge_is_refused(monkeypatch):
    monkeypatch.setattr(plans, "partners_of", lambda env: {})
    (one,) = planned({"name": "a", "env": {"budget": 4096}}, floor=None, ceiling=None).unplayed
    assert one.reason.startswith("DesignReview has no ideal partner to show")


@pytest.mark.parametrize("example", ["design_review", "moon_survival"])
def test_the_full_battery_has_a_team_of_every_size_where_the_environment_has(example):
    file = ROOT / "configs/batteries/full.yaml"
    config = load_config([ROOT / f"configs/examples/{example}.yaml"])
    plan = make_plan(read_as(file, Battery), [IDEAL], config, str(file))
    sizes = {len(m.make_env().seats) for m in plan.matches if m.condition.startswith(("solo", "team_"))}
    assert sizes == {1, 2, 3, 4, 8}


def test_a_partner_that_cannot_play_is_told_once():
    config = load_config([ROOT / "configs/examples/handover.yaml"])
    plan = planned({"name": "unseen"}, {"name": "echo", "partner": "scripted:echo"}, config=config, floor=None)
    ((who, condition, reason),) = plan.unplayed
    assert (who, condition) == ("", "echo") and reason.startswith("'scripted:echo' cannot play Handover")


def test_a_bar_that_cannot_play_the_environment_is_told_once_and_left_out():
    config = load_config([ROOT / "configs/examples/handover.yaml"])
    plan = planned({"name": "unseen"}, {"name": "swapped", "swapped": True}, config=config)
    ((who, condition, reason),) = plan.unplayed
    assert (who, condition) == ("scripted:averager", "") and reason.startswith(
        "'scripted:averager' cannot play Handover"
    )
    assert plan.floor is None and {match.who for match in plan.matches} == {"scripted:ideal"}


def test_a_condition_that_only_a_program_can_make_is_refused_too():
    with pytest.raises(ValueError, match="there is no condition 'b'"):
        battery({"name": "a", "against": "b"})


# ------------------------------------------------------------------------------------------- what is special in each


def test_unseen_instances_are_those_of_an_experiments_own_evaluation(tmp_path):
    found, _ = played(tmp_path, {"name": "unseen"}, episodes=5, seed=3)
    seeds = [task_seed(Stream.EVALUATION, 3, i) for i in range(5)]
    assert [episode.task.seed for episode in found["scripted:ideal", "unseen"].episodes] == seeds


def test_all_teams_play_the_same_tasks(tmp_path):
    found, _ = played(tmp_path, {"name": "unseen"}, teams=(IDEAL, MIXED))
    assert len({tuple(e.task.id for e in one.episodes) for one in found.values()}) == 1
    assert {who for who, _ in found} == {"scripted:ideal", "mixed", "scripted:averager"}


def test_swapped_policies_change_seats_and_the_tasks_stay(tmp_path):
    found, _ = played(tmp_path, {"name": "unseen"}, {"name": "swapped", "swapped": True}, teams=(MIXED,))
    plain, swapped = (found["mixed", name].episodes for name in ("unseen", "swapped"))
    assert [episode.task for episode in plain] == [episode.task for episode in swapped]
    assert {tuple(episode.players.values()) for episode in plain} == {("Calibrated", "Silent")}
    assert {tuple(episode.players.values()) for episode in swapped} == {("Silent", "Calibrated")}
    assert all(not turn.message for e in swapped for turn in e.turns_of("agent_0"))


def test_beside_a_partner_the_team_has_each_seat_in_turn_and_its_own_seat_alone_is_judged(tmp_path):
    found, results = played(tmp_path, {"name": "wrong", "partner": "scripted:stubborn-wrong"}, episodes=40)
    one = found["scripted:ideal", "wrong"]
    seats = [{seat for seat, name in e.players.items() if name == "Calibrated"} for e in one.episodes]
    assert {seat for held in seats for seat in held} == {"agent_0", "agent_1"} and all(len(h) == 1 for h in seats)
    assert [{*one.match.judged(e)} for e in one.episodes] == seats
    own = {row.metric: row for row in results.rows if row.who == "scripted:ideal" and row.than_who is None}
    assert own["parse_rate"].n == 40 * 3
    assert own["cr"].n + own["cdr"].n < 40 < measure(one.episodes)["cr"].n + measure(one.episodes)["cdr"].n
    assert own["cr"].value < 0.3 < measure(one.episodes)["cr"].value  # the partner is wrong by nature


def test_cross_play_sits_every_team_beside_every_other_and_the_floor(tmp_path):
    found, _ = played(tmp_path, {"name": "cross", "partner": "others"}, teams=(IDEAL, MIXED), episodes=4, ceiling=None)
    floor = "scripted:averager"
    assert set(found) == {
        ("mixed", "cross:scripted:ideal"),
        (floor, "cross:scripted:ideal"),
        ("scripted:ideal", "cross:mixed"),
        (floor, "cross:mixed"),
        ("scripted:ideal", f"cross:{floor}"),
        ("mixed", f"cross:{floor}"),
    }
    beside = found["mixed", f"cross:{floor}"].episodes
    assert {tuple(sorted(e.players.values())) for e in beside} <= {("Averager", "Calibrated"), ("Averager", "Silent")}


def test_advice_is_added_to_the_system_message():
    plan = planned({"name": "told", "advice": "Hold when your source is reliable."}, {"name": "unseen"})
    told, plain = (next(m for m in plan.matches if m.condition == name).make_env() for name in ("told", "unseen"))
    assert told.system_prompt == f"{plain.system_prompt} Hold when your source is reliable."


def test_a_condition_with_a_team_of_its_own_is_a_bar_for_all(tmp_path):
    found, results = played(
        tmp_path, {"name": "unseen"}, {"name": "bar", "team": "scripted:silent", "against": "unseen"}, teams=(MIXED,)
    )
    assert ("scripted:silent", "bar") in found and ("mixed", "bar") not in found
    pairs = {(r.who, r.condition, r.than_who, r.than_condition) for r in results.rows if r.than_who}
    assert ("mixed", "unseen", "scripted:silent", "bar") in pairs


SIZES = (1, 2, 3, 4, 8)


def test_teams_of_all_sizes_have_the_same_tokens_and_the_solo_run_says_what_coordination_costs(tmp_path):
    conditions = [{"name": f"team_{n}", "env": {"agents": n, "budget": 480}} for n in SIZES]
    conditions[0]["against"] = "team_2"
    found, results = played(tmp_path, *conditions, floor="scripted:echo", episodes=16)
    for size in SIZES:
        episodes = found["scripted:ideal", f"team_{size}"].episodes
        assert {len(episode.seats) for episode in episodes} == {size}
        assert all(sum(message_tokens(turn.reply) for turn in episode.turns) <= 480 for episode in episodes)
    curse = {r.who: r for r in results.rows if r.metric == "curse_of_coordination"}
    assert (curse["scripted:ideal"].condition, curse["scripted:ideal"].than_condition) == ("team_1", "team_2")
    assert curse["scripted:ideal"].value == pytest.approx(0.0, abs=1e-9)  # two ideal players lose nothing by talk
    assert curse["scripted:echo"].value > 0.3


def test_self_correction_and_a_vote_hear_nobody(tmp_path):
    alone = {"name": "alone", "env": {"rounds": 0}}
    vote = {"name": "vote", "env": {"agents": 3, "rounds": 0, "settle": "vote"}}
    found, _ = played(tmp_path, alone, vote, episodes=40)
    for one in found.values():
        assert not any(turn.message for episode in one.episodes for turn in episode.turns)
    votes = found["scripted:ideal", "vote"].episodes
    told = [sum(episode.task.cell.values()) for episode in votes]
    assert [episode.outcome.success for episode, right in zip(votes, told, strict=True) if right > 1] == [True] * sum(
        right > 1 for right in told
    )


def attempts(*visible):
    """An episode that passes so many of four visible tests; None: the machine failed."""
    base = ends("ab", "aa")
    return [
        replace(base, outcome=replace(base.outcome, visible_passed=v, visible_total=4, detail=str(v))) for v in visible
    ]


def test_of_two_attempts_the_one_counts_that_passes_more_visible_tests(tmp_path):
    tries = iter([attempts(2, 4, 1), attempts(3, 4, 0)])
    seeds = []

    def play(tasks, sampling_seed):
        seeds.append(sampling_seed)
        return next(tries)

    match = Match(
        who="w", condition="c", make_env=lambda: None, seating=Seating(("w",)), task_seeds=[1, 2, 3], best_of=2,
        file=tmp_path / "episodes" / "x.jsonl",
    )  # fmt: skip
    best = play_matches([match], play, 48, lambda done: None)[match.file]
    assert [episode.outcome.detail for episode in best] == ["3", "4", "1"]
    assert len(set(seeds)) == 2


def test_best_of_two_goes_by_the_visible_tests_of_a_repository(tmp_path):
    config = load_config([ROOT / "configs/examples/paired_features.yaml"])
    found, _ = played(tmp_path, {"name": "best", "best_of": 2}, config=config, episodes=2, floor=None, ceiling=None)
    for episode in found["scripted:ideal", "best"].episodes:
        assert episode.outcome.visible_passed == episode.outcome.visible_total > 0


def test_merge_repair_keeps_the_lines_of_both_sides(tmp_path):
    config = load_config([ROOT / "configs/examples/paired_features.yaml"], ["env.families=[append]"])
    repair = {"name": "repair", "env": {"policy": "union"}, "against": "unseen"}
    found, _ = played(tmp_path, {"name": "unseen"}, repair, config=config, episodes=3, floor=None, ceiling=None)
    plain, mended = (found["scripted:ideal", name].episodes for name in ("unseen", "repair"))
    assert {episode.outcome.merge.policy for episode in plain} == {"naive"}
    assert {episode.outcome.merge.policy for episode in mended} == {"union"}
    assert all(episode.outcome.merge.final for episode in mended)


def test_beside_a_partner_the_quick_battery_tells_the_seat_right_as_often_as_wrong():
    quick = read_as(ROOT / "configs/batteries/quick.yaml", Battery)
    env, told = load_config([ROOT / "configs/quickstart.yaml"]).make_evaluation_env(), []
    for seed in (task_seed(Stream.EVALUATION, quick.seed, i) for i in range(quick.episodes)):
        cell = env.make_task(seed).cell
        (seat,) = BESIDE_PARTNERS.judged(env.seats, seed)
        told += [cell[seat]] if len({*cell.values()}) == 2 else []
    assert (told.count(True), told.count(False)) == (5, 5)
