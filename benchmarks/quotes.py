"""What stands between two claims and a last reply: what a seat says of them, and whether it follows what it says.

    python benchmarks/quotes.py runs/first runs/first/before.jsonl evaluations/transfer

The warm-up's demonstrations begin a last reply with `Mine is doubtful: 61. Theirs is reliable: 57.` and choose at
random. For each seat of a pair, in each file of episodes or each condition of a run or evaluation, this prints how many
of the last replies that say how good the own source is say it rightly. Of seats that were told different things it
prints how many quote their own claim, how many quote the partner's if that was said, and how many answer what they
themselves quote beside the better source.
"""

import argparse
import re
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from envs.core.episode import Episode, Phase
from envs.core.posterior import named_option
from envs.core.task import Decision, Seat
from marl_coop.cli import run_script
from marl_coop.cli.arguments import existing
from marl_coop.evaluation.comparison import BESIDE_PARTNERS
from marl_coop.evaluation.evaluated import read_evaluated
from marl_coop.runs.records import read_episodes
from marl_coop.runs.rundir import RunError
from rewards.metrics import Rate, measure
from rewards.metrics.rate import bounded, seats_and_decisions, share

RATED = re.compile(r"Mine is ([^:\n]+)")
QUOTES = re.compile(r"Mine is ([^:\n]+): (.*?)\.(?: Theirs is ([^:\n]+): (.*?)\.)?\s*$", re.MULTILINE)

Seats = Collection[Seat] | None  # whose replies are looked at; None: all


class Quoted(NamedTuple):
    """What a seat of a pair says of the claims in its last reply, and what it makes of that.

    `rates` is whether it says rightly how good the own source is, None where it does not say. The others are of seats
    that were told otherwise than their partner, else None: whether it quotes its own claim; the partner's, None where
    that was not said; whether it follows them, None where the quotes do not say which option the better source has.
    """

    rates: bool | None
    own: bool | None = None
    theirs: bool | None = None
    follows: bool | None = None


def quoted(episode: Episode, seats: Seats = None) -> Iterator[Quoted]:
    """One for each of the seats and decision."""
    for seat, decision in seats_and_decisions(episode, seats):
        (other,) = episode.partners_of(seat)
        own, theirs = decision.belief[seat], decision.belief[other]
        reply = next((turn.reply for turn in episode.turns_of(seat) if turn.phase is Phase.FINAL), "")
        line = _line_of(decision, episode, reply)
        found, answer = QUOTES.search(line), episode.final(seat, decision.id)
        rated = RATED.search(line)
        rates = rated[1] == decision.quality(seat) if rated else None
        if own == theirs:
            yield Quoted(rates)
            continue
        said = named_option([turn.message for turn in episode.turns_of(other)], decision)
        quotes = {found[1]: found[2], found[3]: found[4]} if found and found[3] else {}
        better = decision.quality(decision.expert)
        told_apart = len(quotes) == 2 and better in quotes and len(set(quotes.values())) == 2
        yield Quoted(
            rates,
            own=found is not None and found[2] == own,
            theirs=None if said != theirs else found is not None and found[4] == theirs,
            follows=bool(answer and answer.option == quotes[better]) if told_apart else None,
        )


def _line_of(decision: Decision, episode: Episode, reply: str) -> str:
    """What a last reply says of the sources of a decision: there is a line for each, in their order."""
    lines = [line for line in reply.splitlines() if RATED.search(line)]
    place = episode.task.decisions.index(decision)
    return lines[place] if place < len(lines) else ""


def rates_own(episode: Episode, seats: Seats = None) -> Rate:
    """P(the last reply calls the own source as good as it is | it says how good that is).

    Range: [0, 1], more is better; 1/2 at random. Cases: seats and decisions. Source: our own.
    """
    return share([one.rates for one in quoted(episode, seats) if one.rates is not None])


def quotes_own(episode: Episode, seats: Seats = None) -> Rate:
    """P(the last reply quotes the own claim | the claims differ).

    Range: [0, 1], more is better. Cases: seats and decisions. Source: our own.
    """
    return share([one.own for one in quoted(episode, seats) if one.own is not None])


def quotes_theirs(episode: Episode, seats: Seats = None) -> Rate:
    """P(the last reply quotes the partner's claim | the claims differ, and the partner said its own).

    Range: [0, 1], more is better. Cases: seats and decisions. Source: our own.
    """
    return share([one.theirs for one in quoted(episode, seats) if one.theirs is not None])


def follows_quote(episode: Episode, seats: Seats = None) -> Rate:
    """P(the answer is the option that the last reply itself quotes beside the better source | it quotes two).

    Range: [0, 1], more is better; 1/3 to 1/2 at random. Cases: seats and decisions. Source: our own.
    """
    return share([one.follows for one in quoted(episode, seats) if one.follows is not None])


RATES = (rates_own, quotes_own, quotes_theirs, follows_quote)


def played(place: Path) -> Iterator[tuple[str, Sequence[Episode], Callable[[Episode], Collection[Seat]]]]:
    """The episodes of a file, or of each condition of a run or evaluation, with a name and the seats that it is about:
    beside a partner, the team's own."""
    if not place.is_dir():
        yield str(place), read_episodes(place), lambda episode: episode.seats
        return
    for team in read_evaluated(place):
        judged = own_seats if team.beside_partners else lambda episode: episode.seats
        yield f"{team.place}, {team.condition}", list(team.episodes.values()), judged


def own_seats(episode: Episode) -> Collection[Seat]:
    return BESIDE_PARTNERS.judged(episode.seats, episode.task.seed)


def check(name: str, episodes: Sequence[Episode]) -> None:
    """Refuse what is not about two claims.

    Raises:
        RunError: there is no episode, or one of another team than a pair or without a claim for each seat.
    """
    if not episodes:
        raise RunError(f"{name} has no episodes: leave it out")
    if sizes := {len(episode.seats) for episode in episodes} - {2}:
        raise RunError(f"{name} has episodes of {min(sizes)} seats, and this is about pairs: leave it out")
    for episode in episodes:
        if not all(seat in decision.belief for seat, decision in seats_and_decisions(episode)):
            family = episode.task.family
            raise RunError(f"{name} has a task of {family}, which does not tell each seat a claim: leave it out")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("places", type=existing, nargs="+", help="episodes of pairs: files, runs, evaluations")
    places = parser.parse_args().places
    print(f"| episodes | seat | {' | '.join(rate.__name__ for rate in RATES)} |\n|---|---|{'---|' * len(RATES)}")
    for name, episodes, judged in (found for place in places for found in played(place)):
        check(name, episodes)
        for seat in episodes[0].seats:
            of_seat = [episode for episode in episodes if seat in judged(episode)]
            columns = {rate.__name__: bounded(partial(rate, seats=[seat])) for rate in RATES}
            found = measure(of_seat, columns).values() if of_seat else ()
            print(f"| {name} | {seat} | {' | '.join(f'{rate} of {rate.n}' for rate in found)} |")


if __name__ == "__main__":
    sys.exit(run_script(main))
