"""Keys stay in the environment: no configuration, record or message has one."""

import os
import re
from urllib.parse import urlsplit

SHORTEST = 16  # characters of what is taken for a key: any shorter value may stand in a text by chance


def check_address(url: str) -> None:
    """Refuse an address with a secret in it: a run's address is in its records, tables and messages.

    >>> check_address("https://me:password@host/v1")
    Traceback (most recent call last):
    ...
    ValueError: the address of 'host' has a user, a password or a query in it, which a run's records would show: ...

    Raises:
        ValueError: it has a user, a password or a query; the message does not have them.
    """
    try:
        parts = urlsplit(url)
        host, _, secret = parts.hostname, parts.port, "@" in parts.netloc or parts.query
    except ValueError:  # whose text may quote a password
        raise ValueError("an address is none: its host or port cannot be read") from None
    if secret:
        raise ValueError(
            f"the address of {host!r} has a user, a password or a query in it, which a run's records would show: give "
            "the key by the environment ($OPENAI_API_KEY for an endpoint, $VLLM_API_KEY for a vLLM server)"
        )


def key_of(variable: str) -> str | None:
    """The key that a variable of the environment has, without space around it, which no header may have; None: none."""
    return os.environ.get(variable, "").strip() or None


def sent_key(variable: str) -> str | None:
    """`key_of`, for a header.

    Raises:
        ValueError: no header can have it; the message does not have it.
    """
    key = key_of(variable)
    if key and not (key.isascii() and key.isprintable()):
        raise ValueError(f"${variable} has a character that no key has: set it anew")
    return key


def keys_here() -> dict[str, str]:
    """The keys in the environment, by variables that are called so: those too long to stand in a text by chance."""
    called = (name for name in os.environ if re.search("(KEY|TOKEN|SECRET|PASSWORD)$", name, re.IGNORECASE))
    return {name: key for name in called if len(key := key_of(name) or "") >= SHORTEST}


def masked(text: str, variable: str) -> str:
    """A text of a server, some of which quote the key that they were sent, with the variable's name in its place."""
    key = key_of(variable)
    for form in (key, repr(key)[1:-1]) if key else ():  # a client quotes bytes
        text = text.replace(form, f"${variable}")
    return text
