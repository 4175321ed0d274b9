"""Generated repositories: what coordination achieves on each, what is missing without it, and what pays nothing."""

import pytest

from envs.core.env import SEATS
from envs.core.episode import Phase
from envs.paired_features.env import PairedFeatures
from envs.paired_features.templates import FAMILIES
from envs.repository.merge import MergePolicy
from envs.repository.tree_tests import judge, kept_tests

PLACES = pytest.mark.parametrize("place", [family.name for family in FAMILIES])
SPATIAL = [family.name for family in FAMILIES if family.conflict == "spatial"]
CONTRACTS = [family.name for family in PairedFeatures.Config.CONTRACTS]


def build(env, *, coordinated=True, option=None, seed=None):
    """Play an episode in which both build their feature in one turn, under the right option or another one."""
    env.reset(seed=seed)
    option = option or env.task.decisions[0].best
    while env.agents:
        work = env.phase is Phase.WORK
        env.step(
            {
                seat: f"{env.reference_work(seat, option, coordinated=coordinated)}\nSubmit"
                if work
                else f"Answer: {option}"
                for seat in env.acting
            }
        )
    return env.episode.outcome


@PLACES
@pytest.mark.parametrize("contract", CONTRACTS)
def test_coordinated_work_merges_cleanly_and_passes_everything_and_neither_branch_does_alone(place, contract):
    outcome = build(PairedFeatures(families=[place], contracts=[contract]), seed=3)
    assert outcome.success and outcome.utility == 1.0 and not outcome.merge.conflict
    assert max(outcome.merge.worth.values()) < 1.0


@PLACES
def test_any_seed_can_be_solved(place):
    env = PairedFeatures(families=[place])
    assert all(build(env, seed=seed).success for seed in range(5))


@PLACES
def test_every_wrong_option_fails_and_is_what_the_seats_are_committed_to(place):
    env = PairedFeatures(families=[place])
    env.reset(seed=8)
    (decision,) = env.task.decisions
    for option in decision.options:
        outcome = build(env, option=option, seed=8)
        assert outcome.success == (option == decision.best)
        assert outcome.committed == {seat: {decision.id: option} for seat in SEATS}


@PLACES
def test_two_options_in_one_module_fail(place):
    env = PairedFeatures(families=[place])
    env.reset(seed=5)
    (decision,) = env.task.decisions
    other = next(option for option in decision.options if option != decision.best)
    env.step(dict.fromkeys(SEATS, "Pass"))
    env.step(
        {
            seat: f"{env.reference_work(seat, option)}\nSubmit"
            for seat, option in zip(SEATS, (decision.best, other), strict=True)
        }
    )
    env.step(dict.fromkeys(SEATS, "Pass"))
    outcome = env.episode.outcome
    assert not outcome.success and not outcome.merge.conflict
    assert outcome.committed == {"agent_0": {decision.id: decision.best}, "agent_1": {decision.id: other}}


@pytest.mark.parametrize("place", [*SPATIAL, "keywords"])
def test_uncoordinated_work_at_one_place_is_a_conflict_that_git_reports(place):
    outcome = build(PairedFeatures(families=[place]), coordinated=False, seed=3)
    assert outcome.merge.conflict and outcome.merge.final == {} and "merge conflicts in" in outcome.detail
    assert (outcome.utility, outcome.tests_passed, outcome.success) == (0.0, 0, False)
    assert all(all(part.alone) and not any(part.merged) for part in outcome.parts.values())


@pytest.mark.parametrize("place", ["defaults", "returns"])
def test_uncoordinated_work_on_each_others_ground_merges_cleanly_and_breaks(place):
    outcome = build(PairedFeatures(families=[place]), coordinated=False, seed=3)
    assert not outcome.merge.conflict and not outcome.success
    for part in outcome.parts.values():
        assert all(part.alone) and part.merged.count(False) == 1
    assert outcome.forecasts[-1].symbols and not outcome.forecasts[-1].conflict


@pytest.mark.parametrize("place", SPATIAL)
def test_keeping_both_sides_rescues_what_was_only_added(place):
    outcome = build(PairedFeatures(families=[place], policy="union"), coordinated=False, seed=3)
    assert outcome.success and outcome.merge.conflict and "by union" in outcome.detail


def test_keeping_both_sides_of_a_signature_rescues_nothing():
    outcome = build(PairedFeatures(families=["keywords"], policy="union"), coordinated=False, seed=3)
    assert not outcome.success and outcome.merge.final


def test_where_the_lead_stands_in_for_a_conflict_its_feature_alone_passes():
    outcome = build(PairedFeatures(families=["append"], policy="lead_fallback"), coordinated=False, seed=3)
    assert outcome.merge.final == outcome.merge.proposals["agent_0"] and "by lead" in outcome.detail
    assert all(outcome.parts["agent_0"].merged) and not any(outcome.parts["agent_1"].merged)
    assert outcome.utility == outcome.merge.worth["agent_0"] == 2 / 5


def test_identical_branches_are_taken_by_every_policy_and_others_by_none_that_wants_them_identical():
    for policy in MergePolicy:
        env = PairedFeatures(families=["append"], policy=policy)
        env.reset(seed=3)
        both = "\n".join(env.reference_work(seat, env.task.decisions[0].best) for seat in SEATS)
        for reply in ("Pass", f"{both}\nSubmit", "Pass"):
            env.step(dict.fromkeys(SEATS, reply))
        assert env.episode.outcome.success and "by identical" in env.episode.outcome.detail
    outcome = build(PairedFeatures(families=["append"], policy="identical"), seed=3)
    assert outcome.merge.conflict and outcome.utility == 0.0


@PLACES
def test_one_seat_may_build_both_features(place):
    env = PairedFeatures(families=[place])
    env.reset(seed=6)
    (decision,) = env.task.decisions
    mine = env.reference_work("agent_0", decision.best)
    env.step(dict.fromkeys(SEATS, "Pass"))
    env.step({"agent_0": mine, "agent_1": "Submit"})
    theirs = env.reference_work("agent_1", decision.best)
    # the joint signature of `keywords` is there already
    theirs = (
        theirs[: theirs.index("Replace")] + theirs[theirs.index("Insert", theirs.index("Replace")) :]
        if place == "keywords"
        else theirs
    )
    env.step({"agent_0": f"{theirs}\nSubmit"})
    env.step(dict.fromkeys(SEATS, "Pass"))
    outcome = env.episode.outcome
    assert outcome.success and outcome.provenance.authored["agent_1"] == 0
    assert outcome.committed == {seat: {decision.id: decision.best} for seat in SEATS}


@PLACES
@pytest.mark.parametrize("contract", CONTRACTS)
def test_the_untouched_base_passes_every_visible_test_and_no_hidden_one(place, contract):
    env = PairedFeatures(families=[place], contracts=[contract])
    tasks = [env.make_task(seed) for seed in range(60 if contract == "error_type" else 1)]
    for task in {task.decisions[0].best: task for task in tasks}.values():  # the base raises errors of its own
        visible = kept_tests(task.files)
        assert len(visible) >= 3 and all(judge(task.files, tuple(visible.values()), timeout_s=2.0).passed)
        assert not any(judge(task.files, [test.expression for test in task.hidden_tests], timeout_s=2.0).passed)


@PLACES
def test_a_clean_merge_of_nothing_pays_nothing(place):
    env = PairedFeatures(families=[place])
    env.reset(seed=1)
    while env.agents:
        env.step(dict.fromkeys(SEATS, "Submit"))
    outcome = env.episode.outcome
    assert outcome.utility == 0.0 and not outcome.merge.conflict and outcome.tests_total >= 5


def test_what_worked_before_must_go_on_working():
    env = PairedFeatures(families=["append"])
    env.reset(seed=3)
    path = next(path for path in env.task.files if not path.startswith("tests/"))
    helper = next(line for line in env.task.files[path].split("\n") if line.startswith("    return"))
    work = {seat: f"{env.reference_work(seat, env.task.decisions[0].best)}\nSubmit" for seat in SEATS}
    broken = f"Replace {path}:\n{helper}\nWith:\n    return None\nEnd\n{work['agent_0']}"
    env.step(dict.fromkeys(SEATS, "Pass"))
    env.step(work | {"agent_0": broken})
    env.step(dict.fromkeys(SEATS, "Pass"))
    outcome = env.episode.outcome
    assert (outcome.tests_passed, outcome.tests_total) == (5, 5) and not outcome.success
    assert outcome.utility == pytest.approx(2 / 3) and "1 visible tests broken" in outcome.detail


@PLACES
def test_briefs_are_private(place):
    env = PairedFeatures(families=[place], cells={"both_right": 0, "both_wrong": 0})
    for seed in range(20):
        task = env.make_task(seed)
        (decision,) = task.decisions
        for seat, partner in (SEATS, SEATS[::-1]):
            claims = task.briefs[seat].rpartition("Your source")[2]
            assert decision.belief[seat] in claims and task.briefs[seat] != task.briefs[partner]
            feature = [line for line in task.briefs[partner].split("\n") if line.startswith("Your feature")][0]
            assert feature not in task.briefs[seat]
            assert len(task.briefs[seat].split()) <= 130


def test_no_hidden_test_is_in_any_file():
    env = PairedFeatures()
    for seed in range(30):
        task = env.make_task(seed)
        assert not any(test.expression in text for test in task.hidden_tests for text in task.files.values())


def test_who_is_right_is_balanced_and_cannot_be_read_off_the_feature_or_the_order():
    env = PairedFeatures(cells={"both_right": 1, "one_right": 2, "both_wrong": 1})
    tasks = [env.make_task(seed) for seed in range(400)]
    cells = [tuple(task.cell.values()) for task in tasks]
    assert all(abs(cells.count(cell) - 100) <= 2 for cell in set(cells)) and len(set(cells)) == 4
    functions = {family.name: family.function(0) for family in env.contracts}
    contested = [task for task in tasks if sum(task.cell.values()) == 1]
    first = [
        task.stubs[next(s for s in SEATS if task.cell[s])] == functions[task.decisions[0].id] for task in contested
    ]
    assert abs(sum(first) / len(first) - 0.5) < 0.1
    places = [task.decisions[0].options.index(task.decisions[0].best) for task in tasks]
    assert all(abs(places.count(place) / 400 - 1 / 6) < 0.08 for place in range(6))
