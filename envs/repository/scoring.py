"""From two branches to an outcome: the merge, both suites on the merged tree, and each branch judged by itself."""

from collections import Counter
from collections.abc import Mapping, Sequence

from envs.core.episode import Forecast, Merge, Outcome, PartTests, Provenance, StopReason
from envs.core.task import Seat, Task
from envs.core.tokens import message_tokens
from envs.repository.merge import MergePolicy, MergeResult, merge_branches
from envs.repository.tree_tests import TreeVerdict, judge, kept_tests
from envs.repository.working_copy import Files, new_lines
from envs.sandbox import Status
from envs.source.provenance import definitions, nodes, uses


class Suites:
    """Everything that is asked of a tree of a task, and what the answers mean."""

    def __init__(self, task: Task, timeout_s: float):
        self.task, self.timeout_s = task, timeout_s
        self.kept = tuple(kept_tests(task.files).values())
        self.probes = [
            (seat, id, option, expression)
            for seat, decisions in task.probes.items()
            for id, options in decisions.items()
            for option, expression in options.items()
        ]
        hidden = (test.expression for test in task.hidden_tests)
        self.expressions = (*hidden, *self.kept, *(expression for *_, expression in self.probes))

    def judge(self, files: Files | None) -> TreeVerdict:
        return judge(files, self.expressions, timeout_s=self.timeout_s)

    def hidden(self, verdict: TreeVerdict) -> tuple[bool, ...]:
        """Which hidden tests pass."""
        return verdict.passed[: len(self.task.hidden_tests)]

    def still(self, verdict: TreeVerdict) -> tuple[bool, ...]:
        """Which visible tests pass."""
        return verdict.passed[len(self.task.hidden_tests) :][: len(self.kept)]

    def worth(self, verdict: TreeVerdict) -> float:
        """U in [0, 1]: the share of hidden tests that pass, times the share of visible ones that do."""
        return _share(self.hidden(verdict)) * _share(self.still(verdict))

    def part(self, verdict: TreeVerdict, seat: Seat) -> tuple[bool, ...]:
        """Which hidden tests of a seat's own feature pass."""
        pairs = zip(self.task.hidden_tests, self.hidden(verdict), strict=True)
        return tuple(passed for test, passed in pairs if test.part == seat)

    def realised(self, verdict: TreeVerdict, seat: Seat, decision: str) -> list[str]:
        """The options that the seat's feature realises."""
        answers = zip(self.probes, verdict.passed[len(self.task.hidden_tests) + len(self.kept) :], strict=True)
        return [option for (s, id, option, _), passed in answers if (s, id) == (seat, decision) and passed]


def score_branches(
    task: Task,
    branches: Mapping[Seat, Files],
    authored: Mapping[Seat, int],
    forecasts: Sequence[Forecast],
    *,
    policy: MergePolicy,
    timeout_s: float,
) -> tuple[Outcome, StopReason]:
    """What comes of the branches of two seats, the first of whom leads.

    Args:
        task: the task; `task.files` is the base of both branches.
        branches: every seat's files.
        authored: words and symbols of code that each seat wrote.
        forecasts: what goes on the record.
        policy: what becomes of conflicts.
        timeout_s: wall time in seconds for the tests of one tree.
    """
    suites = Suites(task, timeout_s)
    first, second = (branches[seat] for seat in task.seats)
    merged = merge_branches(task.files, first, second, policy)
    verdict = suites.judge(merged.final)
    alone = {seat: suites.judge(branches[seat]) for seat in task.seats}
    committed: dict[Seat, dict[str, str | None]] = {seat: {} for seat in task.seats}
    for seat in task.seats:
        for decision in task.decisions:
            own = suites.realised(alone[seat], seat, decision.id)
            found = own or suites.realised(verdict, seat, decision.id)
            committed[seat][decision.id] = found[0] if len(found) == 1 else None
    hidden, still = suites.hidden(verdict), suites.still(verdict)
    outcome = Outcome(
        utility=suites.worth(verdict),
        success=all(hidden) and all(still),
        committed=committed,
        tests_passed=sum(hidden),
        tests_total=len(hidden),
        detail=_detail(merged, verdict, still),
        provenance=ledger(task, branches, authored, merged.final),
        parts={
            seat: PartTests(alone=suites.part(alone[seat], seat), merged=suites.part(verdict, seat))
            for seat in task.seats
        },
        merge=record(task, branches, merged, {seat: suites.worth(alone[seat]) for seat in task.seats}),
        forecasts=tuple(forecasts),
    )
    fault = any(v.status is Status.FAULT for v in (verdict, *alone.values()))
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
            surviving[seat] -= sum(size for (path, name), size in sizes[-1].items() if _unused(task, final, path, name))
    twice = set(sizes[0]) & set(sizes[1]) if final is not None else set()
    return Provenance(
        authored=dict(authored),
        surviving=surviving,
        duplicated=sum(min(side[name] for side in sizes) for name in twice),
    )


def _unused(task: Task, final: Files, path: str, name: str) -> bool:
    """Whether a new name is in the final tree, and nothing there uses it.

    Those that the task asks for are used by its tests. Where it does not name them, only private names are judged.
    """
    asked = name in task.stubs.values() if task.stubs else not name.startswith("_")
    return not asked and name in nodes(final[path]) and not any(uses(text, name) for text in final.values())
