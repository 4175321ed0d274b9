"""The child of `envs.sandbox`: reads a request, limits itself, runs the parts, evaluates the expressions.

Run as a script; the parent imports `READY` only. It uses only modules that are built in or quick to load: starting is
most of its cost.
"""

import builtins
import marshal
import os
import resource
import sys
import types  # noqa: F401  loaded now: half of the library needs it, and on loading it reads a frame

READY = b"R"  # written once the limits hold: from here on a failure is the submitted code's

ALLOWED_EVENTS = frozenset(
    (
        *("import", "compile", "exec", "open", "marshal.loads", "os.listdir", "os.scandir", "builtins.id"),
        *("code.__new__", "function.__new__", "array.__new__", "time.sleep", "sys._getframemodulename"),
        *("object.__getattr__", "object.__setattr__", "object.__delattr__", "sys.excepthook", "sys.unraisablehook"),
    )
)
REFUSED_MODULES = frozenset(
    ("ctypes", "_ctypes", "_posixsubprocess", "_multiprocessing", "_testcapi", "_socket", "gc"),
)
WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def audit(event, args):
    """Refuse every audited act of the interpreter but imports, compiling and reading files.

    ValueError, because the standard library expects it where `sys._getframe` has nothing to give (namedtuple).
    """
    if event not in ALLOWED_EVENTS:
        raise ValueError(f"the sandbox refuses {event}")
    if event == "open" and args[2] & WRITE_FLAGS:
        raise ValueError(f"the sandbox refuses to open {args[0]!r} for writing")
    if event == "import" and args[0] in REFUSED_MODULES:
        raise ValueError(f"the sandbox refuses to import {args[0]}")
    if event == "object.__getattr__" and args[1] in ("tb_frame", "gi_frame", "cr_frame"):
        raise ValueError(f"the sandbox refuses {args[1]}")


def same(x, y):
    """Equal value and type, inside containers too; int and float count as one type. No object can claim it by `==`."""
    if type(y) in (int, float):
        return type(x) in (int, float) and x == y
    if type(x) is not type(y):
        return False
    if type(y) in (list, tuple):
        return len(x) == len(y) and all(same(a, b) for a, b in zip(x, y, strict=True))
    if type(y) is dict:
        return same(list(x.items()), list(y.items()))
    return type(y) in (str, bool, type(None)) and x == y


def limit(cpu_s, memory_bytes):
    for kind, value in (
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_NOFILE, 16),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (value, value))


def run(parts, expressions):
    """(out of memory?, one byte per expression). Each part has its own namespace and hands over one name."""
    handed_over, out_of_memory = {}, False
    for name, source in parts:
        space = {"__builtins__": dict(vars(builtins)), "__name__": "part"}
        try:
            exec(compile(source, "part", "exec", dont_inherit=True), space)
        except BaseException as error:
            out_of_memory |= isinstance(error, MemoryError)
        if name in space:
            handed_over[name] = space[name]
    passed = bytearray()
    for expression in expressions:
        space = {"__builtins__": dict(vars(builtins)), "same": same, **handed_over}
        try:
            passed.append(eval(expression, space) is True)
        except BaseException as error:
            out_of_memory |= isinstance(error, MemoryError)
            passed.append(False)
    return out_of_memory, passed


def main():
    nonce, cpu_s, memory_bytes, parts, expressions = marshal.loads(sys.stdin.buffer.read())
    channel = os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    leave = os._exit
    write = os.write
    limit(cpu_s, memory_bytes)
    write(channel, READY)
    sys.addaudithook(audit)
    out_of_memory, passed = run(parts, expressions)
    write(channel, nonce + bytes([out_of_memory]) + passed)
    leave(0)


if __name__ == "__main__":
    main()
