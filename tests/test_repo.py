"""Playing on a repository: turns, budgets, and what each seat is told."""

import pytest
from test_repo_tasks import build

from envs.core.env import SEATS
from envs.core.episode import ParseError, Phase
from envs.core.tokens import message_tokens
from envs.paired_features.env import PairedFeatures
from envs.paired_functions import PairedFunctions
from envs.scripted.exploits import NeverDefer
from envs.scripted.play import play


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
    assert env.branch("agent_0") == env.task.files


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
    turns = [turn for turn in env.turns if turn.phase is Phase.WORK]
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
    told = f'Your reply was not read: bad_action in the line "Insert {path} after: {line}".'
    assert told in seen["agent_0"] and "I start" not in seen["agent_1"]
    assert env.branch("agent_0") == env.task.files


def test_an_action_that_is_not_offered_is_not_told_of_and_does_nothing():
    env, seen = started(actions=["say", "insert", "submit"])
    path, line = source_of(env)
    grammar = seen["agent_0"].split("Work on your branch.")[1].split("\n")[1:5]
    assert [text.split(" ")[0] for text in grammar[:3]] == ["Say:", "Insert", "Submit"] and " left." in grammar[3]
    work = f"Insert {path} after: {line}\nx = 1\nEnd"
    seen, *_, infos = env.step({"agent_0": f"{work}\nRead: {path}", "agent_1": work})
    assert infos["agent_0"]["parse_error"] is ParseError.BAD_ACTION and env.branch("agent_0") == env.task.files
    assert 'Your reply was not read: bad_action, as "read" is none of yours.' in seen["agent_0"]
    assert "x = 1" in env.branch("agent_1")[path]


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
        for family in PairedFeatures.Config.FAMILIES:
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rounds": 0}, "rounds is 0"),
        ({"tokens": 0}, "tokens is 0"),
        ({"order": "random"}, "order is 'random'; it should be 'simultaneous' or 'alternating'"),
        ({"policy": "octopus"}, "policy is 'octopus'; it should be 'naive', 'union', 'lead_fallback' or 'identical'"),
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
