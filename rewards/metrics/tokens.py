"""The token ledger: what was written, for what, and what it costs.

Tokens are the words and symbols of `message_tokens`, the same for every model; what a provider charges for are its own.
"""

import re
from collections import defaultdict
from collections.abc import Mapping

from envs.episode import Episode, message_tokens
from rewards.metrics.rate import Metric, Rate

_DEFINITION = re.compile(r"^(?:async +)?(?:def|class) +(\w+).*(?:\n+[ \t].*)*", re.MULTILINE)


def message_tokens_per_episode(episode: Episode) -> Rate:
    """Mean message tokens of all seats together.

    Range: from 0. Cases: episodes. Source: our own.
    """
    return Rate(float(sum(turn.message_tokens for turn in episode.turns)), 1)


def message_share(episode: Episode) -> Rate:
    """Share of what the seats wrote that was message.

    Range: [0, 1]. Cases: tokens written. Source: CooperBench (arXiv 2601.13295), whose agents spend up to 20 %.
    """
    return Rate(message_tokens_per_episode(episode).numerator, int(generated_tokens(episode)))


def generated_tokens(episode: Episode) -> float:
    return float(sum(message_tokens(turn.reply) for turn in episode.turns))


def generated_tokens_per_solved(episode: Episode) -> Rate:
    """All that the seats wrote, in failed episodes too, for each task that was solved.

    Range: from 0, less is better. Cases: solved episodes. Source: our own.
    Example: 30 tokens solve a task and 50 fail one: 80 tokens per solved task.
    """
    return Rate(generated_tokens(episode), int(episode.outcome.success))


def rework_tokens_per_episode(episode: Episode) -> Rate:
    """Mean tokens that were authored and did not survive: lines of a seat's drafts that its last code is without.

    A line counts once, however many drafts had it, and its indentation does not matter. Range: from 0, less is better.
    Cases: episodes with code. Source: our own.
    Example: the draft has the lines "x = 1" and "y = 2", the last code only "y = 2": 3 tokens.
    """
    rework = 0
    for seat in episode.seats:
        drafts = [{line.strip() for line in turn.work.splitlines()} for turn in episode.turns_of(seat) if turn.work]
        rework += sum(map(message_tokens, set().union(*drafts).difference(*drafts[-1:])))
    return Rate(float(rework), 1) if episode.task.stubs else Rate()


def duplicate_tokens_per_episode(episode: Episode) -> Rate:
    """Mean tokens of top-level functions and classes that more than one seat wrote, all but the longest of each name.

    Range: from 0, less is better. Cases: episodes with code. Source: our own.
    Example: one seat writes `def f(): return 1` in 7 tokens and the other `def f(): return x + 1` in 9: 7 tokens.
    """
    versions: dict[str, list[int]] = defaultdict(list)
    for seat in episode.seats:
        last = next((turn.work for turn in reversed(episode.turns_of(seat)) if turn.work), "")
        for name, tokens in {m[1]: message_tokens(m[0]) for m in _DEFINITION.finditer(last)}.items():
            versions[name].append(tokens)
    duplicate = sum(sum(tokens) - max(tokens) for tokens in versions.values())
    return Rate(float(duplicate), 1) if episode.task.stubs else Rate()


LEDGER = (
    "message_tokens_per_episode",
    "generated_tokens_per_solved",
    "rework_tokens_per_episode",
    "duplicate_tokens_per_episode",
)


def prices(metrics: Mapping[str, Metric], per_million: float) -> dict[str, Metric]:
    """What each entry of the ledger costs, at a price per million tokens and in its currency.

    Example: 80 tokens per solved task at 15 per million: 0.0012.
    """
    return {name: _scaled(metrics[name], per_million / 1e6) for name in LEDGER}


def _scaled(metric: Metric, factor: float) -> Metric:
    ends = (metric.value, metric.low, metric.high)
    return Metric(*(None if end is None else end * factor for end in ends), n=metric.n)
