"""What the viewer draws."""

import re
from importlib import resources

import pytest

from marl_coop.viewer import charts


def test_of_many_runs_no_two_lines_look_the_same_and_their_bands_let_each_other_be_seen():
    points = [{"metric": "j", "on": "training", "update": 1, "value": 0, "low": -1, "high": 1, "n": 9}]
    drawn = charts.curves([{"label": f"run {i}", "curves": points} for i in range(30)])
    (chart,) = drawn["charts"]
    band, line, _ = chart["layer"]
    colour, dash = chart["encoding"]["color"], line["encoding"]["strokeDash"]
    assert colour["scale"]["domain"] == dash["scale"]["domain"] == [f"run {i}" for i in range(30)]
    looks = {(i % charts.COLOURS, *lengths) for i, lengths in enumerate(dash["scale"]["range"])}
    assert len(looks) == 30
    assert {(line["colour"], *line["dashes"]) for line in drawn["lines"]} == looks
    assert band["mark"]["opacity"] * 30 < 0.5


def test_a_run_has_one_colour_in_all_charts_and_one_line_in_their_legend():
    points = [{"metric": metric, "on": "training", "update": 1, "value": 0} for metric in ("success", "j")]
    drawn = charts.curves([{"label": "a", "curves": points[:1]}, {"label": "b", "curves": points}])
    assert [chart["encoding"]["color"]["scale"]["domain"] for chart in drawn["charts"]] == [["a", "b"]] * 2
    assert not any(chart["encoding"]["color"]["legend"] for chart in drawn["charts"])
    assert [line["name"] for line in drawn["lines"]] == ["a", "b"]


def test_the_pages_palette_has_as_many_colours_as_the_charts_count_on():
    script = (resources.files("marl_coop.viewer") / "templates" / "charts.js").read_text()
    palettes = re.findall(r"(?:light|dark): \[(.*)\]", script)
    assert [len(set(palette.split(", "))) for palette in palettes] == [charts.COLOURS] * 2


def test_of_more_terms_than_colours_the_smallest_are_one():
    terms = [{"term": f"t{i}", "updates": [1, 2], "share": [0.1, None]} for i in range(10)]
    drawn = charts.terms({"terms": terms})
    assert drawn["encoding"]["color"]["scale"]["domain"] == [*(f"t{i}" for i in range(7)), "3 others"]
    shares = {point["term"]: point["share"] for point in drawn["data"]["values"]}
    assert shares["3 others"] == pytest.approx(0.3) and sum(shares.values()) == pytest.approx(1.0)
    assert len(charts.terms({"terms": terms[:8]})["encoding"]["color"]["scale"]["domain"]) == 8


@pytest.mark.parametrize(("last", "values"), [(1, [1]), (3, [1, 2, 3]), (40, None)])
def test_the_axis_of_a_few_updates_has_a_tick_for_each(last, values):
    points = [{"metric": "j", "on": "training", "update": i, "value": 0, "low": -1, "high": 1} for i in (1, last)]
    (chart,) = charts.curves([{"label": "run", "curves": points}])["charts"]
    assert chart["encoding"]["x"]["axis"].get("values") == values
