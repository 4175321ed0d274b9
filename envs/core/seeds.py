"""Seeds: named streams of tasks, so that no training plays a task of an evaluation, and seeds of what is drawn."""

from enum import Enum

import numpy as np

_FAR = 2**64  # from here on a seed spells out its stream, its run and its index
_INDEX_BITS = 40


class Stream(Enum):
    """Who plays the tasks: the first seed of its range, the first after it, and how many a run has in there."""

    TRAINING = (0, 2**39, 10_000_000)
    AUDIT = (2**39, 2**40, 2**39)
    WARM_UP = (2**40, 2**41, 2**40)
    EVALUATION = (2**41, 2**42, 1_000_000)
    VALIDATION = (2**42, 2**43, 1_000_000)  # while training, to choose a checkpoint by


def task_seed(stream: Stream, seed: int, index: int) -> int:
    """The seed of task `index` (0 to 2**40 - 1) in a stream of the run `seed` (0 to 2**63 - 1).

    No two triples have the same: a run whose tasks do not fit into the range of its stream has them from 2**64 on.

    >>> task_seed(Stream.TRAINING, 3, 7), task_seed(Stream.EVALUATION, 0, 7) - 2**41
    (30000007, 7)
    >>> task_seed(Stream.TRAINING, 10**9, 0) > 2**64
    True

    Raises:
        ValueError: the seed or the index is out of range.
    """
    if not 0 <= seed < 2**63:
        raise ValueError(f"seed is {seed!r}; it must be from 0 to 2**63 - 1.")
    if not 0 <= index < 2**_INDEX_BITS:
        raise ValueError(f"index is {index!r}; a stream has the tasks 0 to 2**{_INDEX_BITS} - 1.")
    first, end, each = stream.value
    near = first + seed * each + index
    if index < each and near < end:
        return near
    place = list(Stream).index(stream)
    return _FAR + ((seed * len(Stream) + place) << _INDEX_BITS) + index


def stable_seed(*key: int) -> int:
    """A 63-bit seed that depends on every number of the key and on nothing else.

    >>> stable_seed(1, 2) == stable_seed(1, 2), stable_seed(1, 2) == stable_seed(2, 1)
    (True, False)
    """
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1))
