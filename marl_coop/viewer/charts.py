"""Charts of the first screen as Vega-Lite specifications; colours of text and ground are the page's."""

from collections.abc import Mapping, Sequence
from typing import Any

Data = dict[str, Any]

SIDES = ["#8b939b", "#2b8cc9"]  # before and after: both are seen on a light and on a dark ground
CEILING = "#009e73"
COLOURS = 8  # that the page's palette has for lines and terms
TITLES = {
    "success": "Success",
    "j": "J = CDR − CR",
    "cdr": "CDR: deferred rightly",
    "cr": "CR: gave in when right",
    "message_tokens_per_episode": "Message tokens per episode",
    "kl_to_reference": "KL to the reference",
    "entropy": "Entropy",
    "clip_fraction": "Clipped share of tokens",
    "explained_variance": "Explained variance of the critic",
    "value_loss": "Value loss",
    "reward": "Reward per episode",
}
_UPDATE = {"field": "update", "type": "quantitative", "title": "update"}
_TICKS = 8  # of the axis of updates
_BAND = 0.32  # opacity of the bands of all lines together
_SHARES = ("success", "j", "cdr", "cr")
_RESULTS = ("success", "j", "cdr", "cr", "blend_rate", "silence_rate", "parse_rate")


def curves(runs: Sequence[Mapping[str, Any]]) -> Data:
    """A chart of each metric over the updates, with 95 % intervals: lines for each run and for its unseen tasks."""
    points = [_named(point, run["label"]) for run in runs for point in run["curves"]]
    return _over_updates(points, list(dict.fromkeys(point["metric"] for point in points)))


def _named(point: Data, run: str) -> Data:
    return point | {"line": run if point["on"] == "training" else f"{run}, unseen tasks"}


def learning(runs: Sequence[Mapping[str, Any]]) -> Data:
    """A chart of each number that the learner logs of itself: a line for each seat or adapter of each run."""
    several = len(runs) > 1
    points = [
        point | {"line": f"{run['label']} {point['who']}" if several else point["who"]}
        for run in runs
        for point in run["learning"]
    ]
    return _over_updates(points, [name for name in TITLES if any(point["metric"] == name for point in points)])


def _over_updates(points: Sequence[Data], metrics: Sequence[str]) -> Data:
    """`charts`, one for each metric, and `lines`: what they all have as a legend, each its name, colour and dashes."""
    names = list(dict.fromkeys(point["line"] for point in points))
    return {
        "charts": [_lines(metric, [p for p in points if p["metric"] == metric], names) for metric in metrics],
        "lines": [
            {"name": name, "colour": place % COLOURS, "dashes": dashes(place)} for place, name in enumerate(names)
        ],
    }


def _lines(metric: str, points: Sequence[Data], names: Sequence[str]) -> Data:
    scale = {"domain": [-1, 1] if metric == "j" else [0, 1]} if metric in _SHARES else {"zero": True}
    value = {"field": "value", "type": "quantitative", "title": None, "scale": scale}
    series = {"field": "line", "type": "nominal", "legend": None}
    colour = series | {"scale": {"domain": names}}
    dash = series | {"scale": {"domain": names, "range": [dashes(place) for place in range(len(names))]}}
    bounded = any(point.get("low") is not None for point in points)
    shown = ("update", "value", "low", "high", "n") if bounded else ("update", "value")
    tooltip = [{"field": "line", "type": "nominal"}] if len(names) > 1 else []
    tooltip += [{"field": name, "type": "quantitative", "format": ".4~g"} for name in shown]
    layers: list[Data] = [
        {"mark": {"type": "line", "strokeWidth": 2}, "encoding": {"y": value, "strokeDash": dash}},
        {
            "mark": {"type": "circle", "size": 34, "opacity": 1},
            "encoding": {"y": value, "tooltip": tooltip},
        },
    ]
    if bounded:
        band = {"y": value | {"field": "low"}, "y2": {"field": "high"}}
        layers.insert(0, {"mark": {"type": "area", "opacity": _BAND / max(2, len(names))}, "encoding": band})
    return {
        "title": TITLES[metric],
        "data": {"values": list(points)},
        "height": 130,
        "width": "container",
        "encoding": {"x": _UPDATE | {"axis": _whole_ticks(points)}, "color": colour},
        "layer": layers,
    }


def _whole_ticks(points: Sequence[Data]) -> Data:
    """An axis of updates without halves: Vega's smallest step, `tickMinStep`, lets them through on a short axis."""
    updates = [point["update"] for point in points]
    first, last = min(updates), max(updates)
    return {"format": "d"} | ({"values": list(range(first, last + 1))} if last - first < _TICKS else {})


def dashes(place: int) -> list[int]:
    """Lengths of dash and gap, in pixels, of the line at a place from 0: those of one colour differ.

    >>> [dashes(place) for place in (0, 7, 8, 16)]
    [[1, 0], [1, 0], [3, 2], [6, 2]]
    """
    turn = place // COLOURS
    return [3 * turn, 2] if turn else [1, 0]


def results(run: Mapping[str, Any]) -> Data | None:
    """Both sides of each rate with their intervals, and the ceiling as a tick."""
    rows = [row for row in run["results"]["rows"] if row["metric"] in _RESULTS]
    points = [
        {"label": row["label"], "side": label, **row[side]}
        for row in rows
        for side, label in zip(("before", "after"), run["results"]["labels"], strict=True)
        if row[side]
    ]
    if not points:
        return None
    order = [row["label"] for row in rows]
    ceilings = [{"label": row["label"], "ceiling": row["ceiling"]} for row in rows if row["ceiling"] is not None]
    y = {"field": "label", "type": "nominal", "sort": order, "title": None, "axis": {"labelLimit": 300}}
    x = {"field": "value", "type": "quantitative", "title": None}
    labels = run["results"]["labels"]
    side = {"field": "side", "type": "nominal", "sort": labels}
    colour = side | {
        "scale": {"domain": labels, "range": SIDES},
        "legend": {"orient": "bottom", "title": None, "labelLimit": 300},
    }
    offset = {"yOffset": side | {"scale": {"paddingOuter": 0.6}}}
    tooltip = [{"field": name, "type": "nominal"} for name in ("label", "side")]
    tooltip += [{"field": name, "type": "quantitative", "format": ".3~g"} for name in ("value", "low", "high", "n")]
    layers: list[Data] = [
        {
            "mark": {"type": "rule", "strokeWidth": 2, "opacity": 0.55},
            "encoding": {"x": x | {"field": "low"}, "x2": {"field": "high"}, "color": colour, **offset},
        },
        {
            "mark": {"type": "point", "filled": True, "size": 70, "opacity": 1},
            "encoding": {"x": x, "color": colour, "tooltip": tooltip, **offset},
        },
    ]
    if ceilings:
        ceiling = {"field": "ceiling", "type": "quantitative"}
        layers.append(
            {
                "data": {"values": ceilings},
                "mark": {"type": "tick", "thickness": 3, "size": 24, "color": CEILING},
                "encoding": {"x": x | ceiling, "tooltip": [ceiling | {"format": ".3~g"}]},
            }
        )
    return {
        "data": {"values": points},
        "width": "container",
        "height": 34 * len(rows),
        "encoding": {"y": y},
        "layer": layers,
    }


def terms(run: Mapping[str, Any]) -> Data | None:
    """The share of each reward term in the advantages of each update; together 1. Of more terms than there are
    colours the smallest are one."""
    terms = run["terms"]
    most = COLOURS if len(terms) <= COLOURS else COLOURS - 1
    others = f"{len(terms) - most} others"
    shares: dict[tuple[int, int], float] = {}
    for place, term in enumerate(terms):
        for update, share in zip(term["updates"], term["share"], strict=True):
            if share is not None:
                at = min(place, most), update
                shares[at] = shares.get(at, 0.0) + share
    if not shares:
        return None
    names = [term["term"] for term in terms[:most]] + [others] * (len(terms) > most)
    points = [
        {"term": names[place], "update": update, "share": share, "order": place}
        for (place, update), share in shares.items()
    ]
    share = {"field": "share", "type": "quantitative", "stack": "normalize", "title": None, "axis": {"format": "%"}}
    tooltip = [{"field": "term", "type": "nominal"}, {"field": "update", "type": "quantitative"}]
    return {
        "data": {"values": points},
        "width": "container",
        "height": 190,
        "mark": {"type": "bar", "binSpacing": 0},
        "encoding": {
            "x": _UPDATE | {"type": "ordinal", "axis": {"labelAngle": 0, "labelOverlap": True}},
            "y": share,
            "color": {
                "field": "term",
                "type": "nominal",
                "sort": names,
                "scale": {"domain": names},
                "legend": {"orient": "right", "title": None, "symbolType": "square"},
            },
            "order": {"field": "order", "type": "quantitative"},
            "tooltip": [*tooltip, {"field": "share", "type": "quantitative", "format": ".1%"}],
        },
    }
