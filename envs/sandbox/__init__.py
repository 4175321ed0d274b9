"""Runs code that a model wrote, where it can do no harm, and says what it did in a way that it cannot fake.

    run_expressions   small tests: forks of a warm interpreter, a few milliseconds each
    run_in_tree       a command, such as a whole test run, in a copy of a directory: bubblewrap around it
    describe          which layers of protection hold on this machine, and why the others do not

What each layer stops, what is left open and how to demand a layer: docs/sandbox.md.
"""

from envs.sandbox.expressions import same
from envs.sandbox.layers import describe, reset
from envs.sandbox.tiers import SandboxError, Tier
from envs.sandbox.tree import TreeRun, run_in_tree
from envs.sandbox.verdicts import ExpressionVerdict, Part, Status, run_expressions

__all__ = [
    "Part",
    "SandboxError",
    "Status",
    "Tier",
    "TreeRun",
    "ExpressionVerdict",
    "describe",
    "reset",
    "run_expressions",
    "run_in_tree",
    "same",
]
