"""What came of the episodes: results, faults, replies that could not be read, facts kept back, parts that clash."""

import re
from collections.abc import Collection, Sequence

from envs.core.episode import ActKind, Episode
from envs.core.task import Decision, Seat
from rewards.metrics.rate import Rate, faulted, seats_and_decisions, share

Seats = Collection[Seat] | None  # those that a number is about; None: all


def success(episode: Episode) -> Rate:
    """P(task solved). Range: [0, 1], more is better. Cases: episodes. Source: our own."""
    return Rate(float(episode.outcome.success), 1)


def utility(episode: Episode) -> Rate:
    """Mean team result U. Range: [0, 1], more is better. Cases: episodes. Source: our own."""
    return Rate(episode.outcome.utility, 1)


def parse_rate(episode: Episode, seats: Seats = None) -> Rate:
    """P(a turn was read without error). Range: [0, 1], more is better. Cases: turns. Source: our own."""
    return share([turn.parse_error is None for turn in episode.turns if seats is None or turn.agent in seats])


def truncation_rate(episode: Episode, seats: Seats = None) -> Rate:
    """P(a turn was cut at its limit of length). Range: [0, 1], less is better. Cases: turns. Source: our own."""
    return share([turn.truncated for turn in episode.turns if seats is None or turn.agent in seats])


def silence_rate(episode: Episode, seats: Seats = None) -> Rate:
    """P(a seat never named what its source claims, in a message, an act or the memory | a partner needed that).

    A partner needed it where it is right and the partner was told wrong or nothing, or where a blend of both claims is
    right. Talk that does not name it is silence, and talk that names every option is not: read it beside `success`.
    Range: [0, 1], less is better. Cases: seats and decisions on which that is so. Source: our own, after the hidden
    profiles of arXiv 2505.11556.
    Example: a seat is told right and its partner wrong in two tasks, and it says `52`, its claim, in one, `ok` in the
    other: 1/2.
    """
    needed = [(s, d) for s, d in seats_and_decisions(episode, seats) if _is_needed(episode, s, d)]
    return share([not _told(episode, seat, decision) for seat, decision in needed])


def _is_needed(episode: Episode, seat: Seat, decision: Decision) -> bool:
    if seat not in decision.belief or len(episode.seats) == 1:
        return False
    partners = [decision.is_right(decision.belief.get(partner)) for partner in episode.partners_of(seat)]
    return decision.best in decision.blends or (decision.is_right(decision.belief[seat]) and not all(partners))


def _told(episode: Episode, seat: Seat, decision: Decision) -> bool:
    claim = decision.belief[seat]
    ids = [other.id for other in episode.task.decisions]
    return (
        any(claim in _named(turn.message, decision, ids) for turn in episode.turns_of(seat))
        or any(
            (act.decision, act.option) == (decision.id, claim) and act.kind is not ActKind.EXPECT
            for turn in episode.turns_of(seat)
            for act in turn.acts
        )
        or any(
            entry.author == seat and claim in _named(f"{entry.key or ''} {entry.text}", decision, ids)
            for entry in episode.outcome.memory
        )
    )


def _named(text: str, decision: Decision, ids: Sequence[str]) -> set[str]:
    """The options of a decision that a text names; what stands after the name of another decision is not on it.

    >>> d = Decision(id="key", options=("17", "23"), utility={}, belief={}, expert="", cue={})
    >>> _named("key: 17 or 117, size: 23", d, ["key", "size"])
    {'17'}
    """
    parts = re.split(rf"(?<!\w)({'|'.join(map(re.escape, ids))})(?!\w)", text, flags=re.IGNORECASE)
    on_it = [parts[0]] + [said for name, said in zip(parts[1::2], parts[2::2], strict=True) if name == decision.id]
    longest_first = "|".join(re.escape(option) for option in sorted(decision.options, key=len, reverse=True))
    found = re.findall(rf"(?<!\w)(?:{longest_first})(?!\w)", " ; ".join(on_it), re.IGNORECASE)
    by_name = {option.casefold(): option for option in decision.options}
    return {by_name[option.casefold()] for option in found}


def textual_conflict_rate(episode: Episode) -> Rate:
    """P(the textual merge of the proposals has conflicts).

    Range: [0, 1], less is better. Cases: episodes with a merge on record, not of a seat alone, who merges with nobody.
    Source: Brun et al. (2011); CooperBench counts 77.5 % among its reference solutions (505 of 652 pairs, by git).
    """
    merge = episode.outcome.merge
    return Rate(float(merge.conflict), 1) if merge and len(episode.seats) > 1 else Rate()


def semantic_conflict_rate(episode: Episode) -> Rate:
    """P(the task fails | the merge is clean and each part works alone).

    Where a merge is on record: it has no textual conflict, and each part passes its own tests on its own branch. Else
    parts cannot conflict textually, and one works alone that realises one option of each decision; they clash where
    the options differ. Range: [0, 1], less is better. Cases: episodes with code of which that is true.
    Source: the test conflicts of Brun et al. (2011).
    """
    outcome = episode.outcome
    if outcome.merge:
        alone = [outcome.parts[seat].alone if seat in outcome.parts else (False,) for seat in episode.seats]
        works = not outcome.merge.conflict and all(map(all, alone))
        return Rate(float(not outcome.success), 1) if works else Rate()
    realised = [[episode.committed(seat, d.id) for seat in episode.seats] for d in episode.task.decisions]
    if not episode.task.stubs or any(None in options for options in realised):
        return Rate()
    clash = any(len(set(options)) > 1 for options in realised)
    return Rate(float(clash and not outcome.success), 1)


def sandbox_fault_rate(episode: Episode) -> Rate:
    """P(the machine failed, and not the seats). Range: [0, 1]. Cases: all episodes, these too. Source: our own."""
    return Rate(float(faulted(episode)), 1)
