"""A warm interpreter with one thread that forks children, and the child. A script of `envs.sandbox`.

The protocol is in `wire`. Children are made ahead: each confines itself, waits, runs one body and ends. The server
reads the header of a request only, and the child its body, so no child finds an earlier request in the memory that it
inherits. The server is trusted and never looks into what a child wrote.
"""

import builtins
import contextlib
import gc
import importlib
import json
import marshal
import os
import resource
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

REQUESTS, REPLIES = 4, 5  # descriptors of the server
DESCRIPTORS = 4096  # that it may have; each child closes so many numbers, one by one where the C library is old

BUILTINS = dict(vars(builtins))  # for the part of a child, because making such a copy there writes to 70 pages


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
        return error.strerror or str(error)
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
            os.closerange(6, os.sysconf("SC_OPEN_MAX"))  # what the server holds of other children
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


def run(part, expressions, write):
    """Write what `wire` says a child writes. The part has a namespace of its own and hands over one name."""
    handed_over, end = {}, wire.DONE
    if part is not None:
        name, source = part
        space = {"__builtins__": BUILTINS, "__name__": "part"}
        try:
            exec(compile(source, "part", "exec", dont_inherit=True), space)
        except BaseException as error:
            end = wire.OUT_OF_MEMORY if isinstance(error, MemoryError) else end
        handed_over = {name: space[name]} if name in space else {}
    for expression in expressions:
        space = {"__builtins__": builtins, **handed_over}
        try:
            line = wire.encode(eval(expression, space)).encode()
        except BaseException as error:
            end = wire.OUT_OF_MEMORY if isinstance(error, MemoryError) else end
            line = wire.NO_VALUE
        write(line + b"\n")
    write(end)


def child(channel, go, missing, cpu_s, memory):
    """Confine this process, wait until the next body is for it, then run that. Never returns."""
    leave, write, close = os._exit, os.write, os.closerange  # submitted code can change `os`
    try:
        os.dup2(channel, 3)
        os.dup2(go, 5)
        try:
            confine(missing, cpu_s, memory)
        except OSError as error:
            write(3, b"!" + str(error).encode())
            leave(1)
        size, _ = wire.SIZES.unpack(read_exactly(5, wire.SIZES.size))
        part, expressions = marshal.loads(read_exactly(REQUESTS, size))
        close(4, 6)
        write(3, wire.READY)
        sys.addaudithook(audit)
        run(part, expressions, lambda line: write(3, line))
    finally:
        close(3, 4)  # the server hears of the end before the kernel has freed the memory
        leave(0)


class Process:
    """A child as the server sees it: confined and waiting, running, at some moment ended."""

    def __init__(self, *limits):
        self.limits = limits
        self.channel, write_end = os.pipe()
        read_end, self.go = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            child(write_end, read_end, *limits)
        os.close(write_end)
        os.close(read_end)

    def waits(self):
        """It lives and could be confined: otherwise it has closed its end or has said why."""
        return not select.select([self.channel], [], [], 0)[0]

    def start(self, size, longest, wall_s):
        """Let it take its body and run."""
        with contextlib.suppress(BrokenPipeError):  # it could not be confined and says why
            os.write(self.go, wire.SIZES.pack(size, longest))
        poller = select.poll()
        poller.register(self.channel, select.POLLIN)
        first = os.read(self.channel, 1) if poller.poll(1000 * wire.START_S) else b""
        if first != wire.READY:  # its body may still be among the requests, so this server is of no more use
            raise OSError(os.read(self.channel, 999) if first else b"the process did not become ready")
        self.longest, self.said, self.ended = longest, b"", None
        self.deadline = time.monotonic() + wall_s

    def listen(self):
        """Read what is there, which is nothing where the child has closed its end."""
        chunk = os.read(self.channel, self.longest + 1 - len(self.said))
        self.said += chunk
        if not chunk or len(self.said) > self.longest:
            self.ended = wire.ANSWERED

    def end(self):
        os.close(self.channel)
        os.close(self.go)
        os.kill(self.pid, signal.SIGKILL)


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


def serve(processes, sizes, wall_s):
    """Answer one request: a process for each body, all at the same time."""
    try:
        for process, pair in zip(processes, sizes, strict=True):
            process.start(*pair, wall_s)
        os.write(REPLIES, wire.READY)
        watch(processes)
    finally:
        for process in processes:
            process.end()
    for process in processes:
        os.write(REPLIES, wire.REPLY.pack(process.ended, len(process.said)) + process.said)
        process.said = b""  # who is forked later finds no earlier answer in the frames of the server


def main():
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, DESCRIPTORS), most))
    os.dup2(0, REQUESTS)
    os.dup2(1, REPLIES)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    for module in MODULES:
        importlib.import_module(module)
    missing = missing_layers()
    for module in ("ctypes", "_ctypes", "kernel", "wire"):
        del sys.modules[module]
    sys.path.clear()
    sys.meta_path[:] = [finder for finder in sys.meta_path if getattr(finder, "__name__", "") != "PathFinder"]
    gc.collect()
    gc.freeze()  # the collector of a child leaves these pages shared
    os.write(REPLIES, json.dumps(missing).encode() + b"\n")
    ready = []
    while len(header := read_exactly(REQUESTS, wire.HEADER.size)) == wire.HEADER.size:
        number, wall_s, cpu_s, memory = wire.HEADER.unpack(header)
        sizes = [wire.SIZES.unpack(read_exactly(REQUESTS, wire.SIZES.size)) for _ in range(number)]
        limits = missing, cpu_s, memory
        fit = [process for process in ready if process.limits == limits and process.waits()]
        unfit = [process for process in ready if process not in fit]
        for process in unfit:
            process.end()
        fit += [Process(*limits) for _ in range(number - len(fit))]
        used, ready = fit[:number], fit[number:]
        try:
            serve(used, sizes, wall_s)
        except OSError as error:
            os.write(REPLIES, b"!" + error.args[0])
            break
        for process in used + unfit:
            os.waitpid(process.pid, 0)
        ready += [Process(*limits) for _ in range(number - len(ready))]  # the next request may well be like this one


if __name__ == "__main__":
    main()
