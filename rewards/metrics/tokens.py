"""The token ledger: what was written, for what, and what it costs.

Tokens are the words and symbols of `message_tokens`, the same for every model; what a provider charges for are its own.
"""

from collections.abc import Mapping

from envs.core.episode import Episode
from envs.core.tokens import message_tokens
from rewards.metrics.rate import Metric, Rate


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

    Range: from 0; a price, to be read beside `success`. Cases: solved episodes. Source: our own.
    Example: 30 tokens solve a task and 50 fail one: 80 tokens per solved task.
    """
    return Rate(generated_tokens(episode), int(episode.outcome.success))


def rework_tokens_per_episode(episode: Episode) -> Rate:
    """Mean tokens of code that the seats wrote and that did not survive, by `Outcome.provenance`.

    Range: from 0, less is better. Cases: episodes with a ledger of the code. Source: our own.
    Example: the seats wrote 30 and 10 tokens, of which 10 and 10 survive: 20.
    """
    ledger = episode.outcome.provenance
    return Rate(float(sum(ledger.authored.values()) - sum(ledger.surviving.values())), 1) if ledger else Rate()


def duplicate_tokens_per_episode(episode: Episode) -> Rate:
    """Mean tokens of code that several seats wrote and of which one version survives, by `Outcome.provenance`.

    Range: from 0, less is better. Cases: episodes with a ledger of the code. Source: our own.
    """
    ledger = episode.outcome.provenance
    return Rate(float(ledger.duplicated), 1) if ledger else Rate()


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
