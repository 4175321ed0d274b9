"""What a seat has before it while it works: its branch, what it may still do, and what is new to it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from envs.core.tokens import message_tokens
from envs.repository.actions import Action, CodeEdit, Function, Pass, Read, RunTests, Say, Search
from envs.repository.tree_tests import judge, kept_tests
from envs.repository.working_copy import Files, edited, read, search
from envs.sandbox import Status

MAX_WORK, PARSING = 20_000_000, 40


@dataclass(slots=True)
class Desk:
    """One seat's place of work. `states` are its branch after each turn that changed it."""

    files: Files
    turns_left: int
    tokens_left: int
    submitted: bool = False
    authored: int = 0  # words and symbols of the code that it wrote
    states: list[Files] = field(default_factory=list)
    news: list[str] = field(default_factory=list)

    @property
    def working(self) -> bool:
        return not self.submitted and self.turns_left > 0

    def do(self, actions: Sequence[Action], *, test_timeout_s: float) -> str:
        """Do the actions in order, up to a submission; what they say to the partner, on one line.

        The visible tests run once: a turn costs the machine no more than one time-out. It reads and changes files of
        `MAX_WORK` characters in all, and finishes what it has begun by then.
        """
        before, said, tested, worked = self.files, [], False, 0
        for action in actions:
            if self.submitted:
                break
            if worked > MAX_WORK and isinstance(action, Read | Search | CodeEdit):
                self.news.append("Not done: this turn has read and changed all that a turn can; go on in the next.")
                continue
            worked += _work(self.files, action)
            if isinstance(action, Say):
                said.append(action.text)
            elif isinstance(action, Read):
                self.news.append(read(self.files, action.path, action.first, action.last))
            elif isinstance(action, Search):
                self.news.append(search(self.files, action.text))
            elif isinstance(action, CodeEdit):
                self._edit(action)
            elif isinstance(action, RunTests):
                again = "Not done: tests run once in a turn."
                self.news.append(again if tested else visible_report(self.files, test_timeout_s))
                tested = True
            elif not isinstance(action, Pass):
                self.submitted = True
        if self.files != before:
            self.states.append(self.files)
        return " ".join(" ".join(said).split())

    def _edit(self, edit: CodeEdit) -> None:
        result = edited(self.files, edit)
        if isinstance(result, str):
            self.news.append(f"Not done: {result}")
            return
        self.files = result
        self.authored += message_tokens(edit.text)

    def take_news(self) -> list[str]:
        """What is new since this was last asked for."""
        news, self.news = self.news, []
        return news


def _work(files: Files, action: Action) -> int:
    """How many characters an action goes through; parsing, as for a whole function, counts as `PARSING` readings."""
    if isinstance(action, Search):
        return sum(map(len, files.values()))
    if isinstance(action, Read | CodeEdit):
        return len(files.get(action.path, "")) * (PARSING if isinstance(action, Function) else 1)
    return 0


def visible_report(files: Files, timeout_s: float) -> str:
    """What the visible tests say of a branch."""
    tests = kept_tests(files)
    if not tests:
        return "There are no visible tests."
    verdict = judge(files, tuple(tests.values()), timeout_s=timeout_s)
    failed = [name for name, passed in zip(tests, verdict.passed, strict=True) if not passed]
    report = f"Visible tests: {len(tests) - len(failed)} of {len(tests)} pass"
    report += "." if verdict.status is Status.OK else f" ({verdict.status})."
    return f"{report} Failed: {', '.join(failed)}." if failed else report
