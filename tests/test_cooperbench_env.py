"""CooperBench as an environment, on the toy dataset: who is dealt what, what is paid, what is on the record."""

import math
import pickle
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pettingzoo.test import parallel_api_test, parallel_seed_test
from pettingzoo.utils.conversions import parallel_to_aec
from pydantic import ValidationError
from test_repo_actions import REPLIES

import envs
from envs.cooperbench import Evaluator, Refused, pair_log
from envs.cooperbench.env import CooperBench
from envs.cooperbench.submission import submit
from envs.core.env import SEATS
from envs.core.episode import Episode, Phase
from envs.paired_functions import PairedFunctions
from envs.repository.actions import Insert, Replace, parse_actions
from envs.repository.working_copy import edited
from envs.scripted.cooperbench import Gold, hunks, written
from envs.scripted.demonstrator import Demonstrator
from envs.scripted.honest import IDEAL
from envs.scripted.patch_exploits import PATCH_EXPLOITS
from envs.scripted.play import play, replay, shown
from marl_coop.config.layers import read_file
from marl_coop.evaluation.audit import audit, play_exploits
from rewards import TERMS, RewardStack
from rewards.metrics import measure

CORE = "shapes/core.py"


@pytest.fixture
def make(toy):
    task, evaluator = toy
    return partial(CooperBench, dataset=task.folder.parent.parent, evaluator=evaluator, rounds=2)


gold = Gold().reply


def played(env, reply=gold, seed=0):
    env.reset(seed=seed)
    while env.agents:
        env.step({seat: reply(env, seat) for seat in env.acting})
    return env.episode


def test_gold_patches_that_merge_are_a_success(make):
    episode = played(make(pairs=["shapes_task/7/1-3"]))
    outcome = episode.outcome
    assert outcome.success and outcome.utility == 1.0 and outcome.tests_passed == outcome.tests_total == 6
    assert not outcome.merge.conflict and not outcome.forecasts[-1].conflict
    assert "merge clean" in outcome.detail and "feature 3 passed: 3 of 3 new" in outcome.detail
    assert "unit" in outcome.merge.final[CORE] and "def square" in outcome.merge.final[CORE]
    assert outcome.merge.worth == {"agent_0": 0.5, "agent_1": 0.5}  # one feature each
    assert all(all(part.alone) and all(part.merged) for part in outcome.parts.values())
    assert sum(outcome.provenance.surviving.values()) == episode.task.reference_tokens


def test_gold_is_written_with_as_few_lines_as_tell_the_place():
    old = "def f():\n    return 1\n\n\ndef g():\n    return 1\n"
    assert hunks({CORE: old}, CORE, old.replace("g():\n    return 1", "g():\n    return 2")) == [
        Replace(CORE, "def g():\n    return 1\n", "def g():\n    return 2\n")
    ]
    twice = "x = 1\ny = 2\n" * 3  # one line around is not enough: x = 1 is between two y = 2 twice
    (edit,) = hunks({CORE: twice}, CORE, "x = 1\ny = 2\nx = 9\ny = 2\nx = 1\ny = 2\n")
    assert edited({CORE: twice}, edit)[CORE].count("x = 9") == 1 and edit.old.count("\n") > 2
    with pytest.raises(ValueError, match="a line of the replacement reads End or With:"):
        written(Replace(CORE, "x", "end"))


def test_gold_in_fences_or_with_other_line_ends_is_written_as_it_is():
    for part in ("```\nx = 1\n```", "```\nx = 1", "Replace a.py:", "x = 1\nInsert b.py after: y"):
        edit = Replace(CORE, part, "y = 1")
        assert parse_actions(written(edit)).actions == (edit,)
    old = "x = 1\r\ny = 2\r\n"
    (edit,) = hunks({CORE: old}, CORE, old.replace("y", "z"))
    assert edited({CORE: old}, *parse_actions(written(edit)).actions) == {CORE: "x = 1\r\nz = 2\r\n"}


def test_what_looks_like_a_shells_quotes_or_a_header_is_merged_as_the_seats_wrote_it(make, toy):
    bench = toy[1].bench(toy[0])
    odd = r"""QUOTE, TWICE = '\'', '\'''\''""" + "\nODD = '''\x0cdiff --git a/tests/t.py b/tests/t.py'''"

    def quoting(env, seat):
        added = f"Insert {CORE} before: def label(width, height):\n{odd}\nEnd\nSubmit"
        return gold(env, seat).replace("Submit", added if seat == "agent_1" else "Submit")

    env = make(pairs=["shapes_task/7/1-3"])
    episode = played(env, quoting)
    assert episode.outcome.success and odd in episode.outcome.merge.final[CORE]
    for seat, patch in zip(SEATS, pair_log(episode).patches, strict=True):
        sent = submit(bench.repository, bench.base, patch, bench.packages)
        assert bench.repository.read(sent.tree, CORE).decode() == env.branch(seat)[CORE]


@pytest.mark.slow
def test_in_balanced_honest_play_is_first_and_each_exploit_does_what_it_says(make):
    plays = play_exploits(make(pairs=["shapes_task/7/1-3"]), 2)  # one task, so nothing is luck
    balanced = RewardStack.from_config(read_file(Path("configs/presets/balanced.yaml"))["rewards"])
    rows = audit(balanced, plays)
    assert {row.policy: row.edge.value for row in rows if row.policy != IDEAL and row.edge.value >= 0} == {}
    assert len(rows) == 2 * len(PATCH_EXPLOITS)
    worth = {row.policy: row.utility.value for row in rows if row.mode == "unilateral"}
    solved = {"ideal", "chatty", "double-worker", "rewriter", "code-padder"}
    assert {policy for policy, utility in worth.items() if utility == 1.0} == solved
    assert worth["idler"] == 0.5 and worth["breaker"] == worth["forger"] == 0.0
    ends = [e for episodes in plays.episodes.values() for e in episodes]
    assert all(not e.outcome.merge.conflict and all(turn.parse_error is None for turn in e.turns) for e in ends)
    assert all("forged" in e.outcome.detail for e in plays.episodes["forger", "unilateral"])


def test_gold_patches_of_one_signature_conflict_and_pay_nothing(make):
    outcome = played(make(pairs=["shapes_task/7/1-2"])).outcome
    assert not outcome.success and outcome.utility == 0.0 and outcome.merge.conflict
    assert outcome.forecasts[-1].ranges == {CORE: ((4, 5),)} and outcome.merge.final == {}
    assert f"merge conflicts in {CORE}" in outcome.detail
    assert all(all(part.alone) and not any(part.merged) for part in outcome.parts.values())


def test_half_of_the_work_pays_its_share_and_a_clean_merge_of_nothing_pays_nothing(make):
    env = make(pairs=["shapes_task/7/1-3"])
    half = played(env, lambda env, seat: gold(env, seat) if seat == "agent_1" else "Submit").outcome
    assert not half.success and half.utility == 0.5
    nothing = played(env, lambda env, seat: "Submit").outcome
    assert nothing.utility == 0.0 and not nothing.merge.conflict


def test_breaking_what_worked_costs_what_the_new_tests_pay(make):
    def careless(env, seat):
        broken = "\nReplace shapes/core.py:\n    return width * height\nWith:\n    return 0\nEnd\nSubmit"
        return gold(env, seat) if seat == "agent_1" else broken.strip()

    outcome = played(make(pairs=["shapes_task/7/1-3"]), careless).outcome
    assert outcome.tests_passed == 3 and outcome.utility == 0.0 and not outcome.success


def test_a_pair_that_may_not_be_paid_for_is_never_dealt(make, toy, monkeypatch):
    env = make()
    assert len(env.pairs) == 6  # that feature 4 tells nothing is known only by studying it
    dealt = [env.make_task(seed).id.rpartition(":")[0] for seed in range(20)]
    assert set(dealt) == {f"shapes_task/7/{ids}" for ids in ("1-2", "1-3", "2-3")}
    with pytest.raises(Refused, match="feature 4: its hidden tests tell nothing"):
        make(pairs=["shapes_task/7/1-4"]).reset(seed=0)
    monkeypatch.setattr("envs.cooperbench.evaluation.study", None)  # a refusal is found out once
    with pytest.raises(Refused, match="feature 4: its hidden tests tell nothing"):
        make(pairs=["shapes_task/7/2-4"]).reset(seed=0)
    bare = Evaluator(toy[1].cache, isolation=toy[1].isolation)
    with pytest.raises(Refused, match="there is no recipe"):
        make(pairs=["shapes_task/7/1-3"], evaluator=bare)
    with pytest.raises(ValueError, match="pairs is 'all'; none of these 6 pairs can be played: .*no recipe"):
        make(evaluator=bare)


def test_as_many_seeds_in_a_row_as_there_are_pairs_deal_each_once(make):
    env = make(pairs=[f"shapes_task/7/{ids}" for ids in ("1-2", "1-3", "2-3")])
    dealt = [[env.make_task(3 * block + i).id.rpartition(":")[0] for i in range(3)] for block in range(8)]
    assert all(len(set(names)) == 3 for names in dealt) and len({names[0] for names in dealt}) > 1


@pytest.mark.parametrize(
    ("pairs", "count"),
    [("all", 6), ("tier1", 6), ("few", 1), (["shapes_task/7"], 6), ("shapes_task/7", 6), ("shapes_task/7/2-3", 1)],
)
def test_pairs_are_chosen_by_tier_subset_task_or_name(make, pairs, count):
    assert len(make(pairs=pairs).pairs) == count


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pairs": "tier2"}, "pairs is 'tier2'; none of these 0 pairs"),
        ({"pairs": "lite"}, "pairs is 'lite'; it must be one of all, tier1, tier2, tier3, few, or names of pairs"),
        ({"pairs": []}, "pairs is \\[\\]"),
        ({"pairs": 3}, "pairs is 3; it should be a valid string"),
        ({"pairs": [3]}, "pairs is \\[3\\]; it should be a valid string"),
        ({"pairs": ["shapes_task/7/1-9"]}, "Nearest: shapes_task/7/"),
        ({"pairs": "shapes_task/8"}, "pairs names 'shapes_task/8', which"),
        ({"repositories": "/nowhere", "evaluator": None}, "repositories is '/nowhere'; it must be a folder"),
        ({"tokens": 0}, "tokens is 0"),
    ],
)
def test_a_bad_argument_is_named_with_its_value(make, arguments, message):
    with pytest.raises(ValueError, match=message):
        make(**arguments)


def test_each_seat_is_told_its_own_feature_and_the_sources_and_no_test(make):
    env = make(pairs=["shapes_task/7/1-3"])
    seen, infos = env.reset(seed=0)
    assert "feature 1 of shapes" in seen["agent_0"] and "feature 3" not in seen["agent_0"]
    assert "feature 3 of shapes" in seen["agent_1"] and "Files: shapes/__init__.py, shapes/core.py." in seen["agent_1"]
    assert infos["agent_0"]["phase"] is Phase.WORK and "Test\n" not in seen["agent_0"]
    look = "Read: shapes/core.py 4-5\nRead: tests/test_shapes.py\nTest"
    seen, *_ = env.step({"agent_0": look, "agent_1": "Pass"})
    assert seen["agent_0"].startswith(
        "shapes/core.py:\n  4 def area(width, height):\n  5     return width * height\nThere"
    )
    assert "There is no tests/test_shapes.py" in seen["agent_0"] and "no visible tests" in seen["agent_0"]


def test_a_seat_alone_is_told_both_features_and_their_gold_on_one_branch_is_a_success(make):
    env = make(agents=1, pairs=["shapes_task/7/1-3"])
    seen, _ = env.reset(seed=0)
    assert list(seen) == ["agent_0"] and "partner" not in seen["agent_0"] and "Say:" not in seen["agent_0"]
    assert "feature 1 of shapes" in seen["agent_0"] and "feature 3 of shapes" in seen["agent_0"]
    episode = played(env)
    outcome = episode.outcome
    assert outcome.success and outcome.utility == 1.0 and outcome.tests_passed == outcome.tests_total == 6
    assert outcome.parts["agent_0"].merged == outcome.parts["agent_0"].alone == (True,) * 6
    assert episode.task.id == played(make(pairs=["shapes_task/7/1-3"])).task.id  # so the two are paired
    assert Episode.from_json(episode.to_json()) == episode == replay(env, episode)


def test_a_seat_alone_that_builds_one_feature_passes_the_tests_of_that_one_alone(make):
    env = make(agents=1, pairs=["shapes_task/7/1-2"])  # the second patch does not apply on top of the first
    outcome = played(env).outcome
    passed = outcome.parts["agent_0"].merged
    assert not outcome.success and 0 < sum(passed) < len(passed) == outcome.tests_total
    assert passed.count(True) == outcome.tests_passed


def test_a_pair_and_a_seat_alone_have_the_same_tokens_in_all(make):
    for agents in (1, 2):
        env = make(agents=agents, tokens=50, pairs=["shapes_task/7/1-3"])
        env.reset(seed=0)
        assert all(f" {100 // agents} tokens left." in env.observe(seat) for seat in env.seats)


def test_a_brief_may_be_the_beginning_of_a_feature(make):
    seen, _ = make(brief_tokens=7, pairs=["shapes_task/7/1-3"]).reset(seed=0)
    assert "Your feature:\n**Title**: feature\nFiles:" in seen["agent_0"]


def test_without_verdicts_on_branches_the_merged_tree_alone_is_graded(make, toy):
    whole, merged = (played(make(branch_verdicts=b, pairs=["shapes_task/7/1-3"])) for b in (True, False))
    assert merged.outcome == replace(whole.outcome, parts={}, merge=replace(whole.outcome.merge, worth={}))
    stack = RewardStack(tuple(term() for term in TERMS))
    assert all(math.isfinite(stack.score(merged).total(seat)) for seat in SEATS) and measure([merged])["utility"].n == 1
    graded = []
    grading = type(toy[1])(toy[1].cache, isolation=toy[1].isolation, recipes=toy[1].recipes)
    grading.grade = lambda task, feature, tree: graded.append(tree) or toy[1].grade(task, feature, tree)
    played(make(branch_verdicts=False, evaluator=grading, pairs=["shapes_task/7/1-3"]))
    assert len(graded) == 2 and len(set(graded)) == 1


def test_seats_are_told_of_the_files_that_are_named_and_change_no_others(make):
    env = make(files=[CORE], pairs=["shapes_task/7/1-3"])
    seen, _ = env.reset(seed=0)
    assert f"Files: {CORE}." in seen["agent_0"] and list(env.task.files) == [CORE]
    seen, *_ = env.step(
        dict.fromkeys(SEATS, "Insert shapes/__init__.py after: from shapes.core import area\nx = 1\nEnd")
    )
    assert f"There is no shapes/__init__.py. Files: {CORE}." in seen["agent_0"]
    env.step({seat: gold(env, seat) for seat in SEATS})
    assert env.episode.outcome.success
    with pytest.raises(
        ValueError, match=r"files is \['shapes/cor.py'\]; shapes_task/7 has none of them. Nearest: shapes/core"
    ):
        make(files=["shapes/cor.py"]).reset(seed=0)


def test_a_demonstration_gives_a_quoted_or_a_known_name_a_value_that_was_read_and_writes_no_gold(make, monkeypatch):
    monkeypatch.setattr(CooperBench, "finish", None)  # to show the format nothing is graded
    env = make(files=[CORE], pairs=["shapes_task/7/1-3"])
    task = env.make_task(0)
    base = f"{task.files[CORE]}\nTOP = 3\nPAGES = [\n"
    task = replace(task, files={CORE: base}, briefs={seat: f"{seat}: add `{seat}_size`." for seat in SEATS})
    monkeypatch.setattr(CooperBench, "make_task", lambda self, seed: task)
    rng, written = np.random.default_rng(0), set()
    for seed in range(20):
        for turn in shown(env, lambda seat: Demonstrator(rng).reply(env, seat), seed):
            parsed = parse_actions(turn.reply)
            written |= {(turn.seat, a.text) for a in parsed.actions if isinstance(a, Insert)}
            assert all(edited({CORE: base}, a) != {CORE: base} for a in parsed.actions if isinstance(a, Insert))
    assert written == {(seat, f"{name} = 3") for seat in SEATS for name in (f"{seat}_size", "TOP")}


def test_a_seat_that_waits_at_the_start_gets_its_brief_with_its_turn(make):
    env = make(order="alternating", pairs=["shapes_task/7/1-3"])
    seen, _ = env.reset(seed=0)
    assert env.acting == ("agent_0",) and seen["agent_1"] == ""
    seen, *_ = env.step({"agent_0": "Say: hello"})
    assert seen["agent_1"].startswith("You and your partner add") and seen["agent_1"].count("feature 3 of shapes") == 1
    assert "Partner: hello" in seen["agent_1"] and "Work on your branch" in seen["agent_1"]
    env.step({"agent_1": "Pass"})
    seen, *_ = env.step({"agent_0": "Submit"})
    assert "feature 3 of shapes" not in seen["agent_1"]


def test_a_record_survives_json_and_replays_and_every_term_and_metric_scores_it(make):
    stack = RewardStack(tuple(term() for term in TERMS))
    env = make(acts=True, forecast=True, order="alternating")
    demonstrator = dict.fromkeys(SEATS, Demonstrator(np.random.default_rng(0)))
    expecting = played(env, lambda env, seat: f"Expect merge: clean (80%)\n{gold(env, seat)}")
    episodes = [played(env, seed=1), expecting, play(env, demonstrator, seed=2)]
    for episode in episodes:
        assert all(turn.parse_error is None and turn.phase is Phase.WORK for turn in episode.turns)
        again = Episode.from_json(episode.to_json())
        assert again == episode and replay(env, again) == episode
        assert all(math.isfinite(stack.score(episode).total(seat)) for seat in SEATS)
    assert measure(episodes)["utility"].n == 3
    env.render_mode = "ansi"
    assert "-- outcome" in env.render() and all(brief in env.state() for brief in env.task.briefs.values())


def test_pettingzoos_tests_pass_without_a_warning(make):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parallel_api_test(make(), num_cycles=3)
    parallel_seed_test(make, num_cycles=3)
    game, env = parallel_to_aec(make(order="alternating")), make(order="alternating")
    game.reset(seed=0)
    for _ in game.agent_iter():
        *_, done, _, _ = game.last()
        game.step(None if done else "Read: shapes/core.py")
    assert game.unwrapped.episode == played(env, lambda env, seat: "Read: shapes/core.py")


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_text_reaches_the_end_and_gives_a_record(make, data):
    env = make(pairs=["shapes_task/7/1-3"], acts=True)
    episode = played(env, lambda env, seat: data.draw(REPLIES))
    assert Episode.from_json(episode.to_json()) == episode and 0 <= episode.outcome.utility <= 1


def test_it_survives_pickle_in_the_middle_of_an_episode(make):
    env = make(pairs=["shapes_task/7/1-3"])
    env.reset(seed=2)
    env.step(dict.fromkeys(SEATS, "Read: shapes/core.py"))
    again = pickle.loads(pickle.dumps(env))
    for each in (env, again):
        each.step({seat: gold(each, seat) for seat in SEATS})
    assert again.episode == env.episode and env.episode.outcome.success


def test_a_configuration_names_it_by_its_dotted_path(toy, tmp_path):
    arguments = {"dataset": str(toy[0].folder.parent.parent), "cache": str(tmp_path), "repositories": str(tmp_path)}
    CooperBench.configure(arguments | {"pairs": ["shapes_task/7"], "policy": "union"})
    with pytest.raises(ValidationError, match="cue_reliability"):
        CooperBench.configure(arguments | {"cue_reliability": 1.0})
    with pytest.raises(ValueError, match="dotted path such as 'envs.cooperbench:CooperBench'"):
        envs.make("CooperBench", **arguments)


@pytest.mark.bubblewrap
def test_its_dotted_path_makes_it(toy, tmp_path):
    dataset = toy[0].folder.parent.parent
    with pytest.raises(ValueError, match="there is no recipe"):  # the toy has none of its own
        envs.make("envs.cooperbench:CooperBench", dataset=dataset, cache=tmp_path, repositories=tmp_path)


def test_a_task_of_another_kind_is_refused(make):
    with pytest.raises(ValueError, match="has no files"):
        make().reset(options={"task": PairedFunctions().make_task(0)})
