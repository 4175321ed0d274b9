"""The list of metrics. A new one is a function from an episode to a `Rate`, and a line here.

Its docstring says what it is, then `Range: ...`, with "more is better" or "less is better" where no policy betters it
by leaving its cases, `Cases: ...` and `Source: ...`; `python benchmarks/metrics.py` writes docs/metrics.md from these.
"""

from collections.abc import Callable, Collection, Iterable

from envs.core.episode import Episode
from envs.core.task import Seat
from rewards.metrics.acts import (
    acting_rate,
    commitment_coverage,
    commitments_kept,
    expectation_brier,
    expectation_gap,
    expectation_misread,
    expectation_untold,
    late_retraction_rate,
    malformed_act_rate,
    pushback_precision,
    pushback_recall,
    yield_to_better,
    yield_to_worse,
)
from rewards.metrics.averaging import (
    ambiguous_code_rate,
    blend_rate,
    code_mixing,
    dominated_blend_rate,
    log_rolling_rate,
    numeric_excess_loss,
    numeric_pool_position,
    numeric_position,
)
from rewards.metrics.calibration import auroc, brier, ece, histograms, overconfidence
from rewards.metrics.deference import (
    answer_realised,
    cdr,
    cdr_answered,
    cdr_stated,
    cr,
    cr_answered,
    cr_as_expert,
    cr_as_novice,
    cr_stated,
    j,
    kairos_f1,
    kairos_utility,
    misled,
    prior_accuracy,
    prior_as_told,
    resistance,
)
from rewards.metrics.foresight import (
    forecast_lead_rounds,
    forecast_precision,
    semantic_forecast_lead_rounds,
    semantic_forecast_precision,
    semantic_forecast_recall,
)
from rewards.metrics.memory import (
    memory_compression,
    memory_conflict_lead,
    memory_poison_rate,
    memory_recall,
    memory_staleness,
    memory_tokens_per_episode,
    memory_write_precision,
)
from rewards.metrics.outcomes import (
    parse_rate,
    sandbox_fault_rate,
    semantic_conflict_rate,
    silence_rate,
    success,
    textual_conflict_rate,
    truncation_rate,
    utility,
)
from rewards.metrics.rate import Rate, Statistic, bounded, for_each, statistic, unbounded
from rewards.metrics.synergy import (
    elr,
    gap_to_best_member,
    synergy_gap,
    worth_any_right,
    worth_attainable,
    worth_best_member,
    worth_expert,
    worth_novice,
    worth_team,
    worth_vote,
)
from rewards.metrics.taxonomy import (
    broken_commitments_per_episode,
    commitment_failure_share,
    communication_failure_share,
    content_free_messages_per_episode,
    duplicate_messages_per_episode,
    expectation_failure_share,
    late_messages_per_episode,
    misread_expectations_per_episode,
    unanswered_questions_per_episode,
    untold_expectations_per_episode,
)
from rewards.metrics.tokens import (
    duplicate_tokens_per_episode,
    generated_tokens_per_solved,
    message_share,
    message_tokens_per_episode,
    rework_tokens_per_episode,
)

BOUNDED = (  # in [0, 1]
    success,
    utility,
    cdr,
    cr,
    cr_as_expert,
    cr_as_novice,
    misled,
    cdr_answered,
    cr_answered,
    answer_realised,
    cdr_stated,
    cr_stated,
    kairos_utility,
    resistance,
    prior_accuracy,
    prior_as_told,
    blend_rate,
    dominated_blend_rate,
    log_rolling_rate,
    numeric_excess_loss,
    code_mixing,
    ambiguous_code_rate,
    pushback_precision,
    pushback_recall,
    yield_to_better,
    yield_to_worse,
    commitments_kept,
    commitment_coverage,
    late_retraction_rate,
    expectation_brier,
    expectation_gap,
    expectation_untold,
    expectation_misread,
    expectation_failure_share,
    commitment_failure_share,
    communication_failure_share,
    acting_rate,
    malformed_act_rate,
    parse_rate,
    truncation_rate,
    message_share,
    memory_recall,
    memory_staleness,
    memory_write_precision,
    memory_poison_rate,
    silence_rate,
    textual_conflict_rate,
    semantic_conflict_rate,
    forecast_precision,
    semantic_forecast_precision,
    semantic_forecast_recall,
    brier,
    worth_team,
    worth_expert,
    worth_novice,
    worth_vote,
    worth_attainable,
    worth_any_right,
    sandbox_fault_rate,
)

UNBOUNDED = (
    numeric_position,
    numeric_pool_position,
    untold_expectations_per_episode,
    misread_expectations_per_episode,
    broken_commitments_per_episode,
    unanswered_questions_per_episode,
    duplicate_messages_per_episode,
    content_free_messages_per_episode,
    late_messages_per_episode,
    message_tokens_per_episode,
    rework_tokens_per_episode,
    duplicate_tokens_per_episode,
    memory_tokens_per_episode,
    memory_conflict_lead,
    memory_compression,
    forecast_lead_rounds,
    semantic_forecast_lead_rounds,
)

RATES = BOUNDED + UNBOUNDED


def _gap_to(comparator: Callable[[Episode], Rate]) -> Statistic:
    gap = statistic(synergy_gap, comparator, worth_team)
    return gap._replace(doc=f"`synergy_gap` to `{comparator.__name__}`: {gap.doc}")


J_ANSWERED = """`j` by last replies: `cdr_answered` - `cr_answered`. Range: [-1, 1], more is better. Cases: the
fewer of both rates' cases. Source: as `j`."""
J_STATED = """`j` by sealed priors: `cdr_stated` - `cr_stated`. Range: [-1, 1]. Cases: the fewer of both rates' cases.
Source: as `j`."""

METRICS: dict[str, Statistic] = {
    **{rate.__name__: bounded(rate) for rate in BOUNDED},
    **{rate.__name__: unbounded(rate) for rate in UNBOUNDED},
    "generated_tokens_per_solved": for_each(generated_tokens_per_solved),
    "j": statistic(j, cdr, cr),
    "j_answered": statistic(j, cdr_answered, cr_answered)._replace(doc=J_ANSWERED),
    "j_stated": statistic(j, cdr_stated, cr_stated)._replace(doc=J_STATED),
    "kairos_f1": statistic(kairos_f1, kairos_utility, resistance),
    "ece": ece,
    "auroc": auroc,
    "elr": statistic(elr, worth_team, worth_expert, worth_novice),
    "worth_best_member": worth_best_member,
    "gap_to_best_member": gap_to_best_member,
    "gap_to_expert": _gap_to(worth_expert),
    "gap_to_vote": _gap_to(worth_vote),
    "gap_to_attainable": _gap_to(worth_attainable),
    "gap_to_any_right": _gap_to(worth_any_right),
}
NAMES = tuple(METRICS)

_OF_SEATS = (  # rates of which each case is a seat's
    *(cdr, cr, cr_as_expert, cr_as_novice, misled, cdr_answered, cr_answered, answer_realised),
    *(cdr_stated, cr_stated, kairos_utility, resistance),
    *(prior_accuracy, prior_as_told, parse_rate, truncation_rate, silence_rate, brier),
    *(blend_rate, dominated_blend_rate, ambiguous_code_rate),
    *(numeric_position, numeric_pool_position, numeric_excess_loss),
)
SEATWISE: dict[str, tuple[Callable[..., Iterable[float]], ...]] = {  # metrics of some seats, and what these are made of
    **{rate.__name__: (rate,) for rate in _OF_SEATS},
    "j": (cdr, cr),
    "j_answered": (cdr_answered, cr_answered),
    "j_stated": (cdr_stated, cr_stated),
    "kairos_f1": (kairos_utility, resistance),
    "ece": (overconfidence,),
    "auroc": (histograms,),
}


def of_seats(judged: Callable[[Episode], Collection[Seat]]) -> dict[str, Statistic]:
    """`METRICS`, those of `SEATWISE` over the judged seats of an episode alone: where a partner plays that is not."""

    def addends(parts: tuple[Callable[..., Iterable[float]], ...]) -> Callable[[Episode], list[float]]:
        return lambda episode: [number for part in parts for number in part(episode, judged(episode))]

    return METRICS | {name: METRICS[name]._replace(addends=addends(parts)) for name, parts in SEATWISE.items()}


def of_players(names: Collection[str]) -> dict[str, Statistic]:
    """`of_seats` for the seats that these players had (`seats_of`)."""
    return of_seats(lambda episode: seats_of(names, episode))


def seats_of(names: Collection[str], episode: Episode) -> Collection[Seat]:
    """The seats that some players had in an episode; all where no player is named, or it is not known who played."""
    if not names or not episode.players:
        return episode.seats
    return [seat for seat in episode.seats if episode.players.get(seat) in names]


HEADLINES = (  # what to look at first, while training too
    "success",
    "utility",
    "j",
    "cdr",
    "cr",
    "cr_as_expert",
    "cr_as_novice",
    "j_answered",
    "answer_realised",
    "blend_rate",
    "silence_rate",
    "prior_accuracy",
    "prior_as_told",
    "message_tokens_per_episode",
    "generated_tokens_per_solved",
    "parse_rate",
    "truncation_rate",
    "sandbox_fault_rate",
    "brier",
)
