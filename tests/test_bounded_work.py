"""Bounded work for every reply: what the parent does with code grows as the code does, whatever the code.

Work is counted in calls of functions and in characters read, not in seconds, so a busy machine changes nothing.
"""

import sys
import tracemalloc

import pytest

from envs.core.episode import ParseError
from envs.core.task import Task
from envs.design_review import DesignReview
from envs.handover.env import MAX_ACTS, Handover
from envs.handover.memory import Memory, bm25
from envs.moon_survival import MoonSurvival
from envs.paired_features.env import PairedFeatures
from envs.paired_functions import PairedFunctions
from envs.repository import workspace
from envs.repository.actions import Replace, Search, parse_actions
from envs.repository.forecast import forecast
from envs.repository.scoring import ledger
from envs.repository.working_copy import edited, read
from envs.repository.workspace import Desk
from envs.source import provenance as ledgers
from envs.source.edits import edits
from envs.source.outline import outline
from envs.source.provenance import provenance
from rewards import TERMS, RewardStack
from rewards.metrics import measure

SEATS = ("agent_0", "agent_1")


def many(form, count):
    return "".join(form.format(i=i) for i in range(count))


CODE = {  # each before a function that is needed
    "statements": lambda n: many("_x{i} = {i}\n", n),
    "one line": lambda n: many("_x{i} = {i};", n),
    "functions that call themselves": lambda n: many("def _f{i}(): return _f{i}\n", n),
    "methods of one name": lambda n: many("class C{i}:\n    def m(self): return o{i}.m()\n", n),
    "names of one statement": lambda n: many("_x{i} = ", n) + "1",
    "a tuple on both sides": lambda n: many("_x{i}, ", n) + "= " + many("_y{i}, ", n),
    "a long dotted name": lambda n: "x = a" + ".b" * n,
    "one name again and again": lambda n: many("f = 1\n", n),
    "texts": lambda n: many("'_x{i}'\n", n),
    "decorators": lambda n: many("@d{i}\n", n) + "def g(): return 1",
}
CODE = {name: lambda n, some=some: f"{some(n)}\ndef f(x):\n    return x\n" for name, some in CODE.items()}


def calls(function, *args):
    """How many calls, of Python and of C, a call makes."""
    count = 0

    def counted(frame, event, arg):
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(counted)
    try:
        function(*args)
    finally:
        sys.setprofile(None)
    return count


def a_ledger(source):
    provenance(dict.fromkeys(SEATS, "f"), dict.fromkeys(SEATS, source))


def a_ledger_of_branches(source):
    files = {"a.py": "x = 1\n", "b.py": "from a import x\n"}
    task = Task(id="t", family="f", seed=0, seats=SEATS, briefs={}, decisions=(), cell={}, files=files)
    branches = {"agent_0": {**files, "a.py": source}, "agent_1": {**files, "b.py": source}}
    ledger(task, branches, {}, {"a.py": source, "b.py": source})


def a_forecast(source):
    files = {"a.py": "x = 1\n", "b.py": "from a import x\n"}
    forecast(0, files, {**files, "a.py": source}, {**files, "b.py": source})


def an_outline(source):
    outline("a.py", source)


def all_edits(source):
    edits({"a.py": ""}, {"a.py": source})


@pytest.mark.parametrize("code", CODE)
@pytest.mark.parametrize("work", [a_ledger, a_ledger_of_branches, a_forecast, an_outline, all_edits])
def test_twice_the_code_is_no_more_than_about_twice_the_work(work, code):
    small, large = (calls(work, CODE[code](n)) for n in (150, 300))
    assert large < 2.6 * small, f"{small} calls for half of the code, {large} for all of it"


@pytest.mark.parametrize("code", CODE)
def test_a_ledger_reads_the_code_a_few_times_and_not_once_for_each_name(code, monkeypatch):
    read = []
    monkeypatch.setattr(ledgers, "message_tokens", lambda text: read.append(len(text)) or 1)
    source = CODE[code](300)
    a_ledger(source)
    assert sum(read) <= 6 * len(source)


def test_a_turn_of_searches_stops_when_it_has_gone_through_enough_and_says_so(monkeypatch):
    done, files = [], {"a.py": "x" * 1000}
    monkeypatch.setattr(workspace, "MAX_WORK", 10_000)
    monkeypatch.setattr(workspace, "search", lambda files, text: done.append(text) or "")
    desk = Desk(files, turns_left=1, tokens_left=1)
    desk.do([Search(str(i)) for i in range(3000)], test_timeout_s=1.0)
    assert len(done) == 11 and desk.news[-1].startswith("Not done: this turn has read and changed all")


def test_a_turn_that_rewrites_a_function_pays_for_the_parsing(monkeypatch):
    monkeypatch.setattr(workspace, "MAX_WORK", 10_000)
    desk = Desk({"a.py": f"def f(): return 0\n# {'x' * 1000}"}, turns_left=1, tokens_left=1)
    reply = "".join(f"Function a.py f:\ndef f(): return {i}\nEnd\n" for i in range(5))
    parsed = parse_actions(reply)
    assert not isinstance(parsed, ParseError)
    desk.do(parsed.actions, test_timeout_s=1.0)
    assert desk.files["a.py"].startswith("def f(): return 0\n") and len(desk.news) == 4


# replies


REPLIES = {
    "answers": lambda n: "Answer: OPTION (50%)\n" * n,
    "half an answer": lambda n: "Answer: " + "(" * n,
    "an answer far away": lambda n: "Answer:" + " " * n + "x" + " (" * n,
    "acts": lambda n: "Answer: OPTION\n" + "Propose: OPTION (50%)\nExpect: OPTION (50%)\n" * n,
    "a deep sum": lambda n: "Answer: OPTION\ndef encode(n): return " + "1+" * n + "n",
    "brackets": lambda n: "Answer: OPTION\ndef encode(n): return " + "(" * n + "n" + ")" * n,
    "signs": lambda n: "Answer: OPTION\ndef encode(n): return " + "-" * n + "n",
    "a long string": lambda n: "Answer: OPTION\nx = f'" + "{n}" * n + "'",
    "names of options": lambda n: "OPTION OPTION: " * n,
    "words": lambda n: "a " * n,
    "one word": lambda n: "a" * n,
    "symbols": lambda n: "*`'\"(" * n,
    "fences": lambda n: "Answer: OPTION\n" + "```\nx\n" * n,
    "writes": lambda n: many("Write k{i}: v{i}\n", n),
    "writes of one key": lambda n: many("Write k: v{i}\n", n),
    "notes and summaries": lambda n: "Write: a b c d e f g h\nSummarise: a\n" * n,
    "notes that do not fit": lambda n: many("Write: k{i}\n", n) + f"Write: {'a ' * n}\n" * 9,
    "queries": lambda n: many("Write k{i}: v\n", n) + many("Query: k{i} v\nExpand: #{i}\n", n),
    "a long query": lambda n: many("Write k{i}: v\n", n) + "Query: " + many("k{i} ", n),
    "edits": lambda n: many("Insert PATH after: LINE\nx{i} = {i}\nEnd\n", n),
    "edits that fit nowhere": lambda n: many("Replace PATH:\ny{i}\nWith:\nx{i} = {i}\nEnd\n", n),
    "blocks within a block": lambda n: "Insert PATH after: LINE\n" + "```\nReplace b.py:\n```\n" * n + "End",
    "a block without an end": lambda n: "Insert PATH after: LINE\n" * n,
    "empty lines for empty lines": lambda n: (
        "Insert PATH after: LINE\n" + "\n" * n + "End\nReplace PATH:\n" + "\n" * (n // 2) + "x\nWith:\ny\nEnd\n"
    ),
    "talk": lambda n: "Say: a\nSearch: a\nRead: PATH\nTest\n" * n,
}
ENVIRONMENTS = {
    "PairedFunctions": lambda: PairedFunctions(acts=True, families=["offset"]),
    "DesignReview": lambda: DesignReview(acts=True),
    "MoonSurvival": lambda: MoonSurvival(acts=True),
    "Handover": lambda: Handover(),
    "PairedFeatures": lambda: PairedFeatures(acts=True, forecast=True, rounds=2, tokens=10**6, families=["append"]),
}


def played(env, reply):
    """An episode in which both seats give the reply in every step, scored by every reward term and metric."""
    env.reset(seed=3)
    path, text = next(iter(sorted(env.task.files.items())), ("a.py", "x"))
    reply = reply.replace("PATH", path).replace("LINE", text.split("\n")[0])
    reply = reply.replace("OPTION", env.task.decisions[0].options[0])
    while env.agents:
        env.step(dict.fromkeys(env.agents, reply))
        for seat in env.seats if env.has_posterior and env.agents else ():
            env.posterior(seat, env.task.decisions[0])
    for term in TERMS:
        RewardStack.from_config({term.name: {}}).score(env.episode)
    measure([env.episode])


@pytest.mark.parametrize("reply", REPLIES)
@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_four_times_the_reply_is_no_more_than_about_four_times_the_work(name, reply):
    played(ENVIRONMENTS[name](), "Pass")  # what is made once is there
    small, large = (calls(played, ENVIRONMENTS[name](), REPLIES[reply](n)) for n in (80, 320))
    assert large < 6 * small, f"{small} calls for a quarter of the reply, {large} for all of it"


def test_a_write_costs_the_same_however_long_the_log_is():
    def writing(count):
        memory = Memory(budget=10**6)
        for i in range(count):
            memory.write("agent_0", f"v{i}", key=f"k{i % 9}")

    small, large = calls(writing, 100), calls(writing, 400)
    assert large < 4.4 * small


def test_a_query_reads_each_entry_once_and_not_once_for_each_of_its_words():
    texts = [[f"w{i}" for i in range(50)] for _ in range(50)]
    small, large = (calls(bm25, [f"q{i}" for i in range(count)], texts) for count in (10, 1000))
    assert large - small < 10 * 990  # there are 50 entries


def test_acts_beyond_those_of_a_message_are_not_done_and_told():
    env = Handover()
    env.reset(seed=0)
    observations, *_ = env.step({"agent_0": many("Write: n{i}\n", MAX_ACTS + 2), "agent_1": "PASS"})
    assert [entry.text for entry in env.memory.entries if entry.author == "agent_0"][-1] == f"n{MAX_ACTS - 1}"
    assert observations["agent_0"].startswith(f"Not done: 2 of {MAX_ACTS + 2} acts\n")
    assert "Not done" not in observations["agent_1"]


def test_a_place_that_is_there_twice_is_found_in_one_pass_however_alike_the_lines_are():
    blank = {"a.py": "\n" * 60_000 + "x = 1\n"}
    assert edited(blank, Replace("a.py", "\n" * 30_000, "y")) == (
        "a.py has several places that read like that; name one that is there once."
    )
    assert edited(blank, Replace("a.py", "\n" * 59_999 + "\nx = 1", "y")) == {"a.py": "y\n"}


def test_a_read_shows_its_lines_and_does_not_number_those_of_the_whole_file():
    files = {"a.py": "\n" * 50_000}
    tracemalloc.start()
    assert read(files, "a.py", 40_000, 40_001) == "a.py:\n40000 \n40001 "
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 16 * 50_000, "a reference to each line, which are all empty, is half of it"
