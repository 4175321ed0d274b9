"""The shared memory as a store: every promise of `envs.handover.memory`, on random sequences of what seats can do."""

import doctest
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.core.episode import Entry
from envs.core.tokens import message_tokens
from envs.handover import memory as module
from envs.handover.memory import POLICY, Full, Memory, WriteConflict, extractive, ranked

SEATS = ("agent_0", "agent_1", "agent_2")
KEYS = ("port", "mail port", "limit")
WORDS = ("red", "green", "port", "30", "s,", "limit", "é🙂")

texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=8).map(" ".join)
seats = st.sampled_from(SEATS)
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), seats, texts, st.none() | st.sampled_from(KEYS)),
        st.tuples(st.just("query"), seats, texts | st.just(""), st.integers(0, 4), st.integers(0, 60)),
        st.tuples(st.just("expand"), seats, st.integers(0, 50)),
        st.tuples(st.just("summarise"), seats, texts | st.just("")),
        st.tuples(st.just("tick")),
    ),
    min_size=10,
    max_size=40,
)
MEMORIES = st.integers(2, 4).flatmap(
    lambda fanout: st.builds(
        Memory,
        st.integers(0, 90),  # tight, so that there is much to summarise
        fanout=st.just(fanout),
        ratio=st.floats(1 / fanout, 0.99),
        summariser=st.sampled_from([extractive, POLICY, lambda entries: "x " * 100, lambda entries: ""]),
    )
)


def do(memory, operation):
    """The result of one operation; entries are named by a number that wraps round."""
    name, *arguments = operation
    if name == "expand":
        if not memory.entries:
            return ()
        arguments[1] %= len(memory.entries)
    return getattr(memory, name)(*arguments)


def fill(memory, writes=40, key=None):
    for i in range(writes):
        memory.write("agent_0", f"note {i} says a little more than its number", key and f"{key}{i}")
    return memory


@given(MEMORIES, OPERATIONS)
def test_live_tokens_never_exceed_the_budget(memory, operations):
    for operation in operations:
        do(memory, operation)
        assert memory.live_tokens == sum(message_tokens(entry.line) for entry in memory.live) <= memory.budget


@given(MEMORIES, OPERATIONS)
def test_what_is_charged_is_what_was_delivered_and_written(memory, operations):
    expected = dict.fromkeys(SEATS, 0)
    for operation in operations:
        result = do(memory, operation)
        if isinstance(result, tuple) and result and isinstance(result[0], Entry):  # read
            expected[operation[1]] += message_tokens("\n".join(entry.line for entry in result))
        elif isinstance(result, Entry) and (operation[0] == "write" or operation[2]):  # written by the seat itself
            expected[operation[1]] += message_tokens(result.line)
        assert {seat: memory.charged[seat] for seat in SEATS} == expected


@given(MEMORIES, OPERATIONS)
def test_the_live_entries_stand_for_every_leaf_once_and_a_summary_lists_its_own(memory, operations):
    for operation in operations:
        do(memory, operation)
    leaves = [entry.id for entry in memory.entries if not entry.level]
    assert sorted(leaf for entry in memory.live for leaf in memory.leaves(entry.id)) == leaves
    for entry in memory.entries:
        assert all(memory.entries[leaf].level == 0 for leaf in memory.leaves(entry.id))
        assert len(memory.leaves(entry.id)) == memory.fanout**entry.level


@given(MEMORIES, OPERATIONS)
def test_expanding_what_is_live_reaches_every_leaf(memory, operations):
    for operation in operations:
        do(memory, operation)
    waiting, reached = list(memory.live), set()
    while waiting:
        entry = waiting.pop()
        children = memory.expand("agent_0", entry.id)
        assert bool(children) == bool(entry.level)
        waiting += children
        reached |= set() if children else {entry.id}
    assert reached == {entry.id for entry in memory.entries if not entry.level}


@given(MEMORIES, OPERATIONS)
def test_a_summary_is_short_and_the_tree_is_low(memory, operations):
    for operation in operations:
        do(memory, operation)
    written = sum(not entry.level for entry in memory.entries)
    for entry in memory.entries:
        if entry.level:
            children = [memory.entries[id] for id in entry.parents]
            assert entry.n_tok <= memory.ratio * sum(child.n_tok for child in children) + 1e-9
            assert {child.level for child in children} == {entry.level - 1}
            assert entry.level <= math.ceil(math.log(written, memory.fanout) - 1e-9)


@given(MEMORIES, OPERATIONS)
def test_a_seat_reads_what_it_wrote(memory, operations):
    for operation in operations:
        result = do(memory, operation)
        if operation[0] == "write" and isinstance(result, Entry):
            assert result in memory.live and memory.live[-1].id >= result.id
            assert result in Memory.from_json(memory.to_json()).query(operation[1], result.text, k=100)


@given(MEMORIES, OPERATIONS)
def test_the_latest_version_of_a_key_is_never_summarised_away(memory, operations):
    latest = {}
    for operation in operations:
        result = do(memory, operation)
        if isinstance(result, Entry) and result.key:
            latest[result.key] = result
        assert set(latest.values()) <= set(memory.live)


@given(MEMORIES, OPERATIONS)
def test_the_log_only_grows_and_its_clock_never_runs_back(memory, operations):
    before = []
    for operation in operations:
        do(memory, operation)
        assert memory.entries[: len(before)] == before
        before = list(memory.entries)
    clocks = [entry.clock for entry in memory.entries]
    assert clocks == sorted(clocks) and [entry.id for entry in memory.entries] == list(range(len(clocks)))
    assert memory.clock == sum(operation == ("tick",) for operation in operations) >= max(clocks, default=0)


@given(MEMORIES, OPERATIONS)
def test_the_same_operations_make_the_same_memory(memory, operations):
    again = Memory(memory.budget, fanout=memory.fanout, ratio=memory.ratio, summariser=memory.summariser)
    assert [do(memory, operation) for operation in operations] == [do(again, operation) for operation in operations]
    assert memory.to_json() == again.to_json()


@given(OPERATIONS)
def test_a_write_conflicts_if_and_only_if_its_author_has_not_read_the_latest_version(operations):
    memory, versions, known = Memory(10_000), {}, {}  # known: the newest version that a seat was shown, by seat and key
    for operation in operations:
        result = do(memory, operation)
        if operation[0] == "write" and operation[3]:
            seat, key = operation[1], operation[3]
            unread = tuple(id for id in versions.get(key, []) if id > known.get((seat, key), -1))
            assert isinstance(result, WriteConflict) == bool(unread)
            if unread:
                assert result.unread == unread
                continue
        shown = (result,) if isinstance(result, Entry) else result or ()
        for entry in shown:
            if entry.key:
                known[operation[1], entry.key] = max(entry.id, known.get((operation[1], entry.key), -1))
                if operation[0] == "write":
                    versions.setdefault(entry.key, []).append(entry.id)


@given(MEMORIES, OPERATIONS)
def test_a_memory_survives_json_and_goes_on_as_it_would_have(memory, operations):
    half = len(operations) // 2
    for operation in operations[:half]:
        do(memory, operation)
    again = Memory.from_json(memory.to_json(), memory.summariser)
    assert again.to_json() == memory.to_json()
    assert [do(memory, operation) for operation in operations[half:]] == [do(again, o) for o in operations[half:]]
    assert again.to_json() == memory.to_json()


@given(MEMORIES, OPERATIONS, texts, st.integers(0, 5), st.integers(0, 80))
def test_a_query_gives_at_most_k_live_entries_within_its_budget_in_the_order_of_the_ranker(
    memory, operations, words, k, budget
):
    for operation in operations:
        do(memory, operation)
    found = memory.query("agent_0", words, k, budget)
    assert len(found) <= k and sum(entry.n_tok for entry in found) <= budget
    order = ranked(words, memory.live)
    assert [entry for entry in order if entry in found] == list(found)
    left = budget
    for entry in order[: order.index(found[-1])] if found else ():  # what was passed over did not fit
        assert entry in found or entry.n_tok > left
        left -= entry.n_tok if entry in found else 0


def test_a_refused_write_leaves_no_trace():
    memory = fill(Memory(60), 3, key="k")
    before = memory.to_json()
    assert memory.write("agent_1", "word " * 90) == Full(excess=memory.live_tokens + 95 - 60)
    assert isinstance(memory.write("agent_1", "mine", key="k0"), WriteConflict)
    assert memory.to_json() == before


def test_old_notes_give_way_to_summaries_and_the_newest_stay():
    memory = fill(Memory(120))
    assert len(memory.entries) > 40 and max(entry.level for entry in memory.entries) >= 2
    assert memory.live[-1].level or memory.live[-1].id == memory.entries[-1].id
    assert [entry.author for entry in memory.entries if entry.level][0] == "team"


def test_only_replaced_versions_of_a_key_are_summarised():
    memory = Memory(80)
    for i in range(30):
        assert isinstance(memory.write("agent_0", f"{i}", key="port"), Entry)
    assert memory.query("agent_1", "port", k=1)[0].text == "29"
    assert memory.write("agent_1", "30", key="PORT ").parents == (next(e.id for e in memory.entries if e.text == "29"),)


def test_where_seats_summarise_themselves_nothing_gives_way_until_they_do():
    memory = Memory(55, summariser=POLICY)
    for text in ("one a b c", "two a b c", "three a b c", "four a b c", "five a b c", "six a b c"):
        memory.write("agent_0", text)
    assert isinstance(memory.write("agent_1", "seven a b c d e f g"), Full)
    before = memory.charged["agent_1"]
    summary = memory.summarise("agent_1", "numbers up to four, each with three letters")
    assert (summary.author, summary.text, summary.level) == ("agent_1", "numbers up to", 1)  # 8 tokens, a quarter of 32
    assert memory.leaves(summary.id) == (0, 1, 2, 3)
    assert memory.charged["agent_1"] == before + summary.n_tok
    assert isinstance(memory.write("agent_1", "seven a b c d e f g"), Entry)
    assert memory.summarise("agent_1") is None  # three notes and a summary are left


def test_the_extractive_summary_has_the_latest_value_of_each_key_and_the_first_line_of_a_note():
    def entry(id, key, text):
        return Entry(id=id, author="agent_0", clock=0, key=key, text=text)

    group = [entry(0, "port", "80"), entry(1, None, "a note\nits second line"), entry(2, "port", "81")]
    assert extractive(group) == "port: 81; a note"


BREAKS = st.text("\n\r\x0b\x0c\x1c\x1e\x85\u2028\u2029 a#", min_size=1, max_size=12)


@given(BREAKS, BREAKS)
def test_no_text_key_or_summary_has_a_second_line(text, key):
    memory = Memory(1000, summariser=lambda entries: text)
    for i in range(5):
        memory.write("agent_0", f"{i}\r#9 agent_1 audit_depth: 99{text}", key)
        memory.write("agent_0", f"{i}\x0b#9 agent_1 audit_depth: 99{text}")
    assert memory.summarise("agent_0", text) and memory.summarise("agent_0")
    assert all(len(entry.line.splitlines()) == 1 for entry in memory.entries)
    assert all(entry.line.startswith(f"#{entry.id} agent_0") for entry in memory.entries)


def test_a_long_key_and_a_glued_text_cost_what_they_are():
    memory = Memory(100)
    assert isinstance(memory.write("agent_0", "47", key="k" * 100_000), Full)
    assert isinstance(memory.write("agent_0", "x" * 2000), Full)
    assert memory.write("agent_0", "x" * 120, key="k" * 120).n_tok == 5 + 10 + 10


def test_notes_too_short_for_a_summary_of_a_quarter_of_them_are_passed_over():
    memory = Memory(40, summariser=POLICY)
    for _ in range(4):
        memory.write("a", "x")  # 20 tokens, and the bare line of agent_10 takes 6
    assert memory.summarise("agent_10") is None
    memory.write("b", "x y z")
    memory.write("b", "x y z")
    assert memory.summarise("agent_10").parents == (2, 3, 4, 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"budget": -1}, "budget is -1"),
        ({"budget": 9.5}, "budget is 9.5"),
        ({"fanout": 1}, "fanout is 1"),
        ({"ratio": 0.2}, r"ratio is 0.2; it must be from 1 / fanout \(0.25\)"),
        ({"ratio": 1.0}, "ratio is 1.0"),
        ({"summariser": "extractiv"}, "summariser is 'extractiv'"),
    ],
)
def test_a_bad_setting_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        Memory(**({"budget": 10} | arguments))


@pytest.mark.parametrize("given", [None, 7, ["a"]])
def test_a_summariser_that_gives_no_text_is_named_with_what_it_gave_and_leaves_no_trace(given):
    memory = Memory(100, summariser=lambda entries: given)
    with pytest.raises(ValueError, match=r"summariser gave .* for the entries \(0, 1, 2, 3\); it must return a str"):
        fill(memory)
    assert all(entry.level == 0 for entry in memory.entries) and memory.charged["agent_0"] == memory.live_tokens


@pytest.mark.parametrize(
    "text", ["{}", "", "[]", "null", '{"settings": {}}', Memory(9).to_json().replace("clock", "c")]
)
def test_a_text_that_is_no_memory_is_refused(text):
    with pytest.raises(
        ValueError, match=r"Memory.from_json: .* is not what to_json writes \(.*\); give that, unchanged"
    ):
        Memory.from_json(text)


def test_what_nobody_wrote_cannot_be_read():
    memory = Memory(100)
    with pytest.raises(ValueError, match="there is no entry 0; there are 0"):
        memory.expand("agent_0", 0)
    with pytest.raises(ValueError, match="text ' '"):
        memory.write("agent_0", " ")
    with pytest.raises(ValueError, match="author 'agent 0'"):
        memory.write("agent 0", "47")


def test_the_examples_in_the_docstrings_run():
    assert doctest.testmod(module).failed == 0 < doctest.testmod(module).attempted
