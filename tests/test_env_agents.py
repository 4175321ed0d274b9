"""Teams of one to eight: what each seat sees, whom the cue points to, the budget that all share, and their training."""

import numpy as np
import pytest
import tiny

import envs
from envs.core.design import Cells
from envs.core.env import seats_of
from envs.core.episode import Phase
from envs.core.posterior import named_option
from envs.core.tokens import message_tokens
from envs.design_review import DesignReview
from envs.paired_functions import PairedFunctions
from envs.scripted.base import Calibrated, Scripted
from envs.scripted.exploits import Silent
from envs.scripted.play import play, replay
from marl_coop.config.errors import ConfigError
from marl_coop.config.schema import load_config
from marl_coop.evaluation.audit import play_exploits
from rewards.metrics import coordination


class Holds(Scripted):
    """Keeps its belief, in a team of any size."""

    def decide(self, env, seat, decision):
        return decision.belief[seat], 0.8


class Follows(Scripted):
    """Takes the first option that it hears, in a team of any size."""

    def decide(self, env, seat, decision):
        return named_option(env.heard(seat), decision) or decision.belief[seat], 0.8


SIZES = pytest.mark.parametrize("agents", range(1, 9))


def told(env, partner, seed):
    return play(env, dict.fromkeys(env.possible_agents, partner), seed)


@SIZES
def test_every_seat_hears_every_other_and_never_itself(agents):
    env = DesignReview(agents=agents)
    env.reset(seed=0)
    env.step({seat: "Answer: none" for seat in env.agents})
    if env.phase is not Phase.TALK:
        assert agents == 1
        return
    heard, *_ = env.step({seat: f"word of {seat}" for seat in env.agents})
    for seat in env.seats:
        others = [other for other in env.seats if other != seat]
        names = ["Partner"] if agents == 2 else others
        assert heard[seat].split("\n")[:-1] == [f"{n}: word of {o}" for n, o in zip(names, others, strict=True)]


@pytest.mark.parametrize("agents", [3, 8])
def test_all_some_or_none_are_right_as_often_as_asked_and_every_seat_alike(agents):
    rights = np.array([Cells().at(seed, agents) for seed in range(5000)])
    counts = np.bincount(rights.sum(axis=1), minlength=agents + 1) / 5000
    assert abs(counts[0] - 0.25) < 0.01 and abs(counts[-1] - 0.25) < 0.01
    assert np.abs(counts[1:-1] - 0.5 / (agents - 1)).max() < 0.01  # so a majority is right half of the time
    assert np.abs(rights.mean(axis=0) - 0.5).max() < 0.01


@pytest.mark.parametrize("agents", [3, 5])
def test_one_seat_has_the_strong_cue_and_it_is_right_as_often_as_asked(agents):
    env = DesignReview(agents=agents, cue_reliability=0.9)
    tasks = [env.make_task(seed) for seed in range(2000)]
    for task in tasks:
        (decision,) = task.decisions
        assert [seat for seat in task.seats if decision.cue[seat] == "strong"] == [decision.expert]
        assert task.cell == {seat: decision.is_right(decision.belief[seat]) for seat in task.seats}
    mixed = [task for task in tasks if 0 < sum(task.cell.values()) < agents]
    assert abs(np.mean([task.cell[task.decisions[0].expert] for task in mixed]) - 0.9) < 0.03


def test_where_all_are_wrong_they_claim_one_thing_or_two_and_any_split_is_as_likely():
    env = DesignReview(agents=3, cells={"both_right": 0, "one_right": 0})
    splits = []
    for seed in range(2000):
        (decision,) = env.make_task(seed).decisions
        assert not any(map(decision.is_right, decision.belief.values()))
        splits.append(tuple(belief == decision.belief["agent_0"] for belief in decision.belief.values()))
    share = {split: splits.count(split) / 2000 for split in set(splits)}
    assert abs(share.pop((True, True, True)) - 0.5) < 0.04
    assert len(share) == 3 and all(abs(value - 1 / 6) < 0.03 for value in share.values())


def test_a_seat_alone_plays_the_tasks_of_a_pair_and_reads_what_both_were_told():
    solo, pair = DesignReview(agents=1, decisions=2), DesignReview(decisions=2)
    for seed in range(50):
        one, two = solo.make_task(seed), pair.make_task(seed)
        assert one.id == two.id
        for mine, theirs in zip(one.decisions, two.decisions, strict=True):
            assert (mine.options, mine.utility) == (theirs.options, theirs.utility)
            assert mine.belief == {"agent_0": theirs.belief[theirs.expert]}
            assert all(f"says {belief}" in one.briefs["agent_0"] for belief in theirs.belief.values())


def test_solo_runs_stand_beside_a_team_on_the_same_tasks():
    ideal = [[told(DesignReview(agents=n), Calibrated(), seed) for seed in range(200)] for n in (1, 2)]
    results = coordination(*ideal)
    assert results["curse_of_coordination"].n == 200
    assert results["curse_of_coordination"].value == pytest.approx(0)  # who plays without a mistake loses nothing


@pytest.mark.parametrize(("agents", "silent"), [(3, ()), (4, ("agent_1",)), (4, ("agent_1", "agent_2")), (8, ())])
def test_the_ideal_partner_is_as_sure_as_it_is_right_in_any_team(agents, silent):
    env = DesignReview(agents=agents, cue_reliability=0.9)
    players = dict.fromkeys(env.seats, Calibrated()) | dict.fromkeys(silent, Silent())
    groups = {}
    for seed in range(700):
        episode = play(env, players, seed)
        (decision,) = episode.task.decisions
        for stance in (episode.prior("agent_0", decision.id), episode.final("agent_0", decision.id)):
            groups.setdefault(stance.confidence, []).append(decision.is_right(stance.option))
    for confidence, right in groups.items():
        assert abs(np.mean(right) - confidence) < 2.5 * np.sqrt(0.25 / len(right)), (confidence, np.mean(right))


def test_an_ideal_team_follows_the_reliable_source_and_not_the_majority():
    env = DesignReview(agents=5, cells={"both_right": 0, "both_wrong": 0}, cue_reliability=1.0)
    for seed in range(60):
        assert told(env, Calibrated(), seed).outcome.success


def test_of_three_options_the_ideal_partner_reckons_with_the_one_that_most_have_named():
    env = DesignReview(agents=4, distractors=0)
    env.reset(seed=2)
    (decision,) = env.task.decisions
    own, (first, second, _) = (
        decision.belief["agent_0"],
        [o for o in decision.options if o != decision.belief["agent_0"]],
    )
    env.step(dict.fromkeys(env.agents, f"Answer: {own}"))
    env.step({"agent_0": own, "agent_1": first, "agent_2": f"{second} reliable", "agent_3": second})
    odds = env.posterior("agent_0", decision)
    assert odds[first] == 0 < odds[second] and set(odds) == {own, first, second}


def test_one_seat_of_eight_can_block_the_change():
    env = DesignReview(agents=8)
    env.reset(seed=0)
    best = env.task.decisions[0].best
    other = next(option for option in env.task.decisions[0].options if option != best)
    for _ in range(2):
        env.step(dict.fromkeys(env.agents, "PASS"))
    env.step(dict.fromkeys(env.agents, f"Answer: {best}") | {"agent_5": f"Answer: {other}"})
    assert (env.episode.outcome.utility, env.episode.outcome.success) == (0.0, False)


# ------------------------------------------------------------------------------------------------ the shared budget


@SIZES
@pytest.mark.parametrize("env_class", [DesignReview, PairedFunctions])
def test_a_team_of_any_size_writes_no_more_than_its_budget(agents, env_class):
    if env_class is PairedFunctions and agents != 2:
        return
    env = env_class(agents=agents, budget=100, rounds=2)
    for reply in ("word " * 500, "Answer: a\n" * 70, "x"):
        env.reset(seed=0)
        while env.agents:
            env.step(dict.fromkeys(env.agents, reply))
        assert sum(message_tokens(turn.reply) for turn in env.episode.turns) <= 100


def test_what_a_seat_leaves_unused_is_there_for_all_later():
    env = DesignReview(agents=2, budget=60)
    observations, _ = env.reset(seed=0)
    assert env.allowance == 10 and observations["agent_0"].endswith(" At most 10 words.")
    observations, *_ = env.step({"agent_0": "one two", "agent_1": "word " * 50})
    assert env.allowance == (60 - 2 - 10) // 4 == 12 and "At most 12 words." in observations["agent_1"]
    observations, *_ = env.step({"agent_0": "word " * 50, "agent_1": "PASS"})
    assert observations["agent_1"].startswith("Partner: " + " ".join(["word"] * 12) + "\n")
    assert env.allowance == (60 - 2 - 10 - 12 - 1) // 2


def test_without_a_budget_nothing_is_cut_and_nothing_is_said_of_it():
    env = DesignReview()
    observations, _ = env.reset(seed=0)
    env.step(dict.fromkeys(env.agents, "PASS"))
    heard, *_ = env.step(dict.fromkeys(env.agents, "word " * 500))
    assert "words" not in observations["agent_0"] and heard["agent_0"].count("word") == 500


@pytest.mark.parametrize(
    "reply", ["x" * 5000, "and_so_on_" * 500, "我很确定" * 500, "7" * 5000, "Answer:" + "x" * 5000]
)
def test_words_that_are_glued_together_are_no_way_round_the_budget(reply):
    env = DesignReview(budget=100, rounds=2)
    env.reset(seed=0)
    while env.agents:
        env.step(dict.fromkeys(env.agents, reply))
    assert sum(message_tokens(turn.reply) for turn in env.episode.turns) <= 100
    assert sum(len("".join(turn.reply.split())) for turn in env.episode.turns) <= 100 * 12


# ------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("env_class", "arguments", "message"),
    [
        (DesignReview, {"agents": 9}, "agents is 9; it should be less than or equal to 8"),
        (DesignReview, {"agents": 0}, "agents is 0"),
        (PairedFunctions, {"agents": 3}, "agents is 3; it should be less than or equal to 2"),
        (DesignReview, {"agents": 3, "budget": 8}, "budget is 8; it must be at least 9"),
        (DesignReview, {"budget": 50.0}, "budget is 50.0"),
    ],
)
def test_a_team_that_cannot_play_is_refused(env_class, arguments, message):
    with pytest.raises(ValueError, match=message):
        env_class(**arguments)


def test_the_audit_refuses_a_larger_team():
    with pytest.raises(ValueError, match="DesignReview with 3 seats: the audit plays pairs"):
        play_exploits(DesignReview(agents=3), 2)


def test_a_task_of_another_team_is_refused():
    with pytest.raises(ValueError, match="this environment plays"):
        DesignReview(agents=3).reset(options={"task": DesignReview().make_task(0)})


def test_a_record_replays_to_itself_and_not_in_another_environment():
    env = DesignReview(agents=3, rounds=2, acts=True, budget=200)
    episode = told(env, Follows(), 7)
    assert replay(DesignReview(agents=3, rounds=2, acts=True, budget=200), episode) == episode
    with pytest.raises(ValueError, match="ends in phase"):
        replay(DesignReview(agents=3, rounds=3), episode)
    with pytest.raises(ValueError, match="goes on after 9 turns. Use an environment with the same arguments"):
        replay(DesignReview(agents=3, rounds=1), episode)


@pytest.mark.parametrize("name", ["MoonSurvival", "Handover", "PairedFeatures"])
def test_a_record_of_another_environment_is_refused(name):
    env = PairedFunctions()
    episode = play(env, dict.fromkeys(env.seats, Calibrated()), 0)
    with pytest.raises(ValueError, match=r"replay: the record of .*\. Use an environment with the same arguments"):
        replay(envs.make(name), episode)


# ------------------------------------------------------------------------------------------------ configuration


@pytest.mark.parametrize("agents", [1, 2, 3])
def test_every_seat_that_the_configuration_does_not_name_has_a_policy_of_its_own(agents):
    config = load_config([], ["env.name=DesignReview", f"env.agents={agents}"])
    assert config.policies == {seat: seat for seat in seats_of(agents)}


def test_seats_can_share_a_policy():
    config = load_config([], ["env.name=DesignReview", "env.agents=3", "policies.agent_2=agent_0"])
    assert config.policies == {"agent_0": "agent_0", "agent_1": "agent_1", "agent_2": "agent_0"}


def test_a_policy_for_a_seat_that_is_not_there_is_named():
    with pytest.raises(
        ConfigError, match=r"policies.agent_1: the environment has no such seat; its seats are \['agent_0'\]"
    ):
        load_config([], ["env.name=DesignReview", "env.agents=1", "policies.agent_1=judge"])


# ------------------------------------------------------------------------------------------------ training


@pytest.mark.parametrize("critic", ["central", "local"])
def test_three_seats_are_trained_together(tmp_path, critic):
    trainer = tiny.cue_trainer(tmp_path, env={"agents": 3}, critic=critic, num_updates=1)
    before = tiny.weights(trainer.model)
    rows = trainer.collector.collect(0)
    hidden = trainer.model.config.hidden_size
    for episode in rows:
        assert list(episode) == list(seats_of(3))
        first, *others = episode.values()
        width = (3 if critic == "central" else 1) * hidden
        assert all(row.features_KF.shape == (3, width) for row in episode.values())
        if critic == "central":  # the seat's own features, then those of the others in the order of the seats
            own = [row.features_KF[:, :hidden] for row in episode.values()]
            for i, row in enumerate(episode.values()):
                order = [i, *(j for j in range(3) if j != i)]
                assert all(
                    (row.features_KF[:, k * hidden : (k + 1) * hidden] == own[j]).all() for k, j in enumerate(order)
                )
    trainer.train()
    moved = {name.split(".")[-2] for name, p in tiny.weights(trainer.model).items() if (p != before[name]).any()}
    assert set(seats_of(3)) <= moved


def test_policies_that_are_not_those_of_the_seats_are_refused(tmp_path):
    trainer = tiny.cue_trainer(tmp_path)
    players = trainer.players
    with pytest.raises(ValueError, match=r"policies are for \['agent_0'\]; name one for each of the seats"):
        type(players)(players.make_env, {"agent_0": "agent_0"}, players.engine, players.chat, players.max_tokens, 1.0)


# ------------------------------------------------------------------------------------------- one seat, two functions


SOLO = pytest.mark.parametrize("options", [{}, {"families": "all"}, {"scaffold": True, "confidences": False}], ids=str)


@SOLO
def test_one_seat_alone_writes_both_functions_of_the_tasks_of_a_pair_and_an_ideal_one_loses_nothing(options):
    pair, solo = PairedFunctions(**options), PairedFunctions(agents=1, **options)
    for seed in range(16):
        team, single = told(pair, Calibrated(), seed), told(solo, Calibrated(), seed)
        assert [turn.reply for turn in single.turns if turn.parse_error] == []
        assert single.task.id == team.task.id
        assert single.task.decisions[0].utility == team.task.decisions[0].utility
        assert single.outcome.success == team.outcome.success
        assert replay(solo, single) == single


def test_one_seat_alone_reads_both_claims_and_nothing_repeats_the_better_one():
    pair, solo = PairedFunctions(scaffold=True), PairedFunctions(agents=1, scaffold=True)
    for seed in range(20):
        briefs = pair.make_task(seed).briefs
        observations, _ = solo.reset(seed=seed)
        for seat in pair.seats:
            assert briefs[seat].rsplit("Your source, ")[1] in observations["agent_0"]
        observations, *_ = solo.step({"agent_0": "Answer: none"})
        assert "source" not in observations["agent_0"]
        assert observations["agent_0"].count("___") >= 2


def test_of_one_seat_both_functions_must_follow_one_option():
    solo = PairedFunctions(agents=1, families=["offset"])
    solo.reset(seed=0)
    (decision,) = solo.task.decisions
    best, other = decision.best, next(option for option in decision.options if not decision.is_right(option))
    first, second = solo.reference_work("agent_0", best).split("\n")
    third = solo.reference_work("agent_0", other).split("\n")[1]
    ends = {}
    for name, code in (("right", f"{first}\n{second}"), ("mixed", f"{first}\n{third}"), ("half", first)):
        solo.reset(seed=0)
        solo.step({"agent_0": f"Answer: {best}"})
        solo.step({"agent_0": f"Answer: {best}\n{code}"})
        ends[name] = solo.episode.outcome
    assert (ends["right"].utility, ends["right"].committed) == (1.0, {"agent_0": {"offset": best}})
    assert (ends["mixed"].tests_passed, ends["mixed"].committed) == (2, {"agent_0": {"offset": None}})
    assert ends["half"].tests_passed == 2 and not ends["half"].success
