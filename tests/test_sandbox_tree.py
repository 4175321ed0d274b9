"""What the sandbox promises about whole test runs: a real pytest, and small hostile programs with one promise each.

All of it runs with bubblewrap and without, what only bubblewrap gives with it alone.
"""

import contextlib
import os
import shutil
import socket
import sys
import time
from pathlib import Path

import pytest

from envs import sandbox
from envs.sandbox import Status, bubblewrap, run_in_tree, tree

PYTHON = sys.executable


BUBBLEWRAP = pytest.param("bubblewrap", marks=pytest.mark.bubblewrap)
needs_bubblewrap = pytest.mark.parametrize("tier", [BUBBLEWRAP], indirect=True)


@pytest.fixture(params=[BUBBLEWRAP, "no bubblewrap"])
def tier(request, monkeypatch):
    """The tier of this machine with bubblewrap, and the one that remains where there is none."""
    tree.tier.cache_clear()
    if request.param == "no bubblewrap":
        monkeypatch.setattr(bubblewrap, "program", lambda: None)
    yield tree.tier()
    tree.tier.cache_clear()


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A package and its tests, one of which fails."""
    folder = tmp_path / "work"
    (folder / "shop").mkdir(parents=True)
    (folder / "shop" / "__init__.py").write_text("def total(prices): return sum(prices)\n")
    test = (
        "from shop import total\ndef test_sum(): assert total([1, 2]) == 3\ndef test_wrong(): assert total([]) == 1\n"
    )
    (folder / "test_shop.py").write_text(test)
    return folder


def python(work: Path, code: str, **limits):
    return run_in_tree(work, [PYTHON, "-c", code], **{"timeout_s": 20, **limits})


def test_pytest_runs_on_a_copy_and_its_report_comes_back(tier, work):
    command = [PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--junitxml=report.xml"]
    quick = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    run = run_in_tree(work, command, timeout_s=60, read_back=["report.xml", "none.xml"], environment=quick)
    assert (run.status, run.exit_code, run.tier) == (Status.OK, 1, tier.name)
    assert b"1 failed, 1 passed" in run.output and run.files.keys() == {"report.xml"}
    assert b'name="test_wrong"' in run.files["report.xml"] and run.seconds > 0
    assert sorted(os.listdir(work)) == ["shop", "test_shop.py"]


def test_git_works_inside(tier, work):
    if shutil.which("git") is None:
        pytest.skip("no git")
    run = run_in_tree(work, ["sh", "-c", "git init -q . && git add -A && git status --short"], timeout_s=20)
    assert run.output.decode().split() == ["A", "shop/__init__.py", "A", "test_shop.py"]


def test_the_tree_stays_as_it_is_whatever_the_copy_becomes(tier, work):
    run = python(work, "import os, shutil; shutil.rmtree('shop'); open('new', 'w').write('x'); print(os.listdir('.'))")
    assert b"new" in run.output and run.exit_code == 0
    assert sorted(os.listdir(work)) == ["shop", "test_shop.py"]


def test_no_file_outside_can_be_read_or_written(tier, work, tmp_path):
    if not {"bubblewrap", "landlock"} & set(tier.layers):
        pytest.skip(f"{tier} has neither bubblewrap nor landlock")
    secret = tmp_path / "secret"
    secret.write_text("the expected values")
    secret.chmod(0o666)
    tmp_path.chmod(0o777)
    code = "import sys\nfor path in sys.argv[2:]:\n  try: open(path, sys.argv[1]); print('done')\n"
    code += "  except OSError: print('refused')"
    for mode, *paths in (
        ("r", secret, "/etc/shadow", f"/proc/{os.getpid()}/environ", Path.home(), __file__),
        ("a", secret, "/usr/new", "/new", PYTHON),
    ):
        run = run_in_tree(work, [PYTHON, "-c", code, mode, *map(str, paths)], timeout_s=20)
        assert run.output.decode().split() == ["refused"] * len(paths)
    assert secret.read_text() == "the expected values"


def test_what_is_named_as_readable_can_be_read_and_not_written(tier, work, tmp_path):
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "file").write_text("given")
    path = str(tmp_path / "more" / "file")
    code = f"print(open({path!r}).read())\ntry: open({path!r}, 'a')\nexcept OSError: print('refused')"
    said = python(work, code, readable=[tmp_path / "more"]).output.decode().split()
    assert said[0] == "given" and (said[1:] == ["refused"] or not {"bubblewrap", "landlock"} & set(tier.layers))


@needs_bubblewrap
def test_there_is_no_network(tier, work):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        code = f"import socket; socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), timeout=1)"
        assert python(work, code).exit_code == 1
        with pytest.raises(TimeoutError):
            server.accept()
    inside = "import socket; s = socket.create_server(('127.0.0.1', 0)); socket.create_connection(s.getsockname())"
    assert python(work, inside).exit_code == 0


@needs_bubblewrap
def test_no_process_outside_can_be_seen_or_stopped(tier, work):
    code = (
        f"import os\nprint(sum(name.isdigit() for name in os.listdir('/proc')), flush=True)\nos.kill({os.getpid()}, 0)"
    )
    run = python(work, code)
    assert run.output.startswith(b"2\n") and b"ProcessLookupError" in run.output


def test_a_command_that_goes_on_too_long_is_stopped_with_all_it_started(tier, work):
    began = time.monotonic()
    code = "import os, time\nprint('started', flush=True)\nos.fork()\nwhile True: time.sleep(0.01)"
    run = python(work, code, timeout_s=1.5)
    assert (run.status, run.exit_code) == (Status.TIMEOUT, None) and time.monotonic() - began < 10
    assert run.output == b"started\n"


@needs_bubblewrap
def test_a_daemon_ends_with_the_command(tier, work, tmp_path):
    mark = f"daemon-{os.getpid()}"
    (work / "daemon.py").write_text(
        "import os, sys, time\nif not os.fork():\n  os.setsid()\n  if not os.fork():\n"
        "    os.execv(sys.executable, [sys.argv[1], '-c', 'import time; time.sleep(60)'])\ntime.sleep(0.3)"
    )
    run = run_in_tree(work, [PYTHON, "daemon.py", mark], timeout_s=20)
    assert run.status is Status.OK and run.seconds < 15
    alive = [path for path in Path("/proc").glob("[0-9]*/cmdline") if mark.encode() in _bytes(path)]
    assert alive == []


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


@needs_bubblewrap
def test_a_fork_bomb_stops_at_the_limit(tier, work):
    code = (
        "import os, time\nn = 0\ntry:\n  while n < 500:\n    if not os.fork(): time.sleep(30)\n    n += 1\n"
        "except OSError: print(n)"
    )
    run = python(work, code, processes=30)
    assert run.status is Status.OK and 0 < int(run.output.split()[0]) <= 30


def test_a_memory_bomb_is_refused(tier, work):
    if "memory" not in tier.layers:
        pytest.skip(f"{tier} has no limit on memory")
    assert b"MemoryError" in python(work, "x = ' ' * 10**10", memory_mb=512).output


def test_a_file_has_a_limit(tier, work):
    code = "f = open('big', 'wb')\nfor _ in range(8): f.write(b'x' * 2**20); f.flush()"
    assert python(work, code, file_mb=4).exit_code != 0
    assert python(work, code, file_mb=16).exit_code == 0


def test_a_flood_of_output_is_cut_to_its_end(tier, work):
    run = python(work, "import sys\nfor i in range(3000): sys.stdout.write('x' * 1000)\nprint('the end')")
    assert run.status is Status.OK and len(run.output) == tree.MAX_OUTPUT and run.output.endswith(b"the end\n")


def test_reading_back_follows_no_link(tier, work, tmp_path):
    (tmp_path / "secret").write_text("the expected values")
    code = f"import os; os.symlink({str(tmp_path / 'secret')!r}, 'report.xml'); os.mkfifo('pipe'); os.mkdir('dir')\n"
    code += f"os.symlink({str(tmp_path)!r}, 'up'); open('plain', 'w').write('ok'); os.symlink('loop', 'loop')\n"
    code += "os.mkdir('closed', 0)"
    names = ["report.xml", "pipe", "dir", "up/secret", "../secret", "loop", "loop/x", "closed/x", "x" * 300, "plain"]
    run = python(work, code, read_back=names)
    assert run.exit_code == 0 and run.files == {"plain": b"ok"}


def test_nothing_that_a_command_leaves_stays_on_the_disk(tier, work, tmp_path, monkeypatch):
    """Neither more folders in each other than Python calls functions, nor what is closed, nor odd names."""
    (temporary := tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    code = "import os, socket\nos.makedirs('closed/in'); os.chmod('closed/in', 0); os.chmod('closed', 0)\n"
    code += "open(b'\\n\\xff', 'w'); open('-rf', 'w'); os.mkfifo('pipe'); os.symlink('/', 'root')\n"
    code += "socket.socket(socket.AF_UNIX).bind('socket')\n"
    code += "for _ in range(1200): os.mkdir('d'); os.chdir('d')\nprint('made')"
    assert python(work, code).output == b"made\n"
    assert os.listdir(temporary) == []


def test_a_command_makes_no_device_links_no_file_of_the_machine_and_takes_back_no_limit(tier, work):
    code = "import os, resource, stat\n"
    for act in (
        "os.mknod('disk', stat.S_IFBLK | 0o666, os.makedev(8, 0))",
        "os.mknod('zero', stat.S_IFCHR | 0o666, os.makedev(1, 5))",
        "os.link('/etc/passwd', 'linked')",
        "resource.setrlimit(resource.RLIMIT_CPU, (10**6, 10**6))",
        "os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))",
    ):
        code += f"try: {act}; print('done')\nexcept (OSError, ValueError): print('refused')\n"
    assert python(work, code).output.decode().split() == ["refused"] * 5


def test_the_callers_environment_is_not_visible_and_more_can_be_given(tier, work, monkeypatch):
    monkeypatch.setenv("MARL_COOP_SECRET", "1")
    (work / "json.py").write_text("raise SystemExit('the tree ran before the sandbox')")
    code = "import os; print('MARL_COOP_SECRET' in os.environ, os.environ['MORE'])"
    folder = "/tree" if "bubblewrap" in tier.layers else str(work)
    assert python(work, code, environment={"MORE": "yes", "PYTHONPATH": folder}).output == b"False yes\n"


def test_a_command_gets_no_descriptor_and_has_its_time_however_many_files_its_caller_has_open(tier, work):
    look = "import os\nfor fd in range(3, 999):\n  try: os.fstat(fd); print(fd)\n  except OSError: pass"
    with contextlib.ExitStack() as stack:
        for _ in range(80):
            stack.enter_context(open(os.devnull))
        assert python(work, look).output == b""
        assert python(work, "while True: pass", timeout_s=1).status is Status.TIMEOUT


def test_a_command_that_does_not_exist_is_a_fault(tier, work):
    run = run_in_tree(work, ["no-such-program"], timeout_s=20)
    assert (run.status, run.exit_code) == (Status.FAULT, None) and b"no-such-program: [Errno 2]" in run.output


def test_without_bubblewrap_the_tier_has_another_name_and_can_be_refused(work, monkeypatch, caplog):
    sandbox.reset()
    monkeypatch.setattr(bubblewrap, "program", lambda: None)
    with caplog.at_level("INFO", logger="envs.sandbox"):
        name = run_in_tree(work, ["true"], timeout_s=20).tier
    assert "bubblewrap" not in name and "without bubblewrap: there is no program bwrap" in caplog.text
    sandbox.reset()
    monkeypatch.setenv("MARL_COOP_SANDBOX", "bubblewrap")
    with pytest.raises(sandbox.SandboxError, match="demands bubblewrap .* install bubblewrap"):
        run_in_tree(work, ["true"], timeout_s=20)
    sandbox.reset()


def test_limits_out_of_range_are_named(work, tmp_path):
    for limit in ({"timeout_s": 0}, {"memory_mb": 1}, {"processes": 0}, {"file_mb": 0}):
        with pytest.raises(ValueError, match=next(iter(limit))):
            python(work, "", **limit)
    with pytest.raises(ValueError, match="is no directory"):
        run_in_tree(tmp_path / "none", ["true"], timeout_s=1)


@pytest.mark.parametrize("command", ["ls", [], ["ls", 1]])
def test_a_command_that_is_no_list_of_words_is_refused(work, command):
    with pytest.raises(ValueError, match="it must be a list of a program and its arguments"):
        run_in_tree(work, command, timeout_s=1)


def test_bubblewrap_shows_a_path_that_lies_in_another_once_and_nothing_but_the_writable_can_be_written(monkeypatch):
    monkeypatch.setattr(bubblewrap, "program", lambda: "/usr/bin/bwrap")
    line = bubblewrap.command_line(["/opt/a", "/opt/a/b", "/usr/lib"], {"/tree": "/work"}, shown={"/in": "/out"})
    pairs = [(option, *line[i + 1 : i + 3]) for i, option in enumerate(line) if option in ("--ro-bind", "--bind")]
    given = [pair for pair in pairs if pair[1] not in bubblewrap.SYSTEM]
    assert given == [("--ro-bind", "/opt/a", "/opt/a"), ("--ro-bind", "/out", "/in"), ("--bind", "/work", "/tree")]
    assert line[-2:] == ["--remount-ro", "/"] and "--unshare-net" in line
    monkeypatch.setattr(bubblewrap, "program", lambda: None)
    with pytest.raises(FileNotFoundError, match="install bubblewrap"):
        bubblewrap.command_line((), {})
