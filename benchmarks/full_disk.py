"""Let the disk fill up while train.py runs, make room, go on, and compare with a run that always had room.

    python benchmarks/full_disk.py --fills 8 model.name_or_path=FOLDER model.dtype=float32

plays the quickstart in small, as `benchmarks/resume.py` does, on a small disk in memory (a tmpfs: as root, or
under `unshare --user --map-root-user --mount`), with the cache of warm-ups on it. The straight run says how many bytes
it takes; then, for each fill, a file leaves a part of them. Each run must end with one line that names the disk, keep
every checkpoint whole, and end as the straight one once the file is gone. Exit code 1 where one does not.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from resume import progress, results_of, start

from marl_coop.cli import run_script
from marl_coop.cli.arguments import count
from marl_coop.runs.checkpoints import all_checkpoints, whole_checkpoints

SIZE = 256 * 2**20  # bytes of the disk
FULL = (
    "No space left",
    "os error 28",
    "Errno 28",
    "file write failed",
    "PytorchStreamWriter",
)  # Python, Rust and torch


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fills", type=count, default=8, help="runs on a disk that fills up (default: 8)")
    parser.add_argument(
        "--disk", type=Path, default=Path("runs/full_disk"), help="where the disk is put (default: runs/full_disk)"
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as for train.py")
    args = parser.parse_intermixed_args()
    disk = args.disk.absolute()
    disk.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        raise SystemExit(f"error: no disk can be mounted: {mounted.stderr.decode().strip()}; see --help")
    try:
        return fill(disk, args.fills, args.overrides)
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)
        disk.rmdir()


def fill(disk: Path, fills: int, overrides: list[str]) -> int:
    os.environ["MARL_COOP_CACHE"] = str(disk / "cache")
    overrides = ["training.save_total_limit=2", *overrides]
    straight = disk / "straight"
    if code := start(straight, overrides).wait():
        raise SystemExit(f"error: the straight run ended with {code}; {straight}.log says why")
    wanted, wrong = results_of(straight), 0
    taken = SIZE - shutil.disk_usage(disk).free
    for number in range(fills):
        for used in ("cache", "straight", f"filled-{number - 1}"):
            shutil.rmtree(disk / used, ignore_errors=True)
        room = taken * number // fills
        problem, had = one(disk, f"filled-{number}", room, overrides, wanted)
        wrong += problem != "equal"
        print(f"full after {room / 2**20:5.2f} MiB, with {had}: {problem}", flush=True)
    print(f"{fills - wrong} of {fills} runs say so, go on and end as the one that had room, in {len(wanted)} files")
    return int(wrong > 0)


def one(disk: Path, name: str, room: int, overrides: list[str], wanted: dict[str, str]) -> tuple[str, str]:
    """What is wrong with a run that at first has so many bytes, and what it had come to."""
    run, filler, log = disk / name, disk / "filler", disk.parent / f"{disk.name}-{name}.log"
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, shutil.disk_usage(disk).free - room))
    code, said = ended(run, log, overrides)
    had = progress(run)
    kept = all_checkpoints(run)
    filler.unlink()
    if code not in (1, 2) or "Traceback" in said or not any(word in said for word in FULL):
        return f"ended with {code}, {log} says how", had
    if kept != whole_checkpoints(run):
        return "a checkpoint is not whole", had
    code, said = ended(run, log, overrides)
    if code:
        return f"does not go on, {log} says why", had
    log.unlink()
    found = results_of(run)
    differs = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    return f"differs in {', '.join(differs)}" if differs else "equal", had


def ended(run: Path, log: Path, overrides: list[str]) -> tuple[int, str]:
    """Exit code and output of a run that begins, or goes on."""
    with log.open("a+b") as output:
        code = start(run, overrides, log=output).wait()
    return code, log.read_text()


if __name__ == "__main__":
    sys.exit(run_script(main))
