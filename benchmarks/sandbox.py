"""How fast the sandbox is on this machine, and which of its layers hold while it is measured.

    python benchmarks/sandbox.py

prints a run after a pause and, from the best of several repeats: runs per second with one caller and with two at a
time, the same with the cache, the CPU time of one run, steps per second of `PairedFunctions`, and a whole tree with an
empty command.

    python benchmarks/sandbox.py --leaks 10000

runs as many, one in twenty of them hostile, and says whether processes, files, descriptors or memory are left over;
exit code 1 where they are. Files are counted where temporary ones go (TMPDIR), which nothing else may use meanwhile.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import psutil

from envs import sandbox
from envs.paired_functions import PairedFunctions
from envs.sandbox import Part, forks, run_expressions, run_in_tree
from marl_coop.cli import run_script
from marl_coop.cli.arguments import count


def run(number: int) -> None:
    """One part, two tests. No two numbers are the same content."""
    part = Part("f", f"def f(n): return n + {number}")
    assert run_expressions((part,), (f"same(f(1), {number + 1})", "f(2) != 'a'")).passed == (True, True)


def play(seed: int) -> None:
    """An episode in which both seats write working code for the first option."""
    env = PairedFunctions()
    env.reset(seed=seed)
    decision = env.task.decisions[0]
    option = decision.options[0]
    while env.agents:
        stance = f"Answer {decision.id}: {option} (90%)"
        env.step({seat: f"{stance}\n```python\n{env.reference_work(seat, option)}\n```" for seat in env.agents})


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def best(work: Callable[[int], object], repeats: int) -> float:
    """The least time of some repeats, each with a range of numbers of its own."""
    return min(seconds(lambda base=1_000_000 * (1 + i): work(base)) for i in range(repeats))


def after_pauses(runs: int) -> float:
    """The median time of a run that comes 5 ms after the last one, as runs do in play."""
    times = []
    for number in range(runs):
        time.sleep(0.005)
        times.append(seconds(partial(run, 80_000_000 + number)))
    return statistics.median(times)


def cpu_per_run(runs: int) -> float:
    """CPU seconds of this process, its server and the server's children, for one run."""

    def spent() -> float:
        pids = [server.process.pid for server in forks._POOL.alive]
        fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15] for pid in pids]
        ticks = sum(int(field) for line in fields for field in line)
        return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")

    before = spent()
    for number in range(runs):
        run(90_000_000 + number)
    return (spent() - before) / runs


HOSTILE = (  # what such a run may leave behind
    "def f(n):\n    while True: pass",
    "def f(n):\n    return 'x' * 10**9",
    "def f(n):\n    kept = []\n    while True: kept.append(bytearray(10**6))",
    "import os\ndef f(n):\n    while True: os.fork()",
    f"def f(n):\n    open({str(Path(tempfile.gettempdir(), 'left_by_a_run'))!r}, 'w').write('x')",
)


def run_hostile(number: int) -> None:
    """A run that is ended by its limits, or refused. No two numbers are the same content."""
    part = Part("f", f"{HOSTILE[number // 20 % len(HOSTILE)]}\n# {number}")
    assert run_expressions((part,), (f"f({number}) == {number}",), timeout_s=0.2).passed == (False,)


def left_over() -> dict[str, float]:
    """What runs could leave: descriptors of this process, processes below it, files in /tmp, memory of it and of its
    servers in MiB."""
    me = psutil.Process()
    others = me.children(recursive=True)
    resident = me.memory_info().rss + sum(one.memory_info().rss for one in others if one.ppid() == me.pid)
    files = len(list(Path(tempfile.gettempdir()).glob("*")))
    return {"descriptors": me.num_fds(), "processes": len(others), "files": files, "memory, MiB": resident / 2**20}


def settled(least: dict[str, float] | None = None) -> dict[str, float]:
    """What is left over once the server has ended what is over and made the next ones: no more than the `least` there
    can be, or ten seconds later."""
    run(0)
    for _ in range(10):
        time.sleep(1.0)
        found = left_over()
        if not (least and grown(least, found)):
            break
    return found


def grown(early: dict[str, float], late: dict[str, float]) -> list[str]:
    return [name for name in early if late[name] > early[name] * (1.05 if name == "memory, MiB" else 1)]


def leaks(runs: int) -> int:
    """Run, one in twenty hostile, and say what was left over after a tenth and at the end; how much has grown."""
    early = {}
    for number in range(runs):
        (run_hostile if number % 20 == 0 else run)(100_000_000 + number)
        if number + 1 == max(1, runs // 10):
            early = settled()
    late = settled(early)
    for name in early:
        print(f"{name:12} after {runs // 10} runs {early[name]:8.1f}, after {runs} {late[name]:8.1f}")
    found = grown(early, late)
    print(f"left over: {', '.join(found)}" if found else "nothing is left over")
    return len(found)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=count, default=200, help="small runs in a repeat (default: 200)")
    parser.add_argument("--episodes", type=count, default=60, help="episodes in a repeat (default: 60)")
    parser.add_argument("--repeats", type=count, default=7, help="of which the best counts (default: 7)")
    parser.add_argument("--leaks", type=count, metavar="RUNS", help="look for what so many runs leave over, and stop")
    args = parser.parse_args()
    runs, episodes, repeats = args.runs, args.episodes, args.repeats
    print(sandbox.describe())
    if args.leaks:
        return int(leaks(args.leaks) > 0)
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; best of {repeats}")
    run(0)
    print(f"a small run after a pause {1000 * after_pauses(runs):6.1f} ms, the median")
    one = best(lambda base: [run(base + i) for i in range(runs)], repeats)
    print(f"small runs, one caller    {runs / one:6.0f} a second, {1000 * one / runs:.1f} ms each")
    with ThreadPoolExecutor(2) as pool:
        two = best(lambda base: list(pool.map(run, range(base + runs, base + 2 * runs))), repeats)
    print(f"small runs, two callers   {runs / two:6.0f} a second")
    cached = best(lambda base: [run(0) for _ in range(runs)], repeats)
    print(f"small runs, remembered    {runs / cached:6.0f} a second")
    if Path("/proc/self/stat").exists():
        print(f"CPU time of a small run   {1000 * cpu_per_run(runs):6.1f} ms")
    steps = best(lambda base: [play(base + i) for i in range(episodes)], repeats)
    print(f"PairedFunctions           {3 * episodes / steps:6.0f} steps a second, tests at the end of each episode")
    with tempfile.TemporaryDirectory() as empty:
        whole = best(lambda base: run_in_tree(Path(empty), ["true"], timeout_s=20), repeats)
    print(f"a tree around `true`      {1000 * whole:6.0f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(run_script(main))
