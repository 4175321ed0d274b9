"""Runs code that a model wrote, where it can do no harm, and says what it did in a way that it cannot fake.

    run_expressions   small tests: forks of a warm interpreter, one to a few milliseconds each
    run_in_tree       a whole test run in a copy of a directory: bubblewrap around any command
    describe          which layers of protection hold on this machine, and why the others do not

What each layer stops, what is left open and how to demand a layer: docs/sandbox.md.
"""

from envs.sandbox.expressions import same
from envs.sandbox.tiers import SandboxError, Tier
from envs.sandbox.verdicts import Part, Status, Verdict, run_expressions

__all__ = ["Part", "SandboxError", "Status", "Tier", "Verdict", "run_expressions", "same"]
