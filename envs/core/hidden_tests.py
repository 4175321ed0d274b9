"""Hidden tests and probes of a task: what is asked of submitted code, and what the answers mean."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from envs.core.episode import AMBIGUOUS
from envs.core.task import Seat, Task


@dataclass(frozen=True, slots=True)
class Judgement:
    """What came of the tests: `passed` for each hidden test, in order, and the option that each part realises."""

    task: Task
    passed: tuple[bool, ...]
    realised: Mapping[Seat, Mapping[str, str | None]]

    def of_part(self, seat: Seat) -> tuple[bool, ...]:
        """Which hidden tests of a seat's own part pass."""
        tests = zip(self.task.hidden_tests, self.passed, strict=True)
        return tuple(passed for test, passed in tests if test.part == seat)


class HiddenSuite:
    """The expressions of a task: its hidden tests, then its probes; `parts` says whose part each is on, "" the whole.

    A probe asks whether a part follows an option on one input. Every option is probed on the same inputs, among them
    all that hidden tests use, so what is asked does not depend on which option is right. A part realises an option if
    it follows this one and no other on every input, and is AMBIGUOUS if it follows several on any: it reads whatever
    it gets. Such a part has agreed to nothing, so none of its tests passes; and a test of the whole passes only where
    all parts realise one and the same option, whatever else they make of each other's values.
    """

    def __init__(self, task: Task):
        self.task = task
        self._probes = [
            (seat, id, option, i, expression)
            for seat, decisions in task.probes.items()
            for id, options in decisions.items()
            for option, expressions in options.items()
            for i, expression in enumerate(expressions)
        ]
        self.expressions = (*(test.expression for test in task.hidden_tests), *(probe[-1] for probe in self._probes))
        self.parts = (*(test.part for test in task.hidden_tests), *(probe[0] for probe in self._probes))

    def judge(self, holds: Sequence[bool], apart: Sequence[Judgement] = ()) -> Judgement:
        """What it means that these of the `expressions` are true.

        Args:
            holds: for each expression whether it is true.
            apart: what came of the code before the seats' work was merged, where parts can see each other in the merged
                code. A part that follows an option there and in none of these takes it from what it meets: it is
                AMBIGUOUS too.
        """
        count = len(self.task.hidden_tests)
        probes = zip(self._probes, holds[count:], strict=True)
        follows: dict[tuple[Seat, str], dict[int, set[str]]] = {}
        for (seat, id, option, i, _), is_true in probes:
            follows.setdefault((seat, id), {}).setdefault(i, set()).update([option] if is_true else [])
        realised = {
            seat: {d.id: _realised(list(follows.get((seat, d.id), {}).values())) for d in self.task.decisions}
            for seat in self.task.seats
        }
        for seat, options in realised.items() if apart else ():
            for id, option in options.items():
                if option is not None and option not in [judgement.realised[seat][id] for judgement in apart]:
                    options[id] = AMBIGUOUS
        tolerant = {seat for seat, options in realised.items() if AMBIGUOUS in options.values()}
        ends = [{options[d.id] for options in realised.values()} for d in self.task.decisions]
        agreed = not tolerant and all(len(options) == 1 and None not in options for options in ends)
        passed = tuple(
            is_true and (test.part not in tolerant if test.part else agreed)
            for test, is_true in zip(self.task.hidden_tests, holds[:count], strict=True)
        )
        return Judgement(self.task, passed, realised)


def _realised(follows: Sequence[set[str]]) -> str | None:
    """The option that a part realises which follows these options on its inputs, one set for each.

    >>> _realised([{"a"}, {"a"}]), _realised([{"a"}, {"b"}]), _realised([{"a"}, {"a", "b"}])
    ('a', None, '(ambiguous)')
    """
    if any(len(options) > 1 for options in follows):
        return AMBIGUOUS
    common = set.intersection(*follows) if follows else set()
    return next(iter(common), None)
