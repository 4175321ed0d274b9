"""An update of the quickstart beside the ways in which one would do it without this library, in one run.

    python benchmarks/peers.py
    python benchmarks/peers.py --repeats 5 --threads 1 training.episodes_per_update=16

Each contender has a process of its own, one after the other, and so again for each repeat: ratios are of neighbours in
time, given as the median and the range of the repeats, by wall-clock and by CPU time, which others on the machine
disturb less. All of them see the same prompts and the same replies, token by token, which is checked.

    generate, batched   PEFT and `generate`: all prompts of an agent and a turn in one call
    generate, single    the same, one prompt in a call, on the first episodes alone
    full logits         PEFT, an agent at a time, logits of all tokens
    GRPOTrainer         a step of TRL's trainer with a `rollout_func` on the same environment
    CoMLRL              the update of its `MAGRPOTrainer`, where it is installed: `pip install --no-deps comlrl==1.4.3`

A second table has the phases of ours, and what they reach of the rate of matrix products that the machine does at the
model's shapes, and decoding of the speed at which it reads memory.
"""

import argparse
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from contenders.common import Job, Played, Result, configuration
from support.fresh import in_fresh_process

from marl_coop.cli import run_script
from marl_coop.cli.arguments import count
from marl_coop.hyperparameters import EPISODES_PER_UPDATE

PLAY, UPDATE, WHOLE = "play", "update", "whole"
OURS = "ours"
COMPARED = {  # contender -> what of it is compared
    "generate, batched": PLAY,
    "generate, single": PLAY,
    "full logits": UPDATE,
    "GRPOTrainer": WHOLE,
    "CoMLRL": UPDATE,
}


def in_process(module: str, job: Job, function: str = "run", **options: Any) -> Any:
    """What a contender returns, from a fresh process: its peak memory is its own."""
    return in_fresh_process(_call, module, function, job, options)


def _call(module: str, function: str, job: Job, options: dict[str, Any]) -> Any:
    from importlib import import_module

    return getattr(import_module(f"contenders.{module}"), function)(job, **options)


def spread(values: Sequence[float], form: str = "{:.2f}") -> str:
    """Median and range.

    >>> spread([2.0, 4.0, 3.0])
    '3.00 [2.00, 4.00]'
    """
    middle, low, high = (form.format(value) for value in (statistics.median(values), min(values), max(values)))
    return f"{middle} [{low}, {high}]"


def compared_lines(rounds: Sequence[dict[str, Result]]) -> list[str]:
    """A line for each peer: its seconds and those of ours, the ratios, and the memory of both."""
    lines = [
        "| | ours, s | peer, s | ratio | ratio of CPU time | peak of ours, GiB | of the peer | ratio |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, what in COMPARED.items():
        if name not in rounds[0]:  # it is not installed
            continue
        ours, peer = ([getattr(one[who], what) for one in rounds] for who in (OURS, name))
        if name == "generate, single":  # on fewer episodes: by tokens
            shares = [one[name].play_tokens / one[OURS].play_tokens for one in rounds]
            ours = [(wall * share, cpu * share) for (wall, cpu), share in zip(ours, shares, strict=True)]
        columns = [spread([seconds[0] for seconds in side], "{:.1f}") for side in (ours, peer)]
        columns += [spread([b[i] / a[i] for a, b in zip(ours, peer, strict=True)]) for i in (0, 1)]
        memory = [[one[who].peak_gib for one in rounds] for who in (OURS, name)]
        columns += [f"{statistics.median(side):.2f}" for side in memory]
        columns.append(spread([a / b for a, b in zip(*memory, strict=True)]))
        lines.append(f"| {what}: {name} | {' | '.join(columns)} |")
    return lines


def phase_lines(
    rounds: Sequence[dict[str, Result]], flops: dict[str, float], machine: Sequence[dict[str, float]], played: Played
) -> list[str]:
    """A line for each phase of ours, by CPU time: the median of the repeats."""
    phases = rounds[0][OURS].phases
    seconds = {name: statistics.median(one[OURS].phases[name][0] for one in rounds) for name in phases}
    rate, bandwidth = (statistics.median(one[name] for one in machine) for name in ("flops_cpu", "bytes_cpu"))
    whole = sum(seconds.values())
    lines = ["| phase | CPU s | share | tokens/s | of the matmul rate | of the bandwidth |", f"{'|---' * 6}|"]
    for name in sorted(seconds, key=lambda name: -seconds[name]):
        taken, (_, calls, tokens) = seconds[name], phases[name]
        columns = [name, f"{taken:.2f}", f"{100 * taken / whole:.1f} %", f"{tokens / taken:.0f}" if tokens else ""]
        columns.append(f"{100 * flops[name] / taken / rate:.0f} %" if flops.get(name) else "")
        read = _read_bytes(calls, machine[0], played) if name == "decode" else 0.0
        columns.append(f"{100 * read / taken / bandwidth:.0f} %" if read else "")
        lines.append(f"| {' | '.join(columns)} |")
    done = sum(flops.values())
    lines.append(f"| all | {whole:.2f} | 100 % | | {100 * done / whole / rate:.0f} % | |")
    return lines


def _read_bytes(steps: int, machine: dict[str, float], played: Played) -> float:
    """What decoding reads at the least: all weights in each step, and for each token that it reads the cache before."""
    turns = (turn for row in played.rows for turn in row.trace.turns)
    positions = sum(position for turn in turns for position in range(turn.start, turn.stop - 1))
    return steps * machine["weight_bytes"] + positions * machine["cache_bytes"]


def print_comparison(
    args: argparse.Namespace, rounds: Sequence[dict[str, Result]], machine: Sequence[dict[str, float]], played: Played
) -> None:
    names = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "peft", "trl"))
    print(f"\n{platform.machine()}, {args.threads} threads; {names}; {' '.join(args.overrides)}")
    print(f"{len(played.rows)} chats, {played.chat_tokens} tokens, {played.sampled} of them sampled; the same for all")
    kinds = ("flops_wall", "flops_cpu", "bytes_wall", "bytes_cpu")
    measured = [spread([one[kind] / 1e9 for one in machine], "{:.0f}") for kind in kinds]
    print("matrix products: {} GFLOP/s by wall-clock, {} by CPU time".format(*measured[:2]))
    print("memory is read at {} GB/s by wall-clock, {} by CPU time\n".format(*measured[2:]))
    print("\n".join(compared_lines(rounds)), end="\n\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=count, default=3, help="of all contenders in turn (default: 3)")
    parser.add_argument("--threads", type=count, default=os.cpu_count() or 1, help="of each (default: %(default)s)")
    parser.add_argument("--single", type=count, default=2, help="episodes played one prompt in a call (default: 2)")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="of configs/quickstart.yaml, as for train.py")
    args = parser.parse_intermixed_args()
    episodes = configuration(args.overrides).training.get("episodes_per_update", EPISODES_PER_UPDATE)
    if args.single > episodes:
        parser.error(f"argument --single: {args.single} is more than the {episodes} episodes of an update")
    os.environ["OMP_NUM_THREADS"] = str(args.threads)  # read by torch in the processes
    with tempfile.TemporaryDirectory() as folder:
        job = Job(tuple(args.overrides), args.threads, Path(folder))
        contenders: dict[str, Callable[[], Result]] = {
            OURS: partial(in_process, "ours", job),
            "generate, batched": partial(in_process, "generate", job),
            "full logits": partial(in_process, "full_logits", job),
            "generate, single": partial(in_process, "generate", job, episodes=args.single, rows_at_once=1),
            "GRPOTrainer": partial(in_process, "grpo", job),
        }
        if find_spec("comlrl"):
            contenders["CoMLRL"] = partial(in_process, "comlrl", job)
        rounds: list[dict[str, Result]] = []
        machine: list[dict[str, float]] = []
        for repeat in range(args.repeats):
            rounds.append({})
            machine.append(in_process("machine", job))
            for name, contender in contenders.items():
                rounds[-1][name] = result = contender()
                print(f"{repeat + 1}/{args.repeats} {name}: {result}", flush=True)
        played = Played.load(job.played)
        print_comparison(args, rounds, machine, played)
        flops = in_process("ours", job, function="count")
        print("\n".join(phase_lines(rounds, flops, machine, played)))


if __name__ == "__main__":
    sys.exit(run_script(main))
