"""Which expressions on submitted code are true: values come from a child, the comparison is made here."""

import contextlib
import functools
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from envs.sandbox import wire
from envs.sandbox.executor import ask
from envs.sandbox.expressions import NoValue, Question, take_apart
from envs.sandbox.forks import Body, Lost


class Status(StrEnum):
    OK = "ok"
    TIMEOUT = "timeout"  # the code ran past its time
    MEMORY = "memory"  # the code asked for more memory than it may have
    CRASH = "crash"  # the process ended without an answer, or with none that can be read
    FAULT = "fault"  # infrastructure: no process was ready to run the code; nobody's failure


class Part(NamedTuple):
    """One seat's source text and the one name that tests take from it."""

    name: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpressionVerdict:
    """`passed` has one value per expression, in order; all are False unless the status is OK or MEMORY."""

    passed: tuple[bool, ...]
    status: Status
    detail: str = ""


class _NotRepeatable(Exception):
    """Ends a run past the cache: how long something took on a busy machine need not happen again."""

    def __init__(self, status: Status, detail: str):
        super().__init__(detail)
        self.status = status


def run_expressions(
    parts: tuple[Part, ...], expressions: tuple[str, ...], *, timeout_s: float = 2.0, memory_mb: int = 256
) -> ExpressionVerdict:
    """Whether each expression on the parts' names is `True`.

    An expression combines, with `and`, `or`, `not`, comparisons and `same(x, y)` (equal in value and type, see
    `envs.sandbox.same`), the values of calls and other sub-expressions. A fresh process computes these values; they are
    compared here, so it never learns what was expected. A value must be plain data (`envs.sandbox.wire`), at most
    16,384 characters as JSON; with any other value, and with an exception, the expression is False. That
    holds for a name that no part has, too: it may be the function that nobody wrote.

    Each part has a process of its own, in which there is nothing of any other part, and nothing of the tests but the
    sub-expressions on this part, sorted. What one part makes of another's value, `decode(encode(5))`, is asked of a
    further process, which gets the value and not its source; where the same was asked anyway, nobody is asked twice. A
    part that fails (syntax error, exception) leaves the others usable. If a process ends early or runs out of time,
    everything is False.

    Verdicts are cached by content, except time-outs and faults.

    Args:
        parts: what the seats wrote.
        expressions: Python expressions on the parts' names.
        timeout_s: wall time in seconds for each process, from the moment it is ready; above 0, at most a day.
        memory_mb: address space in MiB, at least 64.

    Raises:
        ValueError: a limit is out of its range, or an expression is no Python or cannot be taken apart: it compares
            where submitted code could, or hands a function of one part to another.
        SandboxError: a layer that MARL_COOP_SANDBOX demands does not hold here.

    >>> part = Part("double", "def double(n): return 2 * n")
    >>> run_expressions((part,), ("same(double(4), 8)", "double(1) > 2 or double(3) == 6", "double(4)")).passed
    (True, True, False)
    >>> run_expressions((part,), ("triple(1) == 3",)).passed
    (False,)
    """
    if not 0 < timeout_s <= 86_400:
        raise ValueError(f"timeout_s is {timeout_s!r}; it must be above 0 seconds and at most a day.")
    if not 64 <= memory_mb < 2**32:
        raise ValueError(f"memory_mb is {memory_mb!r}; an interpreter needs at least 64 MiB, and no machine has 2**32.")
    try:
        return verdict_of(tuple(parts), tuple(expressions), timeout_s, memory_mb)
    except _NotRepeatable as error:
        return ExpressionVerdict(passed=(False,) * len(expressions), status=error.status, detail=str(error))


@functools.lru_cache(maxsize=4096)
def verdict_of(
    parts: tuple[Part, ...], expressions: tuple[str, ...], timeout_s: float, memory_mb: int
) -> ExpressionVerdict:
    """What `run_expressions` promises, remembered by content."""
    questions = [take_apart(text) for text in expressions]
    by_name = {part.name: part for part in parts}
    values: dict[str, Any] = {}
    status = Status.OK
    while processes := _processes(by_name, questions, values):
        try:
            replies = ask(processes, timeout_s=timeout_s, memory_mb=memory_mb)
        except Lost as lost:
            raise _NotRepeatable(Status.CRASH if lost.started else Status.FAULT, str(lost)) from lost
        if any(reply.ended == wire.OVER_TIME for reply in replies):
            raise _NotRepeatable(Status.TIMEOUT, f"over {timeout_s} s")
        for body, reply in zip(processes, replies, strict=True):
            *lines, end = reply.written.split(b"\n")
            if len(lines) != len(body.expressions) or end not in (wire.DONE, wire.OUT_OF_MEMORY):
                nothing = (False,) * len(expressions)
                detail = "the process ended without an answer"
                return ExpressionVerdict(passed=nothing, status=Status.CRASH, detail=detail)
            status = Status.MEMORY if end == wire.OUT_OF_MEMORY else status
            for text, line in zip(body.expressions, lines, strict=True):
                values[text] = NoValue
                with contextlib.suppress(ValueError):  # no value, or something that is none
                    values[text] = wire.decode(line.decode("ascii"))
    passed = tuple(_holds(question, by_name, values) for question in questions)
    return ExpressionVerdict(passed=passed, status=status)


def _processes(by_name: Mapping[str, Part], questions: list[Question], values: Mapping[str, Any]) -> list[Body]:
    """What to ask next, one process for each part. Expressions are sorted: their order tells no more than they do."""
    asked: dict[str | None, set[str]] = {}
    for question in questions:
        for text, part in question.asked(by_name.keys(), values).items():
            asked.setdefault(part, set()).add(text)
    return [Body(by_name[part] if part else None, tuple(sorted(texts))) for part, texts in asked.items()]


def _holds(question: Question, names: Collection[str], values: Mapping[str, Any]) -> bool:
    try:
        return question.answer(names, values) is True
    except (LookupError, TypeError, RecursionError):  # a leaf without a value; a comparison that Python does not have
        return False
