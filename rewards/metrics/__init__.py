"""What is measured and never trained on: numbers over a list of episodes, with 95 % intervals.

`METRICS` is the list, and docs/metrics.md has a line for each. An entry is made of sums over episodes: a `Rate`, which
adds up, or a `Statistic` where no single ratio will do. A metric without a case is not defined: its value is None,
never 0. `n` is the number of cases, which is the denominator of a rate and the smallest of the denominators of what is
made of several.

What the words mean: the `claim` of a seat is what its source says, by its brief (`Decision.belief`), its `prior` the
likeliest option of its sealed report before any talk, its `final` answer the option that it is committed to, `right` is
`Decision.is_right`, and `worth` is the utility of an option. Rates of seats and decisions have one case for each pair
of both, unless they say otherwise.

`measure` one list of episodes; `compare` two on the same tasks. Where some seats alone are judged, as beside a scripted
partner, give either of them `of_seats` or `of_players`. A rate net of a placebo is a comparison too:
`compare(placebo, played)["cr"]`, where the partners of `placebo` talk without content; so is what changes when the
expert is revealed, a partner is a stranger, or one is an adversary. `coordination` compares a team with solo runs and
`prices` says what the tokens cost; `across_seeds` compares methods of which several seeds were trained, and
`change_across_seeds` two conditions that each of these seeds played. Episodes with a sandbox fault count in
`sandbox_fault_rate` alone.
"""

from rewards.metrics.across_seeds import Change, Estimate, MethodScores, across_seeds, change_across_seeds
from rewards.metrics.deference import Conflict, Flip, conflicts, flip_matrix, flips
from rewards.metrics.intervals import cases, compare, coordination, measure, rates
from rewards.metrics.rate import Metric, Rate
from rewards.metrics.table import HEADLINES, METRICS, NAMES, SEATWISE, of_players, of_seats, seats_of
from rewards.metrics.tokens import prices

__all__ = [
    "HEADLINES",
    "METRICS",
    "NAMES",
    "SEATWISE",
    "Change",
    "Conflict",
    "Estimate",
    "Flip",
    "MethodScores",
    "Metric",
    "Rate",
    "across_seeds",
    "cases",
    "change_across_seeds",
    "compare",
    "conflicts",
    "coordination",
    "flip_matrix",
    "flips",
    "measure",
    "of_players",
    "of_seats",
    "prices",
    "rates",
    "seats_of",
]
