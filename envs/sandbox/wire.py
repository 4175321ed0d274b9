"""What passes between the library, its fork server and the children: frames, and plain data as JSON.

    request   HEADER; for each process SIZES; for each process a body, by `marshal`
    body      the name and the source of the part to run, or None; the expressions to evaluate then
    word      SIZES, from the server to a child that waits: the next body is for it
    reply     READY once all are confined, then for each process REPLY and what it wrote; or a byte and a reason
    written   for each expression a line: its value as `encode` gives it, or NO_VALUE; then DONE or OUT_OF_MEMORY

A value is None, bool, int, float, str, bytes, list, tuple, dict, set or frozenset, by exact type: no subclass, no
object with a method of its own. JSON, because reading it can do nothing but make these; `pickle` and `marshal` can do
more, so what a child wrote never meets them.

>>> encode((1, {"a": {2.0}})), decode(encode((1, {"a": {2.0}})))
('["tuple", 1, ["dict", ["a", ["set", 2.0]]]]', (1, {'a': {2.0}}))
"""

import json
import struct

HEADER = struct.Struct("=IdQQ")  # how many processes; for each of them wall seconds, CPU seconds, bytes of memory
SIZES = struct.Struct("=II")  # of the body, of the longest answer
REPLY = struct.Struct("=BI")  # ANSWERED or OVER_TIME, size of what follows
ANSWERED, OVER_TIME = range(2)
READY = b"R"  # from here on a failure is the submitted code's
START_S = 20.0  # what is not ready by then is a fault of the machine
DONE, OUT_OF_MEMORY, NO_VALUE = b"done", b"out of memory", b"-"
MAX_CHARS = 16_384  # of one value as JSON

_ATOMS = (type(None), bool, int, float, str)
_SEQUENCES = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}


def encode(value) -> str:
    """One line of JSON. Raises ValueError if the value is not plain, too large or too deep."""
    try:
        text = json.dumps(_tag(value))
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if len(text) > MAX_CHARS:
        raise ValueError(f"more than {MAX_CHARS} characters as JSON")
    return text


def decode(text: str):
    """The value that `encode` was given. Raises ValueError on any other text."""
    if len(text) > MAX_CHARS:
        raise ValueError(f"more than {MAX_CHARS} characters as JSON")
    try:
        return _untag(json.loads(text))
    except (TypeError, LookupError, RecursionError) as error:
        raise ValueError(f"not an encoded value: {error}") from None


def _tag(value):
    kind = type(value)
    if kind in _ATOMS:
        return value
    if kind is bytes:
        return ["bytes", value.hex()]
    if kind is dict:
        return ["dict", *([_tag(key), _tag(item)] for key, item in value.items())]
    if kind in _SEQUENCES.values():
        return [kind.__name__, *map(_tag, value)]
    raise ValueError(f"{kind} is not plain data")


def _untag(tree):
    if type(tree) in _ATOMS:
        return tree
    kind, *items = tree
    if kind == "bytes":
        return bytes.fromhex(*items)
    if kind == "dict":
        return {_untag(key): _untag(item) for key, item in items}
    return _SEQUENCES[kind](map(_untag, items))
