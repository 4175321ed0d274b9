"""How teams fail: expectation, commitment, communication, counted from acts and messages and without a judge.

The three kinds are those of CooperBench (arXiv 2601.13295): of 50 failed runs of pairs that its authors read by hand,
42 % fell to expectation, 32 % to commitment and 26 % to communication, together all. Here an episode may show several
kinds or none, so the shares need not sum to 1, and a sign of a failure need not be its cause.

A share has as cases those of the episodes with acts that failed.
"""

from collections import Counter
from collections.abc import Callable

from envs.core.episode import ActKind, Episode, Turn
from envs.core.posterior import named_option
from rewards.metrics.acts import acting, acts_on, can_be_heeded, commitments_kept, predictions
from rewards.metrics.rate import Rate, seats_and_decisions

_ANSWERS = tuple(kind for kind in ActKind if kind not in (ActKind.ASK, ActKind.RETRACT, ActKind.EXPECT))


# expectation


def untold_expectations_per_episode(episode: Episode) -> Rate:
    """Mean number of wrong predictions of what the partner never communicated.

    Range: from 0, less is better. Cases: episodes in which a seat wrote an act. Source: our own.
    """
    return _count(episode, lambda e: sum(not p.right and not p.told for p in predictions(e)))


def misread_expectations_per_episode(episode: Episode) -> Rate:
    """Mean number of wrong predictions of what the partner did communicate.

    Range: from 0, less is better. Cases: episodes in which a seat wrote an act. Source: our own.
    """
    return _count(episode, lambda e: sum(not p.right and p.told for p in predictions(e)))


def expectation_failure_share(episode: Episode) -> Rate:
    """P(a prediction of the partner's part is wrong | failed).

    Range: [0, 1], less is better. Cases: failed episodes in which a seat wrote an act.
    Source: CooperBench (arXiv 2601.13295), 42 % as the cause of a failure.
    """
    return _share(episode, lambda e: any(not p.right for p in predictions(e)))


# commitment


def _broken(episode: Episode) -> int:
    kept = commitments_kept(episode)
    return kept.denominator - int(kept.numerator)


def broken_commitments_per_episode(episode: Episode) -> Rate:
    """Mean number of promises that a seat's part does not realise and that were not taken back in time.

    Range: from 0, less is better. Cases: episodes in which a seat wrote an act. Source: our own.
    """
    return _count(episode, _broken)


def commitment_failure_share(episode: Episode) -> Rate:
    """P(a promise was broken and not taken back in time | failed).

    Range: [0, 1], less is better. Cases: failed episodes in which a seat wrote an act.
    Source: CooperBench (arXiv 2601.13295), 32 % as the cause of a failure.
    """
    return _share(episode, _broken)


# communication


def _unanswered(episode: Episode) -> int:
    """Questions after which no partner names an option of the decision in an act."""
    return sum(
        not any(
            answer.round > question.round
            for partner in episode.partners_of(seat)
            for answer, _ in acts_on(episode, partner, decision, *_ANSWERS)
        )
        for seat, decision in seats_and_decisions(episode)
        for question, _ in acts_on(episode, seat, decision, ActKind.ASK)
    )


def _wasted(episode: Episode) -> Counter[str]:
    """Messages that could not help, each counted for the first reason that applies."""
    said, counts = set(), Counter()
    for turn in episode.turns:
        words = (turn.agent, *turn.message.casefold().split())
        if turn.message and not can_be_heeded(episode, turn):
            counts["late"] += 1
        elif turn.message and words in said:
            counts["duplicate"] += 1
        elif turn.message and _is_content_free(episode, turn):
            counts["content-free"] += 1
        said.add(words)
    return counts


def _is_content_free(episode: Episode, turn: Turn) -> bool:
    heard = any(act.kind is not ActKind.EXPECT for act in turn.acts)
    return not heard and all(named_option([turn.message], decision) is None for decision in episode.task.decisions)


def unanswered_questions_per_episode(episode: Episode) -> Rate:
    """Mean number of ASKs after which no partner wrote an act that names an option of the decision.

    Range: from 0, less is better. Cases: episodes in which a seat wrote an act. Source: our own.
    """
    return _count(episode, _unanswered)


def duplicate_messages_per_episode(episode: Episode) -> Rate:
    """Mean number of messages with the same words as an earlier one of the same seat.

    Range: from 0, less is better. Cases: episodes in which a seat wrote an act. Source: our own.
    """
    return _count(episode, lambda e: _wasted(e)["duplicate"])


def content_free_messages_per_episode(episode: Episode) -> Rate:
    """Mean number of messages, no duplicates, without an act and without the name of an option.

    Range: from 0, less is better. Cases: episodes in which a seat wrote an act. Source: our own.
    """
    return _count(episode, lambda e: _wasted(e)["content-free"])


def late_messages_per_episode(episode: Episode) -> Rate:
    """Mean number of messages after which no partner has a turn left.

    Range: from 0, less is better. Cases: episodes in which a seat wrote an act. Source: our own.
    """
    return _count(episode, lambda e: _wasted(e)["late"])


def communication_failure_share(episode: Episode) -> Rate:
    """P(a question was not answered, or a message was late, a duplicate or without content | failed).

    Range: [0, 1], less is better. Cases: failed episodes in which a seat wrote an act.
    Source: CooperBench (arXiv 2601.13295), 26 % as the cause of a failure.
    """
    return _share(episode, lambda e: _unanswered(e) or _wasted(e))


def _count(episode: Episode, failures: Callable[[Episode], int]) -> Rate:
    return Rate(float(failures(episode)), 1) if acting(episode) else Rate()


def _share(episode: Episode, failed: Callable[[Episode], object]) -> Rate:
    return Rate(float(bool(failed(episode))), 1) if acting(episode) and not episode.outcome.success else Rate()
