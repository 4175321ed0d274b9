"""Finding a thing by its name, with the nearest match in the error."""

from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any


def find(name: str, known: Mapping[str, Any], *, kind: str) -> Any:
    """The value of `name` in `known`, or the attribute that a dotted path such as `my_lab.tasks:Rounding` leads to.

    Args:
        name: a key of `known`, or `package.module:attribute`.
        known: what comes with the library, by name.
        kind: what is looked for, in words, for the message ("environment", "family").

    Raises:
        ValueError: there is no such name; the message gives the nearest one, or why the path leads nowhere.
    """
    if name in known:
        return known[name]
    module, colon, attribute = name.partition(":")
    if not colon:
        near = get_close_matches(name.casefold(), [key.casefold() for key in known], n=1, cutoff=0.5)
        hint = "".join(f" Did you mean {key!r}?" for key in known if key.casefold() in near)
        raise ValueError(
            f"There is no {kind} {name!r}.{hint} Known: {', '.join(known)}; or a dotted path 'package.module:Name'."
        )
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        remedy = "Check the path, or add the folder of the module to PYTHONPATH."
        raise ValueError(f"The {kind} {name!r} cannot be imported: {error}. {remedy}") from error
