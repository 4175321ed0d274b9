"""Shared memory: whether what was written is found again, and whether what is found is still true.

All of it is read off the record: `Turn.reads` are ids of entries in `Outcome.memory`, whose `clock` is the round of
writing; in a round everybody writes before anybody reads. What a store is worth is the difference in `utility` that
`compare` gives between episodes without one and with it, at an equal `budget`.
"""

from collections.abc import Iterator

from envs.core.episode import Entry, Episode, Turn
from envs.core.task import Seat
from rewards.metrics.rate import Rate, share


def memory_tokens_per_episode(episode: Episode) -> Rate:
    """Mean tokens that all seats together wrote into the memory and read from it.

    Range: from 0. Cases: episodes with a memory that was used. Source: our own.
    """
    tokens = sum(turn.memory_tokens for turn in episode.turns)
    return Rate(float(tokens), 1) if tokens else Rate()


def memory_recall(episode: Episode) -> Rate:
    """P(the final answer is right | the seat's own brief says nothing of the decision): facts that had to reach it.

    Range: [0, 1]. Cases: seats and decisions of which others were told and the seat was not. Source: our own; a probe
    that needs no judge.
    """
    told = [decision for decision in episode.task.decisions if decision.belief]
    unknown = [(seat, decision) for decision in told for seat in episode.seats if seat not in decision.belief]
    return share([decision.is_right(episode.committed(seat, decision.id)) for seat, decision in unknown])


def memory_staleness(episode: Episode) -> Rate:
    """P(a newer version had been written | an entry is read).

    Range: [0, 1], less is better. Cases: entries read, each reading counted. Source: the stale reads of shared memory.
    Example: the key is written in round 0 and again in round 1; reading the first version in round 1 is stale.
    """
    return share([_replaced(episode, entry, turn.round) for turn, entry in _readings(episode)])


def _replaced(episode: Episode, entry: Entry, round: int) -> bool:
    return entry.key is not None and any(
        other.key == entry.key and entry.id < other.id and other.clock <= round for other in episode.outcome.memory
    )


def memory_conflict_lead(episode: Episode) -> Rate:
    """Mean rounds from a write that was refused, because its author had not read the latest version, to the end.

    Range: from 0; the earlier a conflict is seen the more can be done about it. Cases: turns with a refused write.
    Source: our own.
    """
    last = max((turn.round for turn in episode.turns), default=0)
    leads = [last - turn.round for turn in episode.turns if turn.conflicts]
    return Rate(float(sum(leads)), len(leads))


def memory_compression(episode: Episode) -> Rate:
    """Tokens of all that was written for each token that is live in the end.

    Range: from 1, which is a memory without summaries. Cases: live tokens. Source: our own.
    """
    memory = episode.outcome.memory
    covered = {id for entry in memory if entry.level for id in entry.parents}
    written = sum(entry.n_tok for entry in memory if not entry.level)
    return Rate(float(written), sum(entry.n_tok for entry in memory if entry.id not in covered))


def memory_write_precision(episode: Episode) -> Rate:
    """P(an entry is ever read | it was written).

    Range: [0, 1]. Cases: entries that seats wrote, summaries aside. Source: our own.
    """
    read = {entry.id for _, entry in _readings(episode)}
    return share([entry.id in read for entry in episode.outcome.memory if not entry.level])


def memory_poison_rate(episode: Episode) -> Rate:
    """P(the final answer is the wrong value that another than the expert wrote under the key | the seat read it).

    A reader that looks at the author of an entry, and at its version, is at 0. Range: [0, 1], less is better.
    Cases: seats and decisions for which the seat read such an entry. Source: our own.
    """
    cases = []
    for decision in episode.task.decisions:
        for seat in episode.seats:
            poison = {e.text for e in _read_by(episode, seat) if e.key == decision.id and e.author != decision.expert}
            poison = {text for text in poison if not decision.is_right(text)}
            if poison:
                cases.append(episode.committed(seat, decision.id) in poison)
    return share(cases)


def _readings(episode: Episode) -> Iterator[tuple[Turn, Entry]]:
    return ((turn, episode.outcome.memory[id]) for turn in episode.turns for id in turn.reads)


def _read_by(episode: Episode, seat: Seat) -> Iterator[Entry]:
    return (entry for turn, entry in _readings(episode) if turn.agent == seat)
