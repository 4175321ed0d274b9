"""What `reset` and `step` are given, checked before it is used."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from envs.core.lookup import alike, did_you_mean
from envs.core.task import Seat, Task

RESET_OPTIONS = ("task", "muted")


def reset_options(options: Mapping[str, Any] | None, seats: Sequence[Seat]) -> tuple[Task | None, frozenset[Seat]]:
    """What the options of `reset` say: the task to play, None for the next one, and the seats whose words reach nobody.

    Options of other names are ignored, as PettingZoo wants it, but for what looks like a slip.

    Raises:
        ValueError: an option is misspelt, of another kind or for other seats.
    """
    if not isinstance(options, Mapping | None):
        raise ValueError(f"reset: options is {options!r}; it must be a mapping of {' and '.join(RESET_OPTIONS)}.")
    for name in options or {}:
        if name not in RESET_OPTIONS and alike(name, RESET_OPTIONS):
            raise ValueError(f"reset: there is no option {name!r}.{did_you_mean(name, RESET_OPTIONS)}")
    task, muted = (options or {}).get("task"), (options or {}).get("muted", ())
    if not isinstance(task, Task | None):
        raise ValueError(f"reset: options['task'] is a {type(task).__name__}; it must be an envs.core.task.Task.")
    if task is not None and tuple(task.seats) != tuple(seats):
        raise ValueError(f"reset: the task has the seats {task.seats}; this environment plays {tuple(seats)}.")
    muted = () if muted is None else muted
    if isinstance(muted, str) or not isinstance(muted, Collection) or not all(seat in seats for seat in muted):
        raise ValueError(f"reset: options['muted'] is {muted!r}; it must be a list of seats, of {', '.join(seats)}.")
    return task, frozenset(muted)


def check_actions(actions: Mapping[Seat, Any], acting: Sequence[Seat], seats: Sequence[Seat], most: int) -> None:
    """Raises ValueError where the actions of a step leave out a seat that acts, are of no seat, or are no text of at
    most so many characters."""
    if not set(acting) <= set(actions) <= set(seats):
        raise ValueError(f"step: actions are for {sorted(actions)}; give exactly one for each of {list(acting)}.")
    for seat, action in actions.items():
        if not (isinstance(action, str) and len(action) <= most):
            what = f"{len(action)} characters" if isinstance(action, str) else f"a {type(action).__name__}"
            raise ValueError(f"step: the action of {seat} is {what}; give a str of at most {most} characters.")
