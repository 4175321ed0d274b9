"""Runs code that a model wrote, where it can do no harm, and says what it did in a way that it cannot fake.

    run_expressions   small tests: forks of a warm interpreter, a few milliseconds each
    run_in_tree       a command, such as a whole test run, in a copy of a directory: bubblewrap around it
    describe          which layers of protection hold on this machine, and why the others do not

What each layer stops, what is left open and how to demand a layer: docs/sandbox.md.
"""

from envs.sandbox import forks, tree, verdicts
from envs.sandbox.expressions import same
from envs.sandbox.tiers import SandboxError, Tier
from envs.sandbox.tree import TreeRun, run_in_tree
from envs.sandbox.verdicts import Part, Status, Verdict, run_expressions


def describe() -> str:
    """What protects this machine: a line for small tests and one for whole trees.

    Raises:
        SandboxError: nothing can be run here, or a layer that MARL_COOP_SANDBOX demands does not hold.
    """
    return f"small tests: {forks.tier()}\nwhole trees: {tree.tier()}"


def reset() -> None:
    """End the fork servers of this process and forget its verdicts. The next call looks again at what holds here."""
    forks.end()
    tree.tier.cache_clear()
    verdicts.verdict_of.cache_clear()


__all__ = [
    "Part",
    "SandboxError",
    "Status",
    "Tier",
    "TreeRun",
    "Verdict",
    "describe",
    "reset",
    "run_expressions",
    "run_in_tree",
    "same",
]
