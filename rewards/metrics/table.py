"""The list of metrics. A new one is a function from an episode to a `Rate`, and a line here."""

from rewards.metrics.averaging import (
    blend_rate,
    dominated_blend_rate,
    log_rolling_rate,
    numeric_excess_loss,
    numeric_pool_position,
    numeric_position,
)
from rewards.metrics.calibration import auroc, brier, ece
from rewards.metrics.deference import cdr, cr, j, prior_accuracy
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
    utility,
)
from rewards.metrics.rate import Statistic, formula, plain
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
from rewards.metrics.tokens import (
    duplicate_tokens_per_episode,
    generated_tokens_per_solved,
    message_share,
    message_tokens_per_episode,
    rework_tokens_per_episode,
)

RATES = (
    success,
    utility,
    cdr,
    cr,
    prior_accuracy,
    blend_rate,
    dominated_blend_rate,
    log_rolling_rate,
    numeric_position,
    numeric_pool_position,
    numeric_excess_loss,
    parse_rate,
    message_tokens_per_episode,
    message_share,
    generated_tokens_per_solved,
    rework_tokens_per_episode,
    duplicate_tokens_per_episode,
    memory_tokens_per_episode,
    memory_recall,
    memory_staleness,
    memory_conflict_lead,
    memory_compression,
    memory_write_precision,
    memory_poison_rate,
    silence_rate,
    semantic_conflict_rate,
    brier,
    worth_team,
    worth_expert,
    worth_novice,
    worth_vote,
    worth_attainable,
    worth_any_right,
    sandbox_fault_rate,
)

METRICS: dict[str, Statistic] = {rate.__name__: plain(rate) for rate in RATES} | {
    "j": formula(j, cdr, cr),
    "ece": ece,
    "auroc": auroc,
    "elr": formula(elr, worth_team, worth_expert, worth_novice),
    "worth_best_member": worth_best_member,
    "gap_to_best_member": gap_to_best_member,
    "gap_to_expert": formula(synergy_gap, worth_expert, worth_team),
    "gap_to_vote": formula(synergy_gap, worth_vote, worth_team),
    "gap_to_attainable": formula(synergy_gap, worth_attainable, worth_team),
    "gap_to_any_right": formula(synergy_gap, worth_any_right, worth_team),
}
NAMES = tuple(METRICS)
