"""A warm interpreter with one thread that forks a child for every request, and the child. A script of `envs.sandbox`.

The protocol is in `wire`. The server reads the header of a request only, and the child its body, so no child finds an
earlier request in the memory that it inherits. The server is trusted and never looks into what a child wrote.
"""

import builtins
import contextlib
import gc
import importlib
import json
import marshal
import os
import select
import signal
import sys
import time

import kernel
import wire

# What submitted code can import: no other module is loaded, and a child can open no file.
MODULES = """
abc array ast base64 binascii bisect calendar cmath codecs collections.abc colorsys contextlib copy csv dataclasses
datetime decimal difflib enum errno fnmatch fractions functools graphlib hashlib heapq hmac html inspect io ipaddress
itertools keyword locale math numbers operator pathlib pprint random re reprlib secrets shlex stat
statistics string textwrap timeit token tokenize traceback types typing unicodedata urllib.parse uuid warnings
weakref zlib _strptime encodings.ascii encodings.base64_codec encodings.cp1252 encodings.hex_codec encodings.idna
encodings.latin_1 encodings.punycode encodings.raw_unicode_escape encodings.rot_13 encodings.unicode_escape
encodings.utf_16 encodings.utf_16_be encodings.utf_16_le encodings.utf_32 encodings.utf_8_sig
""".split()

# What the interpreter itself still lets code do. Code can get around this list, but not around the kernel's.
EVENTS = frozenset("""
import compile exec builtins.id code.__new__ function.__new__ array.__new__ time.sleep sys._getframe
sys._getframemodulename sys._current_frames object.__getattr__ object.__setattr__ object.__delattr__ sys.excepthook
sys.unraisablehook gc.get_objects gc.get_referrers gc.get_referents
""".split())  # fmt: skip


def audit(event, args):
    if event not in EVENTS:
        raise PermissionError(f"the sandbox refuses {event}")


def own_user(memory):
    users = kernel.LAST_USER - kernel.FIRST_USER + 1
    kernel.become(kernel.FIRST_USER + os.getpid() % users)


# In the order in which they can be laid on, each with an act that must fail from then on.
LAYERS = {
    "user": (own_user, lambda: os.setuid(0), PermissionError),
    "landlock": (lambda memory: kernel.landlock(kernel.ruleset()), lambda: os.open("/", os.O_RDONLY), PermissionError),
    "memory": (lambda memory: kernel.limit(AS=memory), lambda: bytearray(2**30), MemoryError),
    "seccomp": (lambda memory: kernel.seccomp(kernel.call_filter()), lambda: os.kill(os.getpid(), 0), PermissionError),
}


def trial(layer):
    """Lay one layer on this process; why it does not hold here, or an empty string."""
    lay_on, forbidden, refusal = LAYERS[layer]
    try:
        lay_on(2**28)
    except OSError as error:
        return error.strerror
    try:
        forbidden()
    except refusal:
        return ""
    return "the kernel accepts it and does not enforce it"


def missing_layers():
    """Layer -> why this machine does not have it, found out by trying each in a child."""
    missing = {}
    for prepare in (kernel.ruleset, kernel.call_filter):
        with contextlib.suppress(OSError):  # the trials below say why
            prepare()
    for layer in LAYERS:
        read_end, write_end = os.pipe()
        child = os.fork()
        if not child:
            try:
                os.write(write_end, trial(layer).encode() or b"holds")
            finally:
                os._exit(0)
        os.close(write_end)
        said = read_exactly(read_end, 4096)
        os.close(read_end)
        os.waitpid(child, 0)
        if said != b"holds":
            missing[layer] = said.decode() or "the process that tried it died"
    return missing


def confine(missing, cpu_s, memory):
    for layer, (lay_on, *_) in LAYERS.items():
        if layer == "seccomp":  # the last of all: it leaves no call to confine with
            os.closerange(4, 64)
            if sys.platform == "linux":
                kernel.end_with_parent()
            kernel.limit(CPU=cpu_s, FSIZE=0, NPROC=0, NOFILE=4, CORE=0)
        if layer not in missing:
            lay_on(memory)


def read_exactly(descriptor, size):
    """`size` bytes, or fewer where the other end closed."""
    data = b""
    while len(data) < size and (chunk := os.read(descriptor, size - len(data))):
        data += chunk
    return data


def run(stages, write):
    """Write what `wire` says a child writes, each stage before the parts of the next one run.

    Each part has a namespace of its own and hands over one name.
    """
    handed_over, end = {}, wire.DONE
    for parts, expressions in stages:
        for name, source in parts:
            space = {"__builtins__": dict(vars(builtins)), "__name__": "part"}
            try:
                exec(compile(source, "part", "exec", dont_inherit=True), space)
            except BaseException as error:
                end = wire.OUT_OF_MEMORY if isinstance(error, MemoryError) else end
            if name in space:
                handed_over[name] = space[name]
        for expression in expressions:
            space = {"__builtins__": dict(vars(builtins)), **handed_over}
            try:
                line = wire.encode(eval(expression, space)).encode()
            except BaseException as error:
                end = wire.OUT_OF_MEMORY if isinstance(error, MemoryError) else end
                line = wire.NO_VALUE
            write(line + b"\n")
    write(end)


def child(requests, channel, size, missing, cpu_s, memory):
    """Confine this process, then run what it was asked for. Never returns."""
    leave, write = os._exit, os.write
    try:
        stages = marshal.loads(read_exactly(requests, size))
        os.dup2(channel, 3)
        try:
            confine(missing, cpu_s, memory)
        except OSError as error:
            write(3, b"!" + str(error).encode())
            leave(1)
        write(3, wire.READY)
        sys.addaudithook(audit)
        run(stages, lambda line: write(3, line))
    finally:
        leave(0)


class Process:
    """A child as the server sees it: confined, running, at some moment ended."""

    def __init__(self, requests, sizes, missing, wall_s, cpu_s, memory):
        size, self.longest = sizes
        self.channel, write_end = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            child(requests, write_end, size, missing, cpu_s, memory)
        os.close(write_end)
        poller = select.poll()
        poller.register(self.channel, select.POLLIN)
        first = os.read(self.channel, 1) if poller.poll(1000 * wire.START_S) else b""
        if first != wire.READY:  # its body may still be among the requests, so this server is of no more use
            why = os.read(self.channel, 999) if first else b"the process did not become ready"
            self.end()
            raise OSError(why)
        self.said, self.ended = b"", None
        self.deadline = time.monotonic() + wall_s

    def listen(self):
        """Read what is there, which is nothing where the child has closed its end."""
        chunk = os.read(self.channel, self.longest + 1 - len(self.said))
        self.said += chunk
        if not chunk or len(self.said) > self.longest:
            self.ended = wire.ANSWERED

    def end(self):
        os.close(self.channel)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def watch(processes):
    """Return once every process has ended or is over its time."""
    running = {process.channel: process for process in processes}
    poller = select.poll()
    for channel in running:
        poller.register(channel, select.POLLIN)
    while running:
        next_deadline = min(process.deadline for process in running.values())
        for channel, _ in poller.poll(max(0, 1000 * (next_deadline - time.monotonic()))):
            running[channel].listen()
        for channel, process in list(running.items()):
            if process.ended is None and process.deadline <= time.monotonic():
                process.ended = wire.OVER_TIME
            if process.ended is not None:
                poller.unregister(channel)
                del running[channel]


def serve(requests, replies, missing, number, *limits):
    """Answer one request: a process for each body, all at the same time."""
    sizes = [wire.SIZES.unpack(read_exactly(requests, wire.SIZES.size)) for _ in range(number)]
    processes = []
    try:
        for pair in sizes:
            processes.append(Process(requests, pair, missing, *limits))
        os.write(replies, wire.READY)
        watch(processes)
    finally:
        for process in processes:
            process.end()
    for process in processes:
        os.write(replies, wire.REPLY.pack(process.ended, len(process.said)) + process.said)


def main():
    requests, replies, null = os.dup(0), os.dup(1), os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    for module in MODULES:
        importlib.import_module(module)
    missing = missing_layers()
    for module in ("ctypes", "_ctypes", "kernel", "wire"):
        del sys.modules[module]
    sys.path.clear()
    sys.meta_path[:] = [finder for finder in sys.meta_path if finder.__name__ != "PathFinder"]
    gc.collect()
    gc.freeze()  # the collector of a child leaves these pages shared
    os.write(replies, json.dumps(missing).encode() + b"\n")
    while len(header := read_exactly(requests, wire.HEADER.size)) == wire.HEADER.size:
        try:
            serve(requests, replies, missing, *wire.HEADER.unpack(header))
        except OSError as error:
            os.write(replies, b"!" + error.args[0])
            break


if __name__ == "__main__":
    main()
