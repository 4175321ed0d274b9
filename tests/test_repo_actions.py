"""What a seat may write in a phase of work, what its edits do, and that no text whatever makes any of it raise."""

import doctest

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.core.episode import Act, ActKind, ParseError
from envs.core.task import Decision
from envs.paired_features import env
from envs.repository import actions, forecast, merge, tree_tests, working_copy
from envs.repository.actions import (
    Function,
    Insert,
    Pass,
    Read,
    Replace,
    RunTests,
    Say,
    Search,
    Submit,
    broken_line,
    parse_actions,
)
from envs.repository.working_copy import added, edited, read, search, writable
from envs.source import outline

DECISION = Decision(id="offset", options=("17", "23"), utility={"17": 1.0}, belief={}, expert="agent_0", cue={})
SOURCE = (
    "import math\n\n\ndef f(x):\n    return x\n\n\nclass C:\n    @property\n    def size(self):\n        return 1\n"
)
TREE = {"p/a.py": SOURCE, "p/b.py": "y = 1\n", "tests/test_a.py": "z = 1\n", "README.md": "hi\n"}


@pytest.mark.parametrize(
    "module", [actions, working_copy, forecast, merge, outline, env, tree_tests], ids=lambda module: module.__name__
)
def test_the_examples_in_docstrings_run(module):
    assert doctest.testmod(module).failed == 0


def test_a_reply_is_any_number_of_actions_in_order():
    reply = "\n".join(
        [
            "I think the end of the file is free.",
            "say: I take the end",
            "READ: p/a.py",
            "Search: def f",
            "Insert p/a.py after: import math",
            "x = 1",
            "",
            "End",
            "Insert p/a.py before:   return x  ",
            "    x += 1",
            "end",
            "Replace p/b.py:",
            "y = 1",
            "With:",
            "y = 2",
            "y = 3",
            "End",
            "Function p/a.py C.size:",
            "def size(self):",
            "    return 2",
            "End",
            "Test",
            "pass",
            "Submit",
        ]
    )
    assert parse_actions(reply).actions == (
        Say("I take the end"),
        Read("p/a.py"),
        Search("def f"),
        Insert("p/a.py", "import math", "x = 1\n"),
        Insert("p/a.py", "return x", "    x += 1", after=False),
        Replace("p/b.py", "y = 1", "y = 2\ny = 3"),
        Function("p/a.py", "C.size", "def size(self):\n    return 2"),
        RunTests(),
        Pass(),
        Submit(),
    )


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        ("", ParseError.EMPTY),
        (" \n\t", ParseError.EMPTY),
        ("I shall look at it.", ParseError.NO_ACTION),
        ("Insert p/a.py after: import math\nx = 1", ParseError.BAD_ACTION),  # no End
        ("Insert p/a.py after: import math\nEnd", ParseError.BAD_ACTION),  # nothing to insert
        ("Insert p/a.py behind: import math\nx = 1\nEnd", ParseError.BAD_ACTION),
        ("Replace p/a.py:\nx = 1\nEnd", ParseError.BAD_ACTION),  # no With
        ("Replace p/a.py:\nWith:\nx = 1\nEnd", ParseError.BAD_ACTION),  # nothing to replace
        ("Function p/a.py:\ndef f(): pass\nEnd", ParseError.BAD_ACTION),  # no name
        ("Read:", ParseError.BAD_ACTION),
        ("Say:", ParseError.BAD_ACTION),
        ("x = 1\nEnd", ParseError.BAD_ACTION),  # an End of nothing
    ],
)
def test_what_breaks_the_grammar_is_a_value(reply, error):
    assert parse_actions(reply) is error
    assert (broken_line(reply) == "") == (error is not ParseError.BAD_ACTION)


def test_one_broken_action_voids_the_whole_reply():
    assert parse_actions("Say: hello\nRead: p/a.py\nFunction p/a.py f:\ndef f(): pass") is ParseError.BAD_ACTION


def test_what_stands_in_a_block_is_code_and_no_action():
    reply = "Insert p/a.py after: import math\nSubmit\nRead: x\nPropose: 17\nEnd"
    parsed = parse_actions(reply, [DECISION], acts=True)
    assert parsed.actions == (Insert("p/a.py", "import math", "Submit\nRead: x\nPropose: 17"),) and parsed.acts == ()


@pytest.mark.parametrize("head", ["Insert p/b.py after: y = 1", "replace `p/b.py`:", "Function p/b.py g:"])
def test_a_block_that_lacks_its_end_before_the_next_is_told(head):
    for body in ("x = 1", "```python\nx = 1\n```"):
        reply = f"Insert p/a.py after: import math\n{body}\n  {head}\ny = 2\nWith:\nz = 2\nEnd"
        assert parse_actions(reply) is ParseError.BAD_ACTION
        assert broken_line(reply) == head


@pytest.mark.parametrize(
    "code",
    ["Replace this:", "insert it after: x", '"Replace p/b.py:"', "# Replace p/b.py:", "```\nReplace p/b.py:\n```"],
)
def test_code_that_reads_a_little_like_the_head_of_a_block_is_code(code):
    text = f"x = 1\n{code}"
    assert parse_actions(f"Insert p/a.py after: y\n{text}\nEnd").actions == (Insert("p/a.py", "y", text),)


def test_acts_are_said_to_the_partner_and_expectations_are_sealed():
    reply = "Propose: 17\nExpect: 23 (70%)\nExpect merge: conflict (60%)\nExpect: clean (90%)\nCommit: 18"
    said, acts = parse_actions(reply, [DECISION], acts=True)
    assert said == (Say("Propose: 17"),)
    assert acts == (
        Act(kind=ActKind.PROPOSE, decision="offset", option="17"),
        Act(kind=ActKind.EXPECT, decision="offset", option="23", confidence=0.7),
        Act(kind=ActKind.EXPECT, decision="merge", option="conflict", confidence=0.6),
        Act(kind=ActKind.EXPECT, decision="merge", option="clean", confidence=0.9),
    )
    assert parse_actions(reply, [DECISION]) is ParseError.NO_ACTION  # not where acts are not read


@pytest.mark.parametrize("word", ["{}.", "**{}**", "**{}.**", "**{}**.", "`{}`", "*{}*", "{}!", "  {}  "])
def test_a_word_alone_may_be_bold_or_have_a_full_stop(word):
    reply = "\n".join(word.format(name) for name in ("Test", "Pass", "submit"))
    assert parse_actions(reply).actions == (RunTests(), Pass(), Submit())
    block = f"Replace p/a.py:\nx = 1\n{word.format('With:')}\nx = 2\n{word.format('End')}"
    assert parse_actions(block).actions == (Replace("p/a.py", "x = 1", "x = 2"),)


@pytest.mark.parametrize("line", ["Submit it", "test_end", "Submit, please", "I pass", "**Submit", "'Submit'"])
def test_a_word_among_others_is_a_note(line):
    assert parse_actions(f"Say: x\n{line}").actions == (Say("x"),)


@pytest.mark.parametrize("line", ["'end',", "**end", "'end'", "end_", "end = 1", "with: 1"])
def test_a_line_of_python_ends_no_block(line):
    assert parse_actions(f"Insert p/a.py after: x\n{line}\nEnd").actions == (Insert("p/a.py", "x", line),)


@pytest.mark.parametrize("path", ["p/a.py", "`p/a.py`", "'p/a.py'", '"p/a.py"', "`'p/a.py'`"])
def test_a_path_may_stand_in_quotes_or_backticks(path):
    edits = f"Insert {path} after: `x`\ny\nEnd\nReplace {path}:\nx\nWith:\ny\nEnd\nFunction {path} `f`:\ny\nEnd"
    reply = f"Read: {path}\n{edits}"
    assert parse_actions(reply).actions == (
        Read("p/a.py"),
        Insert("p/a.py", "`x`", "y"),
        Replace("p/a.py", "x", "y"),
        Function("p/a.py", "f", "y"),
    )


@pytest.mark.parametrize(
    ("said", "lines"),
    [
        *(("p/a.py 3", (3, 3)), ("p/a.py line 3", (3, 3)), ("p/a.py: 3", (3, 3)), ("p/a.py:3-5", (3, 5))),
        *(("p/a.py 3 - 5", (3, 5)), ("p/a.py lines 3-5", (3, 5)), ("p/a.py, lines 3 to 5", (3, 5))),
        *(("p/a.py 3\u20135", (3, 5)), ("`p/a.py` 3-5", (3, 5)), ("p/a.py", (1, None))),
    ],
)
def test_lines_to_read_may_be_said_in_several_ways(said, lines):
    assert parse_actions(f"Read: {said}").actions == (Read("p/a.py", *lines),)


FENCED = "```python\ny = 2\n```"


@pytest.mark.parametrize(
    ("block", "edit"),
    [
        (f"Insert p/a.py after: x\n{FENCED}\nEnd", Insert("p/a.py", "x", "y = 2")),
        (f"Insert p/a.py after: x\n\n{FENCED}\n\nEnd", Insert("p/a.py", "x", "y = 2")),
        ("Insert p/a.py after: x\n```python\ny = 2\nEnd\n```", Insert("p/a.py", "x", "y = 2")),
        (f"Function p/a.py f:\n{FENCED}\nEnd", Function("p/a.py", "f", "y = 2")),
        (f"Replace p/a.py:\n```\ny = 1\n```\nWith:\n{FENCED}\nEnd", Replace("p/a.py", "y = 1", "y = 2")),
        (f"Replace p/a.py:\ny = 1\nWith:\n{FENCED}\nEnd", Replace("p/a.py", "y = 1", "y = 2")),
        ("Replace p/a.py:\n```\ny = 1\nWith:\ny = 2\n```\nEnd", Replace("p/a.py", "y = 1", "y = 2")),
        ("Replace p/a.py:\n```\ny = 1\nWith:\ny = 2\nEnd\n```", Replace("p/a.py", "y = 1", "y = 2")),
        ("Replace p/a.py:\n```\ny = 1\nWith:\n```\nEnd", Replace("p/a.py", "y = 1", "")),
        ("Insert p/a.py after: x\na\n```\nb\n```\nEnd", Insert("p/a.py", "x", "a\n```\nb\n```")),
        ("Insert p/a.py after: x\n```\na\n```\nb\nEnd", Insert("p/a.py", "x", "```\na\n```\nb")),
        ("Insert p/a.py after: x\n```\n```py\na\n```\n```\nEnd", Insert("p/a.py", "x", "```py\na\n```")),
        ("Insert p/a.py after: x\n\n\nEnd", Insert("p/a.py", "x", "\n")),
    ],
)
def test_a_fence_around_lines_is_none_of_them_and_one_among_them_is(block, edit):
    assert parse_actions(block).actions == (edit,)


@pytest.mark.parametrize("block", ["Insert p/a.py after: x\n```\n```\nEnd", "Replace p/a.py:\n```\nWith:\nx\n```\nEnd"])
def test_a_fence_around_nothing_is_nothing(block):
    assert parse_actions(block) is ParseError.BAD_ACTION


# edits


def test_an_insertion_goes_after_or_before_the_one_line_that_is_named():
    assert edited(TREE, Insert("p/b.py", "y = 1", "z = 2"))["p/b.py"] == "y = 1\nz = 2\n"
    assert edited(TREE, Insert("p/a.py", "return x", "    x += 1", after=False))["p/a.py"] == SOURCE.replace(
        "    return x", "    x += 1\n    return x"
    )


def test_a_replacement_takes_the_place_of_the_one_run_of_lines_that_is_named():
    new = edited(TREE, Replace("p/a.py", "def f(x):\n    return x", "def f(x, y=0):\n    return x + y"))["p/a.py"]
    assert new == SOURCE.replace("def f(x):\n    return x", "def f(x, y=0):\n    return x + y")
    assert edited(TREE, Replace("p/a.py", "import math", ""))["p/a.py"] == SOURCE.replace("import math\n", "")


def test_a_whole_definition_is_replaced_at_its_own_depth():
    assert "def f(x, y):\n    return y" in edited(TREE, Function("p/a.py", "f", "def f(x, y):\n    return y"))["p/a.py"]
    new = edited(TREE, Function("p/a.py", "C.size", "def size(self):\n    return 2"))["p/a.py"]
    assert new.endswith("class C:\n    @property\n    def size(self):\n        return 2\n")


def test_decorators_stay_unless_the_new_definition_has_its_own():
    new = edited(TREE, Function("p/a.py", "C.size", "# now cached\n@cached\ndef size(self):\n    return 2"))["p/a.py"]
    assert new.endswith("class C:\n    # now cached\n    @cached\n    def size(self):\n        return 2\n")


@pytest.mark.parametrize("end", ["\n", ""])
def test_a_file_keeps_its_line_ends(end):
    text = SOURCE.rstrip("\n") + end
    for edit in (
        Insert("p/a.py", "import math", "x = 1\ny = 2"),
        Insert("p/a.py", "return 1", "        # end"),
        Replace("p/a.py", "def f(x):\n    return x", "def f(x, y):\n    return y"),
        Replace("p/a.py", "        return 1", "        return 2"),
        Function("p/a.py", "C.size", "def size(self):\n    return 2"),
    ):
        plain = edited(TREE | {"p/a.py": text}, edit)["p/a.py"]
        assert edited(TREE | {"p/a.py": text.replace("\n", "\r\n")}, edit)["p/a.py"] == plain.replace("\n", "\r\n")


def test_lines_that_are_not_edited_keep_mixed_ends():
    assert edited({"a.py": "x = 1\r\ny = 2\n"}, Insert("a.py", "x = 1", "z = 3"))["a.py"] == "x = 1\r\nz = 3\ny = 2\n"


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        (Insert("p/c.py", "y = 1", "z"), "There is no p/c.py. Files: README.md, p/a.py"),
        (Insert("tests/test_a.py", "z = 1", "z"), "not yours"),
        (Insert("README.md", "hi", "z"), "not yours"),
        (Insert("p/a.py", "y = 1", "z"), "has 0 lines"),
        (Insert("p/a.py", "", "z"), "has 5 lines"),
        (Replace("p/a.py", "def f(x):\n    return y", "z"), "has 0 places"),
        (Replace("p/a.py", "return x", "z"), "has 0 lines"),  # indentation counts here
        (Function("p/a.py", "g", "def g(): pass"), "no function or class g. Use Insert"),
        (Function("p/a.py", "f.size", "def g(): pass"), "no function or class f.size"),
        (Insert("p/b.py", "y = 1", "\0"), "not text"),
        (Insert("p/b.py", "y = 1", "\ud800"), "not text"),
        (Insert("p/b.py", "y = 1", "x" * 400_001), "at most 400000"),
    ],
)
def test_an_edit_that_cannot_be_made_says_why(edit, why):
    assert why in edited(TREE, edit)


def test_a_function_of_a_file_that_is_no_python_now_cannot_be_replaced():
    broken = {**TREE, "p/a.py": "def f(:"}
    assert "not Python now" in edited(broken, Function("p/a.py", "f", "def f(): pass"))


def test_an_edit_leaves_the_old_files_as_they_were():
    before = dict(TREE)
    assert edited(TREE, Insert("p/b.py", "y = 1", "z = 2")) != before == TREE


def test_reading_numbers_the_lines_and_searching_names_the_places():
    assert parse_actions("read: p/a.py 2-30").actions == (Read("p/a.py", 2, 30),)
    assert read({"a.py": "x\ny\nz\n"}, "a.py", 2, 30) == "a.py:\n  2 y\n  3 z"
    assert read(TREE, "p/b.py", 0, 0) == read(TREE, "p/b.py", 2) == "p/b.py has 1 lines."
    assert read(TREE, "p/b.py") == "p/b.py:\n  1 y = 1" and "There is no x" in read(TREE, "x")
    assert search(TREE, "= 1") == "'= 1' is on 2 lines.\np/b.py:1: y = 1\ntests/test_a.py:1: z = 1"
    long = {"a.py": "x = 1\n" * 9000}
    assert len(read(long, "a.py")) < 6100 and search(long, "x").endswith("... and 8980 more")


def test_what_a_branch_adds_is_its_new_lines_under_their_paths():
    changed = {**TREE, "p/a.py": f"x = 1\n{SOURCE}", "p/b.py": "y = 1\ny = 1\n"}
    assert added(TREE, changed) == "# p/a.py\nx = 1\n# p/b.py\ny = 1" and added(TREE, TREE) == ""
    assert [writable(path) for path in TREE] == [True, True, False, False]


PIECES = [
    *("Say: ", "Read: ", "Search: ", "Insert p/a.py after: ", "Insert p/a.py before: return x", "Replace p/b.py:"),
    *(
        "With:",
        "End",
        "Function p/a.py f:",
        "Function p/a.py C.size:",
        "Test",
        "Submit",
        "Pass",
        "y = 1",
        "import math",
    ),
    *("```python\n", "```", "**End**", "`p/a.py`", "Read: p/a.py 3", ":"),
    *("def f(x):\n    return 1", "p/a.py", "\n", " ", "\r", "\0", "\ud800", "Expect merge: clean (50%)", "Propose: 17"),
]
REPLIES = st.lists(st.sampled_from(PIECES) | st.text(max_size=10) | st.just("\n"), max_size=14).map("".join)


@settings(max_examples=300, deadline=None)
@given(reply=REPLIES | st.binary(max_size=200).map(lambda raw: raw.decode("latin-1")))
def test_no_text_makes_reading_it_or_doing_it_raise(reply):
    parsed = parse_actions(reply, [DECISION], acts=True)
    tree = TREE
    for action in () if isinstance(parsed, ParseError) else parsed.actions:
        if isinstance(action, Insert | Replace | Function):
            result = edited(tree, action)
            tree = tree if isinstance(result, str) else result
            assert {path for path in TREE if tree[path] != TREE[path]} <= {"p/a.py", "p/b.py"}
