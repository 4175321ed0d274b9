"""One episode in the terminal: the same data as on the page."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, groupby
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from envs.core.episode import StopReason
from marl_coop.viewer.episodes import KINDS, PHASES
from marl_coop.viewer.text import Spans

Data = Mapping[str, Any]

SEATS = ("green", "magenta", "yellow", "cyan", "bright_green", "bright_magenta", "bright_yellow", "bright_cyan")
LANE = 38  # columns of a terminal that a seat needs beside another
RIGHT, WRONG = "blue", "dark_orange"
FEW = 3  # stances of a turn that are listed with it; more of them stand in the table of decisions alone
MERGED = "merged"
HELD = ("was told", "before the talk", "after", "acted on")


def episode(row: Data, detail: Data, width: int, everything: bool = False) -> Group:
    """Head, decisions, lanes and result of an episode.

    Args:
        row: what `marl_coop.viewer.episodes.row` gives.
        detail: what `marl_coop.viewer.episodes.detail` gives.
        width: columns of the terminal.
        everything: also what each seat was told in each turn, the sampled tokens with their log-probabilities, and what
            each seat's branch changes.
    """
    return Group(
        _head(row, detail),
        *([_decisions(detail, width), *_options(detail)] if detail["decisions"] else []),
        _lanes(detail, width, everything),
        *_made(detail, everything),
        *_memory(detail),
    )


def _head(row: Data, detail: Data) -> Text:
    facts = [
        f"result U {detail['utility']:.2f}",
        f"{detail['tests']['passed']} of {detail['tests']['total']} tests" if detail["tests"]["total"] else "",
        f"alone {detail['solo_utility']:.2f}" if detail["solo_utility"] is not None else "",
        f"{row['said']} message tokens, {row['written']} written",
        f"{_paid(detail)} {row['reward']:+.2f}" if row["reward"] is not None else "",
        "" if detail["stop"] == StopReason.FINISHED else detail["stop"].replace("_", " "),
    ]
    kinds = f"\n{', '.join(KINDS[kind].name for kind in row['kinds'])}" if row["kinds"] else ""
    solved = _verdict(detail["success"], "solved" if detail["success"] else "not solved")
    told = ", ".join(filter(None, facts))
    return Text.assemble((row["id"], "bold"), f"  {row['task']}\n", solved, f"  {told}{kinds}\n{detail['detail']}")


def _paid(detail: Data) -> str:
    return "paid" if detail["paid"] else "would be paid"


def _verdict(right: bool | None, text: str) -> tuple[str, str]:
    if right is None:
        return text, ""
    return f"{'✓' if right else '✗'} {text}", RIGHT if right else WRONG


def _decisions(detail: Data, width: int) -> RenderableType:
    """A table of who held what and when; where that would break words, a paragraph for each seat."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for name in ("decision", "right", "seat", *HELD, ""):
        table.add_column(name, header_style="dim")
    for decision in detail["decisions"]:
        for i, seat in enumerate(decision["seats"]):
            table.add_row(
                Text("" if i else decision["id"]),
                Text("" if i else "\n".join(_right(decision))),
                Text(detail["seats"][i]["seat"], _colour(i)),
                *_held(seat),
                Text(KINDS[seat["kind"]].name if seat["kind"] else ""),
            )
    fits = Console(width=10**6).measure(table).maximum <= width
    return table if fits else Group(*_paragraphs(detail))


def _paragraphs(detail: Data) -> Iterator[RenderableType]:
    for decision in detail["decisions"]:
        yield Text(", right: ".join((decision["id"], *_right(decision)[:1])), "bold")
        yield from (Text(truth) for truth in _right(decision)[1:])
        for i, seat in enumerate(decision["seats"]):
            text, says = Text(detail["seats"][i]["seat"], _colour(i)), " "
            for when, held in zip(HELD, _held(seat), strict=True):
                if held:
                    text.append(f"{says}{when} ", "dim").append(held)
                    says = ", "
            text.append(f": {KINDS[seat['kind']].name}" if seat["kind"] else "")
            yield Padding(text, (0, 0, 0, 2))


def _right(decision: Data) -> list[str]:
    """What is right, and of a number the truth with its tolerance."""
    return [text for text in (decision["best"], decision["truth"]) if text is not None]


def _held(seat: Data) -> list[Text]:
    """What a seat held at each time of `HELD`; empty where that is nothing."""
    told, acted = seat["told"], seat["acted"]
    return [
        Text(*_verdict(seat["told_right"], f"{told} ({seat['source']})")) if told else Text(),
        *(_stance(seat[when]) for when in ("before", "after")),
        Text(*_verdict(seat["acted_right"], acted)) if acted else Text(),
    ]


def _options(detail: Data) -> Iterator[Text]:
    """The options of each decision, once where several have the same."""
    options: dict[str, list[str]] = {}
    for decision in detail["decisions"]:
        names = [f"{name} (blend)" if name in decision["blends"] else name for name in decision["options"]]
        more = f" and {decision['more']} more" if decision["more"] else ""
        options.setdefault(", ".join(names) + more, []).append(decision["id"])
    for names, decisions in options.items():
        yield Text(f"options of {', '.join(decisions)}: {names}", "dim")


def _stance(stance: Data | None) -> Text:
    if stance is None:
        return Text("–")
    sure = "" if stance["confidence"] is None else f" {stance['confidence']:.0%}"
    return Text(*_verdict(stance["right"], f"{stance['option']}{sure}"))


def _lanes(detail: Data, width: int, everything: bool) -> Table:
    """A column for each seat where there is room, with its brief and its turns, those of a round beside each other."""
    seats = [seat["seat"] for seat in detail["seats"]]
    briefs = [_brief(detail, place) for place in range(len(seats))]
    turns = [[_turn(turn, seats.index(turn["agent"]), everything) for turn in turns] for turns in _rounds(detail)]
    if width < LANE * len(seats):
        lane = Table.grid(expand=True)
        lane.add_column(overflow="fold")
        for panel in (*briefs, *chain.from_iterable(turns)):
            lane.add_row(panel)
        return lane
    lanes = Table.grid(expand=True)
    for _ in seats:
        lanes.add_column(ratio=1, overflow="fold")
    lanes.add_row(*briefs)
    for of_round, panels in zip(_rounds(detail), turns, strict=True):
        beside: list[RenderableType] = [""] * len(seats)
        for turn, panel in zip(of_round, panels, strict=True):
            beside[seats.index(turn["agent"])] = panel
        lanes.add_row(*beside)
    return lanes


def _rounds(detail: Data) -> list[list[Data]]:
    """The turns of each round; a seat acts once in a round."""
    return [list(turns) for _, turns in groupby(detail["turns"], lambda turn: turn["round"])]


def _brief(detail: Data, place: int) -> Panel:
    seat = detail["seats"][place]
    body = Text(seat["brief"])
    if seat["player"] not in ("", seat["seat"]):
        body.append(f"\nplayed by {seat['player']}", "dim")
    if seat["reward"] is not None:
        body.append(f"\n{_paid(detail)} {seat['reward']:+.2f}", "dim")
    return Panel(body, title=Text(seat["seat"], "bold"), title_align="left", border_style=_colour(place))


def _colour(place: int) -> str:
    return SEATS[place % len(SEATS)]


def _turn(turn: Data, place: int, everything: bool) -> Panel:
    body = Text()
    body.append(f"{PHASES[turn['phase']]}\n", "dim")
    if everything:
        body.append(f"{turn['heard']}\n\n", "dim")
    body.append(turn["reply"] or "nothing")
    if turn["truncated"]:
        body.append("\ncut off", WRONG)
    if turn["error"]:
        body.append(f"\ncannot be read: {turn['error'].replace('_', ' ')}", WRONG)
    if everything and turn["tokens"]:
        body.append("\ntokens, with log-probabilities in nats: ", "dim")
        for token, logprob in zip(turn["tokens"], turn["logprobs"], strict=False):
            body.append(token.replace("\n", "⏎")).append(f" {_number(logprob)} ", "dim")
    if turn["message"] and turn["message"] != turn["reply"].strip():
        body.append("\npartners see: ", "dim").append(turn["message"])
    for stance in turn["stances"] if len(turn["stances"]) <= FEW else ():
        body.append("\nholds ", "dim").append(_stance(stance))
    for act in turn["acts"]:
        body.append("\n" + " ".join(filter(None, (act["kind"], act["decision"], act["option"]))), "dim")
    for told, entries in (("reads", turn["reads"]), ("may not write before it reads", turn["refused"])):
        if entries:
            body.append(f"\n{told} {', '.join(f'#{entry}' for entry in entries)}", "dim")
    for term, value in turn["terms"].items():
        body.append(f"\n{term} {value:+.{3 if abs(value) < 0.1 else 2}f}", RIGHT if value > 0 else WRONG)
    if turn["advantage"] is not None:
        learned = {name: _number(turn[of]) for name, of in (("value", "value"), ("return", "target"))}
        body.append("\n" + ", ".join(f"{name} {value}" for name, value in learned.items()), "dim")
        body.append(f", advantage {turn['advantage']:+.2f}", "dim")
    prices = [f"{turn['said']} {'token' if turn['said'] == 1 else 'tokens'} said"] if turn["said"] else []
    prices += [f"{turn['memory']} of memory"] if turn["memory"] else []
    title = ", ".join([turn["agent"], *prices])
    return Panel(body, title=Text(title), title_align="left", border_style=_colour(place))


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _made(detail: Data, everything: bool) -> Iterator[RenderableType]:
    """What the seats made: their code, or the merge as a diff; and the hidden tests."""
    if merge := detail["merge"]:
        lost = "" if MERGED in merge["sides"] else "; there is no merged code, so what each branch changes:"
        yield Text(f"merge: {'conflict' if merge['conflict'] else 'no conflict'}, {merge['policy']}{lost}", "bold")
        for side, files in merge["sides"].items():
            if side != MERGED:
                yield Text(f"{side}'s branch, alone worth {_number(merge['worth'].get(side))}", "bold")
            if side == MERGED or everything or lost:
                for file in files:
                    yield Text(file["path"], "underline")
                    yield _diff(file["lines"])
    for turn in () if merge else detail["turns"]:
        if turn["work"]:
            yield Text(f"{turn['agent']} made", "bold")
            yield Text("\n".join(map(_plain, turn["work"])))
    yield from _tests(detail["tests"])
    for forecast in detail["forecasts"]:
        met = ", ".join([*forecast["files"], *forecast["symbols"]]) or "nothing"
        yield Text(f"after round {forecast['round']} a merge would have met: {met}", "dim")


def _tests(tests: Data) -> Iterator[Text]:
    for seat, parts in tests["parts"].items():
        alone, merged = ("".join("✓" if right else "✗" for right in parts[when]) for when in ("alone", "merged"))
        yield Text(f"hidden tests of {seat}: on its part alone {alone}, after the merge {merged}", "bold")
        for name, *passed in zip(parts["names"], alone, merged, strict=False):
            yield Text(f"{' '.join(passed)} {name}")


def _memory(detail: Data) -> Iterator[Text]:
    if entries := detail["memory"]:
        yield Text(f"shared memory, {len(entries)} entries", "bold")
        yield from (Text(entry["line"]) for entry in entries)


def _diff(lines: Sequence[Mapping[str, Any]]) -> Text:
    colours = {"+": RIGHT, "-": WRONG, "@": "dim"}
    text = Text()
    for line in lines:
        text.append(f"{line['sign']} {_plain(line['spans'])}", colours.get(line["sign"], ""))
        text.append(f"  {' '.join(line['by'])}\n" if line["by"] else "\n", "dim")
    return text


def _plain(spans: Spans) -> str:
    return "".join(text for _, text in spans)
