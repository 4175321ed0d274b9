"""Which layers of protection this machine has, and how to look again."""

from envs.sandbox import executor, forks, tree, verdicts


def describe() -> str:
    """What protects this machine: a line for small tests and one for whole trees.

    Raises:
        SandboxError: nothing can be run here, or a layer that MARL_COOP_SANDBOX demands does not hold.
    """
    return f"small tests: {executor.tier()}\nwhole trees: {tree.tier()}"


def reset() -> None:
    """End the fork servers of this process and forget its verdicts. The next call looks again at what holds here."""
    forks.end()
    tree.tier.cache_clear()
    verdicts.verdict_of.cache_clear()
