"""Text as it is counted and kept. The unit in which talk is priced is words and symbols, the same for every model."""

import re
from itertools import islice

_WORD_OR_SYMBOL = re.compile(r"\w+|[^\w\s]")


def message_tokens(text: str) -> int:
    """Length of a message in words and symbols, the unit in which talk is priced.

    It depends on no model's tokenizer, so a price means the same for every base model.

    >>> message_tokens("use RS256, please")
    4
    """
    return len(_WORD_OR_SYMBOL.findall(text))


def first_tokens(text: str, count: int) -> str:
    """The text up to its `count`-th word or symbol; all of it where it has no more.

    >>> first_tokens("use RS256, please", 3)
    'use RS256,'
    """
    after = next(islice(_WORD_OR_SYMBOL.finditer(text), max(0, count), None), None)
    return text if after is None else text[: after.start()].rstrip()


def written(text: str) -> str:
    """The text as a file can hold it: halves of surrogate pairs, which no encoding has, become question marks.

    >>> written("so \\ud83d be it")
    'so ? be it'
    """
    return text.encode("utf-8", "replace").decode("utf-8")
