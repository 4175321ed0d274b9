"""A Gymnasium space of any Unicode text: Gymnasium's own `Text` has a closed character set, and a model writes more."""

from typing import Any

import numpy as np
from gymnasium.spaces import Space

_SAMPLE_LENGTH = 100  # samples are for smoke tests: long enough to be odd, short enough to read
_ALPHABET = "abcdefghijklmnopqrstuvwxyzAEIOU0123456789 \n\t.,:;()%'\"`#=+-éß中Ω🙂"


class UnicodeText(Space[str]):
    """Every `str` of at most `max_length` characters, the empty one included.

    Args:
        max_length: largest number of characters (Unicode code points), at least 1.
        seed: seed of `sample()`, as in every Gymnasium space.

    Raises:
        ValueError: `max_length` is below 1.
    """

    def __init__(self, max_length: int, *, seed: int | np.random.Generator | None = None):
        if max_length < 1:
            raise ValueError(f"UnicodeText: max_length is {max_length}; it must be at least 1.")
        self.max_length = int(max_length)
        super().__init__(shape=None, dtype=None, seed=seed)

    def sample(self, mask: None = None, probability: None = None) -> str:
        """A random text of 0 to min(max_length, 100) characters; masks do not apply to text and must be None."""
        if mask is not None or probability is not None:
            raise ValueError("UnicodeText.sample takes no mask and no probability: pass None.")
        length = self.np_random.integers(min(self.max_length, _SAMPLE_LENGTH) + 1)
        return "".join(_ALPHABET[i] for i in self.np_random.integers(len(_ALPHABET), size=length))

    def contains(self, x: Any) -> bool:
        return isinstance(x, str) and len(x) <= self.max_length

    @property
    def is_np_flattenable(self) -> bool:
        return False

    def __repr__(self) -> str:
        return f"UnicodeText({self.max_length})"

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, UnicodeText) and self.max_length == other.max_length

    def __hash__(self) -> int:
        return hash(("UnicodeText", self.max_length))
