"""The consensus term: options, log-rolling, numbers and code, with the numbers worked out by hand."""

import dataclasses
from collections import Counter

import pytest
from test_reward_terms import PAIR, decide, play

from envs.core.episode import Merge
from envs.core.task import Numeric
from envs.source.edits import edits, mixing, surviving
from rewards.terms.consensus import Consensus, excess_loss, log_rolling

# options

BLEND = {"a": 1.0, "b": 0.0, "mix": 0.4}


def blended(utility=None, priors=("a", "b"), committed=("mix", "mix")):
    decision = decide(utility=utility or BLEND, blends=("mix",))
    return play(decision, priors=[[p and (p, 0.9)] for p in priors], committed=[[c] for c in committed])


def test_consensus_example():
    assert Consensus()(blended(), "agent_0") == pytest.approx([0.0, -0.6])


def test_consensus_charges_the_seat_that_blended_and_not_the_one_that_held():
    episode = blended(committed=("a", "mix"))
    assert [sum(Consensus()(episode, seat)) for seat in PAIR] == pytest.approx([0.0, -0.6])


@pytest.mark.parametrize(
    "case",
    [
        {"utility": {"a": 0.5, "b": 0.2, "mix": 0.9}},  # the blend is better than either side
        {"priors": ("a", "a")},  # nobody to average with
        {"priors": ("a", None)},
        {"priors": (None, None)},
        {"committed": (None, None)},
        {"committed": ("a", "a")},
        {"committed": ("b", "b")},  # a bad end, but one that a seat had argued for
    ],
)
def test_consensus_costs_nothing_where_no_dominated_blend_was_taken(case):
    assert sum(Consensus()(blended(**case), "agent_0")) == 0.0


def test_consensus_charges_an_option_that_was_nobodys_prior():
    decision = decide(utility={"a": 1.0, "b": 0.5, "c": 0.2})
    episode = play(decision, priors=[[("a", 0.9)], [("b", 0.9)]], committed=[["c"], ["b"]])
    assert sum(Consensus()(episode, "agent_0")) == pytest.approx(-0.8)


# log-rolling


def rolled(ends, experts=("agent_0", "agent_0")):
    """Two decisions where agent_0 holds the right a and agent_1 the wrong b; `ends` per seat."""
    decisions = [decide(str(i), expert=expert) for i, expert in enumerate(experts)]
    return play(*decisions, priors=[[("a", 0.9)] * 2, [("b", 0.9)] * 2], committed=[list(end) for end in ends])


def test_log_rolling_is_full_for_taking_turns_and_charged_by_the_shortfall_it_causes():
    episode = rolled(["ab", "ab"])
    assert log_rolling(episode) == 1.0
    assert [sum(Consensus()(episode, seat)) for seat in PAIR] == [-0.5, -0.5]


@pytest.mark.parametrize("ends", [["aa", "aa"], ["bb", "bb"], ["aa", "bb"], ["ab", "aa"]])
def test_log_rolling_is_zero_for_one_side_throughout_and_for_fewer_than_two_settled_disagreements(ends):
    assert log_rolling(rolled(ends)) == 0.0


def test_seats_that_end_apart_settled_nothing_so_holding_on_is_no_log_rolling():
    held = rolled(["aa", "bb"], experts=("agent_0", "agent_1"))
    assert log_rolling(held) == 0.0
    assert sum(Consensus()(held, "agent_1")) == 0.0


def test_following_the_expert_is_no_log_rolling_when_the_expert_changes():
    assert log_rolling(rolled(["ab", "ab"], experts=("agent_0", "agent_1"))) == 0.0


# numbers


def meeting(answer, sigma=(0.3, 1.5), utility=None):
    """A number whose truth is 10, with priors 10 and 13."""
    numeric = Numeric(truth=10.0, tolerance=0.5, sigma=dict(zip(PAIR, sigma, strict=True)))
    worth = utility or {"10": 1.0, "11.5": 0.0, "13": 0.0, "20": 0.0}
    decision = decide(utility=worth, numeric=numeric)
    return play(decision, priors=[[("10", 0.9)], [("13", 0.6)]], committed=[[answer], [answer]])


def test_a_number_between_the_priors_is_charged_its_excess_over_the_precision_weighted_pool():
    pool_loss = (3 * 0.3**2 / (0.3**2 + 1.5**2)) ** 2
    assert sum(Consensus()(meeting("11.5"), "agent_0")) == pytest.approx(
        -(1.5**2 - pool_loss) / (3**2 - pool_loss + 0.5**2)
    )


def test_the_equal_mean_of_equally_precise_numbers_costs_nothing_even_when_it_fails():
    assert sum(Consensus()(meeting("11.5", sigma=(1.0, 1.0)), "agent_0")) == 0.0


@pytest.mark.parametrize("answer", ["10", "13", "20"])
def test_a_number_that_is_a_prior_or_beyond_the_priors_is_no_average(answer):
    assert sum(Consensus()(meeting(answer), "agent_0")) == 0.0


def test_a_number_that_some_seat_held_is_no_average_even_between_two_others():
    numeric = Numeric(truth=10.0, tolerance=0.5, sigma=dict.fromkeys(("agent_0", "agent_1", "agent_2"), 1.0))
    decision = decide(utility={"10": 1.0, "14": 0.0, "13": 0.0}, numeric=numeric)
    held = [[("10", 0.9)], [("13", 0.9)], [("14", 0.9)]]
    episode = play(decision, priors=held, committed=[["10"], ["13"], ["13"]])
    assert sum(Consensus()(episode, "agent_1")) == 0.0


def test_a_number_between_the_priors_that_is_as_good_as_the_best_of_them_costs_nothing():
    assert sum(Consensus()(meeting("11.5", utility={"10": 1.0, "11.5": 1.0, "13": 0.0}), "agent_0")) == 0.0


def test_excess_loss_is_full_where_the_other_seats_number_was_better_than_the_pool():
    numeric = Numeric(truth=13.0, tolerance=0.5, sigma={"agent_0": 0.3, "agent_1": 1.5})
    assert excess_loss(numeric, {"agent_0": 10.0, "agent_1": 13.0}, "agent_0", 10.05) == 1.0
    exact = dataclasses.replace(numeric, tolerance=0.0)
    assert excess_loss(exact, {"agent_0": 13.0, "agent_1": 13.0}, "agent_0", 13.0) == 0.0


def test_excess_loss_does_not_depend_on_the_unit():
    seconds = Numeric(truth=10.0, tolerance=0.5, sigma={"agent_0": 0.3, "agent_1": 1.5})
    millis = Numeric(truth=1e4, tolerance=500.0, sigma={"agent_0": 300.0, "agent_1": 1500.0})
    priors = {"agent_0": 10.0, "agent_1": 13.0}
    scaled = {seat: 1000 * number for seat, number in priors.items()}
    assert excess_loss(millis, scaled, "agent_0", 11500.0) == pytest.approx(
        excess_loss(seconds, priors, "agent_0", 11.5)
    )


# edits


def changes(before, after):
    """What changed in one file, as `symbol + piece`."""
    found = edits({"a.py": before}, {"a.py": after})
    assert all(edit.path == "a.py" for edit in found)
    return sorted(f"{edit.symbol} {edit.sign} {edit.piece.strip()}" for edit in found.elements())


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ("def f(x): return 'a'", "# why\ndef f(x):\n    \"\"\"What.\"\"\"\n    return (\"a\")", []),
        ("x = 1\ny = 2", "y = 2\n\nx = 1", []),
        ("def f(a): pass", "def f(a, /, b: int=1, *c, d, e=2, **g) -> str: pass", [
            "f + **g", "f + *c", "f + -> str", "f + b: int=1", "f + d", "f + e=2"]),
        ("def f(): pass", "@cache\nasync def f(): pass", ["f + @cache", "f + AsyncFunctionDef", "f - FunctionDef"]),
        ("def f(n):\n if n:\n  n += 1\n  n += 1\n return n", "def f(n):\n if n > 1:\n  n += 1\n return n", [
            "f + if n > 1:", "f - if n:", "f - n += 1"]),
        ("class A: pass", "class A(B, kind=C):\n  'What.'\n  x: int = 1\n  def f(self): return 1", [
            "A + B", "A + kind=C", "A.f + FunctionDef", "A.f + return 1", "A.f + self", "A.x + x: int = 1",
            "A.pass - pass"]),
        ("import a, b", "import a\nfrom ..c import d as e, g", [
            "b - import b", "d as e + from ..c import d as e", "g + from ..c import g"]),
        ("x, y = 1, 2\nx += 1", "x, y = 1, 3\nx += 2", [
            "(x, y) + x, y = (1, 3)", "(x, y) - x, y = (1, 2)", "x + x += 2", "x - x += 1"]),
        ("if a:\n  f()", "if a:\n  f()\n  g()", ["if a: + g()"]),
    ],
)  # fmt: skip
def test_an_edit_is_a_piece_of_a_symbol_and_no_matter_of_layout(before, after, found):
    assert changes(before, after) == sorted(found)
    there, back = (edits({"a.py": old}, {"a.py": new}) for old, new in ((before, after), (after, before)))
    other = {"+": "-", "-": "+"}
    assert back == Counter(edit._replace(sign=other[edit.sign]) for edit in there.elements())


def test_only_python_files_count_and_a_file_that_is_missing_is_empty():
    assert not edits({"a.md": "x"}, {"a.md": "y", "b.txt": "def f(:"})
    assert [edit[:3] for edit in edits({}, {"b/a.py": "x = 1"})] == [("b/a.py", "x", "+")]


# code

BASE = "def load(path):\n    return read(path)\ndef other(): return 0"
ONE = BASE.replace("(path):", "(path, text=True):")
OTHER = BASE.replace("read(path)", "check(read(path))")
BOTH = ONE.replace("read(path)", "check(read(path))")


def merge(*proposals, final, base=BASE, worth=(), **fields):
    code = {f"agent_{i}": {"a.py": source} for i, source in enumerate(proposals)}
    return Merge(
        base={"a.py": base},
        proposals=code,
        final={"a.py": final},
        worth=dict(zip(code, worth, strict=False)),
        **{"conflict": False, "policy": "naive"} | fields,
    )


@pytest.mark.parametrize(
    ("final", "counts", "mix"),
    [
        (BOTH, (1, 2), 1 / 3),
        (ONE, (1, 0), 0.0),
        (OTHER, (0, 2), 0.0),
        (BASE, (0, 0), None),
        (BASE.replace("read(path)", "peek(path)"), (0, 1), 0.0),  # one took the old line out, and so did this
    ],
)
def test_mixing_is_the_minor_share_of_what_survives_of_both_proposals(final, counts, mix):
    count = surviving(merge(ONE, OTHER, final=final))
    assert count == dict(zip(PAIR, counts, strict=True))
    assert mixing(count) == mix
    assert mixing(surviving(merge(OTHER, ONE, final=final))) == mix  # whoever is called the expert


def test_what_only_one_seat_changed_or_both_changed_alike_is_no_mix():
    beside = BASE.replace("return 0", "return 1")
    assert surviving(merge(ONE, beside, final=BOTH.replace("return 0", "return 1"))) == {}
    assert surviving(merge(ONE, ONE, final=ONE)) == dict.fromkeys(PAIR, 0)
    assert surviving(merge(BOTH, ONE, final=BOTH)) == {"agent_0": 2, "agent_1": 0}
    wide = surviving(merge(ONE.replace("return 0", "return 1"), OTHER, final=BOTH.replace("return 0", "return 1")))
    assert wide == {"agent_0": 1, "agent_1": 2}


def test_symbols_of_one_name_in_two_files_are_two_symbols():
    proposals = {"agent_0": {"a.py": ONE, "b.py": BASE}, "agent_1": {"a.py": BASE, "b.py": OTHER}}
    base, final = dict.fromkeys(("a.py", "b.py"), BASE), {"a.py": ONE, "b.py": OTHER}
    record = Merge(base=base, proposals=proposals, final=final, worth={}, conflict=False, policy="naive")
    assert surviving(record) == {}


@pytest.mark.parametrize("text", ["def f(:", "\0", "\ud800", "x=" + "1+" * 30_000 + "1"])
def test_what_is_no_python_is_a_mix_of_nothing_and_raises_nothing(text):
    assert surviving(merge(ONE, OTHER, final=text)) == surviving(merge(ONE, text, final=BOTH)) == {}


def mixed(*proposals, final=BOTH, worth=(0.75, 0.5), utility=0.25, **case):
    """An episode whose seats agree on its decision, or disagree as in `blended`, and its merge."""
    episode = blended(**{"priors": ("a", "a"), "committed": ("a", "a")} | case)
    record = merge(*(proposals or (ONE, OTHER)), final=final, worth=worth)
    return dataclasses.replace(episode, outcome=dataclasses.replace(episode.outcome, merge=record, utility=utility))


def test_mixed_code_is_charged_what_the_best_proposal_alone_would_have_earned_more():
    assert [Consensus()(mixed(), seat) for seat in PAIR] == [[0.0, -0.5]] * 2


@pytest.mark.parametrize(
    "case",
    [
        {"utility": 0.75},  # as good as the best proposal
        {"utility": 1.0},
        {"final": ONE},  # one seat's version
        {"final": "def f(:"},
    ],
)
def test_code_that_is_no_mix_or_no_worse_costs_nothing(case):
    assert sum(Consensus()(mixed(**case), "agent_0")) == 0.0


@pytest.mark.parametrize(("lines", "charged"), [(3, True), (4, False)])
def test_a_fifth_of_the_edits_is_no_mix_yet(lines, charged):
    added = "\n".join(f"    step_{i}()" for i in range(lines))
    base, long = "def f(n):\n    return n", f"def f(n):\n{added}\n    return n"
    short, both = base.replace("(n)", "(n, m=1)"), long.replace("(n)", "(n, m=1)")
    assert mixing(surviving(merge(short, long, base=base, final=both))) == 1 / (1 + lines)
    episode = mixed(short, long, final=both)
    record = dataclasses.replace(episode.outcome.merge, base={"a.py": base})
    episode = dataclasses.replace(episode, outcome=dataclasses.replace(episode.outcome, merge=record))
    assert sum(Consensus()(episode, "agent_0")) == -0.5 * charged


def test_a_loss_that_shows_in_the_options_and_in_the_edits_is_charged_once():
    contested = {"priors": ("a", "b"), "committed": ("mix", "a")}
    assert [sum(Consensus()(mixed(**contested), seat)) for seat in PAIR] == pytest.approx([-0.6, -0.5])
    assert sum(Consensus()(mixed(worth=(1.0, 0.0), utility=0.0, **contested), "agent_0")) == -1.0


def test_only_the_seats_that_contested_the_symbol_are_charged():
    settled = play(decide(), priors=[[("a", 0.9)]] * 3)
    record = merge(ONE, OTHER, BASE.replace("return 0", "return 1"), final=BOTH, worth=(0.5, 0.5, 0.5))
    episode = dataclasses.replace(settled, outcome=dataclasses.replace(settled.outcome, merge=record))
    assert [sum(Consensus()(episode, seat)) for seat in episode.seats] == [-0.5, -0.5, 0.0]


def test_three_versions_mix_by_what_is_not_of_the_seat_with_most():
    third = BASE.replace("def load", "@cache\ndef load")
    count = surviving(merge(ONE, OTHER, third, final=BOTH.replace("def load", "@cache\ndef load")))
    assert count == {"agent_0": 1, "agent_1": 2, "agent_2": 1}
    assert mixing(count) == 1 / 2
