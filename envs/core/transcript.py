"""An episode as text for a person: who is right, whom the cue points to, what was said, what came of it."""

from collections.abc import Sequence

from envs.core.episode import ActKind, Outcome, Phase, Turn
from envs.core.task import Decision, Task


def transcript(task: Task, turns: Sequence[Turn] = (), outcome: Outcome | None = None) -> str:
    """The whole of an episode, or as far as it has gone; several lines, no trailing newline."""
    lines = [f"{task.id} (family {task.family}, seed {task.seed})"]
    for decision in task.decisions:
        lines += _decision_lines(decision, task.seats)
    last_round = -1
    for turn in turns:
        if turn.round != last_round:
            lines.append(f"-- {turn.phase}")
            last_round = turn.round
        lines += _turn_lines(turn, several=len(task.decisions) > 1)
    if outcome is not None:
        lines += _outcome_lines(task, outcome)
    return "\n".join(lines)


def joint_view(task: Task, turns: Sequence[Turn] = ()) -> str:
    """All briefs and all replies, without the answer: what a central critic may read."""
    briefs = [f"{seat} was told: {task.briefs[seat]}" for seat in task.seats]
    return "\n".join(briefs + [f"{turn.agent} ({turn.phase}): {turn.reply}" for turn in turns])


def _decision_lines(decision: Decision, seats: Sequence[str]) -> list[str]:
    options = " | ".join(decision.options if len(decision.options) <= 20 else [*decision.options[:3], "..."])
    lines = [f"{decision.id}: {options}; right is {decision.best}"]
    for seat in seats:
        if seat not in decision.belief:
            continue
        belief = decision.belief[seat]
        verdict = "right" if decision.is_right(belief) else "wrong"
        lines.append(f"  {seat} is told {decision.told(seat)} ({verdict}) by a {decision.cue[seat]} source")
    return lines


def _turn_lines(turn: Turn, *, several: bool) -> list[str]:
    if turn.parse_error is not None:
        return [f"  {turn.agent} cannot be read ({turn.parse_error}): {turn.reply!r}"]
    if turn.phase is Phase.WORK:
        return [f"  {turn.agent} does:", *(f"    {line}" for line in turn.reply.splitlines())]
    lines = []
    if turn.stances:
        name = "{0.decision} {0.option} ({0.confidence:.0%})" if several else "{0.option} ({0.confidence:.0%})"
        lines.append(f"  {turn.agent} holds {', '.join(name.format(stance) for stance in turn.stances)}")
    else:
        lines.append(f"  {turn.agent} says: {turn.message}" if turn.message else f"  {turn.agent} says nothing")
    if turn.reads:
        lines.append(f"  {turn.agent} reads {', '.join(f'#{id}' for id in turn.reads)}")
    if turn.conflicts:
        lines.append(f"  {turn.agent} may not write before it has read {', '.join(f'#{id}' for id in turn.conflicts)}")
    expected = [act for act in turn.acts if act.kind is ActKind.EXPECT]  # the other acts are part of the message
    lines += [f"  {turn.agent} expects {act.decision} = {act.option} ({act.confidence:.0%})" for act in expected]
    return lines + [f"    {line}" for line in turn.work.splitlines()]


def _outcome_lines(task: Task, outcome: Outcome) -> list[str]:
    lines = ["-- outcome"]
    for decision in task.decisions:
        for seat in task.seats:
            option = outcome.committed[seat][decision.id]
            verdict = "right" if decision.is_right(option) else "wrong"
            lines.append(f"  {seat} committed to {decision.id} = {option or 'none of the options'} ({verdict})")
    lines += [f"  in the memory: {entry.line}" for entry in outcome.memory]
    tests = f", {outcome.tests_passed} of {outcome.tests_total} tests" if outcome.tests_total else ""
    detail = f" ({outcome.detail})" if outcome.detail else ""
    return [*lines, f"  {'success' if outcome.success else 'failure'}, utility {outcome.utility:.2f}{tests}{detail}"]
