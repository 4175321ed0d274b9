"""What came of the episodes: results, faults, replies that could not be read, facts kept back, parts that clash."""

from envs.core.episode import Episode
from envs.core.task import Seat
from rewards.metrics.rate import Rate, faulted, share


def success(episode: Episode) -> Rate:
    """P(task solved). Range: [0, 1]. Cases: episodes. Source: our own."""
    return Rate(float(episode.outcome.success), 1)


def utility(episode: Episode) -> Rate:
    """Mean team result U. Range: [0, 1]. Cases: episodes. Source: our own."""
    return Rate(episode.outcome.utility, 1)


def parse_rate(episode: Episode) -> Rate:
    """P(a turn was read without error). Range: [0, 1]. Cases: turns. Source: our own."""
    return share([turn.parse_error is None for turn in episode.turns])


def truncation_rate(episode: Episode) -> Rate:
    """P(a turn was cut at its limit of length). Range: [0, 1], less is better. Cases: turns. Source: our own."""
    return share([turn.truncated for turn in episode.turns])


def silence_rate(episode: Episode) -> Rate:
    """P(a seat said and wrote down nothing in the whole episode | it held a fact that a partner needed).

    It held one where, on some decision, its brief was right and a partner's was wrong, or a blend of their estimates is
    right. Range: [0, 1], less is better.
    Cases: seats that held one. Source: our own, after the hidden profiles of arXiv 2505.11556.
    """
    needed = [seat for seat in episode.seats if _knows(episode, seat)]
    told = {turn.agent for turn in episode.turns if turn.message} | {entry.author for entry in episode.outcome.memory}
    return share([seat not in told for seat in needed])


def _knows(episode: Episode, seat: Seat) -> bool:
    return any(
        decision.best in decision.blends
        or decision.is_right(decision.belief.get(seat))
        and not all(decision.is_right(decision.belief.get(partner)) for partner in episode.partners_of(seat))
        for decision in episode.task.decisions
    )


def textual_conflict_rate(episode: Episode) -> Rate:
    """P(the textual merge of the proposals has conflicts).

    Range: [0, 1], less is better. Cases: episodes with a merge on record. Source: Brun et al. (2011); CooperBench
    counts 77.5 % among its reference solutions (505 of 652 pairs, by git).
    """
    merge = episode.outcome.merge
    return Rate(float(merge.conflict), 1) if merge else Rate()


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
    """P(the machine failed, and not the seats). Range: [0, 1]. Cases: all episodes, these ones too."""
    return Rate(float(faulted(episode)), 1)
