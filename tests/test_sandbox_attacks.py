"""Small hostile programs, one promise each. Where a layer is missing, the tests that need it are skipped by name."""

import contextlib
import errno
import os
import platform
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from envs.sandbox import Part, Status, forks, kernel, run_expressions

CALLS = {  # x86_64, aarch64
    "openat": (257, 56),
    "socket": (41, 198),
    "kill": (62, 129),
    "clone": (56, 220),
    "execve": (59, 221),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "unlinkat": (263, 35),
    "prlimit64": (302, 261),
    "prctl": (157, 167),
    "mount": (165, 40),
    "unshare": (272, 97),
    "setuid": (105, 146),
    "memfd_create": (319, 279),
    "io_uring_setup": (425, 425),
    "userfaultfd": (323, 282),
    "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438),
    "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138),
    "shmget": (29, 194),
    "bpf": (321, 280),
    "clone3": (435, 435),
}


def needs(layer: str) -> None:
    if why := forks.tier().missing.get(layer):
        pytest.skip(f"this machine has no {layer}: {why}")


def run(source: str, *expressions: str, **limits):
    return run_expressions((Part("f", source),), expressions or ("same(f(1), 2)",), **limits)


def refused(act: str) -> bool:
    """The act raises an exception, and the process lives to tell."""
    lines = "".join(f"    {line}\n" for line in act.splitlines())
    source = f"def f():\n  try:\n{lines}  except Exception as error: return 'refused'\n  return 'done'"
    return run(source, "f() == 'refused'").passed == (True,)


@pytest.mark.parametrize(
    "act",
    [
        "import os; os.fork()",
        "import os; os.system('true')",
        "import os; os.posix_spawn('/bin/true', ['true'], {})",
        "import subprocess; subprocess.run(['true'])",
        "import multiprocessing",
        "import os; os.kill(os.getppid(), 0)",
        "import os; os.kill(-1, 9)",
        "import os; os.killpg(0, 9)",
        "import socket; socket.socket()",
        "import ctypes",
        "import os; os.chdir('/tmp')",
        "import os; os.listdir('/')",
        "import resource; resource.setrlimit(resource.RLIMIT_CPU, (-1, -1))",
        "import os; os.memfd_create('x')",
        "import os; os.pipe()",
    ],
)
def test_processes_signals_sockets_and_descriptors_are_refused(act):
    assert refused(act), act


def test_threads_are_refused():
    needs("seccomp")
    assert refused("import _thread; _thread.start_new_thread(print, ())")


def alone(code: str) -> str:
    """What a program prints that uses one layer of the kernel by itself, without the rest of the sandbox."""
    start = f"import ctypes, errno, os, sys; sys.path.insert(0, {str(Path(forks.__file__).parent)!r}); import kernel\n"
    return subprocess.run([sys.executable, "-c", start + code], capture_output=True, text=True, check=True).stdout


def test_seccomp_alone_refuses_every_other_system_call():
    needs("seccomp")
    numbers = [pair[platform.machine() == "aarch64"] for pair in CALLS.values()]
    said = alone(
        "kernel.seccomp(kernel.call_filter())\n"
        f"for number in {numbers}:\n"
        "  kernel._LIBC.syscall(number, 0, 0, 0, 0, 0); print(ctypes.get_errno() == errno.EPERM)"
    )
    assert dict(zip(CALLS, said.split(), strict=True)) == dict.fromkeys(CALLS, "True")


@pytest.mark.parametrize("column", [0, 1], ids=["x86_64", "aarch64"])
def test_the_numbers_of_each_machine_are_those_of_the_kernels_headers(column: int):
    """aarch64 has the generic table, so a machine of another kind can check it."""
    header = Path("/usr/include", ("x86_64-linux-gnu/asm/unistd_64.h", "asm-generic/unistd.h")[column])
    if not (header.is_file() and Path("/usr/include/linux/audit.h").is_file()):
        pytest.skip("no headers of the kernel for this machine: linux-libc-dev has them")
    found = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", header.read_text())
    numbers = {name: int(number) for name, number in found}
    for name, pair in (kernel._CALLS | CALLS).items():
        assert pair[column] == numbers[name], name
    landlock = ("landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self")
    assert [numbers[name] for name in landlock] == [
        kernel._CREATE_RULESET, kernel._ADD_RULE, kernel._RESTRICT_SELF
    ]  # fmt: skip
    machine, elf = ("x86_64", "aarch64")[column], Path("/usr/include/linux/elf-em.h").read_text()
    number = re.search(rf"#define EM_{machine}\s+(\d+)", elf, re.IGNORECASE)
    assert kernel._MACHINES[machine] == (0x80000000 | 0x40000000 | int(number[1]), column)  # 64 bits, little-endian


def test_landlock_alone_leaves_the_named_trees_and_nothing_else(tmp_path: Path):
    needs("landlock")
    for name in ("read", "write", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("here")
    said = alone(
        f"os.chdir({str(tmp_path)!r}); kernel.landlock(kernel.ruleset(('read',), ('write',)))\n"
        "for name in ('read', 'write', 'other'):\n"
        "  for mode in 'ra':\n"
        "    try: open(name + '/file', mode).close(); print(name, mode)\n"
        "    except PermissionError: pass"
    )
    assert said.splitlines() == ["read r", "write r", "write a"]


def test_the_kernels_layers_hold_for_code_that_goes_around_the_interpreters():
    needs("seccomp")
    getpid, getppid = ((39, 110), (172, 173))[platform.machine() == "aarch64"]
    source = "import __main__, os\ncall = __main__.kernel._LIBC.syscall\n"
    source += f"def f(): return call({getpid}) == os.getpid(), call({getppid})"
    assert run(source, "same(f(), (True, -1))").passed == (True,)


@pytest.mark.parametrize(
    "secret", ["/etc/passwd", "/proc/self/mem", "/proc/self/environ", "/proc/1/cmdline", __file__, "/dev/zero", "."]
)
def test_no_file_can_be_read(secret):
    assert refused(f"open({secret!r}, 'rb').read(9)")
    assert refused(f"import os; os.close(2); os.open({secret!r}, 0)")
    assert refused(f"import io; io.FileIO({secret!r})")


def test_files_cannot_be_written_or_removed(tmp_path: Path):
    kept = tmp_path / "kept"
    kept.write_text("here")
    tmp_path.chmod(0o777)
    kept.chmod(0o666)
    assert refused(f"open({str(kept)!r}, 'w').write('gone')")
    assert refused(f"import os; os.remove({str(kept)!r})")
    assert refused(f"import os; os.open({str(tmp_path / 'new')!r}, os.O_CREAT | os.O_WRONLY)")
    assert refused(f"import os; os.mkdir({str(tmp_path / 'new')!r})")
    assert kept.read_text() == "here" and os.listdir(tmp_path) == ["kept"]


def test_no_socket_of_this_machine_can_be_reached():
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        connect = f"socket.create_connection(('127.0.0.1', {server.getsockname()[1]}))"
        assert refused(f"import socket; {connect}")
        with pytest.raises(TimeoutError):
            server.accept()


@pytest.mark.parametrize(
    "exit_early",
    [
        "import os; os._exit(0)",
        "import sys; sys.exit(0)",
        "raise SystemExit",
        "exit(0)",
        "quit()",
        "import os; os.abort()",
        "import os; os.close(3)",
        "import os; os.write(3, b'done'); os._exit(0)",
    ],
)
def test_leaving_early_passes_no_test(exit_early):
    assert run(exit_early, "same(f(1), 2)", "not f(1) == 3").passed == (False, False)


@pytest.mark.parametrize(
    "forgery",
    [
        "print('True' * 99)",
        "import os\nfor fd in range(64):\n  try: os.write(fd, b'R' + b'\\1' * 40)\n  except OSError: pass",
        "import sys\nfor s in (sys.stdout, sys.__stdout__, sys.stderr): s.write('\\1' * 40); s.flush()",
        "import os; os.write(3, b'true\\n' * 9 + b'done'); os._exit(0)",
        "import os; os.write(3, b'[' * 9000 + b'\\ndone'); os._exit(0)",
        'import os; os.write(3, b\'["dict", [["list"], 1]]\\ndone\'); os._exit(0)',
        "import os; os.write(3, b'[\"Any\", 1]\\ndone'); os._exit(0)",
        "import os; os.write(3, b'\\xff\\ndone'); os._exit(0)",
        "import __main__; __main__.run = lambda *_: None; __main__.wire.encode = lambda value: 'true'",
        "import builtins; builtins.eval = lambda *_: True; builtins.dict = lambda *_: {}",
        "import sys; sys.modules.clear()",
        "import json; json.dumps = lambda *_: 'true'",
        "same = lambda x, y: True\ndef f(n): return 0",
    ],
)
def test_claiming_to_have_passed_passes_no_test(forgery):
    assert run(forgery, "same(f(1), 2)").passed == (False,)


FIND = """
import gc, sys
def find(needle, depth=0, frame=None):
    held = list(gc.get_objects()) + [frame.f_locals, frame.f_globals]
    while frame := frame.f_back:
        held += [frame.f_locals, frame.f_globals]
    held += list(vars(sys.modules["__main__"]).values())
    return needle if any(needle in repr(one) for one in held if type(one) in (dict, list, tuple, str, bytes)) else None
def f(backwards, *_):
    return find(backwards[::-1], 0, sys._getframe().f_back)
"""


def test_the_expected_value_is_nowhere_in_the_process_that_is_tested():
    reachable = "same(f('derahs-yzzyx', 'xyzzy-shared'), 'xyzzy-shared')"
    assert run(FIND, reachable, "same(f('neddih-yzzyx'), 'xyzzy-hidden')").passed == (True, False)


def test_only_its_own_channel_is_open_to_submitted_code():
    look = (
        "import os\ndef f():\n  found = []\n  for fd in range(64):\n    try: found.append((fd, os.lseek(fd, 0, 1)))\n"
    )
    look += (
        f"    except OSError as error: error.errno == {errno.EBADF} or found.append((fd, error.errno))\n  return found"
    )
    assert run(look, f"same(f(), {[(0, 0), (1, 0), (2, 0), (3, errno.ESPIPE)]})").passed == (True,)


def test_a_request_never_enters_the_memory_of_the_server():
    if not Path("/proc/self/mem").exists():
        pytest.skip("only Linux shows the memory of a process")
    run("marker = 'plugh-' + 'in-the-source'", "same(f('plugh-in-the-test'), 'plugh-expected')")
    for server in forks._POOL.alive:
        maps = Path(f"/proc/{server.process.pid}/maps").read_text().splitlines()
        with open(f"/proc/{server.process.pid}/mem", "rb") as memory:
            for line in maps:
                if " rw" in line:
                    low, high = (int(end, 16) for end in line.split()[0].split("-"))
                    memory.seek(low)
                    assert b"plugh-" not in memory.read(high - low)


def test_nobodys_code_is_near_a_test_of_the_partners_part():
    thief = Part("g", "import os; os.write(3, b'2\\ndone'); os._exit(0)\ndef g(n): return n")
    honest = Part("f", "def f(n): return n")
    for parts in ((honest, thief), (thief, honest)):
        assert run_expressions(parts, ("same(f(1), 2)", "same(g(f(1)), 2)")).passed[0] is False
    search = "for o in gc.get_objects():\n  if getattr(o, '__name__', '') == 'f': o.__code__ = (lambda n: 2).__code__"
    patch = Part("g", f"import gc\n{search}\ndef g(n): return n")
    assert run_expressions((honest, patch), ("same(f(1), 2)", "f(1) == 1", "g(1) == 1")).passed == (False, True, True)


@pytest.mark.parametrize("base", ["int", "str", "float", "list", "object"])
def test_an_object_that_equals_everything_is_the_same_as_nothing(base):
    source = f"class Any({base}):\n  __eq__ = lambda s, o: True\n  __ne__ = __eq__\n  __hash__ = lambda s: 2\n"
    source += "  __lt__ = __gt__ = __contains__ = __eq__\ndef f(n): return Any()"
    values = ("2", "2.0", "'a'", "[1]", "{'a': 1}", "None", "True")
    asked = [f"{form}" for v in values for form in (f"same(f(1), {v})", f"f(1) == {v}", f"f(1) != {v}", f"{v} == f(1)")]
    assert not any(run(source, *asked, "f(1) < 9", "1 in f(1)", "f(1)", "not f(1)").passed)


@pytest.mark.parametrize("answer", ["'a' * 10**7", "list(range(10**6))", "10**10**6", "{i: i for i in range(10**5)}"])
def test_a_huge_answer_is_no_answer(answer):
    verdict = run(f"def f(): return {answer}", "f() != 0", timeout_s=20)
    assert verdict.passed == (False,) and verdict.status in (Status.OK, Status.MEMORY)


def test_a_flood_on_every_descriptor_ends_in_time():
    start = time.monotonic()
    flood = "import os\nwhile True:\n  for fd in (1, 2, 3): os.write(fd, b'x' * 4096)"
    assert run(flood).passed == (False,) and time.monotonic() - start < 10


def test_sleeping_and_trickling_do_not_get_around_the_wall_time():
    for wait in ("time.sleep(60)", "[(time.sleep(0.01), os.write(3, b'x')) for _ in range(6000)]"):
        start = time.monotonic()
        assert run(f"import os, time; {wait}", timeout_s=0.3).status is Status.TIMEOUT
        assert time.monotonic() - start < 5


def test_signals_cannot_be_ignored_away():
    source = "import signal\nfor s in range(1, 32):\n  try: signal.signal(s, signal.SIG_IGN)\n  except Exception: pass"
    assert run(f"{source}\nwhile True: pass", timeout_s=0.3).status is Status.TIMEOUT


def session(leader: int) -> list[str]:
    """The processes of a session that have not ended."""
    stats = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            stats.append(path.read_text().rpartition(")")[2].split())
    return [stat for stat in stats if stat[3] == str(leader) and stat[0] not in "ZX"]


def test_a_fork_bomb_and_a_daemon_leave_no_process_behind():
    code = "import os, time\nwhile True:\n  try: os.fork() or time.sleep(60)\n  except Exception: pass"
    forks.end()
    assert run(code, timeout_s=0.3).status is Status.TIMEOUT
    (server,) = forks._POOL.alive
    if not Path("/proc/self/stat").exists():
        pytest.skip("only Linux shows the processes of a session")
    time.sleep(0.5)  # the process that ran is gone by now
    deadline = time.monotonic() + 10
    while len(left := session(server.process.pid)) != 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(left) == 2, "the server and the process that waits for the next run"


def test_deep_recursion_harms_nobody():
    assert run("def f(n): return f(n)").passed == (False,)
    assert run("import sys; sys.setrecursionlimit(10**9)\ndef f(n): return f(n)").passed == (False,)


def test_the_environment_of_this_process_is_not_visible(monkeypatch):
    monkeypatch.setenv("MARL_COOP_SECRET", "1")
    assert run("import os\ndef f(n): return 'MARL_COOP_SECRET' in os.environ", "same(f(1), False)").passed == (True,)


def test_a_run_leaves_nothing_to_the_next_one():
    run("import builtins, math, sys; builtins.len = math.sqrt = None; sys.leftover = 1")
    clean = "import math, sys\ndef f(n): return len('ab') * (math.sqrt(n) == 1) - hasattr(sys, 'leftover')"
    assert run(clean).passed == (True,)


def test_code_runs_as_another_user_where_it_can():
    needs("user")
    assert run("import os\ndef f(n): return os.getuid() >= 61184 and os.getuid() == os.geteuid()", "f(1)").passed == (
        True,
    )
