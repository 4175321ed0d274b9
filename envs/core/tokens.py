"""Text as it is priced and kept. Talk is priced in words and symbols of bounded size, the same for every model."""

import re
from itertools import islice

# Letters of the scripts that put spaces between words: Latin to Sinhala, and the later blocks of Latin and Greek.
_TOKEN = re.compile(r"[A-Za-z_\u00c0-\u0dff\u1e00-\u1fff]{1,12}|[0-9]{1,3}|\S")


def message_tokens(text: str) -> int:
    """Length of a message in words and symbols, the unit in which talk is priced.

    A token is up to 12 letters of a script that has spaces between its words (`_` counts as one), up to 3 digits, or
    any other single character that is no white space: a symbol, an ideograph, an emoji. So a text has at least
    1 token for each 12 of its characters, however they are glued together, and most words of English are one.

    It is no model's token, so a price means the same for every base model; nor is it a measure of information. Who
    leaves out the spaces says two or three words for one token, and seats that agree on a code beforehand can put
    some 140 bits into one. White space is free: what is shown to others must have it collapsed.

    >>> message_tokens("use RS256, please")
    5
    >>> message_tokens("use" * 8), message_tokens("2026"), message_tokens("十七")
    (2, 2, 2)
    """
    return len(_TOKEN.findall(text))


def first_tokens(text: str, count: int) -> str:
    """The text up to its `count`-th token; all of it where it has no more.

    >>> first_tokens("use RS256, please", 4)
    'use RS256,'
    """
    after = next(islice(_TOKEN.finditer(text), max(0, min(count, len(text))), None), None)
    return text if after is None else text[: after.start()].rstrip()


def written(text: str) -> str:
    """The text as a file can hold it: halves of surrogate pairs, which no encoding has, become question marks.

    >>> written("so \\ud83d be it")
    'so ? be it'
    """
    return text.encode("utf-8", "replace").decode("utf-8")


def one_line(text: object) -> str:
    r"""Text of something, such as an error, with single spaces for whatever is between its words.

    >>> one_line(" not\n  there")
    'not there'
    """
    return " ".join(str(text).split())
