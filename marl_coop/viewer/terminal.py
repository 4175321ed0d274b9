"""One episode in the terminal: the same data as on the page."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, groupby
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from marl_coop.viewer.text import Spans

Data = Mapping[str, Any]

SEATS = ("green", "magenta", "yellow", "cyan", "bright_green", "bright_magenta", "bright_yellow", "bright_cyan")
LANE = 38  # columns of a terminal that a seat needs beside another
RIGHT, WRONG = "blue", "dark_orange"


def episode(row: Data, detail: Data, width: int) -> Group:
    """Head, decisions, lanes and result of an episode.

    Args:
        row: what `marl_coop.viewer.episodes.row` gives.
        detail: what `marl_coop.viewer.episodes.detail` gives.
        width: columns of the terminal.
    """
    return Group(_head(row, detail), _decisions(detail), _lanes(detail, width), *_made(detail))


def _head(row: Data, detail: Data) -> Text:
    told = f"result U {detail['utility']:.2f}, {row['said']} message tokens, {row['written']} written"
    if row["reward"] is not None:
        told += f", {'paid' if detail['paid'] else 'would be paid'} {row['reward']:+.2f}"
    kinds = f"\n{', '.join(row['kinds'])}" if row["kinds"] else ""
    solved = _verdict(detail["success"], "solved" if detail["success"] else "not solved")
    return Text.assemble((row["id"], "bold"), f"  {row['task']}\n", solved, f"  {told}{kinds}\n{detail['detail']}")


def _verdict(right: bool | None, text: str) -> tuple[str, str]:
    if right is None:
        return text, ""
    return f"{'✓' if right else '✗'} {text}", RIGHT if right else WRONG


def _decisions(detail: Data) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for name in ("decision", "right", "seat", "was told", "before the talk", "after", "acted on", ""):
        table.add_column(name, header_style="dim", overflow="fold")
    for decision in detail["decisions"]:
        for i, seat in enumerate(decision["seats"]):
            name = detail["seats"][i]["seat"]
            table.add_row(
                Text("" if i else decision["id"]),
                Text("" if i else decision["best"] or ""),
                Text(name, _colour(i)),
                Text(*_verdict(seat["told_right"], f"{seat['told']} ({seat['source']})")) if seat["told"] else "",
                *(_stance(seat[when]) for when in ("before", "after")),
                Text(*_verdict(seat["acted_right"], seat["acted"])) if seat["acted"] else "",
                Text(seat["kind"] or ""),
            )
    return table


def _stance(stance: Data | None) -> Text:
    return Text(*_verdict(stance["right"], f"{stance['option']} {stance['confidence']:.0%}")) if stance else Text("–")


def _lanes(detail: Data, width: int) -> Table:
    """A column for each seat where there is room, with its brief and its turns, those of a round beside each other."""
    seats = [seat["seat"] for seat in detail["seats"]]
    briefs = [_brief(seat, place) for place, seat in enumerate(detail["seats"])]
    turns = [[_turn(turn, seats.index(turn["agent"])) for turn in turns] for turns in _rounds(detail)]
    if width < LANE * len(seats):
        lane = Table.grid(expand=True)
        for panel in (*briefs, *chain.from_iterable(turns)):
            lane.add_row(panel)
        return lane
    lanes = Table.grid(expand=True)
    for _ in seats:
        lanes.add_column(ratio=1)
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


def _brief(seat: Data, place: int) -> Panel:
    title = seat["seat"] if seat["player"] in ("", seat["seat"]) else f"{seat['seat']}: {seat['player']}"
    return Panel(Text(seat["brief"]), title=Text(title, "bold"), title_align="left", border_style=_colour(place))


def _colour(place: int) -> str:
    return SEATS[place % len(SEATS)]


def _turn(turn: Data, place: int) -> Panel:
    body = Text(turn["reply"] or "nothing")
    if turn["error"]:
        body.append(f"\ncannot be read: {turn['error']}", WRONG)
    if turn["message"] and turn["message"] != turn["reply"].strip():
        body.append("\npartners see: ", "dim").append(turn["message"])
    for term, value in turn["terms"].items():
        body.append(f"\n{term} {value:+.2f}", RIGHT if value > 0 else WRONG)
    if turn["advantage"] is not None:
        body.append(f"\nvalue {turn['value']:.2f}, advantage {turn['advantage']:+.2f}", "dim")
    said = f", {turn['said']} {'token' if turn['said'] == 1 else 'tokens'}" if turn["said"] else ""
    title = Text(f"{turn['agent']} {turn['phase']}{said}")
    return Panel(body, title=title, title_align="left", border_style=_colour(place))


def _made(detail: Data) -> Iterator[RenderableType]:
    """The merge as a diff, and the hidden tests."""
    if merge := detail["merge"]:
        yield Text(f"merge: {'conflict' if merge['conflict'] else 'no conflict'}, {merge['policy']}", "bold")
        for file in merge["sides"]["merged"]:
            yield Text(file["path"], "underline")
            yield _diff(file["lines"])
    tests = detail["tests"]
    if tests["total"]:
        yield Text(f"{tests['passed']} of {tests['total']} tests", "bold")
    for seat, parts in tests["parts"].items():
        alone, merged = ("".join("✓" if right else "✗" for right in parts[when]) for when in ("alone", "merged"))
        yield Text(f"{seat}: alone {alone}, after the merge {merged}")


def _diff(lines: Sequence[Mapping[str, Any]]) -> Text:
    colours = {"+": RIGHT, "-": WRONG, "@": "dim"}
    text = Text()
    for line in lines:
        text.append(f"{line['sign']} {_plain(line['spans'])}\n", colours.get(line["sign"], ""))
    return text


def _plain(spans: Spans) -> str:
    return "".join(text for _, text in spans)
