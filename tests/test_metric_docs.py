"""docs/metrics.md says what the docstrings say, and no cheap policy is better than honest play where it says better."""

from pathlib import Path

import pytest

import envs
from benchmarks.metrics import ENVIRONMENT, better, dictionary, meaning
from envs.scripted.exploits import EXPLOITS, IDEAL
from marl_coop.evaluation.audit import MODES, play_exploits
from rewards.metrics import NAMES, Metric, compare, measure
from rewards.metrics.rate import Rate, bounded
from rewards.metrics.table import METRICS


@pytest.fixture(scope="module")
def played():
    return play_exploits(envs.DesignReview(**ENVIRONMENT), 48)


def test_the_page_has_the_line_of_every_metric():
    page = Path("docs/metrics.md").read_text(encoding="utf-8").splitlines()
    lines = dictionary()
    assert [line for line in page if line in lines] == lines, "run python benchmarks/metrics.py"
    assert len(lines) == len(NAMES)


def test_a_metric_that_does_not_say_its_range_is_refused_by_name(monkeypatch):
    def vague(episode):
        """Something. Cases: episodes. Source: our own."""
        return Rate()

    monkeypatch.setitem(METRICS, "vague", bounded(vague))
    with pytest.raises(ValueError, match="metric vague: the docstring does not say Range"):
        meaning("vague")


def test_better_goes_by_the_direction_of_the_metric():
    up, down = Metric(0.2, 0.1, 0.3, 9), Metric(-0.2, -0.3, -0.1, 9)
    assert better({"success": up, "silence_rate": up, "blend_rate": up}) == ["success"]
    assert better({"success": down, "silence_rate": down, "blend_rate": down}) == ["silence_rate"]
    assert better({"success": Metric(0.2, -0.1, 0.5, 9), "j": Metric(None, None, None, 0)}) == []


@pytest.mark.parametrize("mode", MODES)
def test_no_cheap_policy_is_better_than_honest_play_for_certain(played, mode):
    names = EXPLOITS.keys() - played.left_out.keys()
    wins = {name: better(compare(played.episodes[IDEAL, mode], played.episodes[name, mode])) for name in names}
    assert {name: won for name, won in wins.items() if won} == {}


@pytest.mark.parametrize("policy", ["doubter", "no-prior", "hedger", "sandbagger"])
def test_how_a_prior_is_worded_changes_no_metric_but_those_of_priors_and_words(played, policy):
    honest, worded = (measure(played.episodes[name, "symmetric"]) for name in (IDEAL, policy))
    of_reports = (
        "prior_",
        "kairos_",
        "resistance",
        "brier",
        "ece",
        "auroc",
        "parse_rate",
        "expectation_brier",
        "message_share",
        "generated_",
    )
    same = [name for name in NAMES if not name.startswith(of_reports) and not name.endswith("_stated")]
    assert {"j", "cdr", "cr", "blend_rate", "gap_to_best_member", "elr", "silence_rate"} <= set(same)
    assert {name: worded[name] for name in same} == {name: honest[name] for name in same}
