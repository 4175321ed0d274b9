"""Records on disk: what is read again, and what is refused."""

import json
from dataclasses import replace

import pytest
from test_reward_terms import decide, play

from envs.core.episode import Episode

EPISODE = play(decide(), priors=[[("a", 0.9)], [("b", 0.9)]], talk=[[5], [5]], committed=[["a"], ["a"]])


def changed(change):
    """The record as JSON after a change of the plain data."""
    raw = json.loads(EPISODE.to_json())
    change(raw)
    return json.dumps(raw)


def test_half_of_a_surrogate_pair_in_a_reply_survives():
    episode = replace(EPISODE, turns=(replace(EPISODE.turns[0], reply="a\ud83d"), *EPISODE.turns[1:]))
    assert Episode.from_json(episode.to_json()) == episode


def test_a_record_without_the_fields_that_a_later_version_added_is_read():
    assert Episode.from_json(changed(lambda raw: raw["outcome"].pop("forecasts"))) == EPISODE


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (changed(lambda raw: raw["turns"][0].update(mood="good")), r"turns\.0\.mood: Unexpected keyword argument"),
        (changed(lambda raw: raw["task"].pop("id")), r"task\.id: Field required"),
        (changed(lambda raw: raw["turns"][1].update(phase="lunch")), r"turns\.1\.phase: Input should be 'stance'"),
        (changed(lambda raw: raw["outcome"].update(utility="much")), r"outcome\.utility: Input should be a valid numb"),
        ("[]", "the text: Input should be a dictionary"),
        ("{", "the text is no JSON"),
    ],
)
def test_what_is_no_record_is_refused_in_one_line_that_says_where(text, message):
    with pytest.raises(ValueError, match=rf"^Episode\.from_json: {message}[^\n]*$"):
        Episode.from_json(text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: raw["turns"][0].update(agent="agent_9"), "turns: 'agent_9' is no seat of the task; its seats are"),
        (lambda raw: raw["outcome"].update(utility=float("nan")), "outcome.utility: nan is no finite number"),
        (
            lambda raw: raw["outcome"].update(committed={}),
            "outcome.committed: there is nothing of 'auth' for 'agent_0'",
        ),
    ],
)
def test_a_record_whose_parts_do_not_fit_each_other_is_refused(change, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        Episode.from_json(changed(change))
