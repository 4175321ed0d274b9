"""Alarms: what goes wrong in a training without an error, told by the records of its updates (`metrics.jsonl`).

An alarm looks at means over `WINDOW` updates, so none rings before there are as many, and one that compares with the
start not before there are twice as many. What an adapter logs is in the records of the updates in which it learns, and
these alone count for it: adapters may take turns. A threshold says what it is made for; the figures in brackets are
those of the quickstart, in which none rings.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

from rewards.metrics import Metric

Rows = Sequence[Mapping[str, float]]  # the records of updates, from the first on

WINDOW = 3  # updates; one update's rates are as noisy as its episodes are few
SILENT = 0.5  # share of what a partner needed and was not told; in most cases there is no talk to speak of (0.04)
ALWAYS = 0.9  # CDR and CR, both above it: who is right plays no part; always deferring has 1 and 1 (0.81 and 0.5)
NEVER = 0.1  # both below it; never deferring has 0 and 0
PRIOR_FALL = 0.15  # of prior accuracy or of priors as told, from the start; twice the noise of 64 episodes (0.06)
CASES_LEFT = 0.5  # of the share of J's cases in which both seats still state an opinion, or of J's cases themselves
ENTROPY_LEFT = 0.1  # of the start's: nothing is explored any more (0.5)
ENTROPY_RISE = 0.5  # nats above the start's: replies turn into noise (0.0)
UPDATE_KL = 0.1  # nats per token within one update, ten times what PPO is usually held to (0.04)
REFERENCE_KL = 1.0  # nats per token: what was taught before, such as the format, is being lost (0.12)
OF_ADAPTERS = ("entropy", "approx_kl", "kl_to_reference")  # what is watched of each
HELD_OUT = ("success", "j")
HELD_OUT_FALL, TRAIN_RISE = 0.1, 0.05  # of one of these, since the best evaluation


def ringing(rows: Rows) -> dict[str, str]:
    """The alarms that ring after the last of some updates, by name, with a line that says why.

    >>> silent = {"team/silence_rate": 0.8, "team/cdr": 0.4, "team/cr": 0.3}
    >>> ringing([silent] * 3)
    {'silence': 'seats keep to themselves 80 % of what a partner needs'}
    """
    return {name: text for alarm in ALARMS for name, text in alarm(rows)}


def still_read(rows: Rows) -> list[Mapping[str, float]]:
    """The records that alarms read, after the last update or a later one, in order: some windows of them, however long
    the history is."""
    ends = [WINDOW, len(rows)]
    for name in HELD_OUT:
        if played := _evaluated(rows, name):
            ends += [_best(rows, name, played) + 1, played[-1] + 1]
    kept = {i for end in ends for i in range(end - WINDOW, end)}
    for name in OF_ADAPTERS:
        for adapter in _with(rows, name):
            learned = [i for i, row in enumerate(rows) if f"{adapter}/{name}" in row]
            kept |= {*learned[:WINDOW], *learned[-WINDOW:]}
    return [row for i, row in enumerate(rows) if i in kept]


def worsened(change: Mapping[str, Metric]) -> list[str]:
    """A line for success and J each, where the evaluation after training is below that before for certain. It rings in
    runs of a few updates too, of which `ringing` knows nothing yet.

    >>> worsened({"j": Metric(-0.83, -0.95, -0.6, n=20), "success": Metric(-0.1, -0.3, 0.1, n=48)})
    ['J is lower after training than before: -0.83 [-0.95, -0.60]']

    Args:
        change: after - before, by metric.
    """
    names = {"success": "success", "j": "J"}
    falls = {label: change[name] for name, label in names.items() if name in change}
    return [
        f"{label} is lower after training than before: {fall}"
        for label, fall in falls.items()
        if fall.high is not None and fall.high < 0
    ]


def _mean(rows: Rows, key: str) -> float | None:
    """Mean over the last updates; None where the number is not defined in any of them."""
    values = [row[key] for row in rows[-WINDOW:] if key in row]
    return sum(values) / len(values) if values else None


def _recent(rows: Rows, key: str) -> float | None:
    """`_mean`; None where there are too few updates."""
    return _mean(rows, key) if len(rows) >= WINDOW else None


def _start_and_now(rows: Rows, key: str) -> tuple[float, float] | None:
    """Means over the first and the last updates; None where the two would overlap or one is not defined."""
    start, now = _recent(rows[:WINDOW], key), _recent(rows, key)
    return None if start is None or now is None or len(rows) < 2 * WINDOW else (start, now)


def silence(rows: Rows) -> Iterator[tuple[str, str]]:
    rate = _recent(rows, "team/silence_rate")
    if rate is not None and rate > SILENT:
        yield "silence", f"seats keep to themselves {rate:.0%} of what a partner needs".replace("%", " %")


def one_sided(rows: Rows) -> Iterator[tuple[str, str]]:
    """Of the team, or else of an adapter: where one always leads and one always follows, the team does neither."""
    of_team = [(name, f"seats {what}") for name, what in _one_sided(rows, "team")]
    of_adapters = (
        (f"{name}: {adapter}", f"{adapter} {what.replace('give', 'gives')}")
        for adapter in _with(rows, "entropy")
        for name, what in _one_sided(_learned(rows, f"{adapter}/entropy"), f"by/{adapter}")
    )
    yield from of_team or of_adapters


def _one_sided(rows: Rows, group: str) -> Iterator[tuple[str, str]]:
    cdr, cr = _recent(rows, f"{group}/cdr"), _recent(rows, f"{group}/cr")
    if cdr is None or cr is None:
        return
    both = f"CDR is {cdr:.2f} and CR {cr:.2f}, whoever is right"
    if min(cdr, cr) > ALWAYS:
        yield "always deferring", f"always give in: {both}"
    if max(cdr, cr) < NEVER:
        yield "always holding", f"never give in: {both}"


def sandbagging(rows: Rows) -> Iterator[tuple[str, str]]:
    for key, what in (("prior_accuracy", "the accuracy of priors"), ("prior_as_told", "the share of priors as told")):
        found = _start_and_now(rows, f"team/{key}")
        if found and found[1] < found[0] - PRIOR_FALL:
            yield f"sandbagging: {key}", f"{what} fell from {found[0]:.2f} to {found[1]:.2f}"


def fewer_cases(rows: Rows) -> Iterator[tuple[str, str]]:
    cases, stated = _start_and_now(rows, "team/j_cases"), _start_and_now(rows, "team/j_stated_cases")
    if cases and cases[1] < CASES_LEFT * cases[0]:
        yield "fewer cases of J", f"J has {cases[1]:.0f} cases in an update, and had {cases[0]:.0f}"
    if cases and stated and min(cases) > 0:
        before, now = (s / c for s, c in zip(stated, cases, strict=True))
        if now < CASES_LEFT * before:
            yield "fewer stated cases of J", f"seats state opinions in {now:.2f} of J's cases, and did in {before:.2f}"


def entropy(rows: Rows) -> Iterator[tuple[str, str]]:
    for adapter in _with(rows, "entropy"):
        found = _start_and_now(_learned(rows, f"{adapter}/entropy"), f"{adapter}/entropy")
        if found and not found[0] * ENTROPY_LEFT <= found[1] <= found[0] + ENTROPY_RISE:
            yield f"entropy of {adapter}", f"the entropy of {adapter} went from {found[0]:.3f} to {found[1]:.3f} nats"


def kl(rows: Rows) -> Iterator[tuple[str, str]]:
    limits = {"approx_kl": (UPDATE_KL, "within an update"), "kl_to_reference": (REFERENCE_KL, "from its reference")}
    for key, (limit, where) in limits.items():
        for adapter in _with(rows, key):
            now = _recent(_learned(rows, f"{adapter}/{key}"), f"{adapter}/{key}")
            if now is not None and now > limit:
                yield (
                    f"{key} of {adapter}",
                    f"{adapter} moves {now:.2f} nats per token {where}, at most {limit} is usual",
                )


def held_out(rows: Rows) -> Iterator[tuple[str, str]]:
    """Training up and held-out down: since the best evaluation, which is not the last."""
    for name in HELD_OUT:
        played = _evaluated(rows, name)
        if len(played) < 2:
            continue
        last, best = played[-1], _best(rows, name, played)
        fall = rows[best][f"eval/{name}"] - rows[last][f"eval/{name}"]
        then, now = (_mean(rows[: i + 1], f"team/{name}") for i in (best, last))
        if then is not None and now is not None and fall > HELD_OUT_FALL and now - then > TRAIN_RISE:
            training, unseen = (f"{now - then:+.2f}", f"{-fall:+.2f}")
            yield f"held out: {name}", f"{name} in training {training}, on unseen instances {unseen} since the best"


def _evaluated(rows: Rows, name: str) -> list[int]:
    """The records of updates with an evaluation in which a metric is defined."""
    return [i for i, row in enumerate(rows) if f"eval/{name}" in row]


def _best(rows: Rows, name: str, played: Sequence[int]) -> int:
    """Of those, the one with the highest value, the last of several."""
    return max(played, key=lambda i: (rows[i][f"eval/{name}"], i))


def _with(rows: Rows, key: str) -> list[str]:
    """The adapters that any record has such a number of, in the order of their names; a reward term may be called as
    the number is: `agent_0/reward/entropy`."""
    found = {name.removesuffix(f"/{key}") for row in rows for name in row if name.endswith(f"/{key}")}
    return sorted(adapter for adapter in found if "/" not in adapter)


def _learned(rows: Rows, key: str) -> Rows:
    """The records of the updates in which an adapter learned, which have such a number of it."""
    return [row for row in rows if key in row]


ALARMS: tuple[Callable[[Rows], Iterator[tuple[str, str]]], ...] = (
    silence,
    one_sided,
    sandbagging,
    fewer_cases,
    entropy,
    kl,
    held_out,
)
