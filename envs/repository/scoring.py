"""From two branches to an outcome: the merge, both suites on the merged tree, and each branch judged by itself."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from typing import NamedTuple

from envs.core.episode import Forecast, Merge, Outcome, PartTests, Provenance, StopReason
from envs.core.hidden_tests import HiddenSuite, Judgement
from envs.core.task import BOTH, Seat, Task
from envs.core.tokens import message_tokens
from envs.repository.merge import MergePolicy, MergeResult, merge_branches
from envs.repository.tree_tests import TreeVerdict, judge, kept_tests
from envs.repository.working_copy import Files, new_lines
from envs.sandbox import Status
from envs.source.provenance import definitions, nodes, used_names

_WORD = re.compile(r"\w+")


class TreeJudgement(NamedTuple):
    """What came of both suites on a tree: of the hidden tests, and which visible ones pass."""

    verdict: TreeVerdict
    hidden: Judgement
    visible: tuple[bool, ...]

    @property
    def worth(self) -> float:
        """U in [0, 1]: the share of hidden tests that pass, times the share of visible ones that do."""
        return _share(self.hidden.passed) * _share(self.visible)


class Suites:
    """Everything that is asked of a tree of a task, and what the answers mean."""

    def __init__(self, task: Task, timeout_s: float):
        self.task, self.timeout_s = task, timeout_s
        self.hidden = HiddenSuite(task)
        self.visible = tuple(kept_tests(task.files).values())

    def judge(self, files: Files | None, branches: Sequence[TreeJudgement] = ()) -> TreeJudgement:
        """What a tree does; of the merged one, beside what each of the branches does."""
        count = len(self.hidden.expressions)
        parts = (*self.hidden.parts, *[""] * len(self.visible))
        verdict = judge(files, (*self.hidden.expressions, *self.visible), parts, timeout_s=self.timeout_s)
        hidden = self.hidden.judge(verdict.passed[:count], [branch.hidden for branch in branches])
        return TreeJudgement(verdict, hidden, verdict.passed[count:])


def score_branches(
    task: Task,
    branches: Mapping[Seat, Files],
    authored: Mapping[Seat, int],
    forecasts: Sequence[Forecast],
    *,
    policy: MergePolicy,
    timeout_s: float,
) -> tuple[Outcome, StopReason]:
    """What comes of the branches of two seats, the first of whom leads, or of the one branch of a seat alone.

    Args:
        task: the task; `task.files` is the base of both branches.
        branches: every seat's files.
        authored: words and symbols of code that each seat wrote.
        forecasts: what goes on the record.
        policy: what becomes of conflicts.
        timeout_s: wall time in seconds for the tests of one tree.
    """
    suites = Suites(task, timeout_s)
    merged = merge_branches(task.files, branches[task.seats[0]], branches[task.seats[-1]], policy)
    alone = {seat: suites.judge(branches[seat]) for seat in task.seats}
    whole = suites.judge(merged.final, tuple(alone.values()))
    committed = {
        seat: {
            id: option or whole.hidden.realised[seat][id] for id, option in alone[seat].hidden.realised[seat].items()
        }
        for seat in task.seats
    }
    passed = whole.hidden.passed
    outcome = Outcome(
        utility=whole.worth,
        success=all(passed) and all(whole.visible),
        committed=committed,
        tests_passed=sum(passed),
        tests_total=len(passed),
        visible_passed=sum(whole.visible),
        visible_total=len(whole.visible),
        detail=_detail(merged, whole.verdict, whole.visible),
        provenance=ledger(task, branches, authored, merged.final) if len(task.seats) > 1 else None,
        parts={
            seat: PartTests(alone=alone[seat].hidden.of_part(seat), merged=whole.hidden.of_part(seat))
            for seat in task.seats
        },
        merge=record(task, branches, merged, {seat: alone[seat].worth for seat in task.seats}),
        forecasts=tuple(forecasts),
    )
    fault = any(judged.verdict.status is Status.FAULT for judged in (whole, *alone.values()))
    return outcome, StopReason.SANDBOX_FAULT if fault else StopReason.FINISHED


def _share(passed: Sequence[bool]) -> float:
    return sum(passed) / len(passed) if passed else 1.0


def _detail(merged: MergeResult[Files], verdict: TreeVerdict, still: Sequence[bool]) -> str:
    conflicts = f"conflicts in {', '.join(merged.paths)}" if merged.conflicts else "clean"
    parts = [f"policy {merged.policy}, merge {conflicts}, by {merged.strategy}"]
    parts += [f"{len(still) - sum(still)} visible tests broken"] if merged.final is not None and not all(still) else []
    parts += [f"{verdict.status}: {verdict.detail}"] if verdict.status is not Status.OK else []
    return "; ".join(parts)


def record(
    task: Task, branches: Mapping[Seat, Files], merged: MergeResult[Files], worth: Mapping[Seat, float]
) -> Merge:
    """The merge for the record, of the files that anybody changed."""
    touched = [path for path, text in task.files.items() if any(files[path] != text for files in branches.values())]
    return Merge(
        base={path: task.files[path] for path in touched},
        proposals={seat: {path: branches[seat][path] for path in touched} for seat in task.seats},
        final={path: merged.final[path] for path in touched} if merged.final is not None else {},
        worth=worth,
        conflict=bool(merged.conflicts),
        policy=str(merged.policy),
    )


def ledger(task: Task, branches: Mapping[Seat, Files], authored: Mapping[Seat, int], final: Files | None) -> Provenance:
    """Who wrote how much: what a branch adds survives line by line, but for new names that nothing in the final tree
    uses, and a name that both add is written twice."""
    surviving, sizes = dict.fromkeys(task.seats, 0), []
    for seat in task.seats:
        sizes.append({})
        for path, text in task.files.items():
            if branches[seat][path] == text:
                continue
            old, new = definitions(text), definitions(branches[seat][path])
            sizes[-1] |= {(path, name): size for name, size in new.items() if name not in old}
            mine = Counter(new_lines(text, branches[seat][path]))
            kept = Counter(new_lines(text, final[path])) if final is not None else Counter()
            surviving[seat] += sum(message_tokens(line) * count for line, count in (mine & kept).items())
        if final is not None:
            surviving[seat] -= sum(sizes[-1][name] for name in _unused(task, final, sizes[-1].keys()))
    twice = set(sizes[0]) & set(sizes[1]) if final is not None else set()
    return Provenance(
        authored=dict(authored),
        surviving=surviving,
        duplicated=sum(min(side[name] for side in sizes) for name in twice),
    )


def _unused(task: Task, final: Files, new: Set[tuple[str, str]]) -> set[tuple[str, str]]:
    """The new names, each with its path, that are in the final tree, and that nothing there uses.

    Those that the task asks for are used by its tests. Where it does not name them, only private names are judged.
    """
    stubs = {name for written in task.stubs.values() for name in written.split(BOTH)}
    judged = {(path, name) for path, name in new if (name not in stubs if stubs else name.startswith("_"))}
    defined = {path: nodes(final[path]).keys() for path in {path for path, _ in judged}}
    judged = {(path, name) for path, name in judged if name in defined[path]}
    words = {name for _, name in judged}
    used = [used_names(text) for text in final.values() if not words.isdisjoint(_WORD.findall(text))]
    return {(path, name) for path, name in judged if not any(name in names for names in used)}
