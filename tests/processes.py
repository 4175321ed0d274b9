"""Scripts that several processes run together."""

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

from forked import ROOT, Forked

TESTS = Path(__file__).parent


def launch(script: str, folder: Path, processes: int) -> list[dict]:
    """What each process of a script wrote to `rank-<rank>.json` in `folder`, which the script gets as its argument."""
    folder.mkdir()
    run(script, folder, processes)
    return written(folder, processes)


def written(folder: Path, processes: int) -> list[dict]:
    """What each process wrote to `rank-<rank>.json`."""
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(processes)]


def group(processes: int) -> list[dict[str, str]]:
    """What a launcher tells each process of a group; one alone is told nothing."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]
    return [{"ACCELERATE_USE_CPU": "true"} | (shared | rank if processes > 1 else {}) for rank in ranks]


def run(script: str, folder: Path, processes: int) -> None:
    """A script in so many processes, which must all end well."""
    (folder / "script.py").write_text(script)
    paths = {"PYTHONPATH": f"{TESTS}:{ROOT}", "OMP_NUM_THREADS": "1", "TMPDIR": str(folder)}
    command = [sys.executable, folder / "script.py", folder]
    ranks = [Forked(command, {**os.environ, **paths, **told}, folder) for told in group(processes)]
    deadline = time.monotonic() + 200
    while None in (codes := [rank.poll() for rank in ranks]) and not any(codes) and time.monotonic() < deadline:
        time.sleep(0.05)
    for rank in ranks:
        rank.kill()  # the others, where one has failed
    assert codes == [0] * processes, [rank.communicate()[1][-4000:] for rank in ranks]


EACH = """
import runpy, sys
from pathlib import Path
for script in sorted(Path(sys.argv[1]).glob("*/script.py")):
    sys.argv[1] = str(script.parent)
    runpy.run_path(str(script))
"""


def launch_each(scripts: dict[str, str], folder: Path, processes: int) -> None:
    """Several scripts, one after the other by the order of their names, in the same processes, which import once.

    Each writes in the folder of its name in `folder`.
    """
    for name, script in scripts.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "script.py").write_text(script)
    run(EACH, folder, processes)


TOUCHES = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"}  # audit events of the disk


def kill_at(moment: int, folder: Path) -> None:
    """Let this process be killed when it touches the folder for the time `moment`, from 0."""
    moments = iter(range(moment))

    def hook(event, args):
        if event in TOUCHES and str(folder) in str(args[0]) and next(moments, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
