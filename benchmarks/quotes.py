"""What stands between two claims and a last reply: whether a seat quotes them, and whether it follows its quotes.

    python benchmarks/quotes.py runs/first/before.jsonl runs/first/after.jsonl evaluations/transfer/episodes/*.jsonl

The warm-up's demonstrations begin a last reply with `Mine is doubtful: 61. Theirs is reliable: 57.` and choose at
random. Of seats that were told different things this prints, for each file of episodes, how many quote their own claim,
how many quote the partner's if that was said, and how many answer what they themselves quote beside the better source.
"""

import argparse
import re
import sys
from collections.abc import Iterator
from typing import NamedTuple

from envs.core.episode import Episode, Phase
from envs.core.posterior import named_option
from marl_coop.cli import run_script
from marl_coop.cli.arguments import existing
from marl_coop.runs.records import read_episodes
from rewards.metrics import Rate, measure
from rewards.metrics.rate import bounded, share

QUOTES = re.compile(r"Mine is ([^:\n]+): (.*?)\.(?: Theirs is ([^:\n]+): (.*?)\.)?\s*$", re.MULTILINE)


class Quoted(NamedTuple):
    """Whether a seat that was told otherwise than its partner quotes both, and what it makes of its quotes.

    `theirs` is None where the partner did not say its claim, `follows` where the quotes do not say which option the
    better source has.
    """

    own: bool
    theirs: bool | None
    follows: bool | None


def quoted(episode: Episode) -> Iterator[Quoted]:
    """One for each seat of a pair and decision on which the claims differ."""
    for decision in episode.task.decisions:
        for seat in episode.seats:
            (other,) = episode.partners_of(seat)
            own, theirs = decision.belief[seat], decision.belief[other]
            if own == theirs:
                continue
            said = named_option([turn.message for turn in episode.turns_of(other)], decision)
            reply = next((turn.reply for turn in episode.turns_of(seat) if turn.phase is Phase.FINAL), "")
            found, answer = QUOTES.search(reply), episode.final(seat, decision.id)
            quotes = {found[1]: found[2], found[3]: found[4]} if found else {}
            better = decision.quality(decision.expert)
            told_apart = len(quotes) == 2 and better in quotes and len(set(quotes.values())) == 2
            yield Quoted(
                own=found is not None and found[2] == own,
                theirs=None if said != theirs else found is not None and found[4] == theirs,
                follows=bool(answer and answer.option == quotes[better]) if told_apart else None,
            )


def quotes_own(episode: Episode) -> Rate:
    """P(the last reply quotes the own claim | the claims differ).

    Range: [0, 1], more is better. Cases: seats and decisions. Source: our own.
    """
    return share([one.own for one in quoted(episode)])


def quotes_theirs(episode: Episode) -> Rate:
    """P(the last reply quotes the partner's claim | the claims differ, and the partner said its own).

    Range: [0, 1], more is better. Cases: seats and decisions. Source: our own.
    """
    return share([one.theirs for one in quoted(episode) if one.theirs is not None])


def follows_quote(episode: Episode) -> Rate:
    """P(the answer is the option that the last reply itself quotes beside the better source | it quotes two).

    Range: [0, 1], more is better; 1/3 to 1/2 at random. Cases: seats and decisions. Source: our own.
    """
    return share([one.follows for one in quoted(episode) if one.follows is not None])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=existing, nargs="+", help="episodes of pairs, such as after.jsonl of a run")
    files = parser.parse_args().files
    columns = {rate.__name__: bounded(rate) for rate in (quotes_own, quotes_theirs, follows_quote)}
    print(f"| episodes | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for file in files:
        found = measure(read_episodes(file), columns)
        print(f"| {file} | {' | '.join(f'{found[name]} of {found[name].n}' for name in columns)} |")


if __name__ == "__main__":
    sys.exit(run_script(main))
