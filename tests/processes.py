"""Scripts that several processes run together."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path


def launch(script: str, folder: Path, processes: int) -> list[dict]:
    """What each process of a script wrote to `rank-<rank>.json` in `folder`, which the script gets as its argument."""
    folder.mkdir()
    run(script, folder, processes)
    return written(folder, processes)


def written(folder: Path, processes: int) -> list[dict]:
    """What each process wrote to `rank-<rank>.json`."""
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(processes)]


def run(script: str, folder: Path, processes: int) -> None:
    """A script in so many processes, which must all end well; what they said is in `output.txt`."""
    (folder / "script.py").write_text(script)
    root = Path(__file__).parent
    command = "-m torch.distributed.run --standalone --nproc_per_node".split() + [str(processes)]
    environment = {
        **os.environ,
        "PYTHONPATH": f"{root}:{root.parent}",
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "true",
        "TMPDIR": str(folder),
    }
    command = [sys.executable, *(command if processes > 1 else []), str(folder / "script.py"), str(folder)]
    with (folder / "output.txt").open("w") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
        try:
            code = process.wait(timeout=200)
        finally:
            process.terminate()  # torchrun ends its workers
    assert code == 0, (folder / "output.txt").read_text()[-4000:]


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
